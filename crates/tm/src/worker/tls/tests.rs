//! The law of layers: whatever is sent arrives, in its order, although either layer is carried over
//! or its worker dies between any two steps.

use std::os::fd::OwnedFd;

use hitless_carry::slots::{Kind, Slots};
use hitless_carry::vault::Vault;
use hitless_proto::tls::{Material, Records, Role, Suite};
use proptest::prelude::*;
use rustix::io::Errno;

use super::layer::{Got, Layer, Room, Tls, recv, send};
use super::pair::{Sealed, Step};
use crate::wire::{Reader, Writer};
use crate::worker::core_of_lane::Core;
use crate::worker::tcp::{CLIENT, MEMBER};
use crate::worker::trial::Trial;

/// Two ends of a connection in TLS or in cleartext.
fn sockets() -> (OwnedFd, OwnedFd) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    for stream in [&near, &far] {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    (near.into(), far.into())
}

const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

/// Both ends of a layer: 1.3 with secrets, or 1.2 with keys.
fn layers(suite: Suite, is_13: bool) -> (Layer, Layer) {
    let material = |byte: u8| {
        if is_13 {
            Material::Secret(vec![byte; suite.secret_bytes()].into())
        } else {
            Material::Key {
                key: vec![byte; suite.key_bytes()].into(),
                iv: [byte; 12],
            }
        }
    };
    let end = |role, received, sent| {
        let (received, sent) = ((material(received), 0), (material(sent), 0));
        Layer::new(Records::new(role, suite, received, sent).unwrap(), 0, 0)
    };
    (end(Role::Client, 1, 2), end(Role::Server, 2, 1))
}

/// The byte at a place of a stream.
fn byte(seed: usize, at: usize) -> u8 {
    ((at ^ at >> 8 ^ at >> 16).wrapping_mul(31) + seed * 101) as u8
}

fn pattern(seed: usize, from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|at| byte(seed, at)).collect()
}

/// One end that writes a stream and checks another.
struct End {
    socket: OwnedFd,
    tls: Tls,
    room: Room,
    seed: usize,
    sent: usize,
    /// What the socket did not take, in cleartext.
    rest: Vec<u8>,
    checked: usize,
}

impl End {
    fn new(socket: OwnedFd, layer: Option<Layer>, seed: usize) -> Self {
        Self {
            socket,
            tls: layer.map(Box::new),
            room: Room::default(),
            seed,
            sent: 0,
            rest: Vec::new(),
            checked: 0,
        }
    }

    fn write(&mut self, count: usize) {
        if self.rest.is_empty() {
            self.rest = pattern(self.seed, self.sent, count);
            self.sent += count;
        }
        match send(&self.socket, &mut self.tls, &mut self.room, &self.rest, &[]) {
            Ok(count) => drop(self.rest.drain(..count)),
            Err(Errno::AGAIN) => {}
            Err(errno) => panic!("{errno}"),
        }
    }

    /// Whether something came.
    fn read(&mut self, count: usize) -> bool {
        let mut into = vec![0; count];
        match recv(&self.socket, &mut self.tls, &mut self.room, &mut into) {
            Ok(Got::Data { count, .. }) => {
                let expected = pattern(1 - self.seed, self.checked, count);
                assert!(
                    into[..count] == expected,
                    "wrong bytes behind {}",
                    self.checked
                );
                self.checked += count;
                true
            }
            Ok(Got::End) => panic!("an end"),
            Err(Errno::AGAIN) => false,
            Err(errno) => panic!("{errno}"),
        }
    }

    fn flush(&mut self) {
        if !self.rest.is_empty() || super::has_unsent(&self.tls) {
            let rest = core::mem::take(&mut self.rest);
            let sent = send(&self.socket, &mut self.tls, &mut self.room, &rest, &[]);
            self.rest = rest[sent.unwrap_or(0)..].to_vec();
        }
    }

    fn update(&mut self) {
        if let Some(layer) = &mut self.tls {
            let mut out = Vec::new();
            // TLS 1.2 has none.
            let _ = layer.records.update_keys(&mut out);
            layer.records.keep_unsent(&out);
        }
    }

