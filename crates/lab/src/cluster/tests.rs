//! Only clients' own connections are no reason to wait on.

use hitless_api::{Ledger, Progress};

use super::*;

fn wait(code: WaitCode, object: &str) -> Wait {
    Wait {
        code,
        object: object.to_owned(),
        since_us: 1,
        until_us: None,
        ends_when: "it has ended".to_owned(),
    }
}

fn change(name: &str, state: ChangeState, waits: Vec<Wait>) -> Change {
    Change {
        name: name.to_owned(),
        kind: "drain-guest".to_owned(),
        object: None,
        state,
        progress: Progress::default(),
        waits,
        started_us: 1,
        ended_us: None,
        failure: None,
        ledger: Ledger::default(),
        ledger_by_counts: false,
        told_to_close: 0,
        unknown_reset: 0,
        closed: None,
        drain: None,
        death: None,
    }
}

fn status(waits: Vec<Wait>) -> Status {
    Status {
        api: "v1".to_owned(),
        version: "0".to_owned(),
        controller_pid: 1,
        revision: 1,
        settled: false,
        waits,
        nodes: 1,
        nodes_linked: 1,
        guests: 1,
        guests_serving: 1,
        changes_under_way: 1,
    }
}

#[test]
fn a_cluster_rests_only_if_connections_are_all_it_waits_for() {
    use ChangeState::{Doing, Done, Waiting};
    use WaitCode::{ConnectionsLive, DirectorNotAcknowledged, Other};

    let live = || vec![wait(ConnectionsLive, "g1")];
    let held = change("drain-guest-1", Waiting, live());
    let rests = |waits, changes: &[Change]| others_than_clients(&status(waits), changes).is_empty();
    assert!(rests(live(), &[]));
    assert!(rests(live(), std::slice::from_ref(&held)));
    let for_it = || vec![wait(Other, "drain-guest-1")];
    assert!(rests(for_it(), std::slice::from_ref(&held)));

    let acknowledged = || vec![wait(DirectorNotAcknowledged, "n1")];
    assert!(!rests(acknowledged(), std::slice::from_ref(&held)));
    let busy = change("drain-guest-1", Doing, acknowledged());
    assert!(!rests(live(), &[busy]));
    let silent = change("add-guest-2", Doing, Vec::new());
    assert!(!rests(live(), &[held, silent]));
    // A wait for a change that is over is not that change's affair.
    let over = change("drain-guest-1", Done, Vec::new());
    assert!(!rests(for_it(), &[over]));
    // Not settled, and no word of why.
    assert!(!rests(Vec::new(), &[]));
}
