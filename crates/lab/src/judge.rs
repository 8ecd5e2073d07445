//! Whether a step held: what the clients lost, and that the step was not vacuous.
//!
//! Everything that a kind of step asks for has to be there: what was not gathered did not happen.

use std::collections::{BTreeMap, BTreeSet};

use hitless_api::Ledger;
use serde::Serialize;
use serde_json::Value;

use crate::client::{Failure, Flow, Report};
use crate::script::StepKind;

/// Share of the flows that must have changed their director at a change of nodes, in percent.
const MOVED_PERCENT_MIN: u64 = 20;
/// An old worker is gone within this.
const OLD_WORKER_MS_MAX: u64 = 2_000;
/// The last packet is sent to a dead guest within this.
const DEAD_GUEST_MS_MAX: u64 = 2_000;
/// No controller runs for so long after a guest's death: longer than a new connection may take.
pub const WITHOUT_CONTROLLER_MS: u64 = 6_000;
/// Lost connections that are told one by one.
const FAILURES_SHOWN: usize = 3;

/// One step's line in the document for programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepResult {
    pub name: String,
    pub planned: bool,
    pub kind: StepKind,
    pub connections: u64,
    pub carried: u64,
    pub finished: u64,
    pub told_to_close: u64,
    pub reset: u64,
    pub closed_early: u64,
    pub refused: u64,
    pub corrupted: u64,
    pub stall_ms_max: u64,
    pub retransmits_step: u64,
    pub retransmits_before: u64,
    pub proofs: BTreeMap<String, Value>,
    /// Why the step did not hold. Empty if it did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    #[serde(skip)]
    pub seconds: u64,
}

/// The document for programs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Document {
    pub kept: bool,
    pub steps: Vec<StepResult>,
    /// Why there are no more steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What was gathered about a step, next to the clients' report. None is what was not gathered.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Flows open before and after, and how many of them another director has now.
    pub flows: Option<(u64, u64)>,
    /// Packets that directors sent to guests.
    pub directed: Option<u64>,
    /// Buckets whose row is another than before.
    pub rows_changed: Option<u64>,
    /// Packets that ingresses passed along rows.
    pub forwarded: Option<u64>,
    /// Packets that met no connection on any guest and were answered by a reset: no loss by itself.
    pub unknown_reset: Option<u64>,
    /// Packets that directors and ingresses dropped, by counter, where there were any.
    pub drops: Option<BTreeMap<String, u64>>,
    /// How long old workers were there beside new ones, at most. None inside: one stayed.
    pub old_workers_gone_ms: Option<Option<u64>>,
    /// Whether every director and every guest runs another program than before.
    pub programs_replaced: Option<bool>,
    /// Whether every process that was to be killed has another number now.
    pub processes_replaced: Option<bool>,
    /// Whether every node's director is attached natively.
    pub is_native: Option<bool>,
    /// Clients' connections that the guest held when it was killed, by its kernel.
    pub victims: Option<BTreeSet<Flow>>,
    /// For how long no controller ran after the guest's death.
    pub without_controller_ms: Option<u64>,
    /// Bytes that were in pipes when workers were killed.
    pub bytes_in_pipes: Option<u64>,
    /// From the guest's death to the last packet sent to it. None inside: the counters do not say.
    pub last_packet_ms: Option<Option<u64>>,
    /// The product's own ledger of the step.
    pub ledger: Option<Ledger>,
    /// The change failed or did not settle.
    pub failure: Option<String>,
}

/// Judges a step.
pub fn judge(name: &str, kind: StepKind, report: &Report, evidence: &Evidence) -> StepResult {
    let tally = &report.total;
    let mut verdict = Verdict {
        proofs: BTreeMap::new(),
        faults: evidence.failure.iter().cloned().collect(),
    };
    verdict.losses(kind, report, evidence);
    verdict.life(kind, report, evidence);
    verdict.changes(kind, evidence);
    verdict.replacements(kind, evidence);
    verdict.death(kind, evidence);
    verdict.ledger(kind, report, evidence);
    if !verdict.faults.is_empty() {
        let told = report.failures.iter().take(FAILURES_SHOWN).map(tell);
        verdict.faults.extend(told);
    }
    StepResult {
        name: name.to_owned(),
        planned: kind.is_planned(),
        kind,
        connections: tally.connections,
        carried: tally.carried,
        finished: tally.finished,
        told_to_close: tally.told_to_close,
        reset: tally.reset,
        closed_early: tally.closed_early,
        refused: tally.refused,
        corrupted: tally.corrupted,
        stall_ms_max: tally.stall_ms_max,
        retransmits_step: report.retransmits,
        retransmits_before: report.retransmits_before,
        proofs: verdict.proofs,
        faults: verdict.faults,
        seconds: report.duration_ms / 1_000,
    }
}

