//! Stepping over input: from bytes to the next event.

use super::connection::{Connection, Payload, Phase};
use super::fault::{ErrorCode, Fault};
use super::frame::{self, HEADER_BYTES, Header, Kind, PAYLOAD_BYTES_MAX, flag};
use super::interface::{Cause, Context, Event, Role, Step, Work};

/// What one piece of input came to.
pub(super) enum Progress {
    /// It is not whole.
    Starved,
    /// Output has to go first.
    Waits,
    /// So many bytes are done with, and this came of it. The last `data` of them are body.
    Used {
        consumed: usize,
        data: usize,
        event: Option<Event>,
    },
}

impl Progress {
    pub(super) fn used(consumed: usize, event: Option<Event>) -> Progress {
        Progress::Used {
            consumed,
            data: 0,
            event,
        }
    }
}

impl Connection {
    /// Uses input up to the next event. Output (replies, window updates, errors) goes to
    /// [`Work::out`]. Send it before the next step, or keep it with
    /// [`Connection::keep_unsent`](Connection::keep_unsent): a peer that asks and does not listen
    /// is found out by what is kept.
    pub fn step(&mut self, cx: &Context<'_>, input: &[u8], work: &mut Work) -> Step {
        let mut at = 0;
        let step = |event, consumed| Step {
            event,
            consumed,
            data: consumed..consumed,
        };
        if self.has_lost
            && let Some(event) = self.next_lost(cx, work)
        {
            return step(event, 0);
        }
        if self.unsent.is_empty() && work.out.is_empty() {
            self.replies = 0;
        }
        loop {
            let before = work.out.len();
            let progress = self.advance(cx, &input[at..], work);
            self.replies += (work.out.len() - before) as u32;
            let is_unread = self.replies as usize > cx.limits.unsent_replies_bytes_max;
            match progress {
                Ok(_) if is_unread && self.phase != Phase::Failed => {
                    return step(self.fail(Fault::Unread, &mut work.out), input.len());
                }
                Ok(Progress::Used {
                    consumed,
                    data,
                    event,
                }) => {
                    at += consumed;
                    if let Some(event) = event {
                        return Step {
                            event,
                            consumed: at,
                            data: at - data..at,
                        };
                    }
                }
                Ok(Progress::Waits) => return step(Event::Wait, at),
                Ok(Progress::Starved) => {
                    let is_end = self.has_ended && self.stuck.is_empty();
                    return match is_end {
                        true => step(self.at_end(work), at),
                        false => step(Event::NeedMore, at),
                    };
                }
                Err(fault) => return step(self.fail(fault, &mut work.out), input.len()),
            }
        }
    }

    fn advance(
        &mut self,
        cx: &Context<'_>,
        input: &[u8],
        work: &mut Work,
    ) -> Result<Progress, Fault> {
        match (self.phase, self.payload) {
            _ if input.is_empty() => Ok(Progress::Starved),
            (Phase::Failed, _) => Ok(Progress::used(input.len(), None)),
            (Phase::Preface, _) => self.preface(input),
            (_, Payload::Between) => self.frame(cx, input, work),
            (
                _,
                Payload::Data {
                    stream,
                    left,
                    padding,
                    ends,
                },
            ) => Ok(self.data(cx, stream, left, padding, ends, input, work)),
            (_, Payload::Skip { left }) => {
                let count = input.len().min(left as usize);
                self.skip(left - count as u32);
                Ok(Progress::used(count, None))
            }
        }
    }

    fn preface(&mut self, input: &[u8]) -> Result<Progress, Fault> {
        let count = input.len().min(frame::PREFACE.len());
        if input[..count] != frame::PREFACE[..count] {
            return Err(Fault::Preface);
        }
        if count < frame::PREFACE.len() {
            return Ok(Progress::Starved);
        }
        self.phase = Phase::Settings;
        Ok(Progress::used(count, None))
    }

