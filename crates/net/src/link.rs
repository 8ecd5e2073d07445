//! Interfaces: veth pairs, addresses, MTU, up and down.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Error, Namespace, Netlink, Prefix, Result};

/// Longest name of an interface, in bytes (the kernel's 16 less the end mark).
const NAME_BYTES_MAX: usize = 15;

/// An interface as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Ethernet address. None for an interface that has none.
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    pub is_up: bool,
    /// Number of the XDP program that runs in the driver. None if there is none.
    pub native_xdp: Option<u32>,
}

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    pub namespace: &'a Namespace,
    pub name: &'a str,
    /// None leaves the choice to the kernel.
    pub mac: Option<[u8; 6]>,
}

impl Netlink {
    /// Makes a veth pair with its ends in two namespaces, both with `mtu` and still down.
    pub fn add_veth(&mut self, one: VethEnd<'_>, other: VethEnd<'_>, mtu: u32) -> Result<()> {
        let mut message = end(one, mtu)?;
        let peer = end(other, mtu)?;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.change(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
            || format!("make the veth pair {} - {}", one.name, other.name),
        )
    }

    /// Removes an interface; a veth's other end goes with it. No error if there is none.
    pub fn delete_link(&mut self, name: &str) -> Result<()> {
        let Some(link) = self.find_link(name)? else {
            return Ok(());
        };
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        match self.change(RouteNetlinkMessage::DelLink(message), 0, || {
            format!("delete interface {name}")
        }) {
            Err(error) if error.is_not_there() => Ok(()),
            other => other,
        }
    }

    /// All interfaces of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let answers = self.dump(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            "list interfaces",
        )?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(link(&message)),
                _ => None,
            })
            .collect())
    }

    /// The interface of this name, if there is one.
    pub fn find_link(&mut self, name: &str) -> Result<Option<Link>> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// The interface of this name.
    pub fn link(&mut self, name: &str) -> Result<Link> {
        self.find_link(name)?
            .ok_or_else(|| Error::NoLink(name.to_owned()))
    }

    /// Sets an interface up.
    pub fn set_up(&mut self, name: &str) -> Result<()> {
        self.switch(name, LinkFlags::Up)
    }

    /// Sets an interface down: silent, as if the cable were pulled.
    pub fn set_down(&mut self, name: &str) -> Result<()> {
        self.switch(name, LinkFlags::empty())
    }

    fn switch(&mut self, name: &str, flags: LinkFlags) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.link(name)?.index;
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message), 0, || {
            let to = if flags.is_empty() { "down" } else { "up" };
            format!("set interface {name} {to}")
        })
    }

    /// Sets an interface's MTU.
    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.link(name)?.index;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.change(RouteNetlinkMessage::SetLink(message), 0, || {
            format!("set the MTU of {name} to {mtu}")
        })
    }

    /// Gives an interface an address; it is usable at once (no duplicate address detection). No
    /// error if it has it.
    pub fn add_address(&mut self, name: &str, prefix: Prefix) -> Result<()> {
        let message = self.address(name, prefix)?;
        self.change(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            || format!("add {prefix} to {name}"),
        )
    }

    /// Takes an address away. No error if the interface does not have it.
    pub fn delete_address(&mut self, name: &str, prefix: Prefix) -> Result<()> {
        let message = self.address(name, prefix)?;
        match self.change(RouteNetlinkMessage::DelAddress(message), 0, || {
            format!("delete {prefix} from {name}")
        }) {
            Err(error) if error.is_not_there() => Ok(()),
            other => other,
        }
    }

    /// The addresses of an interface.
    pub fn addresses(&mut self, name: &str) -> Result<Vec<Prefix>> {
        let index = self.link(name)?.index;
        let answers = self.dump(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            "list addresses",
        )?;
        let mut found = Vec::new();
        for answer in answers {
            let RouteNetlinkMessage::NewAddress(message) = answer else {
                continue;
            };
            if message.header.index != index {
                continue;
            }
            // A point-to-point address has its own side in Local; all others have Address only or
            // both the same.
            let mut own: Option<IpAddr> = None;
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Local(address) => own = Some(*address),
                    AddressAttribute::Address(address) => own = own.or(Some(*address)),
                    _ => {}
                }
            }
            found.extend(own.and_then(|address| Prefix::new(address, message.header.prefix_len)));
        }
        Ok(found)
    }

    fn address(&mut self, name: &str, prefix: Prefix) -> Result<AddressMessage> {
        let mut message = AddressMessage::default();
        message.header.family = family(prefix.address());
        message.header.prefix_len = prefix.length();
        message.header.index = self.link(name)?.index;
        if prefix.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message.attributes = vec![
            AddressAttribute::Local(prefix.address()),
            AddressAttribute::Address(prefix.address()),
        ];
        Ok(message)
    }
}

pub(crate) const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn end(end: VethEnd<'_>, mtu: u32) -> Result<LinkMessage> {
    let reason = if end.name.is_empty() || end.name.len() > NAME_BYTES_MAX {
        "it must have 1 to 15 characters"
    } else if end.name.contains(['/', ' ', ':']) || end.name == "." || end.name == ".." {
        "'/', ':' and spaces are not allowed"
    } else {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(end.name.to_owned()),
            LinkAttribute::NetNsFd(end.namespace.as_fd().as_raw_fd()),
            LinkAttribute::Mtu(mtu),
        ];
        if let Some(mac) = end.mac {
            message
                .attributes
                .push(LinkAttribute::Address(mac.to_vec()));
        }
        return Ok(message);
    };
    Err(Error::BadName {
        object: "an interface",
        name: end.name.to_owned(),
        reason,
    })
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        is_up: message.header.flags.contains(LinkFlags::Up),
        native_xdp: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(address) => link.mac = address.as_slice().try_into().ok(),
            LinkAttribute::Xdp(parts) => link.native_xdp = crate::xdp::native_program(parts),
            _ => {}
        }
    }
    link
}
