//! Whether a step held: what the clients lost, and that the step was not vacuous.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::client::Report;
use crate::script::StepKind;

/// Share of the flows that must have changed their director at a change of nodes, in percent.
const MOVED_PERCENT_MIN: u64 = 20;
/// An old worker is gone within this.
const OLD_WORKER_MS_MAX: u64 = 2_000;
/// The last packet is sent to a dead guest within this.
const DEAD_GUEST_MS_MAX: u64 = 2_000;

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
    #[serde(skip)]
    pub faults: Vec<String>,
    #[serde(skip)]
    pub seconds: u64,
}

/// The document for programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Document {
    pub kept: bool,
    pub steps: Vec<StepResult>,
}

/// What was gathered about a step, next to the clients' report. None is what the step's kind does
/// not have.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Flows open before and after, and how many of them another director has now.
    pub flows: Option<(u64, u64)>,
    /// Packets that ingresses passed along rows.
    pub forwarded: Option<u64>,
    /// How long after the takeover the last old worker was gone. None: it was still there at the
    /// step's end.
    pub old_workers_gone_ms: Option<Option<u64>>,
    /// Whether every director and every guest runs another program than before.
    pub programs_replaced: Option<bool>,
    /// Whether every process that was to be killed has another number now.
    pub processes_replaced: Option<bool>,
    /// Whether every node's director is attached natively.
    pub is_native: bool,
    /// Clients' connections that the guest held when it was killed, by its kernel.
    pub victim_connections: Option<u64>,
    /// Bytes that were in pipes when workers were killed.
    pub bytes_in_pipes: Option<u64>,
    /// From the guest's death to the last packet sent to it. None: the counters do not say.
    pub last_packet_ms: Option<Option<u64>>,
    /// What the product's own ledger calls reset. None: it was not read.
    pub ledger_reset: Option<u64>,
    /// The change failed or did not settle.
    pub failure: Option<String>,
}

/// Judges a step.
pub fn judge(name: &str, kind: StepKind, report: &Report, evidence: &Evidence) -> StepResult {
    let tally = &report.total;
    let mut faults: Vec<String> = evidence.failure.iter().cloned().collect();
    let mut proofs = BTreeMap::new();
    if !tally.adds_up() {
        faults.push("the outcomes do not add up to the connections".to_owned());
    }
    if tally.connections == 0 {
        faults.push("there were no connections".to_owned());
    }
    judge_losses(kind, report, evidence, &mut faults);

    let mut prove = |name: &str, value: Value, holds: bool, fault: String| {
        proofs.insert(name.to_owned(), value);
        if !holds {
            faults.push(fault);
        }
    };
    prove(
        "xdp_native",
        evidence.is_native.into(),
        evidence.is_native,
        "a director is not attached natively".to_owned(),
    );
    if kind.changes_directors() {
        let (all, moved) = evidence.flows.unwrap_or_default();
        let percent = (moved * 100).checked_div(all).unwrap_or(0);
        prove(
            "flows_changed_director_percent",
            percent.into(),
            percent >= MOVED_PERCENT_MIN,
            format!("only {percent} % of the flows changed their director"),
        );
    }
    if kind.changes_rows() {
        let forwarded = evidence.forwarded.unwrap_or(0);
        prove(
            "packets_forwarded",
            forwarded.into(),
            forwarded > 0,
            "no packet was passed along a row".to_owned(),
        );
    }
    if kind.takes_over() {
        prove(
            "mid_message",
            report.mid_message_max.into(),
            report.mid_message_max > 0,
            "no connection was in mid-message".to_owned(),
        );
    }
    if let Some(gone) = evidence.old_workers_gone_ms {
        prove(
            "old_workers_gone_ms",
            gone.map_or(Value::Null, Value::from),
            gone.is_some_and(|ms| ms <= OLD_WORKER_MS_MAX),
            format!("old workers were not gone within {OLD_WORKER_MS_MAX} ms"),
        );
    }
    for (name, proof, fault) in [
        (
            "programs_replaced",
            evidence.programs_replaced,
            "a program is still the old one",
        ),
        (
            "processes_replaced",
            evidence.processes_replaced,
            "a process that was killed did not come back",
        ),
    ] {
        if let Some(holds) = proof {
            prove(name, holds.into(), holds, fault.to_owned());
        }
    }
    if let Some(count) = evidence.victim_connections {
        prove(
            "victim_connections",
            count.into(),
            count > 0,
            "the guest held no connection".to_owned(),
        );
    }
    if let Some(bytes) = evidence.bytes_in_pipes {
        prove(
            "bytes_in_pipes",
            bytes.into(),
            bytes > 0,
            "no byte was in a pipe when workers were killed".to_owned(),
        );
    }
    if let Some(last) = evidence.last_packet_ms {
        prove(
            "last_packet_ms",
            last.map_or(Value::Null, Value::from),
            last.is_some_and(|ms| ms <= DEAD_GUEST_MS_MAX),
            last.map_or_else(
                || "no counter tells when the last packet was sent to the dead guest".to_owned(),
                |ms| format!("packets were sent to the dead guest for {ms} ms"),
            ),
        );
    }
    if let Some(reset) = evidence.ledger_reset {
        let agrees = kind == StepKind::KillGuest || reset == tally.reset;
        prove(
            "ledger_reset",
            reset.into(),
            agrees,
            format!("the ledger says {reset} reset, the tally {}", tally.reset),
        );
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
        proofs,
        faults,
        seconds: report.duration_ms / 1_000,
    }
}

fn judge_losses(kind: StepKind, report: &Report, evidence: &Evidence, faults: &mut Vec<String>) {
    let tally = &report.total;
    let lost = tally.lost();
    if tally.corrupted > 0 {
        faults.push(format!("{} connections corrupted", tally.corrupted));
    }
    if tally.refused > 0 {
        faults.push(format!("{} connections refused", tally.refused));
    }
    if tally.told_to_close > 0 && !kind.may_tell_to_close() {
        faults.push(format!("{} clients told to close", tally.told_to_close));
    }
    let broken = tally.reset + tally.closed_early;
    match kind {
        // At most the requests that were in flight; no raw connection.
        StepKind::KillWorkers => {
            let raw: u64 = report
                .workloads
                .iter()
                .filter(|(name, _)| !report.http.contains(*name))
                .map(|(_, tally)| tally.lost())
                .sum();
            if raw > 0 {
                faults.push(format!("{raw} raw TCP connections lost"));
            }
            if lost > report.mid_message_max {
                faults.push(format!(
                    "{lost} connections lost, and only {} were in mid-message",
                    report.mid_message_max
                ));
            }
        }
        StepKind::KillGuest => {
            let own = evidence.victim_connections.unwrap_or(0);
            if broken > own {
                faults.push(format!(
                    "{broken} connections lost, and the guest held only {own}"
                ));
            }
        }
        _ if broken > 0 => faults.push(format!(
            "{} connections reset, {} closed early",
            tally.reset, tally.closed_early
        )),
        _ => {}
    }
    if !faults.is_empty() {
        for failure in report.failures.iter().take(3) {
            faults.push(format!(
                "{} {} - {}: {:?} after {} ms: {}",
                failure.workload,
                failure.flow.from,
                failure.flow.to,
                failure.outcome,
                failure.at_ms,
                failure.detail
            ));
        }
    }
}

#[cfg(test)]
mod tests;
