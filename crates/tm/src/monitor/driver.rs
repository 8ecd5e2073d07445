//! The monitors' event loop: a dumb loop around one prober per member.
//!
//! Invariants: a member has at most one probe that counts, and at most one socket; at most
//! [`PROBES_MAX`] sockets are open; the board changes only here and by the operator's word.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hitless_core::health::{
    Action, Failure, Health, HealthReason, Outcome, ProbeId, Prober, Rules,
};
use hitless_types::site::{MembersProtocol, Monitor, Probe, Site};
use mio::{Events, Interest, Poll, Token};
use rustix::time::{ClockId, clock_gettime};

use super::probe::{Progress, Running, failure_of, outcome};
use super::{Board, Mailbox, MemberKey, MemberState, Order};

/// The token of the mailbox; members have the others.
pub(super) const WAKE: Token = Token(usize::MAX);
/// Probes at a time: a descriptor each, well below the usual limit of a process.
const PROBES_MAX: usize = 512;
/// Events taken at once.
const EVENTS_MAX: usize = 256;

/// A member to probe.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    key: MemberKey,
    state: Arc<MemberState>,
    probe: Probe,
    protocol: MembersProtocol,
    rules: Rules,
}

/// Every member of `site`: those that are probed, and those that are not and lose what an earlier
/// monitor said.
#[derive(Debug)]
pub(super) struct Plan {
    watched: Vec<Watched>,
    unwatched: Vec<Arc<MemberState>>,
}

pub(super) fn plan(board: &Board, site: &Site) -> Plan {
    let mut watched = Vec::new();
    let mut unwatched = Vec::new();
    for pool in &site.pools {
        for member in &pool.members {
            let state = board.member(pool.name.as_str(), member.address);
            let Some(monitor) = &pool.monitor else {
                unwatched.push(state);
                continue;
            };
            watched.push(Watched {
                key: MemberKey {
                    pool: pool.name.as_str().to_owned(),
                    address: member.address,
                },
                state,
                probe: monitor.probe.clone(),
                protocol: pool.members_protocol,
                rules: rules(monitor),
            });
        }
    }
    Plan { watched, unwatched }
}

fn rules(monitor: &Monitor) -> Rules {
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Rules {
        interval_us: us(monitor.interval),
        timeout_us: us(monitor.timeout),
        rise: monitor.rise,
        fall: monitor.fall,
    }
}

struct Member {
    watched: Watched,
    prober: Prober,
    running: Option<(ProbeId, u64, Running)>,
    /// When it is in the list of deadlines.
    deadline: u64,
}

pub(super) struct Driver {
    poll: Poll,
    mailbox: Arc<Mailbox>,
    members: BTreeMap<usize, Member>,
    numbers: BTreeMap<MemberKey, usize>,
    next_number: usize,
    deadlines: BTreeSet<(u64, usize)>,
    probes: usize,
    /// Pools that have no member that may be used; said once, when it begins and when it ends.
    empty: BTreeSet<String>,
    random: u64,
}

