//! Half-open entries and SYN cookies: what the kernel tells only over netlink and `/proc`.
//!
//! A duplicate SYN leaves an entry that nobody will ever complete, and that holds a settle up for a
//! minute. The kernel removes one without sending anything if it is asked through `SOCK_DESTROY`,
//! which needs `tcp_diag`.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use hitless_core::flow::Flow;
use rustix::net::netlink::SOCK_DIAG;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Error, Result};

pub(crate) const SOCK_DIAG_BY_FAMILY: u16 = 20;
pub(crate) const SOCK_DESTROY: u16 = 21;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const STATE_SYN_RECEIVED: u8 = 3;
pub(crate) const IPPROTO_TCP: u8 = 6;

/// Length of a netlink header, and of a request or an answer's fixed part behind it.
pub(crate) const HEADER: usize = 16;
pub(crate) const REQUEST: usize = 56;
/// Where a socket's cookie lies in a request; in an answer it lies 4 bytes earlier.
const COOKIE: usize = 48;
const ANSWER_COOKIE: usize = COOKIE - 4;
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// See [`crate::Ingress::remove_half_open`].
pub(crate) fn remove(flows: &[Flow]) -> Result<usize> {
    remove_all(flows).map_err(|source| Error::Destroy { source })
}

fn remove_all(flows: &[Flow]) -> io::Result<usize> {
    let socket = open()?;
    let mut removed = 0;
    for flow in flows {
        // The kernel falls back to the listener if there is no entry. So it is asked first what it
        // has, and what it then removes is named by the cookie: never the listener.
        let Some(cookie) = half_open_cookie(&socket, flow)? else {
            continue;
        };
        match ask(&socket, SOCK_DESTROY, NLM_F_ACK, flow, cookie) {
            Ok(_) => removed += 1,
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

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

/// The cookie of the flow's half-open entry; `None` if there is none.
fn half_open_cookie(socket: &OwnedFd, flow: &Flow) -> io::Result<Option<[u8; 8]>> {
    let answer = match ask(socket, SOCK_DIAG_BY_FAMILY, 0, flow, NO_COOKIE) {
        Err(error) if is_gone(&error) => return Ok(None),
        answer => answer?,
    };
    let state = answer.get(HEADER + 1);
    let cookie = answer.get(HEADER + ANSWER_COOKIE..HEADER + ANSWER_COOKIE + 8);
    Ok(match (state, cookie) {
        (Some(&STATE_SYN_RECEIVED), Some(cookie)) => cookie.try_into().ok(),
        _ => None,
    })
}

pub(crate) fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let gone = [Errno::NOENT, Errno::STALE].map(Errno::raw_os_error);
    error
        .raw_os_error()
        .is_some_and(|errno| gone.contains(&errno))
}

/// One request, one answer.
fn ask(
    socket: &OwnedFd,
    kind: u16,
    flags: u16,
    flow: &Flow,
    cookie: [u8; 8],
) -> io::Result<Vec<u8>> {
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    request.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    request.extend([0; 8]);
    let family = match flow.destination {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    request.extend([family.as_raw() as u8, IPPROTO_TCP, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    // A socket's source is ours: the flow's destination.
    request.extend(flow.destination_port.to_be_bytes());
    request.extend(flow.source_port.to_be_bytes());
    for address in [flow.destination, flow.source] {
        let mut bytes = [0; 16];
        match address {
            IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes = address.octets(),
        }
        request.extend(bytes);
    }
    request.extend([0; 4]);
    request.extend(cookie);
    exchange(socket, &request)
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

/// SYN cookies sent by this thread's network namespace since it was made.
pub(crate) fn cookies_sent() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/netstat")
        .map_err(|source| Error::Count { source })?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return Ok(0);
    };
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let sent = pairs.find(|(name, _)| *name == "SyncookiesSent");
    Ok(sent.and_then(|(_, value)| value.parse().ok()).unwrap_or(0))
}
