//! A step that lost something, or in which nothing happened, does not hold.

use super::*;
use crate::client::Tally;

fn report(change: impl Fn(&mut Report)) -> Report {
    let total = Tally {
        connections: 100,
        carried: 90,
        finished: 10,
        ..Tally::default()
    };
    let mut report = Report {
        window: "step".to_owned(),
        duration_ms: 5_000,
        total,
        workloads: BTreeMap::from([("streams".to_owned(), total)]),
        http: vec!["web".to_owned()],
        retransmits: 0,
        retransmits_before: 0,
        before_ms: 5_000,
        mid_message_max: 7,
        failures: Vec::new(),
    };
    change(&mut report);
    report
}

fn lose(report: &mut Report, workload: &str, change: impl Fn(&mut Tally)) {
    report.total.carried -= 1;
    change(&mut report.total);
    let mut one = Tally {
        connections: 1,
        ..Tally::default()
    };
    change(&mut one);
    report.workloads.insert(workload.to_owned(), one);
}

fn full() -> Evidence {
    Evidence {
        flows: Some((100, 30)),
        forwarded: Some(5),
        old_workers_gone_ms: Some(Some(300)),
        programs_replaced: Some(true),
        processes_replaced: Some(true),
        is_native: true,
        victim_connections: Some(20),
        bytes_in_pipes: None,
        last_packet_ms: Some(Some(90)),
        ledger_reset: Some(0),
        failure: None,
    }
}

const ALL: [StepKind; 12] = [
    StepKind::AddGuest,
    StepKind::DrainGuest,
    StepKind::CallBack,
    StepKind::AddNode,
    StepKind::RemoveNode,
    StepKind::RebootNode,
    StepKind::UpgradeTrafficManagers,
    StepKind::ReplacePrograms,
    StepKind::KillControl,
    StepKind::KillWorkers,
    StepKind::KillGuest,
    StepKind::Steady,
];

fn holds(kind: StepKind, report: &Report, evidence: &Evidence) -> bool {
    judge("step", kind, report, evidence).faults.is_empty()
}

#[test]
fn every_kind_holds_where_nothing_is_lost_and_something_happened() {
    for kind in ALL {
        let result = judge("step", kind, &report(|_| ()), &full());
        assert!(result.faults.is_empty(), "{kind:?}: {:?}", result.faults);
    }
}

#[test]
fn corruption_refusal_and_wrong_sums_break_every_kind() {
    for kind in ALL {
        for change in [
            |tally: &mut Tally| tally.corrupted += 1,
            |tally: &mut Tally| tally.refused += 1,
            |tally: &mut Tally| tally.connections += 1,
        ] {
            let lost = report(|report| lose(report, "web", change));
            assert!(!holds(kind, &lost, &full()), "{kind:?}");
        }
        let none = report(|report| report.total = Tally::default());
        assert!(!holds(kind, &none, &full()), "{kind:?}");
    }
}

#[test]
fn a_lost_connection_breaks_all_but_the_kills_that_may_cost_one() {
    for kind in ALL {
        for change in [
            |tally: &mut Tally| tally.reset += 1,
            |tally: &mut Tally| tally.closed_early += 1,
        ] {
            let mut evidence = full();
            evidence.ledger_reset = None;
            let raw = report(|report| lose(report, "streams", change));
            assert_eq!(
                holds(kind, &raw, &evidence),
                kind == StepKind::KillGuest,
                "{kind:?}"
            );
            let http = report(|report| lose(report, "web", change));
            let may = matches!(kind, StepKind::KillGuest | StepKind::KillWorkers);
            assert_eq!(holds(kind, &http, &evidence), may, "{kind:?}");
        }
        let told = report(|report| lose(report, "web", |tally| tally.told_to_close += 1));
        assert_eq!(
            holds(kind, &told, &full()),
            kind.may_tell_to_close(),
            "{kind:?}"
        );
    }
    let mut evidence = full();
    evidence.victim_connections = Some(0);
    evidence.ledger_reset = None;
    let lost = report(|report| lose(report, "streams", |tally| tally.reset += 1));
    assert!(!holds(StepKind::KillGuest, &lost, &evidence));
}

#[test]
fn a_step_in_which_nothing_happened_does_not_hold() {
    let quiet = report(|report| report.mid_message_max = 0);
    for kind in ALL {
        type Spoil = fn(&mut Evidence);
        let bad: [(&str, bool, Spoil); 7] = [
            ("flows", kind.changes_directors(), |e| {
                e.flows = Some((100, 19))
            }),
            ("forwarded", kind.changes_rows(), |e| e.forwarded = Some(0)),
            ("workers", true, |e| e.old_workers_gone_ms = Some(None)),
            ("programs", true, |e| e.programs_replaced = Some(false)),
            ("generic", true, |e| e.is_native = false),
            ("failure", true, |e| {
                e.failure = Some("not settled".to_owned())
            }),
            ("last packet", true, |e| {
                e.last_packet_ms = Some(Some(2_001))
            }),
        ];
        for (what, must_break, change) in bad {
            let mut evidence = full();
            change(&mut evidence);
            assert_eq!(
                !holds(kind, &report(|_| ()), &evidence),
                must_break,
                "{kind:?} {what}"
            );
        }
        assert_eq!(!holds(kind, &quiet, &full()), kind.takes_over(), "{kind:?}");
    }
    let mut evidence = full();
    evidence.ledger_reset = Some(1);
    assert!(
        !holds(StepKind::AddGuest, &report(|_| ()), &evidence),
        "tally and ledger differ"
    );
}
