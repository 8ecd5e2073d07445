//! A fixture for every row of docs/verdicts.md: the row says what happens, the fixture is such a
//! packet. Needs root.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use hitless_bpf::{AddressKind, Counters, Director, GuestPort, Hop, Identity, Ingress, Run, Vni};
use hitless_core::flow::Flow;
use hitless_core::row::{Bucket, GuestSlot, Row, Sequence};
use hitless_harness::needs;
use support::packet::{
    ACK, CLIENT4, CLIENT6, ETHERNET, KEY, Option1, Outer, RST, SYN, VIP4, VIP6, VNI, bucket,
    encapsulate, flow, sum, tcp, tcp_with_options,
};
use support::sockets::{HeldFlow, Host, State};
use support::{BpfFolder, OwnNamespace};

const TABLE: &str = include_str!("../../../docs/verdicts.md");
const ME: u16 = 5;
const EGRESS4: &str = "198.51.100.7";

/// What the table says of one kind of packet.
#[derive(Debug)]
struct Entry {
    verdict: String,
    /// One, and those that are counted beside it.
    counters: Vec<String>,
}

/// Rows of the section whose heading starts with `section`, by id.
fn entries(section: &str) -> BTreeMap<&'static str, Entry> {
    let (_, rest) = TABLE
        .split_once(&format!("\n## {section}"))
        .expect("the section is there");
    let section = rest.split("\n## ").next().unwrap();
    let mut entries = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let plain = |cell: &str| cell.trim_matches('`').to_owned();
        let mut counters: Vec<String> = cells[3].split(", ").map(plain).collect();
        counters.sort();
        let entry = Entry {
            verdict: plain(cells[2]),
            counters,
        };
        let id = cells[0].trim_matches('`');
        assert!(entries.insert(id, entry).is_none(), "{id} is listed twice");
    }
    assert!(!entries.is_empty());
    entries
}

/// Runs every fixture against its row; fails if a row has no fixture or a fixture no row.
fn check(
    section: &str,
    fixtures: Vec<(&'static str, Vec<u8>)>,
    mut prepare: impl FnMut(&str),
    mut run: impl FnMut(&[u8]) -> Run,
    counters: impl Fn() -> Counters,
) {
    let mut entries = entries(section);
    for (id, frame) in fixtures {
        let entry = entries
            .remove(id)
            .unwrap_or_else(|| panic!("{id} is not in the table"));
        prepare(id);
        let before = counters();
        let result = run(&frame);
        let after = counters();
        let counted: Vec<_> = after
            .iter()
            .filter(|(name, count)| **count != before[*name])
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(counted, entry.counters, "{id}");
        let action = match entry.verdict.as_str() {
            "pass" => Run::PASS,
            "drop" => Run::DROP,
            "transmit" => Run::TRANSMIT,
            other => panic!("{id}: no such verdict: {other}"),
        };
        assert_eq!(result.action, action, "{id}");
        if action == Run::TRANSMIT {
            check_transmitted(id, &result.packet);
        }
    }
    assert!(
        entries.is_empty(),
        "without a fixture: {:?}",
        entries.keys()
    );
}

/// What is sent is whole, unless the packet inside is corrupt: then so is the outer checksum.
fn check_transmitted(id: &str, frame: &[u8]) {
    if !id.contains("checksum") {
        support::packet::decode(frame);
        return;
    }
    let ip = &frame[ETHERNET..];
    let length = usize::from(u16::from_be_bytes([ip[24], ip[25]]));
    let mut pseudo = ip[12..20].to_vec();
    pseudo.extend([0, 17]);
    pseudo.extend(&ip[24..26]);
    pseudo.extend(&ip[20..20 + length]);
    assert_ne!(
        sum(&pseudo),
        0xffff,
        "{id}: a corrupt packet must not look right"
    );
}

fn slot(number: u16) -> GuestSlot {
    GuestSlot::new(number).unwrap()
}

fn row(slots: &[u16], sequence: u16) -> Row {
    let slots: Vec<_> = slots.iter().map(|number| slot(*number)).collect();
    Row::new(&slots, Sequence(sequence)).unwrap()
}

fn hop(number: u16, mtu: u16) -> Hop {
    Hop {
        source: "10.0.0.100".parse().unwrap(),
        destination: format!("10.0.0.{number}").parse().unwrap(),
        mac: [2, 0, 0, 0, 1, number as u8],
        source_mac: [2, 0, 0, 0, 2, 1],
        ifindex: None,
        mtu: Some(mtu),
    }
}

fn outer4() -> Outer {
    Outer {
        source: "10.0.0.100".parse().unwrap(),
        destination: "10.0.0.5".parse().unwrap(),
    }
}

fn outer6() -> Outer {
    Outer {
        source: "fd00::64".parse().unwrap(),
        destination: "fd00::5".parse().unwrap(),
    }
}

fn from_outsider(inner: &[u8], outer: Outer, source: &str) -> Vec<u8> {
    let option = Option1 {
        vni: VNI,
        flags: 0,
        stamper: 1,
        word: 5,
        tag: 0,
    };
    encapsulate(
        inner,
        Outer {
            source: source.parse().unwrap(),
            ..outer
        },
        &option,
    )
}

/// Changes bytes of a frame behind its Ethernet header.
fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[ETHERNET + at..][..bytes.len()].copy_from_slice(bytes);
    frame
}

