//! The machine of one client connection: the exchange that is under way, and what is stuck.
//!
//! ```text
//! request   Head ─ forward_request ─► Body ─ complete ─► Done ─┐
//!            │ └─ answer ─────────────► (body discarded) ──────┤ both done: Event::Done
//! response  Idle ─ request forwarded ─► Head ─ forward_response ─► Body ─ complete ─► Done
//!                                        └─ 1xx: stays Head
//! ```
//!
//! Failure: a fault of the client before the final response head has gone out ends in `Refused` (answer, then
//! close), a member's in `BadMember` (502, member closed); after it in `Abort`: both sides are closed and the
//! client sees that the message is incomplete. `Closed` takes and drops what a client still sends.

use std::net::IpAddr;
use std::ops::Range;

use super::body::{Body, Left, Wire};
use super::encode::{self, ConnectionLine};
use super::facts;
use super::head::{Found, Head, Method};
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

    fn index(self) -> usize {
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
    /// Text for a Date field where a response lacks one, see [`http_date`](super::http_date). None: no clock.
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
    /// Nothing to do here until the other side gets further: a pipelined request waits for its turn.
    Wait,
    /// A request head is in [`Work::head`], not consumed: call [`Connection::forward_request`] or
    /// [`Connection::answer`] at once. If neither is called, the next step tells it again.
    Request,
    /// A response head is in [`Work::head`], not consumed: call [`Connection::forward_response`] at once.
    Response,
    /// Body bytes went through. Step again with the rest of the input.
    Body,
    /// Request and response are complete. The member's connection may serve others if it is `Keep`; the
    /// client's must be closed (after its output is sent) if it is `Close`.
    Done { client: After, member: After },
    /// The client is at fault: call [`Connection::refuse`] with the status, and close the member, if there is one.
    Refused(Refusal),
    /// The member is at fault and the client knows nothing yet: close the member, call [`Connection::refuse`]
    /// with [`Refusal::member_status`].
    BadMember(Refusal),
    /// Close both sides at once, the client in a way that it notices (reset): its response is incomplete.
    Abort(Refusal),
    /// Close the client: it is idle, or has gone.
    Close,
}

/// What a step did. Output for the other side is what was appended to [`Work::out`], followed by the range `tail`
/// of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Step {
    pub event: Event,
    /// Bytes of the input that are done with. The others are given again, first, with the next step of this side.
    pub consumed: usize,
    /// Long body pieces are not copied.
    pub tail: Range<usize>,
}

