use hitless_core::health::{Admin, AdminReason, ConfigReason, Failure, HealthReason};
use hitless_core::ledger::{Ledger, Outcome, Rung};

use super::*;
use crate::status::{Change, PoolStatus, Program};

fn example() -> Status {
    let traffic = Traffic {
        connections: Some(3),
        connections_total: Some(10),
        requests_total: Some(20),
        failures_total: Some(0),
        bytes_in_total: Some(1_000),
        bytes_out_total: Some(2_000),
    };
    let member = |port: u16, health| MemberStatus {
        address: ([127, 0, 0, 1], port).into(),
        weight: 1,
        admin: Admin::Ready,
        admin_reason: AdminReason::Default,
        health,
        health_reason: HealthReason::Failed {
            failure: Failure::Refused,
        },
        health_age_ms: None,
        traffic,
    };
    let mut ledger = Ledger::begin(2);
    ledger.record(Outcome::Carried(Rung::Takeover), 1_500);
    ledger.record(Outcome::Reset, 0);
    Status {
        program: Program {
            build: "a\"b".into(),
            keeper_pid: 1,
            worker_pid: Some(2),
            site_file: "site.yaml".into(),
            run_dir: "/run".into(),
            age_ms: 1_500,
            worker_age_ms: Some(500),
            connections: Some(3),
        },
        config: Config::Synced,
        config_reason: ConfigReason::AsWritten,
        virtual_servers: vec![VirtualServerStatus {
            name: "web".into(),
            listen: ([127, 0, 0, 1], 80).into(),
            protocol: "http".into(),
            pool: "web".into(),
            admin: Admin::Ready,
            health: Health::Up,
            traffic,
        }],
        pools: vec![PoolStatus {
            name: "web".into(),
            method: "round_robin".into(),
            members: vec![
                member(1, Health::Up),
                member(2, Health::Down),
                member(3, Health::Unknown),
            ],
        }],
        changes: vec![Change {
            kind: ChangeKind::Upgrade,
            age_ms: 5,
            text: String::new(),
            ledger: Some(ledger),
        }],
    }
}

#[test]
fn every_metric_has_its_lines_and_unknown_is_left_out() {
    let text = render(&example());
    for metric in ALL {
        let kind = metric.kind.name();
        assert!(
            text.contains(&format!("# TYPE {} {kind}\n", metric.name)),
            "{}",
            metric.name
        );
        assert_eq!(
            metric.name.ends_with("_total"),
            kind == "counter",
            "{}",
            metric.name
        );
    }
    for line in [
        r#"hitless_build_info{build="a\"b"} 1"#,
        "hitless_uptime_seconds 1.5",
        r#"hitless_virtual_server_connections{virtual_server="web"} 3"#,
        r#"hitless_member_up{pool="web",member="127.0.0.1:2"} 0"#,
        r#"hitless_member_requests_total{pool="web",member="127.0.0.1:1"} 20"#,
        r#"hitless_change_stall_seconds{change="upgrade"} 0.0015"#,
        r#"hitless_change_reset_connections{change="upgrade"} 1"#,
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    assert!(!text.contains(r#"hitless_member_up{pool="web",member="127.0.0.1:3"}"#));
}

/// The reference lists each metric with its kind and labels, and no other.
#[test]
fn the_reference_lists_these_metrics() {
    let page = include_str!("../../../../docs/reference/metrics.md");
    let listed: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `hitless_"))
        .collect();
    let expected: Vec<String> = ALL
        .iter()
        .map(|metric| {
            let Metric {
                name,
                kind,
                help,
                labels,
            } = metric;
            let labels = if labels.is_empty() {
                "-".to_owned()
            } else {
                labels.join(", ")
            };
            format!("| `{name}` | {} | {labels} | {help} |", kind.name())
        })
        .collect();
    assert_eq!(
        listed,
        expected,
        "docs/reference/metrics.md should have:\n{}",
        expected.join("\n")
    );
}