fn cut(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.truncate(length);
    frame
}

/// An IPv6 TCP packet with these bytes as extension headers, the first of kind `kind`; each names
/// the next.
fn with_extensions(frame: &[u8], kind: u8, extensions: &[u8]) -> Vec<u8> {
    let mut new = frame[..ETHERNET + 40].to_vec();
    new.extend(extensions);
    new.extend(&frame[ETHERNET + 40..]);
    let payload = (new.len() - ETHERNET - 40) as u16;
    new[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&payload.to_be_bytes());
    new[ETHERNET + 6] = kind;
    new
}

fn icmp4(kind: u8, destination: &str) -> Vec<u8> {
    let mut frame = tcp(&flow(CLIENT4, 1, destination, 2), ACK, 0, &[]);
    frame[ETHERNET + 9] = 1;
    frame[ETHERNET + 20] = kind;
    frame
}

fn icmp6(kind: u8, destination: &str) -> Vec<u8> {
    let mut frame = tcp(&flow(CLIENT6, 1, destination, 2), ACK, 0, &[]);
    frame[ETHERNET + 6] = 58;
    frame[ETHERNET + 40] = kind;
    frame
}

fn vlan(frame: &[u8]) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend([0x81, 0x00, 0, 5]);
    tagged.extend(&frame[12..]);
    tagged
}

fn arp() -> Vec<u8> {
    let mut frame = vec![0xff; 12];
    frame.extend([0x08, 0x06]);
    frame.extend([0; 46]);
    frame
}

