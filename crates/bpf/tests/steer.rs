//! The programs against the reference model, packet by packet. Needs root.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use hitless_bpf::{AddressKind, Director, Hop, Identity, Ingress, Run, Vni};
use hitless_core::row::{GuestSlot, Row, Sequence};
use hitless_core::rules::Rules;
use hitless_core::steer::{self, Counter, Forward, Held, Packet, Segment, Stamp, Verdict};
use hitless_harness::needs;
use support::BpfFolder;
use support::packet::{
    self, ACK, CLIENT4, CLIENT6, ETHERNET, KEY, Option1, Outer, RST, SYN, VIP4, VIP6, VNI, bucket,
};
use support::sockets::{HeldFlow, Host, State};

const ME: u16 = 5;
const GUESTS: u16 = 8;
const SEED: u64 = 0x5eed_0003;

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 33) % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn slot(number: u16) -> GuestSlot {
    GuestSlot::new(number).unwrap()
}

/// A row of none to four guests, near the wrap of the sequence often enough.
fn random_row(random: &mut Random, sequence: u16) -> Row {
    let mut slots = Vec::new();
    for _ in 0..random.below(5) {
        let next = slot(random.below(u64::from(GUESTS)) as u16 + 1);
        if !slots.contains(&next) {
            slots.push(next);
        }
    }
    Row::new(&slots, Sequence(sequence)).unwrap()
}

fn random_dead(random: &mut Random) -> Vec<GuestSlot> {
    if random.chance(50) {
        return Vec::new();
    }
    (1..=GUESTS)
        .filter(|_| random.chance(30))
        .map(slot)
        .collect()
}

/// Guest n is 10.0.0.n or fd00::n.
fn hop_to(number: u16) -> Hop {
    let is_v6 = number.is_multiple_of(2);
    let address = |host: u16| {
        if is_v6 {
            format!("fd00::{host:x}")
        } else {
            format!("10.0.0.{host}")
        }
        .parse()
        .unwrap()
    };
    Hop {
        source: address(100),
        destination: address(number),
        mac: [2, 0, 0, 0, 1, number as u8],
        source_mac: [2, 0, 0, 0, 2, 1],
        ifindex: None,
        mtu: Some(1_500),
    }
}

fn counter_name(counter: Counter) -> &'static str {
    match counter {
        Counter::Delivered => "delivered",
        Counter::Accepted => "accepted",
        Counter::Answered => "answered",
        Counter::Refused => "refused",
        Counter::Directed => "directed",
        Counter::Forwarded => "forwarded",
        Counter::Restamped => "restamped",
        Counter::NoRow => "no_row",
        Counter::NotNamed => "not_named",
        Counter::NoAnswer => "no_answer",
        Counter::OlderRow => "older_row",
        Counter::NoLease => "no_lease",
        Counter::NotListed => "not_listed",
        Counter::WrongNumber => "wrong_number",
    }
}

/// Checks a packet that was sent on, against the model's stamp.
fn check_forwarded(run: &Run, frame: &[u8], to: GuestSlot, stamp: Stamp) {
    assert_eq!(run.action, Run::TRANSMIT);
    let decoded = packet::decode(&run.packet);
    let hop = hop_to(to.number());
    assert_eq!(decoded.macs[..6], hop.mac);
    assert_eq!(decoded.macs[6..], hop.source_mac);
    assert_eq!(
        decoded.outer,
        Outer {
            source: hop.source,
            destination: hop.destination
        }
    );
    assert_eq!(
        decoded.inner,
        frame[ETHERNET..],
        "the inner packet is as it was"
    );
    let flags = u8::from(stamp.no_answer) | u8::from(stamp.as_new) << 1;
    assert_eq!(decoded.option.flags, flags);
    assert_eq!(decoded.option.stamper, stamp.stamper);
    assert_eq!(decoded.option.word, stamp.word.word());
    assert_eq!(decoded.option.vni, VNI);
}

