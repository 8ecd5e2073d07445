//! The flow hash: which bucket a packet belongs to, and the tag that shows that its sender knows
//! the key.
//!
//! The layout of the hashed bytes is part of the wire format
//! (`docs/adr/0001-row-and-option-layout.md`): director, ingress, socket iterator and this module
//! must agree for the life of a virtual cluster.

mod sip;
#[cfg(test)]
mod tests;

use core::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::row::Bucket;
use sip::Sip;

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
        let source_port = u16::from_le_bytes(flow.source_port.to_be_bytes());
        let destination_port = u16::from_le_bytes(flow.destination_port.to_be_bytes());
        let ports = u64::from(source_port) | u64::from(destination_port) << 16;
        let mut sip;
        match (flow.source, flow.destination) {
            (IpAddr::V4(source), IpAddr::V4(_)) => {
                sip = behind_destination(key, flow.destination, flow.protocol);
                sip.word(u64::from(u32::from_le_bytes(source.octets())) | ports << 32);
            }
            (source, destination) => {
                let destination = IpAddr::V6(as_v6(destination));
                sip = behind_destination(key, destination, flow.protocol);
                for word in words(as_v6(source)) {
                    sip.word(word);
                }
                sip.word(ports);
            }
        }
        Self(sip.finish())
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

/// What director and ingress keep with each of our addresses: the hash as far as a packet to it
/// takes it before its source is known, and half a round on. `protocol` is an IANA number.
pub fn destination_state(key: FlowKey, destination: IpAddr, protocol: u8) -> [u64; 4] {
    behind_destination(key, destination, protocol).half_a_round_ahead()
}

/// The first word says of which family and protocol the packet is, and so how many words follow.
fn behind_destination(key: FlowKey, destination: IpAddr, protocol: u8) -> Sip {
    let mut sip = Sip::new(key);
    let kind = |family: u64| u64::from(protocol) << 32 | family << 40;
    match destination {
        IpAddr::V4(address) => {
            sip.word(u64::from(u32::from_le_bytes(address.octets())) | kind(4));
        }
        IpAddr::V6(address) => {
            sip.word(kind(6));
            for word in words(address) {
                sip.word(word);
            }
        }
    }
    sip
}

/// The address's bytes, eight to a word.
fn words(address: Ipv6Addr) -> [u64; 2] {
    let octets = address.octets();
    let word = |at: usize| {
        let bytes = octets[at..at + 8].try_into();
        u64::from_le_bytes(bytes.expect("eight bytes are eight bytes"))
    };
    [word(0), word(8)]
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
