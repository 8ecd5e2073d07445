//! Real sockets through real programs: client, node and two guests in namespaces. Needs root.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hitless_bpf::{
    AddressKind, Adoption, AttachMode, Counters, Director, GuestPort, Hop, Identity, Ingress, Vni,
};
use hitless_core::row::{BUCKETS, Bucket, GuestSlot, Row, Sequence};
use hitless_harness::needs;
use hitless_net::{Netlink, NextHop, Offload, Prefix, Route, VethEnd, attach_pass, set_offload};
use rustix::net::RecvFlags;
use support::packet::{ACK, ETHERNET, KEY, RST, SYN, VIP4, VNI, bucket, tcp};
use support::sockets::{Host, State, inject, watcher};
use support::{BpfFolder, OwnNamespace};

const VIP6: &str = "2001:db8:f::80";
const PORT: u16 = 80;
const CONNECTIONS: usize = 20;

fn slot(number: u16) -> GuestSlot {
    GuestSlot::new(number).unwrap()
}

fn vni() -> Vni {
    Vni::new(VNI).unwrap()
}

fn all_rows(slots: &[u16], sequence: u16) -> Vec<(Bucket, Row)> {
    let slots: Vec<_> = slots.iter().map(|number| slot(*number)).collect();
    let row = Row::new(&slots, Sequence(sequence)).unwrap();
    (0..BUCKETS)
        .map(|bucket| (Bucket(bucket as u16), row))
        .collect()
}

fn prefix(address: &str, length: u8) -> Prefix {
    Prefix::new(address.parse().unwrap(), length).unwrap()
}

/// A guest: its namespace and ingress.
struct Guest {
    namespace: OwnNamespace,
    pins: BpfFolder,
    identity: Identity,
    ingress: Ingress,
}

/// client (10.1.0.1) -- uplink (10.1.0.254) node port N (10.2.N.254) -- guest N (10.2.N.1)
struct Cluster {
    client: OwnNamespace,
    node: OwnNamespace,
    pins: BpfFolder,
    director: Director,
    uplink: u32,
    guests: Vec<Guest>,
}

impl Cluster {
    fn new() -> Self {
        let client = OwnNamespace::new("client");
        let node = OwnNamespace::new("node");
        let pins = BpfFolder::new();
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            node.set(setting, "1").unwrap();
        }
        let mut client_link = Netlink::open(&client).unwrap();
        let mut node_link = Netlink::open(&node).unwrap();
        client_link
            .add_veth(end(&client, "c0"), end(&node, "u0"), 1_500)
            .unwrap();
        configure(&mut client_link, "c0", "10.1.0.1", "fd01::1");
        configure(&mut node_link, "u0", "10.1.0.254", "fd01::254");
        default_routes(&mut client_link, "c0", "10.1.0.254", "fd01::254");
        // XDP loses the note that a checksum is still to be filled in.
        set_offload(&client, "c0", Offload::SendChecksum, false).unwrap();
        attach_pass(&mut client_link, "c0").unwrap();

