//! What is stuck: input that cannot be used yet, output that a socket does not take. Memory is
//! owned only meanwhile.

use super::connection::Connection;
use super::interface::Side;
use crate::stuck;

impl Connection {
    /// Input of a side that could not be used yet.
    pub fn stuck(&self, from: Side) -> &[u8] {
        &self.stuck[from.index()]
    }

    /// Moves stuck input to the start of `scratch`; new bytes are read behind it. Returns its
    /// length. Should `scratch` be too short, because another program with a longer one was here
    /// before, the rest stays stuck, and nothing must be read until it has come along.
    pub fn take_stuck(&mut self, from: Side, scratch: &mut [u8]) -> usize {
        stuck::take_into(&mut self.stuck[from.index()], scratch)
    }

    /// Keeps input that a step did not consume: it comes before anything that is still stuck.
    pub fn keep_stuck(&mut self, from: Side, rest: &[u8]) {
        stuck::keep_before(&mut self.stuck[from.index()], rest);
    }

    /// Output for a side that could not be sent yet.
    pub fn unsent(&self, to: Side) -> &[u8] {
        &self.unsent[to.index()]
    }

    /// Keeps output that the socket did not take.
    pub fn keep_unsent(&mut self, to: Side, rest: &[u8]) {
        if !rest.is_empty() {
            self.unsent[to.index()].extend_from_slice(rest);
        }
    }

    /// `count` bytes of the unsent output were sent at `now_us`. Its memory goes back when all of
    /// it is.
    pub fn sent(&mut self, to: Side, count: usize, now_us: u64) {
        self.since_us[to.index()] = now_us;
        stuck::take_front(&mut self.unsent[to.index()], count);
    }

    /// All stuck input of a side, its memory included.
    pub(super) fn take_input(&mut self, from: Side) -> Vec<u8> {
        std::mem::take(&mut self.stuck[from.index()])
    }

    /// Gives input back of which `consumed` bytes are done with.
    pub(super) fn keep_input(&mut self, from: Side, mut input: Vec<u8>, consumed: usize) {
        if consumed < input.len() {
            input.drain(..consumed);
            self.stuck[from.index()] = input;
        }
    }

    /// The member is gone: its bytes, either way, are nobody's any more.
    pub fn forget_member(&mut self) {
        self.stuck[1] = Vec::new();
        self.unsent[1] = Vec::new();
        self.has_ended[1] = false;
        self.scanned[1] = 0;
    }
}
