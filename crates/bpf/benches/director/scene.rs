//! What is measured on: a virtual cluster of 16 guests, and packets to it.

use std::num::NonZeroU16;
use std::path::Path;

use anyhow::{Context, Result};
use hitless_bpf::{AddressKind, Director, Hop, Identity, Ingress, Vni};
use hitless_core::flow::FlowKey;
use hitless_core::row::{BUCKETS, Bucket, GuestSlot, Row, Sequence};

pub(crate) const KEY: FlowKey = FlowKey(*b"hitless bench 16");
pub(crate) const VNI: u32 = 7;
const GUESTS: u16 = 16;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const SYN: u8 = 0x02;

pub(crate) fn slot(number: u16) -> GuestSlot {
    GuestSlot::new(number).expect("the benchmark's slots are in range")
}

/// A row at rest: owner and standby.
pub(crate) fn row(sequence: u16, bucket: usize) -> Result<Row> {
    let owner = (bucket as u16 % GUESTS) + 1;
    let standby = (owner % GUESTS) + 1;
    Row::new(&[slot(owner), slot(standby)], Sequence(sequence)).context("two guests are a row")
}

pub(crate) fn rows(sequence: u16) -> Result<Vec<(Bucket, Row)>> {
    (0..BUCKETS)
        .map(|bucket| Ok((Bucket(bucket as u16), row(sequence, bucket)?)))
        .collect()
}

/// Rows that name slot 1 alone.
pub(crate) fn all_to_one() -> Result<Vec<(Bucket, Row)>> {
    let row = Row::new(&[slot(1)], Sequence(1)).context("a guest is a row")?;
    Ok((0..BUCKETS)
        .map(|bucket| (Bucket(bucket as u16), row))
        .collect())
}

fn hop(number: u16) -> Result<Hop> {
    Ok(Hop {
        source: "10.0.0.100".parse()?,
        destination: format!("10.0.0.{number}").parse()?,
        mac: [2, 0, 0, 0, 1, number as u8],
        source_mac: [2, 0, 0, 0, 2, 1],
        ifindex: None,
        mtu: Some(1_500),
    })
}

pub(crate) fn filled_director(pins: &Path) -> Result<Director> {
    let director = Director::open(pins)?;
    let vni = Vni::new(VNI)?;
    director.set_cluster(vni, KEY, NonZeroU16::MIN)?;
    for vip in ["192.0.2.80", "2001:db8:f::80"] {
        director.set_address(vip.parse()?, vni, AddressKind::Vip)?;
    }
    for guest in 1..=GUESTS {
        director.set_guest(vni, slot(guest), &hop(guest)?)?;
    }
    director.set_rows(vni, &rows(1)?)?;
    Ok(director)
}

pub(crate) fn filled_ingress(pins: &Path) -> Result<Ingress> {
    let vni = Vni::new(VNI)?;
    let ingress = Ingress::open(
        pins,
        Identity {
            vni,
            key: KEY,
            slot: slot(1),
        },
    )?;
    ingress.set_address("192.0.2.80".parse()?, AddressKind::Vip)?;
    ingress.set_rows(&rows(1)?);
    Ok(ingress)
}

fn tcp(flags: u8) -> [u8; 20] {
    let mut tcp = [0; 20];
    tcp[12] = 5 << 4;
    tcp[13] = flags;
    tcp
}

fn ipv4(length: u16, protocol: u8) -> [u8; 20] {
    let mut ip = [0; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    ip[8] = 60;
    ip[9] = protocol;
    ip
}

/// 54 bytes; addresses and ports are the wrapper's.
pub(crate) fn packet4(flags: u8) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0x00]);
    frame.extend(ipv4(40, 6));
    frame.extend(tcp(flags));
    frame
}

pub(crate) fn packet6() -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x86, 0xdd]);
    frame.extend([0x60, 0, 0, 0, 0, 20, 6, 60]);
    frame.extend([0; 32]);
    frame.extend(tcp(ACK));
    frame
}

/// 110 bytes; what a decapsulation cuts off is the wrapper's, the rest is here.
pub(crate) fn encapsulated() -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0x00]);
    frame.extend(ipv4(96, 17));
    frame.extend([0xc3, 0x50, 0x17, 0xc1, 0, 76, 0x12, 0x34]);
    frame.extend([5, 0x40, 0x08, 0x00]);
    frame.extend((VNI << 8).to_be_bytes());
    frame.extend([0xff, 0x48, 0x81, 4, 0x10, 0, 0, 1]);
    frame.extend([0; 12]);
    let mut ip = ipv4(40, 6);
    ip[16..].copy_from_slice(&[192, 0, 2, 80]);
    frame.extend(ip);
    frame.extend(tcp(ACK));
    frame
}
