//! Lease datagrams between a guest's ingress and directors' agents, over UDP on the underlay.
//!
//! ```text
//!  request:  'h' 'l' version 1 | slot 2 | asked 8                                             | tag 16
//!  grant:    'h' 'l' version 2 | slot 2 | asked 8 | director 2 | renewed 1 | count 2 | dead 2 each | tag 16
//!  notice:   'h' 'l' version 3 | slot 2 | seen 8  | director 2                                | tag 16
//! ```
//!
//! Little-endian. The tag is SipHash-2-4-128 of all bytes before it, keyed by the virtual cluster's
//! key through a derivation of its own, so that the key of the flow hash is used for one thing
//! only. A replay gains nothing: a lease runs from the moment that the guest's own clock showed
//! when it asked, and an agent takes no request that is not newer than the last.
//!
//! A notice goes from an agent that saw a guest's end to the other agents: they believe it dead
//! until it asks again. An agent takes none that is not newer than the last of the same director,
//! by that director's clock.

use std::hash::Hasher;

use hitless_core::flow::FlowKey;
use hitless_core::row::GuestSlot;
use hitless_core::table::message::{DirectorId, LeaseGrant, LeaseRequest};
use hitless_core::time::Time;
use siphasher::sip128::{Hasher128, SipHasher24};

/// Agents listen here unless told otherwise.
pub const DEFAULT_PORT: u16 = 6_082;
/// 4,095 guests believed dead, two bytes each, and the rest.
pub const DATAGRAM_BYTES_MAX: usize = 8_300;

const VERSION: u8 = 1;
const REQUEST: u8 = 1;
const GRANT: u8 = 2;
const NOTICE: u8 = 3;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = 14;

/// A director's agent to all others: it saw the end of this guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notice {
    pub guest: GuestSlot,
    pub director: DirectorId,
    /// By the clock of the agent that saw it.
    pub seen: Time,
}

/// Seals and opens the datagrams of one virtual cluster.
#[derive(Clone, Debug)]
pub struct Seal {
    key: [u8; 16],
}

impl Seal {
    /// The seal of a virtual cluster.
    pub fn new(key: FlowKey) -> Self {
        let mut hasher = SipHasher24::new_with_key(&key.0);
        hasher.write(b"hitless lease 1");
        Self {
            key: hasher.finish128().as_bytes(),
        }
    }

    pub fn request(&self, request: &LeaseRequest) -> Vec<u8> {
        self.close(head(REQUEST, request.guest, request.asked))
    }

    pub fn grant(&self, to: GuestSlot, grant: &LeaseGrant) -> Vec<u8> {
        let mut bytes = head(GRANT, to, grant.asked);
        bytes.extend_from_slice(&grant.director.0.to_le_bytes());
        bytes.push(u8::from(grant.is_renewed));
        bytes.extend_from_slice(&(grant.believed_dead.len() as u16).to_le_bytes());
        for slot in &grant.believed_dead {
            bytes.extend_from_slice(&slot.number().to_le_bytes());
        }
        self.close(bytes)
    }

    /// None: not sealed with our key, or no request.
    pub fn open_request(&self, datagram: &[u8]) -> Option<LeaseRequest> {
        let mut bytes = self.open(datagram)?;
        let (guest, asked) = read_head(&mut bytes, REQUEST)?;
        bytes.is_empty().then_some(LeaseRequest { guest, asked })
    }

    /// None: not sealed with our key, no grant, or another guest's.
    pub fn open_grant(&self, me: GuestSlot, datagram: &[u8]) -> Option<LeaseGrant> {
        let mut bytes = self.open(datagram)?;
        let (to, asked) = read_head(&mut bytes, GRANT)?;
        let director = DirectorId(take(&mut bytes).map(u16::from_le_bytes)?);
        let [is_renewed] = take(&mut bytes)?;
        let count = take(&mut bytes).map(u16::from_le_bytes)?;
        let believed_dead = (0..count)
            .map(|_| GuestSlot::new(take(&mut bytes).map(u16::from_le_bytes)?))
            .collect::<Option<Vec<_>>>()?;
        let grant = LeaseGrant {
            asked,
            director,
            is_renewed: is_renewed == 1,
            believed_dead,
        };
        (to == me && bytes.is_empty()).then_some(grant)
    }

