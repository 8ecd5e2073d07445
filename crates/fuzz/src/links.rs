//! What programs of a cluster tell each other: lease datagrams and frames of links.

use std::hash::Hasher;
use std::io::Cursor;

use hitless_control::lease::Seal;
use hitless_control::link::wire::{self, Message};
use hitless_control::message::{FromIngress, FromNode, ToIngress, ToNode};
use hitless_core::flow::FlowKey;
use hitless_core::row::GuestSlot;
use siphasher::sip128::{Hasher128, SipHasher24};

pub(crate) const KEY: FlowKey = FlowKey(*b"hitless test key");

/// The guest that grants are for.
pub(crate) fn me() -> GuestSlot {
    GuestSlot::new(7).expect("7 is a slot")
}

/// A datagram as it came, and the same bytes sealed as who has the key would: what opens, is sealed
/// to the same bytes again.
pub(crate) fn datagram(input: &[u8]) {
    let seal = Seal::new(KEY);
    let _ = seal.open_request(input);
    let sealed = sealed(input);
    if let Some(request) = seal.open_request(&sealed) {
        assert_eq!(seal.request(&request), sealed);
    }
    if let Some(grant) = seal.open_grant(me(), &sealed) {
        // One bit of a byte is used.
        assert_eq!(
            seal.open_grant(me(), &seal.grant(me(), &grant)),
            Some(grant)
        );
    }
    if let Some(notice) = seal.open_notice(&sealed) {
        assert_eq!(seal.notice(&notice), sealed);
    }
}

/// With the tag behind it. The key's derivation is that of `hitless_control::lease`.
pub(crate) fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut hasher = SipHasher24::new_with_key(&KEY.0);
    hasher.write(b"hitless lease 1");
    let mut hasher = SipHasher24::new_with_key(&hasher.finish128().as_bytes());
    hasher.write(bytes);
    [bytes, &hasher.finish128().as_bytes()].concat()
}

/// Frames one after another, as each kind of link would read them.
pub(crate) fn frames(input: &[u8]) {
    all::<ToNode>(input);
    all::<FromNode>(input);
    all::<ToIngress>(input);
    all::<FromIngress>(input);
}

/// What is read is written and read again.
fn all<M: Message>(input: &[u8]) {
    let mut input = Cursor::new(input);
    while let Ok(Some(message)) = wire::read::<M>(&mut input) {
        let mut written = Vec::new();
        wire::write(&mut written, message).expect("it came in a frame");
        let again: M = wire::read(&mut Cursor::new(&written))
            .expect("just written")
            .expect("a message");
        let mut twice = Vec::new();
        wire::write(&mut twice, again).expect("it came in a frame");
        assert_eq!(twice, written);
    }
}
