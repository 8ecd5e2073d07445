//! What the controller was told: policy, boots and losses, what guests hold, whom agents hear.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    AGENT_HEARD_WITHIN_US, CALM_AFTER_US, Controller, FENCE_AFTER_US, HEARD_FOR_US, Policy,
    STRAY_FOR_US, SUSPECT_AFTER_US, SUSPECT_REPLAN_AFTER_US, State,
};
use crate::row::{Bucket, GuestSlot};
use crate::table::message::{DirectorId, FromAgent, FromGuest, Generation, Party};
use crate::table::step::{Live, Wait};
use crate::time::Time;

/// Everything observed; nothing of it is decided here.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) policy: Option<Policy>,
    /// The newest boot of each guest's kernel.
    pub(super) boots: BTreeMap<String, u64>,
    /// Everybody knows how to reach these, as far as was last heard.
    pub(super) reachable: BTreeSet<GuestSlot>,
    pub(super) destroyed: BTreeSet<GuestSlot>,
    /// Suspected by somebody else than the agents.
    pub(super) suspected: BTreeSet<GuestSlot>,
    agents: BTreeMap<DirectorId, AgentHeard>,
    /// Guests that all agents call silent for [`SUSPECT_AFTER_US`].
    silent: BTreeSet<GuestSlot>,
    /// Guests that are suspect or were, as far as this controller saw.
    suspicions: BTreeMap<GuestSlot, Suspicion>,
    long_suspects: BTreeSet<GuestSlot>,
    /// Suspects whose lease has run out.
    pub(super) fenced: BTreeSet<GuestSlot>,
    /// When the suspects' leases have run out. None: not all agents have withdrawn their trust, or
    /// nobody waits.
    pub(super) fence_at: Option<Time>,
    reports: BTreeMap<GuestSlot, Report>,
    /// Buckets whose leaver holds connections.
    pub(super) refused: BTreeMap<usize, GuestSlot>,
    /// Directors not listed in the policy, and when their stamps were last reported.
    strays: BTreeMap<DirectorId, Time>,
}

#[derive(Debug, Default)]
struct AgentHeard {
    at: Option<Time>,
    /// For how long, by its clock.
    silent: BTreeMap<GuestSlot, u64>,
    trusting: Option<Generation>,
}

/// The course of a guest that is, or was, suspect.
#[derive(Debug)]
struct Suspicion {
    /// None: it is no suspect now.
    since: Option<Time>,
    /// Since when nobody has reason to suspect it. None: somebody has.
    heard_since: Option<Time>,
    /// How often it became one without [`CALM_AFTER_US`] between.
    times: u32,
    ended: Time,
}

/// What a guest said of buckets that it does not lead.
#[derive(Debug, Default)]
struct Report {
    /// None: it led the bucket when it last reported. Absent: nothing.
    live: BTreeMap<usize, Option<u32>>,
    connections: u64,
}

impl Inventory {
    /// Forgets what guests and agents said of a table.
    pub(super) fn forget_reports(&mut self) {
        self.agents.clear();
        self.silent.clear();
        self.suspicions.clear();
        self.fenced.clear();
        self.fence_at = None;
        self.reports.clear();
        self.refused.clear();
    }

    pub(super) fn live(&self, slot: GuestSlot, index: usize) -> Live {
        match self
            .reports
            .get(&slot)
            .map(|report| report.live.get(&index))
        {
            None | Some(Some(None)) => Live::Unknown,
            Some(None | Some(Some(0))) => Live::Zero,
            Some(Some(Some(held))) => Live::Some(*held),
        }
    }

    pub(super) fn connections(&self, slot: GuestSlot) -> Option<u64> {
        self.reports.get(&slot).map(|report| report.connections)
    }

    /// Guests that reported connections of a bucket.
    pub(super) fn holders(&self, index: usize) -> impl Iterator<Item = GuestSlot> {
        let holds = move |report: &Report| {
            report
                .live
                .get(&index)
                .copied()
                .flatten()
                .is_some_and(|held| held > 0)
        };
        self.reports
            .iter()
            .filter(move |(_, report)| holds(report))
            .map(|(slot, _)| *slot)
    }

    /// `slot` no longer leads the bucket: what it holds is unknown until it reports.
    pub(super) fn stop_leading(&mut self, slot: GuestSlot, index: usize) {
        if let Some(report) = self.reports.get_mut(&slot) {
            report.live.insert(index, None);
        }
    }

    /// Whether somebody has reason to think the guest dead.
    pub(super) fn is_suspect(&self, slot: GuestSlot) -> bool {
        self.suspected.contains(&slot) || self.silent.contains(&slot)
    }

    /// Whether nobody has had reason to think this suspect dead for long enough.
    pub(super) fn is_calm(&self, slot: GuestSlot, now: Time) -> bool {
        let due = self.suspicions.get(&slot).and_then(Suspicion::calm_at);
        due.is_some_and(|due| due <= now)
    }

