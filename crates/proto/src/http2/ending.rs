//! What is overdue, and what is done about it.

use super::connection::{Connection, Phase};
use super::fault::{Fault, Refusal};
use super::interface::{Context, Deadline, Event, Overdue, Role, Work};
use super::limits::Limits;
use super::stream::{Blocked, Half, Stream};

impl Connection {
    /// The next moment at which something is overdue. None: nothing is.
    pub fn deadline(&self, limits: &Limits) -> Option<Deadline> {
        let at = |since: u64, time: u64, reason| Deadline {
            at_us: since.saturating_add(time),
            reason,
        };
        if self.phase == Phase::Failed {
            return None;
        }
        let of_connection = if self.phase != Phase::Open || !self.is_acknowledged {
            let reason = Overdue::Connection(Fault::SettingsTimeout);
            Some(at(self.since_us, limits.settings_time_us, reason))
        } else if let Some(block) = &self.block {
            let reason = Overdue::Connection(Fault::BlockTimeout);
            Some(at(block.since_us, limits.head_time_us, reason))
        } else if !self.unsent.is_empty() {
            let reason = Overdue::Connection(Fault::Unread);
            Some(at(self.sent_us, limits.body_time_us, reason))
        } else if self.streams.is_empty() {
            Some(at(self.since_us, limits.idle_time_us, Overdue::Idle))
        } else {
            None
        };
        let of_streams = self.streams.iter().filter_map(|stream| {
            let (time, refusal) = self.waits_for(stream, limits)?;
            Some(at(
                stream.since_us,
                time,
                Overdue::Stream(stream.id, refusal),
            ))
        });
        of_connection
            .into_iter()
            .chain(of_streams)
            .min_by_key(|deadline| deadline.at_us)
    }

    /// What a stream waits for from the peer. None: nothing, others are to act.
    fn waits_for(&self, stream: &Stream, limits: &Limits) -> Option<(u64, Refusal)> {
        if stream.is_tunnel && stream.local != Half::Head && stream.blocked == Blocked::No {
            return None;
        }
        if stream.blocked == Blocked::Window
            || (stream.blocked == Blocked::Turn && self.send_window <= 0)
        {
            return Some((limits.body_time_us, Refusal::WindowStalls));
        }
        // What the caller holds is not the peer's delay, unless there is a window left beside it.
        if stream.remote == Half::Body && stream.recv_window > 0 && stream.held == 0 {
            return Some((limits.body_time_us, Refusal::PeerStalls));
        }
        let awaits_response = self.role == Role::Client && stream.local == Half::Done;
        match awaits_response && stream.remote == Half::Head {
            true => Some((limits.response_time_us, Refusal::ResponseTimeout)),
            false => None,
        }
    }

    /// Does what is overdue, one thing each time; [`Event::NeedMore`] if nothing is.
    pub fn expire(&mut self, cx: &Context<'_>, work: &mut Work) -> Event {
        let due = self
            .deadline(cx.limits)
            .filter(|deadline| deadline.at_us <= cx.now_us);
        match due.map(|deadline| deadline.reason) {
            None => Event::NeedMore,
            Some(Overdue::Idle) => Event::Closed,
            Some(Overdue::Connection(fault)) => self.fail(fault, &mut work.out),
            Some(Overdue::Stream(id, refusal)) => {
                match self.refuse_stream(id, refusal, cx, &mut work.out) {
                    Ok(event) => event.unwrap_or(Event::NeedMore),
                    Err(fault) => self.fail(fault, &mut work.out),
                }
            }
        }
    }
}