impl Step {
    fn new(event: Event, consumed: usize) -> Step {
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
    /// The client waits for 100 before it sends the body.
    pub(super) awaits_continue: bool,
    pub(super) client_closes: bool,
    pub(super) member_closes: bool,
    /// Request body bytes dropped.
    pub(super) discarded_bytes: u64,
    /// Last progress of each side.
    pub(super) since_us: [u64; 2],
    /// Input that could not be used yet, per side that sent it.
    pub(super) stuck: [Vec<u8>; 2],
    /// Output that could not be sent yet, per side that gets it.
    pub(super) unsent: [Vec<u8>; 2],
}

const NO_BODY: Body = Body {
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
            awaits_continue: false,
            client_closes: false,
            member_closes: false,
            discarded_bytes: 0,
            since_us: [now_us; 2],
            stuck: [Vec::new(), Vec::new()],
            unsent: [Vec::new(), Vec::new()],
        }
    }

    /// A connection that has sent a complete request of our own, as a monitor does: only its response is read.
    pub fn awaiting_response(now_us: u64, is_head: bool) -> Connection {
        Connection {
            request: RequestPhase::Done,
            response: ResponsePhase::Head,
            is_head,
            ..Connection::new(now_us)
        }
    }

    /// Whether nothing is under way: no byte of a request has come that is not answered, nothing is stuck.
    pub fn is_idle(&self) -> bool {
        self.request == RequestPhase::Head
            && !self.has_begun
            && self.stuck.iter().all(Vec::is_empty)
            && self.unsent.iter().all(Vec::is_empty)
    }

    /// Whether a request has been passed on whose response is not complete: a member belongs to the connection.
    pub fn is_in_exchange(&self) -> bool {
        self.response != ResponsePhase::Idle
    }

    /// Whether the final response head has gone out: from then on a failure cannot be answered any more.
    pub fn has_responded(&self) -> bool {
        matches!(self.response, ResponsePhase::Body | ResponsePhase::Done)
    }

    /// Uses input of one side up to the next event. The output of a request's bytes is for the member, that of
    /// a response's for the client. Do not step a side while output for the other is unsent: that is the
    /// back-pressure.
    pub fn step(&mut self, from: Side, cx: &Context<'_>, input: &[u8], work: &mut Work) -> Step {
        match from {
            Side::Client => self.step_client(cx, input, work),
            Side::Member => self.step_member(cx, input, work),
        }
    }

    /// Consumes the request head of the last `Request` event and writes it for the member. `input` is the rest
    /// of the input behind what that step consumed. Returns the bytes consumed.
    pub fn forward_request(&mut self, cx: &Context<'_>, input: &[u8], work: &mut Work) -> usize {
        let head = &work.head;
        encode::request(head, input, cx, &mut work.out);
        self.begin_exchange(cx, head, Wire::Same);
        self.response = ResponsePhase::Head;
        head.len
    }

    /// Consumes the request head of the last `Request` event and answers it without a member. The connection
    /// stays open if it can. Output is for the client. Returns the bytes consumed; step the client next.
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
        self.client_closes |= cx.draining;
        let connection = self.connection_line();
        encode::answer(status, !self.is_head, cx.date, connection, &mut work.out);
        self.response = ResponsePhase::Done;
        self.member_closes = true;
        work.head.len
    }

    /// Answers a fault and ends the connection. Output is for the client, which is then to be closed: first the
    /// sending half, and both when the client has closed or after a moment, so that no reset overtakes the answer.
    pub fn refuse(&mut self, cx: &Context<'_>, work: &mut Work, status: u16) -> Event {
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
        self.response = ResponsePhase::Done;
        Event::Done {
            client: After::Close,
            member: After::Close,
        }
    }

    /// Consumes the response head of the last `Response` event and writes it for the client. `input` is the rest
    /// of the input behind what that step consumed. Returns the bytes consumed; step the member next.
    pub fn forward_response(&mut self, cx: &Context<'_>, input: &[u8], work: &mut Work) -> usize {
        let head = &work.head;
        self.since_us[1] = cx.now_us;
        if head.is_interim() {
            self.interim += 1;
            self.awaits_continue &= head.status != 100;
            if self.minor > 0 {
                let nothing = ConnectionLine::Nothing;
                encode::response(head, input, cx, false, nothing, &mut work.out);
            }
            return head.len;
        }
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
        self.client_closes |= ends_by_close || is_unclear || cx.draining;
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
        self.awaits_continue = facts.expects_continue;
        self.client_closes |= facts.closes;
        self.member_closes = false;
        self.interim = 0;
        self.discarded_bytes = 0;
        self.has_begun = true;
        self.since_us = [cx.now_us; 2];
    }

    fn step_client(&mut self, cx: &Context<'_>, input: &[u8], work: &mut Work) -> Step {
        match self.request {
            RequestPhase::Head => self.find_request(cx, input, work),
            RequestPhase::Body => self.pass_request_body(cx, input, work),
            RequestPhase::Done => match self.finish() {
                Some(event) => Step::new(event, 0),
                None => Step::new(Event::Wait, 0),
            },
            RequestPhase::Closed => Step::new(Event::NeedMore, input.len()),
        }
    }

    fn find_request(&mut self, cx: &Context<'_>, input: &[u8], work: &mut Work) -> Step {
        let mut consumed = 0;
        while let [b'\r', b'\n', ..] = input[consumed..] {
            if self.empty_lines >= cx.limits.empty_lines_max {
                return Step::new(Event::Refused(Refusal::FirstLine), consumed);
            }
            self.empty_lines += 1;
            consumed += 2;
        }
        let rest = &input[consumed..];
        if !rest.is_empty() && !self.has_begun {
            self.has_begun = true;
            self.since_us[0] = cx.now_us;
        }
        match rest {
            [] | [b'\r'] => return Step::new(Event::NeedMore, consumed),
            // Neither TLS nor a bare line end has to wait for the end of a head.
            [first, ..] if !first.is_ascii_graphic() => {
                return Step::new(Event::Refused(Refusal::FirstLine), consumed);
            }
            _ => {}
        }
        let found = work
            .head
            .find_request(rest, &mut self.scanned[0], cx.limits)
            .and_then(|found| {
                if found == Found::Complete {
                    facts::judge_request(&mut work.head, rest, cx.limits)?;
                }
                Ok(found)
            });
        let event = match found {
            Ok(Found::Complete) => Event::Request,
            Ok(Found::Partial) => Event::NeedMore,
            Err(refusal) => Event::Refused(refusal),
        };
        Step::new(event, consumed)
    }

    fn pass_request_body(&mut self, cx: &Context<'_>, input: &[u8], work: &mut Work) -> Step {
        let Work { head, out } = work;
        let limits = cx.limits;
        let passed =
            self.request_body
                .pass(input, limits.request_body_bytes_max, limits, head, out);
        let passed = match passed {
            Ok(passed) => passed,
            Err(refusal) => return Step::new(self.client_fault(refusal), 0),
        };
        let Some(mut step) = self.progress(Side::Client, cx, passed) else {
            return Step::new(Event::NeedMore, 0);
        };
        if self.request_body.wire == Wire::Discard {
            self.discarded_bytes += step.consumed as u64;
        }
        if self.request_body.is_done() {
            self.request = RequestPhase::Done;
        }
        if let Some(event) = self.finish_within(cx.limits) {
            step.event = event;
        }
        step
    }

    fn step_member(&mut self, cx: &Context<'_>, input: &[u8], work: &mut Work) -> Step {
        match self.response {
            ResponsePhase::Idle | ResponsePhase::Done if input.is_empty() => match self.finish() {
                Some(event) => Step::new(event, 0),
                None => Step::new(Event::NeedMore, 0),
            },
            ResponsePhase::Idle => Step::new(Event::BadMember(Refusal::Unsolicited), 0),
            ResponsePhase::Done => {
                self.member_closes = true;
                let event = self.finish_within(cx.limits).unwrap_or(Event::NeedMore);
                Step::new(event, input.len())
            }
            ResponsePhase::Head => self.find_response(cx, input, work),
            ResponsePhase::Body => self.pass_response_body(cx, input, work),
        }
    }

    fn find_response(&mut self, cx: &Context<'_>, input: &[u8], work: &mut Work) -> Step {
        let Some(first) = input.first() else {
            return Step::new(Event::NeedMore, 0);
        };
        if *first != b'H' {
            return Step::new(Event::BadMember(Refusal::FirstLine), 0);
        }
        let found = work
            .head
            .find_response(input, &mut self.scanned[1], cx.limits)
            .and_then(|found| {
                if found == Found::Complete {
                    facts::judge_response(&mut work.head, input, cx.limits)?;
                    if work.head.is_interim() && self.interim >= cx.limits.interim_max {
                        return Err(Refusal::TooManyInterim);
                    }
                }
                Ok(found)
            });
        let event = match found {
            Ok(Found::Complete) => Event::Response,
            Ok(Found::Partial) => Event::NeedMore,
            Err(refusal) => Event::BadMember(refusal),
        };
        Step::new(event, 0)
    }

    fn pass_response_body(&mut self, cx: &Context<'_>, input: &[u8], work: &mut Work) -> Step {
        let Work { head, out } = work;
        let limits = cx.limits;
        let passed =
            self.response_body
                .pass(input, limits.response_body_bytes_max, limits, head, out);
        let passed = match passed {
            Ok(passed) => passed,
            Err(refusal) => return Step::new(Event::Abort(refusal), 0),
        };
        let Some(mut step) = self.progress(Side::Member, cx, passed) else {
            return Step::new(Event::NeedMore, 0);
        };
        if self.response_body.is_done() {
            self.response = ResponsePhase::Done;
            // More than its response: what it means is anybody's guess, so the member is not used again.
            self.member_closes |= step.consumed < input.len();
        }
        if let Some(event) = self.finish_within(cx.limits) {
            step.event = event;
        }
        step
    }

    /// The step of a pass over a body. None: nothing was consumed.
    fn progress(
        &mut self,
        from: Side,
        cx: &Context<'_>,
        passed: super::body::Passed,
    ) -> Option<Step> {
        if passed.consumed == 0 {
            return None;
        }
        self.since_us[from.index()] = cx.now_us;
        Some(Step {
            event: Event::Body,
            consumed: passed.consumed,
            tail: passed.tail,
        })
    }

    /// What a fault inside the request's body means.
    fn client_fault(&self, refusal: Refusal) -> Event {
        match self.has_responded() {
            true => Event::Abort(refusal),
            false => Event::Refused(refusal),
        }
    }

    /// [`Connection::finish`], or the end of a connection whose answer is complete while its request is not.
    fn finish_within(&mut self, limits: &Limits) -> Option<Event> {
        if self.response == ResponsePhase::Done && self.request == RequestPhase::Body {
            if self.client_closes {
                self.request = RequestPhase::Done;
                self.member_closes = true;
            } else if self.member_closes {
                // Nobody reads the rest of the request any more.
                self.request_body.wire = Wire::Discard;
                let declared = match self.request_body.left {
                    Left::Length(left) => left,
                    _ => 0,
                };
                if self.discarded_bytes.saturating_add(declared) > limits.discard_bytes_max {
                    self.client_closes = true;
                    self.request = RequestPhase::Done;
                }
            }
        }
        self.finish()
    }

    /// Ends the exchange if both sides of it are done.
    fn finish(&mut self) -> Option<Event> {
        if self.request != RequestPhase::Done || self.response != ResponsePhase::Done {
            return None;
        }
        let after = |closes| if closes { After::Close } else { After::Keep };
        let event = Event::Done {
            client: after(self.client_closes),
            member: after(self.member_closes),
        };
        self.request = match self.client_closes {
            true => RequestPhase::Closed,
            false => RequestPhase::Head,
        };
        self.response = ResponsePhase::Idle;
        self.request_body = NO_BODY;
        self.response_body = NO_BODY;
        self.scanned = [0; 2];
        self.empty_lines = 0;
        self.has_begun = false;
        self.since_us[0] = self.since_us[0].max(self.since_us[1]);
        Some(event)
    }

    /// A side ended its stream in order. Output, if any, is for the client.
    pub fn end_of_stream(&mut self, from: Side, cx: &Context<'_>, work: &mut Work) -> Event {
        match from {
            Side::Client => match self.request {
                RequestPhase::Head | RequestPhase::Closed => Event::Close,
                RequestPhase::Body => Event::Abort(Refusal::ClientClosed),
                RequestPhase::Done => {
                    // A client may close its sending half and still read the response.
                    self.client_closes = true;
                    Event::Wait
                }
            },
            Side::Member => {
                self.member_closes = true;
                match self.response {
                    ResponsePhase::Idle => Event::Wait,
                    ResponsePhase::Done => self.finish_within(cx.limits).unwrap_or(Event::Wait),
                    ResponsePhase::Head => Event::BadMember(Refusal::MemberClosed),
                    ResponsePhase::Body if self.response_body.end_of_stream(&mut work.out) => {
                        self.response = ResponsePhase::Done;
                        self.finish_within(cx.limits).unwrap_or(Event::Body)
                    }
                    ResponsePhase::Body => Event::Abort(Refusal::MemberClosed),
                }
            }
        }
    }

    /// A side's connection failed (reset, refused, timed out).
    pub fn lost(&mut self, side: Side) -> Event {
        match (side, self.response) {
            (Side::Client, _) => Event::Abort(Refusal::ClientClosed),
            (Side::Member, ResponsePhase::Idle) => Event::Wait,
            (Side::Member, ResponsePhase::Head) => Event::BadMember(Refusal::MemberClosed),
            (Side::Member, ResponsePhase::Body) => Event::Abort(Refusal::MemberClosed),
            (Side::Member, ResponsePhase::Done) => {
                self.member_closes = true;
                self.request_body.wire = Wire::Discard;
                Event::Wait
            }
        }
    }

    /// The next moment at which something is overdue. None: waiting is somebody else's matter, such as output
    /// that a slow reader does not take.
    pub fn deadline(&self, limits: &Limits) -> Option<Deadline> {
        let [client, member] = self.since_us;
        let (since, after, reason) = match (self.request, self.response) {
            (RequestPhase::Closed, _) => (client, limits.body_time_us, Refusal::IdleTimeout),
            (RequestPhase::Head, _) if self.has_begun => {
                (client, limits.head_time_us, Refusal::HeadTimeout)
            }
            (RequestPhase::Head, _) => (client, limits.idle_time_us, Refusal::IdleTimeout),
            (RequestPhase::Body, ResponsePhase::Body) => (
                client.max(member),
                limits.body_time_us,
                Refusal::BodyTimeout,
            ),
            (RequestPhase::Body, _) => (client, limits.body_time_us, Refusal::BodyTimeout),
            (RequestPhase::Done, ResponsePhase::Head) => (
                client.max(member),
                limits.response_time_us,
                Refusal::ResponseTimeout,
            ),
            (RequestPhase::Done, ResponsePhase::Body) => {
                (member, limits.body_time_us, Refusal::BodyTimeout)
            }
            (RequestPhase::Done, ResponsePhase::Idle | ResponsePhase::Done) => return None,
        };
        Some(Deadline {
            at_us: since.saturating_add(after),
            reason,
        })
    }

    /// Says what is to be done if the deadline has passed; [`Event::Wait`] if it has not.
    pub fn expire(&mut self, cx: &Context<'_>) -> Event {
        let Some(deadline) = self.deadline(cx.limits) else {
            return Event::Wait;
        };
        if cx.now_us < deadline.at_us {
            return Event::Wait;
        }
        match deadline.reason {
            Refusal::IdleTimeout => Event::Close,
            Refusal::ResponseTimeout => Event::BadMember(Refusal::ResponseTimeout),
            reason => self.client_fault(reason),
        }
    }

    /// Input of a side that could not be used yet.
    pub fn stuck(&self, from: Side) -> &[u8] {
        &self.stuck[from.index()]
    }

    /// Moves stuck input to the start of `scratch`; new bytes are read behind it. Returns its length. Panics if
    /// `scratch` is shorter: it must be longer than any head allowed, or nothing could be read.
    pub fn take_stuck(&mut self, from: Side, scratch: &mut [u8]) -> usize {
        let stuck = std::mem::take(&mut self.stuck[from.index()]);
        scratch[..stuck.len()].copy_from_slice(&stuck);
        stuck.len()
    }

    /// Keeps input that a step did not consume.
    pub fn keep_stuck(&mut self, from: Side, rest: &[u8]) {
        if !rest.is_empty() {
            self.stuck[from.index()].extend_from_slice(rest);
        }
    }

    /// Output for a side that could not be sent yet.
    pub fn unsent(&self, to: Side) -> &[u8] {
        &self.unsent[to.index()]
    }

    /// Keeps output that the socket did not take.
    pub fn keep_unsent(&mut self, to: Side, rest: &[u8]) {
        if !rest.is_empty() {
            self.unsent[to.index()].extend_from_slice(rest);
        }
    }

    /// `count` bytes of the unsent output were sent. Its memory goes back when all of it is.
    pub fn sent(&mut self, to: Side, count: usize) {
        let unsent = &mut self.unsent[to.index()];
        match count == unsent.len() {
            true => *unsent = Vec::new(),
            false => drop(unsent.drain(..count)),
        }
    }

    /// All stuck input of a side, its memory included.
    pub(super) fn take_input(&mut self, from: Side) -> Vec<u8> {
        std::mem::take(&mut self.stuck[from.index()])
    }

    /// Gives input back of which `consumed` bytes are done with.
    pub(super) fn keep_input(&mut self, from: Side, mut input: Vec<u8>, consumed: usize) {
        if consumed < input.len() {
            input.drain(..consumed);
            self.stuck[from.index()] = input;
        }
    }

    /// The member is gone: its bytes, either way, are nobody's any more.
    pub fn forget_member(&mut self) {
        self.stuck[1] = Vec::new();
        self.unsent[1] = Vec::new();
    }
}