    /// Notes who is suspect, and who is heard.
    pub(super) fn note_suspects(&mut self, suspects: &BTreeSet<GuestSlot>, now: Time) {
        for slot in suspects {
            let is_suspect = self.is_suspect(*slot);
            let suspicion = self.suspicions.entry(*slot).or_insert(Suspicion {
                since: None,
                heard_since: None,
                times: 0,
                ended: now,
            });
            if suspicion.since.is_none() {
                suspicion.since = Some(now);
                suspicion.times = suspicion.times.saturating_add(1);
            }
            suspicion.heard_since = match suspicion.heard_since {
                _ if is_suspect => None,
                since => since.or(Some(now)),
            };
        }
        self.suspicions.retain(|slot, suspicion| {
            if !suspects.contains(slot) && suspicion.since.take().is_some() {
                suspicion.ended = now;
            }
            suspicion.since.is_some() || now.since_us(suspicion.ended) < CALM_AFTER_US
        });
    }

    /// Whether the long-time suspects are others than at the last call.
    pub(super) fn has_new_long_suspects(&mut self, now: Time) -> bool {
        let long: BTreeSet<GuestSlot> = self
            .suspicions
            .keys()
            .filter(|slot| self.is_suspect_for_long(**slot, now))
            .copied()
            .collect();
        let has_changed = long != self.long_suspects;
        self.long_suspects = long;
        has_changed
    }

    pub(super) fn is_suspect_for_long(&self, slot: GuestSlot, now: Time) -> bool {
        let since = self.suspicions.get(&slot).and_then(|known| known.since);
        since.is_some_and(|since| now.since_us(since) >= SUSPECT_REPLAN_AFTER_US)
    }

    pub(super) fn stray(&self) -> Option<DirectorId> {
        self.strays.keys().next().copied()
    }

    pub(super) fn deadline(&self, now: Time) -> Option<Time> {
        let suspects = || self.suspicions.values();
        let replan = suspects()
            .filter_map(|suspicion| Some(suspicion.since?.after_us(SUSPECT_REPLAN_AFTER_US)));
        let strays = self.strays.values().map(|at| at.after_us(STRAY_FOR_US));
        let later = self.fence_at.into_iter().chain(replan).chain(strays);
        let later = later.chain(suspects().filter_map(Suspicion::calm_at));
        later.filter(|due| *due > now).min()
    }

    /// Guests that all agents heard lately call silent, for long enough by their own clocks: what
    /// waited for this controller to read it, or its own pauses, makes nobody silent for longer.
    fn revise_silence(&mut self, now: Time) {
        let is_fresh = |agent: &&AgentHeard| {
            agent
                .at
                .is_some_and(|at| now.since_us(at) < AGENT_HEARD_WITHIN_US)
        };
        let fresh: Vec<&AgentHeard> = self.agents.values().filter(is_fresh).collect();
        let Some((first, others)) = fresh.split_first() else {
            return;
        };
        let is_long = |agent: &AgentHeard, slot: &GuestSlot| {
            let for_us = agent.silent.get(slot);
            for_us.is_some_and(|us| *us >= SUSPECT_AFTER_US)
        };
        let by_first = first.silent.keys().filter(|slot| is_long(first, slot));
        self.silent = by_first
            .filter(|slot| others.iter().all(|agent| is_long(agent, slot)))
            .copied()
            .collect();
    }
}

impl Suspicion {
    /// When it may be trusted again, if nothing is heard against it until then.
    fn calm_at(&self) -> Option<Time> {
        let doublings = self.times.saturating_sub(1).min(3);
        let is_suspect = self.since.is_some();
        let since = self.heard_since.filter(|_| is_suspect)?;
        Some(since.after_us(HEARD_FOR_US << doublings))
    }
}

impl Controller {
    pub(super) fn hear_agent(&mut self, now: Time, from: DirectorId, message: FromAgent) {
        let is_listed = |policy: &Policy| policy.directors.contains(&from);
        if !self.inventory.policy.as_ref().is_some_and(is_listed) {
            return;
        }
        match message {
            FromAgent::Applied { rows } => self.acknowledged(Party::Director(from), &rows),
            FromAgent::Trusting { generation } => {
                let agent = self.inventory.agents.entry(from).or_default();
                agent.trusting = agent.trusting.max(Some(generation));
            }
            FromAgent::Silent { guests } => {
                let agent = self.inventory.agents.entry(from).or_default();
                agent.at = Some(now);
                agent.silent = guests.into_iter().collect();
                self.inventory.revise_silence(now);
            }
        }
    }

