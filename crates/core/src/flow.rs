//! The flow hash: which bucket a packet belongs to, and the tag that shows that its sender knows
//! the key.
//!
//! The layout of the hashed bytes is part of the wire format
//! (`docs/adr/0001-row-and-option-layout.md`): director, ingress, socket iterator and this module
//! must agree for the life of a virtual cluster.

use core::hash::Hasher;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::row::Bucket;

/// IANA protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

/// A flow as its client sends it. Both addresses are of one family; IPv4-mapped IPv6 counts as
/// IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Flow {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
}

/// The key of a virtual cluster's hash: 128 bits, one for its life. Never shown: no `Debug` of its
/// content.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowKey(pub [u8; 16]);

impl core::fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("FlowKey(..)")
    }
}

/// The 64-bit result of the flow hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowHash(pub u64);

impl FlowHash {
    /// SipHash-1-3 of the flow.
    pub fn of(key: FlowKey, flow: &Flow) -> Self {
        let mut hasher = SipHasher13::new_with_key(&key.0);
        let mut bytes = [0; 40];
        let length = flow.write_to(&mut bytes);
        hasher.write(&bytes[..length]);
        Self(hasher.finish())
    }

    /// The bucket of a packet from a client.
    pub const fn bucket(self) -> Bucket {
        Bucket((self.0 & 0xffff) as u16)
    }

    /// What an encapsulated packet carries to show that its sender knows the key.
    pub const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl Flow {
    /// The bytes that are hashed, and how many they are: 16 (IPv4) or 40 (IPv6).
    fn write_to(&self, bytes: &mut [u8; 40]) -> usize {
        let (addresses, family) = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes[..4].copy_from_slice(&source.octets());
                bytes[4..8].copy_from_slice(&destination.octets());
                (8, 4)
            }
            (source, destination) => {
                bytes[..16].copy_from_slice(&as_v6(source));
                bytes[16..32].copy_from_slice(&as_v6(destination));
                (32, 6)
            }
        };
        bytes[addresses..addresses + 2].copy_from_slice(&self.source_port.to_be_bytes());
        bytes[addresses + 2..addresses + 4].copy_from_slice(&self.destination_port.to_be_bytes());
        bytes[addresses + 4] = self.protocol;
        bytes[addresses + 5] = family;
        addresses + 8
    }
}

fn as_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are fixed for ever: a change of the hash would lose every connection of a running
    /// cluster.
    #[test]
    fn hash_is_what_it_always_was() {
        let key = FlowKey(*b"hitless test key");
        let v4 = Flow {
            source: "192.0.2.1".parse().unwrap(),
            destination: "198.51.100.7".parse().unwrap(),
            source_port: 40_000,
            destination_port: 443,
            protocol: PROTOCOL_TCP,
        };
        let v6 = Flow {
            source: "2001:db8::1".parse().unwrap(),
            destination: "2001:db8::7".parse().unwrap(),
            ..v4
        };
        assert_eq!(FlowHash::of(key, &v4).0, 0xeb268211dc836dbd);
        assert_eq!(FlowHash::of(key, &v6).0, 0x304aaf6d3e7e1f99);
    }
}
