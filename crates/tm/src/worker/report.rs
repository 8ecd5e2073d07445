//! What an operator sees: the status document and the metrics, from slot file, board and the
//! keeper's facts.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;

use hitless_carry::slots::{IN_FLIGHT, KEYED_COUNTERS, Kind, Slots};
use hitless_core::health::{Config, ConfigReason, Health};
use hitless_types::site::{Pool, Site, VirtualServer};

use super::stats::{Keyed, Lane, member_key, server_key, sum_keyed, sum_lanes};
use super::{Sources, Worker};
use crate::clock::now_us;
use crate::ledger::{CRASH, Field, Shared, TAKEOVER};
use crate::link::KeeperFacts;
use crate::link::journal::Entry;
use crate::status::{
    Change, ChangeKind, Losses, MemberStatus, PoolStatus, Program, Status, Traffic,
    VirtualServerStatus,
};

pub(super) fn status(worker: &Worker, facts: &KeeperFacts) -> String {
    let sources = worker.sources(facts);
    let mut text = serde_json::to_string_pretty(&sources.status())
        .unwrap_or_else(|error| format!("{{\"error\":{:?}}}", error.to_string()));
    text.push('\n');
    text
}

pub(super) fn metrics(worker: &Worker, facts: &KeeperFacts) -> String {
    worker.sources(facts).metrics()
}

/// Connections by virtual server (hash of its name), and what else slots tell.
#[derive(Default)]
struct Census {
    by_server: HashMap<u64, u64>,
    connections: u64,
    in_flight: u64,
}

impl Census {
    fn take(slots: &Slots) -> Self {
        let mut census = Self::default();
        for lane in 0..slots.lanes() {
            for index in 0..slots.slots_per_lane() {
                let slot = slots.slot(lane, index);
                if matches!(slot.kind(), Some(Kind::Http | Kind::Tcp)) {
                    census.connections += 1;
                    census.in_flight += u64::from(slot.has_flag(IN_FLIGHT));
                    let key = slot.virtual_server.load(Ordering::Relaxed);
                    *census.by_server.entry(key).or_default() += 1;
                }
            }
        }
        census
    }
}

