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

/// Words of a near entry at which the state begins and ends.
const NEAR_STATE: std::ops::Range<usize> = 1..5;

impl Addresses {
    pub(crate) fn open(pinned: &Pinned) -> Result<Self> {
        let near = pinned.map("near4")?;
        Ok(Self {
            v4: HashMap::new(pinned.map("addresses4")?, "address", abi::ADDRESSES),
            near: Mapped::new(near, "near4", abi::NEAR, size_of::<hl_near>())?,
            v6: HashMap::new(pinned.map("addresses6")?, "address", abi::ADDRESSES),
        })
    }

    /// Makes an address that of the virtual cluster at index `cluster`, which has `key`.
    pub(crate) fn set(
        &self,
        address: IpAddr,
        cluster: u32,
        kind: AddressKind,
        key: FlowKey,
        grace: &Grace,
    ) -> Result<()> {
        let value = hl_address {
            cluster,
            kind: kind.number(),
            state: destination_state(key, address, PROTOCOL_TCP),
        };
        match address {
            IpAddr::V4(address) => {
                let key = u32::from_ne_bytes(address.octets());
                self.v4.set(key, value)?;
                self.set_near(key, &value, grace)
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

    /// Gives an address its place, if that is free. A state that packets may be reading is changed
    /// only after a barrier behind the word's end; until then they find the address in the map.
    fn set_near(&self, key: u32, value: &hl_address, grace: &Grace) -> Result<()> {
        let place = place(key);
        let word = self.near.at(place);
        let old = word.load(Ordering::Acquire);
        if old != 0 && old as u32 != key {
            return Ok(());
        }
        let states = || NEAR_STATE.map(|at| self.near.word(place, at));
        let was = states().map(|state| state.load(Ordering::Relaxed));
        if !was.eq(value.state) {
            word.store(0, Ordering::Release);
            if states().any(|state| state.load(Ordering::Relaxed) != 0) {
                grace.wait()?;
            }
            for (state, new) in states().zip(value.state) {
                state.store(new, Ordering::Relaxed);
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
