//! The control socket: how `hitless reload`, `upgrade`, `status`, `stop` and `metrics` reach a
//! running keeper.
//!
//! A Unix SEQPACKET socket named [`SOCKET_NAME`] in a folder that only its owner may enter; the
//! keeper also checks the peer's user. A request is one packet, a reply is one or more: opcodes are
//! fixed, bodies are text that the keeper does not read (it comes from the worker). The client
//! waits as long as the keeper works; it owns no part of that work.

use core::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

pub mod packet;

/// Name of the socket in the run folder.
pub const SOCKET_NAME: &str = "control";

/// What a keeper can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Apply the configuration file as it is now, or refuse it whole.
    Reload,
    /// Replace worker and keeper by the program now on disk; live connections are taken over.
    Upgrade,
    /// One JSON document: programs, virtual servers, pools, members, counters, ledgers.
    Status,
    /// Stop accepting, let connections finish for the drain time, then exit. Answered when the
    /// drain has begun.
    Stop,
    /// Prometheus text.
    Metrics,
    /// Go on as before, but tell clients to close where their protocol can say so. Survives workers
    /// and upgrades.
    TellToClose,
    /// Tell them so no longer.
    KeepOpen,
    /// Answered when a stop is over, with what it cut; refused if none is under way.
    AwaitEnd,
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is done; the body says what was done.
    Done,
    /// Nothing was changed; the body says why, for example all errors of the configuration file.
    Refused,
    /// It began and failed; what was before is restored where the body does not say otherwise.
    Failed,
}

/// A keeper's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub outcome: Outcome,
    /// Text for the operator, JSON or metrics, as the request says.
    pub body: String,
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("no traffic manager runs with the run folder {folder}")]
    NotRunning { folder: PathBuf },
    #[error("may not enter the run folder {folder}: it belongs to another user")]
    NotAllowed { folder: PathBuf },
    #[error("the traffic manager ended before it answered")]
    Ended,
    #[error(
        "the traffic manager speaks another version of the control protocol ({found}, this program speaks 1)"
    )]
    Version { found: u16 },
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for ControlError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// A connection to a running keeper.
pub struct Client {
    socket: OwnedFd,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Finds the keeper of a run folder.
    pub fn connect(run_folder: &Path) -> Result<Self, ControlError> {
        use rustix::io::Errno;
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let address = SocketAddrUnix::new(run_folder.join(SOCKET_NAME))?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => Ok(Self { socket }),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Err(ControlError::NotRunning {
                folder: run_folder.to_owned(),
            }),
            Err(Errno::ACCESS | Errno::PERM) => Err(ControlError::NotAllowed {
                folder: run_folder.to_owned(),
            }),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Asks and waits for the whole answer.
    pub fn call(&self, request: Request) -> Result<Reply, ControlError> {
        rustix::net::send(
            &self.socket,
            &packet::encode_request(request),
            SendFlags::NOSIGNAL,
        )?;
        let mut body = Vec::new();
        let mut buffer = vec![0u8; packet::PACKET_BYTES_MAX];
        loop {
            let (read, _) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            if read == 0 {
                return Err(ControlError::Ended);
            }
            let part = packet::decode_reply(&buffer[..read])
                .map_err(|found| ControlError::Version { found })?;
            body.extend_from_slice(part.body);
            if !part.more {
                let body = String::from_utf8_lossy(&body).into_owned();
                return Ok(Reply {
                    outcome: part.outcome,
                    body,
                });
            }
        }
    }
}

/// Where the run folder is when nobody says: `$HITLESS_RUN`, `/run/hitless` for root, else
/// `hitless` in `$XDG_RUNTIME_DIR`, else `/tmp/hitless-UID`.
pub fn default_run_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("HITLESS_RUN").filter(|value| !value.is_empty()) {
        return folder.into();
    }
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return "/run/hitless".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
        Some(folder) => Path::new(&folder).join("hitless"),
        None => format!("/tmp/hitless-{}", uid.as_raw()).into(),
    }
}
