//! Waiting until no packet is under way that may have read what was just replaced.
//!
//! A program runs within an RCU read section. The kernel waits for all such sections that run when
//! it changes the entry of a map of maps, before the system call returns, because it is documented
//! to do so for just this use; so a tiny map of maps whose only entry is written again is a
//! barrier. (`membarrier` waits likewise today, but refuses on kernels with tickless cores, and
//! promises less.) It takes some milliseconds, so one barrier ends many changes.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use libbpf_rs::libbpf_sys;

use crate::error::{Error, Result, checked};

/// The map of maps of one handle. Not pinned: a barrier concerns only who waits for it.
#[derive(Debug)]
pub(crate) struct Grace {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Grace {
    pub(crate) fn new() -> Result<Self> {
        let error = |source| Error::Table {
            table: "grace",
            what: "create",
            source,
        };
        let inner = create(libbpf_sys::BPF_MAP_TYPE_ARRAY, None).map_err(error)?;
        let outer = create(libbpf_sys::BPF_MAP_TYPE_ARRAY_OF_MAPS, Some(&inner)).map_err(error)?;
        Ok(Self { outer, inner })
    }

    /// Returns when every packet that entered a program before the call has left it.
    pub(crate) fn wait(&self) -> Result<()> {
        let key = 0u32;
        let value = self.inner.as_raw_fd();
        // SAFETY: key and value are 4 bytes as the map's, and live until the call returns.
        let result = unsafe {
            libbpf_sys::bpf_map_update_elem(
                self.outer.as_raw_fd(),
                (&raw const key).cast(),
                (&raw const value).cast(),
                libbpf_sys::BPF_ANY.into(),
            )
        };
        checked(result).map(drop).map_err(|source| Error::Table {
            table: "grace",
            what: "write",
            source,
        })
    }
}

fn create(kind: u32, inner: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    // SAFETY: a struct of integers and pointers, for which zero means "default".
    let mut options: libbpf_sys::bpf_map_create_opts = unsafe { std::mem::zeroed() };
    options.sz = size_of_val(&options) as _;
    options.inner_map_fd = inner.map_or(0, |fd| fd.as_raw_fd() as u32);
    // SAFETY: the options live until the call returns; no name is given.
    let fd = unsafe { libbpf_sys::bpf_map_create(kind, ptr::null(), 4, 4, 1, &raw const options) };
    let fd = checked(fd)?;
    // SAFETY: the call has made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
