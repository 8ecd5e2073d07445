//! What a worker and a connection say to each other.

use std::ops::Range;

use thiserror::Error;

use super::fault::{ErrorCode, Fault, Refusal};
use super::head::Head;
use super::limits::Limits;

/// Which end of the connection is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Towards a client: requests come.
    Server,
    /// Towards a member: responses come.
    Client,
}

/// What a call is told of the world.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Microseconds of any clock that does not go back.
    pub now_us: u64,
    pub limits: &'a Limits,
}

/// Room that a thread lends to every call: nothing in it outlives the calls for one ready socket.
#[derive(Debug, Clone, Default)]
pub struct Work {
    /// The head of the last `Request`, `Response`, `Interim` or `Trailers` event.
    pub head: Head,
    /// Output for the peer. The caller takes it after its calls and clears it.
    pub out: Vec<u8>,
}

/// Why a stream is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The peer has reset it.
    Peer(ErrorCode),
    /// We have reset it, or answered its head ourselves, because of the peer.
    Refused(Refusal),
    /// The peer goes away and has not touched it: it may be sent again elsewhere.
    Untouched,
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Read more.
    NeedMore,
    /// A further request is not taken before output has been sent: stop reading, and step again then.
    /// So a client that asks and does not read costs no memory.
    Wait,
    /// A request's head is in [`Work::head`]. `ends`: it has no body.
    Request { stream: u32, ends: bool },
    /// A 1xx head is in [`Work::head`].
    Interim { stream: u32 },
    /// The final response's head is in [`Work::head`].
    Response { stream: u32, ends: bool },
    /// [`Step::data`] of the input is body. [`Connection::release`](super::Connection::release) it
    /// when it has gone on.
    Data { stream: u32, ends: bool },
    /// The message's end, with the fields in [`Work::head`].
    Trailers { stream: u32 },
    /// The stream is over before its end. It may be one that the caller was never told of: a
    /// request whose head was refused.
    Reset { stream: u32, cause: Cause },
    /// A window has opened: ask [`Connection::next_writable`](super::Connection::next_writable).
    Window,
    /// The peer has changed its settings: the same, and
    /// [`Connection::may_open`](super::Connection::may_open) may say otherwise now.
    Settings,
    /// The answer to a ping of ours.
    Pong([u8; 8]),
    /// The peer takes no new stream. Those above `last` are told as `Reset` next.
    GoAway { last: u32, code: ErrorCode },
    /// The connection is over; the peer is told in the output. Close once that is sent.
    Failed(Fault),
    /// The connection is over in order: the peer has closed, or it was idle. Close.
    Closed,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Step {
    pub event: Event,
    /// Bytes of the input that are done with. The others are given again, first, with the next
    /// step.
    pub consumed: usize,
    /// Body bytes in the input, for [`Event::Data`].
    pub data: Range<usize>,
}

/// Why something was not sent. Nothing was written and nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    #[error("the stream is over")]
    Gone,
    #[error("not at this point of the message")]
    Order,
    #[error("head is larger than the peer takes")]
    HeadTooLarge,
    #[error("no further stream on this connection for now")]
    NoStream,
    #[error("the peer does not understand extended CONNECT")]
    NoExtendedConnect,
}

/// A moment at which [`Connection::expire`](super::Connection::expire) has something to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    pub at_us: u64,
    pub reason: Overdue,
}

/// What is overdue at a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// The connection has no stream.
    Idle,
    /// Something that concerns all of it.
    Connection(Fault),
    Stream(u32, Refusal),
}