    pub fn notice(&self, notice: &Notice) -> Vec<u8> {
        let mut bytes = head(NOTICE, notice.guest, notice.seen);
        bytes.extend_from_slice(&notice.director.0.to_le_bytes());
        self.close(bytes)
    }

    /// None: not sealed with our key, or no notice.
    pub fn open_notice(&self, datagram: &[u8]) -> Option<Notice> {
        let mut bytes = self.open(datagram)?;
        let (guest, seen) = read_head(&mut bytes, NOTICE)?;
        let director = DirectorId(take(&mut bytes).map(u16::from_le_bytes)?);
        bytes.is_empty().then_some(Notice {
            guest,
            director,
            seen,
        })
    }

    fn close(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let tag = self.tag(&bytes);
        bytes.extend_from_slice(&tag);
        bytes
    }

    fn open<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let (bytes, tag) = datagram.split_last_chunk::<TAG_BYTES>()?;
        let expected = self.tag(bytes);
        // All bytes are compared, so that the time tells nothing of where they differ.
        let difference = expected
            .iter()
            .zip(tag)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        (difference == 0).then_some(bytes)
    }

    fn tag(&self, bytes: &[u8]) -> [u8; TAG_BYTES] {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(bytes);
        hasher.finish128().as_bytes()
    }
}

fn head(kind: u8, slot: GuestSlot, asked: Time) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + TAG_BYTES + 8);
    bytes.extend_from_slice(&[b'h', b'l', VERSION, kind]);
    bytes.extend_from_slice(&slot.number().to_le_bytes());
    bytes.extend_from_slice(&asked.0.to_le_bytes());
    bytes
}

fn read_head(bytes: &mut &[u8], kind: u8) -> Option<(GuestSlot, Time)> {
    (take(bytes)? == [b'h', b'l', VERSION, kind]).then_some(())?;
    let slot = GuestSlot::new(take(bytes).map(u16::from_le_bytes)?)?;
    Some((slot, Time(take(bytes).map(u64::from_le_bytes)?)))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u16) -> GuestSlot {
        GuestSlot::new(number).unwrap()
    }

    #[test]
    fn datagrams_pass_and_others_do_not() {
        let seal = Seal::new(FlowKey(*b"hitless test key"));
        let request = LeaseRequest {
            guest: slot(7),
            asked: Time(123_456_789),
        };
        let datagram = seal.request(&request);
        assert_eq!(seal.open_request(&datagram), Some(request));
        let grant = LeaseGrant {
            asked: request.asked,
            director: DirectorId(3),
            is_renewed: true,
            believed_dead: vec![slot(1), slot(4_095)],
        };
        let answer = seal.grant(slot(7), &grant);
        assert_eq!(seal.open_grant(slot(7), &answer), Some(grant));
        assert_eq!(seal.open_grant(slot(8), &answer), None, "another guest's");
        assert_eq!(seal.open_grant(slot(7), &datagram), None, "a request");
        let other = Seal::new(FlowKey(*b"hitless else key"));
        assert_eq!(other.open_request(&datagram), None, "another key");
        for length in 0..datagram.len() {
            assert_eq!(seal.open_request(&datagram[..length]), None);
        }
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(seal.open_request(&changed), None);
        }

        let notice = Notice {
            guest: slot(7),
            director: DirectorId(3),
            seen: Time(99),
        };
        let sealed = seal.notice(&notice);
        assert_eq!(seal.open_notice(&sealed), Some(notice));
        assert_eq!(seal.open_request(&sealed), None);
        assert_eq!(seal.open_grant(slot(7), &sealed), None);
        assert_eq!(
            Seal::new(FlowKey([0; 16])).open_notice(&sealed),
            None,
            "another key"
        );
        let cut = sealed[..sealed.len() - 1].to_vec();
        assert_eq!(seal.open_notice(&cut), None);
    }
}
