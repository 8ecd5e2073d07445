//! What a node says of itself and of its guests.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::guests::Running;
use super::{GuestLink, Node, REPORT_EVERY};
use crate::clock;
use crate::message::{FromNode, GuestReport, Known, NodeReport};

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
            known: self.known(),
            guests: guests.collect(),
            counters: self.plane.counters(),
            at_us: clock::wall_us(),
            bpf_generation: self.bpf_generation,
            has_left: self.has_left,
            deaths: Vec::new(),
            faults,
        };
        let report = NodeReport {
            deaths: self.deaths.reported(&report.counters),
            ..report
        };
        self.say(FromNode::Report(Box::new(report)));
    }

    /// Whom the director's plane sends to, and takes packets from.
    fn known(&self) -> Known {
        let Some(orders) = &self.orders else {
            return Known::default();
        };
        let local: BTreeSet<IpAddr> = self
            .running
            .iter()
            .flat_map(|running| running.values())
            .flat_map(|guest| guest.addresses.iter().copied())
            .chain([self.options.address])
            .collect();
        let is_member =
            |address: &IpAddr| self.taken.members.contains(address) || local.contains(address);
        let peers = orders.peers.iter().filter(|peer| {
            self.taken.ways.contains(&peer.slot) && peer.addresses.iter().all(is_member)
        });
        let directors = orders.directors.iter();
        let directors = directors.filter(|(_, address)| is_member(address));
        Known {
            guests: peers.map(|peer| peer.slot).collect(),
            directors: directors.map(|(director, _)| *director).collect(),
        }
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
            known: ingress.known,
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
            ended: ingress.ended,
        }
    }
}
