//! What changes in a namespace's network, told by the kernel as it happens.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;

use crate::netlink::route_socket;
use crate::{Error, Result};

/// What the kernel may put into one notice, with room to spare.
const NOTICE_BYTES_MAX: usize = 32 * 1024;

/// Something that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface, and whether packets can pass: it is up, and so is what it is connected to.
    Link { index: u32, is_running: bool },
    /// An interface is gone.
    LinkGone { index: u32 },
    /// The Ethernet address of a next hop, or whether it answers.
    Neighbour,
    /// A route.
    Route,
    /// The kernel had more to tell than there was room for: anything may have changed.
    Lost,
}

/// A socket that hears of changes of links, neighbours and routes of one namespace from the moment
/// it is opened.
#[derive(Debug)]
pub struct Watch {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Watch {
    /// Of the namespace that the calling thread is in.
    pub fn here() -> Result<Self> {
        const GROUPS: i32 = libc::RTMGRP_LINK
            | libc::RTMGRP_NEIGH
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_ROUTE;
        let socket = route_socket(GROUPS as u32)
            .map_err(|error| Error::refused("watch the network", error))?;
        Ok(Self {
            socket,
            buffer: vec![0; NOTICE_BYTES_MAX],
        })
    }

    /// Waits for changes for so long; none came if it is empty.
    pub fn next(&mut self, patience: Duration) -> Result<Vec<Change>> {
        self.wait(patience)
            .map_err(|error| Error::refused("hear of changes of the network", error))
    }

    fn wait(&mut self, patience: Duration) -> io::Result<Vec<Change>> {
        let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            other => other?,
        };
        let received = rustix::net::recv(
            self.socket.as_fd(),
            self.buffer.as_mut_slice(),
            RecvFlags::DONTWAIT,
        );
        let filled = match received {
            Ok((filled, _)) => filled,
            Err(rustix::io::Errno::NOBUFS) => return Ok(vec![Change::Lost]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut changes = Vec::new();
        let mut rest = &self.buffer[..filled];
        while rest.len() >= size_of::<libc::nlmsghdr>() {
            // What this release cannot read may be anything.
            let Ok(notice) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
                changes.push(Change::Lost);
                break;
            };
            let length = notice.header.length as usize;
            // Messages start at multiples of four bytes.
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
            if let NetlinkPayload::InnerMessage(message) = notice.payload {
                changes.extend(change(&message));
            }
        }
        Ok(changes)
    }
}

fn change(message: &RouteNetlinkMessage) -> Option<Change> {
    Some(match message {
        RouteNetlinkMessage::NewLink(link) => Change::Link {
            index: link.header.index,
            is_running: link
                .header
                .flags
                .contains(LinkFlags::Up | LinkFlags::LowerUp),
        },
        RouteNetlinkMessage::DelLink(link) => Change::LinkGone {
            index: link.header.index,
        },
        RouteNetlinkMessage::NewNeighbour(_) | RouteNetlinkMessage::DelNeighbour(_) => {
            Change::Neighbour
        }
        RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => Change::Route,
        _ => return None,
    })
}
