//! On the real kernel, in namespaces of the test's own. They need root and say so where there is
//! none.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use hitless_harness::needs;

use super::*;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A namespace that goes when the test ends, however it ends.
struct Own(Namespace);

impl Own {
    fn new(what: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hl-nettest-{}-{number}-{what}", std::process::id());
        Self(Namespace::create(&name).unwrap())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(name) = self.0.name() {
            Namespace::delete(name).unwrap();
        }
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

#[test]
fn prefixes() {
    assert_eq!(prefix("192.0.2.77/24").network(), prefix("192.0.2.0/24"));
    assert_eq!(prefix("2001:db8::7/64").network(), prefix("2001:db8::/64"));
    assert_eq!(prefix("10.0.0.1/0").network(), prefix("0.0.0.0/0"));
    assert_eq!(prefix("::1/0").network(), prefix("::/0"));
    assert_eq!(
        prefix("192.0.2.0/24").nth(255),
        Some("192.0.2.255".parse().unwrap())
    );
    assert_eq!(prefix("192.0.2.0/24").nth(256), None);
    assert_eq!(
        prefix("2001:db8::/64").nth(256),
        Some("2001:db8::100".parse().unwrap())
    );
    assert!(prefix("192.0.2.0/24").contains("192.0.2.9".parse().unwrap()));
    assert!(!prefix("192.0.2.0/24").contains("192.0.3.9".parse().unwrap()));
    assert!(!prefix("0.0.0.0/0").contains("::1".parse().unwrap()));
    for bad in [
        "",
        "192.0.2.0",
        "192.0.2.0/33",
        "2001:db8::/129",
        "a/b",
        "1.2.3.4/-1",
    ] {
        assert!(bad.parse::<Prefix>().is_err(), "{bad}");
    }
}

#[test]
fn names_that_could_leave_the_folder_are_refused() {
    for bad in ["", "..", "../x", "a/b", "-x", "a b"] {
        assert!(
            matches!(Namespace::open(bad), Err(Error::BadName { .. })),
            "{bad:?}"
        );
    }
}

#[test]
fn root_namespace_is_made_listed_entered_and_deleted() {
    if !needs::root() {
        return;
    }
    let own = Own::new("ns");
    let name = own.0.name().unwrap().to_owned();
    assert!(Namespace::list("hl-nettest-").unwrap().contains(&name));
    assert!(Namespace::create(&name).unwrap_err().is_already_there());

    let here = Namespace::current().unwrap().inode().unwrap();
    assert_ne!(own.0.inode().unwrap(), here);
    let inside = own
        .0
        .run(|| Namespace::current().unwrap().inode().unwrap())
        .unwrap();
    assert_eq!(inside, own.0.inode().unwrap());
    assert_eq!(Namespace::current().unwrap().inode().unwrap(), here);

    let mut command = Command::new("sleep");
    let mut child = own.0.place(command.arg("60")).spawn().unwrap();
    assert_eq!(own.0.processes().unwrap(), [child.id()]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(own.0.processes().unwrap(), [0_u32; 0]);

    own.0.set("ipv4/ip_forward", "1").unwrap();
    assert_eq!(own.0.setting("ipv4/ip_forward").unwrap(), "1");
    assert!(own.0.set("ipv4/no_such_setting", "1").is_err());
    drop(own);
    assert!(!Namespace::list("hl-nettest-").unwrap().contains(&name));
    Namespace::delete(&name).unwrap();
}

#[test]
fn root_links_addresses_routes_and_neighbours() {
    if !needs::root() {
        return;
    }
    let (client, server) = (Own::new("client"), Own::new("server"));
    let mut at_client = Netlink::open(&client.0).unwrap();
    let mut at_server = Netlink::open(&server.0).unwrap();
    let mac = [2, 0, 0, 0, 0, 9];
    let pair = |netlink: &mut Netlink, one, other, mac| {
        let one = VethEnd {
            namespace: &client.0,
            name: one,
            mac: None,
        };
        let other = VethEnd {
            namespace: &server.0,
            name: other,
            mac,
        };
        netlink.add_veth(one, other, 1_500)
    };
    pair(&mut at_client, "up0", "down0", Some(mac)).unwrap();
    pair(&mut at_client, "up1", "down1", None).unwrap();
    assert!(
        pair(&mut at_client, "up0", "down2", None)
            .unwrap_err()
            .is_already_there()
    );
    assert!(pair(&mut at_client, "a-name-too-long-for-it", "x", None).is_err());
    for (link, peer, v4, v6) in [("up0", "down0", 0, 0), ("up1", "down1", 4, 1)] {
        for (netlink, name, own, is_client) in [
            (&mut at_client, link, &client.0, true),
            (&mut at_server, peer, &server.0, false),
        ] {
            let host = if is_client { 1 } else { 2 };
            netlink
                .add_address(name, prefix(&format!("10.0.0.{}/30", v4 + host)))
                .unwrap();
            netlink
                .add_address(name, prefix(&format!("fd00:{v6}::{host}/64")))
                .unwrap();
            // Twice is no error.
            netlink
                .add_address(name, prefix(&format!("fd00:{v6}::{host}/64")))
                .unwrap();
            set_offload(own, name, Offload::SendChecksum, false).unwrap();
            attach_pass(netlink, name).unwrap();
            attach_pass(netlink, name).unwrap();
            netlink.set_up(name).unwrap();
            assert!(netlink.link(name).unwrap().native_xdp.is_some());
        }
    }
    assert_eq!(at_server.link("down0").unwrap().mac, Some(mac));
    let addresses = at_server.addresses("down0").unwrap();
    assert!(addresses.contains(&prefix("10.0.0.2/30")), "{addresses:?}");
    assert!(addresses.contains(&prefix("fd00:0::2/64")), "{addresses:?}");

    // A VIP of both families, reached over two paths and then over one.
    for (vip, gateways) in [
        ("203.0.113.7", ["10.0.0.2", "10.0.0.6"]),
        ("2001:db8::7", ["fd00:0::2", "fd00:1::2"]),
    ] {
        let vip: IpAddr = vip.parse().unwrap();
        at_server.add_address("lo", Prefix::host(vip)).unwrap();
        let hops: Vec<NextHop> = ["up0", "up1"]
            .iter()
            .zip(gateways)
            .map(|(link, gateway)| NextHop::via(*link, gateway.parse().unwrap()))
            .collect();
        let mut route = Route::new(Prefix::host(vip), hops);
        route.advertised_mss = Some(1_234);
        at_client.replace_route(&route).unwrap();
        exchange(&client.0, &server.0, vip);
        assert_eq!(at_client.gateways(Prefix::host(vip)).unwrap().len(), 2);
        let second = route.next_hops.pop().unwrap();
        at_client.replace_route(&route).unwrap();
        assert_eq!(at_client.gateways(Prefix::host(vip)).unwrap().len(), 1);
        exchange(&client.0, &server.0, vip);
        route.next_hops.push(second);
        at_client.replace_route(&route).unwrap();
        assert_eq!(at_client.gateways(Prefix::host(vip)).unwrap().len(), 2);
        exchange(&client.0, &server.0, vip);
        let way = at_client.way_to(vip).unwrap();
        assert!(
            gateways
                .iter()
                .any(|g| way.gateway == Some(g.parse().unwrap())),
            "{way:?}"
        );
    }

    let gateway: IpAddr = "10.0.0.2".parse().unwrap();
    let found = at_client.neighbours().unwrap();
    assert!(
        found
            .iter()
            .any(|n| n.address == gateway && n.mac == Some(mac)),
        "{found:?}"
    );
    at_client
        .set_neighbour("up1", "10.0.0.6".parse().unwrap(), [2; 6])
        .unwrap();
    let found = at_client.neighbours().unwrap();
    assert!(found.iter().any(|n| n.mac == Some([2; 6])), "{found:?}");

    at_client.delete_route(prefix("203.0.113.7/32")).unwrap();
    at_client.delete_route(prefix("203.0.113.7/32")).unwrap();
    let gone = client
        .0
        .run(|| TcpStream::connect("203.0.113.7:9"))
        .unwrap();
    assert_eq!(gone.unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));

    at_client.set_down("up0").unwrap();
    assert!(!at_client.link("up0").unwrap().is_up);
    at_client.delete_link("up0").unwrap();
    at_client.delete_link("up0").unwrap();
    assert_eq!(at_server.find_link("down0").unwrap(), None);
    assert!(matches!(at_client.link("up0"), Err(Error::NoLink(_))));
}

#[test]
fn root_gateway_on_a_link_local_address() {
    if !needs::root() {
        return;
    }
    let (guest, node) = (Own::new("guest"), Own::new("node"));
    let mut at_guest = Netlink::open(&guest.0).unwrap();
    let mut at_node = Netlink::open(&node.0).unwrap();
    let ends = [
        VethEnd {
            namespace: &guest.0,
            name: "eth0",
            mac: None,
        },
        VethEnd {
            namespace: &node.0,
            name: "g-one",
            mac: None,
        },
    ];
    at_guest.add_veth(ends[0], ends[1], 1_500).unwrap();
    at_node.add_address("g-one", prefix("10.1.0.1/32")).unwrap();
    at_node.add_address("g-one", prefix("fe80::1/64")).unwrap();
    at_guest.add_address("eth0", prefix("10.1.0.9/32")).unwrap();
    at_guest
        .add_address("eth0", prefix("fd00:9::9/128"))
        .unwrap();
    at_guest.set_up("eth0").unwrap();
    at_node.set_up("g-one").unwrap();
    let v4 = NextHop::via("eth0", "10.1.0.1".parse().unwrap());
    let v6 = NextHop::via(
        "eth0",
        IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
    );
    at_guest
        .replace_route(&Route::new(prefix("0.0.0.0/0"), vec![v4]))
        .unwrap();
    at_guest
        .replace_route(&Route::new(prefix("::/0"), vec![v6]))
        .unwrap();
    for address in ["10.1.0.9/32", "fd00:9::9/128"] {
        let route = Route::new(prefix(address), vec![NextHop::link("g-one")]);
        at_node.replace_route(&route).unwrap();
    }
    for vip in ["203.0.113.7", "2001:db8::7"] {
        at_node
            .add_address("lo", Prefix::host(vip.parse().unwrap()))
            .unwrap();
        exchange(&guest.0, &node.0, vip.parse().unwrap());
    }
}

fn exchange(client: &Namespace, server: &Namespace, address: IpAddr) {
    let listener = server
        .run(|| TcpListener::bind(SocketAddr::new(address, 0)))
        .unwrap()
        .unwrap();
    let to = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let serve = scope.spawn(move || listener.accept().unwrap().0.write_all(b"here").unwrap());
        let mut text = String::new();
        let stream = client.run(|| TcpStream::connect(to)).unwrap();
        stream.unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "here");
        serve.join().unwrap();
    });
}