        let director = Director::open(pins.path()).unwrap();
        director.set_cluster(vni(), KEY, NonZeroU16::MIN).unwrap();
        let uplink = node_link.link("u0").unwrap().index;
        let mode = node.run(|| director.attach(uplink).unwrap()).unwrap();
        assert_eq!(mode, AttachMode::Native);
        for vip in [VIP4, VIP6] {
            director
                .set_address(vip.parse().unwrap(), vni(), AddressKind::Vip)
                .unwrap();
        }
        director.set_rows(vni(), &all_rows(&[1, 2], 1)).unwrap();
        let guests = [1, 2].map(|number| make_guest(number, &node, &mut node_link, &director));
        let cluster = Self {
            client,
            node,
            pins,
            director,
            uplink,
            guests: guests.into(),
        };
        cluster.introduce(&mut node_link);
        cluster
    }

    /// Tells every ingress of the other guest: the way leads over the node.
    fn introduce(&self, node_link: &mut Netlink) {
        for (own, guest) in [1u16, 2].into_iter().zip(&self.guests) {
            let other = 3 - own;
            let mut netlink = Netlink::open(&guest.namespace).unwrap();
            let hop = Hop {
                source: format!("10.2.{own}.1").parse().unwrap(),
                destination: format!("10.2.{other}.1").parse().unwrap(),
                mac: node_link.link(&format!("p{own}")).unwrap().mac.unwrap(),
                source_mac: netlink.link("e0").unwrap().mac.unwrap(),
                ifindex: None,
                mtu: Some(1_500),
            };
            guest.ingress.set_peer(slot(other), &hop).unwrap();
        }
    }

    fn counter(&self, guest: usize, name: &str) -> u64 {
        self.guests[guest].ingress.counters().unwrap()[name]
    }

    /// A new connection to `vip`, and the guest that serves it.
    fn connect(&self, vip: &str) -> (TcpStream, u8) {
        let address = SocketAddr::new(vip.parse().unwrap(), PORT);
        let mut stream = self
            .client
            .run(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)))
            .unwrap()
            .unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut id = [0];
        stream.read_exact(&mut id).unwrap();
        (stream, id[0])
    }
}

fn end<'a>(namespace: &'a OwnNamespace, name: &'a str) -> VethEnd<'a> {
    VethEnd {
        namespace,
        name,
        mac: None,
    }
}

fn configure(netlink: &mut Netlink, name: &str, v4: &str, v6: &str) {
    netlink.add_address(name, prefix(v4, 24)).unwrap();
    netlink.add_address(name, prefix(v6, 64)).unwrap();
    netlink.set_up(name).unwrap();
}

/// With the segment size that leaves room for the encapsulation.
fn default_routes(netlink: &mut Netlink, name: &str, v4: &str, v6: &str) {
    for (network, gateway) in [("0.0.0.0", v4), ("::", v6)] {
        let next_hop = NextHop::via(name, gateway.parse().unwrap());
        let mut route = Route::new(prefix(network, 0), vec![next_hop]);
        route.advertised_mss = Some(1_340);
        netlink.replace_route(&route).unwrap();
    }
}

fn make_guest(
    number: u16,
    node: &OwnNamespace,
    node_link: &mut Netlink,
    director: &Director,
) -> Guest {
    let namespace = OwnNamespace::new("guest");
    let mut netlink = Netlink::open(&namespace).unwrap();
    let port = format!("p{number}");
    netlink
        .add_veth(end(&namespace, "e0"), end(node, &port), 1_500)
        .unwrap();
    let (own4, gateway4) = (format!("10.2.{number}.1"), format!("10.2.{number}.254"));
    let (own6, gateway6) = (format!("fd02:{number}::1"), format!("fd02:{number}::254"));
    configure(&mut netlink, "e0", &own4, &own6);
    configure(node_link, &port, &gateway4, &gateway6);
    default_routes(&mut netlink, "e0", &gateway4, &gateway6);
    for (vip, length) in [(VIP4, 32), (VIP6, 128)] {
        netlink.add_address("lo", prefix(vip, length)).unwrap();
    }
    let pins = BpfFolder::new();
    let identity = Identity {
        vni: vni(),
        key: KEY,
        slot: slot(number),
    };
    let ingress = Ingress::open(pins.path(), identity).unwrap();
    let e0 = netlink.link("e0").unwrap();
    let mode = namespace.run(|| ingress.attach(e0.index).unwrap()).unwrap();
    assert_eq!(mode, AttachMode::Native);
    for vip in [VIP4, VIP6] {
        ingress
            .set_address(vip.parse().unwrap(), AddressKind::Vip)
            .unwrap();
    }
    ingress.set_rows(&all_rows(&[1, 2], 1));
    ingress.set_lease(u64::MAX);

    let node_port = node_link.link(&port).unwrap();
    let guest_port = GuestPort {
        address: own4.parse().unwrap(),
        vni: vni(),
    };
    node.run(|| director.attach_port(node_port.index, &guest_port).unwrap())
        .unwrap();
    let hop = Hop {
        source: "10.1.0.254".parse().unwrap(),
        destination: own4.parse().unwrap(),
        mac: e0.mac.unwrap(),
        source_mac: node_port.mac.unwrap(),
        ifindex: Some(node_port.index),
        mtu: Some(1_500),
    };
    director.set_guest(vni(), slot(number), &hop).unwrap();
    for vip in [VIP4, VIP6] {
        let address = SocketAddr::new(vip.parse::<IpAddr>().unwrap(), PORT);
        let listener = namespace
            .run(|| retry(|| TcpListener::bind(address)))
            .unwrap();
        thread::spawn(move || serve(&listener, number as u8));
    }
    Guest {
        namespace,
        pins,
        identity,
        ingress,
    }
}

