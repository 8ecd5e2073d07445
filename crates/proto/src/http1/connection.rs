//! The machine of one client connection: the exchange that is under way, and what is stuck.
//!
//! ```text
//! request   Head ─ forward_request ─► Body ─ complete ─► Done ─┐
//!            │ └─ answer ─────────────► (body discarded) ──────┤ both done: Event::Done
//! response  Idle ─ request forwarded ─► Head ─ forward_response ─► Body ─ complete ─► Done
//!                                        ├─ 1xx: stays Head
//!                                        └─ 101, if asked for ─► Switched: Event::Switched
//! ```
//!
//! Failure: a fault of the client before the final response head has gone out ends in `Refused`
//! (answer, then close), a member's in `BadMember` (502, member closed); after it in `Abort`: both
//! sides are closed and the client sees that the message is incomplete. `Closed` takes and drops
//! what a client still sends.

use super::body::{Body, Left, Wire};
use super::encode::{self, ConnectionLine};
use super::head::{Head, Method};
use super::interface::{After, Context, Event, Side, Step, Work};
use super::refusal::Refusal;

/// Phases of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestPhase {
    Head,
    Body,
    Done,
    Closed,
}

/// Phases of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponsePhase {
    Idle,
    Head,
    Body,
    Done,
    /// What follows is no HTTP any more.
    Switched,
}

/// One client connection and its exchange with a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    pub(super) request: RequestPhase,
    pub(super) response: ResponsePhase,
    pub(super) request_body: Body,
    pub(super) response_body: Body,
    /// Bytes of a partial head that are known not to hold its end, per side.
    pub(super) scanned: [u16; 2],
    /// Empty lines before the request.
    pub(super) empty_lines: u8,
    /// 1xx responses so far.
    pub(super) interim: u8,
    /// Bytes of the next request have come.
    pub(super) has_begun: bool,
    /// Minor version of the client's request.
    pub(super) minor: u8,
    /// The request is HEAD: its response has no body.
    pub(super) is_head: bool,
    /// The request asks for a WebSocket: 101 would be right.
    pub(super) asks_websocket: bool,
    /// The client waits for 100 before it sends the body.
    pub(super) awaits_continue: bool,
    pub(super) client_closes: bool,
    pub(super) member_closes: bool,
    /// The side has ended its stream.
    pub(super) has_ended: [bool; 2],
    /// Request body bytes dropped.
    pub(super) discarded_bytes: u64,
    /// Last progress of each side.
    pub(super) since_us: [u64; 2],
    /// Input that could not be used yet, per side that sent it.
    pub(super) stuck: [Vec<u8>; 2],
    /// Output that could not be sent yet, per side that gets it.
    pub(super) unsent: [Vec<u8>; 2],
}

pub(super) const NO_BODY: Body = Body {
    left: Left::Empty,
    wire: Wire::Same,
    owes_line_end: false,
    extension_bytes: 0,
    bytes: 0,
};

impl Connection {
    /// A connection just accepted.
    pub fn new(now_us: u64) -> Connection {
        Connection {
            request: RequestPhase::Head,
            response: ResponsePhase::Idle,
            request_body: NO_BODY,
            response_body: NO_BODY,
            scanned: [0; 2],
            empty_lines: 0,
            interim: 0,
            has_begun: false,
            minor: 1,
            is_head: false,
            asks_websocket: false,
            awaits_continue: false,
            client_closes: false,
            member_closes: false,
            has_ended: [false; 2],
            discarded_bytes: 0,
            since_us: [now_us; 2],
            stuck: [Vec::new(), Vec::new()],
            unsent: [Vec::new(), Vec::new()],
        }
    }

    /// A connection that has sent a complete request of our own, as a monitor does: only its
    /// response is read.
    pub fn awaiting_response(now_us: u64, is_head: bool) -> Connection {
        Connection {
            request: RequestPhase::Done,
            response: ResponsePhase::Head,
            is_head,
            ..Connection::new(now_us)
        }
    }

    /// Whether nothing is under way: no byte of a request has come that is not answered, nothing is
    /// stuck.
    pub fn is_idle(&self) -> bool {
        self.request == RequestPhase::Head
            && !self.has_begun
            && self.stuck.iter().all(Vec::is_empty)
            && self.unsent.iter().all(Vec::is_empty)
    }

    /// Whether a request has been passed on whose response is not complete: a member belongs to the
    /// connection.
    pub fn is_in_exchange(&self) -> bool {
        self.response != ResponsePhase::Idle
    }

