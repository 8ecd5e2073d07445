//! The connection: records in, what they hold out.

use std::fmt;
use std::ops::Range;

use super::fault::Fault;
use super::half::{DATA_BYTES_MAX, HEADER_BYTES, Half, Material, VERSION};
use super::message::{self, Messages};
use super::suite::{Suite, Version};

/// Types of records.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
pub(super) const DATA: u8 = 23;

/// What a sealed record may be longer than its data: RFC 8446 section 5.2, RFC 5246 section
/// 6.2.3.
const SURPLUS_13: usize = 256;
const SURPLUS_12: usize = 2_048;

/// Alerts (RFC 8446 section 6).
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const NO_RENEGOTIATION: u8 = 100;

/// Records in a row that carry no data: a peer may cost us so much work for nothing.
const EMPTY_IN_A_ROW_MAX: u8 = 32;

/// Which end of the handshake this was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Read more.
    NeedMore,
    /// [`Step::data`] is what the peer sent.
    Data,
    /// A record for this layer only.
    Control,
    /// The peer sends no more. Nothing behind it is looked at.
    Ended,
    /// Send the output, then close.
    Failed(Fault),
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Step {
    pub event: Event,
    /// Bytes of the input that are done with. The others are given again, first, with the next
    /// step.
    pub consumed: usize,
    /// Where in the input the opened data lies.
    pub data: Range<usize>,
}

/// Slices that are read as one.
struct Parts<'a> {
    parts: &'a [&'a [u8]],
    /// Bytes of the first that are done with.
    skipped: usize,
}

impl Parts<'_> {
    /// Appends the next `count` bytes, which are there.
    fn take(&mut self, mut count: usize, out: &mut Vec<u8>) {
        while let [first, rest @ ..] = self.parts
            && count > 0
        {
            let left = &first[self.skipped..];
            let taken = left.len().min(count);
            out.extend_from_slice(&left[..taken]);
            count -= taken;
            self.skipped += taken;
            if self.skipped == first.len() {
                (self.parts, self.skipped) = (rest, 0);
            }
        }
    }
}

/// One end of an established TLS connection.
pub struct Records {
    pub(super) role: Role,
    pub(super) receiving: Half,
    pub(super) sending: Half,
    pub(super) messages: Messages,
    /// Records since the last one with data.
    pub(super) empty: u8,
    /// The peer's `close_notify` has come.
    pub(super) has_ended: bool,
    /// Ours was sent.
    pub(super) has_closed: bool,
    pub(super) fault: Option<Fault>,
    pub(super) stuck: Vec<u8>,
    pub(super) unsent: Vec<u8>,
}

impl Records {
    /// After a handshake: for each direction its material, and how many records were sealed with
    /// it. None: the material is not of this suite's lengths, or of two versions.
    pub fn new(
        role: Role,
        suite: Suite,
        (received, received_records): (Material, u64),
        (sent, sent_records): (Material, u64),
    ) -> Option<Records> {
        if received.version() != sent.version() {
            return None;
        }
        Some(Records {
            role,
            receiving: Half::new(suite, received, received_records)?,
            sending: Half::new(suite, sent, sent_records)?,
            messages: Messages::default(),
            empty: 0,
            has_ended: false,
            has_closed: false,
            fault: None,
            stuck: Vec::new(),
            unsent: Vec::new(),
        })
    }

    pub fn version(&self) -> Version {
        self.sending.material.version()
    }