    /// To another program.
    fn carry_over(&mut self) {
        if let Some(layer) = &mut self.tls {
            let mut w = Writer::new();
            layer.write(&mut w);
            **layer = Layer::read(&mut Reader::new(&w.bytes)).unwrap();
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Write(usize, usize),
    Read(usize, usize),
    Update(usize),
    CarryOver(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..2usize, 1..70_000usize).prop_map(|(side, count)| Op::Write(side, count)),
        6 => (0..2usize, 1..80_000usize).prop_map(|(side, count)| Op::Read(side, count)),
        1 => (0..2usize).prop_map(Op::Update),
        3 => (0..2usize).prop_map(Op::CarryOver),
    ]
}

/// What a worker does with a pair between two ends.
#[derive(Clone, Copy, Debug)]
enum Between {
    End(Op),
    Step(usize),
    CarryOver,
    Kill,
}

fn between() -> impl Strategy<Value = Between> {
    prop_oneof![
        6 => op().prop_map(Between::End),
        8 => (0..2usize).prop_map(Between::Step),
        2 => Just(Between::CarryOver),
        2 => Just(Between::Kill),
    ]
}

fn core() -> (Core, mio::Poll, OwnedFd, u32) {
    let slots = std::sync::Arc::new(Slots::create(1, 4).unwrap());
    let poll = mio::Poll::new().unwrap();
    let registry = poll.registry().try_clone().unwrap();
    let (keeper, other) = hitless_carry::message::pair().unwrap();
    let mut core = Core::new(0, 1, slots, registry, keeper, Trial::default(), 0);
    core.vault = Some(std::sync::Arc::new(Vault::create(1, 4).unwrap()));
    let site = "pools: { a: { members: ['127.0.0.1:9'] } }\nvirtual_servers: { a: { listen: \
                '127.0.0.1:8', protocol: tcp, pool: a } }\n";
    let site = hitless_types::site::Site::parse("site", site.as_bytes()).unwrap();
    let board = crate::monitor::Board::new();
    let slots = std::sync::Arc::clone(&core.slots);
    let loaded = crate::tls::Loaded::default();
    core.tables
        .apply((&site, &loaded), &board, &slots, 0, Vec::new());
    core.find_free_slots();
    let (slot, _) = core.begin_slot(Kind::Tcp, 0).unwrap();
    (core, poll, other, slot)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_layer_carries_every_byte(
        suite in 0..3usize,
        is_13: bool,
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        let (near, far) = sockets();
        let (client, server) = layers(SUITES[suite], is_13);
        let mut ends = [End::new(near, Some(client), 0), End::new(far, Some(server), 1)];
        for op in ops {
            run(&mut ends, op);
        }
        settle(&mut ends, |_| false);
    }

    /// A worker between two ends, each of which may speak TLS.
    #[test]
    fn a_pair_carries_every_byte_over_takeovers_and_kills(
        suite in 0..3usize,
        is_13: bool,
        members_too: bool,
        ops in proptest::collection::vec(between(), 1..120),
    ) {
        let ((near, client), (far, member)) = (sockets(), sockets());
        let (of_client, server) = layers(SUITES[suite], is_13);
        let (ours, of_member) = layers(SUITES[suite], is_13);
        let of_member = members_too.then_some(of_member);
        let mut ends = [End::new(near, Some(of_client), 0), End::new(far, of_member, 1)];
        let pair = [client, member];
        let (mut core, _poll, _other, slot) = core();
        let layer = (&pair[CLIENT], Some(Box::new(server)));
        let mut sealed = *Sealed::new(&core, slot, layer, members_too);
        let ours = members_too.then(|| Box::new(ours));
        sealed.connected(&core, &pair[MEMBER], ours);
        for op in ops {
            match op {
                // A kill while keys change is the one that costs a connection.
                Between::End(Op::Update(_)) | Between::End(Op::CarryOver(_)) => {}
                Between::End(op) => run(&mut ends, op),
                Between::Step(from) => {
                    sealed.step(&mut core, &pair, from, (0, 0)).unwrap();
                }
                Between::CarryOver => {
                    let mut w = Writer::new();
                    sealed.write(&mut w);
                    sealed = Sealed::read(&mut Reader::new(&w.bytes)).unwrap();
                    sealed.set_slot(slot);
                }
                Between::Kill => {
                    drop(sealed);
                    let recovered = Sealed::recover(&mut core, slot, &pair, false);
                    sealed = recovered.expect("nothing is lost");
                }
            }
        }
        settle(&mut ends, |_| {
            let mut has_moved = false;
            for from in [CLIENT, MEMBER] {
                let step = sealed.step(&mut core, &pair, from, (0, 0)).unwrap();
                has_moved |= matches!(step, Step::Moved);
            }
            has_moved
        });
    }
}

fn run(ends: &mut [End; 2], op: Op) {
    match op {
        Op::Write(side, count) => ends[side].write(count),
        Op::Read(side, count) => drop(ends[side].read(count)),
        Op::Update(side) => ends[side].update(),
        Op::CarryOver(side) => ends[side].carry_over(),
    }
}

/// Until all that was written has come.
fn settle(ends: &mut [End; 2], mut between: impl FnMut(()) -> bool) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let mut has_moved = between(());
        for end in &mut *ends {
            end.flush();
            has_moved |= end.read(100_000);
        }
        let is_all = ends[0].checked == ends[1].sent && ends[1].checked == ends[0].sent;
        if is_all && ends.iter().all(|end| end.rest.is_empty()) {
            return;
        }
        assert!(std::time::Instant::now() < until, "bytes are missing");
        if !has_moved {
            std::thread::yield_now();
        }
    }
}
