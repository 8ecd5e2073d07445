use hitless_core::health::{Admin, AdminReason, Failure, HealthReason};
use hitless_core::ledger::{Ledger, Outcome, Rung};
use hitless_tm::status::{PoolStatus, Program, Traffic};

use super::*;

fn example() -> Status {
    let member = |port: u16, health, health_reason, health_age_ms| MemberStatus {
        address: ([127, 0, 0, 1], port).into(),
        weight: 1,
        admin: Admin::Ready,
        admin_reason: AdminReason::Default,
        health,
        health_reason,
        health_age_ms,
        traffic: Traffic {
            connections: Some(3),
            ..Traffic::default()
        },
    };
    let mut ledger = Ledger::begin(1);
    ledger.record(Outcome::Carried(Rung::Takeover), 900);
    Status {
        program: Program {
            build: "2".into(),
            keeper_pid: 10,
            worker_pid: Some(11),
            site_file: "/etc/site.yaml".into(),
            run_dir: "/run/hitless/serve-10".into(),
            age_ms: 200_000,
            worker_age_ms: Some(1_000),
            connections: Some(3),
            tells_to_close: Some(false),
            drain_left_ms: None,
        },
        config: Config::Synced,
        config_reason: ConfigReason::AsWritten,
        virtual_servers: vec![VirtualServerStatus {
            name: "raw".into(),
            listen: ([127, 0, 0, 1], 8081).into(),
            protocol: "tcp".into(),
            pool: "web".into(),
            admin: Admin::Ready,
            health: Health::Up,
            traffic: Traffic::default(),
        }],
        pools: vec![PoolStatus {
            name: "web".into(),
            method: "round_robin".into(),
            members: vec![
                member(
                    9001,
                    Health::Up,
                    HealthReason::Answered { latency_us: 300 },
                    Some(61_000),
                ),
                member(
                    9002,
                    Health::Down,
                    HealthReason::Failed {
                        failure: Failure::TimedOut,
                    },
                    Some(500),
                ),
                member(9003, Health::Unknown, HealthReason::NotProbedYet, None),
            ],
        }],
        changes: vec![Change {
            kind: ChangeKind::Upgrade,
            age_ms: 5_000,
            text: String::new(),
            ledger: Some(ledger),
            bytes_in_pipes: Some(0),
        }],
        losses: None,
        told_to_close_total: None,
    }
}

#[test]
fn reads_well_without_colour() {
    let expected = "\
program      build 2, up 3m 20s, keeper 10, worker 11
site         /etc/site.yaml
config       synced
run folder   /run/hitless/serve-10
connections  3

VIRTUAL SERVER  LISTEN          PROTOCOL  POOL  ADMIN  HEALTH  CONNECTIONS  TOTAL  REQUESTS
raw             127.0.0.1:8081  tcp       web   ready  up      ?            ?      -

POOL  MEMBER          WEIGHT  ADMIN  HEALTH  SINCE  CONNECTIONS  TOTAL  FAILURES  REASON
web   127.0.0.1:9001  1       ready  up      1m 1s  3            ?      ?         answered in 0.3 ms
web   127.0.0.1:9002  1       ready  down    500ms  3            ?      ?         no answer in time
web   127.0.0.1:9003  1       ready  ?       -      3            ?      ?         not probed yet

CHANGE   AGO  WHAT IT COST
upgrade  5s   1 connection: 1 carried (1 by takeover), 0 finished, 0 reset; longest stall 0.9 ms
";
    assert_eq!(render(&example(), false), expected);
    assert!(render(&example(), true).contains("\u{1b}[31mdown\u{1b}[0m"));
}

#[test]
fn a_stop_and_a_missing_worker_are_said_where_they_belong() {
    let mut status = example();
    status.program.drain_left_ms = Some(12_345);
    status.program.worker_pid = None;
    let text = render(&status, false);
    let expected = "\
stopping     connections may go on for 12s more, then they are cut
program      build 2, up 3m 20s, keeper 10, worker -
             no worker runs at the moment: the next one goes on with what lives
site         /etc/site.yaml
";
    assert!(text.starts_with(expected), "{text}");
}

/// The document is what other releases read: names of fields never change.
#[test]
fn a_removed_member_says_why_it_drains() {
    let mut status = example();
    let member = &mut status.pools[0].members[2];
    member.admin = Admin::Drain;
    member.admin_reason = AdminReason::Operator("not in the site file any more".into());
    let text = render(&status, false);
    let line = text.lines().find(|line| line.contains("127.0.0.1:9003"));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    assert_eq!(words[3..7], ["drain", "?", "-", "3"], "{text}");
    assert!(text.contains("not in the site file any more"), "{text}");
}

#[test]
fn survives_json() {
    let json = serde_json::to_string(&example()).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), example());
    assert!(json.contains(r#""health_reason":{"code":"failed","failure":{"kind":"timed_out"}}"#));
}
