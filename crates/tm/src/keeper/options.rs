//! What a keeper is started with, and why it could not start or go on.

use core::net::SocketAddr;
use core::num::NonZeroU16;
use core::time::Duration;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// What a keeper is started with. A keeper that replaces itself by the program on disk is started
/// with the same command line again, so the same options must come out of it.
#[derive(Clone, Debug)]
pub struct KeeperOptions {
    /// Read at the start and at each reload; never parsed here.
    pub config: PathBuf,
    /// Holds the control socket. Made if missing, with mode 0700; refused if others may enter it.
    pub run_folder: PathBuf,
    /// The program that workers run and that an upgrade changes to: a path, looked up anew each
    /// time.
    pub program: PathBuf,
    /// Arguments that make it call [`crate::worker::run`].
    pub worker_args: Vec<OsString>,
    /// What distinguishes this build from another, shown in status.
    pub build_id: String,
    /// Event loops of the worker, each with its own listening socket per address. `None`: one per
    /// processor. Fixed for the life of the keeper, upgrades included.
    pub threads: Option<NonZeroU16>,
    /// User and group that a worker changes to when the keeper runs as root. `None`: 65534, nobody.
    pub worker_user: Option<(u32, u32)>,
    /// Limit on the keeper's own descriptors. `None`: the hard limit it was started with.
    pub descriptors_max: Option<u64>,
    /// How long connections may go on after a stop.
    pub drain: Duration,
}

impl KeeperOptions {
    /// Options with the defaults of everything that has one.
    pub fn new(config: PathBuf, run_folder: PathBuf, program: PathBuf) -> Self {
        Self {
            config,
            run_folder,
            program,
            worker_args: Vec::new(),
            build_id: String::new(),
            threads: None,
            worker_user: None,
            descriptors_max: None,
            drain: Duration::from_secs(30),
        }
    }
}

/// Why a keeper could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error("cannot read {path}: {source}")]
    Config { path: PathBuf, source: io::Error },
    /// The worker's text: the file with all its errors.
    #[error("{0}")]
    Refused(String),
    #[error("run folder {path}: {reason}")]
    RunFolder { path: PathBuf, reason: String },
    #[error("a traffic manager already runs with the run folder {path}")]
    AlreadyRunning { path: PathBuf },
    /// Each address that is not to be had, and why.
    #[error("{}", listen_errors(.0))]
    Listen(Vec<(SocketAddr, String)>),
    #[error("the worker did not start: {0}")]
    Worker(String),
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: io::Error,
    },
}

fn listen_errors(failures: &[(SocketAddr, String)]) -> String {
    let lines = failures
        .iter()
        .map(|(address, reason)| format!("cannot listen on {address}: {reason}"));
    lines.collect::<Vec<_>>().join("\n")
}
