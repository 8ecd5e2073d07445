//! Our addresses, of either role: hash maps that have all of them, and before IPv4's an array in
//! which most are found at once.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use hitless_core::flow::{FlowKey, PROTOCOL_TCP, destination_state};

use crate::abi::{self, hl_address, hl_in6, hl_near};
use crate::error::Result;
use crate::grace::Grace;
use crate::hop::{from_in6, in6};
use crate::map::HashMap;
use crate::mapped::Mapped;
use crate::object::Pinned;
use crate::vni::Vni;

/// What an address of a virtual cluster is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AddressKind {
    /// Clients connect to it; the bucket is the flow's hash.
    Vip,
    /// Its guests connect to members from it; the bucket is in the port.
    Egress,
}

impl AddressKind {
    const fn number(self) -> u32 {
        match self {
            Self::Vip => abi::VIP as u32,
            Self::Egress => abi::EGRESS as u32,
        }
    }

    const fn of(number: u32) -> Self {
        if number == abi::EGRESS as u32 {
            Self::Egress
        } else {
            Self::Vip
        }
    }
}

/// `addresses4`, `near4` and `addresses6` of a role's tables.
#[derive(Debug)]
pub(crate) struct Addresses {
    v4: HashMap<u32, hl_address>,
    near: Mapped,
    v6: HashMap<hl_in6, hl_address>,
}

/// Whose an address is, and as what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    /// Index of the virtual cluster in the role's tables.
    pub(crate) cluster: u32,
    pub(crate) vni: Vni,
    pub(crate) key: FlowKey,
    pub(crate) kind: AddressKind,
}

/// Words of a near entry that are written before its first.
const NEAR_REST: std::ops::Range<usize> = 1..6;

impl Addresses {
    pub(crate) fn open(pinned: &Pinned) -> Result<Self> {
        let near = pinned.map("near4")?;
        Ok(Self {
            v4: HashMap::new(pinned.map("addresses4")?, "address", abi::ADDRESSES),
            near: Mapped::new(near, "near4", abi::NEAR, size_of::<hl_near>())?,
            v6: HashMap::new(pinned.map("addresses6")?, "address", abi::ADDRESSES),
        })
    }

    /// Makes an address a virtual cluster's.
    pub(crate) fn set(&self, address: IpAddr, owner: &Owner, grace: &Grace) -> Result<()> {
        let value = hl_address {
            cluster: owner.cluster,
            kind: owner.kind.number(),
            state: destination_state(owner.key, address, PROTOCOL_TCP),
        };
        match address {
            IpAddr::V4(address) => {
                let key = u32::from_ne_bytes(address.octets());
                self.v4.set(key, value)?;
                self.set_near(key, &value, owner.vni, grace)
            }
            IpAddr::V6(_) => self.v6.set(in6(address), value),
        }
    }

    /// Whether it was there.
    pub(crate) fn remove(&self, address: IpAddr) -> Result<bool> {
        match address {
            IpAddr::V4(address) => {
                let key = u32::from_ne_bytes(address.octets());
                let word = self.near.at(place(key));
                if word.load(Ordering::Acquire) as u32 == key {
                    word.store(0, Ordering::Release);
                }
                self.v4.remove(key)
            }
            IpAddr::V6(_) => self.v6.remove(in6(address)),
        }
    }

    /// All of them, each with the index of its virtual cluster.
    pub(crate) fn all(&self) -> Result<Vec<(IpAddr, u32, AddressKind)>> {
        let v4 = self.v4.entries()?.into_iter();
        let v4 = v4.map(|(key, value)| (IpAddr::from(key.to_ne_bytes()), value));
        let v6 = self.v6.entries()?.into_iter();
        let v6 = v6.map(|(key, value)| (from_in6(key), value));
        let all = v4.chain(v6);
        Ok(all
            .map(|(address, value)| (address, value.cluster, AddressKind::of(value.kind)))
            .collect())
    }

    /// Gives an address its place, if that is free. What packets may be reading is changed
    /// only after a barrier behind the word's end; until then they find the address in the map.
    fn set_near(&self, key: u32, value: &hl_address, vni: Vni, grace: &Grace) -> Result<()> {
        let place = place(key);
        let word = self.near.at(place);
        let old = word.load(Ordering::Acquire);
        if old != 0 && old as u32 != key {
            return Ok(());
        }
        let rest = || NEAR_REST.map(|at| self.near.word(place, at));
        let new = || value.state.into_iter().chain([vni.on_the_wire().into()]);
        if !rest().map(|was| was.load(Ordering::Relaxed)).eq(new()) {
            word.store(0, Ordering::Release);
            if rest().any(|was| was.load(Ordering::Relaxed) != 0) {
                grace.wait()?;
            }
            for (was, new) in rest().zip(new()) {
                was.store(new, Ordering::Relaxed);
            }
        }
        let whose = u64::from(value.cluster << 2 | value.kind);
        word.store(whose << 32 | u64::from(key), Ordering::Release);
        Ok(())
    }
}

/// Where an address may stand: the same place as the programs' (`c/address.h`).
fn place(key: u32) -> usize {
    (key.wrapping_mul(0x9e37_79b1) >> 22) as usize
}
