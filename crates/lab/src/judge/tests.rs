//! A step that lost something, or in which nothing happened, does not hold.
//!
//! Each rule of the judge is broken here, alone, for every kind of step.

use std::collections::BTreeMap;

use super::*;
use crate::client::{Outcome, Tally};

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

fn flow(port: u16) -> Flow {
    Flow {
        from: ([192, 0, 2, 10], port).into(),
        to: ([203, 0, 113, 7], 80).into(),
    }
}

/// A window in which nothing was lost.
fn report() -> Report {
    let total = Tally {
        connections: 100,
        carried: 90,
        finished: 10,
        ..Tally::default()
    };
    Report {
        window: "step".to_owned(),
        duration_ms: 5_000,
        total,
        workloads: BTreeMap::from([("streams".to_owned(), total)]),
        http: vec!["web".to_owned()],
        retransmits: 0,
        retransmits_before: 0,
        before_ms: 5_000,
        messages: 500,
        mid_message_min: 3,
        mid_message_max: 7,
        mid_answer_max: 2,
        failures: Vec::new(),
    }
}

/// A window in which one connection of `workload` was lost, in mid-message, on port 1.
fn lost(workload: &str, outcome: Outcome) -> Report {
    let mut report = report();
    report.total.carried -= 1;
    report.total.count(outcome);
    let mut one = Tally {
        connections: 1,
        ..Tally::default()
    };
    one.count(outcome);
    report.workloads.insert(workload.to_owned(), one);
    report.failures.push(Failure {
        workload: workload.to_owned(),
        flow: flow(1),
        outcome,
        detail: "the peer reset it".to_owned(),
        is_mid_message: true,
        at_ms: 12,
    });
    report
}

/// All that any kind of step asks for.
fn full() -> Evidence {
    Evidence {
        flows: Some((100, 30)),
        directed: Some(900),
        rows_changed: Some(40),
        forwarded: Some(5),
        unknown_reset: Some(0),
        drops: Some(BTreeMap::new()),
        old_workers_gone_ms: Some(Some(300)),
        programs_replaced: Some(true),
        processes_replaced: Some(true),
        is_native: Some(true),
        victims: Some(BTreeSet::from([flow(1), flow(2)])),
        without_controller_ms: Some(6_000),
        bytes_in_pipes: Some(4_000),
        last_packet_ms: Some(Some(90)),
        ledger: Some(Ledger::default()),
        failure: None,
    }
}

/// The same, where the product says that it broke one.
fn one_broken() -> Evidence {
    Evidence {
        ledger: Some(Ledger {
            reset: 1,
            ..Ledger::default()
        }),
        ..full()
    }
}

fn faults(kind: StepKind, report: &Report, evidence: &Evidence) -> Vec<String> {
    judge("step", kind, report, evidence).faults
}

fn holds(kind: StepKind, report: &Report, evidence: &Evidence) -> bool {
    faults(kind, report, evidence).is_empty()
}

#[test]
fn every_kind_holds_where_nothing_is_lost_and_something_happened() {
    for kind in ALL {
        assert_eq!(faults(kind, &report(), &full()), [""; 0], "{kind:?}");
    }
    // Straight to the members there is no product to be asked.
    assert!(holds(StepKind::Steady, &report(), &Evidence::default()));
}

#[test]
fn corruption_refusal_and_wrong_sums_break_every_kind() {
    for kind in ALL {
        for outcome in [Outcome::Corrupted, Outcome::Refused] {
            for workload in ["web", "streams"] {
                let lost = lost(workload, outcome);
                assert!(!holds(kind, &lost, &full()), "{kind:?} {outcome:?}");
            }
        }
        let mut wrong_sum = report();
        wrong_sum.total.connections += 1;
        assert!(!holds(kind, &wrong_sum, &full()), "{kind:?}");
        let mut none = report();
        none.total = Tally::default();
        assert!(!holds(kind, &none, &full()), "{kind:?}");
    }
}

