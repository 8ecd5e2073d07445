//! The memory file with keys: what must outlive a worker and be seen by nobody else.
//!
//! Beside each connection slot of the [slot file](crate::slots) there is an entry here, used by
//! connections that speak TLS; in front there is room for the keys of session tickets. The keeper
//! makes the file and passes it on; it never looks into it. What an entry means is its writer's
//! business: it is words, each read and written as a whole.
//!
//! The pages of entries in use are kept out of swap as far as the process may, and all of it out of
//! core files. A freed entry is wiped.
//!
//! ```text
//! page 0          Head
//! then per lane   slots_per_lane x ENTRY_WORDS words
//! ```

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Mutex;

use crate::memory::SharedMemory;

/// Version of everything in this module.
pub const LAYOUT: u32 = 1;
/// Words of an entry: two layers with two keys each, and what is on its way.
pub const ENTRY_WORDS: usize = 64;
/// Words for the keys of tickets.
pub const TICKET_WORDS: usize = 64;

const MAGIC: u64 = u64::from_le_bytes(*b"hitlvalt");
const PAGE_BYTES: usize = 4096;
const ENTRY_BYTES: usize = ENTRY_WORDS * 8;

/// One connection's words.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Entry {
    words: [AtomicU64; ENTRY_WORDS],
}

#[derive(Debug)]
#[repr(C, align(64))]
struct Head {
    magic: AtomicU64,
    layout: AtomicU32,
    lanes: AtomicU32,
    slots_per_lane: AtomicU32,
    /// Not 0 while somebody changes the keys of tickets.
    ticket_lock: AtomicU32,
    tickets: [AtomicU64; TICKET_WORDS],
}

/// The mapped file.
#[derive(Debug)]
pub struct Vault {
    memory: SharedMemory,
    lanes: u32,
    slots_per_lane: u32,
    /// Pages that were locked into memory, a bit each.
    locked: Mutex<Vec<u64>>,
}

impl Entry {
    pub fn load(&self, at: usize) -> u64 {
        self.words[at].load(Ordering::Acquire)
    }

    pub fn store(&self, at: usize, value: u64) {
        self.words[at].store(value, Ordering::Release);
    }

    /// Nothing of it is left.
    pub fn wipe(&self) {
        for word in &self.words {
            word.store(0, Ordering::Release);
        }
    }
}

impl Vault {
    /// A new file beside a slot file of this size.
    pub fn create(lanes: u32, slots_per_lane: u32) -> io::Result<Self> {
        let length = length(lanes, slots_per_lane);
        let memory = SharedMemory::create("hitless-vault", length)?;
        let vault = Self::of(memory, lanes, slots_per_lane);
        let head = vault.head();
        head.layout.store(LAYOUT, Ordering::Relaxed);
        head.lanes.store(lanes, Ordering::Relaxed);
        head.slots_per_lane.store(slots_per_lane, Ordering::Relaxed);
        head.magic.store(MAGIC, Ordering::Release);
        Ok(vault)
    }

