//! Next hops: where a packet to a guest goes.
//!
//! A guest word names a hop by its number. A hop is written once, before a word names it; a change
//! takes another free hop and stores the new number, and the old hop is free again after a barrier.
//! So a packet sees the old hop or the new one, never a mixture.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use crate::abi::{self, hl_hop, hl_in6};
use crate::error::{Error, Result};
use crate::grace::Grace;
use crate::mapped::Mapped;
use crate::vni::Vni;

/// Where packets to one guest go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hop {
    /// The sender's address on the underlay, of the same family as `destination`.
    pub source: IpAddr,
    /// The guest's address on the underlay.
    pub destination: IpAddr,
    /// Whose Ethernet address the packet gets: the guest's, or the gateway's on the way there.
    pub mac: [u8; 6],
    /// The Ethernet address of the interface where it leaves.
    pub source_mac: [u8; 6],
    /// The interface where it leaves; `None`: where it came in.
    pub ifindex: Option<u32>,
    /// The largest outer packet that the way takes; `None`: not checked. What is larger is counted
    /// and dropped.
    pub mtu: Option<u16>,
}

impl Hop {
    fn to_entry(self, vni: Vni) -> Result<hl_hop> {
        let mut addresses = [0; 8];
        let family = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                addresses[0] = u32::from_ne_bytes(source.octets());
                addresses[1] = u32::from_ne_bytes(destination.octets());
                4
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                addresses[..4].copy_from_slice(&v6_words(source));
                addresses[4..].copy_from_slice(&v6_words(destination));
                6
            }
            _ => return Err(Error::MixedFamilies),
        };
        // Sums are of 16-bit words as they stand in memory, so the machine's byte order does not
        // matter.
        let halves = |word: &u32| (word & 0xffff) + (word >> 16);
        let wire = |word: u64| u32::from((word as u16).to_be());
        let both: u32 = addresses.iter().map(halves).sum();
        let vni = vni.on_the_wire();
        let outer_sum = both
            + wire(IPPROTO_UDP)
            + wire(abi::GENEVE_PORT)
            + wire(GENEVE_START)
            + halves(&vni)
            + wire(abi::OPTION_CLASS)
            + wire(abi::OPTION_TYPE << 8 | OPTION_WORDS);
        let ip_sum = both + wire(0x4500) + wire(0x4000) + wire(64 << 8 | IPPROTO_UDP);
        let ip_sum = halves(&halves(&ip_sum));
        Ok(hl_hop {
            mac: self.mac,
            source_mac: self.source_mac,
            family,
            mtu: self.mtu.unwrap_or(0),
            ifindex: self.ifindex.unwrap_or(0),
            outer_sum,
            addresses,
            ip_sum: if family == 4 { ip_sum } else { 0 },
            reserved: 0,
        })
    }

    fn from_entry(entry: &hl_hop) -> Self {
        let v4 = |at: usize| IpAddr::from(entry.addresses[at].to_ne_bytes());
        let v6 = |at: usize| {
            let words = entry.addresses[at..at + 4].try_into();
            IpAddr::V6(v6_from_words(words.expect("four words are four words")))
        };
        let (source, destination) = match entry.family {
            4 => (v4(0), v4(1)),
            _ => (v6(0), v6(4)),
        };
        Self {
            source,
            destination,
            mac: entry.mac,
            source_mac: entry.source_mac,
            ifindex: (entry.ifindex != 0).then_some(entry.ifindex),
            mtu: (entry.mtu != 0).then_some(entry.mtu),
        }
    }
}

const IPPROTO_UDP: u64 = 17;
/// Geneve's first two bytes: version 0 with five words of options, and the critical flag.
const GENEVE_START: u64 = 0x0540;
/// Words of the option behind its header.
const OPTION_WORDS: u64 = 4;

/// Guest words and the hops that they name.
#[derive(Debug)]
pub(crate) struct HopTable {
    words: Mapped,
    hops: Mapped,
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    /// Hops that nobody can be reading.
    now: Vec<u32>,
    /// Hops that no word names any more, but that a packet under way may still be reading.
    after_barrier: Vec<u32>,
}

const HOP_WORDS: usize = size_of::<hl_hop>() / 8;