#[test]
fn director_does_what_the_model_does_as_root() {
    if !needs::root() {
        return;
    }
    let pins = BpfFolder::new();
    let director = Director::open(pins.path()).unwrap();
    let vni = Vni::new(VNI).unwrap();
    let number = NonZeroU16::new(9).unwrap();
    director.set_cluster(vni, KEY, number).unwrap();
    for vip in [VIP4, VIP6] {
        director
            .set_address(vip.parse().unwrap(), vni, AddressKind::Vip)
            .unwrap();
    }
    for guest in 1..=GUESTS {
        director
            .set_guest(vni, slot(guest), &hop_to(guest))
            .unwrap();
    }
    let mut random = Random(SEED);
    for round in 0..4_000 {
        let (client, vip) = if random.chance(50) {
            (CLIENT4, VIP4)
        } else {
            (CLIENT6, VIP6)
        };
        let flow = packet::flow(client, random.next() as u16, vip, random.next() as u16);
        let flags = [SYN, ACK, RST, SYN | ACK][random.below(4) as usize];
        let payload = vec![random.next() as u8; random.below(60) as usize];
        let frame = packet::tcp(&flow, flags, random.next() as u32, &payload);
        let sequence = random.next() as u16;
        let row = random_row(&mut random, sequence);
        let dead = random_dead(&mut random);
        for guest in 1..=GUESTS {
            director
                .set_dead(vni, slot(guest), dead.contains(&slot(guest)))
                .unwrap();
        }
        director.set_rows(vni, &[(bucket(&flow), row)]).unwrap();
        let run = director.run(&frame).unwrap();
        match steer::director(&Rules::ALL, number.get(), row, &dead) {
            Verdict::Forward { to, stamp, .. } => {
                check_forwarded(&run, &frame, to, stamp);
                let decoded = packet::decode(&run.packet);
                assert_eq!(
                    decoded.option.tag,
                    packet::hash(&flow).tag(),
                    "round {round}"
                );
            }
            verdict => {
                assert_eq!(run.action, Run::DROP, "round {round}: {verdict:?}");
            }
        }
    }
    let counters = director.counters().unwrap();
    assert_eq!(counters["directed"] + counters["drop_no_row"], 4_000);
    assert!(counters["also_dead_last"] > 100);
}

/// A packet for the ingress and what the model is told of it.
struct Case {
    frame: Vec<u8>,
    sent: Vec<u8>,
    packet: Packet,
    held: Held,
    row: Row,
    dead: Vec<GuestSlot>,
    has_lease: bool,
    what: String,
}

