//! What became of each connection, as its client saw it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What one connection came to in one window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Open at the window's end, and every byte right.
    Carried,
    /// Ended by both sides' explicit end.
    Finished,
    /// Ended after the other side had asked for it in the protocol.
    ToldToClose,
    Reset,
    /// Ended by the other side without an explicit end, or silent for too long.
    ClosedEarly,
    /// Not established, or its request answered by an error.
    Refused,
    /// A byte was not what it had to be.
    Corrupted,
}

/// Sums of outcomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    pub connections: u64,
    pub carried: u64,
    pub finished: u64,
    pub told_to_close: u64,
    pub reset: u64,
    pub closed_early: u64,
    pub refused: u64,
    pub corrupted: u64,
    /// Longest that a connection waited for what was due.
    pub stall_ms_max: u64,
}

impl Tally {
    /// Counts one connection's outcome. The connection itself is counted when the window begins or
    /// it is opened.
    pub fn count(&mut self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Carried => &mut self.carried,
            Outcome::Finished => &mut self.finished,
            Outcome::ToldToClose => &mut self.told_to_close,
            Outcome::Reset => &mut self.reset,
            Outcome::ClosedEarly => &mut self.closed_early,
            Outcome::Refused => &mut self.refused,
            Outcome::Corrupted => &mut self.corrupted,
        };
        *counter += 1;
    }

    /// With those that are open at the window's end.
    #[must_use]
    pub(super) const fn with_carried(mut self, open: u64) -> Self {
        self.carried += open;
        self
    }

    /// Whether each connection has exactly one outcome.
    pub const fn adds_up(&self) -> bool {
        self.connections == self.carried + self.finished + self.told_to_close + self.lost()
    }

    /// Connections that a planned change must not have.
    pub const fn lost(&self) -> u64 {
        self.reset + self.closed_early + self.refused + self.corrupted
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.carried += other.carried;
        self.finished += other.finished;
        self.told_to_close += other.told_to_close;
        self.reset += other.reset;
        self.closed_early += other.closed_early;
        self.refused += other.refused;
        self.corrupted += other.corrupted;
        self.stall_ms_max = self.stall_ms_max.max(other.stall_ms_max);
    }
}

/// A window's tally.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub window: String,
    pub duration_ms: u64,
    pub total: Tally,
    /// By workload's name.
    pub workloads: BTreeMap<String, Tally>,
    /// Names of the workloads that speak HTTP.
    pub http: Vec<String>,
    /// Segments that the clients sent again in the window, and in as long a time of steady load
    /// just before it.
    pub retransmits: u64,
    pub retransmits_before: u64,
    /// How long that time was: shorter than the window if there was no more.
    pub before_ms: u64,
    /// Whole messages and answers that arrived, every byte right.
    pub messages: u64,
    /// Least and most connections that were in the middle of a message or answer at one time.
    pub mid_message_min: u64,
    pub mid_message_max: u64,
    /// Most HTTP connections that waited for an answer at one time.
    pub mid_answer_max: u64,
    /// Those that were lost.
    pub failures: Vec<Failure>,
}

/// One connection that was lost, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    pub workload: String,
    pub flow: Flow,
    pub outcome: Outcome,
    pub detail: String,
    /// Whether it was in the middle of a message or answer, as its client saw it.
    pub is_mid_message: bool,
    /// Since the window began.
    pub at_ms: u64,
}

/// A connection's addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Flow {
    pub from: SocketAddr,
    pub to: SocketAddr,
}
