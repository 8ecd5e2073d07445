//! Bodies: where they end, and how their bytes go on.
//!
//! ```text
//! Length(n) ── n bytes ──────────────────────────────► Empty
//! Line ─ size>0 ─► Data(n) ─ n bytes ─► DataEnd ─ CRLF ─► Line
//!   └─── size=0 ─► Trailers ─ empty line ───────────────► Empty
//! UntilClose ── the sender's end of stream ──────────► Empty
//! ```
//!
//! A size line, a chunk's CRLF and a trailer section are taken whole or not at all: what is not there yet stays
//! with the caller, so no state exists inside of them.

use std::ops::Range;

use super::field::FieldId;
use super::head::{Head, end_of_head, parse_trailers};
use super::limits::Limits;
use super::refusal::Refusal;

/// Up to here bytes are copied behind what is in the output already; longer runs are handed out as a range of
/// the input. 2 KiB: a copy costs then about what a second piece in `writev` costs.
const COPY_BYTES_MAX: usize = 2_048;

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Empty,
    Length(u64),
    Line,
    Data(u64),
    DataEnd,
    Trailers,
    UntilClose,
}

/// How the body goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// Framed as it came, size lines in their shortest form, extensions left out.
    Same,
    /// Data alone: for a receiver that does not know chunks.
    Plain,
    /// Every piece of a body without framing becomes a chunk.
    Chunks,
    /// Read and dropped.
    Discard,
}

/// One body on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) left: Left,
    pub(super) wire: Wire,
    /// With [`Wire::Chunks`]: the last chunk still lacks its CRLF.
    pub(super) owes_line_end: bool,
    pub(super) extension_bytes: u32,
    /// Data bytes that the sender declared or sent.
    pub(super) bytes: u64,
}

/// What a pass over input did. Output is what was appended to the buffer, then `tail` of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) consumed: usize,
    pub(super) tail: Range<usize>,
}

