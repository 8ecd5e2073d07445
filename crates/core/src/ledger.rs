//! The ledger of a change: what became of each connection that was alive when it began.
//!
//! Invariant: every connection has exactly one [`Outcome`], so the outcomes add up to the
//! connections that the change began with; [`Ledger::check`] says so or says by how much not.
//! Connections that arrive while the change runs are none of its business. A ledger is a value:
//! several parts of one change (workers, guests) are summed with [`Ledger::merge`].
//!
//! What it deliberately does not know: what clients saw. The lab's tally counts that on its own,
//! and shares no code.

use core::fmt;

use serde::{Deserialize, Serialize};

/// The rung of the ladder by which a connection was carried over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// The row led its packets to where it lives; nothing moved but the table.
    SecondChance,
    /// Another program on the same host took it over.
    Takeover,
    /// It moved to another host.
    Move,
    /// Its guest moved, and it with the guest.
    GuestMove,
    /// Its standby rebuilt it.
    Mirror,
}

impl Rung {
    pub const ALL: [Self; 5] = [
        Self::SecondChance,
        Self::Takeover,
        Self::Move,
        Self::GuestMove,
        Self::Mirror,
    ];

    const fn position(self) -> usize {
        match self {
            Self::SecondChance => 0,
            Self::Takeover => 1,
            Self::Move => 2,
            Self::GuestMove => 3,
            Self::Mirror => 4,
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SecondChance => "second chance",
            Self::Takeover => "takeover",
            Self::Move => "move",
            Self::GuestMove => "guest move",
            Self::Mirror => "mirror",
        })
    }
}

/// What became of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It lives on.
    Carried(Rung),
    /// It ended as its two ends wanted.
    Finished,
    /// We asked its client to close it (`Connection: close`, GOAWAY), and it was closed.
    ToldToClose,
    /// We broke it. The goal is that none is.
    Reset,
}

/// How many connections were carried, by rung.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    pub second_chance: u64,
    pub takeover: u64,
    #[serde(rename = "move")]
    pub moved: u64,
    pub guest_move: u64,
    pub mirror: u64,
}

impl Carried {
    /// By rung, in the order of [`Rung::ALL`].
    pub const fn by_rung(&self) -> [u64; 5] {
        [
            self.second_chance,
            self.takeover,
            self.moved,
            self.guest_move,
            self.mirror,
        ]
    }

    pub fn total(&self) -> u64 {
        self.by_rung().iter().sum()
    }

    fn count_of(&mut self, rung: Rung) -> &mut u64 {
        match rung {
            Rung::SecondChance => &mut self.second_chance,
            Rung::Takeover => &mut self.takeover,
            Rung::Move => &mut self.moved,
            Rung::GuestMove => &mut self.guest_move,
            Rung::Mirror => &mut self.mirror,
        }
    }
}

/// The sums of one change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// Connections alive when the change began.
    pub connections: u64,
    pub carried: Carried,
    pub finished: u64,
    pub told_to_close: u64,
    pub reset: u64,
    /// The longest time for which the change kept a connection from moving bytes.
    pub stall_us_max: u64,
}

/// A ledger that does not add up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mismatch {
    pub connections: u64,
    pub outcomes: u64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connections,
            outcomes,
        } = self;
        write!(f, "{connections} connections have {outcomes} outcomes")
    }
}

impl core::error::Error for Mismatch {}

impl Ledger {
    /// A change begins with so many connections.
    pub fn begin(connections: u64) -> Self {
        Self {
            connections,
            ..Self::default()
        }
    }

    /// One connection's outcome, and how long the change kept it still.
    pub fn record(&mut self, outcome: Outcome, stall_us: u64) {
        match outcome {
            Outcome::Carried(rung) => *self.carried.count_of(rung) += 1,
            Outcome::Finished => self.finished += 1,
            Outcome::ToldToClose => self.told_to_close += 1,
            Outcome::Reset => self.reset += 1,
        }
        self.stall_us_max = self.stall_us_max.max(stall_us);
    }

    /// Adds another part of the same change, which had connections of its own.
    pub fn merge(&mut self, part: &Self) {
        self.connections += part.connections;
        for rung in Rung::ALL {
            *self.carried.count_of(rung) += part.carried.by_rung()[rung.position()];
        }
        self.finished += part.finished;
        self.told_to_close += part.told_to_close;
        self.reset += part.reset;
        self.stall_us_max = self.stall_us_max.max(part.stall_us_max);
    }

    /// What came to it since it was `before`. The stall is the longest of all, then as now.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut grown = Self {
            connections: self.connections.saturating_sub(before.connections),
            finished: self.finished.saturating_sub(before.finished),
            told_to_close: self.told_to_close.saturating_sub(before.told_to_close),
            reset: self.reset.saturating_sub(before.reset),
            stall_us_max: self.stall_us_max,
            ..Self::default()
        };
        for rung in Rung::ALL {
            let [now, then] = [self, before].map(|one| one.carried.by_rung()[rung.position()]);
            *grown.carried.count_of(rung) = now.saturating_sub(then);
        }
        grown
    }

    /// Connections that have an outcome.
    pub fn outcomes(&self) -> u64 {
        self.carried.total() + self.finished + self.told_to_close + self.reset
    }

    /// Connections that have none yet, or none that was recorded.
    pub fn open(&self) -> u64 {
        self.connections.saturating_sub(self.outcomes())
    }

    /// Whether every connection has exactly one outcome.
    ///
    /// # Errors
    /// [`Mismatch`] with both sums.
    pub fn check(&self) -> Result<(), Mismatch> {
        let outcomes = self.outcomes();
        if outcomes == self.connections {
            Ok(())
        } else {
            Err(Mismatch {
                connections: self.connections,
                outcomes,
            })
        }
    }
}

/// One line, for people: `312 connections: 300 carried (300 by takeover), 12 finished, 0 reset;
/// longest stall 1.2 ms`, without the stall where none was measured.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.connections == 1 { "" } else { "s" };
        let (connections, carried) = (self.connections, self.carried.total());
        write!(f, "{connections} connection{plural}: {carried} carried")?;
        let rungs = Rung::ALL
            .iter()
            .zip(self.carried.by_rung())
            .filter(|(_, count)| *count > 0);
        for (position, (rung, count)) in rungs.enumerate() {
            write!(
                f,
                "{}{count} by {rung}",
                if position == 0 { " (" } else { ", " }
            )?;
        }
        if self.carried.total() > 0 {
            f.write_str(")")?;
        }
        write!(f, ", {} finished", self.finished)?;
        if self.told_to_close > 0 {
            write!(f, ", {} told to close", self.told_to_close)?;
        }
        write!(f, ", {} reset", self.reset)?;
        if self.open() > 0 {
            write!(f, ", {} open", self.open())?;
        }
        match self.stall_us_max {
            // Nobody has measured one.
            0 => Ok(()),
            us => write!(f, "; longest stall {}.{} ms", us / 1_000, us % 1_000 / 100),
        }
    }
}

#[cfg(test)]
mod tests;
