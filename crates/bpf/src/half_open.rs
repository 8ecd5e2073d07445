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
use rustix::net::AddressFamily;

use crate::error::{Error, Result};
use crate::inet_diag::{
    HEADER, ID, NLM_F_ACK, SOCK_DESTROY, SOCK_DIAG_BY_FAMILY, STATE_SYN_RECEIVED, exchange,
    is_gone, open, request,
};

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

/// One request, one answer.
fn ask(
    socket: &OwnedFd,
    kind: u16,
    flags: u16,
    flow: &Flow,
    cookie: [u8; 8],
) -> io::Result<Vec<u8>> {
    let family = match flow.destination {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    // A socket's source is ours: the flow's destination.
    let mut id = Vec::with_capacity(ID);
    id.extend(flow.destination_port.to_be_bytes());
    id.extend(flow.source_port.to_be_bytes());
    for address in [flow.destination, flow.source] {
        let mut bytes = [0; 16];
        match address {
            IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes = address.octets(),
        }
        id.extend(bytes);
    }
    id.extend([0; 4]);
    id.extend(cookie);
    let id = id.try_into().expect("ports, addresses, interface, cookie");
    let request = request(kind, flags, family.as_raw() as u8, u32::MAX, &id);
    exchange(socket, &request)
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