/// Duplicate address detection takes a moment.
fn retry<T>(mut attempt: impl FnMut() -> std::io::Result<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if Instant::now() > deadline => panic!("{error}"),
            Err(_) => thread::yield_now(),
        }
    }
}

/// Says who it is, then echoes. The threads end with their connections or the test's process.
fn serve(listener: &TcpListener, id: u8) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        thread::spawn(move || {
            let _ = stream.write_all(&[id]);
            let mut buffer = [0; 4_096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
        });
    }
}

fn echo(stream: &mut TcpStream, round: u8) {
    let sent = [round; 2_000];
    stream.write_all(&sent).unwrap();
    let mut received = [0; 2_000];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(sent, received);
}

#[test]
fn connections_survive_a_move_adoption_and_replacement_as_root() {
    if !needs::root() {
        return;
    }
    let mut cluster = Cluster::new();
    // Neighbour discovery of IPv6 has to settle first.
    retry(|| {
        let address = SocketAddr::new(VIP6.parse().unwrap(), PORT);
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1));
        cluster.client.run(connect).unwrap()
    });
    let mut streams: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|number| {
            let (stream, id) = cluster.connect([VIP4, VIP6][number % 2]);
            assert_eq!(id, 1, "the head serves");
            stream
        })
        .collect();
    streams.iter_mut().for_each(|stream| echo(stream, 1));

    // Warm is the row that stands; the shift goes to the guests, then to the director.
    for guest in &cluster.guests {
        guest.ingress.set_rows(&all_rows(&[2, 1], 2));
        guest.ingress.barrier().unwrap();
    }
    cluster
        .director
        .set_rows(vni(), &all_rows(&[2, 1], 2))
        .unwrap();
    cluster.director.barrier().unwrap();
    streams.iter_mut().for_each(|stream| echo(stream, 2));
    for vip in [VIP4, VIP6] {
        assert_eq!(
            cluster.connect(vip).1,
            2,
            "new connections go to the new head"
        );
    }
    let forwarded = cluster.counter(1, "forwarded");
    assert!(forwarded > 0, "the new head passed packets on");
    let held = &cluster.guests[0];
    let live = held
        .namespace
        .run(|| held.ingress.live_counts().unwrap())
        .unwrap();
    assert!(
        live.total() >= CONNECTIONS as u64,
        "the old head still has them"
    );

    // Nobody runs the programs for a moment; the next processes adopt and replace them.
    let Cluster {
        client,
        node,
        pins,
        director,
        uplink,
        guests,
    } = cluster;
    drop(director);
    streams.iter_mut().for_each(|stream| echo(stream, 3));
    let mut director = Director::open(pins.path()).unwrap();
    assert_eq!(director.adoption(), Adoption::Adopted);
    let attached = node.run(|| director.attached().unwrap()).unwrap();
    assert_eq!(attached.len(), 1);
    assert_eq!(
        (attached[0].ifindex, attached[0].mode),
        (uplink, AttachMode::Native)
    );
    node.run(|| director.replace_program().unwrap()).unwrap();
    streams.iter_mut().for_each(|stream| echo(stream, 4));
    let guests: Vec<Guest> = guests
        .into_iter()
        .map(|guest| {
            let Guest {
                namespace,
                pins,
                identity,
                ingress,
            } = guest;
            drop(ingress);
            let mut ingress = Ingress::open(pins.path(), identity).unwrap();
            assert_eq!(ingress.adoption(), Adoption::Adopted);
            namespace
                .run(|| ingress.replace_program().unwrap())
                .unwrap();
            Guest {
                namespace,
                pins,
                identity,
                ingress,
            }
        })
        .collect();
    streams.iter_mut().for_each(|stream| echo(stream, 5));
    cluster = Cluster {
        client,
        node,
        pins,
        director,
        uplink,
        guests,
    };
    assert!(cluster.counter(1, "forwarded") > forwarded);
    for guest in 0..2 {
        for name in [
            "answered",
            "no_answer",
            "older_row",
            "not_named",
            "no_lease",
            "drop_no_peer",
        ] {
            assert_eq!(cluster.counter(guest, name), 0, "{name} of guest {guest}");
        }
    }
    let ports = cluster.director.port_counters().unwrap();
    assert!(ports["pass_forwarded"] > 0);
    assert_eq!(
        ports["drop_source"] + ports["drop_destination"] + ports["drop_cluster"],
        0
    );
    assert!(
        cluster
            .node
            .run(|| cluster.director.detach(cluster.uplink).unwrap())
            .unwrap()
    );
}