    /// Maps the file of another process, or of the program before this one.
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "no vault of this layout");
        let memory = SharedMemory::map(file)?;
        if memory.length() < PAGE_BYTES {
            return Err(wrong());
        }
        let mut vault = Self::of(memory, 0, 0);
        let head = vault.head();
        let (lanes, slots_per_lane) = (
            head.lanes.load(Ordering::Relaxed),
            head.slots_per_lane.load(Ordering::Relaxed),
        );
        let is_ours = head.magic.load(Ordering::Acquire) == MAGIC
            && head.layout.load(Ordering::Relaxed) == LAYOUT
            && lanes <= crate::slots::LANES_MAX
            && slots_per_lane <= crate::slots::SLOTS_PER_LANE_MAX
            && vault.memory.length() == length(lanes, slots_per_lane);
        if !is_ours {
            return Err(wrong());
        }
        (vault.lanes, vault.slots_per_lane) = (lanes, slots_per_lane);
        Ok(vault)
    }

    fn of(memory: SharedMemory, lanes: u32, slots_per_lane: u32) -> Self {
        memory.leave_out_of_dumps();
        Self {
            memory,
            lanes,
            slots_per_lane,
            locked: Mutex::default(),
        }
    }

    pub fn file(&self) -> BorrowedFd<'_> {
        self.memory.file()
    }

    fn head(&self) -> &Head {
        // SAFETY: `Head` is repr(C) and made of atomic integers only.
        unsafe { self.memory.view(0) }
    }

    /// The entry of a slot. Panics outside the file: places are computed, never received.
    pub fn entry(&self, lane: u32, slot: u32) -> &Entry {
        assert!(
            lane < self.lanes && slot < self.slots_per_lane,
            "a place of the file"
        );
        // SAFETY: `Entry` is repr(C) and made of atomic integers only.
        unsafe { self.memory.view(self.offset(lane, slot)) }
    }

    /// Keeps the page of an entry that is about to be used in memory. Where that is not allowed the
    /// entry is used all the same.
    pub fn keep_in_memory(&self, lane: u32, slot: u32) {
        let page = self.offset(lane, slot) / PAGE_BYTES;
        let mut locked = self
            .locked
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (word, bit) = (page / 64, 1u64 << (page % 64));
        if locked.len() <= word {
            locked.resize(word + 1, 0);
        }
        if locked[word] & bit == 0 {
            locked[word] |= bit;
            self.memory.lock_page(page * PAGE_BYTES, PAGE_BYTES);
        }
    }

    fn offset(&self, lane: u32, slot: u32) -> usize {
        let lane_bytes = self.slots_per_lane as usize * ENTRY_BYTES;
        PAGE_BYTES + lane as usize * lane_bytes + slot as usize * ENTRY_BYTES
    }

    /// The words of the keys of tickets, for reading; somebody may change them meanwhile.
    pub fn tickets(&self) -> &[AtomicU64; TICKET_WORDS] {
        &self.head().tickets
    }

    /// Calls with the words of the keys of tickets, alone: nobody else changes them meanwhile.
    /// `None`: somebody does.
    pub fn with_tickets<T>(&self, call: impl FnOnce(&[AtomicU64; TICKET_WORDS]) -> T) -> Option<T> {
        let head = self.head();
        let me = std::process::id();
        // A worker that died in here must not shut the others out for ever.
        let holder = head.ticket_lock.load(Ordering::Acquire);
        let is_free = holder == 0 || !std::path::Path::new(&format!("/proc/{holder}")).exists();
        let taken = is_free
            && head
                .ticket_lock
                .compare_exchange(holder, me, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        if !taken {
            return None;
        }
        self.memory.lock_page(0, PAGE_BYTES);
        let result = call(&head.tickets);
        head.ticket_lock.store(0, Ordering::Release);
        Some(result)
    }
}

fn length(lanes: u32, slots_per_lane: u32) -> usize {
    let bytes = PAGE_BYTES + lanes as usize * slots_per_lane as usize * ENTRY_BYTES;
    bytes.next_multiple_of(PAGE_BYTES)
}

const _: () = assert!(size_of::<Entry>() == ENTRY_BYTES && size_of::<Head>() <= PAGE_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_mapping_sees_entries_until_they_are_wiped() {
        let first = Vault::create(2, 100).unwrap();
        first.keep_in_memory(1, 99);
        first.entry(1, 99).store(63, 7);
        let second = Vault::map(first.file().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(second.entry(1, 99).load(63), 7);
        second.entry(1, 99).wipe();
        assert_eq!(first.entry(1, 99).load(63), 0);
        let changed = first.with_tickets(|words| {
            words[0].store(5, Ordering::Relaxed);
            second.with_tickets(|_| ()).is_none()
        });
        assert_eq!(changed, Some(true), "two at a time");
        let seen = second.with_tickets(|words| words[0].load(Ordering::Relaxed));
        assert_eq!(seen, Some(5));
        let other = SharedMemory::create("other", 8192).unwrap();
        assert!(Vault::map(other.file().try_clone_to_owned().unwrap()).is_err());
    }
}