    /// A frame from its header on.
    fn frame(
        &mut self,
        cx: &Context<'_>,
        input: &[u8],
        work: &mut Work,
    ) -> Result<Progress, Fault> {
        let Some(header) = Header::parse(input) else {
            return Ok(Progress::Starved);
        };
        if header.len as usize > PAYLOAD_BYTES_MAX {
            return Err(Fault::FrameSize);
        }
        let is_settings = header.kind == Kind::Settings && !header.has(flag::ACK);
        if self.phase == Phase::Settings && !is_settings {
            return Err(Fault::FirstFrame);
        }
        let continues = header.kind == Kind::Continuation;
        match &self.block {
            Some(block) if !continues || header.stream != block.stream => {
                return Err(Fault::Continuation);
            }
            None if continues => return Err(Fault::Continuation),
            _ => {}
        }
        let is_request = header.kind == Kind::Headers && self.role == Role::Server;
        let waiting = self.unsent.len() + work.out.len();
        if is_request && header.stream > self.last_remote && waiting >= cx.limits.unsent_bytes_max {
            return Ok(Progress::Waits);
        }
        match header.kind {
            Kind::Data => return self.begin_data(cx, &header, input, work),
            Kind::Unknown(_) => {
                self.spend(super::budget::Flow::Ignored, cx)?;
                self.skip(header.len);
                return Ok(Progress::used(HEADER_BYTES, None));
            }
            _ => {}
        }
        let whole = HEADER_BYTES + header.len as usize;
        let Some(payload) = input.get(HEADER_BYTES..whole) else {
            return Ok(Progress::Starved);
        };
        let event = match header.kind {
            Kind::Headers => self.headers(cx, &header, payload, work)?,
            Kind::Continuation => self.continuation(cx, &header, payload, work)?,
            Kind::Settings => self.settings(cx, &header, payload, work)?,
            Kind::Ping => self.ping_came(cx, &header, payload, work)?,
            Kind::RstStream => self.reset_came(cx, &header, payload, work)?,
            Kind::WindowUpdate => self.window_update(cx, &header, payload, work)?,
            Kind::GoAway => self.go_away_came(&header, payload)?,
            Kind::Priority => self.priority(cx, &header, payload, work)?,
            Kind::PushPromise => return Err(Fault::Push),
            Kind::Data | Kind::Unknown(_) => None,
        };
        Ok(Progress::used(whole, event))
    }

    /// The next stream that the peer has not touched and will not.
    fn next_lost(&mut self, cx: &Context<'_>, work: &mut Work) -> Option<Event> {
        let last = self.last_taken_by_peer?;
        let next_local = self.next_local;
        let is_ours = |id: u32| id % 2 == next_local % 2;
        let lost = self
            .streams
            .iter()
            .map(|stream| stream.id)
            .find(|&id| id > last && is_ours(id));
        let Some(stream) = lost else {
            self.has_lost = false;
            return None;
        };
        self.remove_stream(stream, cx, &mut work.out);
        Some(Event::Reset {
            stream,
            cause: Cause::Untouched,
        })
    }

    /// All input is used, as far as it can be, and there will be no more.
    fn at_end(&mut self, work: &mut Work) -> Event {
        match self.streams.is_empty() && self.block.is_none() {
            true => Event::Closed,
            false => self.fail(Fault::PeerClosed, &mut work.out),
        }
    }

    /// The peer ended its stream of bytes in order. [`Event::NeedMore`] while input is stuck: the
    /// end is told by the step that has used what came before it.
    pub fn end_of_stream(&mut self, work: &mut Work) -> Event {
        self.has_ended = true;
        match self.stuck.is_empty() {
            true if self.phase == Phase::Failed => Event::Closed,
            true => self.at_end(work),
            false => Event::NeedMore,
        }
    }

    /// The peer's GOAWAY.
    fn go_away_came(&mut self, header: &Header, payload: &[u8]) -> Result<Option<Event>, Fault> {
        if header.stream != 0 {
            return Err(Fault::FrameStream);
        }
        let (last, code): (u32, ErrorCode) = frame::parse_go_away(payload)?;
        // A later one may take less, never more.
        let last = self
            .last_taken_by_peer
            .map_or(last, |before| before.min(last));
        self.last_taken_by_peer = Some(last);
        self.has_lost = true;
        Ok(Some(Event::GoAway { last, code }))
    }
}
