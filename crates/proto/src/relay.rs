//! One raw TCP pair: two directions, each with its half-close, its bytes under way and its
//! counters.
//!
//! ```text
//! Open ─ the reader saw the end ─► Ending ─ all bytes written ─► Finish (shut the writer's sending half down) ─► Ended
//! ```
//!
//! The machine moves no bytes itself: a worker splices or copies and reports what it did; the
//! machine says what to do next, and which side a direction waits for. A pair is done when both
//! directions have ended, and lost when a side fails: a reset is passed on as a reset, at once,
//! since a stream that ends early must not look complete.
//!
//! Bytes under way are *held* here (after a move, or when a copy could not be written whole) or
//! *piped* in a pipe of the kernel, of which only the count is here. Held ones are the older ones
//! and go out first; a worker reads from the source only while nothing is under way
//! ([`Relay::waits`] says so), so a direction never has more than one pipe or one scratch buffer in
//! memory. `read = written + held + piped` at all times.
//!
//! What it does not do: no time-out of its own besides idleness, no PROXY protocol, no TLS.

use crate::layout::{Reader, RestoreError, Writer};

pub use crate::http1::Side;

/// The layout that this release writes and reads.
pub const SNAPSHOT_LAYOUT: u8 = 1;

/// How far a direction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Bytes may come.
    Open,
    /// The source has closed its half; bytes are still under way.
    Ending,
    /// The destination's sending half was shut down.
    Ended,
}

/// What a direction waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// For the source to send.
    Source,
    /// For the destination to take what is under way: this is the side that is stuck.
    Destination,
    /// For the worker to shut the destination's sending half down and call [`Relay::finished`].
    Finish,
    /// For nothing: it has ended.
    Nothing,
}

/// Counters of a direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes taken from the source.
    pub read_bytes: u64,
    /// Bytes that the destination's socket took.
    pub written_bytes: u64,
}

impl Counters {
    fn under_way(self) -> u64 {
        self.read_bytes - self.written_bytes
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Direction {
    phase: Phase,
    counters: Counters,
    /// Bytes held here; the rest of those under way are in the direction's pipe.
    held: Vec<u8>,
    /// Last progress.
    since_us: u64,
}

/// Both directions of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    directions: [Direction; 2],
}

impl Relay {
    /// A pair just connected.
    pub fn new(now_us: u64) -> Relay {
        let direction = Direction {
            phase: Phase::Open,
            counters: Counters::default(),
            held: Vec::new(),
            since_us: now_us,
        };
        Relay {
            directions: [direction.clone(), direction],
        }
    }

    /// `count` bytes of the source are under way, in the pipe or in the worker's hands.
    pub fn read(&mut self, from: Side, count: u64, now_us: u64) {
        let direction = self.direction_mut(from);
        direction.counters.read_bytes += count;
        direction.since_us = now_us;
    }

    /// `count` bytes, the oldest under way, were taken by the destination's socket.
    ///
    /// Panics if that many are not under way: bytes would have been made up.
    pub fn wrote(&mut self, from: Side, count: u64, now_us: u64) {
        let direction = self.direction_mut(from);
        assert!(
            count <= direction.counters.under_way(),
            "more bytes written than were read"
        );
        direction.counters.written_bytes += count;
        direction.since_us = now_us;
        let held = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(direction.held.len());
        match held == direction.held.len() {
            true => direction.held = Vec::new(),
            false => drop(direction.held.drain(..held)),
        }
    }

    /// Bytes that were under way outside, in their order, are held here from now on.
    ///
    /// Panics if that many are not outside.
    pub fn hold(&mut self, from: Side, bytes: &[u8]) {
        assert!(
            bytes.len() as u64 <= self.piped_bytes(from),
            "more bytes held than are under way"
        );
        self.direction_mut(from).held.extend_from_slice(bytes);
    }

    /// Bytes to write before any in the pipe.
    pub fn held(&self, from: Side) -> &[u8] {
        &self.direction(from).held
    }

    /// Bytes in the direction's pipe.
    pub fn piped_bytes(&self, from: Side) -> u64 {
        let direction = self.direction(from);
        direction.counters.under_way() - direction.held.len() as u64
    }

    /// All bytes read and not written.
    pub fn under_way_bytes(&self, from: Side) -> u64 {
        self.direction(from).counters.under_way()
    }

    /// Sets what is in the pipe to what the kernel says. A worker that was killed may have moved
    /// bytes after its last word, and the pipe is right: what it holds beyond our count was read,
    /// what it lacks was written.
    pub fn recount(&mut self, from: Side, piped_bytes: u64) {
        let known = self.piped_bytes(from);
        let counters = &mut self.direction_mut(from).counters;
        counters.read_bytes += piped_bytes.saturating_sub(known);
        counters.written_bytes += known.saturating_sub(piped_bytes);
    }