#[test]
fn a_lost_connection_breaks_all_but_the_kills_that_may_cost_one() {
    for kind in ALL {
        for outcome in [Outcome::Reset, Outcome::ClosedEarly] {
            let raw = lost("streams", outcome);
            let may = kind == StepKind::KillGuest;
            assert_eq!(holds(kind, &raw, &one_broken()), may, "{kind:?}");
            let http = lost("web", outcome);
            let may = matches!(kind, StepKind::KillGuest | StepKind::KillWorkers);
            assert_eq!(holds(kind, &http, &one_broken()), may, "{kind:?}");
        }
        let told = lost("web", Outcome::ToldToClose);
        let may = kind.may_tell_to_close();
        assert_eq!(holds(kind, &told, &full()), may, "{kind:?}");
    }
}

#[test]
fn only_drains_may_tell_clients_to_close() {
    let drains: Vec<StepKind> = ALL
        .into_iter()
        .filter(|kind| kind.may_tell_to_close())
        .collect();
    let expected = [
        StepKind::DrainGuest,
        StepKind::CallBack,
        StepKind::RemoveNode,
        StepKind::RebootNode,
    ];
    assert_eq!(drains, expected);
}

#[test]
fn a_killed_guest_loses_its_own_connections_only() {
    let mut evidence = one_broken();
    let own = lost("streams", Outcome::Reset);
    assert!(holds(StepKind::KillGuest, &own, &evidence));
    // As many, but another's.
    evidence.victims = Some(BTreeSet::from([flow(2), flow(3)]));
    assert!(!holds(StepKind::KillGuest, &own, &evidence));
    // One more than is told of.
    let mut more = own;
    more.total.carried -= 1;
    more.total.reset += 1;
    assert!(!holds(StepKind::KillGuest, &more, &one_broken()));
}

#[test]
fn a_killed_worker_loses_nothing_but_requests_in_flight() {
    let kind = StepKind::KillWorkers;
    let request = lost("web", Outcome::Reset);
    assert!(holds(kind, &request, &one_broken()));
    let mut idle = request.clone();
    idle.failures[0].is_mid_message = false;
    assert!(!holds(kind, &idle, &one_broken()), "it was idle");
    let mut none_waited = request;
    none_waited.mid_answer_max = 0;
    assert!(!holds(kind, &none_waited, &one_broken()), "none waited");
}

#[test]
fn tally_and_ledger_have_to_agree() {
    for kind in ALL {
        let asked = kind != StepKind::KillGuest;
        assert_eq!(!holds(kind, &report(), &one_broken()), asked, "{kind:?}");
    }
    for outcome in [Outcome::Reset, Outcome::ClosedEarly] {
        let request = lost("web", outcome);
        assert!(!holds(StepKind::KillWorkers, &request, &full()));
    }
}

