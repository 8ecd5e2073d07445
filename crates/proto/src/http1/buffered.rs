//! The same machine with its buffers inside: the easy way, for tests, monitors and anything not
//! hot.

use super::connection::Connection;
use super::interface::{Context, Event, Side, Work};

/// Output that may wait for a slow reader before [`Connection::poll_event`] stops. With input of
/// one scratch buffer per step this bounds a connection's memory at this plus that buffer, each
/// way.
const UNSENT_BYTES_MAX: usize = 65_536;

impl Connection {
    /// Takes input of a side.
    pub fn feed(&mut self, from: Side, bytes: &[u8]) {
        self.stuck[from.index()].extend_from_slice(bytes);
    }

    /// Steps over what was fed, up to the next event. [`Event::Wait`] also if the other side's
    /// output has to be sent first. After [`Event::Request`] call [`Connection::pass_request`] or
    /// [`Connection::answer_request`], after [`Event::Response`] [`Connection::pass_response`].
    pub fn poll_event(&mut self, from: Side, cx: &Context<'_>, work: &mut Work) -> Event {
        if self.unsent(from.other()).len() > UNSENT_BYTES_MAX {
            return Event::Wait;
        }
        let input = self.take_input(from);
        work.out.clear();
        let step = self.step(from, cx, &input, work);
        self.keep_unsent(from.other(), &work.out);
        self.keep_unsent(from.other(), &input[step.tail]);
        self.keep_input(from, input, step.consumed);
        step.event
    }

    /// [`Connection::forward_request`] on what was fed.
    pub fn pass_request(&mut self, cx: &Context<'_>, work: &mut Work) {
        let input = self.take_input(Side::Client);
        work.out.clear();
        let consumed = self.forward_request(cx, &input, work);
        self.keep_unsent(Side::Member, &work.out);
        self.keep_input(Side::Client, input, consumed);
    }

    /// [`Connection::answer`] on what was fed.
    pub fn answer_request(&mut self, cx: &Context<'_>, work: &mut Work, status: u16) {
        let input = self.take_input(Side::Client);
        work.out.clear();
        let consumed = self.answer(cx, &input, work, status);
        self.keep_unsent(Side::Client, &work.out);
        self.keep_input(Side::Client, input, consumed);
    }

    /// [`Connection::forward_response`] on what was fed.
    pub fn pass_response(&mut self, cx: &Context<'_>, work: &mut Work) {
        let input = self.take_input(Side::Member);
        work.out.clear();
        let consumed = self.forward_response(cx, &input, work);
        self.keep_unsent(Side::Client, &work.out);
        self.keep_input(Side::Member, input, consumed);
    }

    /// Output for a side; tell [`Connection::sent`] how much of it went out.
    pub fn poll_output(&self, to: Side) -> &[u8] {
        self.unsent(to)
    }
}