/// Losses in a time in which nothing was changed: `when` says which.
pub fn judge_quiet(when: &str, report: &Report) -> Vec<String> {
    let tally = &report.total;
    let mut faults = Vec::new();
    if !tally.adds_up() {
        faults.push(format!(
            "{when}, the outcomes do not add up to the connections"
        ));
    }
    if tally.lost() > 0 {
        faults.push(format!("{when}, {} connections were lost", tally.lost()));
        faults.extend(report.failures.iter().take(FAILURES_SHOWN).map(tell));
    }
    faults
}

fn tell(failure: &Failure) -> String {
    let Failure {
        workload,
        flow,
        outcome,
        at_ms,
        detail,
        ..
    } = failure;
    let Flow { from, to } = flow;
    format!("{workload} {from} - {to}: {outcome:?} after {at_ms} ms: {detail}")
}

struct Verdict {
    proofs: BTreeMap<String, Value>,
    faults: Vec<String>,
}

impl Verdict {
    /// A figure that the kind of step asks for, and what is wrong if it does not hold. A figure
    /// that was not gathered does not hold; one that is not asked for is shown only.
    fn prove<T: Clone + Into<Value>>(
        &mut self,
        name: &str,
        is_asked: bool,
        figure: Option<T>,
        holds: impl Fn(&T) -> bool,
        fault: impl Fn(&T) -> String,
    ) {
        if let Some(figure) = &figure {
            self.proofs.insert(name.to_owned(), figure.clone().into());
        }
        if !is_asked {
            return;
        }
        match figure {
            None => self.faults.push(format!("{name} is not known")),
            Some(figure) if !holds(&figure) => self.faults.push(fault(&figure)),
            Some(_) => {}
        }
    }

    /// What the clients lost, by the promise of this kind.
    fn losses(&mut self, kind: StepKind, report: &Report, evidence: &Evidence) {
        let tally = &report.total;
        if !tally.adds_up() {
            let text = "the outcomes do not add up to the connections";
            self.faults.push(text.to_owned());
        }
        if tally.corrupted > 0 {
            let text = format!("{} connections corrupted", tally.corrupted);
            self.faults.push(text);
        }
        if tally.refused > 0 {
            let text = format!("{} connections refused", tally.refused);
            self.faults.push(text);
        }
        if tally.told_to_close > 0 && !kind.may_tell_to_close() {
            let text = format!("{} clients told to close", tally.told_to_close);
            self.faults.push(text);
        }
        let broken = tally.reset + tally.closed_early;
        match kind {
            // Requests that were in flight; no raw connection, and no idle one.
            StepKind::KillWorkers => {
                let raw: u64 = report
                    .workloads
                    .iter()
                    .filter(|(name, _)| !report.http.contains(*name))
                    .map(|(_, tally)| tally.lost())
                    .sum();
                if raw > 0 {
                    self.faults.push(format!("{raw} raw TCP connections lost"));
                }
                let in_flight = report.failures.iter().filter(|one| one.is_mid_message);
                let in_flight = in_flight.count() as u64;
                if broken > in_flight {
                    let idle = broken - in_flight;
                    let text = format!("{idle} connections lost that waited for no answer");
                    self.faults.push(text);
                }
                if broken > report.mid_answer_max {
                    self.faults.push(format!(
                        "{broken} connections lost, and at most {} waited for an answer",
                        report.mid_answer_max
                    ));
                }
            }
            // Its own connections, one by one.
            StepKind::KillGuest => {
                let none = BTreeSet::new();
                let own = evidence.victims.as_ref().unwrap_or(&none);
                let own_lost = report
                    .failures
                    .iter()
                    .filter(|one| own.contains(&one.flow))
                    .count() as u64;
                if broken > own_lost {
                    let others = broken - own_lost;
                    let text = format!("{others} connections lost that the guest did not hold");
                    self.faults.push(text);
                }
            }
            _ if broken > 0 => {
                let (reset, closed) = (tally.reset, tally.closed_early);
                let text = format!("{reset} connections reset, {closed} closed early");
                self.faults.push(text);
            }
            _ => {}
        }
    }

    /// The change met live traffic.
    fn life(&mut self, kind: StepKind, report: &Report, evidence: &Evidence) {
        if report.total.connections == 0 {
            self.faults.push("there were no connections".to_owned());
        }
        // What the retransmissions of the step and of the steady load before it are counted over.
        let windows = [
            ("window_ms", report.duration_ms),
            ("steady_window_ms", report.before_ms),
        ];
        for (name, ms) in windows {
            self.proofs.insert(name.to_owned(), ms.into());
        }
        let messages = report.messages;
        self.prove(
            "messages",
            true,
            Some(messages),
            |count| *count > 0,
            |_| "no message arrived at a client".to_owned(),
        );
        // Where clients go straight to the members there is no director.
        let has_cluster = kind != StepKind::Steady || evidence.is_native.is_some();
        self.prove(
            "xdp_native",
            has_cluster,
            evidence.is_native,
            |is_native| *is_native,
            |_| "a director is not attached natively".to_owned(),
        );
        self.prove(
            "packets_directed",
            has_cluster,
            evidence.directed,
            |count| *count > 0,
            |_| "no director sent a packet to a guest".to_owned(),
        );
        self.prove(
            "mid_message",
            kind.takes_over(),
            kind.takes_over().then_some(report.mid_message_min),
            |count| *count > 0,
            |_| "there was a time without a connection in mid-message".to_owned(),
        );
    }

