//! Answers to questions: the API's values from records, table and reports. Decides nothing.

use hitless_api::{
    AdminState, Answer, Change, ChangeState, Closed, ClosedConnection, ConfigState, Counters,
    Death, DirectorCounters, Drain, Guest, GuestPhase, Health, IngressCounters, List, Node,
    NodePhase, Question, Site, Status, VirtualCluster, Wait, WaitCode,
};
use hitless_core::ledger::Ledger;
use hitless_core::row::GuestSlot;
use hitless_core::table::message::Party;
use hitless_core::table::step::{Stage, Standing, Wait as TableWait};

use super::Controller;
use super::cluster::{self, View};
use super::records::{
    ChangeOutcome, ChangeRecord, GuestRecord, GuestWanted, NodeRecord, NodeWanted, Subject,
};
use crate::clock;

impl Controller {
    pub(super) fn show(&self, question: &Question) -> Answer {
        match question {
            Question::Status => Answer::Status(self.status_answer()),
            Question::Nodes => Answer::Nodes(self.list(|view| {
                self.records
                    .nodes
                    .iter()
                    .map(|(name, node)| self.node(view, name, node))
                    .collect()
            })),
            Question::Guests => Answer::Guests(self.list(|view| {
                self.records
                    .guests
                    .iter()
                    .map(|(name, guest)| self.guest(view, name, guest))
                    .collect()
            })),
            Question::VirtualClusters => {
                Answer::VirtualClusters(self.list(|_| vec![self.virtual_cluster()]))
            }
            Question::Buckets => Answer::Buckets(self.list(|_| self.buckets())),
            Question::Changes => Answer::Changes(self.list(|view| {
                self.records
                    .changes
                    .values()
                    .map(|change| self.change(view, change))
                    .collect()
            })),
            Question::Counters => Answer::Counters(self.counters()),
            Question::Ledger => {
                let mut sum = Ledger::default();
                self.records
                    .changes
                    .values()
                    .for_each(|change| sum.merge(&change.ledger));
                sum.merge(&self.crashes());
                Answer::Ledger(sum)
            }
            Question::Site | Question::PutSite(_) | Question::Order(_) | Question::CallBack(_) => {
                let site = &self.records.site;
                Answer::Site(Site {
                    generation: site.generation,
                    text: site.text.clone(),
                })
            }
        }
    }

