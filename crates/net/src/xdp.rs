//! The XDP program that does nothing but let packets pass.
//!
//! A veth end delivers what the other end's XDP program transmits or redirects only if it has an
//! XDP program of its own; without one such packets vanish without a trace. So every end whose peer
//! runs a director or an ingress gets this one. It stays while the interface does.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};

use crate::{Error, Netlink, Result};

/// `mov r0, XDP_PASS; exit`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];
/// `XDP_FLAGS_UPDATE_IF_NOEXIST | XDP_FLAGS_DRV_MODE` of linux/if_link.h.
const ATTACH_FLAGS: u32 = 1 << 0 | 1 << 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TYPE_XDP: u32 = 6;

/// The first fields of `union bpf_attr` for `BPF_PROG_LOAD`, up to the program's name.
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// Attaches the program to `interface`, in the driver, in the namespace of `netlink`. No error if
/// the interface runs a native program already, whichever it is: any will do.
pub fn attach_pass(netlink: &mut Netlink, interface: &str) -> Result<()> {
    let link = netlink.link(interface)?;
    if link.native_xdp.is_some() {
        return Ok(());
    }
    let operation = || format!("attach the passing program to {interface}");
    let program = load().map_err(|error| Error::refused(operation(), error))?;
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.attributes.push(LinkAttribute::Xdp(vec![
        LinkXdp::Fd(program.as_fd().as_raw_fd()),
        LinkXdp::Flags(ATTACH_FLAGS),
    ]));
    netlink.change(RouteNetlinkMessage::SetLink(message), 0, operation)
}

fn load() -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..12].copy_from_slice(b"hitless_pass");
    let attributes = ProgramLoad {
        kind: BPF_PROG_TYPE_XDP,
        instruction_count: PASS.len() as u32,
        instructions: PASS.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
    };
    // SAFETY: the attributes have the kernel's layout and their real size; both pointers are to
    // constants.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attributes,
            size_of::<ProgramLoad>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The number of the program that runs in the driver, as an interface's XDP attributes tell it.
pub(crate) fn native_program(parts: &[LinkXdp]) -> Option<u32> {
    let mut is_native = false;
    let mut single = None;
    for part in parts {
        match part {
            LinkXdp::Attached(XdpAttached::Driver) => is_native = true,
            LinkXdp::DrvProgId(id) => return Some(*id),
            LinkXdp::ProgId(id) => single = Some(*id),
            _ => {}
        }
    }
    single.filter(|_| is_native)
}
