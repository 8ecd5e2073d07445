//! What we send: heads, bodies, resets. Everything is appended to the caller's output.
//!
//! Nothing of a body is kept here. [`Connection::send_data`] takes what windows, the socket and the
//! other streams leave room for; the rest stays with the caller, who stops reading where it comes
//! from: that is the back-pressure. Who could not send all is told by
//! [`Connection::next_writable`] when it is its turn, one frame each in turn.

use super::connection::{Connection, Phase, remember};
use super::fault::ErrorCode;
use super::frame::{self, HEADER_BYTES, PAYLOAD_BYTES_MAX, STREAM_MAX};
use super::head::Head;
use super::interface::{Context, Role, SendError};
use super::stream::{Blocked, Half};

impl Connection {
    /// Whether a further stream can be opened now.
    pub fn may_open(&self) -> bool {
        self.role == Role::Client
            && self.phase != Phase::Failed
            && self.last_taken_by_peer.is_none()
            && self.next_local <= STREAM_MAX
            && self.streams.len() < self.remote.streams_max as usize
    }

    /// Sends a request. `ends`: it has no body. Returns its stream.
    pub fn open(
        &mut self,
        cx: &Context<'_>,
        head: &Head,
        ends: bool,
        out: &mut Vec<u8>,
    ) -> Result<u32, SendError> {
        if !self.may_open() {
            return Err(SendError::NoStream);
        }
        let is_tunnel = head.protocol().is_some();
        if is_tunnel && !self.remote.has_extended_connect {
            return Err(SendError::NoExtendedConnect);
        }
        self.judge_size(head)?;
        let id = self.next_local;
        self.next_local += 2;
        self.write_block(head, id, ends, out);
        let stream = self.add_stream(id, cx);
        stream.is_head = head.method() == b"HEAD";
        stream.is_tunnel = is_tunnel;
        stream.local = if ends { Half::Done } else { Half::Body };
        Ok(id)
    }

    /// Sends a response's head, or an interim one. `ends`: it has no body. A final response that
    /// ends before its request does tells the client to send no more.
    pub fn respond(
        &mut self,
        cx: &Context<'_>,
        id: u32,
        head: &Head,
        ends: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let stream = self.streams.find(id).ok_or(SendError::Gone)?;
        if self.role != Role::Server || stream.local != Half::Head || (head.is_interim() && ends) {
            return Err(SendError::Order);
        }
        self.judge_size(head)?;
        self.write_block(head, id, ends, out);
        let stream = self.streams.find_mut(id).ok_or(SendError::Gone)?;
        stream.since_us = cx.now_us;
        if !head.is_interim() {
            stream.local = if ends { Half::Done } else { Half::Body };
        }
        self.finish_stream(id, cx, out);
        Ok(())
    }

    /// Ends a message with trailers.
    pub fn send_trailers(
        &mut self,
        cx: &Context<'_>,
        id: u32,
        head: &Head,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let stream = self.streams.find(id).ok_or(SendError::Gone)?;
        if stream.local != Half::Body {
            return Err(SendError::Order);
        }
        self.judge_size(head)?;
        self.write_block(head, id, true, out);
        self.end_sending(cx, id, out);
        Ok(())
    }