/// Packets that the interface has sent.
fn sent(namespace: &OwnNamespace, interface: &str) -> u64 {
    let devices = namespace
        .run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap())
        .unwrap();
    let prefix = format!("{interface}:");
    let line = devices
        .lines()
        .find_map(|line| line.trim().strip_prefix(&prefix))
        .unwrap();
    line.split_whitespace().nth(9).unwrap().parse().unwrap()
}

/// Packets that a program has met: each counts one verdict.
fn met(counters: &Counters) -> u64 {
    let verdicts = counters
        .iter()
        .filter(|(name, _)| !name.starts_with("also_"));
    verdicts.map(|(_, count)| count).sum()
}

#[test]
fn no_packet_is_lost_while_programs_are_replaced_as_root() {
    if !needs::root() {
        return;
    }
    let cluster = Cluster::new();
    let mut streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| cluster.connect(VIP4).0).collect();
    // Between rounds, when nothing is under way, both counts are of the same packets.
    let lost = || {
        let director = cluster.director.counters().unwrap();
        let guests: u64 = (0..2)
            .flat_map(|guest| ["delivered", "accepted"].map(|name| cluster.counter(guest, name)))
            .sum();
        let sent = sent(&cluster.client, "c0");
        (
            sent as i64 - met(&director) as i64,
            director["directed"] as i64 - guests as i64,
        )
    };
    let settle = |is_wanted: &dyn Fn((i64, i64)) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let (first, second) = (lost(), lost());
            if first == second && is_wanted(first) {
                return first;
            }
            assert!(Instant::now() < deadline, "lost {second:?}");
            thread::yield_now();
        }
    };
    // What the client sent before the director was attached is not its.
    let before = settle(&|lost| lost.1 == 0);
    let is_done = AtomicBool::new(false);
    let rounds = thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut rounds = 0u64;
            while !is_done.load(Ordering::Relaxed) {
                streams
                    .iter_mut()
                    .for_each(|stream| echo(stream, rounds as u8));
                rounds += 1;
            }
            rounds
        });
        // Also if a replacement panics, so that the scope ends.
        let done = Done(&is_done);
        for _ in 0..10 {
            let mut director = Director::open(cluster.pins.path()).unwrap();
            cluster
                .node
                .run(|| director.replace_program().unwrap())
                .unwrap();
            for guest in &cluster.guests {
                let mut ingress = Ingress::open(guest.pins.path(), guest.identity).unwrap();
                guest
                    .namespace
                    .run(|| ingress.replace_program().unwrap())
                    .unwrap();
            }
        }
        drop(done);
        traffic.join().unwrap()
    });
    assert!(rounds > 10, "there was traffic: {rounds} rounds");
    settle(&|lost| lost == before);
}

