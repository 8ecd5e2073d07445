//! What a node says of itself and of its guests.

use std::time::Instant;

use super::guests::Running;
use super::{GuestLink, Node, REPORT_EVERY};
use crate::clock;
use crate::message::{FromNode, GuestReport, NodeReport};

impl Node {
    pub(super) fn report(&mut self) {
        self.report_due = Instant::now() + REPORT_EVERY;
        if self.controller.is_none() {
            return;
        }
        let mut faults = self.faults.clone();
        faults.extend(self.guest_faults.clone());
        let guests = self
            .running
            .iter()
            .flatten()
            .map(|(name, guest)| (name.clone(), self.guest_report(guest)));
        let report = NodeReport {
            generation: self.orders.as_ref().map_or(0, |orders| orders.generation),
            director_id: self
                .machine
                .as_ref()
                .and(self.orders.as_ref())
                .map(|orders| orders.director),
            address: Some(self.options.address),
            is_complete: self.running.is_some(),
            director: self.plane.program(),
            guests: guests.collect(),
            counters: self.plane.counters(),
            at_us: clock::wall_us(),
            bpf_generation: self.bpf_generation,
            has_left: self.has_left,
            faults,
        };
        self.say(FromNode::Report(Box::new(report)));
    }

    fn guest_report(&self, guest: &Running) -> GuestReport {
        let is_its = |link: &&GuestLink| link.name == guest.name && link.boot == guest.boot;
        let link = self.guest_links.values().find(is_its);
        let ingress = link.map(|link| link.report.clone()).unwrap_or_default();
        let manager = self
            .manager_states
            .get(&guest.name)
            .cloned()
            .unwrap_or_default();
        GuestReport {
            boot: guest.boot,
            addresses: guest.addresses.clone(),
            is_linked: link.is_some_and(|link| link.ready.is_some()),
            ingress: ingress.program,
            is_ready: manager.program.is_some(),
            ingress_pid: guest.ingress_pid,
            keeper_pid: guest.keeper_pid,
            worker_pids: manager.worker_pids,
            program: manager.program,
            counters: ingress
                .counters
                .into_iter()
                .chain(manager.counters)
                .collect(),
            at_us: ingress.at_us,
            site_generation: manager.site_generation,
            site_refused: manager.site_refused,
            manager_generation: manager.manager_generation,
            upgrade_failed: manager.upgrade_failed,
            upgrade_ledger: manager.upgrade_ledger,
            bpf_generation: ingress.bpf_generation,
        }
    }
}
