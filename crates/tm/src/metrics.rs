//! Metrics in the Prometheus text format, from the same document as `hitless status`, so that the two never disagree.

use std::fmt::Write;

use hitless_core::health::{Config, Health};

use crate::status::{ChangeKind, MemberStatus, Status, Traffic, VirtualServerStatus};

/// A metric: what `docs/reference/metrics.md` lists and a test compares with it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub labels: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Counter,
    Gauge,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

const SERVER: &[&str] = &["virtual_server"];
const MEMBER: &[&str] = &["pool", "member"];
const CHANGE: &[&str] = &["change"];

const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        help,
        labels,
    }
}

const fn counter(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        help,
        labels,
    }
}

const INFO: Metric = gauge(
    "hitless_build_info",
    "1, with the running build as a label",
    &["build"],
);
const UPTIME: Metric = gauge(
    "hitless_uptime_seconds",
    "Age of the keeper; upgrades do not end it",
    &[],
);
const WORKER_UPTIME: Metric = gauge("hitless_worker_uptime_seconds", "Age of the worker", &[]);
const CONFIG: Metric = gauge(
    "hitless_config_synced",
    "1 if what runs is the latest file, 0 if that was refused or is on its way",
    &[],
);
const SERVER_UP: Metric = gauge(
    "hitless_virtual_server_up",
    "1 while a member can be used, 0 while none can",
    SERVER,
);
const SERVER_OPEN: Metric = gauge(
    "hitless_virtual_server_connections",
    "Client connections now",
    SERVER,
);
const SERVER_TOTAL: Metric = counter(
    "hitless_virtual_server_connections_total",
    "Client connections accepted",
    SERVER,
);
const SERVER_REQUESTS: Metric = counter(
    "hitless_virtual_server_requests_total",
    "Requests served",
    SERVER,
);
const SERVER_FAILURES: Metric = counter(
    "hitless_virtual_server_failures_total",
    "Connections and requests for which no member could be used",
    SERVER,
);
const SERVER_IN: Metric = counter(
    "hitless_virtual_server_received_bytes_total",
    "Bytes from clients",
    SERVER,
);
const SERVER_OUT: Metric = counter(
    "hitless_virtual_server_sent_bytes_total",
    "Bytes to clients",
    SERVER,
);
const MEMBER_UP: Metric = gauge(
    "hitless_member_up",
    "1 up, 0 down; absent while nothing is known",
    MEMBER,
);
const MEMBER_OPEN: Metric = gauge(
    "hitless_member_connections",
    "Connections to the member now",
    MEMBER,
);
const MEMBER_TOTAL: Metric = counter(
    "hitless_member_connections_total",
    "Connections opened to the member",
    MEMBER,
);
const MEMBER_REQUESTS: Metric = counter(
    "hitless_member_requests_total",
    "Requests sent to the member",
    MEMBER,
);
const MEMBER_FAILURES: Metric = counter(
    "hitless_member_failures_total",
    "Connections or requests that the member failed",
    MEMBER,
);
const MEMBER_IN: Metric = counter(
    "hitless_member_received_bytes_total",
    "Bytes from the member",
    MEMBER,
);
const MEMBER_OUT: Metric = counter(
    "hitless_member_sent_bytes_total",
    "Bytes to the member",
    MEMBER,
);
const LAST_STALL: Metric = gauge(
    "hitless_change_stall_seconds",
    "Longest stall of a connection in the latest change of this kind",
    CHANGE,
);
const LAST_RESET: Metric = gauge(
    "hitless_change_reset_connections",
    "Connections reset by the latest change of this kind",
    CHANGE,
);
const LAST_CARRIED: Metric = gauge(
    "hitless_change_carried_connections",
    "Connections carried over by the latest change of this kind",
    CHANGE,
);

/// Every metric, in the order in which they are printed.
pub const ALL: [Metric; 21] = [
    INFO,
    UPTIME,
    WORKER_UPTIME,
    CONFIG,
    SERVER_UP,
    SERVER_OPEN,
    SERVER_TOTAL,
    SERVER_REQUESTS,
    SERVER_FAILURES,
    SERVER_IN,
    SERVER_OUT,
    MEMBER_UP,
    MEMBER_OPEN,
    MEMBER_TOTAL,
    MEMBER_REQUESTS,
    MEMBER_FAILURES,
    MEMBER_IN,
    MEMBER_OUT,
    LAST_STALL,
    LAST_RESET,
    LAST_CARRIED,
];

