//! What the clients are told, and how they answer.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::tally::{Flow, Report};

/// One line to the clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Opens the plan's connections. Answered when all are established or have failed.
    Start { plan: Plan },
    /// Opens again what was lost. Answered as [`Command::Start`].
    Refill,
    /// Ends the window and begins one called `name`. Answered with the report of the one that ends,
    /// once idle connections have answered a probe and no older one is half open.
    Mark {
        name: String,
        /// Nothing is changed in the window that begins: steps are compared with it.
        #[serde(default)]
        is_steady: bool,
    },
    /// From now on streams that would be endless last at most so long, and new ones follow them;
    /// none: endless again.
    Last { seconds: Option<u64> },
    /// Which flows are open.
    Flows,
    /// Ends every connection as its protocol wants. Answered with the report of the last window, in
    /// which no connection is carried.
    Finish,
}

/// One line from the clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Done; so many connections are open.
    Open {
        connections: u64,
    },
    Report {
        report: Box<Report>,
    },
    Flows {
        flows: Vec<Flow>,
    },
    /// The line was not understood.
    Refused {
        reason: String,
    },
}

/// All workloads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub workloads: Vec<Workload>,
    /// A connection that was due to receive something and did not for so long counts as closed
    /// early, although nobody closed it.
    #[serde(default = "Plan::default_silence_ms")]
    pub silence_ms_max: u64,
    /// A connection that is not established after so long counts as refused.
    #[serde(default = "Plan::default_connect_ms")]
    pub connect_ms_max: u64,
}

impl Plan {
    const fn default_silence_ms() -> u64 {
        5_000
    }

    const fn default_connect_ms() -> u64 {
        5_000
    }
}

/// Connections of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    pub name: String,
    pub kind: WorkloadKind,
    /// How many are open at a time; for `http-new`, how many are opened per second.
    pub count: u32,
    /// Taken in turn.
    pub to: Vec<SocketAddr>,
    /// Time between messages or requests of one connection. 0: without pause, for `slow` between
    /// its reads.
    #[serde(default)]
    pub interval_ms: u32,
    /// Bytes of a message's payload. For HTTP: of the object, which the servers must have under
    /// this size's name.
    #[serde(default)]
    pub bytes: u32,
    /// How long a stream lasts before it ends and a new one follows; none: endless.
    #[serde(default)]
    pub lasts_s: Option<u64>,
}

/// What connections do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkloadKind {
    /// Messages both ways at an interval.
    Stream,
    /// The server sends without pause, the client reads a little at each interval.
    Slow,
    /// The client ends its direction at once, the server goes on.
    HalfClosed,
    /// The server sends large messages at an interval, or without pause.
    Large,
    /// Nothing is sent until the window ends; then a probe must be answered.
    Idle,
    /// Requests at an interval on one connection.
    HttpKeepAlive,
    /// A connection for each request.
    HttpNew,
}

impl WorkloadKind {
    /// Whether it speaks HTTP.
    pub const fn is_http(self) -> bool {
        matches!(self, Self::HttpKeepAlive | Self::HttpNew)
    }
}