impl Body {
    pub(super) fn new(left: Left, wire: Wire) -> Body {
        let bytes = match left {
            Left::Length(length) => length,
            _ => 0,
        };
        // A body of length 0 is none.
        let left = if left == Left::Length(0) {
            Left::Empty
        } else {
            left
        };
        Body {
            left,
            wire,
            owes_line_end: false,
            extension_bytes: 0,
            bytes,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.left == Left::Empty
    }

    /// Passes as much of `input` on as it can.
    pub(super) fn pass(
        &mut self,
        input: &[u8],
        bytes_max: u64,
        limits: &Limits,
        head: &mut Head,
        out: &mut Vec<u8>,
    ) -> Result<Passed, Refusal> {
        let mut pass = Pass {
            input,
            out,
            at: 0,
            run: 0..0,
        };
        while self.element(&mut pass, bytes_max, limits, head)? {}
        let Pass { at, run, .. } = pass;
        if run.len() > COPY_BYTES_MAX {
            return Ok(Passed {
                consumed: at,
                tail: run,
            });
        }
        out.extend_from_slice(&input[run]);
        Ok(Passed {
            consumed: at,
            tail: at..at,
        })
    }

    /// The sender ended its stream: true if that is the body's end.
    pub(super) fn end_of_stream(&mut self, out: &mut Vec<u8>) -> bool {
        if self.left != Left::UntilClose {
            return false;
        }
        if self.wire == Wire::Chunks {
            let last: &[u8] = if self.owes_line_end {
                b"\r\n0\r\n\r\n"
            } else {
                b"0\r\n\r\n"
            };
            out.extend_from_slice(last);
        }
        self.left = Left::Empty;
        true
    }

    /// Handles one element of the framing. False: the input is used up, or the output full.
    fn element(
        &mut self,
        pass: &mut Pass<'_, '_>,
        bytes_max: u64,
        limits: &Limits,
        head: &mut Head,
    ) -> Result<bool, Refusal> {
        let there = pass.input.len() - pass.at;
        match self.left {
            Left::Empty => Ok(false),
            Left::Length(left) => {
                let taken = usize::try_from(left).map_or(there, |left| left.min(there));
                let is_taken = taken > 0 && pass.data(taken, self.wire);
                if is_taken {
                    self.left = match left - taken as u64 {
                        0 => Left::Empty,
                        left => Left::Length(left),
                    };
                }
                Ok(is_taken)
            }
            Left::Data(left) => {
                let taken = usize::try_from(left).map_or(there, |left| left.min(there));
                let is_taken = taken > 0 && pass.data(taken, self.wire);
                if is_taken {
                    self.left = match left - taken as u64 {
                        0 => Left::DataEnd,
                        left => Left::Data(left),
                    };
                }
                Ok(is_taken)
            }
            Left::DataEnd => match &pass.input[pass.at..] {
                [b'\r', b'\n', ..] => {
                    let is_taken = pass.framing(2, None, self.wire);
                    if is_taken {
                        self.left = Left::Line;
                    }
                    Ok(is_taken)
                }
                [] | [b'\r'] => Ok(false),
                _ => Err(Refusal::ChunkEnd),
            },
            Left::Line => self.size_line(pass, bytes_max, limits),
            Left::Trailers => self.trailers(pass, limits, head),
            Left::UntilClose => self.until_close(pass, there, bytes_max),
        }
    }

    fn size_line(
        &mut self,
        pass: &mut Pass<'_, '_>,
        bytes_max: u64,
        limits: &Limits,
    ) -> Result<bool, Refusal> {
        let rest = &pass.input[pass.at..];
        let window = &rest[..rest.len().min(limits.chunk_line_bytes_max)];
        let Some(line_end) = window.iter().position(|&byte| byte == b'\n') else {
            return match window.len() < limits.chunk_line_bytes_max {
                true => Ok(false),
                false => Err(Refusal::ChunkSize),
            };
        };
        let line = window[..line_end]
            .strip_suffix(b"\r")
            .ok_or(Refusal::ChunkSize)?;
        let size = SizeLine::parse(line)?;
        let extension_bytes = self.extension_bytes.saturating_add(size.extension_bytes);
        if extension_bytes > limits.chunk_extension_bytes_max {
            return Err(Refusal::ChunkExtensions);
        }
        let bytes = self.bytes.saturating_add(size.value);
        if bytes > bytes_max {
            return Err(Refusal::BodyTooLarge);
        }
        let canonical = if size.is_canonical {
            None
        } else {
            Some(size.value)
        };
        if !pass.framing(line_end + 1, canonical, self.wire) {
            return Ok(false);
        }
        self.extension_bytes = extension_bytes;
        self.bytes = bytes;
        self.left = match size.value {
            0 => Left::Trailers,
            value => Left::Data(value),
        };
        Ok(true)
    }

    fn trailers(
        &mut self,
        pass: &mut Pass<'_, '_>,
        limits: &Limits,
        head: &mut Head,
    ) -> Result<bool, Refusal> {
        let rest = &pass.input[pass.at..];
        let len = match rest {
            [] | [b'\r'] => return Ok(false),
            [b'\r', b'\n', ..] => 2,
            // Not the end, and no field starts like this.
            [b'\r' | b'\n', ..] => return Err(Refusal::Trailer),
            _ => {
                let window = &rest[..rest.len().min(limits.trailer_bytes_max)];
                let Some(len) = end_of_head(window, 0) else {
                    return match window.len() < limits.trailer_bytes_max {
                        true => Ok(false),
                        false => Err(Refusal::TrailerTooLarge),
                    };
                };
                judge_trailers(&window[..len], head)?;
                len
            }
        };
        let is_taken = pass.framing(len, None, self.wire);
        if is_taken {
            self.left = Left::Empty;
        }
        Ok(is_taken)
    }

    fn until_close(
        &mut self,
        pass: &mut Pass<'_, '_>,
        there: usize,
        bytes_max: u64,
    ) -> Result<bool, Refusal> {
        if there == 0 {
            return Ok(false);
        }
        let bytes = self.bytes.saturating_add(there as u64);
        if bytes > bytes_max {
            return Err(Refusal::BodyTooLarge);
        }
        if self.wire == Wire::Chunks {
            if self.owes_line_end {
                pass.out.extend_from_slice(b"\r\n");
            }
            push_size_line(pass.out, there as u64);
            self.owes_line_end = true;
        }
        self.bytes = bytes;
        Ok(pass.data(there, self.wire))
    }
}

/// One pass: bytes that go on unchanged and follow each other in the input form a run.
struct Pass<'i, 'o> {
    input: &'i [u8],
    out: &'o mut Vec<u8>,
    at: usize,
    run: Range<usize>,
}

impl Pass<'_, '_> {
    /// Takes data. False: the output has to be sent first.
    fn data(&mut self, len: usize, wire: Wire) -> bool {
        if wire != Wire::Discard && !self.extend_run(len) {
            return false;
        }
        self.at += len;
        true
    }

