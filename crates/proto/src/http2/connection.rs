//! One HTTP/2 connection, either end of it.
//!
//! ```text
//! server  Preface ─ 24 bytes ─► Settings ─ first frame ─► Open
//! client                        Settings ─ first frame ─► Open
//! any ─ fault ─► Failed: GOAWAY is in the output, input is dropped, the caller closes
//! ```
//!
//! Inside Open, input is a sequence of frames. State between them: streams, windows, two tables, a
//! field block that is to be continued, the rest of a DATA frame. A frame that is not whole is
//! bytes at the caller's, not state, except DATA and what is skipped.

use std::collections::VecDeque;

use super::budget::{Budgets, Flow};
use super::fault::{Fault, Refusal};
use super::frame;
use super::hpack::{Decoder, Encoder, Table};
use super::interface::{Cause, Context, Event, Role};
use super::settings::{Settings, WINDOW_BYTES_INITIAL};
use super::stream::{Blocked, Half, Stream, Streams};

/// Streams whose end was in order that are remembered, to tell late frames from wrong numbers.
pub(super) const ENDED_MAX: usize = 16;

/// How far the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Preface,
    Settings,
    Open,
    Failed,
}

/// Where in a frame the input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    /// At a header.
    Between,
    /// In the data of a DATA frame, with `left` bytes of data and `padding` bytes to come.
    Data {
        stream: u32,
        left: u32,
        padding: u8,
        ends: bool,
    },
    /// In bytes that nobody wants.
    Skip { left: u32 },
}

/// A field block that is to be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) ends: bool,
    pub(super) depends_on_itself: bool,
    pub(super) frames: u16,
    pub(super) since_us: u64,
    pub(super) bytes: Vec<u8>,
}

/// One connection and its streams.
#[derive(Debug, Clone)]
pub struct Connection {
    pub(super) role: Role,
    pub(super) phase: Phase,
    pub(super) payload: Payload,
    pub(super) block: Option<Block>,
    /// What we announced at the start.
    pub(super) local: Settings,
    /// The peer has acknowledged it.
    pub(super) is_acknowledged: bool,
    pub(super) remote: Settings,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) streams: Streams,
    /// Highest stream that the peer has opened.
    pub(super) last_remote: u32,
    /// The next stream that we open.
    pub(super) next_local: u32,
    pub(super) send_window: i64,
    pub(super) recv_window: i64,
    /// Bytes released that the peer has not been told of.
    pub(super) freed: u32,
    /// Streams that wait for their turn to send.
    pub(super) waiting: VecDeque<u32>,
    /// The stream whose turn it is, 0 for none.
    pub(super) granted: u32,
    /// Streams that we have reset: what is still under way on them is ignored.
    pub(super) reset_here: VecDeque<u32>,
    /// The last streams that ended otherwise.
    pub(super) ended: VecDeque<u32>,
    pub(super) budgets: Budgets,
    /// Streams above this are not taken any more.
    pub(super) last_taken: Option<u32>,
    /// Streams above this are not taken by the peer.
    pub(super) last_taken_by_peer: Option<u32>,
    /// Streams above it are still to be told as lost.
    pub(super) has_lost: bool,
    /// The peer has ended its stream of bytes.
    pub(super) has_ended: bool,
    /// Since when there is no stream.
    pub(super) since_us: u64,
    /// Bytes of the unsent output that answer the peer's frames, at most.
    pub(super) replies: u32,
    /// Last time that the peer took output.
    pub(super) sent_us: u64,
    pub(super) stuck: Vec<u8>,
    pub(super) unsent: Vec<u8>,
}

impl Connection {
    pub fn role(&self) -> Role {
        self.role
    }

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether a stream is open, in either direction.
    pub fn is_open(&self, stream: u32) -> bool {
        self.streams.find(stream).is_some()
    }

    /// Whether nothing is under way: no stream, no byte that is stuck or unsent, no part of a
    /// frame.
    pub fn is_idle(&self) -> bool {
        self.streams.is_empty()
            && self.block.is_none()
            && self.payload == Payload::Between
            && self.phase == Phase::Open
            && self.stuck.is_empty()
            && self.unsent.is_empty()
    }

    /// Whether the connection is of no more use: its output is to be sent and it is to be closed.
    pub fn has_failed(&self) -> bool {
        self.phase == Phase::Failed
    }

    /// What the peer has announced.
    pub fn peer_settings(&self) -> &Settings {
        &self.remote
    }

