//! Neighbours: which Ethernet address stands for which next hop.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use crate::link::family;
use crate::{Netlink, Result};

/// An entry of the neighbour table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the interface whose link it is on.
    pub interface: u32,
    pub address: IpAddr,
    /// None while it is not known, or no longer.
    pub mac: Option<[u8; 6]>,
}

impl Netlink {
    /// All neighbours of the namespace; those that failed to answer have no Ethernet address.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        let answers = self.dump(
            RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()),
            "list neighbours",
        )?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => neighbour(&message),
                _ => None,
            })
            .collect())
    }

    /// Sets a neighbour's Ethernet address for good: it is never asked for and never expires.
    pub fn set_neighbour(&mut self, interface: &str, address: IpAddr, mac: [u8; 6]) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = self.link(interface)?.index;
        message.header.state = NeighbourState::Permanent;
        message.attributes = vec![
            NeighbourAttribute::Destination(match address {
                IpAddr::V4(address) => NeighbourAddress::Inet(address),
                IpAddr::V6(address) => NeighbourAddress::Inet6(address),
            }),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        self.change(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            || format!("set the neighbour {address} on {interface}"),
        )
    }
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let is_known = !matches!(
        message.header.state,
        NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None
    );
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address = Some(IpAddr::V4(*found));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some(IpAddr::V6(*found));
            }
            NeighbourAttribute::LinkLayerAddress(found) if is_known => {
                mac = found.as_slice().try_into().ok();
            }
            _ => {}
        }
    }
    Some(Neighbour {
        interface: message.header.ifindex,
        address: address?,
        mac,
    })
}