fn director_fixtures() -> Vec<(&'static str, Vec<u8>)> {
    let v4 = flow(CLIENT4, 1000, VIP4, 443);
    let v6 = flow(CLIENT6, 1000, VIP6, 443);
    let ack4 = tcp(&v4, ACK, 1, b"data");
    let ack6 = tcp(&v6, ACK, 1, b"data");
    let elsewhere4 = tcp(&flow(CLIENT4, 1000, "192.0.2.99", 443), ACK, 1, &[]);
    let elsewhere6 = tcp(&flow(CLIENT6, 1000, "2001:db8::99", 443), ACK, 1, &[]);
    let padded = [&ack4[..], &[0xaa; 6]].concat();
    let hop_by_hop = [6, 0, 1, 4, 0x12, 0x34, 0x56, 0x78];
    let five: Vec<u8> = [[0, 0, 1, 4, 0, 0, 0, 0]; 5].concat();
    vec![
        ("ack4", ack4.clone()),
        ("syn4", tcp(&v4, SYN, 0, &[])),
        ("ack6", ack6.clone()),
        ("syn6", tcp(&v6, SYN, 0, &[])),
        ("padding", padded),
        ("options4", tcp_with_options(&v4, ACK, 1, b"data", &[1; 8])),
        ("extension6", with_extensions(&ack6, 0, &hop_by_hop)),
        (
            "egress",
            tcp(&flow(CLIENT4, 80, EGRESS4, 0x4003), ACK, 1, &[]),
        ),
        ("head-dead", ack4.clone()),
        ("ip-checksum", with(ack4.clone(), 10, &[0x55, 0x55])),
        ("tcp-checksum", with(ack4.clone(), 36, &[0x55, 0x55])),
        ("arp", arp()),
        ("vlan", vlan(&ack4)),
        ("not-ours4", elsewhere4.clone()),
        ("not-ours6", elsewhere6),
        ("ping4", icmp4(8, VIP4)),
        ("ping6", icmp6(128, VIP6)),
        ("icmp-error4", icmp4(3, VIP4)),
        ("icmp-error6", icmp6(2, VIP6)),
        (
            "geneve-member4",
            from_outsider(&ack4, outer4(), "10.0.0.101"),
        ),
        (
            "geneve-member6",
            from_outsider(&ack4, outer6(), "fd00::101"),
        ),
        (
            "geneve-outsider4",
            from_outsider(&ack4, outer4(), "10.0.0.66"),
        ),
        (
            "geneve-outsider6",
            from_outsider(&ack4, outer6(), "fd00::66"),
        ),
        (
            "geneve-as-local-guest",
            from_outsider(&ack4, outer4(), "10.0.0.5"),
        ),
        ("cut-ip", cut(ack4.clone(), ETHERNET + 12)),
        ("cut-ip6", cut(ack6.clone(), ETHERNET + 24)),
        ("cut-tcp", cut(ack4.clone(), ETHERNET + 30)),
        ("short-tcp", with(ack4.clone(), 2, &[0, 30])),
        ("cut-icmp", with(icmp4(8, VIP4), 2, &[0, 24])),
        ("version", with(ack4.clone(), 0, &[0x55])),
        ("version6", with(ack6.clone(), 0, &[0x50])),
        ("header-length", with(ack4.clone(), 0, &[0x44])),
        ("total-length", with(ack4.clone(), 2, &[0, 19])),
        ("data-offset", with(ack4.clone(), 32, &[0x40])),
        ("data-offset-beyond", with(ack4.clone(), 32, &[0xf0])),
        ("fragment-first", with(ack4.clone(), 6, &[0x20, 0])),
        ("fragment-later", with(ack4.clone(), 6, &[0, 9])),
        (
            "fragment6",
            with_extensions(&ack6, 44, &[6, 0, 0, 1, 0, 0, 0, 1]),
        ),
        ("udp", with(ack4.clone(), 9, &[17])),
        ("udp6", with(ack6.clone(), 6, &[17])),
        (
            "routing6",
            with_extensions(&ack6, 43, &[6, 0, 0, 0, 0, 0, 0, 0]),
        ),
        ("many-extensions", with_extensions(&ack6, 0, &five)),
        ("no-row", ack4.clone()),
        ("no-guest", ack4.clone()),
        ("too-big", tcp(&v4, ACK, 1, &[7; 1_420])),
    ]
}

#[test]
fn director_follows_the_table_as_root() {
    if !needs::root() {
        return;
    }
    let pins = BpfFolder::new();
    let director = Director::open(pins.path()).unwrap();
    let vni = Vni::new(VNI).unwrap();
    director
        .set_cluster(vni, KEY, NonZeroU16::new(9).unwrap())
        .unwrap();
    for vip in [VIP4, VIP6] {
        director
            .set_address(vip.parse().unwrap(), vni, AddressKind::Vip)
            .unwrap();
    }
    director
        .set_address(EGRESS4.parse().unwrap(), vni, AddressKind::Egress)
        .unwrap();
    for member in ["10.0.0.101", "fd00::101"] {
        director.add_member(member.parse().unwrap()).unwrap();
    }
    for guest in [1, 2] {
        director
            .set_guest(vni, slot(guest), &hop(guest, 1_500))
            .unwrap();
    }
    let namespace = OwnNamespace::new("node");
    let port = GuestPort {
        address: "10.0.0.5".parse().unwrap(),
        vni,
    };
    namespace
        .run(|| director.attach_port(1, &port).unwrap())
        .unwrap();

    let flows = [
        flow(CLIENT4, 1000, VIP4, 443),
        flow(CLIENT6, 1000, VIP6, 443),
    ];
    let prepare = |id: &str| {
        let new = match id {
            "no-row" => Row::NONE,
            "no-guest" => row(&[3, 1], 1),
            _ => row(&[1, 2], 1),
        };
        for flow in &flows {
            director.set_rows(vni, &[(bucket(flow), new)]).unwrap();
        }
        // 0x4003 & 0x3ff = 3: the group of buckets from 192 on.
        director
            .set_rows(vni, &[(Bucket(192), row(&[2, 1], 1))])
            .unwrap();
        director.set_dead(vni, slot(1), id == "head-dead").unwrap();
    };
    let run = |frame: &[u8]| director.run(frame).unwrap();
    check("Director", director_fixtures(), prepare, run, || {
        director.counters().unwrap()
    });

    prepare("");
    let to = |frame: &[u8]| {
        support::packet::decode(&director.run(frame).unwrap().packet)
            .outer
            .destination
    };
    let guest = |number: u16| hop(number, 0).destination;
    assert_eq!(
        to(&tcp(&flow(CLIENT4, 80, EGRESS4, 0x4003), ACK, 1, &[])),
        guest(2)
    );
    prepare("head-dead");
    let first = tcp(&flows[0], ACK, 1, &[]);
    assert_eq!(to(&first), guest(2), "the head is believed dead");
}

