//! Frames (RFC 9113 section 4 and 6): reading their parts, writing them.
//!
//! A header is read as soon as its nine bytes are there, a payload only when it is whole; DATA and
//! frames of unknown kinds are the exception, which the connection passes on or drops as they come.

use super::fault::{ErrorCode, Fault};
use super::settings::Setting;

/// Bytes of every frame's header.
pub const HEADER_BYTES: usize = 9;
/// Largest payload that we take, and the least that every peer takes.
pub const PAYLOAD_BYTES_MAX: usize = 16_384;
/// What a client opens its connection with.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Largest flow-control window.
pub const WINDOW_BYTES_MAX: u32 = 0x7fff_ffff;
/// Largest stream identifier.
pub const STREAM_MAX: u32 = 0x7fff_ffff;

/// Kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// To be ignored.
    Unknown(u8),
}

impl Kind {
    fn of(byte: u8) -> Kind {
        match byte {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::RstStream,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            other => Kind::Unknown(other),
        }
    }

    fn byte(self) -> u8 {
        match self {
            Kind::Data => 0,
            Kind::Headers => 1,
            Kind::Priority => 2,
            Kind::RstStream => 3,
            Kind::Settings => 4,
            Kind::PushPromise => 5,
            Kind::Ping => 6,
            Kind::GoAway => 7,
            Kind::WindowUpdate => 8,
            Kind::Continuation => 9,
            Kind::Unknown(other) => other,
        }
    }
}

/// Flags, by the kind that has them.
pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the payload.
    pub len: u32,
    pub kind: Kind,
    pub flags: u8,
    pub stream: u32,
}

impl Header {
    /// Reads a header. None: it is not whole.
    pub fn parse(input: &[u8]) -> Option<Header> {
        let [a, b, c, kind, flags, stream @ ..] = input.first_chunk::<HEADER_BYTES>()?;
        Some(Header {
            len: u32::from_be_bytes([0, *a, *b, *c]),
            kind: Kind::of(*kind),
            flags: *flags,
            stream: u32::from_be_bytes(*stream) & STREAM_MAX,
        })
    }

    pub fn bytes(&self) -> [u8; HEADER_BYTES] {
        let [_, a, b, c] = self.len.to_be_bytes();
        let [s, t, u, v] = self.stream.to_be_bytes();
        [a, b, c, self.kind.byte(), self.flags, s, t, u, v]
    }

    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes());
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The stream that another depends on, and weight: read for its form only, since priorities of this
/// kind are deprecated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priority {
    pub parent: u32,
}

impl Priority {
    pub fn parse(payload: &[u8; 5]) -> Priority {
        let [a, b, c, d, _] = *payload;
        Priority {
            parent: u32::from_be_bytes([a, b, c, d]) & STREAM_MAX,
        }
    }
}

/// A HEADERS payload without its padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    pub priority: Option<Priority>,
    pub block: &'a [u8],
}

