//! What is stuck: input that is not whole yet, output that the socket does not take. Memory is
//! owned only meanwhile.

use super::connection::Connection;
use crate::stuck;

impl Connection {
    /// Input that could not be used yet.
    pub fn stuck(&self) -> &[u8] {
        &self.stuck
    }

    /// Moves stuck input to the start of `scratch`; new bytes are read behind it. Returns its
    /// length. Should `scratch` be too short, because another program with a longer one was here
    /// before, the rest stays stuck, and nothing must be read until it has come along.
    pub fn take_stuck(&mut self, scratch: &mut [u8]) -> usize {
        stuck::take_into(&mut self.stuck, scratch)
    }

    /// Keeps input that a step did not consume: it comes before anything that is still stuck.
    pub fn keep_stuck(&mut self, rest: &[u8]) {
        stuck::keep_before(&mut self.stuck, rest);
    }

    /// Output that could not be sent yet.
    pub fn unsent(&self) -> &[u8] {
        &self.unsent
    }

    /// Keeps output that the socket did not take, at `now_us`.
    pub fn keep_unsent(&mut self, rest: &[u8], now_us: u64) {
        if self.unsent.is_empty() {
            self.sent_us = now_us;
        }
        self.unsent.extend_from_slice(rest);
        self.bound_replies();
    }

    /// `count` bytes of the unsent output were sent at `now_us`. Its memory goes back when all of
    /// it is. Ask [`Connection::next_writable`] next.
    pub fn sent(&mut self, count: usize, now_us: u64) {
        self.sent_us = now_us;
        stuck::take_front(&mut self.unsent, count);
        self.bound_replies();
    }

    /// There cannot be more replies than there is output.
    fn bound_replies(&mut self) {
        let unsent = u32::try_from(self.unsent.len()).unwrap_or(u32::MAX);
        self.replies = self.replies.min(unsent);
    }
}
