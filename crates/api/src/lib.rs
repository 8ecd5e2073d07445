//! The versioned API: its types, its routes and its client.
//!
//! JSON over HTTP/1.1 on a Unix socket. Everything that a command line, a page or the lab asks of a
//! cluster goes through here; nothing else is a way in. What is absent is the invariant: this crate
//! decides nothing and holds no state. The server turns a request into one [`Call`] for the task
//! that owns the state and sends back what it answers.
//!
//! ```text
//! GET  /v1/status              Status           GET  /v1/changes             List<Change>
//! GET  /v1/nodes[/NAME]        List<Node>       GET  /v1/changes/NAME        Change
//! GET  /v1/guests[/NAME]       List<Guest>      POST /v1/changes             Order -> Accepted
//! GET  /v1/virtual-clusters    List<..>         POST /v1/changes/NAME/call-back     -> Accepted
//! GET  /v1/buckets[/NUMBER]    List<BucketRun>  GET  /v1/counters            Counters
//! GET  /v1/site                YAML             GET  /v1/ledger              Ledger
//! PUT  /v1/site                YAML -> Accepted
//! ```

#![forbid(unsafe_code)]

mod client;
mod error;
mod order;
mod resource;
mod server;

pub use client::{BlockingClient, Client};
pub use hitless_core::ledger::Ledger;

pub use error::{ApiError, ClientError, ErrorCode};
pub use order::{Accepted, AtDeadline, Order, check_name};
pub use resource::{
    AdminState, BucketRun, BucketWait, Change, ChangeState, Closed, ClosedConnection, ConfigState,
    Counters, Death, DirectorCounters, Drain, Guest, GuestPhase, Health, IngressCounters, List,
    Node, NodePhase, Progress, Site, Status, VirtualCluster, Wait, WaitCode,
};
pub use server::{Answer, Call, Question, SITE_BYTES_MAX, serve};

/// The version that this crate speaks, the first part of every path.
pub const VERSION: &str = "v1";

/// Where a controller's API socket lies within its run folder.
pub const SOCKET_NAME: &str = "api.sock";
