//! What of a layer outlives this process: keys and numbers, in the vault.
//!
//! An entry is changed word by word, and a kill may come between any two. So it says of itself
//! whether it can be relied on, and what is known at each moment is arranged so that a kernel's
//! counters of bytes tell which of two states holds:
//!
//! - HTTP: the entry is that of the moment at which the last answer is out whole. It is written
//!   before that answer goes out; until it has, the counters differ from those in the slot.
//! - Raw TCP: the entry is that of the moment between two batches, with the batch that is under way
//!   in each direction. If the source's counter has passed the batch, it is over; if not, its bytes
//!   are still in the source's socket, and the destination's counter says how much of what becomes
//!   of them is out. Sealing them anew gives the same bytes.
//!
//! ```text
//! word 0       whether the entry holds
//!      1       what the layers are, a byte each
//!      2..30   per side: numbers received and sent, two keys of at most 48 bytes
//!      30..40  per direction: the batch under way
//!      40..42  per side: where our close_notify stands in what was written, + 1
//! ```

use hitless_carry::vault::Entry;
use hitless_proto::tls::{Material, Records, Role, Suite};
use zeroize::Zeroizing;

const STATE: usize = 0;
const LAYERS: usize = 1;
const SIDES: usize = 2;
const SIDE_WORDS: usize = 14;
const KEY_WORDS: usize = 6;
const BATCHES: usize = 30;
const BATCH_WORDS: usize = 5;
const CLOSINGS: usize = 40;

const HOLDS: u64 = 1;
const CHANGES: u64 = 2;

/// In the byte of a layer: it is there; it will be, once a handshake is over; TLS 1.3.
const PRESENT: u64 = 1;
const EXPECTED: u64 = 2;
const TLS13: u64 = 4;
const SUITE_SHIFT: u32 = 4;

/// A batch that is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct KeptBatch {
    /// Bytes taken out of the source's socket before it.
    pub(super) read_at: u64,
    /// Bytes of the source that it stands for; 0: there is none.
    pub(super) source: u64,
    /// Bytes written to the destination before it.
    pub(super) written_at: u64,
    /// Numbers of the source's next record received, and of the destination's next one sent, behind
    /// it.
    pub(super) received_after: u64,
    pub(super) sent_after: u64,
}

pub(super) fn holds(entry: &Entry) -> bool {
    entry.load(STATE) == HOLDS
}

/// Until [`now_holds`] nothing in it can be relied on.
pub(super) fn changes(entry: &Entry) {
    entry.store(STATE, CHANGES);
}

pub(super) fn now_holds(entry: &Entry) {
    entry.store(STATE, HOLDS);
}

/// A layer is yet to come: its handshake is not over.
pub(super) fn expect_layer(entry: &Entry, side: usize) {
    set_byte(entry, side, EXPECTED);
}

pub(super) fn expects_layer(entry: &Entry, side: usize) -> bool {
    byte(entry, side) == EXPECTED
}

pub(super) fn forget_layer(entry: &Entry, side: usize) {
    set_byte(entry, side, 0);
}

/// `sent`: the number of the next record that we send, if it is not what it is now.
pub(super) fn put_layer(entry: &Entry, side: usize, records: &Records, sent: Option<u64>) {
    let suite = match records.suite() {
        Suite::Aes128Gcm => 0,
        Suite::Aes256Gcm => 1,
        Suite::ChaCha20Poly1305 => 2,
    };
    let at = SIDES + side * SIDE_WORDS;
    let mut is_13 = 0;
    for (half, (material, sequence)) in records.keys().into_iter().enumerate() {
        let number = if half == 1 { sent } else { None };
        entry.store(at + half, number.unwrap_or(sequence));
        let mut bytes = Zeroizing::new([0u8; KEY_WORDS * 8]);
        match material {
            Material::Secret(secret) => {
                is_13 = TLS13;
                bytes[..secret.len()].copy_from_slice(secret);
            }
            Material::Key { key, iv } => {
                bytes[..key.len()].copy_from_slice(key);
                bytes[key.len()..key.len() + iv.len()].copy_from_slice(iv);
            }
        }
        let at = at + 2 + half * KEY_WORDS;
        for (word, bytes) in bytes.chunks_exact(8).enumerate() {
            let bytes = bytes.try_into().expect("eight bytes");
            entry.store(at + word, u64::from_le_bytes(bytes));
        }
    }
    set_byte(entry, side, PRESENT | is_13 | suite << SUITE_SHIFT);
}

/// `None`: there is none, or nothing that we wrote.
pub(super) fn layer(entry: &Entry, side: usize, role: Role) -> Option<Records> {
    let about = byte(entry, side);
    if about & PRESENT == 0 {
        return None;
    }
    let suite = match about >> SUITE_SHIFT {
        0 => Suite::Aes128Gcm,
        1 => Suite::Aes256Gcm,
        2 => Suite::ChaCha20Poly1305,
        _ => return None,
    };
    let at = SIDES + side * SIDE_WORDS;
    let half = |half: usize| {
        let mut bytes = Zeroizing::new([0u8; KEY_WORDS * 8]);
        let at_key = at + 2 + half * KEY_WORDS;
        for (word, bytes) in bytes.chunks_exact_mut(8).enumerate() {
            bytes.copy_from_slice(&entry.load(at_key + word).to_le_bytes());
        }
        let material = if about & TLS13 != 0 {
            Material::Secret(bytes[..suite.secret_bytes()].to_vec().into())
        } else {
            let (key, rest) = bytes.split_at(suite.key_bytes());
            Material::Key {
                key: key.to_vec().into(),
                iv: *rest.first_chunk().expect("a key of 32 bytes leaves 16"),
            }
        };
        (material, entry.load(at + half))
    };
    Records::new(role, suite, half(0), half(1))
}

/// A batch begins: from here on it counts.
pub(super) fn put_batch(entry: &Entry, from: usize, batch: KeptBatch) {
    let at = BATCHES + from * BATCH_WORDS;
    entry.store(at, batch.read_at);
    entry.store(at + 2, batch.written_at);
    entry.store(at + 3, batch.received_after);
    entry.store(at + 4, batch.sent_after);
    entry.store(at + 1, batch.source);
}

/// A batch is over: what came behind it is what is.
pub(super) fn end_batch(entry: &Entry, from: usize) {
    let batch = batch(entry, from);
    let of = |side: usize| SIDES + side * SIDE_WORDS;
    entry.store(of(from), batch.received_after);
    entry.store(of(1 - from) + 1, batch.sent_after);
    entry.store(BATCHES + from * BATCH_WORDS + 1, 0);
}

pub(super) fn batch(entry: &Entry, from: usize) -> KeptBatch {
    let at = BATCHES + from * BATCH_WORDS;
    KeptBatch {
        read_at: entry.load(at),
        source: entry.load(at + 1),
        written_at: entry.load(at + 2),
        received_after: entry.load(at + 3),
        sent_after: entry.load(at + 4),
    }
}

/// Our `close_notify` to a side stands behind so many bytes.
pub(super) fn put_closing(entry: &Entry, side: usize, written: u64) {
    entry.store(CLOSINGS + side, written + 1);
}

pub(super) fn closing(entry: &Entry, side: usize) -> Option<u64> {
    entry.load(CLOSINGS + side).checked_sub(1)
}

fn byte(entry: &Entry, side: usize) -> u64 {
    entry.load(LAYERS) >> (8 * side) & 0xff
}

fn set_byte(entry: &Entry, side: usize, value: u64) {
    let others = entry.load(LAYERS) & !(0xff << (8 * side));
    entry.store(LAYERS, others | value << (8 * side));
}
