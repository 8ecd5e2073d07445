//! Tables that are changed by system calls: hash maps, whose entries the kernel replaces whole.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, OwnedFd};

use libbpf_rs::libbpf_sys;

use crate::error::{Error, Result, checked};

/// Plain data that may be handed to the kernel byte by byte and read back.
///
/// # Safety
///
/// The type has no padding, and every pattern of bytes is a value of it.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: integers have neither padding nor invalid values.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: four integers of one size.
unsafe impl Plain for crate::abi::hl_in6 {}
// SAFETY: 4 + 4 + 4 x 8 bytes of integers.
unsafe impl Plain for crate::abi::hl_address {}
// SAFETY: 16 + 4 + 4 bytes of integers; the layout test checks its size.
unsafe impl Plain for crate::abi::hl_port {}

/// A hash map with keys `K` and values `V`.
#[derive(Debug)]
pub(crate) struct HashMap<K, V> {
    fd: OwnedFd,
    table: &'static str,
    limit: usize,
    types: PhantomData<(K, V)>,
}

impl<K: Plain, V: Plain> HashMap<K, V> {
    pub(crate) fn new(fd: OwnedFd, table: &'static str, limit: u64) -> Self {
        Self {
            fd,
            table,
            limit: limit as usize,
            types: PhantomData,
        }
    }

    pub(crate) fn set(&self, key: K, value: V) -> Result<()> {
        // SAFETY: key and value have the sizes of the map, and live until the call returns.
        let result = unsafe {
            libbpf_sys::bpf_map_update_elem(
                self.fd.as_raw_fd(),
                (&raw const key).cast(),
                (&raw const value).cast(),
                libbpf_sys::BPF_ANY.into(),
            )
        };
        checked(result)
            .map(drop)
            .map_err(|source| match source.raw_os_error() {
                Some(errno) if errno == rustix::io::Errno::TOOBIG.raw_os_error() => Error::Full {
                    what: self.table,
                    limit: self.limit,
                },
                _ => self.error("write", source),
            })
    }

    /// Whether there was such an entry.
    pub(crate) fn remove(&self, key: K) -> Result<bool> {
        // SAFETY: the key has the size of the map's keys, and lives until the call returns.
        let result = unsafe {
            libbpf_sys::bpf_map_delete_elem(self.fd.as_raw_fd(), (&raw const key).cast())
        };
        match checked(result) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(self.error("change", source)),
        }
    }

    /// All entries, as they were at some moment during the call.
    pub(crate) fn entries(&self) -> Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        let mut before: Option<K> = None;
        loop {
            let mut key = std::mem::MaybeUninit::<K>::uninit();
            let from = before
                .as_ref()
                .map_or(std::ptr::null(), |key| &raw const *key);
            // SAFETY: both pointers are null or to keys of the map's size, and live until the call
            // returns.
            let result = unsafe {
                libbpf_sys::bpf_map_get_next_key(
                    self.fd.as_raw_fd(),
                    from.cast(),
                    key.as_mut_ptr().cast(),
                )
            };
            match checked(result) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(entries),
                Err(source) => return Err(self.error("read", source)),
                Ok(_) => {}
            }
            // SAFETY: the call succeeded, so it has filled the key.
            let key = unsafe { key.assume_init() };
            if let Some(value) = self.value(key)? {
                entries.push((key, value));
            }
            before = Some(key);
        }
    }

    fn value(&self, key: K) -> Result<Option<V>> {
        let mut value = std::mem::MaybeUninit::<V>::uninit();
        // SAFETY: key and value have the sizes of the map, and live until the call returns.
        let result = unsafe {
            libbpf_sys::bpf_map_lookup_elem(
                self.fd.as_raw_fd(),
                (&raw const key).cast(),
                value.as_mut_ptr().cast(),
            )
        };
        match checked(result) {
            // SAFETY: the call succeeded, so it has filled the value.
            Ok(_) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.error("read", source)),
        }
    }

    fn error(&self, what: &'static str, source: io::Error) -> Error {
        Error::Table {
            table: self.table,
            what,
            source,
        }
    }
}
