//! What is known before a step, and what shows after it that something happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hitless_api::{BucketRun, Counters, Guest, Ledger};

use super::Runner;
use crate::client::{Flow, Report};
use crate::cluster;
use crate::judge::Evidence;
use crate::script::{Step, StepKind};

/// What was killed runs again, and has been reported, within this.
const REPLACED_WITHIN: Duration = Duration::from_secs(10);
/// What the agents count is known to the controller within this.
const REPORTED_WITHIN: Duration = Duration::from_secs(3);
/// Agents report at least once a second: counters that are so much older are of who has gone.
const GONE_US: u64 = 2_500_000;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is known before a step.
pub(super) struct Before {
    counters: Counters,
    buckets: Vec<BucketRun>,
    ledger: Ledger,
    pub(super) guests: Vec<Guest>,
    programs: BTreeMap<String, Option<String>>,
    control: BTreeSet<u32>,
    directors: BTreeMap<Flow, u32>,
}

impl Before {
    pub(super) fn workers(&self) -> BTreeSet<u32> {
        workers(&self.guests)
    }

    pub(super) fn ingresses(&self) -> BTreeSet<u32> {
        ingresses(&self.guests)
    }
}

fn workers(guests: &[Guest]) -> BTreeSet<u32> {
    let all = guests.iter().flat_map(|guest| &guest.worker_pids);
    all.copied().collect()
}

fn ingresses(guests: &[Guest]) -> BTreeSet<u32> {
    guests
        .iter()
        .filter_map(|guest| guest.ingress_pid)
        .collect()
}