    /// Whether the client may send another request after the one that is under way, as far as is
    /// known by now.
    pub fn keeps_client(&self) -> bool {
        !self.client_closes
    }

    /// Whether the final response head has gone out: from then on a failure cannot be answered any
    /// more.
    pub fn has_responded(&self) -> bool {
        use ResponsePhase::{Body, Done, Switched};
        matches!(self.response, Body | Done | Switched)
    }

    /// Uses input of one side up to the next event. The output of a request's bytes is for the
    /// member, that of a response's for the client. Do not step a side while output for the other
    /// is unsent: that is the back-pressure.
    pub fn step(&mut self, from: Side, cx: &Context<'_>, input: &[u8], work: &mut Work) -> Step {
        let mut step = match from {
            Side::Client => self.step_client(cx, input, work),
            Side::Member => self.step_member(cx, input, work),
        };
        let is_all = self.has_ended[from.index()] && self.stuck(from).is_empty();
        if step.event == Event::NeedMore && is_all {
            step.event = self.at_end(from, cx, work);
        }
        step
    }

    /// Consumes the request head of the last `Request` event and writes it for the member. `input`
    /// is the rest of the input behind what that step consumed. Returns the bytes consumed.
    pub fn forward_request(&mut self, cx: &Context<'_>, input: &[u8], work: &mut Work) -> usize {
        let head = &work.head;
        encode::request(head, input, cx, &mut work.out);
        self.begin_exchange(cx, head, Wire::Same);
        self.asks_websocket = head.facts.is_websocket;
        self.response = ResponsePhase::Head;
        head.len
    }

    /// Consumes the request head of the last `Request` event and answers it without a member. The
    /// connection stays open if it can. Output is for the client. Returns the bytes consumed; step
    /// the client next.
    pub fn answer(
        &mut self,
        cx: &Context<'_>,
        _input: &[u8],
        work: &mut Work,
        status: u16,
    ) -> usize {
        self.begin_exchange(cx, &work.head, Wire::Discard);
        if self.request == RequestPhase::Body && self.awaits_continue {
            // The body may or may not come.
            self.client_closes = true;
        }
        let declared = work.head.facts.length.unwrap_or(0);
        self.client_closes |= cx.draining || declared > cx.limits.discard_bytes_max;
        let connection = self.connection_line();
        encode::answer(status, !self.is_head, cx.date, connection, &mut work.out);
        self.response = ResponsePhase::Done;
        self.member_closes = true;
        if self.client_closes {
            self.request = RequestPhase::Done;
        }
        work.head.len
    }

    /// Answers a fault and ends the connection. Output is for the client, which is then to be
    /// closed: first the sending half, and both when the client has closed or after a moment, so
    /// that no reset overtakes the answer. `Close` or `Abort` instead of `Done`: there is nobody to
    /// answer, or it is too late.
    pub fn refuse(&mut self, cx: &Context<'_>, work: &mut Work, status: u16) -> Event {
        if self.request == RequestPhase::Closed || (!self.has_begun && !self.is_in_exchange()) {
            return Event::Close;
        }
        if self.has_responded() {
            return Event::Abort(Refusal::MemberClosed);
        }
        encode::answer(
            status,
            !self.is_head,
            cx.date,
            ConnectionLine::Close,
            &mut work.out,
        );
        self.request = RequestPhase::Closed;
        self.response = ResponsePhase::Idle;
        self.client_closes = true;
        Event::Done {
            client: After::Close,
            member: After::Close,
        }
    }

