//! Frames that carry no part of a message: settings, pings, resets, windows, priorities.

use super::budget::Flow;
use super::connection::{Connection, Phase, remember};
use super::fault::{ErrorCode, Fault, Refusal};
use super::frame::{self, Header, Priority, WINDOW_BYTES_MAX, flag};
use super::interface::{Cause, Context, Event, Role, Work};
use super::settings::WINDOW_BYTES_INITIAL;
use super::stream::Blocked;

impl Connection {
    pub(super) fn settings(
        &mut self,
        cx: &Context<'_>,
        header: &Header,
        payload: &[u8],
        work: &mut Work,
    ) -> Result<Option<Event>, Fault> {
        if header.stream != 0 {
            return Err(Fault::FrameStream);
        }
        if header.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(Fault::FrameSize);
            }
            return self.acknowledged().map(|()| None);
        }
        self.spend(Flow::Settings, cx)?;
        for setting in frame::settings(payload)? {
            let before = self.remote;
            self.remote.apply(setting, self.role == Role::Client)?;
            if setting.id == super::settings::id::HEADER_TABLE_SIZE {
                self.encoder.limit(self.remote.table_bytes as usize);
            }
            let change = i64::from(self.remote.window_bytes) - i64::from(before.window_bytes);
            if change != 0 {
                self.shift_send_windows(change)?;
            }
        }
        self.phase = Phase::Open;
        frame::write_settings_ack(&mut work.out);
        Ok(Some(Event::Settings))
    }

    /// The peer has taken our settings.
    fn acknowledged(&mut self) -> Result<(), Fault> {
        if std::mem::replace(&mut self.is_acknowledged, true) {
            return Err(Fault::UnexpectedAck);
        }
        let change = i64::from(self.local.window_bytes) - i64::from(WINDOW_BYTES_INITIAL);
        for stream in self.streams.iter_mut() {
            let window = i64::from(stream.recv_window) + change;
            stream.recv_window = i32::try_from(window).map_err(|_| Fault::SettingWindow)?;
        }
        self.decoder.limit(self.local.table_bytes as usize);
        Ok(())
    }

    /// The peer's initial window has changed: all its streams' windows do (RFC 9113 section 6.9.2).
    fn shift_send_windows(&mut self, change: i64) -> Result<(), Fault> {
        for stream in self.streams.iter_mut() {
            let window = i64::from(stream.send_window) + change;
            stream.send_window = i32::try_from(window).map_err(|_| Fault::SettingWindow)?;
            if stream.blocked == Blocked::Window && window > 0 {
                stream.blocked = Blocked::Turn;
                self.waiting.push_back(stream.id);
            }
        }
        Ok(())
    }

    pub(super) fn ping_came(
        &mut self,
        cx: &Context<'_>,
        header: &Header,
        payload: &[u8],
        work: &mut Work,
    ) -> Result<Option<Event>, Fault> {
        let payload: [u8; 8] = payload.try_into().map_err(|_| Fault::FrameSize)?;
        if header.stream != 0 {
            return Err(Fault::FrameStream);
        }
        self.spend(Flow::Ping, cx)?;
        if header.has(flag::ACK) {
            return Ok(Some(Event::Pong(payload)));
        }
        frame::write_ping(payload, true, &mut work.out);
        Ok(None)
    }

    pub(super) fn reset_came(
        &mut self,
        cx: &Context<'_>,
        header: &Header,
        payload: &[u8],
        work: &mut Work,
    ) -> Result<Option<Event>, Fault> {
        let code = ErrorCode(frame::parse_number(payload)?);
        let id = header.stream;
        if id == 0 {
            return Err(Fault::FrameStream);
        }
        if self.is_idle_number(id) {
            return Err(Fault::IdleStream);
        }
        self.spend(Flow::Reset, cx)?;
        if !self.is_open(id) {
            return Ok(None);
        }
        self.remove_stream(id, cx, &mut work.out);
        remember(&mut self.ended, id, super::connection::ENDED_MAX);
        Ok(Some(Event::Reset {
            stream: id,
            cause: Cause::Peer(code),
        }))
    }

    pub(super) fn window_update(
        &mut self,
        cx: &Context<'_>,
        header: &Header,
        payload: &[u8],
        work: &mut Work,
    ) -> Result<Option<Event>, Fault> {
        let bytes = frame::parse_number(payload)? & WINDOW_BYTES_MAX;
        let id = header.stream;
        self.spend(Flow::WindowUpdate, cx)?;
        if id == 0 {
            if bytes == 0 {
                return Err(Fault::WindowZero);
            }
            let window = self.send_window + i64::from(bytes);
            if window > i64::from(WINDOW_BYTES_MAX) {
                return Err(Fault::WindowOverflow);
            }
            self.send_window = window;
            return Ok((!self.waiting.is_empty()).then_some(Event::Window));
        }
        if self.is_idle_number(id) {
            return Err(Fault::IdleStream);
        }
        let Some(stream) = self.streams.find_mut(id) else {
            return Ok(None);
        };
        if bytes == 0 {
            return self.refuse_stream(id, Refusal::WindowZero, cx, &mut work.out);
        }
        let Some(window) = stream.send_window.checked_add_unsigned(bytes) else {
            return self.refuse_stream(id, Refusal::WindowOverflow, cx, &mut work.out);
        };
        stream.send_window = window;
        if stream.blocked == Blocked::Window && window > 0 {
            stream.blocked = Blocked::Turn;
            stream.since_us = cx.now_us;
            self.waiting.push_back(id);
            return Ok(Some(Event::Window));
        }
        Ok(None)
    }

    /// Checked and ignored: priorities of this kind are deprecated (RFC 9113 section 5.3).
    pub(super) fn priority(
        &mut self,
        cx: &Context<'_>,
        header: &Header,
        payload: &[u8],
        work: &mut Work,
    ) -> Result<Option<Event>, Fault> {
        let id = header.stream;
        if id == 0 {
            return Err(Fault::FrameStream);
        }
        self.spend(Flow::Priority, cx)?;
        let Ok(payload) = <&[u8; 5]>::try_from(payload) else {
            return match self.is_idle_number(id) {
                // A stream that nobody has opened cannot be reset.
                true => Err(Fault::FrameSize),
                false => self.refuse_stream(id, Refusal::PrioritySize, cx, &mut work.out),
            };
        };
        if Priority::parse(payload).parent == id {
            return match self.is_idle_number(id) {
                true => Err(Fault::SelfDependency),
                false => self.refuse_stream(id, Refusal::SelfDependency, cx, &mut work.out),
            };
        }
        Ok(None)
    }
}