impl HopTable {
    pub(crate) fn new(
        words: OwnedFd,
        word_count: u64,
        hops: OwnedFd,
        hop_count: u64,
    ) -> Result<Self> {
        let words = Mapped::new(words, "guests", word_count, 8)?;
        let hops = Mapped::new(hops, "hops", hop_count, size_of::<hl_hop>())?;
        let mut is_used = vec![false; hops.len()];
        is_used[0] = true;
        for entry in 0..words.len() {
            let hop = words.at(entry).load(Ordering::Acquire) & abi::GUEST_HOP_MASK;
            if let Some(is_used) = is_used.get_mut(hop as usize) {
                *is_used = true;
            }
        }
        let unused = (0..hops.len()).rev().filter(|hop| !is_used[*hop]);
        let after_barrier = unused.map(|hop| hop as u32).collect();
        Ok(Self {
            words,
            hops,
            free: Mutex::new(Free {
                now: Vec::new(),
                after_barrier,
            }),
        })
    }

    /// Makes packets for the word at `entry` take `hop`.
    pub(crate) fn set(&self, entry: usize, vni: Vni, hop: &Hop, grace: &Grace) -> Result<()> {
        let hop = hop.to_entry(vni)?;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let word = self.words.at(entry).load(Ordering::Acquire);
        // SAFETY: the struct is made of integers without padding, 64 bytes in all (see the layout
        // test).
        let new: [u64; HOP_WORDS] = unsafe { std::mem::transmute(hop) };
        let old = (word & abi::GUEST_HOP_MASK) as usize;
        if old != 0 && self.hops.read::<HOP_WORDS>(old) == new {
            return Ok(());
        }
        if free.now.is_empty() && !free.after_barrier.is_empty() {
            grace.wait()?;
            free.now = std::mem::take(&mut free.after_barrier);
        }
        let Some(number) = free.now.pop() else {
            return Err(Error::Full {
                what: "next hop",
                limit: self.hops.len() - 1,
            });
        };
        self.hops.write(number as usize, new);
        let word = (word & !abi::GUEST_HOP_MASK) | u64::from(number);
        self.words.at(entry).store(word, Ordering::Release);
        if old != 0 {
            free.after_barrier.push(old as u32);
        }
        Ok(())
    }

    /// Packets for the word at `entry` have nowhere to go, and are dropped.
    pub(crate) fn remove(&self, entry: usize) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let word = self.words.at(entry).swap(0, Ordering::AcqRel);
        let old = word & abi::GUEST_HOP_MASK;
        if old != 0 {
            free.after_barrier.push(old as u32);
        }
    }

    pub(crate) fn hop(&self, entry: usize) -> Option<Hop> {
        let _changes_nothing = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.words.at(entry).load(Ordering::Acquire) & abi::GUEST_HOP_MASK;
        if number == 0 {
            return None;
        }
        let words = self.hops.read::<HOP_WORDS>(number as usize);
        // SAFETY: as in `set`; every pattern of bytes is a value of the struct.
        let entry: hl_hop = unsafe { std::mem::transmute(words) };
        Some(Hop::from_entry(&entry))
    }

    /// Sets or clears the mark that makes the time of the last packet be written.
    pub(crate) fn set_watched(&self, entry: usize, is_watched: bool) {
        if is_watched {
            self.words
                .at(entry)
                .fetch_or(abi::GUEST_WATCHED, Ordering::AcqRel);
        } else {
            self.words
                .at(entry)
                .fetch_and(!abi::GUEST_WATCHED, Ordering::AcqRel);
        }
    }
}

/// An address of either family as the tables' key: IPv4 mapped into IPv6.
pub(crate) fn in6(address: IpAddr) -> hl_in6 {
    hl_in6 {
        word: v6_words(match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        }),
    }
}

pub(crate) fn from_in6(key: hl_in6) -> IpAddr {
    let address = v6_from_words(key.word);
    address
        .to_ipv4_mapped()
        .map_or(IpAddr::V6(address), IpAddr::V4)
}

/// The bytes as they stand, four to a word.
fn v6_words(address: Ipv6Addr) -> [u32; 4] {
    let octets = address.octets();
    std::array::from_fn(|word| {
        u32::from_ne_bytes(
            octets[4 * word..][..4]
                .try_into()
                .expect("four bytes are four bytes"),
        )
    })
}

pub(crate) fn v6_from_words(words: [u32; 4]) -> Ipv6Addr {
    let mut octets = [0; 16];
    for (word, bytes) in words.iter().zip(octets.chunks_exact_mut(4)) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(octets)
}
