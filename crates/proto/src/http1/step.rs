//! Stepping over input: from bytes to the next event.

use super::body::{Passed, Wire};
use super::connection::{Connection, RequestPhase, ResponsePhase};
use super::facts;
use super::head::Found;
use super::interface::{Context, Event, Side, Step, Work};
use super::refusal::Refusal;

impl Connection {
    pub(super) fn step_client(&mut self, cx: &Context<'_>, input: &[u8], work: &mut Work) -> Step {
        match self.request {
            RequestPhase::Head => self.find_request(cx, input, work),
            RequestPhase::Body => self.pass_request_body(cx, input, work),
            RequestPhase::Done => Step::new(
                self.finish(cx.limits, !input.is_empty())
                    .unwrap_or(Event::Wait),
                0,
            ),
            RequestPhase::Closed => Step::new(Event::NeedMore, input.len()),
        }
    }

    fn find_request(&mut self, cx: &Context<'_>, input: &[u8], work: &mut Work) -> Step {
        let mut consumed = 0;
        while let [b'\r', b'\n', ..] = input[consumed..] {
            if self.empty_lines >= cx.limits.empty_lines_max {
                self.has_begun = true;
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
        let before = out.len();
        let passed =
            self.request_body
                .pass(input, limits.request_body_bytes_max, limits, head, out);
        let passed = match passed {
            Ok(passed) => passed,
            Err(refusal) => {
                out.truncate(before);
                return Step::new(self.client_fault(refusal), 0);
            }
        };
        let Some(mut step) = self.progress(Side::Client, cx, passed) else {
            return Step::new(
                self.finish(cx.limits, !input.is_empty())
                    .unwrap_or(Event::NeedMore),
                0,
            );
        };
        if self.request_body.wire == Wire::Discard {
            self.discarded_bytes += step.consumed as u64;
        }
        if self.request_body.is_done() {
            self.request = RequestPhase::Done;
        }
        if let Some(event) = self.finish(cx.limits, step.consumed < input.len()) {
            step.event = event;
        }
        step
    }

    pub(super) fn step_member(&mut self, cx: &Context<'_>, input: &[u8], work: &mut Work) -> Step {
        match self.response {
            ResponsePhase::Idle | ResponsePhase::Done if input.is_empty() => {
                Step::new(self.finish(cx.limits, false).unwrap_or(Event::NeedMore), 0)
            }
            ResponsePhase::Idle => Step::new(Event::BadMember(Refusal::Unsolicited), 0),
            ResponsePhase::Done => {
                self.member_closes = true;
                let event = self.finish(cx.limits, false).unwrap_or(Event::NeedMore);
                Step::new(event, input.len())
            }
            ResponsePhase::Head => self.find_response(cx, input, work),
            ResponsePhase::Body => self.pass_response_body(cx, input, work),
            ResponsePhase::Switched => Step::new(Event::Switched, 0),
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
                    if work.head.status == 101 && !self.asks_websocket {
                        return Err(Refusal::Status);
                    }
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
        let before = out.len();
        let passed =
            self.response_body
                .pass(input, limits.response_body_bytes_max, limits, head, out);
        let passed = match passed {
            Ok(passed) => passed,
            Err(refusal) => {
                out.truncate(before);
                return Step::new(Event::Abort(refusal), 0);
            }
        };
        let Some(mut step) = self.progress(Side::Member, cx, passed) else {
            return Step::new(Event::NeedMore, 0);
        };
        if self.response_body.is_done() {
            self.response = ResponsePhase::Done;
            // More than its response: what it means is anybody's guess, so the member is not used
            // again.
            self.member_closes |= step.consumed < input.len();
        }
        if let Some(event) = self.finish(cx.limits, false) {
            step.event = event;
        }
        step
    }

    /// The step of a pass over a body. None: nothing was consumed.
    fn progress(&mut self, from: Side, cx: &Context<'_>, passed: Passed) -> Option<Step> {
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
    pub(super) fn client_fault(&self, refusal: Refusal) -> Event {
        match self.has_responded() {
            true => Event::Abort(refusal),
            false => Event::Refused(refusal),
        }
    }
}
