//! Heads that come: field blocks over one or more frames, and what they mean for their stream.

use super::budget::Flow;
use super::connection::{Block, Connection, remember};
use super::fault::{ErrorCode, Fault, Refusal};
use super::frame::{self, Header, Headers, flag};
use super::hpack::{DecodeLimits, Decoded};
use super::interface::{Cause, Context, Event, Role, Work};
use super::judge;
use super::stream::{Half, UNDECLARED};

impl Connection {
    pub(super) fn headers(
        &mut self,
        cx: &Context<'_>,
        header: &Header,
        payload: &[u8],
        work: &mut Work,
    ) -> Result<Option<Event>, Fault> {
        let stream = header.stream;
        if stream == 0 {
            return Err(Fault::FrameStream);
        }
        self.judge_number(stream)?;
        let Headers { priority, block } = Headers::parse(header, payload)?;
        let ends = header.has(flag::END_STREAM);
        let depends_on_itself = priority.is_some_and(|priority| priority.parent == stream);
        if header.has(flag::END_HEADERS) {
            return self.head(cx, stream, ends, depends_on_itself, block, work);
        }
        if block.len() > cx.limits.block_bytes_max {
            return Err(Fault::BlockTooLarge);
        }
        self.block = Some(Block {
            stream,
            ends,
            depends_on_itself,
            frames: 0,
            since_us: cx.now_us,
            bytes: block.to_vec(),
        });
        Ok(None)
    }

    pub(super) fn continuation(
        &mut self,
        cx: &Context<'_>,
        header: &Header,
        payload: &[u8],
        work: &mut Work,
    ) -> Result<Option<Event>, Fault> {
        let mut block = self.block.take().ok_or(Fault::Continuation)?;
        block.frames += 1;
        let len = block.bytes.len() + payload.len();
        if block.frames > cx.limits.continuations_max || len > cx.limits.block_bytes_max {
            return Err(Fault::BlockTooLarge);
        }
        block.bytes.extend_from_slice(payload);
        if header.has(flag::END_HEADERS) {
            let Block {
                stream,
                ends,
                depends_on_itself,
                bytes,
                ..
            } = block;
            return self.head(cx, stream, ends, depends_on_itself, &bytes, work);
        }
        self.block = Some(block);
        Ok(None)
    }

    /// Whether a head may come with this number at all.
    fn judge_number(&self, stream: u32) -> Result<(), Fault> {
        let is_ours = stream % 2 == self.next_local % 2;
        match self.role {
            Role::Server if is_ours => Err(Fault::StreamNumber),
            Role::Server if stream > self.last_remote || self.is_open(stream) => Ok(()),
            Role::Server if self.reset_here.contains(&stream) => Ok(()),
            Role::Server if self.ended.contains(&stream) => Err(Fault::ClosedStream),
            Role::Server => Err(Fault::StreamNumber),
            // Nobody but us opens streams.
            Role::Client if !is_ours || stream >= self.next_local => Err(Fault::IdleStream),
            Role::Client if self.ended.contains(&stream) => Err(Fault::ClosedStream),
            Role::Client => Ok(()),
        }
    }

    /// A whole field block. It is decoded in any case, since the table depends on it.
    fn head(
        &mut self,
        cx: &Context<'_>,
        stream: u32,
        ends: bool,
        depends_on_itself: bool,
        block: &[u8],
        work: &mut Work,
    ) -> Result<Option<Event>, Fault> {
        let limits = DecodeLimits {
            list_bytes_max: cx.limits.header_list_bytes_max as usize,
            fields_max: cx.limits.fields_max,
            work_bytes_max: cx.limits.header_work_bytes_max as usize,
        };
        work.head.forget();
        let decoded = self
            .decoder
            .decode(block, &limits, &mut work.head.fields)
            .map_err(Fault::Hpack)?;
        let fits = match decoded {
            _ if depends_on_itself => Err(Refusal::SelfDependency),
            Decoded::Whole => Ok(()),
            Decoded::TooLarge => Err(Refusal::HeadTooLarge),
            Decoded::TooManyFields => Err(Refusal::TooManyFields),
        };
        let Some(open) = self.streams.find(stream) else {
            if self.role == Role::Client || stream <= self.last_remote {
                // It crossed our reset.
                self.spend(Flow::Ignored, cx)?;
                return Ok(None);
            }
            self.last_remote = stream;
            return self.request(cx, stream, ends, fits, work);
        };
        let judged = match open.remote {
            Half::Done => Err(Refusal::Ended),
            Half::Head => fits.and_then(|()| self.response(cx, stream, ends, work)),
            Half::Body => fits.and_then(|()| self.trailers(stream, ends, work)),
        };
        match judged {
            Ok(event) => {
                let stream = self.streams.find_mut(stream).expect("it was just found");
                stream.since_us = cx.now_us;
                let (id, is_done) = (stream.id, stream.is_done());
                if is_done {
                    self.finish_stream(id, cx, &mut work.out);
                }
                Ok(Some(event))
            }
            Err(refusal) => self.refuse_stream(stream, refusal, cx, &mut work.out),
        }
    }