fn random_case(random: &mut Random, flows: &[HeldFlow]) -> Case {
    let held_flow = &flows[random.below(flows.len() as u64) as usize];
    let flow = &held_flow.flow;
    let (flags, segment) = [
        (SYN, Segment::Syn),
        (ACK, Segment::Ack),
        (ACK, Segment::Ack),
        (ACK | RST, Segment::Ack),
        (SYN | ACK, Segment::Ack),
        (RST, Segment::Bare),
    ][random.below(6) as usize];
    let is_right = random.chance(50);
    let number = match held_flow.right_number {
        Some(number) if is_right => number,
        Some(number) => number.wrapping_add(1 + random.next() as u32 % 1_000_000),
        None => random.next() as u32,
    };
    let payload = vec![random.next() as u8; random.below(60) as usize];
    let frame = packet::tcp(flow, flags, number, &payload);
    let has_right_number = is_right && held_flow.right_number.is_some();
    // The kernel takes a cookie only from a plain ACK; a half-open entry is compared with anything
    // that has ACK.
    let may_be_right = match held_flow.state {
        State::Cookie => flags == ACK,
        _ => segment == Segment::Ack,
    };
    let held = held_flow.state.held(has_right_number, may_be_right);

    let sequence = if random.chance(50) {
        0xffff
    } else {
        random.next() as u16
    };
    let row = if random.chance(10) {
        Row::NONE
    } else {
        random_row(random, sequence)
    };
    let distance = [0, 0, 0, 1, 2, 0xffff, 0xfffe, 0x7000, 0x9000][random.below(9) as usize];
    let word = random_row(random, sequence.wrapping_add(distance));
    let mut option = Option1::of(flow, word, random.below(3) as u16);
    option.flags = random.below(4) as u8;
    let is_plain = random.chance(25);
    let outer = if random.chance(50) {
        Outer {
            source: "10.0.0.100".parse().unwrap(),
            destination: "10.0.0.5".parse().unwrap(),
        }
    } else {
        Outer {
            source: "fd00::64".parse().unwrap(),
            destination: "fd00::5".parse().unwrap(),
        }
    };
    let sent = if is_plain {
        frame.clone()
    } else {
        packet::encapsulate(&frame, outer, &option)
    };
    let stamp = (!is_plain).then_some(Stamp {
        word,
        no_answer: option.flags & 1 != 0,
        as_new: option.flags & 2 != 0,
        stamper: option.stamper,
    });
    let dead = random_dead(random);
    let has_lease = random.chance(60);
    let what = format!(
        "{held_flow:?} {segment:?} {held:?} own {row:?} stamp {stamp:?} dead {dead:?} lease {has_lease}"
    );
    Case {
        frame,
        sent,
        packet: Packet { segment, stamp },
        held,
        row,
        dead,
        has_lease,
        what,
    }
}

#[test]
fn ingress_does_what_the_model_does_as_root() {
    if !needs::root() {
        return;
    }
    let pins = BpfFolder::new();
    let host = Host::new();
    let vni = Vni::new(VNI).unwrap();
    let ingress = Ingress::open(
        pins.path(),
        Identity {
            vni,
            key: KEY,
            slot: slot(ME),
        },
    )
    .unwrap();
    for vip in [VIP4, VIP6] {
        ingress
            .set_address(vip.parse().unwrap(), AddressKind::Vip)
            .unwrap();
    }
    for guest in (1..=GUESTS).filter(|guest| *guest != ME) {
        ingress.set_peer(slot(guest), &hop_to(guest)).unwrap();
    }
    let mut seen = BTreeSet::new();
    host.namespace
        .run(|| {
            let mut random = Random(SEED);
            for round in 0..20_000 {
                let case = random_case(&mut random, &host.flows);
                run_case(&ingress, &case, round, &mut seen);
            }
        })
        .unwrap();
    // Every verdict of an ingress was met, so the comparison was not vacuous.
    let all = [
        Counter::Delivered,
        Counter::Accepted,
        Counter::Answered,
        Counter::Refused,
        Counter::Forwarded,
        Counter::Restamped,
        Counter::NoRow,
        Counter::NotNamed,
        Counter::NoAnswer,
        Counter::OlderRow,
        Counter::NoLease,
        Counter::NotListed,
        Counter::WrongNumber,
    ];
    assert_eq!(seen, all.into_iter().collect());
}

fn run_case(ingress: &Ingress, case: &Case, round: usize, seen: &mut BTreeSet<Counter>) {
    let bucket = packet_bucket(&case.frame);
    ingress.set_rows(&[(bucket, case.row)]);
    for guest in 1..=GUESTS {
        ingress.set_dead(slot(guest), case.dead.contains(&slot(guest)));
    }
    ingress.set_lease(if case.has_lease { u64::MAX } else { 0 });
    let before = ingress.counters().unwrap();
    let run = ingress.run(&case.sent).unwrap();
    let after = ingress.counters().unwrap();

    let hop = steer::Hop {
        me: slot(ME),
        row: case.row,
        believed_dead: &case.dead,
        has_lease: case.has_lease,
        held: case.held,
    };
    let verdict = steer::ingress(&Rules::ALL, &hop, &case.packet);
    let counted: Vec<_> = after
        .iter()
        .filter(|(name, count)| **count != before[*name] && !name.starts_with("also_"))
        .map(|(name, _)| *name)
        .collect();
    let context = format!(
        "round {round}: {} -> {verdict:?}, action {}",
        case.what, run.action
    );
    assert_eq!(counted, [counter_name(verdict.counter())], "{context}");
    seen.insert(verdict.counter());
    match verdict {
        Verdict::Deliver | Verdict::Accept | Verdict::Answer | Verdict::Refuse => {
            assert_eq!(run.action, Run::PASS, "{context}");
            assert_eq!(run.packet[12..], case.frame[12..], "{context}");
        }
        Verdict::Forward { to, stamp, why } => {
            assert_ne!(why, Forward::Directed);
            check_forwarded(&run, &case.frame, to, stamp);
        }
        Verdict::Drop(_) => assert_eq!(run.action, Run::DROP, "{context}"),
    }
}

