//! When to probe a member, and what its results make of its health.

use serde::{Deserialize, Serialize};

use super::{Failure, Health, HealthReason};

/// How a member is probed. All times in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rules {
    /// From the start of a probe to the start of the next.
    pub interval_us: u64,
    /// How long a probe may take.
    pub timeout_us: u64,
    /// Good results in a row that bring the member up; 0 counts as 1.
    pub rise: u16,
    /// Bad results in a row that take it down; 0 counts as 1.
    pub fall: u16,
}

/// Which probe of a member, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ProbeId(pub u64);

/// How a probe ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Good { latency_us: u64 },
    Bad(Failure),
}

/// What the driver has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Start(ProbeId),
    /// It took too long: close it. Its result, should one still come, is ignored.
    GiveUp(ProbeId),
}

/// The machine for one member. Call [`Self::tick`] at [`Self::deadline`], then
/// [`Self::poll_action`] until `None`.
#[derive(Clone, Debug)]
pub struct Prober {
    rules: Rules,
    health: Health,
    reason: HealthReason,
    /// Since when the health is what it is.
    since_us: u64,
    /// Results in a row against the present health.
    contrary: u16,
    /// Until when its probes follow each other fast; `None` once a result was good.
    hasty_until_us: Option<u64>,
    phase: Phase,
    last_id: ProbeId,
    action: Option<Action>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Waiting { until_us: u64 },
    Probing { started_us: u64, until_us: u64 },
}

/// A tenth of the interval: how much the start of a probe is spread.
const JITTER_SHARE: u64 = 10;
/// Until a member's first good result, its probes follow each other ten times as fast.
const UNTRIED_HASTE: u64 = 10;
/// For how long, once it is down: one that is still starting is up by then.
const UNTRIED_US: u64 = 60_000_000;

impl Prober {
    /// A member that nothing is known of. `jitter` is any random number: it spreads the first
    /// probes of many members over a tenth of the interval.
    pub fn new(rules: Rules, now_us: u64, jitter: u64) -> Self {
        let (health, reason) = (Health::Unknown, HealthReason::NotProbedYet);
        Self {
            hasty_until_us: Some(now_us.saturating_add(UNTRIED_US)),
            ..Self::with_health(rules, health, reason, now_us, now_us, jitter)
        }
    }

    /// A member whose health is known from before, for example from the process that this one
    /// follows. It counts as one that had a good result.
    pub fn with_health(
        rules: Rules,
        health: Health,
        reason: HealthReason,
        since_us: u64,
        now_us: u64,
        jitter: u64,
    ) -> Self {
        let spread = rules.interval_us / JITTER_SHARE;
        Self {
            rules,
            health,
            reason,
            since_us,
            contrary: 0,
            hasty_until_us: None,
            phase: Phase::Waiting {
                until_us: now_us + jitter % spread.max(1),
            },
            last_id: ProbeId(0),
            action: None,
        }
    }

    /// Changes the rules and keeps the health. A probe that is running ends by the rules it started
    /// with.
    pub fn set_rules(&mut self, rules: Rules, now_us: u64) {
        if rules == self.rules {
            return;
        }
        self.rules = rules;
        self.contrary = 0;
        if let Phase::Waiting { until_us } = &mut self.phase {
            *until_us = (*until_us).min(now_us + rules.interval_us);
        }
    }

    /// Time has passed. `jitter` is any random number.
    pub fn tick(&mut self, now_us: u64, jitter: u64) {
        match self.phase {
            Phase::Waiting { until_us } if now_us >= until_us => {
                self.last_id = ProbeId(self.last_id.0 + 1);
                self.phase = Phase::Probing {
                    started_us: now_us,
                    until_us: now_us + self.rules.timeout_us,
                };
                self.action = Some(Action::Start(self.last_id));
            }
            Phase::Probing { until_us, .. } if now_us >= until_us => {
                self.action = Some(Action::GiveUp(self.last_id));
                self.conclude(now_us, Outcome::Bad(Failure::TimedOut), jitter);
            }
            Phase::Waiting { .. } | Phase::Probing { .. } => {}
        }
    }

    /// A probe has ended. Ignored if it is not the one that is running.
    pub fn ended(&mut self, now_us: u64, id: ProbeId, outcome: Outcome, jitter: u64) {
        if id == self.last_id && matches!(self.phase, Phase::Probing { .. }) {
            self.conclude(now_us, outcome, jitter);
        }
    }

    /// What to do now, if anything.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.action.take()
    }

    /// When to call [`Self::tick`] next.
    pub const fn deadline(&self) -> u64 {
        match self.phase {
            Phase::Waiting { until_us } | Phase::Probing { until_us, .. } => until_us,
        }
    }

    pub const fn health(&self) -> Health {
        self.health
    }

    pub const fn reason(&self) -> &HealthReason {
        &self.reason
    }

    /// Since when the health is what it is.
    pub const fn since_us(&self) -> u64 {
        self.since_us
    }

    fn conclude(&mut self, now_us: u64, outcome: Outcome, jitter: u64) {
        let Phase::Probing { started_us, .. } = self.phase else {
            return;
        };
        self.judge(now_us, outcome);
        let until_us = self.next_start(started_us, now_us, jitter);
        self.phase = Phase::Waiting { until_us };
    }

    fn judge(&mut self, now_us: u64, outcome: Outcome) {
        let (says, reason) = match outcome {
            Outcome::Good { latency_us } => (Health::Up, HealthReason::Answered { latency_us }),
            // It says nothing of the member, so it changes nothing; the reason is shown all the
            // same.
            Outcome::Bad(failure @ Failure::Local { .. }) => {
                self.reason = HealthReason::Failed { failure };
                return;
            }
            Outcome::Bad(failure) => (Health::Down, HealthReason::Failed { failure }),
        };
        self.reason = reason;
        let is_untried = self.hasty_until_us.is_some();
        if says == Health::Up {
            self.hasty_until_us = None;
        }
        if says == self.health {
            self.contrary = 0;
            return;
        }
        self.contrary += 1;
        // One bad result proves nothing, of a member that nothing is known of least: the machine
        // may be busy.
        let needed = match (self.health, says) {
            (Health::Unknown, Health::Up) => 1,
            (Health::Down, _) if is_untried => 1,
            (Health::Unknown | Health::Up, _) => self.rules.fall.max(1),
            (Health::Down, _) => self.rules.rise.max(1),
        };
        if self.contrary >= needed {
            self.health = says;
            self.since_us = now_us;
            self.contrary = 0;
        }
    }

    /// An interval after the last start, moved by up to a twentieth of the interval to either side.
    fn next_start(&self, started_us: u64, now_us: u64, jitter: u64) -> u64 {
        let is_hasty = self
            .hasty_until_us
            .is_some_and(|until_us| now_us < until_us);
        let interval_us = if is_hasty || self.health == Health::Unknown {
            self.rules.interval_us / UNTRIED_HASTE
        } else {
            self.rules.interval_us
        };
        let spread = interval_us / JITTER_SHARE;
        let start = started_us + interval_us - spread / 2 + jitter % spread.max(1);
        start.max(now_us)
    }
}
