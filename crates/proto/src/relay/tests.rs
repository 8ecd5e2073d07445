//! Tests of the relay: its law, and a model of two sockets and two pipes that it must agree with.

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::{Phase, Relay, SNAPSHOT_LAYOUT, Side, Waits};
use crate::RestoreError;

fn config() -> Config {
    Config {
        cases: 2_000,
        failure_persistence: None,
        ..Config::default()
    }
}

/// What a worker may find when it looks at a direction.
#[derive(Debug, Clone)]
enum Input {
    /// The source has these bytes.
    Arrives(Vec<u8>),
    /// The destination's socket takes so many bytes.
    Takes(usize),
    /// The source closes its half.
    Ends,
    /// Bytes in the pipe are taken into memory, as before a move.
    Holds,
    Passes(u64),
}

fn input() -> impl Strategy<Value = (bool, Input)> {
    let input = prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 1..60).prop_map(Input::Arrives),
        6 => (0_usize..60).prop_map(Input::Takes),
        1 => Just(Input::Ends),
        2 => Just(Input::Holds),
        1 => (0_u64..1_000_000).prop_map(Input::Passes),
    ];
    (any::<bool>(), input)
}

/// A worker with a pipe per direction, and what the destinations got.
struct Worker {
    relay: Relay,
    now_us: u64,
    /// In the sockets' receive buffers.
    waiting: [Vec<u8>; 2],
    has_ended: [bool; 2],
    pipe: [Vec<u8>; 2],
    got: [Vec<u8>; 2],
    got_end: [bool; 2],
}

impl Worker {
    fn new() -> Worker {
        Worker {
            relay: Relay::new(0),
            now_us: 0,
            waiting: Default::default(),
            has_ended: [false; 2],
            pipe: Default::default(),
            got: Default::default(),
            got_end: [false; 2],
        }
    }

    fn input(&mut self, from: Side, input: &Input) {
        let at = super::index(from);
        match input {
            Input::Arrives(bytes) if !self.has_ended[at] => self.waiting[at].extend(bytes),
            Input::Arrives(_) => {}
            Input::Takes(count) => self.write(from, *count),
            Input::Ends => self.has_ended[at] = true,
            Input::Holds => {
                self.relay.hold(from, &self.pipe[at]);
                self.pipe[at].clear();
            }
            Input::Passes(time_us) => self.now_us += time_us,
        }
        self.work(from);
    }

    /// Reads and finishes as the machine asks.
    fn work(&mut self, from: Side) {
        let at = super::index(from);
        if self.relay.waits(from) == Waits::Source && !self.waiting[at].is_empty() {
            let bytes = std::mem::take(&mut self.waiting[at]);
            self.relay.read(from, bytes.len() as u64, self.now_us);
            self.pipe[at].extend(bytes);
        }
        let is_empty = self.waiting[at].is_empty();
        if self.relay.waits(from) == Waits::Source && self.has_ended[at] && is_empty {
            self.relay.end_of_stream(from, self.now_us);
        }
        if self.relay.waits(from) == Waits::Finish {
            self.got_end[at] = true;
            self.relay.finished(from);
        }
    }

    fn write(&mut self, from: Side, count: usize) {
        let at = super::index(from);
        if self.relay.waits(from) != Waits::Destination {
            return;
        }
        let held = self.relay.held(from);
        let taken: Vec<u8> = match held.is_empty() {
            false => held[..count.min(held.len())].to_vec(),
            true => {
                let count = count.min(self.pipe[at].len());
                self.pipe[at].drain(..count).collect()
            }
        };
        if !taken.is_empty() {
            self.relay.wrote(from, taken.len() as u64, self.now_us);
            self.got[at].extend(taken);
        }
    }
}

