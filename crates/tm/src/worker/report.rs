//! What an operator sees: the status document and the metrics, from slot file, board and the
//! keeper's facts.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use hitless_carry::slots::{IN_FLIGHT, KEYED_COUNTERS, Kind, Slots};

use super::Worker;
use super::stats::Keyed;
use crate::link::KeeperFacts;

pub(crate) use self::status::status_of_keeper;

mod metrics;
mod status;

pub(super) fn status(worker: &Worker, facts: &KeeperFacts) -> String {
    status::document(&worker.sources(facts).status())
}

pub(super) fn metrics(worker: &Worker, facts: &KeeperFacts) -> String {
    worker.sources(facts).metrics()
}

/// Connections by virtual server (hash of its name), and what else slots tell.
#[derive(Default)]
struct Census {
    by_server: HashMap<u64, u64>,
    connections: u64,
    in_flight: u64,
    http2: u64,
}

impl Census {
    fn take(slots: &Slots) -> Self {
        let mut census = Self::default();
        for lane in 0..slots.lanes() {
            for index in 0..slots.slots_per_lane() {
                let slot = slots.slot(lane, index);
                if matches!(slot.kind(), Some(Kind::Http | Kind::Tcp | Kind::Http2)) {
                    census.connections += 1;
                    census.http2 += u64::from(slot.kind() == Some(Kind::Http2));
                    census.in_flight += match slot.kind() {
                        Some(Kind::Http2) => slot.read_done.load(Ordering::Relaxed),
                        _ => u64::from(slot.has_flag(IN_FLIGHT)),
                    };
                    let key = slot.virtual_server.load(Ordering::Relaxed);
                    *census.by_server.entry(key).or_default() += 1;
                }
            }
        }
        census
    }
}

/// A gauge that is added to and taken from by two programs in a takeover may be below zero for an
/// instant.
fn open_of(sums: &[u64; KEYED_COUNTERS]) -> u64 {
    (sums[Keyed::Open as usize] as i64).max(0) as u64
}
