//! Offload switches of an interface.
//!
//! A veth end hands packets over with checksums still to be filled in and segments still to be cut.
//! XDP loses those notes on the way, so whoever puts XDP behind a veth end switches checksums off,
//! and segmentation goes with them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::{Error, Namespace, Result};

/// What an interface can do in the stack's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offload {
    /// Filling in checksums of what is sent. Off also ends segmentation, which needs it.
    SendChecksum,
    /// Merging received segments before the stack sees them.
    ReceiveMerge,
}

impl Offload {
    const fn command(self) -> u32 {
        // ETHTOOL_STXCSUM and ETHTOOL_SGRO of linux/ethtool.h.
        match self {
            Self::SendChecksum => 0x17,
            Self::ReceiveMerge => 0x2c,
        }
    }
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// `SIOCETHTOOL` of linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// Switches an offload of `interface` in `namespace` on or off.
pub fn set_offload(
    namespace: &Namespace,
    interface: &str,
    offload: Offload,
    is_on: bool,
) -> Result<()> {
    namespace
        .run(|| switch(interface, offload, is_on))?
        .map_err(|error| {
            Error::refused(
                format!("switch {offload:?} of {interface} to {is_on}"),
                error,
            )
        })
}

fn switch(interface: &str, offload: Offload, is_on: bool) -> io::Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut value = EthtoolValue {
        command: offload.command(),
        data: u32::from(is_on),
    };
    // SAFETY: all bytes zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request holds a name that ends in 0 and a pointer to an ethtool_value that
    // outlives the call, which is what SIOCETHTOOL with these commands reads.
    let result = unsafe {
        libc::ioctl(
            socket.as_fd().as_raw_fd(),
            SIOCETHTOOL as _,
            &raw mut request,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