fn side(is_client: bool) -> Side {
    if is_client {
        Side::Client
    } else {
        Side::Member
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_snapshot_changes_nothing_and_no_byte_is_lost(
        script in prop::collection::vec(input(), 1..60),
    ) {
        let (mut plain, mut moved) = (Worker::new(), Worker::new());
        let mut sent: [Vec<u8>; 2] = Default::default();
        let mut has_ended = [false; 2];
        for (is_client, input) in &script {
            let from = side(*is_client);
            let at = super::index(from);
            match input {
                Input::Arrives(bytes) if !has_ended[at] => sent[at].extend(bytes),
                Input::Ends => has_ended[at] = true,
                _ => {}
            }
            plain.input(from, input);
            moved.input(from, input);
            let snapshot = moved.relay.snapshot(moved.now_us);
            let held = moved.relay.held(Side::Client).len() + moved.relay.held(Side::Member).len();
            prop_assert!(snapshot.len() - held < 300);
            moved.relay = Relay::restore(&snapshot, moved.now_us).unwrap();
            prop_assert_eq!(&plain.relay, &moved.relay);
            prop_assert_eq!(&plain.got, &moved.got);
            for from in [Side::Client, Side::Member] {
                let at = super::index(from);
                prop_assert_eq!(plain.relay.piped_bytes(from), plain.pipe[at].len() as u64);
                prop_assert!(sent[at].starts_with(&plain.got[at]));
            }
        }
        // In the end everything arrives, and the end of the stream behind it.
        for from in [Side::Client, Side::Member, Side::Client, Side::Member] {
            moved.input(from, &Input::Ends);
            while moved.relay.waits(from) != Waits::Nothing {
                moved.input(from, &Input::Takes(usize::MAX));
            }
        }
        prop_assert!(moved.relay.is_done());
        prop_assert_eq!(&moved.got, &sent);
        prop_assert_eq!(moved.got_end, [true; 2]);
    }

    #[test]
    fn damaged_snapshots_are_refused_or_harmless(
        script in prop::collection::vec(input(), 1..20),
        index in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut worker = Worker::new();
        for (is_client, input) in &script {
            worker.input(side(*is_client), input);
        }
        let mut snapshot = worker.relay.snapshot(worker.now_us);
        let at = index.index(snapshot.len());
        snapshot[at] = byte;
        if let Ok(relay) = Relay::restore(&snapshot, worker.now_us) {
            for from in [Side::Client, Side::Member] {
                prop_assert!(relay.under_way_bytes(from) >= relay.held(from).len() as u64);
                prop_assert!(relay.waits(from) != Waits::Finish || relay.under_way_bytes(from) == 0);
            }
        }
    }
}

#[test]
fn each_way_ends_by_itself() {
    let mut relay = Relay::new(0);
    relay.read(Side::Client, 5, 1);
    relay.end_of_stream(Side::Client, 2);
    assert_eq!(relay.waits(Side::Client), Waits::Destination);
    assert_eq!(relay.stuck_since_us(Side::Client), Some(2));
    assert!(relay.is_half_closed());
    relay.wrote(Side::Client, 5, 3);
    assert_eq!(relay.waits(Side::Client), Waits::Finish);
    relay.finished(Side::Client);
    assert_eq!(relay.phase(Side::Client), Phase::Ended);
    assert_eq!(relay.waits(Side::Member), Waits::Source);
    assert!(!relay.is_done());
    relay.end_of_stream(Side::Member, 4);
    relay.finished(Side::Member);
    assert!(relay.is_done());
    assert!(!relay.is_half_closed());
}

#[test]
fn a_pipe_is_right_where_the_count_is_not() {
    let mut relay = Relay::new(0);
    relay.read(Side::Client, 10, 1);
    // Killed behind a write of 4 bytes, before it was counted.
    relay.recount(Side::Client, 6);
    assert_eq!(relay.counters(Side::Client).written_bytes, 4);
    // Killed behind a read of 7 more.
    relay.recount(Side::Client, 13);
    assert_eq!(relay.counters(Side::Client).read_bytes, 17);
    assert_eq!(relay.piped_bytes(Side::Client), 13);
}

#[test]
#[should_panic(expected = "more bytes written than were read")]
fn bytes_cannot_be_made_up() {
    Relay::new(0).wrote(Side::Client, 1, 0);
}

#[test]
#[should_panic(expected = "a stream is ended only behind its last byte")]
fn a_stream_cannot_be_cut() {
    let mut relay = Relay::new(0);
    relay.read(Side::Client, 5, 0);
    relay.end_of_stream(Side::Client, 0);
    relay.finished(Side::Client);
}

#[test]
fn a_snapshot_of_another_layout_is_refused_by_name() {
    let mut snapshot = Relay::new(0).snapshot(0);
    snapshot[0] = 9;
    let refused = RestoreError::UnknownLayout {
        found: 9,
        known: SNAPSHOT_LAYOUT,
    };
    assert_eq!(Relay::restore(&snapshot, 0), Err(refused));
}
