//! What is stuck: a record that is not whole yet, output that the socket does not take. Memory is
//! owned only meanwhile.

use super::connection::{Event, Records};
use crate::stuck;

impl Records {
    /// Input that could not be used yet.
    pub fn stuck(&self) -> &[u8] {
        &self.stuck
    }

    /// Moves stuck input to the start of `scratch`; new bytes are read behind it. Returns its
    /// length. Should `scratch` be too short, the rest stays stuck, and nothing must be read until
    /// it has come along.
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

    /// Keeps output that the socket did not take.
    pub fn keep_unsent(&mut self, rest: &[u8]) {
        self.unsent.extend_from_slice(rest);
    }

    /// `count` bytes of the unsent output were sent. Its memory goes back when all of it is.
    pub fn sent(&mut self, count: usize) {
        stuck::take_front(&mut self.unsent, count);
    }

    /// Takes input.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.stuck.extend_from_slice(bytes);
    }

    /// Steps over what was fed, up to the next event. Data is appended to `plain`.
    pub fn poll_event(&mut self, plain: &mut Vec<u8>) -> Event {
        let mut input = std::mem::take(&mut self.stuck);
        let mut out = std::mem::take(&mut self.unsent);
        let step = self.step(&mut input, &mut out);
        self.unsent = out;
        plain.extend_from_slice(&input[step.data]);
        input.drain(..step.consumed);
        if !input.is_empty() {
            self.stuck = input;
        }
        step.event
    }

    /// Output for the peer; tell [`Records::sent`] how much of it went out.
    pub fn poll_output(&self) -> &[u8] {
        self.unsent()
    }
}
