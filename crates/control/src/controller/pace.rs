//! How fast a drain's connections end, and when the last may have ended: from counts, honestly.
//!
//! Connections end when their clients want. A rate that was seen is a fact; that it goes on is a
//! guess, and of streams that never end there is no guess at all. So an end is told only where
//! connections do end, or where a deadline makes them.

use std::collections::VecDeque;

use hitless_api::{AtDeadline, Drain};

/// How long a count is remembered: the rate is that of the last half minute.
const WINDOW_US: u64 = 30_000_000;
/// Guests count twice a second: over less than this a rate says nothing.
const WINDOW_MIN_US: u64 = 3_000_000;
/// A sample every so often: 60 per drain.
const SAMPLE_US: u64 = 500_000;

/// Counts of one drain.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    samples: VecDeque<(u64, u64)>,
}

impl Pace {
    /// So many are left now.
    pub(super) fn note(&mut self, now_us: u64, left: u64) {
        let is_due = |(at, _): &(u64, u64)| now_us.saturating_sub(*at) >= SAMPLE_US;
        if self.samples.back().is_none_or(is_due) {
            self.samples.push_back((now_us, left));
        }
        while self
            .samples
            .front()
            .is_some_and(|(at, _)| now_us.saturating_sub(*at) > WINDOW_US)
        {
            self.samples.pop_front();
        }
    }

    /// Connections that ended, and in how many microseconds. None: too early to tell.
    fn ended(&self, now_us: u64, left: u64) -> Option<(u64, u64)> {
        let (since, before) = *self.samples.front()?;
        let seen = now_us.saturating_sub(since);
        (seen >= WINDOW_MIN_US).then(|| (before.saturating_sub(left), seen))
    }

    /// What can be said by now. `left` is none if a guest has not counted yet.
    pub(super) fn drain(
        &self,
        now_us: u64,
        left: Option<u64>,
        deadline: Option<(u64, AtDeadline)>,
    ) -> Drain {
        let ended = left.and_then(|left| self.ended(now_us, left));
        let rate = ended.map(|(ended, seen)| ended as f64 * 1e6 / seen as f64);
        let seen_s = ended.map_or(0, |(_, seen)| seen / 1_000_000);
        let at_rate = match (left, rate) {
            (Some(left), Some(rate)) if rate > 0.0 => {
                Some(now_us.saturating_add((left as f64 * 1e6 / rate) as u64))
            }
            _ => None,
        };
        let forced = deadline.and_then(|(at, then)| (then == AtDeadline::Close).then_some(at));
        let is_forced = forced.is_some_and(|at| at_rate.is_none_or(|end| at <= end));
        let estimate = match (left, ended) {
            (Some(0), _) => "no connection is left".to_owned(),
            _ if is_forced => "the deadline ends it".to_owned(),
            (None, _) => "not every guest has counted its connections yet".to_owned(),
            (Some(_), None) => "too early to tell".to_owned(),
            (Some(_), Some((0, _))) => {
                format!("cannot be estimated: none has ended in {seen_s} s")
            }
            (Some(_), Some(_)) => "if they go on ending at this rate".to_owned(),
        };
        Drain {
            left,
            ends_per_s: rate,
            seen_s,
            ends_us: match left {
                Some(0) => None,
                _ if is_forced => forced,
                _ => at_rate,
            },
            estimate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    /// Counts twice a second for so many seconds.
    fn seen(seconds: u64, left: impl Fn(u64) -> u64) -> (Pace, u64, u64) {
        let mut pace = Pace::default();
        let mut now = 100 * S;
        for half in 0..=seconds * 2 {
            now = 100 * S + half * S / 2;
            pace.note(now, left(half));
        }
        (pace, now, left(seconds * 2))
    }

    #[test]
    fn a_steady_rate_gives_an_end() {
        let (pace, now, left) = seen(10, |half| 100 - half);
        let drain = pace.drain(now, Some(left), None);
        assert_eq!(drain.ends_per_s, Some(2.0));
        assert_eq!((drain.left, drain.ends_us), (Some(80), Some(now + 40 * S)));
        assert!(drain.estimate.contains("at this rate"), "{drain:?}");
    }

    #[test]
    fn endless_streams_have_no_estimate() {
        let (pace, now, left) = seen(60, |_| 2);
        let drain = pace.drain(now, Some(left), None);
        assert_eq!((drain.ends_per_s, drain.ends_us), (Some(0.0), None));
        assert_eq!(
            drain.estimate,
            "cannot be estimated: none has ended in 30 s"
        );
        // What ended long ago is not counted for ever.
        let (pace, now, left) = seen(60, |half| if half < 20 { 50 - half } else { 30 });
        assert_eq!(pace.drain(now, Some(left), None).ends_us, None);
    }

    #[test]
    fn nothing_is_said_too_early_or_without_a_count() {
        let (pace, now, left) = seen(2, |half| 10 - half);
        let drain = pace.drain(now, Some(left), None);
        assert_eq!((drain.ends_per_s, drain.ends_us), (None, None));
        assert_eq!(drain.estimate, "too early to tell");
        assert_eq!(pace.drain(now, None, None).ends_us, None);
        let none_left = pace.drain(now, Some(0), None);
        assert_eq!(none_left.estimate, "no connection is left");
    }

    #[test]
    fn a_deadline_that_closes_is_an_end_and_one_that_gives_up_is_none() {
        let (pace, now, left) = seen(10, |_| 2);
        let deadline = |then| Some((now + 5 * S, then));
        let closes = pace.drain(now, Some(left), deadline(AtDeadline::Close));
        assert_eq!(closes.ends_us, Some(now + 5 * S));
        assert_eq!(closes.estimate, "the deadline ends it");
        let gives_up = pace.drain(now, Some(left), deadline(AtDeadline::GiveUp));
        assert_eq!(gives_up.ends_us, None);
        // Those that end before need no deadline.
        let (pace, now, left) = seen(10, |half| 30 - half);
        let drain = pace.drain(now, Some(left), Some((now + 60 * S, AtDeadline::Close)));
        assert_eq!(drain.ends_us, Some(now + 5 * S));
    }
}
