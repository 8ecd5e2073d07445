//! The status document.

use std::path::Path;
use std::sync::atomic::Ordering;

use hitless_carry::slots::{KEYED_COUNTERS, Slots};
use hitless_core::health::{Admin, AdminReason, Config, ConfigReason, Health, HealthReason};
use hitless_types::site::{Pool, Site, VirtualServer};

use super::{Census, open_of};
use crate::clock::now_us;
use crate::ledger::{CRASH, Field, TAKEOVER};
use crate::link::journal::Entry;
use crate::link::{ConfigState, KeeperFacts};
use crate::status::{
    Change, ChangeKind, Losses, MemberStatus, PoolStatus, Program, Status, Traffic,
    VirtualServerStatus,
};
use crate::worker::Sources;
use crate::worker::removed::RemovedMember;
use crate::worker::stats::{Keyed, Lane, member_key, server_key, sum_keyed, sum_lanes};

pub(super) fn document(status: &Status) -> String {
    let mut text = serde_json::to_string_pretty(status)
        .unwrap_or_else(|error| format!("{{\"error\":{:?}}}", error.to_string()));
    text.push('\n');
    text
}

/// What is known while there is no worker that could be asked: virtual servers and pools are in a
/// configuration that the keeper does not read.
pub(crate) fn status_of_keeper(slots: &Slots, facts: &KeeperFacts, site_file: &Path) -> String {
    let (config, config_reason) = config(facts);
    document(&Status {
        program: Program {
            worker_pid: None,
            worker_age_ms: None,
            ..program(slots, facts, site_file)
        },
        config,
        config_reason,
        virtual_servers: Vec::new(),
        pools: Vec::new(),
        changes: changes(slots, facts),
        losses: losses(slots),
        told_to_close_total: Some(sum_lanes(slots, Lane::ToldToClose)),
    })
}

fn program(slots: &Slots, facts: &KeeperFacts, site_file: &Path) -> Program {
    Program {
        build: facts.build.clone(),
        keeper_pid: facts.pid,
        worker_pid: Some(facts.worker_pid),
        site_file: site_file.to_owned(),
        run_dir: facts.run_folder.clone().into(),
        age_ms: facts.age_ms,
        worker_age_ms: Some(facts.worker_age_ms),
        connections: Some(Census::take(slots).connections),
        tells_to_close: Some(slots.head().tells_to_close.load(Ordering::Relaxed) != 0),
        drain_left_ms: facts.drain_left_ms,
    }
}

fn losses(slots: &Slots) -> Option<Losses> {
    let crashes = CRASH.of(slots.head());
    Some(Losses {
        connections_total: crashes.read(Field::ResetTotal),
        requests_total: crashes.read(Field::InFlightLostTotal),
    })
}

fn config(facts: &KeeperFacts) -> (Config, ConfigReason) {
    let refusal = facts.last_refusal.lines().next().unwrap_or_default();
    match &facts.config {
        ConfigState::InForce => (Config::Synced, ConfigReason::AsWritten),
        ConfigState::Refused => (Config::Rejected, ConfigReason::Refused(refusal.to_owned())),
        ConfigState::Changed => (Config::Pending, ConfigReason::ChangedSince),
        ConfigState::Unreadable(why) => (Config::Pending, ConfigReason::Unreadable(why.clone())),
    }
}

