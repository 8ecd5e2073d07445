//! The kernel's own view of sockets: requests and answers of `inet_diag` over netlink.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SOCK_DIAG;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

pub(crate) const SOCK_DIAG_BY_FAMILY: u16 = 20;
pub(crate) const SOCK_DESTROY: u16 = 21;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const STATE_SYN_RECEIVED: u8 = 3;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;

/// Length of a netlink header.
pub(crate) const HEADER: usize = 16;
/// Length of a request behind the header.
const REQUEST: usize = 56;
/// Length of what names a socket: ports, addresses, interface and cookie.
pub(crate) const ID: usize = 48;

/// A socket that asks about the sockets of the calling thread's network namespace.
pub(crate) fn open() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(SOCK_DIAG),
    )?;
    Ok(socket)
}

/// A request about sockets of TCP in some states, or about the one that `id` names.
pub(crate) fn request(kind: u16, flags: u16, family: u8, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    request.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, IPPROTO_TCP, 0, 0]);
    request.extend(states.to_ne_bytes());
    request.extend(id);
    request
}

/// Sends a request, and receives its one answer. A refusal is the error that the kernel names.
pub(crate) fn exchange(socket: &OwnedFd, request: &[u8]) -> io::Result<Vec<u8>> {
    debug_assert_eq!(request.len(), HEADER + REQUEST);
    rustix::net::send(socket, request, SendFlags::empty())?;

    let mut answer = vec![0; 8_192];
    let (length, _) = rustix::net::recv(socket, &mut answer[..], RecvFlags::empty())?;
    answer.truncate(length);
    let number = |at: usize| {
        answer
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
    };
    let is_error = answer.get(4..6) == Some(&NLMSG_ERROR.to_ne_bytes());
    match number(HEADER).map(i32::from_ne_bytes) {
        None => Err(io::ErrorKind::UnexpectedEof.into()),
        Some(errno) if is_error && errno != 0 => Err(io::Error::from_raw_os_error(-errno)),
        Some(_) => Ok(answer),
    }
}

/// Whether the socket that was asked for is not there.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let gone = [Errno::NOENT, Errno::STALE].map(Errno::raw_os_error);
    error
        .raw_os_error()
        .is_some_and(|errno| gone.contains(&errno))
}