impl Sources<'_> {
    fn status(&self) -> Status {
        let census = Census::take(self.slots);
        let facts = self.facts;
        let is_refused = !facts.last_refusal.is_empty();
        Status {
            program: Program {
                build: facts.build.clone(),
                keeper_pid: facts.pid,
                worker_pid: Some(facts.worker_pid),
                site_file: self.hello.file_name.clone().into(),
                run_dir: facts.run_folder.clone().into(),
                age_ms: facts.age_ms,
                worker_age_ms: Some(facts.worker_age_ms),
                connections: Some(census.connections),
                tells_to_close: Some(self.slots.head().tells_to_close.load(Ordering::Relaxed) != 0),
            },
            config: if is_refused {
                Config::Rejected
            } else {
                Config::Synced
            },
            config_reason: config_reason(&facts.last_refusal),
            virtual_servers: self.servers(&census),
            pools: self.pools(),
            changes: self.changes(),
            losses: Some(Losses {
                connections_total: CRASH.of(self.slots.head()).read(Field::ResetTotal),
                requests_total: CRASH.of(self.slots.head()).read(Field::InFlightLostTotal),
            }),
        }
    }

    fn servers(&self, census: &Census) -> Vec<VirtualServerStatus> {
        let Some(site) = self.site else {
            return Vec::new();
        };
        let one = |server: &VirtualServer| {
            let pool = site.pool_of(server);
            let key = server_key(server.name.as_str());
            VirtualServerStatus {
                name: server.name.to_string(),
                listen: self
                    .bound
                    .get(&server.listen)
                    .copied()
                    .unwrap_or(server.listen),
                protocol: server.protocol.name().to_owned(),
                pool: pool.name.to_string(),
                admin: Default::default(),
                health: self.health_of(pool),
                traffic: Traffic {
                    connections: Some(census.by_server.get(&key).copied().unwrap_or(0)),
                    ..traffic(&sum_keyed(self.slots, key))
                },
            }
        };
        site.virtual_servers.iter().map(one).collect()
    }

    fn health_of(&self, pool: &Pool) -> Health {
        let healths = pool.members.iter().map(|member| {
            let state = self.board.member(pool.name.as_str(), member.address);
            state.detail().health
        });
        healths.fold(Health::Down, |sum, health| match (sum, health) {
            (Health::Up, _) | (_, Health::Up) => Health::Up,
            (Health::Unknown, _) | (_, Health::Unknown) => Health::Unknown,
            (Health::Down, Health::Down) => Health::Down,
        })
    }

    fn pools(&self) -> Vec<PoolStatus> {
        let Some(site) = self.site else {
            return Vec::new();
        };
        site.pools.iter().map(|pool| self.pool(pool)).collect()
    }

    fn pool(&self, pool: &Pool) -> PoolStatus {
        let name = pool.name.as_str();
        let members = pool.members.iter().map(|member| {
            let detail = self.board.member(name, member.address).detail();
            MemberStatus {
                address: member.address,
                weight: member.weight,
                admin: detail.admin,
                admin_reason: detail.admin_reason,
                health: detail.health,
                health_reason: detail.health_reason,
                health_age_ms: detail.since_us.map(|at| now_us().saturating_sub(at) / 1000),
                traffic: traffic(&sum_keyed(self.slots, member_key(name, member.address))),
            }
        });
        PoolStatus {
            name: name.to_owned(),
            method: pool.method.name().to_owned(),
            members: members.collect(),
        }
    }

    /// What the keeper did lately; the last takeover and the last crash have their ledgers.
    fn changes(&self) -> Vec<Change> {
        let head = self.slots.head();
        let one = |entry: &Entry| {
            let ledger = match entry.kind {
                ChangeKind::Upgrade => TAKEOVER.of(head),
                _ => CRASH.of(head),
            };
            // It has its own line; what it cost is in the crash's.
            let is_last = entry.kind != ChangeKind::Quarantine
                && entry.sequence != 0
                && entry.sequence == ledger.read(Field::Sequence);
            Change {
                kind: entry.kind,
                age_ms: now_us().saturating_sub(entry.at_us) / 1000,
                text: match (is_last, entry.kind) {
                    (false, _) => entry.text.clone(),
                    // Its answer has the ledger.
                    (true, ChangeKind::Upgrade) => format!("{}; {}", entry.text, costs(ledger)),
                    (true, _) => format!("{}: {}; {}", entry.text, ledger.summary(), costs(ledger)),
                },
                ledger: is_last.then(|| ledger.value()),
                bytes_in_pipes: is_last.then(|| ledger.read(Field::BytesInPipes)),
            }
        };
        self.facts.journal.0.iter().map(one).collect()
    }

    fn metrics(&self) -> String {
        let mut out = Metrics::default();
        let (census, facts, slots) = (Census::take(self.slots), self.facts, self.slots);
        let head = slots.head();
        let build = [("build", facts.build.as_str())];
        out.gauge(
            "hitless_build_info",
            "always 1; the build is in the label",
            &build,
            1,
        );
        out.gauge(
            "hitless_uptime_seconds",
            "since the keeper was first started",
            &[],
            facts.age_ms / 1000,
        );
        out.gauge(
            "hitless_connections",
            "client connections now",
            &[],
            census.connections,
        );
        out.gauge(
            "hitless_requests_in_flight",
            "HTTP requests under way now",
            &[],
            census.in_flight,
        );
        for (name, help, lane) in [
            (
                "hitless_accepted_connections_total",
                "client connections accepted",
                Lane::Accepted,
            ),
            (
                "hitless_connect_retries_total",
                "connects to a member that failed, and were tried at another one",
                Lane::ConnectRetries,
            ),
            (
                "hitless_request_retries_total",
                "requests sent once more since an idle member connection had just been closed",
                Lane::RequestRetries,
            ),
            (
                "hitless_accept_stops_total",
                "times that accepting stopped for want of descriptors or slots",
                Lane::AcceptStops,
            ),
            (
                "hitless_pipes_total",
                "pipes made for raw TCP",
                Lane::PipesMade,
            ),
            (
                "hitless_refusals_total",
                "HTTP answers of our own with an error status",
                Lane::Refusals,
            ),
            (
                "hitless_timeouts_total",
                "timeouts that ended a connection or a request",
                Lane::TimeoutsHit,
            ),
            (
                "hitless_quarantined_connections_total",
                "connections closed since two workers in a row died while working on them",
                Lane::Quarantined,
            ),
        ] {
            out.counter(name, help, &[], sum_lanes(slots, lane));
        }
        let word = |word: &core::sync::atomic::AtomicU32| u64::from(word.load(Ordering::Relaxed));
        let paused = word(&head.paused);
        out.gauge(
            "hitless_accept_paused",
            "1 while nothing is accepted for want of descriptors in the keeper",
            &[],
            paused,
        );
        let pauses = word(&head.pauses);
        out.counter(
            "hitless_accept_pauses_total",
            "times that this began",
            &[],
            pauses,
        );
        out.gauge(
            "hitless_keeper_descriptors",
            "descriptors that the keeper uses",
            &[],
            facts.descriptors,
        );
        out.gauge(
            "hitless_keeper_descriptors_max",
            "descriptors that the keeper may use",
            &[],
            facts.descriptors_max,
        );
        out.counter(
            "hitless_worker_restarts_total",
            "workers started after a death",
            &[],
            facts.restarts,
        );
        out.counter(
            "hitless_upgrades_total",
            "upgrades that were carried out",
            &[],
            facts.upgrades,
        );
        out.counter(
            "hitless_reloads_total",
            "configurations applied after the first",
            &[],
            facts.reloads,
        );
        for (change, ledger) in [("takeover", TAKEOVER.of(head)), ("crash", CRASH.of(head))] {
            self.ledger_metrics(&mut out, change, ledger);
        }
        if let Some(site) = self.site {
            self.traffic_metrics(&mut out, site, &census);
        }
        out.finish()
    }

    fn ledger_metrics(&self, out: &mut Metrics, change: &str, ledger: Shared<'_>) {
        let label = [("change", change)];
        for (name, help, field) in [
            (
                "hitless_change_connections",
                "connections alive when the last one began",
                Field::Connections,
            ),
            (
                "hitless_change_carried_connections",
                "connections that went on through the last one",
                Field::Carried,
            ),
            (
                "hitless_change_finished_connections",
                "connections that ended by themselves in the last one",
                Field::Finished,
            ),
            (
                "hitless_change_reset_connections",
                "connections lost in the last one",
                Field::Reset,
            ),
            (
                "hitless_change_lost_requests",
                "requests that were under way and were lost in the last one",
                Field::InFlightLost,
            ),
            (
                "hitless_change_piped_bytes",
                "bytes that were in pipes and went on in the last one",
                Field::BytesInPipes,
            ),
            (
                "hitless_change_buffered_bytes",
                "bytes that were in the worker's memory and went on in the last one",
                Field::BytesBuffered,
            ),
            (
                "hitless_change_mid_message_connections",
                "connections carried inside a message in the last one",
                Field::MidMessage,
            ),
        ] {
            out.gauge(name, help, &label, ledger.read(field));
        }
        let stall = ledger.read(Field::StallUsMax);
        out.float(
            "hitless_change_stall_seconds",
            "longest time that a connection stood still in the last one",
            &label,
            stall,
        );
        for (name, help, field) in [
            (
                "hitless_lost_connections_total",
                "connections lost in all of them",
                Field::ResetTotal,
            ),
            (
                "hitless_lost_requests_total",
                "requests that were under way and were lost in all of them",
                Field::InFlightLostTotal,
            ),
        ] {
            out.counter(name, help, &label, ledger.read(field));
        }
        let count = ledger.read(Field::Sequence);
        out.counter(
            "hitless_changes_total",
            "takeovers or crashes begun",
            &label,
            count,
        );
    }

    fn traffic_metrics(&self, out: &mut Metrics, site: &Site, census: &Census) {
        for server in &site.virtual_servers {
            let key = server_key(server.name.as_str());
            let label = [("virtual_server", server.name.as_str())];
            let open = census.by_server.get(&key).copied().unwrap_or(0);
            out.gauge(
                "hitless_virtual_server_connections",
                "client connections now",
                &label,
                open,
            );
            out.keyed(
                "hitless_virtual_server",
                &label,
                &sum_keyed(self.slots, key),
            );
        }
        for pool in &site.pools {
            for member in &pool.members {
                let address = member.address.to_string();
                let label = [("pool", pool.name.as_str()), ("member", address.as_str())];
                let state = self.board.member(pool.name.as_str(), member.address);
                let is_usable = u64::from(state.is_usable());
                out.gauge(
                    "hitless_member_usable",
                    "1 if it gets new work",
                    &label,
                    is_usable,
                );
                let key = member_key(pool.name.as_str(), member.address);
                let sums = sum_keyed(self.slots, key);
                out.gauge(
                    "hitless_member_connections",
                    "clients that use it now",
                    &label,
                    open_of(&sums),
                );
                out.keyed("hitless_member", &label, &sums);
            }
        }
    }
}

