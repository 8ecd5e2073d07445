//! The control socket's side of the keeper: who may ask, what was asked, and answers that wait for
//! room.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use super::KeeperError;
use crate::control::packet::{BadRequest, decode_request, encode_reply};
use crate::control::{Outcome, Request, SOCKET_NAME};

/// Operators at a time; one more is refused at once.
pub(super) const CLIENTS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct ClientConnection {
    pub(super) id: u32,
    pub(super) socket: OwnedFd,
    /// Packets of answers that the socket had no room for yet.
    pub(super) waiting: VecDeque<Vec<u8>>,
}

/// What reading from a client gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Request(Request),
    Nothing,
    Gone,
}

/// Makes the run folder, locks it for this keeper and binds the control socket in it. Returns lock
/// and socket.
pub(super) fn open_run_folder(folder: &Path) -> Result<(OwnedFd, OwnedFd), KeeperError> {
    let refuse = |reason: String| KeeperError::RunFolder {
        path: folder.to_owned(),
        reason,
    };
    let builder = &mut std::fs::DirBuilder::new();
    if let Err(error) = builder.recursive(true).mode(0o700).create(folder) {
        return Err(refuse(format!("cannot make it: {error}")));
    }
    let found = std::fs::metadata(folder).map_err(|error| refuse(error.to_string()))?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(refuse(format!("belongs to user {}", found.uid())));
    }
    if found.mode() & 0o077 != 0 {
        let mode = found.mode() & 0o777;
        return Err(refuse(format!(
            "others may enter it (mode {mode:o}, 700 is needed)"
        )));
    }
    let lock = rustix::fs::open(
        folder.join("lock"),
        OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    )
    .map_err(|errno| refuse(format!("cannot open its lock: {errno}")))?;
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(KeeperError::AlreadyRunning {
            path: folder.to_owned(),
        });
    }
    let path = folder.join(SOCKET_NAME);
    let _ = std::fs::remove_file(&path);
    let socket = listen_at(&path).map_err(|error| refuse(format!("control socket: {error}")))?;
    Ok((lock, socket))
}

fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

/// The next client that waits, if it may ask: root or the keeper's own user.
pub(super) fn accept(listener: &OwnedFd, id: u32) -> io::Result<Option<ClientConnection>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = match rustix::net::accept_with(listener, flags) {
        Ok(socket) => socket,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::CONNABORTED) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let peer = sockopt::socket_peercred(&socket)?;
    let mut client = ClientConnection {
        id,
        socket,
        waiting: VecDeque::new(),
    };
    if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
        client.answer(
            Outcome::Refused,
            "this user may not control the traffic manager\n",
        );
        return Ok(None);
    }
    Ok(Some(client))
}

impl ClientConnection {
    pub(super) fn read(&mut self) -> Asked {
        let mut packet = [0u8; 64];
        match rustix::net::recv(&self.socket, &mut packet[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => Asked::Gone,
            Ok((length, _)) => match decode_request(&packet[..length]) {
                Ok(request) => Asked::Request(request),
                Err(BadRequest::Malformed) => Asked::Gone,
                Err(BadRequest::Unknown) => {
                    self.answer(Outcome::Refused, "this keeper does not know that request\n");
                    Asked::Nothing
                }
            },
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Asked::Nothing,
            Err(_) => Asked::Gone,
        }
    }

    /// Sends an answer, or as much of it as there is room for; the rest goes by
    /// [`flush`](Self::flush).
    pub(super) fn answer(&mut self, outcome: Outcome, text: &str) {
        self.waiting.extend(encode_reply(outcome, text.as_bytes()));
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        while let Some(packet) = self.waiting.front() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&self.socket, packet, flags) {
                Ok(_) => {
                    self.waiting.pop_front();
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
                // The client is gone; its socket says so at the next read.
                Err(_) => self.waiting.clear(),
            }
        }
    }
}
