//! Bodies that come, and the windows that bound them.
//!
//! A DATA frame is charged to both windows when its header is there. What the caller releases is
//! given back to the peer once it is half a window, so that a sender that is as fast as the
//! receiver always has the other half; padding is given back at once.

use super::budget::Flow;
use super::connection::{Connection, Payload};
use super::fault::{Fault, Refusal};
use super::frame::{self, HEADER_BYTES, Header, flag};
use super::interface::{Context, Event, Role, Work};
use super::limits::Limits;
use super::settings::WINDOW_BYTES_INITIAL;
use super::step::Progress;
use super::stream::{Half, UNDECLARED};

impl Connection {
    /// The header of a DATA frame.
    pub(super) fn begin_data(
        &mut self,
        cx: &Context<'_>,
        header: &Header,
        input: &[u8],
        work: &mut Work,
    ) -> Result<Progress, Fault> {
        let id = header.stream;
        if id == 0 {
            return Err(Fault::FrameStream);
        }
        let (mut consumed, mut padding) = (HEADER_BYTES, 0);
        let mut len = header.len;
        if header.has(flag::PADDED) {
            len = len.checked_sub(1).ok_or(Fault::FrameSize)?;
            let Some(&byte) = input.get(HEADER_BYTES) else {
                return Ok(Progress::Starved);
            };
            (consumed, padding) = (HEADER_BYTES + 1, byte);
            len = len.checked_sub(u32::from(byte)).ok_or(Fault::Padding)?;
        }
        let ends = header.has(flag::END_STREAM);
        if self.is_idle_number(id) {
            return Err(Fault::IdleStream);
        }
        if len == 0 && !ends {
            self.spend(Flow::EmptyData, cx)?;
        }
        if self.recv_window < i64::from(header.len) {
            return Err(Fault::WindowExceeded);
        }
        self.recv_window -= i64::from(header.len);
        let overhead = header.len - len;
        let event = match self.charge(cx, id, header.len, len, ends) {
            Ok(true) => {
                self.payload = Payload::Data {
                    stream: id,
                    left: len,
                    padding,
                    ends,
                };
                self.free(overhead, cx.limits, &mut work.out);
                self.free_stream(id, overhead, &mut work.out);
                match len == 0 && ends {
                    true => Some(self.end_of_body(cx, id, padding, work)),
                    false => {
                        if len == 0 {
                            self.skip(padding.into());
                        }
                        None
                    }
                }
            }
            Ok(false) => {
                self.spend(Flow::Ignored, cx)?;
                self.skip(len + u32::from(padding));
                self.free(header.len, cx.limits, &mut work.out);
                None
            }
            Err(refusal) => {
                self.skip(len + u32::from(padding));
                let event = self.refuse_stream(id, refusal, cx, &mut work.out)?;
                self.free(header.len, cx.limits, &mut work.out);
                event
            }
        };
        Ok(Progress::used(consumed, event))
    }

    /// Charges a DATA frame to its stream. False: it crossed our reset, or the stream's end.
    fn charge(
        &mut self,
        cx: &Context<'_>,
        id: u32,
        whole: u32,
        len: u32,
        ends: bool,
    ) -> Result<bool, Refusal> {
        let body_bytes_max = match self.role {
            Role::Server => cx.limits.request_body_bytes_max,
            Role::Client => cx.limits.response_body_bytes_max,
        };
        let Some(stream) = self.streams.find_mut(id) else {
            return match self.reset_here.contains(&id) {
                true => Ok(false),
                false => Err(Refusal::Ended),
            };
        };
        match stream.remote {
            Half::Head => return Err(Refusal::DataBeforeHead),
            Half::Body => {}
            Half::Done => return Err(Refusal::Ended),
        }
        stream.recv_window = i64::from(stream.recv_window)
            .checked_sub(whole.into())
            .and_then(|window| i32::try_from(window).ok())
            .filter(|window| *window >= 0 || whole == 0)
            .ok_or(Refusal::WindowExceeded)?;
        stream.received += u64::from(len);
        if stream.received > body_bytes_max {
            return Err(Refusal::BodyTooLarge);
        }
        if stream.length_left != UNDECLARED {
            stream.length_left = stream
                .length_left
                .checked_sub(len.into())
                .ok_or(Refusal::LengthDiffers)?;
            if ends && stream.length_left > 0 {
                return Err(Refusal::LengthDiffers);
            }
        }
        if len > 0 {
            stream.since_us = cx.now_us;
        }
        Ok(true)
    }