    /// The source has closed its sending half.
    pub fn end_of_stream(&mut self, from: Side, now_us: u64) {
        let direction = self.direction_mut(from);
        if direction.phase == Phase::Open {
            direction.phase = Phase::Ending;
            direction.since_us = now_us;
        }
    }

    /// The destination's sending half was shut down, as [`Waits::Finish`] asks.
    ///
    /// Panics if bytes are still under way or may come: the stream would have been cut.
    pub fn finished(&mut self, from: Side) {
        assert_eq!(
            self.waits(from),
            Waits::Finish,
            "a stream is ended only behind its last byte"
        );
        self.direction_mut(from).phase = Phase::Ended;
    }

    /// What the direction waits for.
    pub fn waits(&self, from: Side) -> Waits {
        let direction = self.direction(from);
        match (direction.phase, direction.counters.under_way()) {
            (Phase::Ended, _) => Waits::Nothing,
            (_, 1..) => Waits::Destination,
            (Phase::Open, 0) => Waits::Source,
            (Phase::Ending, 0) => Waits::Finish,
        }
    }

    /// How far the direction is.
    pub fn phase(&self, from: Side) -> Phase {
        self.direction(from).phase
    }

    /// Counters of the direction.
    pub fn counters(&self, from: Side) -> Counters {
        self.direction(from).counters
    }

    /// Whether both directions have ended: both sockets can be closed.
    pub fn is_done(&self) -> bool {
        self.directions
            .iter()
            .all(|direction| direction.phase == Phase::Ended)
    }

    /// Whether exactly one direction has seen its end.
    pub fn is_half_closed(&self) -> bool {
        let [client, member] = &self.directions;
        (client.phase == Phase::Open) != (member.phase == Phase::Open)
    }

    /// Since when the direction waits for its destination. None: it does not.
    pub fn stuck_since_us(&self, from: Side) -> Option<u64> {
        (self.waits(from) == Waits::Destination).then_some(self.direction(from).since_us)
    }

    /// When the pair has been without progress in either direction for `idle_time_us`.
    pub fn deadline(&self, idle_time_us: u64) -> u64 {
        let [client, member] = &self.directions;
        client
            .since_us
            .max(member.since_us)
            .saturating_add(idle_time_us)
    }

    /// All of the pair's state at `now_us`, as bytes. Bytes in pipes are only counted: hold them
    /// first if the pipes do not go along.
    pub fn snapshot(&self, now_us: u64) -> Vec<u8> {
        let held: usize = self
            .directions
            .iter()
            .map(|direction| direction.held.len())
            .sum();
        let mut writer = Writer::new(SNAPSHOT_LAYOUT, 64 + held);
        for direction in &self.directions {
            writer.u8(match direction.phase {
                Phase::Open => 0,
                Phase::Ending => 1,
                Phase::Ended => 2,
            });
            writer.u64(direction.counters.read_bytes);
            writer.u64(direction.counters.written_bytes);
            writer.u64(now_us.saturating_sub(direction.since_us));
            writer.bytes(&direction.held);
        }
        writer.finish()
    }

    /// The pair of a snapshot, at `now_us` of this program's clock.
    pub fn restore(snapshot: &[u8], now_us: u64) -> Result<Relay, RestoreError> {
        let mut reader = Reader::open(snapshot, SNAPSHOT_LAYOUT)?;
        let mut relay = Relay::new(now_us);
        for direction in &mut relay.directions {
            direction.phase = match reader.u8()? {
                0 => Phase::Open,
                1 => Phase::Ending,
                2 => Phase::Ended,
                _ => return Err(reader.impossible()),
            };
            direction.counters.read_bytes = reader.u64()?;
            direction.counters.written_bytes = reader.u64()?;
            direction.since_us = now_us.saturating_sub(reader.u64()?);
            direction.held = reader.bytes()?.to_vec();
            let Counters {
                read_bytes,
                written_bytes,
            } = direction.counters;
            let is_possible = read_bytes
                .checked_sub(written_bytes)
                .is_some_and(|under_way| under_way >= direction.held.len() as u64);
            let is_cut = direction.phase == Phase::Ended && read_bytes != written_bytes;
            if !is_possible || is_cut {
                return Err(reader.impossible());
            }
        }
        reader.close()?;
        Ok(relay)
    }

    fn direction(&self, from: Side) -> &Direction {
        &self.directions[index(from)]
    }

    fn direction_mut(&mut self, from: Side) -> &mut Direction {
        &mut self.directions[index(from)]
    }
}

fn index(from: Side) -> usize {
    match from {
        Side::Client => 0,
        Side::Member => 1,
    }
}

#[cfg(test)]
mod tests;
