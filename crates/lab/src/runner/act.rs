//! What a step does: orders through the API, and deeds that need no product.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hitless_api::{AtDeadline, Order};

use super::Runner;
use super::gather::Before;
use super::takeover::Takeover;
use crate::cluster;
use crate::judge::{Evidence, WITHOUT_CONTROLLER_MS};
use crate::kill::{self, KilledGuest};
use crate::script::{Action, Step, expand};

/// Changes by which somebody leaves, by the beginning of their names.
const LEAVING: [&str; 4] = [
    "drain-guest-",
    "remove-guest-",
    "drain-node-",
    "remove-node-",
];

impl Runner<'_> {
    pub(super) fn act(
        &mut self,
        step: &Step,
        before: &Before,
        evidence: &mut Evidence,
    ) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(step.seconds_max);
        for action in &step.actions {
            self.show.action(action);
            self.action(action, deadline, before, evidence)?;
        }
        self.settle(deadline)?;
        self.await_back(step.kind, before, evidence)
    }

    fn settle(&self, deadline: Instant) -> Result<()> {
        let left = || deadline.saturating_duration_since(Instant::now());
        // Where streams are made to end, whoever leaves has to be rid of them. Kept-alive
        // connections may go on at guests that stay.
        if self.streams_end {
            for (change, _) in &self.changes {
                if LEAVING.iter().any(|kind| change.starts_with(kind)) {
                    self.cluster.await_change(change, left())?;
                }
            }
        }
        let own: Vec<&str> = self.changes.iter().map(|(name, _)| name.as_str()).collect();
        self.cluster.await_rest(&own, left())
    }

    fn order(&mut self, order: &Order, object: &str) -> Result<String> {
        let change = self.cluster.order(order)?;
        self.changes.push((change.clone(), object.to_owned()));
        Ok(change)
    }

    fn action(
        &mut self,
        action: &Action,
        deadline: Instant,
        before: &Before,
        evidence: &mut Evidence,
    ) -> Result<()> {
        match action {
            Action::AddGuest { guest, node } => {
                let order = Order::AddGuest {
                    guest: guest.clone(),
                    node: node.clone(),
                };
                self.order(&order, guest)?;
            }
            Action::DrainGuest {
                guest,
                remove,
                deadline_s,
            } => {
                let order = Order::DrainGuest {
                    guest: guest.clone(),
                    deadline_s: *deadline_s,
                    at_deadline: AtDeadline::Close,
                    remove: *remove,
                };
                self.order(&order, guest)?;
            }
            Action::UndrainGuest { guest } => {
                self.order(
                    &Order::UndrainGuest {
                        guest: guest.clone(),
                    },
                    guest,
                )?;
            }
            Action::CallBack { object } => {
                let (change, _) = self
                    .changes
                    .iter()
                    .rev()
                    .find(|(_, about)| about == object)
                    .with_context(|| format!("the step has ordered nothing about {object}"))?;
                let back = self.cluster.api().call_back(change)?.change;
                self.changes.push((back, object.clone()));
            }
            Action::AddNode { node } => self.add_node(node, evidence, before)?,
            Action::RemoveNode { node } => {
                self.world.withdraw(node)?;
                self.note_flows(before, evidence)?;
                let order = Order::RemoveNode {
                    node: node.clone(),
                    deadline_s: None,
                    at_deadline: AtDeadline::Close,
                    confirm_off: false,
                };
                self.order(&order, node)?;
                self.settle(deadline)?;
                self.world.destroy_node(node)?;
            }
            Action::RebootNode { node } => self.reboot(node, deadline, before, evidence)?,
            Action::Withdraw { node } => {
                self.world.withdraw(node)?;
                self.note_flows(before, evidence)?;
            }
            Action::Announce { node } => {
                self.world.announce(node)?;
                self.note_flows(before, evidence)?;
            }
            Action::UpgradeTrafficManagers { program } => {
                let order = Order::UpgradeTrafficManagers {
                    program: expand(program)?,
                };
                let keepers: Vec<(u32, Vec<u32>)> = before
                    .guests
                    .iter()
                    .filter_map(|guest| Some((guest.keeper_pid?, guest.worker_pids.clone())))
                    .collect();
                let watch = Takeover::watch(&keepers);
                let change = self.order(&order, "traffic managers")?;
                let left = deadline.saturating_duration_since(Instant::now());
                let done = self.cluster.await_change(&change, left);
                evidence.old_workers_gone_ms = Some(watch.finish()?);
                done?;
            }
            Action::ReplacePrograms => {
                self.order(&Order::ReplacePrograms {}, "programs")?;
            }
            Action::KillNodeAgents => {
                let nodes: Vec<String> = self.world.state().numbers.keys().cloned().collect();
                for node in &nodes {
                    if let Some(process) = self.world.process(&cluster::agent_name(node)) {
                        cluster::kill(process.pid)?;
                    }
                }
                for node in &nodes {
                    cluster::start_node(self.world, node)?;
                }
            }
            Action::KillController => {
                cluster::kill(self.cluster.status()?.controller_pid)?;
                cluster::start_controller(self.world)?;
                self.cluster.await_controller()?;
            }
            // As known before the step: agents that were just killed too have not reported them
            // again yet.
            Action::KillIngresses => {
                for pid in before.ingresses() {
                    cluster::kill(pid)?;
                }
            }
            Action::KillWorkers => {
                for pid in before.workers() {
                    cluster::kill(pid)?;
                }
            }
            Action::KillGuest {
                guest,
                with_controller,
            } => {
                self.kill_guest(guest, *with_controller, evidence)?;
                self.settle(deadline)?;
            }
            Action::WaitSettled => self.settle(deadline)?,
            Action::Pause { ms } => std::thread::sleep(Duration::from_millis(*ms)),
        }
        Ok(())
    }

    /// Nobody plans while it dies, unless that is wanted: directors and guests have to know by
    /// themselves.
    fn kill_guest(
        &mut self,
        guest: &str,
        with_controller: bool,
        evidence: &mut Evidence,
    ) -> Result<()> {
        let found = self.cluster.guest(guest)?;
        let pid = found
            .keeper_pid
            .or(found.ingress_pid)
            .with_context(|| format!("no process of guest {guest} is known"))?;
        let slot = found
            .slot
            .with_context(|| format!("guest {guest} has no slot"))?;
        if with_controller {
            self.take_death(slot, kill::guest(pid)?, evidence);
            return Ok(());
        }
        cluster::kill(self.cluster.status()?.controller_pid)?;
        let killed = kill::guest(pid);
        let died = Instant::now();
        if killed.is_ok() {
            std::thread::sleep(Duration::from_millis(WITHOUT_CONTROLLER_MS));
        }
        let without_ms = u64::try_from(died.elapsed().as_millis()).unwrap_or(u64::MAX);
        cluster::start_controller(self.world)?;
        self.cluster.await_controller()?;
        evidence.without_controller_ms = Some(without_ms);
        self.take_death(slot, killed?, evidence);
        Ok(())
    }

    fn take_death(&mut self, slot: u16, killed: KilledGuest, evidence: &mut Evidence) {
        evidence.victims = Some(killed.held.clone());
        self.killed = Some((slot, killed));
    }

    fn add_node(&mut self, node: &str, evidence: &mut Evidence, before: &Before) -> Result<()> {
        self.world.build_node(node)?;
        self.order(
            &Order::AddNode {
                node: node.to_owned(),
            },
            node,
        )?;
        cluster::start_node(self.world, node)?;
        self.cluster.await_joined(node)?;
        self.world.announce(node)?;
        self.note_flows(before, evidence)
    }

    fn reboot(
        &mut self,
        node: &str,
        deadline: Instant,
        before: &Before,
        evidence: &mut Evidence,
    ) -> Result<()> {
        let left = || deadline.saturating_duration_since(Instant::now());
        self.world.withdraw(node)?;
        self.note_flows(before, evidence)?;
        let order = Order::DrainNode {
            node: node.to_owned(),
            deadline_s: None,
            at_deadline: AtDeadline::Close,
        };
        self.order(&order, node)?;
        self.cluster.await_drained(node, left())?;
        self.world.destroy_node(node)?;
        self.world.build_node(node)?;
        cluster::start_node(self.world, node)?;
        self.cluster.await_joined_again(node, left())?;
        self.order(
            &Order::UndrainNode {
                node: node.to_owned(),
            },
            node,
        )?;
        self.settle(deadline)?;
        self.cluster.await_joined(node)?;
        self.world.announce(node)
    }
}