/// The bucket of a frame with a client's packet.
fn packet_bucket(frame: &[u8]) -> hitless_core::row::Bucket {
    let ip = &frame[ETHERNET..];
    let (source, destination, tcp) = if ip[0] >> 4 == 4 {
        let address = |at: usize| <[u8; 4]>::try_from(&ip[at..at + 4]).unwrap().into();
        (address(12), address(16), &ip[20..])
    } else {
        let address = |at: usize| <[u8; 16]>::try_from(&ip[at..at + 16]).unwrap().into();
        (address(8), address(24), &ip[40..])
    };
    bucket(&hitless_core::flow::Flow {
        source,
        destination,
        source_port: u16::from_be_bytes([tcp[0], tcp[1]]),
        destination_port: u16::from_be_bytes([tcp[2], tcp[3]]),
        protocol: hitless_core::flow::PROTOCOL_TCP,
    })
}

#[test]
fn counts_are_what_the_kernel_holds_as_root() {
    if !needs::root() {
        return;
    }
    let pins = BpfFolder::new();
    let host = Host::new();
    let vni = Vni::new(VNI).unwrap();
    let ingress = Ingress::open(
        pins.path(),
        Identity {
            vni,
            key: KEY,
            slot: slot(ME),
        },
    )
    .unwrap();
    let count = || {
        host.namespace
            .run(|| ingress.live_counts().unwrap())
            .unwrap()
    };
    assert_eq!(count().total(), 0, "no address is ours yet");
    for vip in [VIP4, VIP6] {
        ingress
            .set_address(vip.parse().unwrap(), AddressKind::Vip)
            .unwrap();
    }
    let is_live = |held: &HeldFlow| {
        matches!(
            held.state,
            State::HalfOpen | State::Established | State::OrphanInFinWait2
        )
    };
    let live = count();
    let expected: Vec<_> = host.flows.iter().filter(|held| is_live(held)).collect();
    assert_eq!(live.total(), expected.len() as u64);
    for held in expected {
        assert_eq!(live.of(bucket(&held.flow)), 1, "{held:?}");
    }
    assert_eq!(live.cookies_sent, 2);

    // The same, one by one, with who is a connection and who is not.
    let held = || host.namespace.run(|| ingress.held().unwrap()).unwrap();
    let mut found = held();
    found.sort_by_key(|one| one.flow);
    let mut expected: Vec<_> = host
        .flows
        .iter()
        .filter(|held| is_live(held))
        .map(|held| {
            let is = |state| held.state == state;
            (held.flow, is(State::HalfOpen), is(State::OrphanInFinWait2))
        })
        .collect();
    expected.sort();
    let found: Vec<_> = found
        .iter()
        .map(|one| (one.flow, one.is_half_open, one.is_over))
        .collect();
    assert_eq!(found, expected);

    // What is named by its cookie is ended, and only once.
    let rest = held();
    let abort = || {
        host.namespace
            .run(|| ingress.abort(&rest).unwrap())
            .unwrap()
    };
    assert_eq!(abort(), rest);
    assert_eq!(count().total(), 0);
    assert_eq!(abort(), []);
}