    /// Takes framing; with `canonical` that size line goes on instead. False: the output has to be sent first.
    fn framing(&mut self, len: usize, canonical: Option<u64>, wire: Wire) -> bool {
        if wire == Wire::Same {
            match canonical {
                None if !self.extend_run(len) => return false,
                None => {}
                Some(_) if !self.flush_run() => return false,
                Some(value) => push_size_line(self.out, value),
            }
        }
        self.at += len;
        true
    }

    fn extend_run(&mut self, len: usize) -> bool {
        if self.run.end != self.at && !self.flush_run() {
            return false;
        }
        if self.run.is_empty() {
            self.run.start = self.at;
        }
        self.run.end = self.at + len;
        true
    }

    fn flush_run(&mut self) -> bool {
        if self.run.len() > COPY_BYTES_MAX {
            return false;
        }
        self.out.extend_from_slice(&self.input[self.run.clone()]);
        self.run = self.at..self.at;
        true
    }
}

struct SizeLine {
    value: u64,
    /// In its shortest form and without extensions.
    is_canonical: bool,
    extension_bytes: u32,
}

impl SizeLine {
    /// Parses a line without its CRLF.
    fn parse(line: &[u8]) -> Result<SizeLine, Refusal> {
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        // 15 digits: sums of two sizes cannot overflow 64 bits.
        if digits == 0 || digits > 15 {
            return Err(Refusal::ChunkSize);
        }
        let value = line[..digits].iter().fold(0, |value, &byte| {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                _ => (byte | 0x20) - b'a' + 10,
            };
            value << 4 | u64::from(digit)
        });
        let extension = &line[digits..];
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let starts_well = match extension.iter().find(|byte| !is_blank(byte)) {
            Some(&first) => first == b';',
            None => extension.is_empty(),
        };
        let is_text = |byte: &u8| is_blank(byte) || (*byte > 0x20 && *byte != 0x7f);
        if !starts_well || !extension.iter().all(is_text) {
            return Err(Refusal::ChunkSize);
        }
        Ok(SizeLine {
            value,
            is_canonical: extension.is_empty() && (line[0] != b'0' || digits == 1),
            extension_bytes: extension.len() as u32,
        })
    }
}

fn push_size_line(out: &mut Vec<u8>, value: u64) {
    let digits = (64 - (value | 1).leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * place) & 15) as usize]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Refuses a trailer section that frames, routes or authorises: it comes after the decision on these.
fn judge_trailers(section: &[u8], head: &mut Head) -> Result<(), Refusal> {
    if !section.ends_with(b"\r\n\r\n") {
        return Err(Refusal::Trailer);
    }
    parse_trailers(head, section)?;
    let is_refused = |name: &[u8], id: FieldId| {
        const NAMES: [&[u8]; 8] = [
            b"authorization",
            b"proxy-authorization",
            b"cookie",
            b"set-cookie",
            b"content-encoding",
            b"content-type",
            b"content-range",
            b"cache-control",
        ];
        !matches!(id, FieldId::Other | FieldId::Date)
            || NAMES
                .iter()
                .any(|refused| name.eq_ignore_ascii_case(refused))
    };
    match head
        .fields()
        .iter()
        .any(|field| is_refused(field.name.bytes(section), field.id))
    {
        true => Err(Refusal::TrailerField),
        false => Ok(()),
    }
}