    fn list<T>(&self, items: impl FnOnce(&View<'_>) -> Vec<T>) -> List<T> {
        List {
            revision: self.options.store.revision().0,
            items: items(&self.view()),
        }
    }

    fn status_answer(&self) -> Status {
        let view = self.view();
        // A cluster that has no guest by its operator's will has nothing to settle.
        let is_empty = self.records.guests.is_empty();
        let mut waits = if is_empty {
            Vec::new()
        } else {
            self.table_waits()
        };
        let mut under_way = 0;
        for change in self
            .records
            .changes
            .values()
            .filter(|change| change.outcome == ChangeOutcome::Open)
        {
            under_way += 1;
            let own = cluster::waits(&self.records, &view, change);
            let rows_wait = cluster::is_of_rows(change) && !waits.is_empty();
            if own.is_empty() && !rows_wait {
                waits.push(Wait {
                    code: WaitCode::Other,
                    object: change.name.clone(),
                    since_us: change.started_us,
                    until_us: change.deadline_us,
                    ends_when: "the change is done".into(),
                });
            }
            waits.extend(own);
        }
        let nodes = self.records.nodes.iter();
        for (name, node) in nodes
            .clone()
            .filter(|(name, _)| !view.reports.contains_key(name.as_str()))
        {
            let is_waited_for = waits.iter().any(|wait| wait.object == *name);
            if node.wanted == NodeWanted::Member && !is_waited_for {
                waits.push(Wait {
                    code: WaitCode::NodeNotLinked,
                    object: name.clone(),
                    since_us: view.now_us,
                    until_us: None,
                    ends_when: "its agent links to the controller".into(),
                });
            }
        }
        let guests: Vec<Guest> = self
            .records
            .guests
            .iter()
            .map(|(name, guest)| self.guest(&view, name, guest))
            .collect();
        for guest in &guests {
            let is_waited_for = waits.iter().any(|wait| wait.object == guest.name);
            let phase_is_passing = matches!(
                guest.phase,
                GuestPhase::Starting | GuestPhase::Suspect | GuestPhase::Dead
            );
            if phase_is_passing && guest.admin == AdminState::Ready && !is_waited_for {
                waits.push(Wait {
                    code: WaitCode::GuestNotReady,
                    object: guest.name.clone(),
                    since_us: view.now_us,
                    until_us: None,
                    ends_when: "it serves".into(),
                });
            }
        }
        Status {
            api: hitless_api::VERSION.into(),
            version: self.options.release.clone(),
            controller_pid: std::process::id(),
            revision: self.options.store.revision().0,
            settled: under_way == 0 && (is_empty || self.status.unsettled == 0) && waits.is_empty(),
            waits,
            nodes: self.records.nodes.len() as u32,
            nodes_linked: view.reports.len() as u32,
            guests: guests.len() as u32,
            guests_serving: guests
                .iter()
                .filter(|guest| guest.phase == GuestPhase::Serving)
                .count() as u32,
            changes_under_way: under_way,
        }
    }

    fn table_waits(&self) -> Vec<Wait> {
        let shift = clock::wall_us().saturating_sub(clock::now().0);
        let waits = self.status.waits.iter().map(|wait| Wait {
            code: wait_code(wait.wait),
            object: match wait.object {
                Some(party) => self.party(party),
                None => cluster::NAME.into(),
            },
            since_us: wait.since.0.saturating_add(shift),
            until_us: None,
            ends_when: format!("{} ({} buckets)", wait.code.replace('_', " "), wait.buckets),
        });
        waits.collect()
    }

    pub(super) fn party(&self, party: Party) -> String {
        match party {
            Party::Guest(slot) => self.guest_name(slot),
            Party::Director(director) => {
                let node = self
                    .records
                    .nodes
                    .iter()
                    .find(|(_, node)| node.director == director);
                node.map_or_else(
                    || format!("director {}", director.0),
                    |(name, _)| name.clone(),
                )
            }
        }
    }

    pub(super) fn guest_name(&self, slot: GuestSlot) -> String {
        self.status.guests.get(&slot).map_or_else(
            || format!("slot {}", slot.number()),
            |guest| guest.name.clone(),
        )
    }

    fn node(&self, view: &View<'_>, name: &str, node: &NodeRecord) -> Node {
        let report = view.reports.get(name);
        let guests = self
            .records
            .guests
            .iter()
            .filter(|(_, guest)| guest.node == name);
        let guests: Vec<String> = guests.map(|(name, _)| name.clone()).collect();
        let is_empty = guests.iter().all(|guest| {
            self.status
                .guests
                .values()
                .filter(|known| known.name == *guest)
                .all(|known| known.named == 0)
        });
        let fault = report.and_then(|report| report.faults.iter().next());
        Node {
            name: name.to_owned(),
            phase: match node.wanted {
                NodeWanted::Leave => NodePhase::Leaving,
                NodeWanted::Drain if is_empty => NodePhase::Drained,
                NodeWanted::Drain => NodePhase::Draining,
                NodeWanted::Member if node.is_joined && report.is_some() => NodePhase::Joined,
                NodeWanted::Member => NodePhase::Expected,
            },
            admin: if node.wanted == NodeWanted::Member {
                AdminState::Ready
            } else {
                AdminState::Drain
            },
            health: match (report, fault) {
                (None, _) => Health::Unknown {
                    reason: "its agent is not linked".into(),
                },
                (Some(_), Some((what, why))) => Health::Down {
                    reason: format!("{what}: {why}"),
                    since_us: view.now_us,
                },
                (Some(_), None) => Health::Up,
            },
            config: if report.is_some() {
                ConfigState::Synced
            } else {
                ConfigState::Pending {
                    reason: "its agent is not linked".into(),
                }
            },
            director: node.kernel.map(|_| node.director.0),
            linked: report.is_some(),
            kernel: node.kernel.map(|kernel| format!("{kernel:016x}")),
            version: node.release.clone(),
            program: report
                .and_then(|report| report.director.as_ref())
                .map(|program| program.digest.clone()),
            xdp: report
                .and_then(|report| report.director.as_ref())
                .map(|program| program.mode.clone()),
            guests,
        }
    }

    fn guest(&self, view: &View<'_>, name: &str, guest: &GuestRecord) -> Guest {
        let report = view.report(&self.records, name);
        let known = self
            .status
            .guests
            .iter()
            .filter(|(_, known)| known.name == name);
        let known = known.max_by_key(|(_, known)| known.standing != Standing::Gone);
        let node_serves = self
            .records
            .nodes
            .get(&guest.node)
            .is_some_and(|node| node.wanted == NodeWanted::Member);
        let serves = guest.wanted == GuestWanted::Serve && node_serves;
        let phase = match known.map(|(_, known)| (known.standing, known.named)) {
            _ if guest.wanted == GuestWanted::Remove => GuestPhase::Removing,
            Some((Standing::Gone, _)) => GuestPhase::Dead,
            Some((Standing::Suspect | Standing::Fenced, _)) => GuestPhase::Suspect,
            Some((Standing::Serving, 0)) | None if !serves => GuestPhase::Drained,
            Some((Standing::Serving, _)) if !serves => GuestPhase::Draining,
            Some((Standing::Serving, named)) if named > 0 => GuestPhase::Serving,
            Some((Standing::Serving, _)) | None => GuestPhase::Starting,
        };
        let site = self.records.site.generation;
        Guest {
            name: name.to_owned(),
            node: guest.node.clone(),
            phase,
            admin: if serves {
                AdminState::Ready
            } else {
                AdminState::Drain
            },
            health: match report {
                None => Health::Unknown {
                    reason: "its node does not report it".into(),
                },
                Some(report) if !report.is_ready => Health::Down {
                    reason: "its traffic manager does not answer".into(),
                    since_us: view.now_us,
                },
                Some(report) if !report.is_linked => Health::Down {
                    reason: "its ingress is not linked".into(),
                    since_us: view.now_us,
                },
                Some(_) => Health::Up,
            },
            config: match report {
                Some(report) if report.site_generation >= site => ConfigState::Synced,
                Some(report) => match &report.site_refused {
                    Some(reason) => ConfigState::Rejected {
                        reason: reason.clone(),
                    },
                    None => ConfigState::Pending {
                        reason: "its traffic manager is being reloaded".into(),
                    },
                },
                None => ConfigState::Pending {
                    reason: "its node does not report it".into(),
                },
            },
            slot: known.map(|(slot, _)| slot.number()),
            address: guest.addresses.first().map(ToString::to_string),
            program: report.and_then(|report| report.program.clone()),
            ingress_program: report
                .and_then(|report| report.ingress.as_ref())
                .map(|program| program.digest.clone()),
            ingress_pid: report.and_then(|report| report.ingress_pid),
            keeper_pid: report.and_then(|report| report.keeper_pid),
            worker_pids: report
                .map(|report| report.worker_pids.clone())
                .unwrap_or_default(),
            live: known.and_then(|(_, known)| known.connections),
            buckets_owned: known.map_or(0, |(_, known)| known.leads as u32),
            buckets_standby: known.map_or(0, |(_, known)| {
                known.named.saturating_sub(known.leads) as u32
            }),
        }
    }

    fn virtual_cluster(&self) -> VirtualCluster {
        let leads: Vec<usize> = self
            .status
            .guests
            .values()
            .filter(|guest| guest.standing == Standing::Serving && guest.leads > 0)
            .map(|guest| guest.leads)
            .collect();
        let mean = leads.iter().sum::<usize>() as f64 / leads.len().max(1) as f64;
        VirtualCluster {
            name: cluster::NAME.into(),
            vni: self.records.cluster.vni,
            addresses: self.records.site.servers.clone(),
            guests: self.records.guests.keys().cloned().collect(),
            buckets_moving: self.status.unsettled as u32,
            imbalance: leads.iter().max().map(|highest| *highest as f64 / mean),
        }
    }

    fn change(&self, view: &View<'_>, change: &ChangeRecord) -> Change {
        let is_open = change.outcome == ChangeOutcome::Open;
        let mut waits = Vec::new();
        if is_open {
            waits = cluster::waits(&self.records, view, change);
            // The table does not know which change a bucket waits for: all that it waits for is
            // shown.
            if cluster::is_of_rows(change) {
                waits.extend(self.table_waits());
            }
        }
        let (kind, object) = match &change.subject {
            Subject::Site(_) => ("apply-site", None),
            Subject::Died(death) => ("guest-died", Some(death.guest.clone())),
            Subject::Order(order) => (order.kind(), order.object().map(str::to_owned)),
        };
        Change {
            name: change.name.clone(),
            kind: kind.into(),
            object,
            state: match &change.outcome {
                ChangeOutcome::Open if waits.is_empty() => ChangeState::Doing,
                ChangeOutcome::Open => ChangeState::Waiting,
                ChangeOutcome::Done => ChangeState::Done,
                ChangeOutcome::CalledBack => ChangeState::CalledBack,
                ChangeOutcome::Failed(_) => ChangeState::Failed,
            },
            progress: cluster::progress(&self.records, view, change),
            waits,
            started_us: change.started_us,
            ended_us: change.ended_us,
            failure: match &change.outcome {
                ChangeOutcome::Failed(reason) => Some(reason.clone()),
                _ => None,
            },
            ledger: change.ledger,
            ledger_by_counts: !change.is_exact,
            told_to_close: change.told_to_close_total(),
            unknown_reset: change.unknown_reset_total(),
            closed: self.closed(change),
            drain: self.pace(view, change),
            death: death(change),
        }
    }

    /// How a drain gets on. None: it is none, or over.
    fn pace(&self, view: &View<'_>, change: &ChangeRecord) -> Option<Drain> {
        if change.outcome != ChangeOutcome::Open {
            return None;
        }
        let left = cluster::left(&self.records, view, change)?;
        let at = change.at_deadline();
        let deadline = change.deadline_us.map(|deadline| (deadline, at));
        let pace = self.paces.get(&change.name).cloned().unwrap_or_default();
        Some(pace.drain(view.now_us, left, deadline))
    }

    /// What a change closed at its deadline. None: nothing.
    fn closed(&self, change: &ChangeRecord) -> Option<Closed> {
        let total = change.closed_total();
        let mut named = Vec::new();
        for (guest, closed) in &change.closed {
            named.extend(closed.named.iter().map(|connection| ClosedConnection {
                guest: guest.clone(),
                client: connection.client.to_string(),
                server: connection.server.to_string(),
                virtual_server: self.records.site.names.get(&connection.server).cloned(),
            }));
        }
        (total > 0).then(|| Closed {
            total,
            left_out: total.saturating_sub(named.len() as u64),
            named,
        })
    }

    /// What deaths of workers cost: nobody asked for them, so they are no change of their own.
    fn crashes(&self) -> Ledger {
        let guests = self
            .reports()
            .into_values()
            .flat_map(|report| &report.guests);
        let lost = guests.filter_map(|(_, guest)| guest.counters.get("crash_reset"));
        let reset = lost.sum();
        Ledger {
            connections: reset,
            reset,
            ..Ledger::default()
        }
    }

    fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        for (node, report) in self.reports() {
            counters.directors.push(DirectorCounters {
                node: node.to_owned(),
                at_us: report.at_us,
                counters: report.counters.clone(),
            });
            for (name, guest) in &report.guests {
                counters.ingresses.push(IngressCounters {
                    guest: name.clone(),
                    node: node.to_owned(),
                    at_us: guest.at_us,
                    counters: guest.counters.clone(),
                });
            }
        }
        counters
    }
}

/// A guest's death. None: the change is something else.
fn death(change: &ChangeRecord) -> Option<Death> {
    let Subject::Died(death) = &change.subject else {
        return None;
    };
    Some(Death {
        node: death.node.clone(),
        slot: death.slot.number(),
        cut_us: death.cut_us,
        believed_us: death.believed_us.clone(),
        last_packet_us: death.last_packet_us,
        seen_us: death.seen_us,
        rows_us: death.rows_us,
        connections: death.held.map(|held| held.connections),
        counted_us: death.held.map(|held| held.counted_us),
    })
}

pub(super) fn wait_code(wait: TableWait) -> WaitCode {
    match wait {
        TableWait::Stage(Stage::Directors) => WaitCode::DirectorNotAcknowledged,
        TableWait::Stage(_) | TableWait::Count(_) => WaitCode::GuestNotAcknowledged,
        TableWait::Connections(_) => WaitCode::ConnectionsLive,
        TableWait::Suspect(_) => WaitCode::LeaseRuns,
        TableWait::RowFull | TableWait::Owner(_) => WaitCode::RowBusy,
        TableWait::Stray(_) => WaitCode::Other,
        TableWait::NoGuest => WaitCode::NoGuest,
    }
}
