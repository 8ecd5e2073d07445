//! IPv4 addresses of a role: a hash map that has all of them, and before it an array in which most
//! are found at once.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::abi::{self, hl_address};
use crate::error::Result;
use crate::map::HashMap;
use crate::mapped::Mapped;

/// `addresses4` and `near4` of a role's tables.
#[derive(Debug)]
pub(crate) struct Addresses4 {
    all: HashMap<u32, hl_address>,
    near: Mapped,
}

impl Addresses4 {
    pub(crate) fn new(all: OwnedFd, near: OwnedFd) -> Result<Self> {
        Ok(Self {
            all: HashMap::new(all, "address", abi::ADDRESSES),
            near: Mapped::new(near, "near4", abi::NEAR, 8)?,
        })
    }

    /// `key` is the address as it stands in a header.
    pub(crate) fn set(&self, key: u32, value: hl_address) -> Result<()> {
        self.all.set(key, value)?;
        let near = self.near(key);
        let old = near.load(Ordering::Acquire);
        if old == 0 || old as u32 == key {
            let whose = u64::from(value.cluster << 2 | value.kind);
            near.store(whose << 32 | u64::from(key), Ordering::Release);
        }
        Ok(())
    }

    /// Whether it was there.
    pub(crate) fn remove(&self, key: u32) -> Result<bool> {
        let near = self.near(key);
        if near.load(Ordering::Acquire) as u32 == key {
            near.store(0, Ordering::Release);
        }
        self.all.remove(key)
    }

    pub(crate) fn entries(&self) -> Result<Vec<(u32, hl_address)>> {
        self.all.entries()
    }

    /// The word in which an address may stand: the same place as the program's (`c/address.h`).
    fn near(&self, key: u32) -> &AtomicU64 {
        self.near.at((key.wrapping_mul(0x9e37_79b1) >> 22) as usize)
    }
}