impl Runner<'_> {
    pub(super) fn before(&mut self) -> Result<Before> {
        let flows = self.clients.flows()?;
        let directors = self.world.directors_of(&flows)?;
        let api = self.cluster.api();
        Ok(Before {
            counters: api.counters()?,
            buckets: api.buckets()?.items,
            ledger: api.ledger()?,
            guests: self.cluster.guests()?,
            programs: self.programs()?,
            control: self.control()?,
            directors: flows.into_iter().zip(directors).collect(),
        })
    }

    fn programs(&self) -> Result<BTreeMap<String, Option<String>>> {
        let mut programs = BTreeMap::new();
        for node in self.cluster.api().nodes()?.items {
            programs.insert(format!("director of {}", node.name), node.program);
        }
        for guest in self.cluster.guests()? {
            programs.insert(format!("traffic manager of {}", guest.name), guest.program);
            programs.insert(format!("ingress of {}", guest.name), guest.ingress_program);
        }
        Ok(programs)
    }

    /// Processes of the control plane.
    fn control(&self) -> Result<BTreeSet<u32>> {
        let mut pids = ingresses(&self.cluster.guests()?);
        pids.insert(self.cluster.status()?.controller_pid);
        let agents = self.world.state().numbers.keys();
        pids.extend(
            agents.filter_map(|node| Some(self.world.process(&cluster::agent_name(node))?.pid)),
        );
        Ok(pids)
    }

    /// How many of the flows that are still open go to another director now; the most of a step
    /// counts.
    pub(super) fn note_flows(&self, before: &Before, evidence: &mut Evidence) -> Result<()> {
        let flows: Vec<Flow> = before.directors.keys().copied().collect();
        let now = self.world.directors_of(&flows)?;
        let moved = before
            .directors
            .values()
            .zip(now)
            .filter(|(was, is)| *was != is)
            .count() as u64;
        let (_, most) = evidence.flows.unwrap_or_default();
        evidence.flows = Some((flows.len() as u64, moved.max(most)));
        Ok(())
    }

    /// What was killed has to be back before the step ends.
    pub(super) fn await_back(
        &self,
        kind: StepKind,
        before: &Before,
        evidence: &mut Evidence,
    ) -> Result<()> {
        evidence.processes_replaced = match kind {
            StepKind::KillControl => Some(await_others(&before.control, || self.control())?),
            StepKind::KillWorkers => {
                let now = || Ok(workers(&self.cluster.guests()?));
                Some(await_others(&before.workers(), now)?)
            }
            _ => None,
        };
        Ok(())
    }

    /// Gathers what the step's kind asks for, when the step is over.
    pub(super) fn gather(
        &self,
        step: &Step,
        before: &Before,
        report: &Report,
        evidence: &mut Evidence,
    ) -> Result<()> {
        let announced = &self.world.state().announced;
        let mut is_native = !announced.is_empty();
        for node in announced {
            is_native &= self.world.has_native_xdp(node)?;
        }
        evidence.is_native = Some(is_native);
        let counters = self.newest_counters()?;
        evidence.directed = Some(counted(
            &before.counters,
            &counters,
            &[Role::Director],
            "directed",
        ));
        evidence.forwarded = Some(counted(
            &before.counters,
            &counters,
            &[Role::Ingress],
            "forwarded",
        ));
        evidence.drops = Some(dropped(&before.counters, &counters));
        evidence.unknown_reset = Some(counted(
            &before.counters,
            &counters,
            &[Role::Ingress],
            "answered",
        ));
        let buckets = self.cluster.api().buckets()?.items;
        evidence.rows_changed = Some(rows_changed(&before.buckets, &buckets));
        if step.kind == StepKind::KillWorkers {
            evidence.bytes_in_pipes = Some(
                counters
                    .ingresses
                    .iter()
                    .filter_map(|guest| guest.counters.get("last_crash_bytes_in_pipes"))
                    .sum(),
            );
        }
        if let Some((slot, killed)) = &self.killed {
            let name = format!("last_sent_ns_{slot}");
            let last = counters
                .directors
                .iter()
                .filter_map(|node| node.counters.get(&name))
                .max();
            evidence.last_packet_ms =
                Some(last.map(|last| last.saturating_sub(killed.at_ns) / 1_000_000));
        }
        if step.kind.replaces_programs() {
            let wanted: &[&str] = match step.kind {
                StepKind::ReplacePrograms => &["director of", "ingress of"],
                _ => &["traffic manager of"],
            };
            let now = self.programs()?;
            let replaced = now
                .iter()
                .filter(|(name, _)| wanted.iter().any(|wanted| name.starts_with(wanted)))
                .all(|(name, program)| {
                    program.is_some() && before.programs.get(name) != Some(program)
                });
            evidence.programs_replaced = Some(replaced);
        }
        evidence.ledger = Some(self.ledger(before, report)?);
        Ok(())
    }

    /// What the product's ledger says of this step. It is told by agents, so it may come a little
    /// later than what the clients saw.
    fn ledger(&self, before: &Before, report: &Report) -> Result<Ledger> {
        let seen = report.total.reset + report.total.closed_early;
        let deadline = Instant::now() + REPORTED_WITHIN;
        loop {
            let ledger = self.cluster.api().ledger()?.since(&before.ledger);
            if ledger.reset == seen || Instant::now() >= deadline {
                return Ok(ledger);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Counters that were all read after this was called. Those of who has gone stay as they are.
    fn newest_counters(&self) -> Result<Counters> {
        let times = |counters: &Counters| -> BTreeMap<String, u64> {
            let directors = counters.directors.iter();
            let directors = directors.map(|one| (format!("node {}", one.node), one.at_us));
            let ingresses = counters.ingresses.iter();
            let ingresses = ingresses.map(|one| (format!("guest {}", one.guest), one.at_us));
            directors.chain(ingresses).collect()
        };
        let deadline = Instant::now() + REPORTED_WITHIN;
        let first = times(&self.cluster.api().counters()?);
        let newest = first.values().max().copied().unwrap_or(0);
        loop {
            let counters = self.cluster.api().counters()?;
            let times = times(&counters);
            let old = times.iter().find(|(who, at_us)| {
                let is_gone = newest.saturating_sub(**at_us) > GONE_US;
                let is_read_again = first.get(*who).is_none_or(|before| *at_us > before);
                !is_gone && !is_read_again
            });
            let Some((who, _)) = old else {
                return Ok(counters);
            };
            // Old ones would say that nothing happened.
            if Instant::now() >= deadline {
                bail!("the counters of {who} were not read again for {REPORTED_WITHIN:?}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Director,
    Ingress,
}

/// By how much the counters of packets that went nowhere grew, but for those that did not.
fn dropped(before: &Counters, now: &Counters) -> BTreeMap<String, u64> {
    /// Those of the table's rules; all others are named `drop_*`.
    const RULES: [&str; 7] = [
        "no_row",
        "not_named",
        "no_answer",
        "older_row",
        "no_lease",
        "not_listed",
        "wrong_number",
    ];
    let directors = now.directors.iter().map(|one| &one.counters);
    let ingresses = now.ingresses.iter().map(|one| &one.counters);
    let names = directors.chain(ingresses).flat_map(BTreeMap::keys);
    let names = names.filter(|name| name.starts_with("drop_") || RULES.contains(&name.as_str()));
    let names: BTreeSet<&String> = names.collect();
    let grown = names.into_iter().map(|name| {
        let roles = [Role::Director, Role::Ingress];
        (name.clone(), counted(before, now, &roles, name))
    });
    grown.filter(|(_, count)| *count > 0).collect()
}

/// By how much a counter grew, summed over all that have it. One that began anew counts from 0, one
/// that is gone is not counted.
fn counted(before: &Counters, now: &Counters, roles: &[Role], name: &str) -> u64 {
    let of = |counters: &Counters| -> BTreeMap<String, u64> {
        let directors = counters
            .directors
            .iter()
            .filter(|_| roles.contains(&Role::Director))
            .map(|one| (format!("node {}", one.node), one.counters.get(name)));
        let ingresses = counters
            .ingresses
            .iter()
            .filter(|_| roles.contains(&Role::Ingress))
            .map(|one| (format!("guest {}", one.guest), one.counters.get(name)));
        directors
            .chain(ingresses)
            .map(|(who, value)| (who, value.copied().unwrap_or(0)))
            .collect()
    };
    let before = of(before);
    of(now)
        .into_iter()
        .map(|(who, value)| {
            let was = before.get(&who).copied().unwrap_or(0);
            value.checked_sub(was).unwrap_or(value)
        })
        .sum()
}

/// Buckets whose row names other guests than before, or has another sequence where that is known:
/// at the beginning of a run. Both lists are in order.
fn rows_changed(before: &[BucketRun], now: &[BucketRun]) -> u64 {
    let mut changed = 0;
    let mut old = before.iter().peekable();
    for run in now {
        for bucket in run.first..=run.last {
            while old.next_if(|old| old.last < bucket).is_some() {}
            let was = old.peek().filter(|old| old.first <= bucket);
            // Called back, it names the same guests by a later sequence.
            let is_same = was.is_some_and(|was| {
                let is_known = was.first == bucket && run.first == bucket;
                was.slots == run.slots && (!is_known || was.sequence == run.sequence)
            });
            changed += u64::from(!is_same);
        }
    }
    changed
}

/// Whether as many processes run as there were, and none of those.
fn await_others(before: &BTreeSet<u32>, now: impl Fn() -> Result<BTreeSet<u32>>) -> Result<bool> {
    let deadline = Instant::now() + REPLACED_WITHIN;
    loop {
        // A controller that starts again does not answer yet.
        let now = now().unwrap_or_default();
        let are_others = now.is_disjoint(before) && now.len() >= before.len();
        if are_others || Instant::now() >= deadline {
            return Ok(are_others);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u16, last: u16, slots: &[u16], sequence: u16) -> BucketRun {
        BucketRun {
            first,
            last,
            row: Vec::new(),
            slots: slots.to_vec(),
            sequence,
            reason: "at rest".to_owned(),
            wait: None,
        }
    }

    #[test]
    fn rows_that_name_others_are_counted_by_bucket() {
        let before = [run(0, 99, &[1, 2], 4), run(100, 199, &[2, 1], 4)];
        assert_eq!(rows_changed(&before, &before), 0);
        let moved = [
            run(0, 49, &[1, 2], 4),
            run(50, 149, &[3, 1], 6),
            run(150, 199, &[2, 1], 4),
        ];
        assert_eq!(rows_changed(&before, &moved), 100);
        let back = [run(0, 99, &[1, 2], 8), run(100, 199, &[2, 1], 4)];
        assert_eq!(rows_changed(&before, &back), 1);
        assert_eq!(rows_changed(&[], &before), 200);
    }

    #[test]
    fn counters_that_began_anew_count_from_nothing() {
        let of = |values: &[(&str, u64)]| Counters {
            directors: Vec::new(),
            ingresses: values
                .iter()
                .map(|(guest, value)| hitless_api::IngressCounters {
                    guest: (*guest).to_owned(),
                    node: "n1".to_owned(),
                    at_us: 1,
                    counters: BTreeMap::from([("forwarded".to_owned(), *value)]),
                })
                .collect(),
        };
        let before = of(&[("a", 10), ("b", 7), ("gone", 5)]);
        let now = of(&[("a", 12), ("b", 3), ("new", 4)]);
        assert_eq!(
            counted(&before, &now, &[Role::Ingress], "forwarded"),
            2 + 3 + 4
        );
        assert_eq!(counted(&before, &now, &[Role::Director], "forwarded"), 0);
    }
}
