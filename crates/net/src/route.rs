//! Routes: one next hop or several (ECMP), with the MSS that is advertised over them.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RouteProtocol, RouteScope, RouteType, RouteVia,
};

use crate::link::family;
use crate::{Netlink, Prefix, Result};

/// Where packets go next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    pub interface: String,
    /// None: the destination is on the interface's link.
    pub gateway: Option<IpAddr>,
    /// The gateway is on the link although no route says so.
    pub on_link: bool,
}

impl NextHop {
    /// On the link of `interface`.
    pub fn link(interface: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
            gateway: None,
            on_link: false,
        }
    }

    /// By way of `gateway`.
    pub fn via(interface: impl Into<String>, gateway: IpAddr) -> Self {
        Self {
            interface: interface.into(),
            gateway: Some(gateway),
            on_link: true,
        }
    }
}

/// A route in the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Host bits are ignored. Length 0 is the default route.
    pub destination: Prefix,
    /// More than one: equal cost, chosen per flow by the hash that `fib_multipath_hash_policy`
    /// sets. A change of the list moves flows: there is no resilient group here.
    pub next_hops: Vec<NextHop>,
    /// Largest segment that our side offers to receive. None: what the interface's MTU allows.
    pub advertised_mss: Option<u32>,
    /// Address that our side uses if it may choose.
    pub source: Option<IpAddr>,
    /// MTU of the path. None: the interface's.
    pub mtu: Option<u32>,
}

impl Route {
    /// A plain route.
    pub fn new(destination: Prefix, next_hops: Vec<NextHop>) -> Self {
        Self {
            destination,
            next_hops,
            advertised_mss: None,
            source: None,
            mtu: None,
        }
    }
}

impl Netlink {
    /// Puts a route in place of the one that the main table has for this destination, so that there
    /// is one at any time.
    pub fn replace_route(&mut self, route: &Route) -> Result<()> {
        let message = self.route_message(route)?;
        self.change(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            || format!("set the route to {}", route.destination),
        )
    }

    /// The gateways of the main table's route to exactly this destination. Empty if there is no
    /// such route, or one without gateways.
    pub fn gateways(&mut self, destination: Prefix) -> Result<Vec<IpAddr>> {
        let wanted = empty(destination);
        let answers = self.dump(RouteNetlinkMessage::GetRoute(wanted.clone()), "list routes")?;
        let mut gateways = Vec::new();
        for answer in answers {
            let RouteNetlinkMessage::NewRoute(message) = answer else {
                continue;
            };
            let is_same = message.header.address_family == wanted.header.address_family
                && message.header.table == wanted.header.table
                && message.header.destination_prefix_length
                    == wanted.header.destination_prefix_length
                && wanted
                    .attributes
                    .iter()
                    .all(|attribute| message.attributes.contains(attribute));
            if !is_same {
                continue;
            }
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Gateway(gateway) => gateways.extend(plain(gateway)),
                    RouteAttribute::MultiPath(hops) => {
                        let attributes = hops.iter().flat_map(|hop| &hop.attributes);
                        gateways.extend(attributes.filter_map(|attribute| match attribute {
                            RouteAttribute::Gateway(gateway) => plain(gateway),
                            _ => None,
                        }));
                    }
                    _ => {}
                }
            }
        }
        Ok(gateways)
    }

    /// Removes the main table's route to this destination, with all of its paths. No error if there
    /// is none.
    pub fn delete_route(&mut self, destination: Prefix) -> Result<()> {
        let mut message = empty(destination);
        message.header.protocol = RouteProtocol::Unspec;
        message.header.scope = RouteScope::NoWhere;
        message.header.kind = RouteType::Unspec;
        // IPv6 deletes one route of several per call where they were added one by one.
        loop {
            match self.change(RouteNetlinkMessage::DelRoute(message.clone()), 0, || {
                format!("delete the route to {destination}")
            }) {
                Err(error) if error.is_not_there() => return Ok(()),
                Ok(()) if destination.is_ipv6() => {}
                other => return other,
            }
        }
    }

    fn route_message(&mut self, route: &Route) -> Result<RouteMessage> {
        let mut message = empty(route.destination);
        let is_on_link = route.next_hops.iter().all(|hop| hop.gateway.is_none());
        if is_on_link && !route.destination.is_ipv6() {
            message.header.scope = RouteScope::Link;
        }
        let mut hops = Vec::with_capacity(route.next_hops.len());
        for hop in &route.next_hops {
            let mut next = RouteNextHop::default();
            next.interface_index = self.link(&hop.interface)?.index;
            if hop.on_link {
                next.flags = RouteNextHopFlags::Onlink;
            }
            if let Some(gateway) = hop.gateway {
                next.attributes.push(gateway_of(route.destination, gateway));
            }
            hops.push(next);
        }
        if let [only] = hops.as_slice() {
            message
                .attributes
                .push(RouteAttribute::Oif(only.interface_index));
            message.attributes.extend(only.attributes.iter().cloned());
            if only.flags.contains(RouteNextHopFlags::Onlink) {
                message.header.flags = netlink_packet_route::route::RouteFlags::Onlink;
            }
        } else {
            message.attributes.push(RouteAttribute::MultiPath(hops));
        }
        let mut metrics = Vec::new();
        metrics.extend(route.advertised_mss.map(RouteMetric::Advmss));
        metrics.extend(route.mtu.map(RouteMetric::Mtu));
        if !metrics.is_empty() {
            message.attributes.push(RouteAttribute::Metrics(metrics));
        }
        if let Some(source) = route.source {
            message
                .attributes
                .push(RouteAttribute::PrefSource(address(source)));
        }
        Ok(message)
    }
}

fn empty(destination: Prefix) -> RouteMessage {
    let destination = destination.network();
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(destination.address()),
        destination_prefix_length: destination.length(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    if destination.length() > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(address(destination.address())));
    }
    message
}

fn gateway_of(destination: Prefix, gateway: IpAddr) -> RouteAttribute {
    match gateway {
        // An IPv4 destination by way of an IPv6 neighbour.
        IpAddr::V6(gateway) if !destination.is_ipv6() => {
            RouteAttribute::Via(RouteVia::Inet6(gateway))
        }
        _ => RouteAttribute::Gateway(address(gateway)),
    }
}

pub(crate) const fn address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

pub(crate) const fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
