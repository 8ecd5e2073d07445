//! A window of time: what became of the connections in it, and what the clients sent again.
//!
//! Windows follow each other without a gap, so that nothing is lost between two of them: every
//! connection that was open when a window began, or was opened in it, has exactly one outcome in it.

use std::collections::{BTreeMap, VecDeque};

use super::plan::Plan;
use super::tally::{Failure, Outcome, Report, Tally};

/// Failures that a report tells one by one: more than a lab of this size has connections.
const FAILURES_TOLD: usize = 10_000;
/// Samples of retransmissions that are kept: ten minutes, four a second.
const SAMPLES: usize = 2_400;
/// Steady windows that are remembered: those of as many steps.
const STEADY_WINDOWS: usize = 256;

/// The window that is open.
#[derive(Debug)]
pub(super) struct Window {
    name: String,
    began_us: u64,
    is_steady: bool,
    tallies: Vec<Tally>,
    failures: Vec<Failure>,
    /// Connections in mid-message: least and most of all looks. None before the first.
    mid_message: Option<(u64, u64)>,
    mid_answer_max: u64,
    messages: u64,
    resent: Resent,
}

/// What the kernel sent again, over time.
#[derive(Debug, Default)]
struct Resent {
    /// By connections that are gone.
    gone: u64,
    /// When, and how many until then.
    samples: VecDeque<(u64, u64)>,
    /// When the load was steady: from, to.
    steady: VecDeque<(u64, u64)>,
}

impl Window {
    pub(super) fn begin(now: u64) -> Self {
        Self {
            name: "start".to_owned(),
            began_us: now,
            is_steady: false,
            tallies: Vec::new(),
            failures: Vec::new(),
            mid_message: None,
            mid_answer_max: 0,
            messages: 0,
            resent: Resent::default(),
        }
    }

    /// So many workloads take part from now on.
    pub(super) fn prepare(&mut self, workloads: usize) {
        self.tallies = vec![Tally::default(); workloads];
    }

    pub(super) fn opened(&mut self, workload: usize) {
        self.tallies[workload].connections += 1;
    }

    pub(super) fn ended(&mut self, workload: usize, outcome: Outcome) {
        self.tallies[workload].count(outcome);
    }

    pub(super) fn failed(&mut self, workload: usize, mut failure: Failure, now: u64) {
        self.tallies[workload].count(failure.outcome);
        failure.at_ms = now.saturating_sub(self.began_us) / 1_000;
        if self.failures.len() < FAILURES_TOLD {
            self.failures.push(failure);
        }
    }

    pub(super) fn stalled(&mut self, workload: usize, us: u64) {
        let longest = &mut self.tallies[workload].stall_ms_max;
        *longest = (*longest).max(us / 1_000);
    }

    /// So many whole messages and answers have arrived.
    pub(super) fn arrived(&mut self, messages: u64) {
        self.messages += messages;
    }

    /// Connections that are in mid-message now: all, and those that wait for an HTTP answer.
    pub(super) fn looked(&mut self, mid_message: u64, mid_answer: u64) {
        let (least, most) = self.mid_message.unwrap_or((mid_message, mid_message));
        self.mid_message = Some((least.min(mid_message), most.max(mid_message)));
        self.mid_answer_max = self.mid_answer_max.max(mid_answer);
    }

    /// A connection that sent so many segments again is gone.
    pub(super) fn resent_gone(&mut self, segments: u64) {
        self.resent.gone += segments;
    }

    /// Living connections have sent so many segments again.
    pub(super) fn resent_living(&mut self, segments: u64, now: u64) {
        if self.resent.samples.len() == SAMPLES {
            self.resent.samples.pop_front();
        }
        let total = self.resent.gone + segments;
        self.resent.samples.push_back((now, total));
    }

    /// Ends it and begins the next one, in which `open` connections of each workload take part.
    pub(super) fn end(
        &mut self,
        next: String,
        is_steady: bool,
        plan: &Plan,
        open: &[u64],
        now: u64,
    ) -> Report {
        let duration_us = now.saturating_sub(self.began_us);
        let (before_us, before) = self.resent.in_steady_time(self.began_us, duration_us);
        let (least, most) = self.mid_message.take().unwrap_or_default();
        let mut report = Report {
            window: std::mem::replace(&mut self.name, next),
            duration_ms: duration_us / 1_000,
            total: Tally::default(),
            workloads: BTreeMap::new(),
            http: plan
                .workloads
                .iter()
                .filter(|workload| workload.kind.is_http())
                .map(|workload| workload.name.clone())
                .collect(),
            retransmits: self.resent.between(self.began_us, now),
            retransmits_before: before,
            before_ms: before_us / 1_000,
            messages: std::mem::take(&mut self.messages),
            mid_message_min: least,
            mid_message_max: most,
            mid_answer_max: std::mem::take(&mut self.mid_answer_max),
            failures: std::mem::take(&mut self.failures),
        };
        for ((workload, tally), open) in plan.workloads.iter().zip(&mut self.tallies).zip(open) {
            let tally = std::mem::take(tally).with_carried(*open);
            report.total += tally;
            *report.workloads.entry(workload.name.clone()).or_default() += tally;
        }
        // Those that are open are what the next window begins with.
        for (tally, open) in self.tallies.iter_mut().zip(open) {
            tally.connections = *open;
        }
        if self.is_steady {
            self.resent.was_steady(self.began_us, now);
        }
        self.is_steady = is_steady;
        self.began_us = now;
        report
    }
}

impl Resent {
    fn until(&self, at: u64) -> u64 {
        let before = self.samples.iter().rev().find(|(when, _)| *when <= at);
        before.map_or(0, |(_, count)| *count)
    }

    fn between(&self, from: u64, to: u64) -> u64 {
        self.until(to).saturating_sub(self.until(from))
    }

    fn was_steady(&mut self, from: u64, to: u64) {
        if self.steady.len() == STEADY_WINDOWS {
            self.steady.pop_front();
        }
        self.steady.push_back((from, to));
    }

    /// How many in the last `wanted_us` of steady load before `at`, and how long that was: less
    /// than wanted if there was no more. Other windows in between do not count.
    fn in_steady_time(&self, at: u64, wanted_us: u64) -> (u64, u64) {
        let (mut found_us, mut count) = (0, 0);
        for (from, to) in self.steady.iter().rev() {
            let to = (*to).min(at);
            let from = (*from).max(to.saturating_sub(wanted_us - found_us));
            found_us += to - from;
            count += self.between(from, to);
            if found_us >= wanted_us {
                break;
            }
        }
        (found_us, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_steady_load_is_compared_with_and_as_much_of_it_as_the_step_took() {
        let mut resent = Resent::default();
        // A segment each 100 us, and ten more each in the step from 1,000 to 2,000.
        for at in 0_u64..40 {
            let in_step = at.clamp(10, 20) - 10;
            resent.samples.push_back((at * 100, at + 10 * in_step));
        }
        resent.was_steady(0, 1_000);
        resent.was_steady(2_000, 3_000);
        assert_eq!(resent.between(1_000, 2_000), 110);
        assert_eq!(resent.in_steady_time(3_000, 500), (500, 5));
        assert_eq!(resent.in_steady_time(3_000, 1_500), (1_500, 15));
        // More than there was.
        assert_eq!(resent.in_steady_time(3_000, 9_000), (2_000, 20));
        assert_eq!(Resent::default().in_steady_time(3_000, 9_000), (0, 0));
    }
}