/// How evidence of a death is spoilt.
type Death = (&'static str, fn(&mut Evidence));
/// How evidence is spoilt, and which kinds of step then do not hold.
type Spoilt = (&'static str, fn(StepKind) -> bool, fn(&mut Evidence));

const SPOILT: [Spoilt; 22] = [
    ("failure", |_| true, |e| e.failure = Some("no".to_owned())),
    ("generic", |_| true, |e| e.is_native = Some(false)),
    ("no xdp", is_change, |e| e.is_native = None),
    ("nothing directed", |_| true, |e| e.directed = Some(0)),
    ("directed unknown", |_| true, |e| e.directed = None),
    ("flows stayed", StepKind::changes_directors, |e| {
        e.flows = Some((100, 19));
    }),
    ("no flows", StepKind::changes_directors, |e| {
        e.flows = Some((0, 0));
    }),
    ("flows unknown", StepKind::changes_directors, |e| {
        e.flows = None;
    }),
    ("rows stayed", StepKind::changes_rows, |e| {
        e.rows_changed = Some(0);
    }),
    ("rows unknown", StepKind::changes_rows, |e| {
        e.rows_changed = None;
    }),
    ("none forwarded", StepKind::changes_rows, |e| {
        e.forwarded = Some(0);
    }),
    ("forwarded unknown", StepKind::changes_rows, |e| {
        e.forwarded = None;
    }),
    ("old programs", StepKind::replaces_programs, |e| {
        e.programs_replaced = Some(false);
    }),
    ("programs unknown", StepKind::replaces_programs, |e| {
        e.programs_replaced = None;
    }),
    ("old processes", StepKind::kills_processes, |e| {
        e.processes_replaced = Some(false);
    }),
    ("processes unknown", StepKind::kills_processes, |e| {
        e.processes_replaced = None;
    }),
    ("old worker stayed", is_upgrade, |e| {
        e.old_workers_gone_ms = Some(None);
    }),
    ("old worker was slow", is_upgrade, |e| {
        e.old_workers_gone_ms = Some(Some(2_001));
    }),
    ("old worker unknown", is_upgrade, |e| {
        e.old_workers_gone_ms = None;
    }),
    (
        "empty pipes",
        |kind| kind == StepKind::KillWorkers,
        |e| {
            e.bytes_in_pipes = Some(0);
        },
    ),
    (
        "pipes unknown",
        |kind| kind == StepKind::KillWorkers,
        |e| {
            e.bytes_in_pipes = None;
        },
    ),
    ("ledger unknown", is_counted, |e| e.ledger = None),
];

const DEATH: [Death; 7] = [
    ("no victim", |e| e.victims = Some(BTreeSet::new())),
    ("victims unknown", |e| e.victims = None),
    ("late packet", |e| e.last_packet_ms = Some(Some(2_001))),
    ("no counter", |e| e.last_packet_ms = Some(None)),
    ("packets unknown", |e| e.last_packet_ms = None),
    ("controller", |e| e.without_controller_ms = Some(5_999)),
    ("generic", |e| e.is_native = Some(false)),
];

fn is_change(kind: StepKind) -> bool {
    kind != StepKind::Steady
}

fn is_upgrade(kind: StepKind) -> bool {
    kind == StepKind::UpgradeTrafficManagers
}

fn is_counted(kind: StepKind) -> bool {
    !matches!(kind, StepKind::KillGuest | StepKind::Steady)
}

#[test]
fn a_step_in_which_nothing_happened_does_not_hold() {
    for kind in ALL {
        for (what, must_break, spoil) in SPOILT {
            let mut evidence = full();
            spoil(&mut evidence);
            let holds = holds(kind, &report(), &evidence);
            assert_eq!(!holds, must_break(kind), "{kind:?}: {what}");
        }
    }
    for (what, spoil) in DEATH {
        let mut evidence = full();
        spoil(&mut evidence);
        let holds = holds(StepKind::KillGuest, &report(), &evidence);
        assert!(!holds, "{what}");
    }
}

#[test]
fn a_step_needs_traffic_and_a_takeover_connections_in_mid_message() {
    for kind in ALL {
        let mut mute = report();
        mute.messages = 0;
        assert!(!holds(kind, &mute, &full()), "{kind:?}");
        // At one look there was none.
        let mut between = report();
        between.mid_message_min = 0;
        let holds = holds(kind, &between, &full());
        assert_eq!(!holds, kind.takes_over(), "{kind:?}");
    }
}

#[test]
fn what_is_lost_between_steps_is_a_fault() {
    assert_eq!(judge_quiet("between", &report()), [""; 0]);
    for outcome in [
        Outcome::Reset,
        Outcome::ClosedEarly,
        Outcome::Refused,
        Outcome::Corrupted,
    ] {
        let faults = judge_quiet("between", &lost("streams", outcome));
        assert_eq!(faults.len(), 2, "{faults:?}");
    }
    let mut wrong_sum = report();
    wrong_sum.total.connections += 1;
    assert!(!judge_quiet("between", &wrong_sum).is_empty());
}

#[test]
fn the_document_has_the_fields_that_programs_read() {
    let result = judge("add", StepKind::AddGuest, &report(), &full());
    let document = Document {
        kept: true,
        steps: vec![result],
        error: None,
    };
    let value = serde_json::to_value(&document).unwrap();
    let step = value["steps"][0].as_object().unwrap();
    let mut keys: Vec<&str> = step.keys().map(String::as_str).collect();
    keys.sort_unstable();
    let expected = [
        "carried",
        "closed_early",
        "connections",
        "corrupted",
        "finished",
        "kind",
        "name",
        "planned",
        "proofs",
        "refused",
        "reset",
        "retransmits_before",
        "retransmits_step",
        "stall_ms_max",
        "told_to_close",
    ];
    assert_eq!(keys, expected);
    assert_eq!(step["kind"], "add-guest");
    // Why it did not hold is told where there is something to tell.
    let broken = judge("add", StepKind::AddGuest, &report(), &Evidence::default());
    let value = serde_json::to_value(&broken).unwrap();
    assert!(
        value["faults"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
    );
}
