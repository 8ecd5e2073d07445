//! Asking the kernel which way a packet would go.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage,
};

use crate::link::family;
use crate::route::{address, plain};
use crate::{Error, Netlink, Result};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Index of the interface that it leaves by.
    pub interface: u32,
    /// None: the destination is on the interface's link.
    pub gateway: Option<IpAddr>,
    /// Address that our side would use as the source. None for packets that are forwarded.
    pub source: Option<IpAddr>,
}

impl Netlink {
    /// The way of a packet that this namespace itself sends to `destination`.
    pub fn way_to(&mut self, destination: IpAddr) -> Result<Way> {
        let message = question(destination);
        self.ask(message, || format!("find the way to {destination}"))
    }

    /// The way of a TCP packet from `from` to `to` that arrives at interface `arrives_at` and is
    /// forwarded: with several paths of equal cost, the one that the flow's hash chooses.
    pub fn way_of_flow(
        &mut self,
        arrives_at: u32,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<Way> {
        let mut message = question(to.ip());
        message.header.source_prefix_length = if to.is_ipv6() { 128 } else { 32 };
        message.attributes.extend([
            RouteAttribute::Source(address(from.ip())),
            RouteAttribute::Iif(arrives_at),
            RouteAttribute::IpProto(libc::IPPROTO_TCP as u8),
            RouteAttribute::Sport(from.port()),
            RouteAttribute::Dport(to.port()),
        ]);
        self.ask(message, || {
            format!("find the way of the flow {from} - {to}")
        })
    }

    fn ask(&mut self, message: RouteMessage, operation: impl Fn() -> String) -> Result<Way> {
        let answers = self
            .request(RouteNetlinkMessage::GetRoute(message))
            .map_err(|error| Error::refused(operation(), error))?;
        for answer in answers {
            let RouteNetlinkMessage::NewRoute(message) = answer else {
                continue;
            };
            let mut interface = None;
            let mut gateway = None;
            let mut source = None;
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => interface = Some(*index),
                    RouteAttribute::Gateway(found) => gateway = plain(found),
                    RouteAttribute::PrefSource(found) => source = plain(found),
                    _ => {}
                }
            }
            if let Some(interface) = interface {
                return Ok(Way {
                    interface,
                    gateway,
                    source,
                });
            }
        }
        Err(Error::Answer {
            operation: operation(),
            reason: "it names no interface".to_owned(),
        })
    }
}

fn question(destination: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(destination),
        destination_prefix_length: if destination.is_ipv6() { 128 } else { 32 },
        flags: RouteFlags::empty(),
        ..RouteHeader::default()
    };
    let destination: RouteAddress = address(destination);
    message
        .attributes
        .push(RouteAttribute::Destination(destination));
    message
}
