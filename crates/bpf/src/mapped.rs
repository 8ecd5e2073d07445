//! Arrays of the kernel that lie in our memory: rows, marks, guest words.
//!
//! Every access of ours is an atomic one to an aligned 64-bit word, as are the programs', so that
//! nobody sees half of one. Structs are written word by word while no packet can reach them.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::error::{Error, Result};

/// A mapped array of entries, each a multiple of 8 bytes.
#[derive(Debug)]
pub(crate) struct Mapped {
    base: NonNull<AtomicU64>,
    words_per_entry: usize,
    entries: usize,
    /// Keeps the map's descriptor for as long as the mapping.
    _fd: OwnedFd,
}

// SAFETY: the memory is the kernel's and lives as long as the value; all accesses are atomic.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the array behind `fd`: `entries` of `entry_bytes` each.
    pub(crate) fn new(
        fd: OwnedFd,
        table: &'static str,
        entries: u64,
        entry_bytes: usize,
    ) -> Result<Self> {
        assert_eq!(entry_bytes % 8, 0, "the kernel strides entries by 8 bytes");
        let entries = entries as usize;
        // SAFETY: a new mapping at an address of the kernel's choice. Its length is rounded up to
        // pages by both sides.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                entries * entry_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd.as_fd(),
                0,
            )
        };
        let base = base.map_err(|errno| Error::Table {
            table,
            what: "map",
            source: errno.into(),
        })?;
        let base = NonNull::new(base.cast()).expect("a mapping is never at address 0");
        Ok(Self {
            base,
            words_per_entry: entry_bytes / 8,
            entries,
            _fd: fd,
        })
    }

    /// Word `word` of entry `entry`.
    pub(crate) fn word(&self, entry: usize, word: usize) -> &AtomicU64 {
        assert!(entry < self.entries && word < self.words_per_entry);
        // SAFETY: within the mapping, as just checked; aligned, since the mapping is by pages;
        // alive as long as self.
        unsafe { self.base.add(entry * self.words_per_entry + word).as_ref() }
    }

    /// The first word of entry `entry`.
    pub(crate) fn at(&self, entry: usize) -> &AtomicU64 {
        self.word(entry, 0)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// Writes a whole entry. No packet may reach it yet.
    pub(crate) fn write<const N: usize>(&self, entry: usize, words: [u64; N]) {
        assert_eq!(N, self.words_per_entry);
        for (position, value) in words.into_iter().enumerate() {
            self.word(entry, position).store(value, Ordering::Relaxed);
        }
        std::sync::atomic::fence(Ordering::Release);
    }

    pub(crate) fn read<const N: usize>(&self, entry: usize) -> [u64; N] {
        assert_eq!(N, self.words_per_entry);
        std::array::from_fn(|word| self.word(entry, word).load(Ordering::Relaxed))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody can hold a reference into it any more.
        let result = unsafe {
            munmap(
                self.base.as_ptr().cast(),
                self.entries * self.words_per_entry * 8,
            )
        };
        debug_assert!(result.is_ok(), "our own mapping can be unmapped");
    }
}

/// A bit per guest slot with a count in front: `dead_marks` and `dead` of `abi.h`.
pub(crate) struct Marks<'a> {
    map: &'a Mapped,
    entry: usize,
    /// Word of `dead_marks`; the bits follow.
    first: usize,
}

impl<'a> Marks<'a> {
    pub(crate) fn new(map: &'a Mapped, entry: usize, first: usize) -> Self {
        Self { map, entry, first }
    }

    /// Sets or clears a mark. The count is only a hint for packets to look at the bits: it is
    /// raised before a bit is set and lowered after one was cleared.
    pub(crate) fn set(&self, slot: u16, is_dead: bool) {
        let bits = self
            .map
            .word(self.entry, self.first + 1 + usize::from(slot / 64));
        let bit = 1 << (slot % 64);
        let count = self.map.word(self.entry, self.first);
        if is_dead {
            count.fetch_add(1, Ordering::SeqCst);
            if bits.fetch_or(bit, Ordering::SeqCst) & bit != 0 {
                count.fetch_sub(1, Ordering::SeqCst);
            }
        } else if bits.fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
            count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    pub(crate) fn is_set(&self, slot: u16) -> bool {
        let bits = self
            .map
            .word(self.entry, self.first + 1 + usize::from(slot / 64));
        bits.load(Ordering::SeqCst) & (1 << (slot % 64)) != 0
    }
}