/// The metrics of a status. What is not known is left out, never 0.
pub fn render(status: &Status) -> String {
    let mut text = String::new();
    for metric in ALL {
        let mut samples = String::new();
        samples_of(&metric, status, &mut samples);
        if !samples.is_empty() {
            let Metric {
                name, help, kind, ..
            } = metric;
            let kind = kind.name();
            text.push_str(&format!(
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}"
            ));
        }
    }
    text
}

fn samples_of(metric: &Metric, status: &Status, out: &mut String) {
    let program = &status.program;
    let mut put = |labels: &[&str], value: Option<f64>| sample(out, metric, labels, value);
    match metric.name {
        name if name == INFO.name => put(&[&program.build], Some(1.0)),
        name if name == UPTIME.name => put(&[], Some(seconds(program.age_ms))),
        name if name == WORKER_UPTIME.name => put(&[], program.worker_age_ms.map(seconds)),
        name if name == CONFIG.name => {
            put(
                &[],
                Some(f64::from(u8::from(status.config == Config::Synced))),
            );
        }
        name if name.starts_with("hitless_virtual_server_") => {
            for server in &status.virtual_servers {
                put(&[&server.name], server_value(name, server));
            }
        }
        name if name.starts_with("hitless_member_") => {
            for pool in &status.pools {
                for member in &pool.members {
                    put(
                        &[&pool.name, &member.address.to_string()],
                        member_value(name, member),
                    );
                }
            }
        }
        name => {
            for kind in [
                ChangeKind::Upgrade,
                ChangeKind::WorkerCrash,
                ChangeKind::Reload,
            ] {
                let latest = status
                    .changes
                    .iter()
                    .rev()
                    .find(|change| change.kind == kind);
                let Some(ledger) = latest.and_then(|change| change.ledger) else {
                    continue;
                };
                let value = match name {
                    name if name == LAST_STALL.name => ledger.stall_us_max as f64 / 1e6,
                    name if name == LAST_RESET.name => ledger.reset as f64,
                    _ => ledger.carried.total() as f64,
                };
                put(&[change_name(kind)], Some(value));
            }
        }
    }
}

fn server_value(name: &str, server: &VirtualServerStatus) -> Option<f64> {
    match name {
        name if name == SERVER_UP.name => up(server.health),
        name if name == SERVER_OPEN.name => float(server.traffic.connections),
        name => traffic_value(name, &server.traffic),
    }
}

fn member_value(name: &str, member: &MemberStatus) -> Option<f64> {
    match name {
        name if name == MEMBER_UP.name => up(member.health),
        name if name == MEMBER_OPEN.name => float(member.traffic.connections),
        name => traffic_value(name, &member.traffic),
    }
}

fn traffic_value(name: &str, traffic: &Traffic) -> Option<f64> {
    let value = if name.ends_with("_connections_total") {
        traffic.connections_total
    } else if name.ends_with("_requests_total") {
        traffic.requests_total
    } else if name.ends_with("_failures_total") {
        traffic.failures_total
    } else if name.ends_with("_received_bytes_total") {
        traffic.bytes_in_total
    } else {
        traffic.bytes_out_total
    };
    float(value)
}

fn up(health: Health) -> Option<f64> {
    match health {
        Health::Up => Some(1.0),
        Health::Down => Some(0.0),
        Health::Unknown => None,
    }
}

/// Counters lose their last digits above 2^53, as everywhere in Prometheus.
fn float(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

const fn change_name(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Start => "start",
        ChangeKind::Reload => "reload",
        ChangeKind::ReloadRefused => "reload_refused",
        ChangeKind::Upgrade => "upgrade",
        ChangeKind::UpgradeFailed => "upgrade_failed",
        ChangeKind::WorkerCrash => "worker_crash",
    }
}

fn sample(out: &mut String, metric: &Metric, values: &[&str], value: Option<f64>) {
    let Some(value) = value else { return };
    out.push_str(metric.name);
    for (position, (label, value)) in metric.labels.iter().zip(values).enumerate() {
        out.push(if position == 0 { '{' } else { ',' });
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        // Writing into a string cannot fail.
        let _ = write!(out, "{label}=\"{value}\"");
    }
    if !metric.labels.is_empty() {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

#[cfg(test)]
mod tests;
