//! The layer of an established connection, and reading and writing with or without one.

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use hitless_proto::tls::{Event, Records};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use crate::wire::{Malformed, Reader, Writer};
use crate::worker::http::READ_BYTES_MAX;

/// The longest record, which can be stuck: a header, data, and what TLS 1.2 lets it be longer.
pub(super) const RECORD_BYTES_MAX: usize = 5 + (1 << 14) + 2_048;
/// Of the buffer for sealed output that a thread keeps: what one read becomes.
const OUT_BYTES_KEPT: usize = 2 * READ_BYTES_MAX;

/// What a thread lends to the layer that it works with.
#[derive(Debug)]
pub(in crate::worker) struct Room {
    sealed: Vec<u8>,
    out: Vec<u8>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            // Memory that is never touched is never there.
            sealed: vec![0; RECORD_BYTES_MAX + READ_BYTES_MAX],
            out: Vec::new(),
        }
    }
}

impl Room {
    pub(in crate::worker) fn sealed(&mut self) -> &mut [u8] {
        &mut self.sealed
    }

    /// The buffer for output, which goes back with [`give_out`](Self::give_out).
    pub(super) fn take_out(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.out)
    }

    pub(super) fn give_out(&mut self, mut out: Vec<u8>) {
        out.clear();
        out.shrink_to(OUT_BYTES_KEPT);
        self.out = out;
    }

    /// Input and output.
    pub(super) fn both(&mut self) -> (&mut [u8], &mut Vec<u8>) {
        (&mut self.sealed, &mut self.out)
    }
}

/// TLS of one socket.
pub(in crate::worker) struct Layer {
    pub(in crate::worker) records: Records,
    /// Opened, and not taken yet.
    plain: Vec<u8>,
    /// Bytes of the socket, from the first of the handshake on.
    pub(in crate::worker) read: u64,
    pub(in crate::worker) written: u64,
}

/// `None`: in cleartext.
pub(in crate::worker) type Tls = Option<Box<Layer>>;

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer")
            .field("read", &self.read)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// What a read gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::worker) enum Got {
    /// So many bytes; more may be there.
    Data { count: usize, is_more: bool },
    /// The other side sends no more. In TLS: it may have been cut ([`Layer::is_cut`]).
    End,
}

impl Layer {
    pub(in crate::worker) fn new(records: Records, read: u64, written: u64) -> Self {
        Self {
            records,
            plain: Vec::new(),
            read,
            written,
        }
    }

    /// Whether a socket that has ended was cut: who sent has not said that it was all.
    pub(in crate::worker) fn is_cut(&self) -> bool {
        !self.records.has_ended()
    }

