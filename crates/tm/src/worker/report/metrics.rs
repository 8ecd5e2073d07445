//! The metrics, in the Prometheus text format.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;

use hitless_carry::slots::KEYED_COUNTERS;
use hitless_types::site::Site;

use super::{Census, open_of};
use crate::ledger::{CRASH, Field, Shared, TAKEOVER};
use crate::worker::Sources;
use crate::worker::stats::{Keyed, Lane, member_key, server_key, sum_keyed, sum_lanes};

impl Sources<'_> {
    pub(super) fn metrics(&self) -> String {
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
        out.gauge(
            "hitless_http2_connections",
            "client connections that speak HTTP/2 now",
            &[],
            census.http2,
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
            (
                "hitless_told_to_close_connections_total",
                "connections whose clients were told to close, to go elsewhere",
                Lane::ToldToClose,
            ),
            (
                "hitless_tls_handshakes_total",
                "TLS handshakes with clients",
                Lane::Handshakes,
            ),
            (
                "hitless_tls_resumed_handshakes_total",
                "TLS handshakes with clients that took a ticket",
                Lane::HandshakesResumed,
            ),
            (
                "hitless_tls_handshake_failures_total",
                "TLS handshakes with clients that came to nothing",
                Lane::HandshakeFailures,
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
        // Those that a reload removed, too, for as long as their connections live: the sums add up,
        // and the last bytes count.
        let removed: Vec<_> = self.removed(site, census).map(|one| one.name).collect();
        let servers = site.virtual_servers.iter().map(|one| one.name.as_str());
        for name in servers.chain(removed.iter().map(String::as_str)) {
            let key = server_key(name);
            let label = [("virtual_server", name)];
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
                let key = member_key(pool.name.as_str(), member.address);
                member_metrics(out, &label, is_usable, &sum_keyed(self.slots, key));
            }
        }
        for (removed, sums) in self.members_left(site) {
            let address = removed.address.to_string();
            let label = [
                ("pool", removed.pool.as_str()),
                ("member", address.as_str()),
            ];
            member_metrics(out, &label, 0, &sums);
        }
    }
}

fn member_metrics(
    out: &mut Metrics,
    label: &[(&str, &str)],
    is_usable: u64,
    sums: &[u64; KEYED_COUNTERS],
) {
    out.gauge(
        "hitless_member_usable",
        "1 if it gets new work",
        label,
        is_usable,
    );
    out.gauge(
        "hitless_member_connections",
        "clients that use it now",
        label,
        open_of(sums),
    );
    out.keyed("hitless_member", label, sums);
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
        let failures = match prefix {
            "hitless_member" => {
                "connects that it did not take, and requests that it answered late, wrongly, in part \
                 or not at all"
            }
            _ => "connections and requests that no member served as it should",
        };
        for (what, help, counter) in [
            ("connections_total", "connections", Keyed::Connections),
            ("requests_total", "HTTP requests", Keyed::Requests),
            ("failures_total", failures, Keyed::Failures),
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
