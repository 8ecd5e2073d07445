//! A guest's link, addresses and routes.

use super::*;

/// Both ends of a guest's link.
pub(super) struct Links {
    pub node: hitless_net::Link,
    pub guest: hitless_net::Link,
}

/// The node's end of the guest's link: `g-NAME`, or, where that is longer than the kernel's 15
/// bytes, its beginning and a hash of the whole.
fn node_interface(name: &GuestName) -> String {
    let plain = format!("g-{name}");
    if plain.len() <= 15 {
        return plain;
    }
    // FNV-1a: short, and the same for ever.
    let hash = name.as_str().bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("g-{}{hash:08x}", &name.as_str()[..5])
}

pub(super) fn links(node: &Namespace, guest: &Namespace, name: &GuestName) -> Result<Links> {
    let mut at_node = Netlink::open(node).map_err(network(name))?;
    let mut at_guest = Netlink::open(guest).map_err(network(name))?;
    Ok(Links {
        node: at_node.link(&node_interface(name)).map_err(network(name))?,
        guest: at_guest.link(GUEST_INTERFACE).map_err(network(name))?,
    })
}

/// Makes the guest's network what the specification says; what is right already is left alone.
pub(super) fn set_up(node: &Namespace, guest: &Namespace, spec: &GuestSpec) -> Result<()> {
    let interface = node_interface(&spec.name);
    apply(node, guest, spec, &interface).map_err(network(&spec.name))
}

fn apply(
    node: &Namespace,
    guest: &Namespace,
    spec: &GuestSpec,
    interface: &str,
) -> hitless_net::Result<()> {
    let mut at_node = Netlink::open(node)?;
    let mut at_guest = Netlink::open(guest)?;
    for (setting, value) in [
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
    ] {
        guest.set(setting, value)?;
    }
    if at_guest.find_link(GUEST_INTERFACE)?.is_none() {
        // An end without the other is what a crash half-way, or a namespace that went, leaves.
        at_node.delete_link(interface)?;
        let guest_end = VethEnd {
            namespace: guest,
            name: GUEST_INTERFACE,
            mac: None,
        };
        let node_end = VethEnd {
            namespace: node,
            name: interface,
            mac: None,
        };
        at_node.add_veth(guest_end, node_end, spec.mtu)?;
        if at_node.link(interface)?.index == at_guest.link(GUEST_INTERFACE)?.index {
            // The kernel would take the ends for one device, whose loss of its carrier is not
            // urgent: it would tell of a guest's death up to a second late.
            at_node.delete_link(interface)?;
            use_up_a_number(node, &mut at_node)?;
            at_node.add_veth(guest_end, node_end, spec.mtu)?;
        }
    }
    for (netlink, namespace, name) in [
        (&mut at_node, node, interface),
        (&mut at_guest, guest, GUEST_INTERFACE),
    ] {
        netlink.set_mtu(name, spec.mtu)?;
        set_offload(namespace, name, Offload::SendChecksum, false)?;
    }
    node.set(&format!("ipv6/conf/{interface}/accept_dad"), "0")?;

    if let Some(gateway) = spec.gateways.v4 {
        at_node.add_address(interface, Prefix::host(gateway.into()))?;
    }
    if let Some(prefix) = spec
        .gateways
        .v6
        .and_then(|gateway| Prefix::new(gateway.into(), 64))
    {
        at_node.add_address(interface, prefix)?;
    }
    replace_addresses(&mut at_guest, GUEST_INTERFACE, &spec.addresses)?;
    let vips: Vec<Prefix> = spec.vips.iter().copied().map(Prefix::host).collect();
    replace_addresses(&mut at_guest, "lo", &vips)?;
    at_node.set_up(interface)?;
    at_guest.set_up(GUEST_INTERFACE)?;
    for address in &spec.addresses {
        let to_guest = Route::new(
            Prefix::host(address.address()),
            vec![NextHop::link(interface)],
        );
        at_node.replace_route(&to_guest)?;
    }
    let defaults = [
        (
            Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            spec.gateways.v4.map(IpAddr::from),
            spec.advertised_mss_v4,
        ),
        (
            Prefix::new(Ipv6Addr::UNSPECIFIED.into(), 0),
            spec.gateways.v6.map(IpAddr::from),
            spec.advertised_mss_v6,
        ),
    ];
    for (destination, gateway, advertised_mss) in defaults {
        let (Some(destination), Some(gateway)) = (destination, gateway) else {
            continue;
        };
        let mut route = Route::new(destination, vec![NextHop::via(GUEST_INTERFACE, gateway)]);
        route.advertised_mss = advertised_mss;
        // The guest's own address, never a VIP, is what it opens connections from.
        route.source = spec
            .addresses
            .iter()
            .map(|prefix| prefix.address())
            .find(|address| address.is_ipv6() == gateway.is_ipv6());
        at_guest.replace_route(&route)?;
    }
    Ok(())
}

/// Makes the next interface's number in the node's namespace another than it would be: numbers rise
/// in each namespace by itself.
fn use_up_a_number(node: &Namespace, at_node: &mut Netlink) -> hitless_net::Result<()> {
    let [one, other] = ["g-number-1", "g-number-2"].map(|name| VethEnd {
        namespace: node,
        name,
        mac: None,
    });
    at_node.add_veth(one, other, 1_500)?;
    at_node.delete_link(one.name)
}

/// Gives `interface` these addresses and takes all others away, but for loopback's own and
/// link-local ones.
fn replace_addresses(
    netlink: &mut Netlink,
    interface: &str,
    wanted: &[Prefix],
) -> hitless_net::Result<()> {
    for prefix in netlink.addresses(interface)? {
        let is_own = match prefix.address() {
            IpAddr::V4(address) => address.is_loopback(),
            IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
        };
        if !is_own && !wanted.contains(&prefix) {
            netlink.delete_address(interface, prefix)?;
        }
    }
    for prefix in wanted {
        netlink.add_address(interface, *prefix)?;
    }
    Ok(())
}

/// Takes the guest off the network, so that its end is silent.
pub(super) fn pull_cable(node: &Namespace, guest: &Namespace, name: &GuestName) -> Result<()> {
    for (namespace, interface) in [
        (node, node_interface(name)),
        (guest, GUEST_INTERFACE.to_owned()),
    ] {
        let mut netlink = Netlink::open(namespace).map_err(network(name))?;
        match netlink.set_down(&interface) {
            Err(error) if !error.is_not_there() => return Err(network(name)(error)),
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn remove_link(node: &Namespace, name: &GuestName) -> Result<()> {
    Netlink::open(node)
        .and_then(|mut netlink| netlink.delete_link(&node_interface(name)))
        .map_err(network(name))
}
