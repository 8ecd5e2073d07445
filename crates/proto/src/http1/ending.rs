//! How exchanges end: in order, by an end of stream, by a failure, by time.

use super::body::{Left, Wire};
use super::connection::{Connection, NO_BODY, RequestPhase, ResponsePhase};
use super::interface::{After, Context, Deadline, Event, Side, Work};
use super::limits::Limits;
use super::refusal::Refusal;

impl Connection {
    /// Ends the exchange if both sides of it are done, or if the response is and the rest of the
    /// request is not worth waiting for.
    /// `has_more`: the caller holds input of the client that is not consumed.
    pub(super) fn finish(&mut self, limits: &Limits, has_more: bool) -> Option<Event> {
        if self.response != ResponsePhase::Done {
            return None;
        }
        if self.request == RequestPhase::Body {
            self.give_up_request(limits);
        }
        if self.request != RequestPhase::Done {
            return None;
        }
        self.member_closes |= self.has_ended[1];
        self.client_closes |= self.has_ended[0] && self.stuck[0].is_empty() && !has_more;
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
        self.asks_websocket = false;
        self.request_body = NO_BODY;
        self.response_body = NO_BODY;
        self.scanned = [0; 2];
        self.has_ended[1] = false;
        self.empty_lines = 0;
        self.has_begun = false;
        self.since_us[0] = self.since_us[0].max(self.since_us[1]);
        Some(event)
    }

    /// The response is complete and the request is not: read on, drop what comes, or stop here.
    fn give_up_request(&mut self, limits: &Limits) {
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

    /// A side ended its stream in order. Output, if any, is for the client. [`Event::Wait`] while
    /// input of that side is stuck: the end is told by the step that has used what came before it.
    pub fn end_of_stream(&mut self, from: Side, cx: &Context<'_>, work: &mut Work) -> Event {
        self.has_ended[from.index()] = true;
        match self.stuck(from).is_empty() {
            true => self.at_end(from, cx, work),
            false => Event::Wait,
        }
    }

    /// All input of a side is used, as far as it can be, and there will be no more.
    pub(super) fn at_end(&mut self, from: Side, cx: &Context<'_>, work: &mut Work) -> Event {
        if from == Side::Client {
            return match self.request {
                RequestPhase::Head | RequestPhase::Closed => Event::Close,
                RequestPhase::Body if self.response == ResponsePhase::Done => Event::Close,
                RequestPhase::Body => Event::Abort(Refusal::ClientClosed),
                // A client may close its sending half and still read the response.
                RequestPhase::Done => Event::Wait,
            };
        }
        self.member_closes = true;
        match self.response {
            ResponsePhase::Idle => Event::Wait,
            ResponsePhase::Done => self.finish(cx.limits, false).unwrap_or(Event::Wait),
            ResponsePhase::Head => Event::BadMember(Refusal::MemberClosed),
            ResponsePhase::Body if self.response_body.end_of_stream(&mut work.out) => {
                self.response = ResponsePhase::Done;
                self.finish(cx.limits, false).unwrap_or(Event::Body)
            }
            ResponsePhase::Body => Event::Abort(Refusal::MemberClosed),
            ResponsePhase::Switched => Event::Switched,
        }
    }

    /// Whose fault an exchange's end in [`Event::Abort`] is. Reasons that fit both sides are the
    /// client's while its request is not whole.
    pub fn blames(&self, reason: Refusal) -> Side {
        match reason {
            Refusal::ClientClosed | Refusal::ClientStalls => Side::Client,
            Refusal::MemberClosed | Refusal::MemberStalls | Refusal::ResponseTimeout => {
                Side::Member
            }
            _ if self.request == RequestPhase::Body => Side::Client,
            _ => Side::Member,
        }
    }

    /// A side's connection failed (reset, refused, timed out).
    pub fn lost(&mut self, side: Side) -> Event {
        match (side, self.response) {
            (Side::Client, _) => Event::Abort(Refusal::ClientClosed),
            (Side::Member, ResponsePhase::Idle) => Event::Wait,
            (Side::Member, ResponsePhase::Head) => Event::BadMember(Refusal::MemberClosed),
            (Side::Member, ResponsePhase::Body | ResponsePhase::Switched) => {
                Event::Abort(Refusal::MemberClosed)
            }
            (Side::Member, ResponsePhase::Done) => {
                self.member_closes = true;
                self.request_body.wire = Wire::Discard;
                Event::Wait
            }
        }
    }

    /// The next moment at which something is overdue. None: nothing is.
    pub fn deadline(&self, limits: &Limits) -> Option<Deadline> {
        let [client, member] = self.since_us;
        let (since, after, reason) = match (self.request, self.response) {
            _ if !self.unsent[0].is_empty() => (
                client.max(member),
                limits.body_time_us,
                Refusal::ClientStalls,
            ),
            _ if !self.unsent[1].is_empty() => (
                client.max(member),
                limits.response_time_us,
                Refusal::ResponseTimeout,
            ),
            (RequestPhase::Closed, _) => (client, limits.body_time_us, Refusal::IdleTimeout),
            (RequestPhase::Head, _) if self.has_begun => {
                (client, limits.head_time_us, Refusal::HeadTimeout)
            }
            (RequestPhase::Head, _) => (client, limits.idle_time_us, Refusal::IdleTimeout),
            (RequestPhase::Body, _) => (
                client.max(member),
                limits.body_time_us,
                Refusal::BodyTimeout,
            ),
            (RequestPhase::Done, ResponsePhase::Head) => (
                client.max(member),
                limits.response_time_us,
                Refusal::ResponseTimeout,
            ),
            (RequestPhase::Done, ResponsePhase::Body) => {
                (member, limits.body_time_us, Refusal::MemberStalls)
            }
            (
                RequestPhase::Done,
                ResponsePhase::Idle | ResponsePhase::Done | ResponsePhase::Switched,
            ) => return None,
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
            reason @ Refusal::ClientStalls => Event::Abort(reason),
            reason @ (Refusal::ResponseTimeout | Refusal::MemberStalls) => {
                self.member_fault(reason)
            }
            // The answer is out: only the rest of the request is missing.
            _ if self.response == ResponsePhase::Done => Event::Close,
            reason => self.client_fault(reason),
        }
    }

    /// What a fault of the member means.
    fn member_fault(&self, refusal: Refusal) -> Event {
        match self.has_responded() {
            true => Event::Abort(refusal),
            false => Event::BadMember(refusal),
        }
    }
}