#[test]
fn root_flows_spread_over_paths_by_their_ports() {
    if !needs::root() {
        return;
    }
    let (router, other) = (Own::new("router"), Own::new("other"));
    for setting in [
        "ipv4/fib_multipath_hash_policy",
        "ipv6/fib_multipath_hash_policy",
    ] {
        router.0.set(setting, "1").unwrap();
    }
    router.0.set("ipv4/ip_forward", "1").unwrap();
    router.0.set("ipv4/conf/all/rp_filter", "0").unwrap();
    router.0.set("ipv6/conf/all/forwarding", "1").unwrap();
    let mut netlink = Netlink::open(&router.0).unwrap();
    let mut peer = Netlink::open(&other.0).unwrap();
    for (name, v4, v6) in [
        ("in", "10.0.0.1/24", "fd00:0::1/64"),
        ("a", "10.0.1.1/24", "fd00:1::1/64"),
        ("b", "10.0.2.1/24", "fd00:2::1/64"),
        ("c", "10.0.3.1/24", "fd00:3::1/64"),
    ] {
        let here = VethEnd {
            namespace: &router.0,
            name,
            mac: None,
        };
        let there = VethEnd {
            namespace: &other.0,
            name,
            mac: None,
        };
        netlink.add_veth(here, there, 1_500).unwrap();
        peer.set_up(name).unwrap();
        netlink.add_address(name, prefix(v4)).unwrap();
        netlink.add_address(name, prefix(v6)).unwrap();
        netlink.set_up(name).unwrap();
    }
    let arrives_at = netlink.link("in").unwrap().index;
    for (client, vip, gateways) in [
        (
            "10.0.0.9",
            "203.0.113.7",
            ["10.0.1.2", "10.0.2.2", "10.0.3.2"],
        ),
        (
            "fd00:0::9",
            "2001:db8::7",
            ["fd00:1::2", "fd00:2::2", "fd00:3::2"],
        ),
    ] {
        let vip: IpAddr = vip.parse().unwrap();
        let hop = |(name, gateway): (&&str, &&str)| NextHop::via(*name, gateway.parse().unwrap());
        let hops: Vec<NextHop> = ["a", "b", "c"].iter().zip(&gateways).map(hop).collect();
        let mut route = Route::new(Prefix::host(vip), hops);
        netlink.replace_route(&route).unwrap();
        let mut ways = || -> Vec<u32> {
            (0..300)
                .map(|port| {
                    let from = SocketAddr::new(client.parse().unwrap(), 40_000 + port);
                    let way = netlink.way_of_flow(arrives_at, from, SocketAddr::new(vip, 80));
                    way.unwrap().interface
                })
                .collect()
        };
        let all = ways();
        assert_eq!(all, ways());
        for index in all
            .iter()
            .copied()
            .collect::<std::collections::BTreeSet<u32>>()
        {
            let count = all.iter().filter(|way| **way == index).count();
            assert!(
                (50..150).contains(&count),
                "{count} of 300 by interface {index}"
            );
        }
        route.next_hops.remove(0);
        Netlink::open(&router.0)
            .unwrap()
            .replace_route(&route)
            .unwrap();
        let moved = all
            .iter()
            .zip(ways())
            .filter(|(before, after)| *before != after)
            .count();
        assert!(moved > 100, "{moved}");
    }
}

