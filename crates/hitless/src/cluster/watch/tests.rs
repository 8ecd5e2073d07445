use hitless_api::{ClosedConnection, Ledger, Progress, Wait, WaitCode};

use super::*;

fn drain(ends_per_s: Option<f64>, ends_us: Option<u64>, estimate: &str) -> Drain {
    Drain {
        left: Some(12),
        ends_per_s,
        seen_s: 30,
        ends_us,
        estimate: estimate.to_owned(),
    }
}

fn change(state: ChangeState) -> Change {
    Change {
        name: "drain-guest-7".into(),
        kind: "drain-guest".into(),
        object: Some("g1".into()),
        state,
        progress: Progress {
            done: 40,
            total: 52,
            unit: "buckets".into(),
        },
        waits: vec![Wait {
            code: WaitCode::ConnectionsLive,
            object: "g1".into(),
            since_us: 0,
            until_us: None,
            ends_when: "its 12 connections have ended".into(),
        }],
        started_us: 0,
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

#[test]
fn the_pace_of_a_drain_is_shown_and_never_made_up() {
    let mut watched = change(ChangeState::Waiting);
    let rate = drain(
        Some(1.5),
        Some(108_000_000),
        "if they go on ending at this rate",
    );
    watched.drain = Some(rate);
    assert_eq!(
        line_of(&watched, 100_000_000),
        "drain-guest-7  waiting  40/52 buckets  12 connections left, 1.5 end per second; \
         end in about 8s (if they go on ending at this rate)  \
         waits until g1: its 12 connections have ended [connections-live]"
    );
    watched.progress.total = 0;
    watched.drain = None;
    watched.waits.clear();
    assert_eq!(line_of(&watched, 0), "drain-guest-7  waiting  -");
    let endless = "cannot be estimated: none has ended in 30 s";
    assert_eq!(
        pace(&drain(Some(0.0), None, endless), 0),
        format!("12 connections left, 0.0 end per second; end: {endless}")
    );
    assert_eq!(
        pace(&drain(None, None, "too early to tell"), 0),
        "12 connections left; end: too early to tell"
    );
}

#[test]
fn what_a_deadline_closed_is_named() {
    let mut over = change(ChangeState::Done);
    over.ledger.connections = 3;
    over.ledger.reset = 3;
    let named = |port: u16, virtual_server: Option<&str>| ClosedConnection {
        guest: "g1".into(),
        client: format!("10.9.0.2:{port}"),
        server: "203.0.113.10:80".into(),
        virtual_server: virtual_server.map(str::to_owned),
    };
    over.closed = Some(Closed {
        total: 3,
        named: vec![named(4001, Some("raw")), named(4002, None)],
        left_out: 1,
    });
    assert_eq!(
        end_of(&over),
        "drain-guest-7: done; 3 connections: 0 carried, 0 finished, 3 reset\n\
         closed at the deadline: 3 connections\n\
         \x20 10.9.0.2:4001 to raw (203.0.113.10:80), on g1\n\
         \x20 10.9.0.2:4002 to 203.0.113.10:80, on g1\n\
         \x20 and 1 more, not listed\n"
    );
}

#[test]
fn a_death_is_told_in_its_order() {
    let mut over = change(ChangeState::Done);
    over.death = Some(Death {
        node: "n2".into(),
        slot: 4,
        cut_us: Some(10_000_000),
        believed_us: [("n1".into(), 10_012_000), ("n2".into(), 10_001_000)].into(),
        last_packet_us: Some(9_999_000),
        seen_us: 16_000_000,
        rows_us: None,
        connections: Some(30),
        counted_us: Some(9_700_000),
    });
    assert_eq!(
        more_of(&over),
        "its link was cut (on n2, slot 4)\n\
         \x20 last packet sent to it      1 ms before\n\
         \x20 believed dead by all        12 ms after (2 directors)\n\
         \x20 told to a controller        6000 ms after\n\
         \x20 no row names it             ?\n\
         \x20 it held                     30 connections, counted 300 ms before that\n"
    );
}
