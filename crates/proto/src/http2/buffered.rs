//! The same machine with its buffers inside: the easy way, for tests, monitors and anything not
//! hot.

use super::connection::Connection;
use super::interface::{Context, Event, Work};

impl Connection {
    /// Takes input.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.stuck.extend_from_slice(bytes);
    }

    /// Steps over what was fed, up to the next event. Body bytes are appended to `body`.
    pub fn poll_event(&mut self, cx: &Context<'_>, work: &mut Work, body: &mut Vec<u8>) -> Event {
        let mut input = std::mem::take(&mut self.stuck);
        work.out.clear();
        let step = self.step(cx, &input, work);
        body.extend_from_slice(&input[step.data]);
        input.drain(..step.consumed);
        if !input.is_empty() {
            self.stuck = input;
        }
        self.take_output(work, cx.now_us);
        step.event
    }

    /// Keeps what calls have appended to [`Work::out`].
    pub fn take_output(&mut self, work: &mut Work, now_us: u64) {
        self.keep_unsent(&work.out, now_us);
        work.out.clear();
    }

    /// Output for the peer; tell [`Connection::sent`] how much of it went out.
    pub fn poll_output(&self) -> &[u8] {
        self.unsent()
    }
}
