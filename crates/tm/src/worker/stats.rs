//! Counters in the slot file: per event loop, and per virtual server and member of each event loop.
//!
//! They are added to by one event loop (by two while one hands over to the other) and summed when
//! somebody asks. They survive takeovers and crashes, since no program owns them.

use core::net::SocketAddr;
use std::sync::atomic::Ordering;

use hitless_carry::slots::{KEYED_COUNTERS, LANE_COUNTERS, Slots};

/// Places in [`LaneHead::counters`](hitless_carry::slots::LaneHead); never changed within a layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Lane {
    Accepted = 0,
    /// Connections to members that failed and were tried at another one.
    ConnectRetries = 1,
    /// Requests that were sent again because an idle member connection had just been closed.
    RequestRetries = 2,
    /// Times that accepting stopped for want of descriptors or slots.
    AcceptStops = 3,
    PipesMade = 4,
    /// Answers of our own with an error status.
    Refusals = 5,
    TimeoutsHit = 6,
    Quarantined = 7,
    /// Connections whose clients were told to close, since they are to go elsewhere.
    ToldToClose = 8,
    /// TLS handshakes with clients that came to their end.
    Handshakes = 9,
    /// Of them, those that took a ticket.
    HandshakesResumed = 10,
    HandshakeFailures = 11,
}

/// Places in [`Keyed::counters`](hitless_carry::slots::Keyed); never changed within a layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Keyed {
    /// Of a member: clients that use it now. (Those of a virtual server are counted from the
    /// slots.)
    Open = 0,
    Connections = 1,
    Requests = 2,
    Failures = 3,
    /// From clients, or to members.
    BytesIn = 4,
    BytesOut = 5,
    /// Of a member, in the first lane only: its health, as the board writes it.
    Health = 6,
}

const _: () = assert!((Lane::HandshakeFailures as usize) < LANE_COUNTERS);
const _: () = assert!((Keyed::Health as usize) < KEYED_COUNTERS);

/// Names the counters of a virtual server.
pub(crate) fn server_key(name: &str) -> u64 {
    hash(&[b"server", name.as_bytes()])
}

/// Names the counters of a member.
pub(crate) fn member_key(pool: &str, address: SocketAddr) -> u64 {
    hash(&[b"member", pool.as_bytes(), address.to_string().as_bytes()])
}

/// FNV-1a over parts with a separator; 64 bits hold some thousand names apart.
fn hash(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter().chain(&[0xff]));
    fnv1a(bytes).max(1)
}

/// FNV-1a.
pub(super) fn fnv1a<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Over all lanes.
pub(crate) fn sum_lanes(slots: &Slots, counter: Lane) -> u64 {
    let one = |lane| slots.lane(lane).counters[counter as usize].load(Ordering::Relaxed);
    (0..slots.lanes()).map(one).sum()
}

/// All counters of a name over all lanes.
pub(crate) fn sum_keyed(slots: &Slots, key: u64) -> [u64; KEYED_COUNTERS] {
    let mut sums = [0u64; KEYED_COUNTERS];
    for lane in 0..slots.lanes() {
        let entry = slots.keyed(lane, slots.keyed_index(lane, key));
        for (sum, counter) in sums.iter_mut().zip(&entry.counters) {
            *sum = sum.wrapping_add(counter.load(Ordering::Relaxed));
        }
    }
    sums
}
