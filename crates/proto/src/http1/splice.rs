//! Body bytes that a worker moves by itself, from socket to socket, without showing them.

use super::body::{Left, Wire};
use super::connection::{Connection, RequestPhase, ResponsePhase};
use super::interface::{Context, Event, Side};
use super::refusal::Refusal;

impl Connection {
    /// How many bytes of this side's input go on as they are, from the next one on: a worker may
    /// splice up to so many, once nothing is stuck and nothing unsent, and report them with
    /// [`Connection::spliced`]. 0: none, or bytes are stuck or unsent. `u64::MAX`: all until the
    /// end of the stream.
    pub fn verbatim_bytes(&self, from: Side) -> u64 {
        let body = match from {
            Side::Client if self.request == RequestPhase::Body => &self.request_body,
            Side::Member if self.response == ResponsePhase::Body => &self.response_body,
            Side::Client | Side::Member => return 0,
        };
        if !self.stuck(from).is_empty() || !self.unsent(from.other()).is_empty() {
            return 0;
        }
        match (body.left, body.wire) {
            (Left::Length(left) | Left::Data(left), Wire::Same | Wire::Plain) => left,
            (Left::UntilClose, Wire::Same) => u64::MAX,
            _ => 0,
        }
    }

    /// `count` bytes were moved. The event is [`Event::Body`], [`Event::Done`] or a fault. Bytes
    /// that are in a pipe count as moved: the pipe is then the worker's to keep, as output that is
    /// not sent yet.
    ///
    /// Panics if these were more than [`Connection::verbatim_bytes`]: they would belong to another
    /// message.
    pub fn spliced(&mut self, from: Side, count: u64, cx: &Context<'_>) -> Event {
        assert!(
            count <= self.verbatim_bytes(from),
            "spliced beyond the body"
        );
        self.since_us[from.index()] = cx.now_us;
        let body = match from {
            Side::Client => &mut self.request_body,
            Side::Member => &mut self.response_body,
        };
        body.left = match body.left {
            Left::Length(left) if left == count => Left::Empty,
            Left::Length(left) => Left::Length(left - count),
            Left::Data(left) if left == count => Left::DataEnd,
            Left::Data(left) => Left::Data(left - count),
            left => {
                body.bytes = body.bytes.saturating_add(count);
                left
            }
        };
        if from == Side::Member && body.bytes > cx.limits.response_body_bytes_max {
            return Event::Abort(Refusal::BodyTooLarge);
        }
        if body.is_done() {
            match from {
                Side::Client => self.request = RequestPhase::Done,
                Side::Member => self.response = ResponsePhase::Done,
            }
        }
        self.finish(cx.limits, false).unwrap_or(Event::Body)
    }
}
