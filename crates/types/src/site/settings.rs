//! Settings of a site that all have a default: timeouts, limits, the address for metrics.

use core::net::SocketAddr;
use core::time::Duration;

use serde::Serialize;

/// How long each phase of a connection may last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Timeouts {
    /// Until a member has accepted a connection.
    pub connect: Duration,
    /// From the first byte of a request's head to its last.
    pub request_head: Duration,
    /// Between the requests of one client connection.
    pub keep_alive: Duration,
    /// From the end of a request to the first byte of its response.
    pub response: Duration,
    /// Without any byte in either direction, inside a body or on a `tcp` connection.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request_head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            response: Duration::from_secs(60),
            idle: Duration::from_secs(3_600),
        }
    }
}

/// How much of everything there may be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Limits {
    /// Client connections at a time; a connection above that waits in the kernel's accept queue.
    pub connections: u32,
    /// Bytes of one request's or response's head, with its first line.
    pub head_bytes: u32,
    /// Header lines of one head.
    pub headers: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            head_bytes: 65_536,
            headers: 128,
        }
    }
}

/// The address for operators.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Admin {
    /// Serves `GET /metrics`.
    pub listen: SocketAddr,
}
