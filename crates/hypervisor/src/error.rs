//! Why a guest could not be made, started, found or ended.

use std::io;
use std::path::PathBuf;

use crate::GuestName;

/// Result of a driver's calls.
pub type Result<T> = std::result::Result<T, Error>;

/// What a driver could not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no guest of this name on this node.
    #[error("there is no guest {0} on this node")]
    NoGuest(GuestName),
    /// The guest has no program of this name.
    #[error("guest {guest} has no program {program:?}; it has {known}")]
    NoProgram {
        guest: GuestName,
        program: String,
        known: String,
    },
    /// The specification contradicts itself or asks for what the driver cannot give.
    #[error("guest {guest} cannot be made so: {reason}")]
    BadSpec { guest: GuestName, reason: String },
    /// A change needs the guest to be destroyed first.
    #[error("guest {guest} runs with another {field}; destroy it first to change that")]
    NeedsDestroy {
        guest: GuestName,
        field: &'static str,
    },
    /// The program's file cannot be started.
    #[error("guest {guest}: cannot start {program} ({})", binary.display())]
    Start {
        guest: GuestName,
        program: String,
        binary: PathBuf,
        source: io::Error,
    },
    /// Processes that were killed are still there.
    #[error("guest {guest}: processes {pids:?} are still there {seconds} s after they were killed")]
    StillThere {
        guest: GuestName,
        pids: Vec<u32>,
        seconds: u64,
    },
    /// The network part of the guest.
    #[error("guest {guest}: {source}")]
    Network {
        guest: GuestName,
        source: hitless_net::Error,
    },
    /// The node's own network.
    #[error("this node: {0}")]
    Node(#[source] hitless_net::Error),
    /// A file of the driver.
    #[error("cannot {operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}
