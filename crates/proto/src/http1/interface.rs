//! What a worker and a connection say to each other.

use std::net::IpAddr;
use std::ops::Range;

use super::head::Head;
use super::limits::Limits;
use super::refusal::Refusal;

/// The two sides of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Member,
}

impl Side {
    /// The side that output goes to which was made from this side's input.
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Member,
            Side::Member => Side::Client,
        }
    }

    pub(super) fn index(self) -> usize {
        match self {
            Side::Client => 0,
            Side::Member => 1,
        }
    }
}

/// What to do with X-Forwarded-For.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardedFor {
    /// Add the client's address to what came.
    #[default]
    Append,
    /// Drop what came: clients are not trusted.
    Replace,
    /// Leave the fields alone.
    Keep,
}

/// How requests are changed on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    pub forwarded_for: ForwardedFor,
    /// Our name in Via. None: no Via is added, against RFC 9110 section 7.6.3.
    pub via: Option<String>,
}

impl Default for Rewrite {
    fn default() -> Rewrite {
        Rewrite {
            forwarded_for: ForwardedFor::Append,
            via: Some("hitless".to_owned()),
        }
    }
}

/// What a call is told of the world.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Microseconds of any clock that does not go back.
    pub now_us: u64,
    pub limits: &'a Limits,
    pub rewrite: &'a Rewrite,
    /// Address of the client.
    pub client: IpAddr,
    /// The worker is being drained: tell the client to close with the next response.
    pub draining: bool,
    /// Text for a Date field where a response lacks one, see [`http_date`](super::http_date). None:
    /// no clock.
    pub date: Option<&'a [u8; 29]>,
}

/// Room that a thread lends to every call: nothing in it outlives the calls for one ready socket.
#[derive(Debug, Clone, Default)]
pub struct Work {
    /// The head of the last `Request` or `Response` event.
    pub head: Head,
    /// Output. The caller takes it after each step and clears it.
    pub out: Vec<u8>,
}

/// What happens to a side after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    Keep,
    Close,
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Read more from this side.
    NeedMore,
    /// Nothing to do here until the other side gets further: a pipelined request waits for its
    /// turn.
    Wait,
    /// A request head is in [`Work::head`], not consumed: call [`Connection::forward_request`] or
    /// [`Connection::answer`] at once. If neither is called, the next step tells it again.
    Request,
    /// A response head is in [`Work::head`], not consumed: call [`Connection::forward_response`] at
    /// once.
    Response,
    /// Body bytes went through. Step again with the rest of the input.
    Body,
    /// The member agreed to a WebSocket and the client has been told: the connection is no HTTP any
    /// more. What is stuck and what follows goes from side to side as it is; this codec is done.
    Switched,
    /// Request and response are complete. The member's connection may serve others if it is `Keep`;
    /// the client's must be closed (after its output is sent) if it is `Close`.
    Done { client: After, member: After },
    /// The client is at fault: call [`Connection::refuse`] with the status, and close the member,
    /// if there is one.
    Refused(Refusal),
    /// The member is at fault and the client knows nothing yet: close the member, call
    /// [`Connection::refuse`] with [`Refusal::member_status`].
    BadMember(Refusal),
    /// Close both sides at once, the client in a way that it notices (reset): its response is
    /// incomplete.
    Abort(Refusal),
    /// Close the client: it is idle, or has gone.
    Close,
}

/// What a step did. Output for the other side is what was appended to [`Work::out`], followed by
/// the range `tail` of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Step {
    pub event: Event,
    /// Bytes of the input that are done with. The others are given again, first, with the next step
    /// of this side.
    pub consumed: usize,
    /// Long body pieces are not copied.
    pub tail: Range<usize>,
}

impl Step {
    pub(super) fn new(event: Event, consumed: usize) -> Step {
        Step {
            event,
            consumed,
            tail: consumed..consumed,
        }
    }
}

/// A moment at which [`Connection::expire`] has something to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    pub at_us: u64,
    pub reason: Refusal,
}
