//! Packets as clients and directors send them, byte by byte, and how to read them back.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use hitless_core::flow::{Flow, FlowHash, FlowKey, PROTOCOL_TCP};
use hitless_core::row::{Bucket, Row};

pub const KEY: FlowKey = FlowKey(*b"hitless test key");
pub const VNI: u32 = 7;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

pub const ETHERNET: usize = 14;

pub const CLIENT4: &str = "203.0.113.9";
pub const VIP4: &str = "192.0.2.80";
pub const CLIENT6: &str = "2001:db8:c::9";
pub const VIP6: &str = "2001:db8:f::80";

pub fn flow(source: &str, source_port: u16, destination: &str, port: u16) -> Flow {
    Flow {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        source_port,
        destination_port: port,
        protocol: PROTOCOL_TCP,
    }
}

pub fn hash(flow: &Flow) -> FlowHash {
    FlowHash::of(KEY, flow)
}

pub fn bucket(flow: &Flow) -> Bucket {
    hash(flow).bucket()
}

/// A client's TCP packet in an Ethernet frame, checksums right.
pub fn tcp(flow: &Flow, flags: u8, acknowledged: u32, payload: &[u8]) -> Vec<u8> {
    tcp_with_options(flow, flags, acknowledged, payload, &[])
}

/// With IPv4 options; they must fill whole words.
pub fn tcp_with_options(
    flow: &Flow,
    flags: u8,
    acknowledged: u32,
    payload: &[u8],
    options: &[u8],
) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]);
    let ip = match (flow.source, flow.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = etherparse::Ipv4Header {
                source: source.octets(),
                destination: destination.octets(),
                time_to_live: 60,
                protocol: etherparse::IpNumber::TCP,
                ..Default::default()
            };
            header.options = options.try_into().unwrap();
            ethernet.ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ethernet.ipv6(source.octets(), destination.octets(), 60)
        }
        _ => panic!("families differ"),
    };
    let mut builder = ip.tcp(flow.source_port, flow.destination_port, 1000, 512);
    if flags & SYN != 0 {
        builder = builder.syn();
    }
    if flags & RST != 0 {
        builder = builder.rst();
    }
    if flags & ACK != 0 {
        builder = builder.ack(acknowledged);
    }
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// What a director or ingress writes into the option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Option1 {
    pub vni: u32,
    pub flags: u8,
    pub stamper: u16,
    pub word: u64,
    pub tag: u32,
}

impl Option1 {
    pub fn of(flow: &Flow, row: Row, stamper: u16) -> Self {
        Self {
            vni: VNI,
            flags: 0,
            stamper,
            word: row.word(),
            tag: hash(flow).tag(),
        }
    }
}

/// Addresses of an outer header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outer {
    pub source: IpAddr,
    pub destination: IpAddr,
}

/// `frame`'s packet in an encapsulation, checksums right.
pub fn encapsulate(frame: &[u8], outer: Outer, option: &Option1) -> Vec<u8> {
    let inner = &frame[ETHERNET..];
    let protocol = if inner[0] >> 4 == 4 {
        0x0800u16
    } else {
        0x86dd
    };
    let mut geneve = vec![5, 0x40];
    geneve.extend(protocol.to_be_bytes());
    geneve.extend((option.vni << 8).to_be_bytes());
    geneve.extend([0xff, 0x48, 0x81, 4, 0x10 | option.flags, 0]);
    geneve.extend(option.stamper.to_be_bytes());
    geneve.extend(option.word.to_be_bytes());
    geneve.extend(option.tag.to_be_bytes());
    geneve.extend(inner);
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 8], [2, 0, 0, 0, 0, 2]);
    let builder = match (outer.source, outer.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ethernet.ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ethernet.ipv6(source.octets(), destination.octets(), 64)
        }
        _ => panic!("families differ"),
    };
    let mut frame = Vec::new();
    builder
        .udp(50_000, 6081)
        .write(&mut frame, &geneve)
        .unwrap();
    frame
}

/// Bytes of encapsulation of a frame with this outer header.
pub fn outer_bytes(frame: &[u8]) -> usize {
    if frame[12..14] == [0x08, 0x00] {
        56
    } else {
        76
    }
}

/// An encapsulated frame, taken apart. Every length and checksum has been checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded {
    pub macs: [u8; 12],
    pub outer: Outer,
    pub option: Option1,
    /// The inner packet.
    pub inner: Vec<u8>,
}

pub fn decode(frame: &[u8]) -> Decoded {
    let outer_length = outer_bytes(frame);
    let ip = &frame[ETHERNET..];
    let word = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
    let (outer, udp_at, room) = if outer_length == 56 {
        assert_eq!(ip[0], 0x45);
        assert_eq!(sum(&ip[..20]), 0xffff, "outer IPv4 checksum");
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
        (
            Outer {
                source: address(12),
                destination: address(16),
            },
            20,
            word(2) - 20,
        )
    } else {
        assert_eq!(ip[0] >> 4, 6);
        let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
        (
            Outer {
                source: address(8),
                destination: address(24),
            },
            40,
            word(4),
        )
    };
    let udp = &ip[udp_at..udp_at + usize::from(room)];
    assert_eq!(udp[2..4], 6081u16.to_be_bytes());
    assert_eq!(udp[4..6], room.to_be_bytes(), "UDP length");
    assert_ne!(
        udp[6..8],
        [0, 0],
        "an outer checksum of 0 hides a corrupt inner one"
    );
    let mut pseudo = Vec::new();
    let addresses = if udp_at == 20 {
        &ip[12..20]
    } else {
        &ip[8..40]
    };
    pseudo.extend(addresses);
    pseudo.extend([0, 17]);
    pseudo.extend(room.to_be_bytes());
    pseudo.extend(udp);
    assert_eq!(sum(&pseudo), 0xffff, "outer UDP checksum");
    let geneve = &udp[8..];
    let inner = geneve[28..].to_vec();
    let protocol = if inner[0] >> 4 == 4 {
        [0x08, 0x00]
    } else {
        [0x86, 0xdd]
    };
    assert_eq!(geneve[..2], [5, 0x40]);
    assert_eq!(geneve[2..4], protocol);
    assert_eq!(geneve[8..12], [0xff, 0x48, 0x81, 4]);
    assert_eq!(geneve[12] >> 4, 1);
    assert_eq!(geneve[13], 0);
    let u32_at = |at: usize| u32::from_be_bytes(geneve[at..at + 4].try_into().unwrap());
    Decoded {
        macs: frame[..12].try_into().unwrap(),
        outer,
        option: Option1 {
            vni: u32_at(4) >> 8,
            flags: geneve[12] & 0xf,
            stamper: u16::from_be_bytes([geneve[14], geneve[15]]),
            word: u64::from_be_bytes(geneve[16..24].try_into().unwrap()),
            tag: u32_at(24),
        },
        inner,
    }
}

/// The ones' complement sum of bytes as network words.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