    /// The head of a new request.
    fn request(
        &mut self,
        cx: &Context<'_>,
        stream: u32,
        ends: bool,
        fits: Result<(), Refusal>,
        work: &mut Work,
    ) -> Result<Option<Event>, Fault> {
        if self.last_taken.is_some_and(|last| stream > last) {
            self.spend(Flow::Ignored, cx)?;
            remember(&mut self.reset_here, stream, cx.limits.reset_streams_max);
            return Ok(None);
        }
        if self.streams.len() >= self.local.streams_max as usize {
            return self.refuse_stream(stream, Refusal::TooManyStreams, cx, &mut work.out);
        }
        let head = &mut work.head;
        let judged =
            fits.and_then(|()| judge::request(head, cx.limits, self.local.has_extended_connect));
        let judged = match head.content_length {
            Some(1..) if ends && judged.is_ok() => Err(Refusal::LengthDiffers),
            _ => judged,
        };
        if let Err(refusal) = judged {
            return self.refuse_request(cx, stream, ends, refusal, work);
        }
        let (is_head, is_tunnel) = (head.method() == b"HEAD", head.protocol().is_some());
        let length = match is_tunnel {
            true => None,
            false => head.content_length,
        };
        let new = self.add_stream(stream, cx);
        new.is_head = is_head;
        new.is_tunnel = is_tunnel;
        new.length_left = length.unwrap_or(UNDECLARED);
        new.remote = if ends { Half::Done } else { Half::Body };
        Ok(Some(Event::Request { stream, ends }))
    }

    /// A request that nobody shall see: answered by its status, if it has one, else reset.
    fn refuse_request(
        &mut self,
        cx: &Context<'_>,
        stream: u32,
        ends: bool,
        refusal: Refusal,
        work: &mut Work,
    ) -> Result<Option<Event>, Fault> {
        let Some(status) = refusal.status() else {
            return self.refuse_stream(stream, refusal, cx, &mut work.out);
        };
        self.spend(Flow::Refused, cx)?;
        work.head.begin_response(status);
        work.head.push(b"content-length", b"0");
        self.write_block(&work.head, stream, true, &mut work.out);
        match ends {
            true => remember(&mut self.ended, stream, super::connection::ENDED_MAX),
            false => {
                frame::write_reset(stream, ErrorCode::NO_ERROR, &mut work.out);
                remember(&mut self.reset_here, stream, cx.limits.reset_streams_max);
            }
        }
        let cause = Cause::Refused(refusal);
        Ok(Some(Event::Reset { stream, cause }))
    }

    fn response(
        &mut self,
        cx: &Context<'_>,
        id: u32,
        ends: bool,
        work: &mut Work,
    ) -> Result<Event, Refusal> {
        let head = &mut work.head;
        judge::response(head, cx.limits)?;
        let stream = self.streams.find_mut(id).ok_or(Refusal::Ended)?;
        if head.is_interim() {
            if ends || stream.interim >= cx.limits.interim_max {
                return Err(Refusal::Interim);
            }
            stream.interim += 1;
            return Ok(Event::Interim { stream: id });
        }
        let has_no_body = stream.is_head || matches!(head.status, 204 | 304);
        stream.length_left = match head.content_length {
            _ if has_no_body => 0,
            _ if stream.is_tunnel && head.status < 300 => UNDECLARED,
            Some(length) => length,
            None => UNDECLARED,
        };
        if ends && !matches!(stream.length_left, 0 | UNDECLARED) {
            return Err(Refusal::LengthDiffers);
        }
        stream.remote = if ends { Half::Done } else { Half::Body };
        Ok(Event::Response { stream: id, ends })
    }

    fn trailers(&mut self, id: u32, ends: bool, work: &mut Work) -> Result<Event, Refusal> {
        if !ends {
            return Err(Refusal::TrailerWithoutEnd);
        }
        judge::trailers(&mut work.head)?;
        let stream = self.streams.find_mut(id).ok_or(Refusal::Ended)?;
        if !matches!(stream.length_left, 0 | UNDECLARED) {
            return Err(Refusal::LengthDiffers);
        }
        stream.remote = Half::Done;
        Ok(Event::Trailers { stream: id })
    }
}