#[test]
fn last_packet_to_a_watched_guest_is_timed_as_root() {
    if !needs::root() {
        return;
    }
    let pins = BpfFolder::new();
    let director = Director::open(pins.path()).unwrap();
    let vni = Vni::new(VNI).unwrap();
    director.set_cluster(vni, KEY, NonZeroU16::MIN).unwrap();
    director
        .set_address(VIP4.parse().unwrap(), vni, AddressKind::Vip)
        .unwrap();
    director.set_guest(vni, slot(1), &hop(1, 1_500)).unwrap();
    let flow = flow(CLIENT4, 1000, VIP4, 443);
    director
        .set_rows(vni, &[(bucket(&flow), row(&[1], 1))])
        .unwrap();
    let frame = tcp(&flow, ACK, 1, &[]);
    director.run(&frame).unwrap();
    assert_eq!(
        director.last_sent_ns(vni, slot(1)).unwrap(),
        None,
        "not watched yet"
    );
    director.set_watched(vni, slot(1), true).unwrap();
    director.run(&frame).unwrap();
    let first = director.last_sent_ns(vni, slot(1)).unwrap().unwrap();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    assert!(first <= now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64);
    director.run(&frame).unwrap();
    assert!(director.last_sent_ns(vni, slot(1)).unwrap().unwrap() > first);
}

/// A flow of the host in this state, over IPv4.
fn held(host: &Host, state: State) -> HeldFlow {
    *host
        .flows
        .iter()
        .find(|held| held.state == state && held.flow.source.is_ipv4())
        .unwrap()
}

/// What an ingress gets, and the row that it has itself for the packet's bucket.
struct Arrival {
    frame: Vec<u8>,
    flow: Flow,
    own: Row,
}