#[test]
fn changes_are_heard_at_once_as_root() {
    if !needs::root() {
        return;
    }
    let (here, there) = (Own::new("a"), Own::new("b"));
    let ends = [(&here.0, "near"), (&there.0, "far")].map(|(namespace, name)| VethEnd {
        namespace,
        name,
        mac: None,
    });
    let mut near = Netlink::open(&here.0).unwrap();
    let mut far = Netlink::open(&there.0).unwrap();
    // The kernel tells at once only of veths whose ends have different numbers, as they have where
    // a node has others.
    let others = ["one", "other"].map(|name| VethEnd {
        namespace: &here.0,
        name,
        mac: None,
    });
    near.add_veth(others[0], others[1], 1_500).unwrap();
    near.add_veth(ends[0], ends[1], 1_500).unwrap();
    near.set_up("near").unwrap();
    far.set_up("far").unwrap();
    let index = near.link("near").unwrap().index;
    let mut watch = here.0.run(Watch::here).unwrap().unwrap();
    let mut hears = |wanted: Change| {
        let begun = std::time::Instant::now();
        loop {
            let changes = watch.next(std::time::Duration::from_secs(1)).unwrap();
            if changes.contains(&wanted) {
                return;
            }
            assert!(begun.elapsed().as_secs() < 10, "not heard: {wanted:?}");
        }
    };
    near.set_neighbour("near", "10.0.0.9".parse().unwrap(), [2; 6])
        .unwrap();
    hears(Change::Neighbour);
    near.replace_route(&Route::new(
        prefix("10.9.0.0/16"),
        vec![NextHop::link("near")],
    ))
    .unwrap();
    hears(Change::Route);
    // The other end is pulled: nothing of this namespace was touched.
    far.set_down("far").unwrap();
    hears(Change::Link {
        index,
        is_running: false,
    });
    far.set_up("far").unwrap();
    hears(Change::Link {
        index,
        is_running: true,
    });
    far.delete_link("far").unwrap();
    hears(Change::LinkGone { index });
}
