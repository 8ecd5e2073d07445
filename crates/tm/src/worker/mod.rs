//! The worker process: parses the configuration and the traffic.

use std::io;

/// The descriptor on which a worker finds the link to its keeper.
pub const LINK_FD: i32 = 3;

/// Why a worker ended other than by its keeper's word.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("this command is started by a keeper, not by hand")]
    NoKeeper,
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: io::Error,
    },
    #[error("keeper link: {0}")]
    Link(String),
}

/// Runs a worker on the link to its keeper, which it finds at [`LINK_FD`], until the keeper says
/// stop or is gone. Call it first in a process that has no other threads yet: it drops privileges.
pub fn run(build_id: &str) -> Result<(), WorkerError> {
    let _ = build_id;
    Err(WorkerError::NoKeeper)
}
