//! What director and ingress have alike: an object whose maps and programs are pinned, next hops,
//! addresses, counters, and a barrier.

use std::path::Path;

use crate::abi;
use crate::address::Addresses;
use crate::counters::{CounterTable, Counters};
use crate::error::Result;
use crate::grace::Grace;
use crate::hop::HopTable;
use crate::mapped::Mapped;
use crate::object::Pinned;

/// Which of the two, with what differs.
#[derive(Debug)]
pub(crate) struct Role {
    /// Its folder's name.
    name: &'static str,
    layout: &'static str,
    object: &'static [u8],
    /// Guest words, and hops that they may name.
    guests: u64,
    hops: u64,
    counters: &'static [&'static str],
}

pub(crate) static DIRECTOR: Role = Role {
    name: "director",
    layout: abi::DIRECTOR_LAYOUT,
    object: abi::DIRECTOR_OBJECT,
    guests: abi::VIRTUAL_CLUSTERS * abi::SLOTS,
    hops: abi::HOPS,
    counters: abi::DIRECTOR_COUNTERS,
};

pub(crate) static INGRESS: Role = Role {
    name: "ingress",
    layout: abi::INGRESS_LAYOUT,
    object: abi::INGRESS_OBJECT,
    guests: abi::SLOTS,
    hops: abi::PEER_HOPS,
    counters: abi::INGRESS_COUNTERS,
};

/// A role's tables that both have.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) pinned: Pinned,
    pub(crate) hops: HopTable,
    pub(crate) addresses: Addresses,
    pub(crate) grace: Grace,
    counters: CounterTable,
}

impl Tables {
    /// Loads the role's programs, with the tables that are pinned in `pins` or with new ones.
    pub(crate) fn open(pins: &Path, role: &'static Role) -> Result<Self> {
        let pinned = Pinned::open(pins, role.name, role.layout, role.object)?;
        pinned.pin_programs()?;
        let (words, hops) = (pinned.map("guests")?, pinned.map("hops")?);
        Ok(Self {
            hops: HopTable::new(words, role.guests, hops, role.hops)?,
            addresses: Addresses::open(&pinned)?,
            counters: CounterTable::new(pinned.map("counters")?, role.counters)?,
            grace: Grace::new()?,
            pinned,
        })
    }

    /// An array of `entries` of `entry_bytes` each.
    pub(crate) fn mapped(
        &self,
        name: &'static str,
        entries: u64,
        entry_bytes: usize,
    ) -> Result<Mapped> {
        Mapped::new(self.pinned.map(name)?, name, entries, entry_bytes)
    }

    pub(crate) fn counters(&self) -> Result<Counters> {
        self.counters.read()
    }
}