    /// Sends of a body what there is room for; returns how much that was. `ends`: the message ends
    /// with the last of `data`, and has ended if all of it was taken.
    pub fn send_data(
        &mut self,
        cx: &Context<'_>,
        id: u32,
        data: &[u8],
        ends: bool,
        out: &mut Vec<u8>,
    ) -> Result<usize, SendError> {
        let has_turn = self.granted == id || self.waiting.is_empty();
        let room = cx
            .limits
            .unsent_bytes_max
            .saturating_sub(self.unsent.len() + out.len());
        let connection_window = self.send_window;
        let frame_max = (self.remote.frame_bytes_max as usize).min(PAYLOAD_BYTES_MAX);
        // Others wait: one frame, then it is their turn.
        let share = match self.waiting.is_empty() {
            true => usize::MAX,
            false => frame_max,
        };
        let stream = self.streams.find_mut(id).ok_or(SendError::Gone)?;
        if stream.local != Half::Body {
            return Err(SendError::Order);
        }
        if data.is_empty() {
            if ends {
                frame::write_data_header(id, 0, true, out);
                self.end_sending(cx, id, out);
            }
            return Ok(0);
        }
        if stream.send_window <= 0 {
            stream.blocked = Blocked::Window;
            return Ok(0);
        }
        if !has_turn || room == 0 || connection_window <= 0 {
            self.wait_for_turn(id);
            return Ok(0);
        }
        let window = i64::from(stream.send_window).min(connection_window) as usize;
        // A little above the room rather than many small frames.
        let count = data.len().min(window).min(share).min(room.max(frame_max));
        let mut rest = &data[..count];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(frame_max));
            rest = behind;
            let is_last = ends && rest.is_empty() && count == data.len();
            frame::write_data_header(id, piece.len(), is_last, out);
            out.extend_from_slice(piece);
            self.budgets.earn();
        }
        stream.send_window -= count as i32;
        stream.since_us = cx.now_us;
        self.send_window -= count as i64;
        if self.granted == id {
            self.granted = 0;
        }
        if count < data.len() {
            match stream.send_window > 0 {
                true => self.wait_for_turn(id),
                false => stream.blocked = Blocked::Window,
            }
        } else if ends {
            self.end_sending(cx, id, out);
        }
        Ok(count)
    }

    /// The next stream that could not send all it had and can send some now, each in its turn. Ask
    /// after each turn of steps, and when output was sent, until there is none. `out` is the output
    /// that was appended and not sent or kept yet: it counts like what is unsent.
    pub fn next_writable(&mut self, cx: &Context<'_>, out: &[u8]) -> Option<u32> {
        let waiting = self.unsent.len() + out.len();
        if self.send_window <= 0 || waiting >= cx.limits.unsent_bytes_max {
            return None;
        }
        while let Some(id) = self.waiting.pop_front() {
            let Some(stream) = self.streams.find_mut(id) else {
                continue;
            };
            if stream.send_window > 0 {
                stream.blocked = Blocked::No;
                self.granted = id;
                return Some(id);
            }
            stream.blocked = Blocked::Window;
        }
        None
    }

    /// Ends a stream at once, in both directions.
    pub fn reset(&mut self, cx: &Context<'_>, id: u32, code: ErrorCode, out: &mut Vec<u8>) {
        if !self.is_open(id) {
            return;
        }
        frame::write_reset(id, code, out);
        self.remove_stream(id, cx, out);
        remember(&mut self.reset_here, id, cx.limits.reset_streams_max);
    }

    /// Sends a ping; its answer is [`Event::Pong`](super::Event::Pong).
    pub fn ping(&mut self, payload: [u8; 8], out: &mut Vec<u8>) {
        frame::write_ping(payload, false, out);
    }

    /// Tells the peer to open no further stream here, and takes those that it opens before it has
    /// heard of it. Nothing but this and [`Connection::go_away`] tells a peer to go.
    pub fn announce_end(&mut self, out: &mut Vec<u8>) {
        frame::write_go_away(STREAM_MAX, ErrorCode::NO_ERROR, out);
    }

    /// Tells the peer which stream is the last that is taken.
    pub fn go_away(&mut self, code: ErrorCode, out: &mut Vec<u8>) {
        let last = self.last_taken.unwrap_or(self.last_remote);
        self.last_taken = Some(last);
        frame::write_go_away(last, code, out);
    }

    fn wait_for_turn(&mut self, id: u32) {
        let Some(stream) = self.streams.find_mut(id) else {
            return;
        };
        if stream.blocked != Blocked::Turn {
            stream.blocked = Blocked::Turn;
            self.waiting.push_back(id);
        }
    }

    fn end_sending(&mut self, cx: &Context<'_>, id: u32, out: &mut Vec<u8>) {
        if let Some(stream) = self.streams.find_mut(id) {
            stream.since_us = cx.now_us;
            stream.local = Half::Done;
            if std::mem::replace(&mut stream.blocked, Blocked::No) == Blocked::Turn {
                self.waiting.retain(|waiting| *waiting != id);
            }
        }
        self.finish_stream(id, cx, out);
    }

    /// What the peer has announced is a bound: a block that it does not take is not begun.
    fn judge_size(&self, head: &Head) -> Result<(), SendError> {
        match head.list_bytes() > self.remote.header_list_bytes_max as usize {
            true => Err(SendError::HeadTooLarge),
            false => Ok(()),
        }
    }

    pub(super) fn write_block(&mut self, head: &Head, id: u32, ends: bool, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        let encoder = &mut self.encoder;
        encoder.begin(out);
        head.pseudo(|name, value| encoder.field(name, value, false, out));
        for field in head.fields() {
            encoder.field(field.name, field.value, field.is_sensitive, out);
        }
        let payload_max = (self.remote.frame_bytes_max as usize).min(PAYLOAD_BYTES_MAX);
        frame::frame_block(id, start, ends, payload_max, out);
    }
}