    pub fn suite(&self) -> Suite {
        self.sending.suite
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether the peer said that it sends no more. A socket's end without it is a cut.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether ours was sent.
    pub fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// Key and number of the next record of both directions, received and sent.
    pub fn keys(&self) -> [(&Material, u64); 2] {
        [&self.receiving, &self.sending].map(|half| (&half.material, half.sequence))
    }

    /// How often keys were changed here, in both directions.
    pub fn key_changes(&self) -> u32 {
        self.receiving.changes + self.sending.changes
    }

    /// Whether no message of this layer is half there: keys, numbers and buffers are all its state.
    pub fn is_between_messages(&self) -> bool {
        self.messages.is_between()
    }

    /// Bytes and records that `count` bytes of data will become if they are sealed together. `None`:
    /// keys would be changed meanwhile.
    pub fn sealed_size(&self, count: usize) -> Option<(usize, u64)> {
        let records = count.div_ceil(DATA_BYTES_MAX);
        let max = self.sending.suite.records_max();
        let fits = max.is_none_or(|max| self.sending.sequence + records as u64 <= max);
        fits.then(|| (count + records * self.sending.surplus(), records as u64))
    }

    /// Opens the next record of `input` in place, and appends to `out` what the peer has to be
    /// told.
    pub fn step(&mut self, input: &mut [u8], out: &mut Vec<u8>) -> Step {
        let step = |event, consumed| Step {
            event,
            consumed,
            data: 0..0,
        };
        if let Some(fault) = self.fault {
            return step(Event::Failed(fault), input.len());
        }
        if self.has_ended {
            return step(Event::Ended, input.len());
        }
        let length = match self.length_of_record(input) {
            Ok(Some(length)) => length,
            Ok(None) => return step(Event::NeedMore, 0),
            Err(fault) => return step(self.fail(fault, out), input.len()),
        };
        let opened = self.receiving.open(&mut input[..length]);
        let (kind, data) = match opened {
            Ok(opened) => opened,
            Err(fault) => return step(self.fail(fault, out), input.len()),
        };
        if kind == DATA && !data.is_empty() && self.messages.is_between() {
            self.empty = 0;
            return Step {
                event: Event::Data,
                consumed: length,
                data,
            };
        }
        match self.take_control(kind, &input[data], out) {
            Ok(event) => step(event, length),
            Err(fault) => step(self.fail(fault, out), input.len()),
        }
    }

    /// Seals `data` into records behind `out`.
    pub fn seal(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        self.seal_parts(&[data], out)
    }

    /// Seals what several slices hold, one behind the other, into as few records as that takes.
    pub fn seal_parts(&mut self, parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.has_closed || self.fault.is_some() {
            return Err(Fault::Closed);
        }
        let mut left: usize = parts.iter().map(|part| part.len()).sum();
        let mut parts = Parts { parts, skipped: 0 };
        while left > 0 {
            let count = left.min(DATA_BYTES_MAX);
            if self.sending.is_used_up() {
                self.update_keys(out)?;
            }
            let take = |out: &mut Vec<u8>| parts.take(count, out);
            self.sending.seal_from(DATA, count, take, out);
            left -= count;
        }
        Ok(())
    }

    /// Changes the keys that we send with (TLS 1.3).
    pub fn update_keys(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.has_closed || self.fault.is_some() {
            return Err(Fault::Closed);
        }
        if self.version() == Version::Tls12 {
            return Err(Fault::KeysUsedUp);
        }
        self.sending
            .seal(HANDSHAKE, &message::key_update(false), out);
        self.sending.update();
        Ok(())
    }

    /// Says that we send no more. What the peer sends is still opened.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if !self.has_closed && self.fault.is_none() {
            self.has_closed = true;
            self.sending.seal(ALERT, &[WARNING, CLOSE_NOTIFY], out);
        }
    }

    /// Whole length of the record that the input begins with. None: it is not whole yet.
    fn length_of_record(&self, input: &[u8]) -> Result<Option<usize>, Fault> {
        let Some(header) = input.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let kind = header[0];
        let (is_expected, surplus) = match self.version() {
            // Everything is sealed, and looks like data.
            Version::Tls13 => (kind == DATA, SURPLUS_13),
            Version::Tls12 => (matches!(kind, ALERT | HANDSHAKE | DATA), SURPLUS_12),
        };
        if !is_expected || header[1..3] != VERSION {
            return Err(Fault::UnexpectedRecord { kind });
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length > DATA_BYTES_MAX + surplus {
            return Err(Fault::RecordTooLong);
        }
        let length = HEADER_BYTES + length;
        Ok((input.len() >= length).then_some(length))
    }

    fn take_control(&mut self, kind: u8, inside: &[u8], out: &mut Vec<u8>) -> Result<Event, Fault> {
        self.empty += 1;
        if self.empty > EMPTY_IN_A_ROW_MAX {
            return Err(Fault::Flood);
        }
        if kind != HANDSHAKE && !self.messages.is_between() {
            // The records of one message stand together (RFC 8446 section 5.1).
            return Err(Fault::UnexpectedRecord { kind });
        }
        match kind {
            ALERT => self.take_alert(inside),
            HANDSHAKE => {
                self.take_messages(inside, out)?;
                Ok(Event::Control)
            }
            DATA => Ok(Event::Control),
            kind => Err(Fault::UnexpectedRecord { kind }),
        }
    }

    fn take_alert(&mut self, alert: &[u8]) -> Result<Event, Fault> {
        let &[level, description] = alert else {
            return Err(Fault::Malformed);
        };
        let is_harmless = match self.version() {
            Version::Tls13 => description == USER_CANCELED,
            Version::Tls12 => level == WARNING,
        };
        match description {
            CLOSE_NOTIFY => {
                self.has_ended = true;
                Ok(Event::Ended)
            }
            _ if is_harmless => Ok(Event::Control),
            description => Err(Fault::Alert { description }),
        }
    }

    fn take_messages(&mut self, mut inside: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        if inside.is_empty() {
            return Err(Fault::Malformed);
        }
        while let Some(message) = self.messages.next(&mut inside)? {
            let kind = message.kind;
            match (self.version(), self.role, kind) {
                (Version::Tls13, _, message::KEY_UPDATE) => {
                    // Nothing behind it is sealed with the old key.
                    if !inside.is_empty() {
                        return Err(Fault::Malformed);
                    }
                    self.receiving.update();
                    if message.asks_for_update()? && !self.has_closed {
                        self.update_keys(out)?;
                    }
                }
                (Version::Tls13, Role::Client, message::NEW_SESSION_TICKET) => {}
                (Version::Tls12, Role::Client, message::HELLO_REQUEST)
                | (Version::Tls12, Role::Server, message::CLIENT_HELLO) => {
                    if !self.has_closed {
                        self.sending.seal(ALERT, &[WARNING, NO_RENEGOTIATION], out);
                    }
                }
                _ => return Err(Fault::UnexpectedMessage { kind }),
            }
        }
        Ok(())
    }

    fn fail(&mut self, fault: Fault, out: &mut Vec<u8>) -> Event {
        self.fault = Some(fault);
        if let Some(description) = fault.alert()
            && !self.has_closed
        {
            self.sending.seal(ALERT, &[FATAL, description], out);
        }
        Event::Failed(fault)
    }
}

impl fmt::Debug for Records {
    /// Without keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("role", &self.role)
            .field("version", &self.version())
            .field("suite", &self.suite())
            .field("received", &self.receiving.sequence)
            .field("sent", &self.sending.sequence)
            .field("has_ended", &self.has_ended)
            .field("has_closed", &self.has_closed)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}
