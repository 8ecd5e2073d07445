//! Output of a pass over a body: runs of the input that go on unchanged, and what is written
//! between them.

use std::ops::Range;

use super::body::Wire;
use super::chunk::push_size_line;

/// Up to here bytes are copied behind what is in the output already; longer runs are handed out as
/// a range of the input. 2 KiB: a copy costs then about what a second piece in `writev` costs.
pub(super) const COPY_BYTES_MAX: usize = 2_048;

/// One pass: bytes that go on unchanged and follow each other in the input form a run.
pub(super) struct Pass<'i, 'o> {
    pub(super) input: &'i [u8],
    pub(super) out: &'o mut Vec<u8>,
    pub(super) at: usize,
    pub(super) run: Range<usize>,
}

impl Pass<'_, '_> {
    /// Takes data. False: the output has to be sent first.
    pub(super) fn data(&mut self, len: usize, wire: Wire) -> bool {
        if wire != Wire::Discard && !self.extend_run(len) {
            return false;
        }
        self.at += len;
        true
    }

    /// Takes framing; with `canonical` that size line goes on instead. False: the output has to be
    /// sent first.
    pub(super) fn framing(&mut self, len: usize, canonical: Option<u64>, wire: Wire) -> bool {
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