    /// What is opened and was not taken.
    pub(super) fn take_plain(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.plain)
    }

    /// Nothing that was read waits here, opened or half.
    pub(in crate::worker) fn is_still(&self) -> bool {
        self.plain.is_empty() && self.records.stuck().is_empty()
    }

    /// Bytes in memory that are in no socket.
    pub(in crate::worker) fn buffered(&self) -> usize {
        self.plain.len() + self.records.stuck().len() + self.records.unsent().len()
    }

    fn recv(&mut self, room: &mut Room, socket: &OwnedFd, into: &mut [u8]) -> Result<Got, Errno> {
        loop {
            if !self.plain.is_empty() {
                let count = self.plain.len().min(into.len());
                into[..count].copy_from_slice(&self.plain[..count]);
                self.plain.drain(..count);
                return Ok(Got::Data {
                    count,
                    is_more: true,
                });
            }
            self.plain = Vec::new();
            if self.records.has_ended() {
                return Ok(Got::End);
            }
            let stuck = self.records.take_stuck(&mut room.sealed);
            let room_end = stuck + READ_BYTES_MAX;
            let read = rustix::net::recv(
                socket,
                &mut room.sealed[stuck..room_end],
                RecvFlags::DONTWAIT,
            );
            let count = match read {
                Ok((count @ 1.., _)) => count,
                other => {
                    self.records.keep_stuck(&room.sealed[..stuck]);
                    return other.map(|_| Got::End);
                }
            };
            self.read += count as u64;
            let length = stuck + count;
            let taken = self.open(room, length, into);
            self.flush(socket)?;
            let taken = taken?;
            if taken > 0 {
                return Ok(Got::Data {
                    count: taken,
                    is_more: length == room_end || !self.plain.is_empty(),
                });
            }
        }
    }

    /// Opens what is in the room. Returns how much of it is in `into`.
    fn open(&mut self, room: &mut Room, length: usize, into: &mut [u8]) -> Result<usize, Errno> {
        let (mut at, mut taken) = (0, 0);
        let mut out = room.take_out();
        let result = loop {
            let step = self.records.step(&mut room.sealed[at..length], &mut out);
            let data = &room.sealed[at + step.data.start..at + step.data.end];
            at += step.consumed;
            match step.event {
                Event::Data => {
                    let fits = data.len().min(into.len() - taken);
                    into[taken..taken + fits].copy_from_slice(&data[..fits]);
                    taken += fits;
                    self.plain.extend_from_slice(&data[fits..]);
                }
                Event::Control => {}
                Event::NeedMore | Event::Ended => break Ok(taken),
                Event::Failed(_) => break Err(Errno::PROTO),
            }
        };
        self.records.keep_stuck(&room.sealed[at..length]);
        self.records.keep_unsent(&out);
        room.give_out(out);
        result
    }

    /// `close_notify` waits behind what is sealed: the last thing that is said.
    pub(super) fn close(&mut self) {
        let mut out = Vec::new();
        self.records.close(&mut out);
        self.records.keep_unsent(&out);
    }

    /// Sends what is sealed and waits. `Ok` also if the socket does not take it now.
    pub(super) fn flush(&mut self, socket: &OwnedFd) -> Result<(), Errno> {
        while !self.records.unsent().is_empty() {
            match send_bytes(socket, self.records.unsent(), &[]) {
                Ok(count) => {
                    self.records.sent(count);
                    self.written += count as u64;
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Seals and sends. Data is taken as a whole or not at all: what the socket does not take of it
    /// waits here.
    fn send(
        &mut self,
        room: &mut Room,
        socket: &OwnedFd,
        first: &[u8],
        second: &[u8],
    ) -> Result<usize, Errno> {
        self.flush(socket)?;
        if !self.records.unsent().is_empty() {
            return Err(Errno::AGAIN);
        }
        let sealed = self.records.seal_parts(&[first, second], &mut room.out);
        if sealed.is_err() {
            room.out.clear();
            return Err(Errno::PIPE);
        }
        self.send_out(room, socket)?;
        Ok(first.len() + second.len())
    }

    /// Sends what was sealed into the room, and keeps what is not taken.
    fn send_out(&mut self, room: &mut Room, socket: &OwnedFd) -> Result<(), Errno> {
        if room.out.is_empty() {
            return Ok(());
        }
        let sent = match send_bytes(socket, &room.out, &[]) {
            Ok(count) => count,
            Err(Errno::AGAIN) => 0,
            Err(errno) => {
                room.out.clear();
                return Err(errno);
            }
        };
        self.written += sent as u64;
        self.records.keep_unsent(&room.out[sent..]);
        room.out.clear();
        room.out.shrink_to(OUT_BYTES_KEPT);
        Ok(())
    }

    pub(in crate::worker) fn write(&self, w: &mut Writer) {
        w.u64(self.read)
            .u64(self.written)
            .bytes(&self.plain)
            .bytes(&self.records.snapshot());
    }

    pub(in crate::worker) fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (read, written) = (r.u64()?, r.u64()?);
        let plain = r.bytes()?.to_vec();
        let records = Records::restore(r.bytes()?).map_err(|_| Malformed)?;
        Ok(Self {
            records,
            plain,
            read,
            written,
        })
    }
}

/// Reads what the other side sent.
pub(in crate::worker) fn recv(
    socket: &OwnedFd,
    tls: &mut Tls,
    room: &mut Room,
    into: &mut [u8],
) -> Result<Got, Errno> {
    if let Some(layer) = tls {
        return layer.recv(room, socket, into);
    }
    let wanted = into.len();
    match rustix::net::recv(socket, into, RecvFlags::DONTWAIT) {
        Ok((0, _)) => Ok(Got::End),
        // Less than there was room for: the socket is empty, and says when it no longer is.
        Ok((count, _)) => Ok(Got::Data {
            count,
            is_more: count == wanted,
        }),
        Err(errno) => Err(errno),
    }
}

/// Writes to the other side. Returns how many bytes are not the caller's any more.
pub(in crate::worker) fn send(
    socket: &OwnedFd,
    tls: &mut Tls,
    room: &mut Room,
    first: &[u8],
    second: &[u8],
) -> Result<usize, Errno> {
    match tls {
        None => send_bytes(socket, first, second),
        Some(layer) => layer.send(room, socket, first, second),
    }
}

/// Sealed bytes wait for the socket.
pub(in crate::worker) fn has_unsent(tls: &Tls) -> bool {
    tls.as_ref()
        .is_some_and(|layer| !layer.records.unsent().is_empty())
}

/// Says that no more comes, as far as the layer is concerned. Best effort: this is the last thing
/// that is said.
pub(in crate::worker) fn close(socket: &OwnedFd, tls: &mut Tls) {
    if let Some(layer) = tls {
        layer.close();
        let _ = layer.flush(socket);
    }
}

/// Says so, and shuts the sending half down.
pub(in crate::worker) fn shut_down(socket: &OwnedFd, tls: &mut Tls) {
    close(socket, tls);
    let _ = rustix::net::shutdown(socket, Shutdown::Write);
}

pub(super) fn send_bytes(socket: &OwnedFd, first: &[u8], second: &[u8]) -> Result<usize, Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        let sent = match (first.is_empty(), second.is_empty()) {
            (_, true) => rustix::net::send(socket, first, flags),
            (true, false) => rustix::net::send(socket, second, flags),
            (false, false) => {
                let parts = [IoSlice::new(first), IoSlice::new(second)];
                let mut none = rustix::net::SendAncillaryBuffer::default();
                rustix::net::sendmsg(socket, &parts, &mut none, flags)
            }
        };
        match sent {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