fn config_reason(refusal: &str) -> ConfigReason {
    match refusal.lines().next() {
        Some(first) => ConfigReason::Refused(first.to_owned()),
        None => ConfigReason::AsWritten,
    }
}

fn costs(ledger: Shared<'_>) -> String {
    let lost = ledger.read(Field::InFlightLost);
    let piped = ledger.read(Field::BytesInPipes);
    let mid = ledger.read(Field::MidMessage);
    let took_ms = ledger
        .read(Field::EndedUs)
        .saturating_sub(ledger.read(Field::BeganUs))
        / 1000;
    format!(
        "{lost} requests in flight lost, {piped} bytes in pipes, {mid} in mid-message; took {took_ms} ms"
    )
}

/// A gauge that is added to and taken from by two programs in a takeover may be below zero for an
/// instant.
fn open_of(sums: &[u64; KEYED_COUNTERS]) -> u64 {
    (sums[Keyed::Open as usize] as i64).max(0) as u64
}

fn traffic(sums: &[u64; KEYED_COUNTERS]) -> Traffic {
    let of = |counter: Keyed| Some(sums[counter as usize]);
    Traffic {
        connections: Some(open_of(sums)),
        connections_total: of(Keyed::Connections),
        requests_total: of(Keyed::Requests),
        failures_total: of(Keyed::Failures),
        bytes_in_total: of(Keyed::BytesIn),
        bytes_out_total: of(Keyed::BytesOut),
    }
}