impl Sources<'_> {
    pub(super) fn status(&self) -> Status {
        let census = Census::take(self.slots);
        let (config, config_reason) = config(self.facts);
        Status {
            program: program(self.slots, self.facts, Path::new(&self.hello.file_name)),
            config,
            config_reason,
            virtual_servers: self.servers(&census),
            pools: self.pools(),
            changes: changes(self.slots, self.facts),
            losses: losses(self.slots),
            told_to_close_total: Some(sum_lanes(self.slots, Lane::ToldToClose)),
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
                admin: self.admin(),
                health: self.health_of(pool),
                traffic: Traffic {
                    connections: Some(census.by_server.get(&key).copied().unwrap_or(0)),
                    ..traffic(&sum_keyed(self.slots, key))
                },
            }
        };
        let mut servers: Vec<_> = site.virtual_servers.iter().map(one).collect();
        servers.extend(self.removed(site, census));
        servers
    }

    /// Virtual servers that a reload has removed and whose connections live on.
    pub(super) fn removed<'a>(
        &'a self,
        site: &'a Site,
        census: &'a Census,
    ) -> impl Iterator<Item = VirtualServerStatus> + 'a {
        let is_gone = |server: &&VirtualServerStatus| {
            let mut names = site.virtual_servers.iter().map(|one| one.name.as_str());
            !names.any(|name| name == server.name)
        };
        self.earlier.iter().filter(is_gone).filter_map(|server| {
            let key = server_key(&server.name);
            let connections = census.by_server.get(&key).copied().unwrap_or(0);
            (connections > 0).then(|| VirtualServerStatus {
                admin: Admin::Drain,
                traffic: Traffic {
                    connections: Some(connections),
                    ..traffic(&sum_keyed(self.slots, key))
                },
                ..server.clone()
            })
        })
    }

    /// A host that is drained, or a program that stops, takes no new work.
    fn admin(&self) -> Admin {
        let tells = self.slots.head().tells_to_close.load(Ordering::Relaxed) != 0;
        if tells || self.facts.is_stopping {
            Admin::Drain
        } else {
            Admin::Ready
        }
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
        let mut pools: Vec<_> = site.pools.iter().map(|pool| self.pool(pool)).collect();
        for (removed, sums) in self.members_left(site) {
            let at = pools.iter().position(|pool| pool.name == removed.pool);
            let at = at.unwrap_or_else(|| {
                pools.push(PoolStatus {
                    name: removed.pool.clone(),
                    method: removed.method.clone(),
                    members: Vec::new(),
                });
                pools.len() - 1
            });
            pools[at].members.push(MemberStatus {
                address: removed.address,
                weight: removed.weight,
                admin: Admin::Drain,
                admin_reason: AdminReason::Operator("not in the site file any more".to_owned()),
                health: Health::Unknown,
                health_reason: HealthReason::NoMonitor,
                health_age_ms: None,
                traffic: traffic(&sums),
            });
        }
        pools
    }

    /// Members that a reload has removed and whose connections live on, with their counters.
    pub(super) fn members_left<'a>(
        &'a self,
        site: &'a Site,
    ) -> impl Iterator<Item = (&'a RemovedMember, [u64; KEYED_COUNTERS])> + 'a {
        let is_gone = |removed: &&RemovedMember| {
            let pool = site
                .pools
                .iter()
                .find(|one| one.name.as_str() == removed.pool);
            let mut members = pool.iter().flat_map(|pool| &pool.members);
            !members.any(|member| member.address == removed.address)
        };
        let with_sums = |removed: &'a RemovedMember| (removed, removed.sums(self.slots));
        let removed = self.removed_members.iter().filter(is_gone);
        removed.map(with_sums).filter(|(_, sums)| open_of(sums) > 0)
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
}

/// What the keeper did lately; the last takeover and the last crash still have their ledgers.
fn changes(slots: &Slots, facts: &KeeperFacts) -> Vec<Change> {
    let head = slots.head();
    let one = |entry: &Entry| {
        let ledger = match entry.kind {
            ChangeKind::Upgrade => TAKEOVER.of(head),
            _ => CRASH.of(head),
        };
        let known = entry.cost.map(|cost| (entry.text.clone(), cost));
        let (text, cost) = match known.or_else(|| entry.told_by(ledger)) {
            Some((text, cost)) => (text, Some(cost)),
            None => (entry.text.clone(), None),
        };
        Change {
            kind: entry.kind,
            age_ms: now_us().saturating_sub(entry.at_us) / 1000,
            text,
            ledger: cost.map(|cost| cost.ledger),
            bytes_in_pipes: cost.map(|cost| cost.bytes_in_pipes),
        }
    };
    facts.journal.0.iter().map(one).collect()
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