impl<'a> Headers<'a> {
    pub fn parse(header: &Header, mut payload: &'a [u8]) -> Result<Headers<'a>, Fault> {
        let mut padding = 0;
        if header.has(flag::PADDED) {
            let (&first, rest) = payload.split_first().ok_or(Fault::FrameSize)?;
            (padding, payload) = (usize::from(first), rest);
        }
        let mut priority = None;
        if header.has(flag::PRIORITY) {
            let (first, rest) = payload.split_first_chunk().ok_or(Fault::FrameSize)?;
            (priority, payload) = (Some(Priority::parse(first)), rest);
        }
        let len = payload.len().checked_sub(padding).ok_or(Fault::Padding)?;
        Ok(Headers {
            priority,
            block: &payload[..len],
        })
    }
}

/// The one number that RST_STREAM and WINDOW_UPDATE carry.
pub fn parse_number(payload: &[u8]) -> Result<u32, Fault> {
    let number = payload.try_into().map_err(|_| Fault::FrameSize)?;
    Ok(u32::from_be_bytes(number))
}

/// A GOAWAY payload: last stream and reason.
pub fn parse_go_away(payload: &[u8]) -> Result<(u32, ErrorCode), Fault> {
    let [a, b, c, d, e, f, g, h] = *payload.first_chunk::<8>().ok_or(Fault::FrameSize)?;
    let last = u32::from_be_bytes([a, b, c, d]) & STREAM_MAX;
    Ok((last, ErrorCode(u32::from_be_bytes([e, f, g, h]))))
}

/// The settings of a SETTINGS payload, in order.
pub fn settings(payload: &[u8]) -> Result<impl Iterator<Item = Setting> + Clone, Fault> {
    let (settings, rest) = payload.as_chunks::<6>();
    if !rest.is_empty() {
        return Err(Fault::FrameSize);
    }
    Ok(settings.iter().map(|[a, b, c, d, e, f]| Setting {
        id: u16::from_be_bytes([*a, *b]),
        value: u32::from_be_bytes([*c, *d, *e, *f]),
    }))
}

/// Appends a frame with a payload.
pub fn write(kind: Kind, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    let header = Header {
        len: payload.len() as u32,
        kind,
        flags,
        stream,
    };
    header.write(out);
    out.extend_from_slice(payload);
}

pub fn write_settings(settings: &[Setting], out: &mut Vec<u8>) {
    let header = Header {
        len: (6 * settings.len()) as u32,
        kind: Kind::Settings,
        flags: 0,
        stream: 0,
    };
    header.write(out);
    for setting in settings {
        out.extend_from_slice(&setting.id.to_be_bytes());
        out.extend_from_slice(&setting.value.to_be_bytes());
    }
}

pub fn write_settings_ack(out: &mut Vec<u8>) {
    write(Kind::Settings, flag::ACK, 0, &[], out);
}

pub fn write_ping(payload: [u8; 8], is_ack: bool, out: &mut Vec<u8>) {
    write(Kind::Ping, is_ack.into(), 0, &payload, out);
}

pub fn write_reset(stream: u32, code: ErrorCode, out: &mut Vec<u8>) {
    write(Kind::RstStream, 0, stream, &code.0.to_be_bytes(), out);
}

pub fn write_window_update(stream: u32, bytes: u32, out: &mut Vec<u8>) {
    write(Kind::WindowUpdate, 0, stream, &bytes.to_be_bytes(), out);
}

pub fn write_go_away(last: u32, code: ErrorCode, out: &mut Vec<u8>) {
    let mut payload = [0; 8];
    payload[..4].copy_from_slice(&last.to_be_bytes());
    payload[4..].copy_from_slice(&code.0.to_be_bytes());
    write(Kind::GoAway, 0, 0, &payload, out);
}

/// Appends the header of a DATA frame; the caller appends `len` bytes.
pub fn write_data_header(stream: u32, len: usize, ends: bool, out: &mut Vec<u8>) {
    let header = Header {
        len: len as u32,
        kind: Kind::Data,
        flags: if ends { flag::END_STREAM } else { 0 },
        stream,
    };
    header.write(out);
}

/// Makes the block that `out` has from `start` on, behind nine bytes left free, into a HEADERS
/// frame and as many CONTINUATION frames as the peer's largest payload asks for.
pub fn frame_block(stream: u32, start: usize, ends: bool, payload_max: usize, out: &mut Vec<u8>) {
    let block = start + HEADER_BYTES;
    let len = out.len() - block;
    let end_stream = if ends { flag::END_STREAM } else { 0 };
    if len <= payload_max {
        let header = Header {
            len: len as u32,
            kind: Kind::Headers,
            flags: end_stream | flag::END_HEADERS,
            stream,
        };
        out[start..block].copy_from_slice(&header.bytes());
        return;
    }
    let whole = out.split_off(start);
    let mut pieces = whole[HEADER_BYTES..].chunks(payload_max).peekable();
    let mut kind = Kind::Headers;
    let mut flags = end_stream;
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            flags |= flag::END_HEADERS;
        }
        write(kind, flags, stream, piece, out);
        (kind, flags) = (Kind::Continuation, 0);
    }
}