/// Families in the order of their first sample, each with all its samples together, as the format
/// asks.
#[derive(Default)]
struct Metrics {
    order: Vec<String>,
    families: HashMap<String, String>,
}

impl Metrics {
    fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        self.sample(name, help, "gauge", labels, &value.to_string());
    }

    fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        self.sample(name, help, "counter", labels, &value.to_string());
    }

    fn float(&mut self, name: &str, help: &str, labels: &[(&str, &str)], micros: u64) {
        let value = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        self.sample(name, help, "gauge", labels, &value);
    }

    fn keyed(&mut self, prefix: &str, labels: &[(&str, &str)], sums: &[u64; KEYED_COUNTERS]) {
        for (what, help, counter) in [
            ("connections_total", "connections", Keyed::Connections),
            ("requests_total", "HTTP requests", Keyed::Requests),
            (
                "failures_total",
                "connections or requests that the other side failed",
                Keyed::Failures,
            ),
            (
                "bytes_in_total",
                "bytes from clients on their way to members",
                Keyed::BytesIn,
            ),
            (
                "bytes_out_total",
                "bytes from members on their way to clients",
                Keyed::BytesOut,
            ),
        ] {
            let name = format!("{prefix}_{what}");
            self.counter(&name, help, labels, sums[counter as usize]);
        }
    }

    fn sample(&mut self, name: &str, help: &str, kind: &str, labels: &[(&str, &str)], value: &str) {
        let family = self.families.entry(name.to_owned()).or_insert_with(|| {
            self.order.push(name.to_owned());
            format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
        });
        family.push_str(name);
        for (position, (label, text)) in labels.iter().enumerate() {
            let open = if position == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = write!(family, "{open}{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            family.push('}');
        }
        let _ = writeln!(family, " {value}");
    }

    fn finish(self) -> String {
        self.order
            .iter()
            .map(|name| self.families[name].as_str())
            .collect()
    }
}