fn arrivals(host: &Host) -> Vec<(&'static str, Arrival)> {
    let own = row(&[1, ME, 2], 10);
    let unknown = held(host, State::Nothing).flow;
    let listener = held(host, State::Listener).flow;
    let half_open = held(host, State::HalfOpen);
    let right = half_open.right_number.unwrap();
    let was = held(host, State::TimeWait);
    let end = was.right_number.unwrap();
    let orphan = held(host, State::OrphanInFinWait2);
    let v6 = flow(CLIENT6, 1000, VIP6, 444);
    let stamped = |flow: &Flow, inner: &[u8], word: Row| {
        encapsulate(inner, outer4(), &Option1::of(flow, word, 9))
    };
    let arrive = |flow: Flow, flags: u8, number: u32, word: Row| Arrival {
        frame: stamped(&flow, &tcp(&flow, flags, number, &[]), word),
        flow,
        own,
    };
    let plain = |flow: Flow, frame: Vec<u8>, own: Row| Arrival { frame, flow, own };
    let lying = |flags: u8, change: &dyn Fn(&mut Option1)| {
        let mut option = Option1::of(&unknown, own, 9);
        option.flags = flags;
        change(&mut option);
        let frame = encapsulate(&tcp(&unknown, ACK, 1, &[]), outer4(), &option);
        Arrival {
            frame,
            flow: unknown,
            own,
        }
    };
    let right_frame = || lying(0, &|_| {}).frame;
    let changed = |at: usize, bytes: &[u8]| plain(unknown, with(right_frame(), at, bytes), own);
    let inner = |frame: Vec<u8>| {
        let option = Option1::of(&unknown, own, 9);
        plain(unknown, encapsulate(&frame, outer4(), &option), own)
    };
    let ack = tcp(&unknown, ACK, 1, &[]);
    let ack6 = tcp(&v6, ACK, 1, &[]);
    let last = row(&[1, 2, ME], 10);
    let established = held(host, State::Established).flow;
    let is_established6 =
        |held: &&HeldFlow| held.state == State::Established && held.flow.source.is_ipv6();
    let established6 = host.flows.iter().find(is_established6).unwrap().flow;
    let known6 = tcp(&established6, ACK, 1, &[]);
    let in6 = |frame: &[u8]| {
        let frame = encapsulate(frame, outer6(), &Option1::of(&established6, own, 9));
        plain(established6, frame, own)
    };
    let cookie = held(host, State::Cookie);
    let no_answer = {
        let mut option = Option1::of(&unknown, last, 9);
        option.flags = 1;
        encapsulate(&ack, outer4(), &option)
    };
    vec![
        ("established", arrive(established, ACK, 1, own)),
        ("established6", in6(&known6)),
        (
            "established-options",
            plain(
                established,
                stamped(
                    &established,
                    &tcp_with_options(&established, ACK, 1, b"data", &[1; 8]),
                    own,
                ),
                own,
            ),
        ),
        (
            "established-extension6",
            in6(&with_extensions(&known6, 0, &[6, 0, 1, 4, 0, 0, 0, 0])),
        ),
        (
            "outer-checksum",
            plain(
                established,
                with(arrive(established, ACK, 1, own).frame, 26, &[0x55, 0x55]),
                own,
            ),
        ),
        ("established-syn", arrive(established, SYN, 0, own)),
        (
            "fin-wait-2",
            arrive(orphan.flow, ACK, orphan.right_number.unwrap(), own),
        ),
        ("time-wait", arrive(was.flow, ACK, end, own)),
        (
            "time-wait-late",
            arrive(was.flow, ACK, end.wrapping_sub(9), own),
        ),
        ("half-open-ours", arrive(half_open.flow, ACK, right, own)),
        ("half-open-syn", arrive(half_open.flow, SYN, 0, own)),
        (
            "cookie",
            arrive(cookie.flow, ACK, cookie.right_number.unwrap(), own),
        ),
        (
            "plain-established",
            plain(established, tcp(&established, ACK, 1, &[]), own),
        ),
        ("syn-listed", arrive(listener, SYN, 0, own)),
        ("syn-time-wait", arrive(was.flow, SYN, 0, own)),
        (
            "syn-stale-head",
            Arrival {
                own: row(&[ME, 1], 11),
                ..arrive(listener, SYN, 0, row(&[1, ME], 10))
            },
        ),
        ("last-hop", arrive(unknown, ACK, 1, last)),
        ("syn-last-hop", arrive(unknown, SYN, 0, last)),
        ("rst-last-hop", arrive(unknown, RST, 0, last)),
        ("unknown", arrive(unknown, ACK, 1, own)),
        (
            "time-wait-other",
            arrive(was.flow, ACK, end.wrapping_add(9), own),
        ),
        (
            "fin-wait-2-other",
            arrive(
                orphan.flow,
                ACK,
                orphan.right_number.unwrap().wrapping_add(9),
                own,
            ),
        ),
        ("rst-time-wait", arrive(was.flow, RST, 0, own)),
        (
            "half-open-other",
            arrive(half_open.flow, ACK, right.wrapping_add(9), own),
        ),
        ("syn-nothing-listens", arrive(unknown, SYN, 0, own)),
        ("word-newer", arrive(unknown, ACK, 1, row(&[1, ME, 2], 11))),
        (
            "unknown6",
            plain(
                v6,
                encapsulate(&ack6, outer6(), &Option1::of(&v6, own, 9)),
                own,
            ),
        ),
        ("stale-data", arrive(unknown, ACK, 1, row(&[ME, 1], 9))),
        (
            "stale-syn-not-head",
            arrive(listener, SYN, 0, row(&[ME, 1], 9)),
        ),
        ("plain-unknown", plain(unknown, ack.clone(), own)),
        ("plain-unknown6", plain(v6, ack6.clone(), own)),
        ("plain-no-row", plain(unknown, ack.clone(), Row::NONE)),
        ("not-named", arrive(unknown, ACK, 1, row(&[1, 2], 10))),
        ("no-answer", plain(unknown, no_answer, own)),
        ("older-row", arrive(unknown, ACK, 1, row(&[1, 2, ME], 11))),
        ("no-lease", arrive(unknown, ACK, 1, last)),
        (
            "not-listed",
            Arrival {
                own: row(&[1, 2], 10),
                ..arrive(listener, SYN, 0, last)
            },
        ),
        (
            "wrong-number",
            arrive(half_open.flow, ACK, right.wrapping_add(9), last),
        ),
        ("no-peer", arrive(unknown, ACK, 1, row(&[ME, 3], 10))),
        ("arp", plain(unknown, arp(), own)),
        ("vlan", plain(unknown, vlan(&ack), own)),
        (
            "not-ours4",
            plain(
                unknown,
                tcp(&flow(CLIENT4, 1, "10.0.0.5", 22), ACK, 1, &[]),
                own,
            ),
        ),
        (
            "not-ours6",
            plain(
                unknown,
                tcp(&flow(CLIENT6, 1, "fd00::5", 22), ACK, 1, &[]),
                own,
            ),
        ),
        (
            "outer-options",
            plain(unknown, with(right_frame(), 0, &[0x46]), own),
        ),
        ("outer-fragment", changed(6, &[0x20, 0])),
        ("ping4", plain(unknown, icmp4(8, VIP4), own)),
        ("plain-icmp-error", plain(unknown, icmp4(3, VIP4), own)),
        (
            "plain-fragment",
            plain(unknown, with(ack.clone(), 6, &[0x20, 0]), own),
        ),
        (
            "plain-udp",
            plain(unknown, with(ack.clone(), 9, &[17]), own),
        ),
        (
            "plain-cut",
            plain(unknown, cut(ack.clone(), ETHERNET + 30), own),
        ),
        (
            "cut-outer",
            plain(unknown, cut(right_frame(), ETHERNET + 50), own),
        ),
        (
            "cut-inner",
            plain(unknown, cut(right_frame(), ETHERNET + 90), own),
        ),
        ("outer-no-checksum", changed(26, &[0, 0])),
        ("outer-length", changed(24, &[0, 60])),
        ("geneve-version", changed(28, &[0x45])),
        ("geneve-option-length", changed(28, &[4])),
        ("geneve-control", changed(29, &[0xc0])),
        ("geneve-not-critical", changed(29, &[0])),
        ("geneve-protocol", changed(30, &[0x65, 0x58])),
        ("other-cluster", lying(0, &|option| option.vni = 8)),
        ("option-class", changed(36, &[1, 2])),
        ("option-type", changed(38, &[0x82])),
        ("option-words", changed(39, &[3])),
        ("option-flags", lying(4, &|_| {})),
        ("option-zero", changed(41, &[1])),
        ("unknown-layout", changed(40, &[0x20])),
        (
            "row-twice",
            lying(0, &|option| option.word = 0x0001_0000_0000_5005),
        ),
        (
            "row-gap",
            lying(0, &|option| option.word = 0x0001_0000_0500_0005),
        ),
        ("inner-length", changed(56 + 2, &[0, 44])),
        (
            "inner-destination",
            inner(tcp(&flow(CLIENT4, 1, "10.9.9.9", 443), ACK, 1, &[])),
        ),
        (
            "wrong-tag",
            lying(0, &|option| {
                option.tag ^= 1;
                option.stamper = 77;
            }),
        ),
        ("inner-header-length", inner(with(ack.clone(), 0, &[0x44]))),
        ("inner-fragment", inner(with(ack.clone(), 6, &[0x20, 0]))),
        ("inner-udp", inner(with(ack.clone(), 9, &[17]))),
        ("inner-icmp-error", inner(icmp4(3, VIP4))),
        (
            "inner-routing6",
            inner(with_extensions(&ack6, 43, &[6, 0, 0, 0, 0, 0, 0, 0])),
        ),
        (
            "too-big",
            plain(unknown, tcp(&unknown, ACK, 1, &[7; 1_420]), own),
        ),
    ]
}