/// Ends the traffic when dropped.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Why the ingress compares numbers: Linux resets, with just the number that the client expects,
/// and keeps its entry.
#[test]
fn linux_resets_at_a_wrong_initial_sequence_number_as_root() {
    if !needs::root() {
        return;
    }
    let pins = BpfFolder::new();
    let host = Host::new();
    let identity = Identity {
        vni: vni(),
        key: KEY,
        slot: slot(1),
    };
    let ingress = Ingress::open(pins.path(), identity).unwrap();
    for vip in [VIP4, support::packet::VIP6] {
        ingress
            .set_address(vip.parse().unwrap(), AddressKind::Vip)
            .unwrap();
    }
    for held in host
        .flows
        .iter()
        .filter(|held| held.state == State::HalfOpen)
    {
        let flow = held.flow;
        let wrong = held.right_number.unwrap().wrapping_add(77);
        host.namespace
            .run(|| {
                let watcher = watcher();
                inject(&tcp(&flow, ACK, wrong, b"data")[ETHERNET..]);
                let deadline = Instant::now() + Duration::from_secs(5);
                loop {
                    assert!(Instant::now() < deadline, "no reset");
                    let mut packet = [0; 256];
                    let received = rustix::net::recv(&watcher, &mut packet[..], RecvFlags::empty());
                    let Ok((length, _)) = received else { continue };
                    let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
                    let Some(tcp) = packet[..length].get(at..at + 20) else {
                        continue;
                    };
                    let is_answer = tcp[2..4] == flow.source_port.to_be_bytes();
                    if is_answer && tcp[13] & RST != 0 {
                        assert_eq!(tcp[4..8], wrong.to_be_bytes(), "the client's own number");
                        break;
                    }
                }
                let live = ingress.live_counts().unwrap();
                assert_eq!(live.of(bucket(&flow)), 1, "the entry survives");
            })
            .unwrap();
    }
}

/// No program of ours looks at checksums: the guest's stack does, behind them.
#[test]
fn a_corrupt_packet_is_dropped_by_the_guest_s_stack_as_root() {
    if !needs::root() {
        return;
    }
    let cluster = Cluster::new();
    let dropped = || -> u64 {
        let guests = cluster.guests.iter();
        guests
            .map(|guest| guest.namespace.run(corrupt_segments).unwrap())
            .sum()
    };
    for (client, vip, checksum_at) in [("10.1.0.1", VIP4, 36), ("fd01::1", VIP6, 56)] {
        let before = dropped();
        let flow = support::packet::flow(client, 4_000, vip, PORT);
        let mut frame = tcp(&flow, SYN, 0, &[]);
        frame[ETHERNET + checksum_at] ^= 0x55;
        cluster.client.run(|| inject(&frame[ETHERNET..])).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while dropped() == before {
            assert!(Instant::now() < deadline, "no guest has seen it");
            thread::yield_now();
        }
        for guest in &cluster.guests {
            let live = guest.namespace.run(|| guest.ingress.live_counts().unwrap());
            assert_eq!(live.unwrap().total(), 0, "nothing came of it");
        }
    }
}

/// TCP segments with a wrong checksum that this thread's namespace has dropped.
fn corrupt_segments() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let found = pairs.find(|(name, _)| *name == "InCsumErrors");
    found.unwrap().1.parse().unwrap()
}
