//! What a guest's kernel holds, connection by connection, and how it is ended.
//!
//! Counts come from a BPF iterator, many times a minute ([`crate::Ingress::live_counts`]). Only
//! when a drain's deadline has come does somebody need names: then the kernel is asked over
//! netlink, and aborts by the cookie what it named, so never another socket of the same flow. An
//! abort sends a reset to the client.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use hitless_core::flow::{Flow, PROTOCOL_TCP};
use rustix::net::{AddressFamily, RecvFlags, SendFlags};

use crate::error::{Error, Result};
use crate::inet_diag::{
    HEADER, ID, NLM_F_ACK, NLMSG_ERROR, SOCK_DESTROY, SOCK_DIAG_BY_FAMILY, STATE_SYN_RECEIVED,
    exchange, is_gone, open, request,
};

const NLM_F_DUMP: u16 = 0x300;
const NLMSG_DONE: u16 = 3;
/// Length of an answer's fixed part, and where its fields lie behind the header.
const ANSWER: usize = 72;
const ANSWER_ID: usize = 4;
const ANSWER_INODE: usize = 68;
const STATE_FIN_WAIT2: u8 = 5;
/// All states but CLOSE and LISTEN; a TIME_WAIT entry counts as the state that it stands for.
const STATES: u32 = !(1 << 0 | 1 << 6 | 1 << 7 | 1 << 10);
/// A dump comes in parts of at most so many bytes.
const PART_BYTES: usize = 32_768;

/// A connection that the kernel holds, or an entry that may become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldSocket {
    /// As its client sends it.
    pub flow: Flow,
    /// Its handshake is not over: nobody has the connection yet.
    pub is_half_open: bool,
    /// Its program has closed it, and the client has all that it was sent: nobody loses it.
    pub is_over: bool,
    family: u8,
    /// Ports, addresses, interface and cookie, as the kernel names it.
    id: [u8; ID],
}

/// All that the calling thread's network namespace holds of TCP, of whatever address.
pub(crate) fn all() -> Result<Vec<HeldSocket>> {
    let dump_all = || {
        let socket = open()?;
        let mut held = Vec::new();
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            dump(&socket, family, &mut held)?;
        }
        Ok(held)
    };
    dump_all().map_err(|source: io::Error| Error::Count { source })
}

fn dump(socket: &OwnedFd, family: AddressFamily, held: &mut Vec<HeldSocket>) -> io::Result<()> {
    let id = [0; ID];
    let family = family.as_raw() as u8;
    let request = request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, STATES, &id);
    rustix::net::send(socket, &request, SendFlags::empty())?;
    let mut part = vec![0; PART_BYTES];
    loop {
        let (length, _) = rustix::net::recv(socket, &mut part[..], RecvFlags::empty())?;
        let mut rest = &part[..length];
        while !rest.is_empty() {
            let head: &[u8; HEADER] = rest.first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
            let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let body = rest
                .get(HEADER..length)
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            match u16::from_ne_bytes([head[4], head[5]]) {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let errno = body.first_chunk().copied().map(i32::from_ne_bytes);
                    return Err(io::Error::from_raw_os_error(-errno.unwrap_or(0)));
                }
                _ => held.extend(read(body)),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// None: it is shorter than any kernel's.
fn read(answer: &[u8]) -> Option<HeldSocket> {
    let answer = answer.get(..ANSWER)?;
    let (family, state) = (answer[0], answer[1]);
    let id: [u8; ID] = answer[ANSWER_ID..].first_chunk().copied()?;
    let port = |at: usize| u16::from_be_bytes([id[at], id[at + 1]]);
    let is_v4 = family == AddressFamily::INET.as_raw() as u8;
    let address = |at: usize| {
        if is_v4 {
            return Some(IpAddr::from(Ipv4Addr::from(
                id[at..].first_chunk().copied()?,
            )));
        }
        let address = Ipv6Addr::from(id[at..].first_chunk::<16>().copied()?);
        // A listener for both families holds IPv4 connections as mapped addresses.
        Some(address.to_canonical())
    };
    let has_owner = answer[ANSWER_INODE..ANSWER] != [0; 4];
    Some(HeldSocket {
        flow: Flow {
            source: address(20)?,
            destination: address(4)?,
            source_port: port(2),
            destination_port: port(0),
            protocol: PROTOCOL_TCP,
        },
        is_half_open: state == STATE_SYN_RECEIVED && !has_owner,
        is_over: state == STATE_FIN_WAIT2 && !has_owner,
        family,
        id,
    })
}

/// Aborts these. Those that were still there are answered; a kernel before 6.12 says so of sockets
/// without a program too, and leaves them to end by themselves.
pub(crate) fn abort(held: &[HeldSocket]) -> Result<Vec<HeldSocket>> {
    let abort_all = || {
        let socket = open()?;
        let mut aborted = Vec::new();
        for one in held {
            let request = request(SOCK_DESTROY, NLM_F_ACK, one.family, u32::MAX, &one.id);
            match exchange(&socket, &request) {
                Ok(_) => aborted.push(*one),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(aborted)
    };
    abort_all().map_err(|source: io::Error| Error::Destroy { source })
}
