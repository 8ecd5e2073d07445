//! Bodies: where they end, and how their bytes go on.
//!
//! ```text
//! Length(n) ── n bytes ──────────────────────────────► Empty
//! Line ─ size>0 ─► Data(n) ─ n bytes ─► DataEnd ─ CRLF ─► Line
//!   └─── size=0 ─► Trailers ─ empty line ───────────────► Empty
//! UntilClose ── the sender's end of stream ──────────► Empty
//! ```
//!
//! A size line, a chunk's CRLF and a trailer section are taken whole or not at all: what is not
//! there yet stays with the caller, so no state exists inside of them.

use std::ops::Range;

use super::chunk::{SizeLine, judge_trailers, push_size_line};
use super::head::{Head, end_of_head};
use super::limits::Limits;
use super::pass::{COPY_BYTES_MAX, Pass};
use super::refusal::Refusal;

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
        head.section = 0..0;
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
                head.section = pass.at..pass.at + len;
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