    pub(super) fn hear_guest(&mut self, now: Time, from: GuestSlot, message: FromGuest) {
        if !self
            .header
            .as_ref()
            .is_some_and(|header| header.guests.contains_key(&from))
        {
            return;
        }
        match message {
            FromGuest::Applied { rows } => {
                self.acknowledged(Party::Guest(from), &rows);
                self.left(from, rows.iter().map(|(bucket, _)| *bucket));
            }
            FromGuest::Holds { rows } => {
                for (bucket, sequence, held) in rows {
                    let index = usize::from(bucket.0);
                    let is_newest = |entry: &_| row_is(entry, sequence);
                    if self.entries.get(index).is_some_and(is_newest) {
                        self.inventory.refused.insert(index, from);
                        self.note_live(from, index, held);
                    }
                }
            }
            FromGuest::Live {
                is_full,
                buckets,
                connections,
            } => {
                let report = self.inventory.reports.entry(from).or_default();
                report.connections = connections;
                if is_full {
                    let known = core::mem::take(&mut report.live);
                    for index in known.into_keys() {
                        self.todo.set(index);
                    }
                }
                for (bucket, held) in buckets {
                    self.note_live(from, usize::from(bucket.0), held);
                }
                if is_full {
                    self.revisit_waits_for_count(from);
                }
            }
            FromGuest::StampedBy { directors } => {
                let policy = self.inventory.policy.as_ref();
                let is_listed =
                    |id: &DirectorId| policy.is_some_and(|policy| policy.directors.contains(id));
                for id in directors.into_iter().filter(|id| !is_listed(id)) {
                    self.inventory.strays.insert(id, now);
                }
            }
        }
    }

    fn note_live(&mut self, slot: GuestSlot, index: usize, held: u32) {
        let report = self.inventory.reports.entry(slot).or_default();
        let known = if held == 0 {
            report.live.remove(&index)
        } else {
            report.live.insert(index, Some(held))
        };
        if known != (held > 0).then_some(Some(held)) {
            self.todo.set(index);
        }
    }

    /// A guest that acknowledged a row which lacks it, as its leaver, holds nothing.
    fn left(&mut self, slot: GuestSlot, buckets: impl Iterator<Item = Bucket>) {
        for bucket in buckets {
            let index = usize::from(bucket.0);
            let Some(entry) = self.entries.get(index) else {
                continue;
            };
            if entry.before.contains(slot) && !entry.row.contains(slot) {
                self.note_live(slot, index, 0);
            }
        }
    }

    /// A full report says zero of buckets that it does not name.
    fn revisit_waits_for_count(&mut self, slot: GuestSlot) {
        for (index, wait) in self.waiting.iter().enumerate() {
            if *wait == Some(Wait::Count(slot)) {
                self.todo.set(index);
            }
        }
    }

    /// Finds the suspects whose lease has run out: a lease after all agents have withdrawn their
    /// trust.
    pub(super) fn fence(&mut self, now: Time) {
        let strays = self.inventory.strays.len();
        self.inventory
            .strays
            .retain(|_, at| now.since_us(*at) < STRAY_FOR_US);
        if strays > 0 && self.inventory.strays.is_empty() {
            for index in 0..self.entries.len() {
                self.todo.set(index);
            }
        }
        let (Some(header), Some(policy)) = (&self.header, &self.inventory.policy) else {
            return;
        };
        let suspects: BTreeSet<GuestSlot> = header
            .guests
            .iter()
            .filter(|(_, record)| record.state == State::Suspect)
            .map(|(slot, _)| *slot)
            .collect();
        if suspects
            .iter()
            .all(|slot| self.inventory.fenced.contains(slot))
        {
            self.inventory.fence_at = None;
            return;
        }
        let trust = header.trust;
        let has_withdrawn = |id: &DirectorId| {
            let trusting = self
                .inventory
                .agents
                .get(id)
                .and_then(|agent| agent.trusting);
            trusting.is_some_and(|trusting| trusting >= trust)
        };
        if !policy.directors.iter().all(has_withdrawn) {
            return;
        }
        let due = *self
            .inventory
            .fence_at
            .get_or_insert(now.after_us(FENCE_AFTER_US));
        if now >= due {
            self.inventory.fence_at = None;
            self.inventory.fenced = suspects;
            self.recount_all();
        }
    }

    /// A link opened: whatever the party had acknowledged it may have lost since.
    pub(super) fn connected(&mut self, party: Party) {
        self.progress.forget_party(party);
        self.recount_all();
        match party {
            Party::Director(id) => {
                if let Some(agent) = self.inventory.agents.get_mut(&id) {
                    agent.trusting = None;
                }
                self.trust_all();
            }
            Party::Guest(slot) => self.ask_for_reports(|asked| asked == slot),
        }
    }

    /// Whether an agent has not acknowledged the newest trust.
    pub(super) fn has_untold_agents(&self) -> bool {
        let (Some(header), Some(policy)) = (&self.header, &self.inventory.policy) else {
            return false;
        };
        policy
            .directors
            .iter()
            .any(|id| self.lacks_trust(*id, header.trust))
    }

    /// Whether an agent is to be told of the newest trust.
    pub(super) fn lacks_trust(&self, id: DirectorId, trust: Generation) -> bool {
        let agent = self.inventory.agents.get(&id);
        agent
            .and_then(|agent| agent.trusting)
            .is_none_or(|trusting| trusting < trust)
    }
}

fn row_is(entry: &crate::table::step::Entry, sequence: crate::row::Sequence) -> bool {
    entry.row.sequence() == sequence
}