#[test]
fn ingress_follows_the_table_as_root() {
    if !needs::root() {
        return;
    }
    let pins = BpfFolder::new();
    let host = Host::new();
    let identity = Identity {
        vni: Vni::new(VNI).unwrap(),
        key: KEY,
        slot: slot(ME),
    };
    let ingress = Ingress::open(pins.path(), identity).unwrap();
    for vip in [VIP4, VIP6] {
        ingress
            .set_address(vip.parse().unwrap(), AddressKind::Vip)
            .unwrap();
    }
    for guest in [1, 2] {
        ingress.set_peer(slot(guest), &hop(guest, 1_500)).unwrap();
    }
    let mut rows = BTreeMap::new();
    let mut fixtures = Vec::new();
    for (id, arrival) in arrivals(&host) {
        rows.insert(id, (bucket(&arrival.flow), arrival.own));
        fixtures.push((id, arrival.frame));
    }
    host.namespace
        .run(|| {
            check(
                "Ingress",
                fixtures,
                |id| {
                    ingress.set_rows(&[rows[id]]);
                    ingress.set_lease(if id == "no-lease" { 0 } else { u64::MAX });
                },
                |frame| ingress.run(frame).unwrap(),
                || ingress.counters().unwrap(),
            );
        })
        .unwrap();
    let nine = NonZeroU16::new(9).unwrap();
    // Not who had no right tag.
    assert_eq!(ingress.take_stampers(), [nine]);
    assert_eq!(ingress.take_stampers(), []);
    assert_eq!(ingress.stale_stamps()[&nine], 3);
}

