//! One stream: how far each direction is, its windows, and the bytes on their way.
//!
//! ```text
//! each half   Head ─ head ─► Body ─ END_STREAM ─► Done     (1xx: stays Head)
//!              └──── head with END_STREAM ──────►
//! both Done, or reset by either side: the stream is removed
//! ```
//!
//! In the words of RFC 9113 section 5.1: a stream in the list is open while neither half is Done,
//! and half-closed once one is; one that is not in the list is idle above the last number, else
//! closed.

use crate::layout::{Reader, RestoreError, Writer};

/// How far a direction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Head,
    Body,
    Done,
}

/// What sending waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocked {
    No,
    /// For the stream's own window.
    Window,
    /// For the connection's window or the socket, and its turn: it is in the queue.
    Turn,
}

/// No Content-Length.
pub(super) const UNDECLARED: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) id: u32,
    /// What the peer sends.
    pub(super) remote: Half,
    /// What we send.
    pub(super) local: Half,
    pub(super) blocked: Blocked,
    /// The request is HEAD: its response has no body.
    pub(super) is_head: bool,
    /// Extended CONNECT: each half ends for itself.
    pub(super) is_tunnel: bool,
    /// 1xx responses so far.
    pub(super) interim: u8,
    pub(super) send_window: i32,
    pub(super) recv_window: i32,
    /// Body bytes that the caller has and has not released.
    pub(super) held: u32,
    /// Bytes released that the peer has not been told of.
    pub(super) freed: u32,
    /// Of the peer's Content-Length, what is to come. [`UNDECLARED`]: it has none.
    pub(super) length_left: u64,
    /// Body bytes that have come.
    pub(super) received: u64,
    /// Last progress.
    pub(super) since_us: u64,
}

impl Stream {
    pub(super) fn new(id: u32, send_window: i32, recv_window: i32, now_us: u64) -> Stream {
        Stream {
            id,
            remote: Half::Head,
            local: Half::Head,
            blocked: Blocked::No,
            is_head: false,
            is_tunnel: false,
            interim: 0,
            send_window,
            recv_window,
            held: 0,
            freed: 0,
            length_left: UNDECLARED,
            received: 0,
            since_us: now_us,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.remote == Half::Done && self.local == Half::Done
    }

    pub(super) fn write(&self, now_us: u64, writer: &mut Writer) {
        let half = |half| match half {
            Half::Head => 0,
            Half::Body => 1,
            Half::Done => 2,
        };
        let blocked = match self.blocked {
            Blocked::No => 0,
            Blocked::Window => 1,
            Blocked::Turn => 2,
        };
        writer.u32(self.id);
        writer.u8(half(self.remote) | half(self.local) << 2 | blocked << 4);
        writer.u8(u8::from(self.is_head) | u8::from(self.is_tunnel) << 1);
        writer.u8(self.interim);
        writer.u32(self.send_window as u32);
        writer.u32(self.recv_window as u32);
        writer.u32(self.held);
        writer.u32(self.freed);
        writer.u64(self.length_left);
        writer.u64(self.received);
        writer.u64(now_us.saturating_sub(self.since_us));
    }

    pub(super) fn read(reader: &mut Reader<'_>, now_us: u64) -> Result<Stream, RestoreError> {
        let id = reader.u32()?;
        let states = reader.u8()?;
        let half = |bits| match bits & 3 {
            0 => Some(Half::Head),
            1 => Some(Half::Body),
            2 => Some(Half::Done),
            _ => None,
        };
        let blocked = match states >> 4 {
            0 => Some(Blocked::No),
            1 => Some(Blocked::Window),
            2 => Some(Blocked::Turn),
            _ => None,
        };
        let (Some(remote), Some(local), Some(blocked)) = (half(states), half(states >> 2), blocked)
        else {
            return Err(reader.impossible());
        };
        let flags = reader.u8()?;
        if flags > 3 || id == 0 || id > super::frame::STREAM_MAX {
            return Err(reader.impossible());
        }
        Ok(Stream {
            id,
            remote,
            local,
            blocked,
            is_head: flags & 1 != 0,
            is_tunnel: flags & 2 != 0,
            interim: reader.u8()?,
            send_window: reader.u32()? as i32,
            recv_window: reader.u32()? as i32,
            held: reader.u32()?,
            freed: reader.u32()?,
            length_left: reader.u64()?,
            received: reader.u64()?,
            since_us: now_us.saturating_sub(reader.u64()?),
        })
    }
}

/// The streams of a connection by rising number. They are few, and new ones come at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Streams {
    list: Vec<Stream>,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn find(&self, id: u32) -> Option<&Stream> {
        self.list.get(self.place(id)?)
    }

    pub(super) fn find_mut(&mut self, id: u32) -> Option<&mut Stream> {
        let place = self.place(id)?;
        self.list.get_mut(place)
    }

    /// False: its number is not above the last.
    pub(super) fn add(&mut self, stream: Stream) -> bool {
        let is_next = self.list.last().is_none_or(|last| last.id < stream.id);
        if is_next {
            self.list.push(stream);
        }
        is_next
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Stream> {
        let place = self.place(id)?;
        Some(self.list.remove(place))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.list.iter_mut()
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.list.binary_search_by_key(&id, |stream| stream.id).ok()
    }
}