    /// Flows, rows and packets went other ways.
    fn changes(&mut self, kind: StepKind, evidence: &Evidence) {
        let percent = |(all, moved): (u64, u64)| (moved * 100).checked_div(all).unwrap_or(0);
        self.prove(
            "flows_changed_director_percent",
            kind.changes_directors(),
            evidence.flows.map(percent),
            |percent| *percent >= MOVED_PERCENT_MIN,
            |percent| format!("only {percent} % of the flows changed their director"),
        );
        self.prove(
            "rows_changed",
            kind.changes_rows(),
            kind.changes_rows()
                .then_some(evidence.rows_changed)
                .flatten(),
            |count| *count > 0,
            |_| "no bucket's row has changed".to_owned(),
        );
        self.prove(
            "packets_forwarded",
            kind.changes_rows(),
            kind.changes_rows().then_some(evidence.forwarded).flatten(),
            |count| *count > 0,
            |_| "no packet was passed along a row".to_owned(),
        );
        if let Some(drops) = &evidence.drops {
            let drops = drops
                .iter()
                .map(|(name, count)| (name.clone(), (*count).into()));
            self.proofs
                .insert("drops".to_owned(), Value::Object(drops.collect()));
        }
        self.prove(
            "unknown_reset",
            false,
            evidence.unknown_reset,
            |_| true,
            |_| String::new(),
        );
    }

    /// Programs and processes are others.
    fn replacements(&mut self, kind: StepKind, evidence: &Evidence) {
        self.prove(
            "programs_replaced",
            kind.replaces_programs(),
            evidence.programs_replaced,
            |holds| *holds,
            |_| "a program is still the old one".to_owned(),
        );
        self.prove(
            "processes_replaced",
            kind.kills_processes(),
            evidence.processes_replaced,
            |holds| *holds,
            |_| "a process that was killed did not come back".to_owned(),
        );
        self.prove(
            "old_workers_gone_ms",
            kind == StepKind::UpgradeTrafficManagers,
            evidence.old_workers_gone_ms,
            |gone| gone.is_some_and(|ms| ms <= OLD_WORKER_MS_MAX),
            |_| format!("old workers were not gone within {OLD_WORKER_MS_MAX} ms"),
        );
        self.prove(
            "bytes_in_pipes",
            kind == StepKind::KillWorkers,
            evidence.bytes_in_pipes,
            |bytes| *bytes > 0,
            |_| "no byte was in a pipe when workers were killed".to_owned(),
        );
    }

    /// A guest died, and the others knew without being told by a controller.
    fn death(&mut self, kind: StepKind, evidence: &Evidence) {
        let is_asked = kind == StepKind::KillGuest;
        self.prove(
            "victim_connections",
            is_asked,
            evidence.victims.as_ref().map(|held| held.len() as u64),
            |count| *count > 0,
            |_| "the guest held no connection".to_owned(),
        );
        self.prove(
            "last_packet_ms",
            is_asked,
            evidence.last_packet_ms,
            |last| last.is_some_and(|ms| ms <= DEAD_GUEST_MS_MAX),
            |last| match last {
                None => "no counter tells when the last packet was sent to the dead guest".into(),
                Some(ms) => format!("packets were sent to the dead guest for {ms} ms"),
            },
        );
        // A script may want to see it with one.
        self.prove(
            "without_controller_ms",
            is_asked && evidence.without_controller_ms.is_some(),
            evidence.without_controller_ms,
            |ms| *ms >= WITHOUT_CONTROLLER_MS,
            |ms| format!("there was no controller for {ms} ms only"),
        );
    }

    /// What the product counts by itself is what the clients saw. A guest that is gone counts
    /// nothing more.
    fn ledger(&mut self, kind: StepKind, report: &Report, evidence: &Evidence) {
        if let Some(ledger) = &evidence.ledger {
            let lines = [
                ("connections", ledger.connections),
                ("carried", ledger.carried.total()),
                ("finished", ledger.finished),
                ("told_to_close", ledger.told_to_close),
                ("reset", ledger.reset),
            ];
            let lines = lines.map(|(name, count)| (name.to_owned(), count.into()));
            self.proofs.insert(
                "ledger".to_owned(),
                Value::Object(lines.into_iter().collect()),
            );
        }
        let broken = report.total.reset + report.total.closed_early;
        self.prove(
            "ledger_reset",
            match kind {
                StepKind::KillGuest => false,
                StepKind::Steady => evidence.ledger.is_some(),
                _ => true,
            },
            evidence.ledger.map(|ledger| ledger.reset),
            |reset| *reset == broken,
            |reset| format!("the ledger says {reset} reset, the tally {broken}"),
        );
    }
}

#[cfg(test)]
mod tests;