#[test]
fn guest_port_follows_the_table_as_root() {
    if !needs::root() {
        return;
    }
    let pins = BpfFolder::new();
    let director = Director::open(pins.path()).unwrap();
    let vni = Vni::new(VNI).unwrap();
    let members: [IpAddr; 2] = ["10.0.0.6".parse().unwrap(), "fd00::6".parse().unwrap()];
    for member in members {
        director.add_member(member).unwrap();
    }
    let namespace = OwnNamespace::new("node");
    let inner = tcp(&flow(CLIENT4, 1, VIP4, 443), ACK, 1, &[]);
    let option = Option1 {
        vni: VNI,
        flags: 0,
        stamper: 1,
        word: 5,
        tag: 0,
    };
    let geneve = |source: &str, destination: &str, option: &Option1| {
        let outer = Outer {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        encapsulate(&inner, outer, option)
    };
    let good = || geneve("10.0.0.5", "10.0.0.6", &option);
    let fixtures = vec![
        ("tcp", inner.clone()),
        ("vlan", vlan(&inner)),
        ("geneve4", good()),
        ("geneve-source", geneve("10.0.0.7", "10.0.0.6", &option)),
        ("geneve-source6", geneve("fd00::5", "fd00::6", &option)),
        (
            "geneve-destination",
            geneve("10.0.0.5", "10.0.0.66", &option),
        ),
        (
            "geneve-cluster",
            geneve("10.0.0.5", "10.0.0.6", &Option1 { vni: 8, ..option }),
        ),
        ("geneve-other", with(good(), 38, &[0x82])),
        ("geneve-fragment", with(good(), 6, &[0x20, 0])),
        ("geneve-no-checksum", with(good(), 26, &[0, 0])),
        ("cut", cut(good(), ETHERNET + 24)),
        ("unknown-port", good()),
    ];
    namespace
        .run(|| {
            let port = GuestPort {
                address: "10.0.0.5".parse().unwrap(),
                vni,
            };
            director.attach_port(1, &port).unwrap();
            check(
                "Guest port",
                fixtures,
                |id| {
                    if id == "unknown-port" {
                        director.detach_port(1).unwrap();
                    }
                },
                |frame| director.run_port(frame).unwrap(),
                || director.port_counters().unwrap(),
            );
            // A guest that went to another node stays a member when its port here goes.
            director.attach_port(1, &port).unwrap();
            assert!(!director.members().unwrap().contains(&port.address));
            director.add_member(port.address).unwrap();
            director.detach_port(1).unwrap();
            assert!(director.members().unwrap().contains(&port.address));
        })
        .unwrap();
}
