//! Memory files: anonymous files that processes map or read, passed as descriptors.

use core::sync::atomic::{AtomicU32, AtomicU64};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// A sealed memory file with these bytes, for a reader that may not change them.
pub fn from_bytes(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create(name, flags)?);
    file.write_all_at(bytes, 0)?;
    let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// All bytes of a memory file, refused above `max` bytes.
pub fn to_bytes(fd: impl AsFd, max: u64) -> io::Result<Vec<u8>> {
    let file = File::from(fd.as_fd().try_clone_to_owned()?);
    let length = file.metadata()?.len();
    if length > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "memory file above its limit",
        ));
    }
    let mut bytes = vec![0u8; length as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// A memory file mapped read-write and shared with every process that maps it. All access is
/// atomic: other processes write it too. Its size never changes (sealed), so a mapping never loses
/// a page.
pub struct SharedMemory {
    file: OwnedFd,
    base: *mut u8,
    length: usize,
}

// SAFETY: the mapping is only read and written through atomics, and lives as long as the value.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// A new file of `length` bytes, all 0.
    pub fn create(name: &str, length: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create(name, flags)?;
        rustix::fs::ftruncate(&file, length as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Self::map(file)
    }

    /// Maps a file made by [`create`](Self::create), maybe by another process.
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        let seals = rustix::fs::fcntl_get_seals(&file)?;
        if !seals.contains(SealFlags::GROW | SealFlags::SHRINK) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "memory file is not sealed",
            ));
        }
        let length = rustix::fs::fstat(&file)?.st_size as usize;
        if length == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "memory file is empty",
            ));
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of ours; the
        // seals keep the file's size, so no access within `length` can fault.
        let base = unsafe {
            rustix::mm::mmap(
                core::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )?
        };
        Ok(Self {
            file,
            base: base.cast(),
            length,
        })
    }

    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub fn length(&self) -> usize {
        self.length
    }

    /// No core file gets it. Best effort.
    pub(crate) fn leave_out_of_dumps(&self) {
        let advice = rustix::mm::Advice::LinuxDontDump;
        // SAFETY: this is the mapping made in `map`, whole; the advice changes no contents.
        let _ = unsafe { rustix::mm::madvise(self.base.cast(), self.length, advice) };
    }

    /// Keeps a part of it out of swap. Best effort: a process may lock some megabytes only. Panics
    /// outside the file.
    pub(crate) fn lock_page(&self, offset: usize, length: usize) {
        assert!(offset + length <= self.length, "the page lies in the file");
        // SAFETY: the range lies in the mapping made in `map`; locking changes no contents.
        let _ = unsafe { rustix::mm::mlock(self.base.add(offset).cast(), length) };
    }

    /// The aligned 32-bit word at a byte offset. Panics outside the file: offsets are computed,
    /// never received.
    pub fn word32(&self, offset: usize) -> &AtomicU32 {
        assert!(
            offset.is_multiple_of(4) && offset + 4 <= self.length,
            "offset lies in the file"
        );
        // SAFETY: in bounds and aligned (the base is page-aligned); atomics have no invalid bit
        // patterns, and all processes access the file through atomics.
        unsafe { AtomicU32::from_ptr(self.base.add(offset).cast()) }
    }

    /// The aligned 64-bit word at a byte offset. Panics outside the file.
    pub fn word64(&self, offset: usize) -> &AtomicU64 {
        assert!(
            offset.is_multiple_of(8) && offset + 8 <= self.length,
            "offset lies in the file"
        );
        // SAFETY: as in `word32`.
        unsafe { AtomicU64::from_ptr(self.base.add(offset).cast()) }
    }

    /// A struct of atomics at a byte offset.
    ///
    /// # Safety
    /// `T` is `repr(C)` and consists of atomic integers only.
    pub(crate) unsafe fn view<T>(&self, offset: usize) -> &T {
        assert!(offset.is_multiple_of(align_of::<T>()), "offset is aligned");
        assert!(
            offset + size_of::<T>() <= self.length,
            "offset lies in the file"
        );
        // SAFETY: in bounds and aligned; the caller promises that any bits are a valid `T` and that
        // it is only accessed atomically.
        unsafe { &*self.base.add(offset).cast::<T>() }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `map`, and no reference to it outlives the value.
        let _ = unsafe { rustix::mm::munmap(self.base.cast(), self.length) };
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn two_mappings_share_words() {
        let first = SharedMemory::create("test", 8192).unwrap();
        let second = SharedMemory::map(first.file().try_clone_to_owned().unwrap()).unwrap();
        first.word64(4096).store(7, Ordering::Relaxed);
        assert_eq!(second.word64(4096).load(Ordering::Relaxed), 7);
    }

    #[test]
    fn bytes_are_sealed_and_bounded() {
        let fd = from_bytes("test", b"pools: {}").unwrap();
        assert_eq!(to_bytes(&fd, 100).unwrap(), b"pools: {}");
        assert!(to_bytes(&fd, 3).is_err());
        assert!(rustix::io::write(&fd, b"x").is_err());
        assert!(
            SharedMemory::map(rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap()).is_err()
        );
    }
}