    /// Data bytes of a frame that has begun.
    #[expect(clippy::too_many_arguments, reason = "the parts of one state")]
    pub(super) fn data(
        &mut self,
        cx: &Context<'_>,
        id: u32,
        left: u32,
        padding: u8,
        ends: bool,
        input: &[u8],
        work: &mut Work,
    ) -> Progress {
        let count = input.len().min(left as usize);
        let left = left - count as u32;
        if let Some(stream) = self.streams.find_mut(id) {
            stream.held += count as u32;
            stream.since_us = cx.now_us;
        }
        let event = if left > 0 {
            self.payload = Payload::Data {
                stream: id,
                left,
                padding,
                ends,
            };
            Event::Data {
                stream: id,
                ends: false,
            }
        } else if ends {
            self.end_of_body(cx, id, padding, work)
        } else {
            self.skip(padding.into());
            Event::Data {
                stream: id,
                ends: false,
            }
        };
        Progress::Used {
            consumed: count,
            data: count,
            event: Some(event),
        }
    }

    fn end_of_body(&mut self, cx: &Context<'_>, id: u32, padding: u8, work: &mut Work) -> Event {
        self.skip(padding.into());
        if let Some(stream) = self.streams.find_mut(id) {
            stream.remote = Half::Done;
            if stream.is_done() {
                self.finish_stream(id, cx, &mut work.out);
            }
        }
        Event::Data {
            stream: id,
            ends: true,
        }
    }

    /// `bytes` of a stream's body have gone on: the peer may send as many more. Harmless if the
    /// stream is over.
    pub fn release(&mut self, cx: &Context<'_>, stream: u32, bytes: usize, out: &mut Vec<u8>) {
        let Some(found) = self.streams.find_mut(stream) else {
            return;
        };
        let bytes = (bytes as u64).min(found.held.into()) as u32;
        found.held -= bytes;
        found.since_us = cx.now_us;
        self.free(bytes, cx.limits, out);
        self.free_stream(stream, bytes, out);
    }

    /// Gives bytes back to the connection's window.
    pub(super) fn free(&mut self, bytes: u32, limits: &Limits, out: &mut Vec<u8>) {
        self.freed = self.freed.saturating_add(bytes);
        let window = limits.connection_window_bytes.max(WINDOW_BYTES_INITIAL);
        // As much as is left, too: streams that stall hold some of the window for long, and what is
        // left must not wait for a half that cannot come.
        let is_scarce = self.freed > 0 && i64::from(self.freed) >= self.recv_window;
        if self.freed >= window / 2 || is_scarce {
            frame::write_window_update(0, self.freed, out);
            self.recv_window += i64::from(self.freed);
            self.freed = 0;
        }
    }

    /// Gives bytes back to a stream's window, unless its body has ended.
    fn free_stream(&mut self, id: u32, bytes: u32, out: &mut Vec<u8>) {
        let window = self.local.window_bytes;
        let Some(stream) = self.streams.find_mut(id) else {
            return;
        };
        stream.freed += bytes;
        if stream.remote != Half::Done && stream.freed > 0 && stream.freed >= window / 2 {
            frame::write_window_update(id, stream.freed, out);
            stream.recv_window = stream.recv_window.saturating_add_unsigned(stream.freed);
            stream.freed = 0;
        }
    }

    /// Whether nobody has opened a stream of this number.
    pub(super) fn is_idle_number(&self, id: u32) -> bool {
        match id % 2 == self.next_local % 2 {
            true => id >= self.next_local,
            false => id > self.last_remote,
        }
    }
}