impl Driver {
    pub(super) fn new(poll: Poll, mailbox: Arc<Mailbox>) -> Self {
        Self {
            poll,
            mailbox,
            members: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_number: 0,
            deadlines: BTreeSet::new(),
            probes: 0,
            empty: BTreeSet::new(),
            // Two workers that start together shall not probe together.
            random: now_us() ^ (u64::from(std::process::id()) << 32) | 1,
        }
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            let until = self.deadlines.first().map(|(deadline, _)| *deadline);
            let wait = until.map(|until| Duration::from_micros(until.saturating_sub(now_us())));
            if let Err(error) = self.poll.poll(&mut events, wait)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the monitors end: no events to be had");
                return;
            }
            for event in &events {
                if event.token() == WAKE {
                    let place = self.mailbox.order.lock();
                    let order = place.unwrap_or_else(PoisonError::into_inner).take();
                    match order {
                        Some(Order::Stop) => return,
                        Some(Order::Watch(plan)) => self.watch(plan),
                        None => {}
                    }
                } else {
                    self.advance(event.token().0);
                }
            }
            self.pass_deadlines();
        }
    }

    /// Changes to another set of members; what stays keeps its prober and so its health.
    fn watch(&mut self, plan: Plan) {
        let now = now_us();
        let mut gone = std::mem::take(&mut self.numbers);
        for watched in plan.watched {
            let key = watched.key.clone();
            let number = match gone.remove(&key) {
                Some(number) => number,
                None => self.add(watched.clone(), now),
            };
            if let Some(member) = self.members.get_mut(&number) {
                member.prober.set_rules(watched.rules, now);
                member.watched = watched;
                publish(member);
            }
            self.numbers.insert(key, number);
            self.schedule(number);
        }
        for number in gone.into_values() {
            self.close(number);
            if let Some(member) = self.members.remove(&number) {
                self.deadlines.remove(&(member.deadline, number));
            }
        }
        // Only now, when no probe of theirs can end any more.
        for state in plan.unwatched {
            state.set_health(Health::Unknown, HealthReason::NoMonitor, None);
        }
        let keys = self.numbers.keys();
        let pools: BTreeSet<String> = keys.map(|key| key.pool.clone()).collect();
        self.empty.retain(|pool| pools.contains(pool));
        for pool in pools {
            self.judge_pool(&pool);
        }
    }

    /// Says when the last member of a pool went, and when one came back.
    fn judge_pool(&mut self, pool: &str) {
        let members = self.members.values().map(|member| &member.watched);
        let of_pool: Vec<_> = members.filter(|one| one.key.pool == pool).collect();
        let has_one = of_pool.iter().any(|one| one.state.is_usable());
        if has_one && self.empty.remove(pool) {
            tracing::info!(%pool, "the pool has a member again");
        } else if !has_one && self.empty.insert(pool.to_owned()) {
            let members = of_pool.len();
            tracing::error!(
                %pool, members, "the pool has no member left: its clients are not served"
            );
        }
    }

    fn add(&mut self, watched: Watched, now: u64) -> usize {
        let known = watched.state.detail();
        let jitter = self.jitter();
        let prober = match (known.health, known.since_us) {
            (Health::Up | Health::Down, Some(since)) => Prober::with_health(
                watched.rules,
                known.health,
                known.health_reason,
                since,
                now,
                jitter,
            ),
            _ => Prober::new(watched.rules, now, jitter),
        };
        let number = self.next_number;
        self.next_number += 1;
        let member = Member {
            watched,
            deadline: prober.deadline(),
            prober,
            running: None,
        };
        self.members.insert(number, member);
        number
    }

    fn pass_deadlines(&mut self) {
        let now = now_us();
        while let Some((deadline, number)) = self.deadlines.first().copied()
            && deadline <= now
        {
            let jitter = self.jitter();
            let Some(member) = self.members.get_mut(&number) else {
                self.deadlines.remove(&(deadline, number));
                continue;
            };
            member.prober.tick(now, jitter);
            while let Some(action) = self
                .members
                .get_mut(&number)
                .and_then(|m| m.prober.poll_action())
            {
                match action {
                    Action::Start(id) => self.start(number, id, now),
                    Action::GiveUp(_) => self.close(number),
                }
            }
            self.conclude(number);
        }
    }

    fn start(&mut self, number: usize, id: ProbeId, now: u64) {
        // The one before may still be reading the rest of its response.
        self.close(number);
        let Some(member) = self.members.get_mut(&number) else {
            return;
        };
        let started = if self.probes >= PROBES_MAX {
            Err(Failure::Local {
                error: format!("{PROBES_MAX} probes run at a time already"),
            })
        } else {
            let watched = &member.watched;
            let tls = watched.state.tls();
            let member = (watched.key.address, tls.as_deref());
            Running::start(&watched.probe, watched.protocol, member)
        };
        let registered = started.and_then(|mut running| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registry = self.poll.registry();
            let result = registry.register(&mut running.stream, Token(number), interest);
            result.map(|()| running).map_err(|error| failure_of(&error))
        });
        match registered {
            Ok(running) => {
                member.running = Some((id, now, running));
                self.probes += 1;
            }
            Err(failure) => {
                let jitter = self.jitter();
                if let Some(member) = self.members.get_mut(&number) {
                    member.prober.ended(now, id, Outcome::Bad(failure), jitter);
                }
            }
        }
    }

    /// The socket of a member is ready.
    fn advance(&mut self, number: usize) {
        let jitter = self.jitter();
        let Some(member) = self.members.get_mut(&number) else {
            return;
        };
        let Some((id, started, running)) = &mut member.running else {
            return;
        };
        let closes = match running.advance() {
            Progress::Waits => false,
            Progress::Over => true,
            Progress::Result { result, closes } => {
                let now = now_us();
                let outcome = outcome(result, now.saturating_sub(*started));
                member.prober.ended(now, *id, outcome, jitter);
                closes
            }
        };
        if closes {
            self.close(number);
        }
        self.conclude(number);
    }

    fn close(&mut self, number: usize) {
        let member = self.members.get_mut(&number);
        if let Some((_, _, mut running)) = member.and_then(|member| member.running.take()) {
            self.probes -= 1;
            // Closing it takes it out of the poll as well, so a failure here changes nothing.
            let _ = self.poll.registry().deregister(&mut running.stream);
        }
    }

    /// Writes what a prober says on the board and its next deadline in the list.
    fn conclude(&mut self, number: usize) {
        if let Some(member) = self.members.get(&number)
            && publish(member)
        {
            let pool = member.watched.key.pool.clone();
            self.judge_pool(&pool);
        }
        self.schedule(number);
    }

    fn schedule(&mut self, number: usize) {
        if let Some(member) = self.members.get_mut(&number) {
            self.deadlines.remove(&(member.deadline, number));
            member.deadline = member.prober.deadline();
            self.deadlines.insert((member.deadline, number));
        }
    }

    /// Xorshift: good enough to spread probes.
    fn jitter(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// Writes what the prober says on the board; whether the health changed.
fn publish(member: &Member) -> bool {
    let prober = &member.prober;
    let (health, reason) = (prober.health(), prober.reason());
    let known = member.watched.state.detail();
    if known.health == health && known.health_reason == *reason {
        return false;
    }
    let is_changed = known.health != health;
    if is_changed {
        let MemberKey { pool, address } = &member.watched.key;
        // As a field of text, so that its blanks are quoted.
        let reason = reason.to_string();
        let reason = reason.as_str();
        tracing::info!(%pool, member = %address, %health, reason, "health changed");
    }
    let since = (health != Health::Unknown).then_some(prober.since_us());
    member
        .watched
        .state
        .set_health(health, reason.clone(), since);
    is_changed
}

/// The machine's monotonic clock: the same for every process, so that a worker can tell the next
/// one since when.
fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}