    /// Consumes the response head of the last `Response` event and writes it for the client.
    /// `input` is the rest of the input behind what that step consumed. Returns the bytes consumed;
    /// step the member next.
    pub fn forward_response(&mut self, cx: &Context<'_>, input: &[u8], work: &mut Work) -> usize {
        let head = &work.head;
        self.since_us[1] = cx.now_us;
        if head.status == 101 {
            let nothing = ConnectionLine::Nothing;
            encode::response(head, input, cx, false, nothing, &mut work.out);
            self.response = ResponsePhase::Switched;
            return head.len;
        }
        if head.is_interim() {
            self.interim += 1;
            self.awaits_continue &= head.status != 100;
            if self.minor > 0 {
                let nothing = ConnectionLine::Nothing;
                encode::response(head, input, cx, false, nothing, &mut work.out);
            }
            return head.len;
        }
        self.asks_websocket = false;
        let facts = &head.facts;
        let left = match facts.length {
            _ if self.is_head || matches!(head.status, 204 | 304) => Left::Empty,
            _ if facts.is_chunked => Left::Line,
            Some(length) => Left::Length(length),
            None => Left::UntilClose,
        };
        let wire = match left {
            Left::Line if self.minor == 0 => Wire::Plain,
            Left::UntilClose if self.minor > 0 => Wire::Chunks,
            _ => Wire::Same,
        };
        let is_chunked = wire == Wire::Chunks || (left == Left::Line && wire == Wire::Same);
        let ends_by_close = matches!(left, Left::Line | Left::UntilClose) && !is_chunked;
        // A client that waits for 100 and gets this instead may send its body or not.
        let is_unclear = self.request == RequestPhase::Body && self.awaits_continue;
        let asks_no_more = self.has_ended[0] && self.stuck[0].is_empty();
        self.client_closes |= ends_by_close || is_unclear || asks_no_more || cx.draining;
        self.member_closes |= facts.closes || left == Left::UntilClose || is_unclear;
        self.response_body = Body::new(left, wire);
        self.response = match self.response_body.is_done() {
            true => ResponsePhase::Done,
            false => ResponsePhase::Body,
        };
        encode::response(
            head,
            input,
            cx,
            is_chunked,
            self.connection_line(),
            &mut work.out,
        );
        head.len
    }

    /// Consumes the response head of the last `Response` event and writes nothing: the caller
    /// passes it on in another form. The body then comes without its framing, and
    /// [`Head::section`] is where its trailers stand in the input of the step that has used them.
    /// Returns the bytes consumed; step the member next. What follows an interim response is
    /// another `Response`.
    pub fn take_response(&mut self, cx: &Context<'_>, work: &Work) -> usize {
        let head = &work.head;
        self.since_us[1] = cx.now_us;
        if head.is_interim() {
            self.interim += 1;
            return head.len;
        }
        let facts = &head.facts;
        let (left, wire) = match facts.length {
            _ if self.is_head || matches!(head.status, 204 | 304) => (Left::Empty, Wire::Same),
            _ if facts.is_chunked => (Left::Line, Wire::Plain),
            Some(length) => (Left::Length(length), Wire::Same),
            None => (Left::UntilClose, Wire::Same),
        };
        self.member_closes |= facts.closes || left == Left::UntilClose;
        self.response_body = Body::new(left, wire);
        self.response = match self.response_body.is_done() {
            true => ResponsePhase::Done,
            false => ResponsePhase::Body,
        };
        head.len
    }

    /// Whether 101 was passed on: what is stuck and what follows from either side goes to the other
    /// as it is.
    pub fn has_switched(&self) -> bool {
        self.response == ResponsePhase::Switched
    }

    /// What is stuck after the switch becomes output, where none waits before it. False: that of a
    /// side waits, or has to go first.
    pub fn pass_switched(&mut self) -> bool {
        let is_free = self.has_switched() && self.unsent.iter().all(Vec::is_empty);
        if is_free {
            let [from_client, from_member] = &mut self.stuck;
            self.unsent = [std::mem::take(from_member), std::mem::take(from_client)];
        }
        is_free
    }

    /// Whether a response's head was taken whose body is still to come.
    pub fn is_in_response_body(&self) -> bool {
        self.response == ResponsePhase::Body
    }

    fn connection_line(&self) -> ConnectionLine {
        match (self.client_closes, self.minor) {
            (true, _) => ConnectionLine::Close,
            (false, 0) => ConnectionLine::KeepAlive,
            (false, _) => ConnectionLine::Nothing,
        }
    }

    fn begin_exchange(&mut self, cx: &Context<'_>, head: &Head, wire: Wire) {
        let facts = &head.facts;
        let left = match facts.length {
            _ if facts.is_chunked => Left::Line,
            Some(length) => Left::Length(length),
            None => Left::Empty,
        };
        self.request_body = Body::new(left, wire);
        self.request = match self.request_body.is_done() {
            true => RequestPhase::Done,
            false => RequestPhase::Body,
        };
        self.minor = head.minor;
        self.is_head = head.method == Method::Head;
        self.asks_websocket = false;
        self.awaits_continue = facts.expects_continue;
        self.client_closes |= facts.closes;
        self.member_closes = false;
        self.has_ended[1] = false;
        self.interim = 0;
        self.discarded_bytes = 0;
        self.has_begun = true;
        self.since_us = [cx.now_us; 2];
    }
}
