//! A blocking netlink socket: one request, all of its answers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::{Error, Namespace, Result};

/// What the kernel may put into one answer: it fills at most 32 KiB per message of a dump.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A route netlink socket of the namespace that the calling thread is in; it hears of changes in the
/// multicast `groups`.
pub(crate) fn route_socket(groups: u32) -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE is protocol 0.
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// A route netlink socket of one namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// A socket of `namespace`.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        namespace.run(Self::here)?
    }

    /// A socket of the namespace that the calling thread is in.
    pub fn here() -> Result<Self> {
        let socket =
            route_socket(0).map_err(|error| Error::refused("open a netlink socket", error))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Makes a request that changes something and waits for the kernel's word on it.
    pub(crate) fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        operation: impl FnOnce() -> String,
    ) -> Result<()> {
        self.exchange(message, flags | NLM_F_ACK)
            .map(drop)
            .map_err(|error| Error::refused(operation(), error))
    }

    /// Asks for everything of a kind.
    pub(crate) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        operation: &str,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.exchange(message, NLM_F_DUMP)
            .map_err(|error| Error::refused(operation, error))
    }

    /// Asks for one thing.
    pub(crate) fn request(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.exchange(message, NLM_F_ACK)
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        rustix::net::sendto(
            self.socket.as_fd(),
            &bytes,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;

        let mut answers = Vec::new();
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        loop {
            let (filled, _) = rustix::net::recv(
                self.socket.as_fd(),
                buffer.as_mut_slice(),
                RecvFlags::empty(),
            )?;
            let mut rest = &buffer[..filled];
            while rest.len() >= size_of::<libc::nlmsghdr>() {
                let answer =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|error| {
                        io::Error::new(io::ErrorKind::InvalidData, error.to_string())
                    })?;
                let length = answer.header.length as usize;
                // Messages start at multiples of four bytes.
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(answers),
                        Some(_) => return Err(error.to_io()),
                    },
                    _ => {}
                }
            }
        }
    }
}
