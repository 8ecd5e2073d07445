//! Session tickets, whose keys lie in the vault: a client resumes its session whatever program
//! serves by then, also after a crash.
//!
//! A ticket is sealed with the newest of three keys, which follow each other every eight hours. It
//! is bound to its virtual server and to what that asks of clients, so that nobody comes in at one
//! by what was proved to another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{Context, SHA256};
use hitless_carry::vault::{TICKET_WORDS, Vault};
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

const KEYS: usize = 3;
const ROTATE_S: u64 = 8 * 3_600;
/// For as long at least the key of a ticket is known.
const LIFETIME_S: u32 = (KEYS as u32 - 1) * ROTATE_S as u32;
const NAME_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
/// The time of its making, its name, its bytes.
const KEY_WORDS: usize = 1 + (NAME_BYTES + KEY_BYTES) / 8;
/// Odd while the keys change.
const VERSION: usize = 0;
const FIRST: usize = 1;
/// A change takes microseconds.
const TRIES_MAX: usize = 1_000;

const _: () = assert!(FIRST + KEYS * KEY_WORDS <= TICKET_WORDS);

/// Makes and takes the tickets of one virtual server.
pub(super) struct Tickets {
    vault: Arc<Vault>,
    scope: [u8; 32],
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

struct Key {
    made_s: u64,
    name: [u8; NAME_BYTES],
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl Tickets {
    /// `scope`: the virtual server, and what it asks of clients.
    pub(super) fn new(vault: Arc<Vault>, scope: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in scope {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut scope = [0; 32];
        scope.copy_from_slice(context.finish().as_ref());
        Self { vault, scope }
    }

    /// The keys, the newest first. None: somebody changes them for too long.
    fn keys(&self) -> Option<Vec<Key>> {
        let words = self.vault.tickets();
        for _ in 0..TRIES_MAX {
            let version = words[VERSION].load(Ordering::Acquire);
            let keys = read(words);
            if version.is_multiple_of(2) && version == words[VERSION].load(Ordering::Acquire) {
                return Some(keys);
            }
            std::hint::spin_loop();
        }
        None
    }

    /// The newest key, made if the one before is too old.
    fn newest(&self) -> Option<Key> {
        let now_s =
            rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse).tv_sec as u64;
        let is_fresh = |key: &Key| now_s < key.made_s + ROTATE_S && key.made_s <= now_s + ROTATE_S;
        let newest = |keys: Vec<Key>| keys.into_iter().next();
        if let Some(key) = newest(self.keys()?)
            && is_fresh(&key)
        {
            return Some(key);
        }
        let rotated = self.vault.with_tickets(|words| {
            // Another one may have been faster.
            if read(words).first().is_none_or(|key| !is_fresh(key)) {
                rotate(words, now_s)
            } else {
                Some(())
            }
        });
        // While somebody else does it, the one before will do.
        let _ = rotated;
        newest(self.keys()?)
    }

    fn aad(&self, name: &[u8; NAME_BYTES]) -> Aad<Vec<u8>> {
        Aad::from([&name[..], &self.scope].concat())
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.newest()?;
        let mut nonce = [0; NONCE_BYTES];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let sealing = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key.bytes[..]).ok()?);
        let unique = Nonce::assume_unique_for_key(nonce);
        let sealed_in_place =
            sealing.seal_in_place_append_tag(unique, self.aad(&key.name), &mut sealed);
        sealed_in_place.ok()?;
        Some([&key.name[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let key = self.keys()?.into_iter().find(|key| key.name == *name)?;
        let opening = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key.bytes[..]).ok()?);
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut plain = sealed.to_vec();
        let opened = opening.open_in_place(nonce, self.aad(name), &mut plain);
        let count = opened.ok()?.len();
        plain.truncate(count);
        Some(plain)
    }
}

/// Keys that were made, the newest first.
fn read(words: &[AtomicU64; TICKET_WORDS]) -> Vec<Key> {
    let key = |number: usize| {
        let at = FIRST + number * KEY_WORDS;
        let made_s = words[at].load(Ordering::Acquire);
        let mut bytes = Zeroizing::new([0u8; NAME_BYTES + KEY_BYTES]);
        for (word, bytes) in bytes.chunks_exact_mut(8).enumerate() {
            bytes.copy_from_slice(&words[at + 1 + word].load(Ordering::Acquire).to_le_bytes());
        }
        let (name, key) = bytes.split_first_chunk().expect("a name and a key");
        Key {
            made_s,
            name: *name,
            bytes: Zeroizing::new(*key.first_chunk().expect("a key")),
        }
    };
    let keys = (0..KEYS).map(key);
    keys.filter(|key| key.made_s > 0).collect()
}

/// A new key in front; the oldest goes.
fn rotate(words: &[AtomicU64; TICKET_WORDS], now_s: u64) -> Option<()> {
    let mut fresh = Zeroizing::new([0u8; NAME_BYTES + KEY_BYTES]);
    aws_lc_rs::rand::fill(&mut fresh[..]).ok()?;
    // One that died in here has left it odd.
    let version = words[VERSION].load(Ordering::Relaxed) | 1;
    words[VERSION].store(version, Ordering::Release);
    for at in (FIRST..FIRST + (KEYS - 1) * KEY_WORDS).rev() {
        let word = words[at].load(Ordering::Acquire);
        words[at + KEY_WORDS].store(word, Ordering::Release);
    }
    words[FIRST].store(now_s, Ordering::Release);
    for (word, bytes) in fresh.chunks_exact(8).enumerate() {
        let bytes = bytes.try_into().expect("eight bytes");
        words[FIRST + 1 + word].store(u64::from_le_bytes(bytes), Ordering::Release);
    }
    words[VERSION].store(version + 1, Ordering::Release);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_in_every_program_and_for_its_virtual_server_alone() {
        let vault = Arc::new(Vault::create(1, 1).unwrap());
        let other = vault.file().try_clone_to_owned().unwrap();
        let other = Arc::new(Vault::map(other).unwrap());
        let first = Tickets::new(Arc::clone(&vault), &[b"web"]);
        let ticket = first.encrypt(b"session").unwrap();
        let second = Tickets::new(Arc::clone(&other), &[b"web"]);
        assert_eq!(second.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        let strange = Tickets::new(other, &[b"we", b"b"]);
        assert_eq!(strange.decrypt(&ticket), None);
        for at in 0..ticket.len() {
            let mut wrong = ticket.clone();
            wrong[at] ^= 1;
            assert_eq!(second.decrypt(&wrong), None);
            assert_eq!(second.decrypt(&ticket[..at]), None);
        }
        // Two keys later it is still good, and then no more.
        for round in 1..=3 {
            let now_s = 1_000_000_000_000 + round;
            vault.with_tickets(|words| rotate(words, now_s)).unwrap();
            let is_good = second.decrypt(&ticket).is_some();
            assert_eq!(is_good, round < 3, "round {round}");
        }
    }
}
