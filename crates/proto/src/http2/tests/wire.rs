//! Frames and blocks as a peer writes them, right or wrong.

use crate::http2::frame::{self, Kind, flag};
use crate::http2::{ErrorCode, Setting};

/// Fields of a plain GET.
pub(super) const GET: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "x.test"),
];

/// Fields of a plain POST.
pub(super) const POST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "x.test"),
];

pub(super) const OK: &[(&str, &str)] = &[(":status", "200")];

/// A block of literals that touch no table.
pub(super) fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            match text.len() {
                len @ 0..127 => block.push(len as u8),
                len => {
                    block.push(127);
                    let mut left = len - 127;
                    while left > 127 {
                        block.push((left & 127) as u8 | 128);
                        left >>= 7;
                    }
                    block.push(left as u8);
                }
            }
            block.extend_from_slice(text);
        }
    }
    block
}

pub(super) fn raw(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(kind, flags, stream, payload, &mut out);
    out
}

pub(super) fn headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    stream: u32,
    fields: &[(N, V)],
    ends: bool,
) -> Vec<u8> {
    let flags = flag::END_HEADERS | u8::from(ends);
    raw(Kind::Headers, flags, stream, &block(fields))
}

pub(super) fn data(stream: u32, data: &[u8], ends: bool) -> Vec<u8> {
    raw(Kind::Data, ends.into(), stream, data)
}

pub(super) fn padded(stream: u32, data: &[u8], padding: u8, ends: bool) -> Vec<u8> {
    let mut payload = vec![padding];
    payload.extend_from_slice(data);
    payload.resize(payload.len() + usize::from(padding), 0);
    raw(Kind::Data, flag::PADDED | u8::from(ends), stream, &payload)
}

pub(super) fn reset(stream: u32, code: ErrorCode) -> Vec<u8> {
    raw(Kind::RstStream, 0, stream, &code.0.to_be_bytes())
}

pub(super) fn window(stream: u32, bytes: u32) -> Vec<u8> {
    raw(Kind::WindowUpdate, 0, stream, &bytes.to_be_bytes())
}

pub(super) fn ping() -> Vec<u8> {
    raw(Kind::Ping, 0, 0, b"pingpong")
}

pub(super) fn setting(id: u16, value: u32) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write_settings(&[Setting { id, value }], &mut out);
    out
}

pub(super) fn settings() -> Vec<u8> {
    raw(Kind::Settings, 0, 0, &[])
}

pub(super) fn ack() -> Vec<u8> {
    raw(Kind::Settings, flag::ACK, 0, &[])
}

/// What a polite client begins with, our settings acknowledged.
pub(super) fn hello() -> Vec<u8> {
    [frame::PREFACE.to_vec(), settings(), ack()].concat()
}

/// What a polite server begins with.
pub(super) fn welcome() -> Vec<u8> {
    [settings(), ack()].concat()
}

/// A frame of our output, for tests to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// Cuts output into frames; a preface at its start is left out.
pub(super) fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    bytes = bytes.strip_prefix(frame::PREFACE).unwrap_or(bytes);
    let mut frames = Vec::new();
    while let Some(header) = frame::Header::parse(bytes) {
        let whole = frame::HEADER_BYTES + header.len as usize;
        frames.push(Frame {
            kind: header.kind,
            flags: header.flags,
            stream: header.stream,
            payload: bytes[frame::HEADER_BYTES..whole].to_vec(),
        });
        bytes = &bytes[whole..];
    }
    assert!(bytes.is_empty(), "output ends inside a frame");
    frames
}

/// Pieces of `bytes`, cut at these places.
pub(super) fn pieces(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        let cut = cut.min(bytes.len());
        if cut > start {
            pieces.push(bytes[start..cut].to_vec());
            start = cut;
        }
    }
    pieces
}
