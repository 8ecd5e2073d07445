//! Whether a member may be used: three independent columns, and the machine that probes it.
//!
//! *Admin* is what the operator wants, *health* what the probes say, *config* whether what runs is
//! what was written. They are never merged into one; each carries its reason. The machine
//! ([`Prober`]) decides when a probe starts, when it has taken too long, and when enough results in
//! a row change the health. It does no probing and reads no clock:
//!
//! ```text
//!          first good result               `fall` bad results in a row
//!   up <--------------------- unknown -------------------------------> down
//!    |                                                                  |
//!    +------- `fall` bad results in a row ----------------------------->+
//!    +<------ `rise` good results in a row -----------------------------+
//! ```
//!
//! Until the first good result ever, probes follow each other ten times as fast, and one good result
//! is enough, whether the member was called down meanwhile or not: one that starts a moment later
//! than its monitor, or comes back after a crash, is soon used. A member that is down without ever
//! having had a good result is probed at the usual pace after a minute. Invariants: at most one probe of a member runs at a time, so a member that never
//! answers does not pile up probes; a result of a probe that was given up is ignored; no single bad
//! result takes a member down unless `fall` is 1.

use core::fmt;

use serde::{Deserialize, Serialize};

mod prober;

pub use prober::{Action, Outcome, ProbeId, Prober, Rules};

/// What the operator wants of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admin {
    /// Takes new work.
    #[default]
    Ready,
    /// Takes no new work; what it has finishes or is carried over.
    Drain,
    /// Takes nothing, whatever it has may be closed.
    Maint,
}

/// What the probes say of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Up,
    Down,
    /// No result yet, or nothing probes it. It is used: nothing says that it should not be.
    #[default]
    Unknown,
}

/// Whether what runs is what was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Config {
    #[default]
    Synced,
    /// Written, not yet running.
    Pending,
    /// Refused; the one before runs.
    Rejected,
}

/// Why the admin column is what it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminReason {
    /// Nobody asked for anything else.
    #[default]
    Default,
    /// An operator asked for it, with this note.
    Operator(String),
}

/// Why the health column is what it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "code")]
pub enum HealthReason {
    /// Its pool has no monitor.
    #[default]
    NoMonitor,
    /// The first probe has not ended yet.
    NotProbedYet,
    /// The latest probe was answered as expected.
    Answered { latency_us: u64 },
    /// The latest probe failed.
    Failed { failure: Failure },
}

/// Why the config column is what it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigReason {
    #[default]
    AsWritten,
    /// A change is on its way.
    Applying,
    /// The latest file was refused with this first error.
    Refused(String),
    /// The file was changed since it was read, and nobody asked to apply it.
    ChangedSince,
    /// The file cannot be read any more, for this reason.
    Unreadable(String),
}

/// Why a probe failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Failure {
    /// Nothing listens there.
    Refused,
    /// The network says that there is no way.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The connection ended before an answer.
    Closed,
    /// Another status than the expected one.
    Status { found: u16, expected: u16 },
    /// What came is not HTTP.
    NotHttp,
    /// There is no TLS with it, or it did not prove who it is.
    Tls { error: String },
    /// This machine could not probe: out of descriptors, say. It says nothing of the member.
    Local { error: String },
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        })
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Synced => "synced",
            Self::Pending => "pending",
            Self::Rejected => "rejected",
        })
    }
}

impl fmt::Display for HealthReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMonitor => f.write_str("no monitor"),
            Self::NotProbedYet => f.write_str("not probed yet"),
            Self::Answered { latency_us } => {
                write!(
                    f,
                    "answered in {}.{} ms",
                    latency_us / 1_000,
                    latency_us % 1_000 / 100
                )
            }
            Self::Failed { failure } => failure.fmt(f),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Closed => f.write_str("closed before an answer"),
            Self::Status { found, expected } => write!(f, "status {found}, expected {expected}"),
            Self::NotHttp => f.write_str("the answer is not HTTP"),
            Self::Tls { error } => write!(f, "TLS: {error}"),
            Self::Local { error } => write!(f, "could not probe: {error}"),
        }
    }
}

#[cfg(test)]
mod tests;
