use core::hash::Hasher;

use proptest::prelude::*;
use siphasher::sip::SipHasher13;

use super::*;

const KEY: FlowKey = FlowKey(*b"hitless test key");

fn v4() -> Flow {
    Flow {
        source: "192.0.2.1".parse().unwrap(),
        destination: "198.51.100.7".parse().unwrap(),
        source_port: 40_000,
        destination_port: 443,
        protocol: PROTOCOL_TCP,
    }
}

fn v6() -> Flow {
    Flow {
        source: "2001:db8::1".parse().unwrap(),
        destination: "2001:db8::7".parse().unwrap(),
        ..v4()
    }
}

/// The values are fixed for ever: a change of the hash would lose every connection of a running
/// cluster.
#[test]
fn hash_is_what_it_always_was() {
    assert_eq!(FlowHash::of(KEY, &v4()).0, 0xbeb06abc197f87e8);
    assert_eq!(FlowHash::of(KEY, &v6()).0, 0x276d9f1a5fe3cb59);
}

/// Each field counts, and a flow of one family is none of the other.
#[test]
fn every_field_changes_the_hash() {
    let changed = |flow: Flow| {
        [
            flow,
            Flow {
                source: flow.destination,
                ..flow
            },
            Flow {
                destination: flow.source,
                ..flow
            },
            Flow {
                source_port: flow.source_port + 1,
                ..flow
            },
            Flow {
                destination_port: flow.destination_port + 1,
                ..flow
            },
            Flow {
                protocol: PROTOCOL_UDP,
                ..flow
            },
        ]
    };
    let hashes: std::collections::BTreeSet<u64> = changed(v4())
        .iter()
        .chain(&changed(v6()))
        .map(|flow| FlowHash::of(KEY, flow).0)
        .collect();
    assert_eq!(hashes.len(), 12);
}

/// A flow with one IPv4 address mapped into IPv6 is one of IPv6.
#[test]
fn mixed_families_are_hashed_as_ipv6() {
    let mapped = |address: &str| IpAddr::V6(format!("::ffff:{address}").parse().unwrap());
    let both = Flow {
        source: mapped("192.0.2.1"),
        destination: mapped("198.51.100.7"),
        ..v4()
    };
    let one = Flow {
        source: v4().source,
        ..both
    };
    assert_eq!(FlowHash::of(KEY, &one), FlowHash::of(KEY, &both));
    assert_ne!(FlowHash::of(KEY, &one), FlowHash::of(KEY, &v4()));
}

proptest! {
    /// With its closing word, ours is the SipHash-1-3 that others have.
    #[test]
    fn words_are_hashed_as_siphash_does(key: [u8; 16], words in prop::collection::vec(any::<u64>(), 0..8)) {
        let mut ours = Sip::new(FlowKey(key));
        let mut theirs = SipHasher13::new_with_key(&key);
        for word in &words {
            ours.word(*word);
            theirs.write(&word.to_le_bytes());
        }
        ours.word((8 * words.len() as u64) << 56);
        prop_assert_eq!(ours.finish(), theirs.finish());
    }
}