    /// Whether the peer has announced anything: before that, its limits are not known.
    pub fn has_peer_settings(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Failed)
    }

    /// The tables of both directions: what the peer's encoder and ours know.
    pub fn tables(&self) -> (&Table, &Table) {
        (self.decoder.table(), self.encoder.table())
    }

    /// Bytes of a stream's body that the caller has not released.
    pub fn held(&self, stream: u32) -> u32 {
        self.streams.find(stream).map_or(0, |stream| stream.held)
    }

    /// Ends the connection: says why, drops all streams.
    pub(super) fn fail(&mut self, fault: Fault, out: &mut Vec<u8>) -> Event {
        if self.phase != Phase::Failed {
            self.phase = Phase::Failed;
            let last = self.last_taken.unwrap_or(self.last_remote);
            frame::write_go_away(last, fault.code(), out);
        }
        self.streams = Streams::default();
        self.block = None;
        self.payload = Payload::Between;
        self.waiting.clear();
        self.granted = 0;
        self.has_lost = false;
        Event::Failed(fault)
    }

    /// Books a frame that costs us more than its sender.
    pub(super) fn spend(&mut self, flow: Flow, cx: &Context<'_>) -> Result<(), Fault> {
        match self.budgets.spend(flow, &cx.limits.rates, cx.now_us) {
            true => Ok(()),
            false => Err(Fault::Flood(flow)),
        }
    }

    /// Adds a stream of either side.
    pub(super) fn add_stream(&mut self, id: u32, cx: &Context<'_>) -> &mut Stream {
        let recv_window = match self.is_acknowledged {
            true => self.local.window_bytes,
            false => WINDOW_BYTES_INITIAL,
        };
        let stream = Stream::new(
            id,
            self.remote.window_bytes as i32,
            recv_window as i32,
            cx.now_us,
        );
        self.streams.add(stream);
        self.streams
            .find_mut(id)
            .expect("its number is above all others")
    }

    /// Removes a stream and gives its bytes back to the connection's window.
    pub(super) fn remove_stream(&mut self, id: u32, cx: &Context<'_>, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.remove(id) else {
            return;
        };
        let mut freed = stream.held;
        if let Payload::Data {
            stream,
            left,
            padding,
            ..
        } = self.payload
            && stream == id
        {
            freed += left;
            self.skip(left + u32::from(padding));
        }
        if self.granted == id {
            self.granted = 0;
        }
        if stream.blocked == Blocked::Turn {
            self.waiting.retain(|waiting| *waiting != id);
        }
        if self.streams.is_empty() {
            self.since_us = cx.now_us;
        }
        self.free(freed, cx.limits, out);
    }

    /// The next `left` bytes of input are nobody's.
    pub(super) fn skip(&mut self, left: u32) {
        self.payload = match left {
            0 => Payload::Between,
            left => Payload::Skip { left },
        };
    }

    /// Removes a stream whose halves are both done. A server that has answered does not wait for
    /// the rest of a request.
    pub(super) fn finish_stream(&mut self, id: u32, cx: &Context<'_>, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.find(id) else {
            return;
        };
        let asks_no_more =
            self.role == Role::Server && stream.local == Half::Done && !stream.is_tunnel;
        if stream.is_done() {
            self.remove_stream(id, cx, out);
            remember(&mut self.ended, id, ENDED_MAX);
        } else if asks_no_more {
            self.reset(cx, id, super::ErrorCode::NO_ERROR, out);
        }
    }

    /// Resets a stream because of what the peer did on it, or did not.
    pub(super) fn refuse_stream(
        &mut self,
        id: u32,
        refusal: Refusal,
        cx: &Context<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, Fault> {
        self.spend(Flow::Refused, cx)?;
        let is_known = self.streams.find(id).is_some();
        frame::write_reset(id, refusal.code(), out);
        self.remove_stream(id, cx, out);
        let is_first = !self.reset_here.contains(&id);
        if is_first {
            remember(&mut self.reset_here, id, cx.limits.reset_streams_max);
        }
        let cause = Cause::Refused(refusal);
        Ok((is_known || is_first).then_some(Event::Reset { stream: id, cause }))
    }
}

/// Keeps the last `count` numbers.
pub(super) fn remember(list: &mut VecDeque<u32>, id: u32, count: usize) {
    while list.len() >= count.max(1) {
        list.pop_front();
    }
    list.push_back(id);
}
