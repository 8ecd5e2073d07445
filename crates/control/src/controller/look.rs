//! The look: what is seen goes into the records, changes move on, and the table's machine is told.

use std::collections::BTreeMap;
use std::time::Instant;

use hitless_core::assign::Unit;
use hitless_core::row::GuestSlot;
use hitless_core::table::controller::{GuestPolicy, GuestRecord, Input, Policy, State, Wanted};
use hitless_core::table::message::{DirectorId, Party};

use super::acquaintance::Acquaintance;
use super::cluster::{self, View};
use super::records::{self, ChangeOutcome, GuestWanted, NodeWanted, Records, RecordsError};
use super::{Controller, ControllerError, LOOK_EVERY, LOOK_SHARE, Seen, events};
use crate::clock;
use crate::message::NodeReport;

impl Controller {
    /// Takes in what is seen, moves changes on, and tells everybody what follows.
    pub(super) fn look(&mut self) -> Result<(), ControllerError> {
        let began = Instant::now();
        self.status = self.table.status();
        let mut new = self.records.clone();
        self.take_in(&mut new);
        cluster::advance(&mut new, &self.view());
        self.write(new)?;
        self.met = self.acquaintance(&self.reports()).met();
        if self.tell_table()? {
            self.status = self.table.status();
        }
        self.tell_nodes();
        self.note_paces();
        // On a busy machine looking must not be what keeps it busy.
        self.look_due = Instant::now() + LOOK_EVERY.max(began.elapsed() * LOOK_SHARE);
        Ok(())
    }

    fn note_paces(&mut self) {
        let mut paces = std::mem::take(&mut self.paces);
        let view = self.view();
        let open = self.records.changes.values();
        let open = open.filter(|change| change.outcome == ChangeOutcome::Open);
        let left: BTreeMap<&str, u64> = open
            .filter_map(|change| {
                let left = cluster::left(&self.records, &view, change)??;
                Some((change.name.as_str(), left))
            })
            .collect();
        paces.retain(|name, _| left.contains_key(name.as_str()));
        for (name, left) in left {
            paces
                .entry(name.to_owned())
                .or_default()
                .note(view.now_us, left);
        }
        self.paces = paces;
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            now_us: clock::wall_us(),
            table: &self.status,
            strangers: &self.met.strangers,
            reports: self.reports(),
        }
    }

    fn acquaintance<'a>(
        &'a self,
        reports: &'a BTreeMap<&'a str, &'a NodeReport>,
    ) -> Acquaintance<'a> {
        Acquaintance {
            records: &self.records,
            slots: &self.slots,
            reports,
        }
    }

    /// Reports by node's name, of nodes that are linked with the kernel that is on record.
    pub(super) fn reports(&self) -> BTreeMap<&str, &NodeReport> {
        let is_known = |seen: &&Seen| {
            self.records
                .nodes
                .get(&seen.name)
                .is_some_and(|node| node.kernel == Some(seen.kernel))
        };
        let reported = self.seen.values().filter(is_known);
        reported
            .filter_map(|seen| Some((seen.name.as_str(), seen.report.as_ref()?)))
            .collect()
    }

    /// What others have to be told of what was seen goes into the records.
    fn take_in(&self, new: &mut Records) {
        let mut dead = Vec::new();
        for seen in self.seen.values() {
            let Some(node) = new.nodes.get_mut(&seen.name) else {
                continue;
            };
            if node.kernel != Some(seen.kernel) {
                // Another kernel has another director, with none of what the old one acknowledged.
                if node.kernel.is_some() {
                    node.director = DirectorId(new.cluster.next_director);
                    new.cluster.next_director = new.cluster.next_director.wrapping_add(1).max(1);
                }
                node.kernel = Some(seen.kernel);
                node.is_directing = false;
                node.is_joined = false;
            }
            node.release = Some(seen.release.clone());
            let Some(report) = &seen.report else { continue };
            node.address = report.address;
            if report.director_id == Some(node.director) && !report.has_left {
                node.is_directing = true;
            }
            // Of who is about to join only: it means to ask everybody.
            if !node.is_joined && node.is_directing && self.table.directs_all(node.director) {
                let reports = self.reports();
                let missing = self.acquaintance(&reports).missing_for_node(&seen.name);
                node.is_joined = missing.is_none();
            }
            if !report.is_complete {
                continue;
            }
            let own = new.guests.iter_mut();
            for (name, guest) in own.filter(|(_, guest)| guest.node == seen.name) {
                let boot = report.guests.get(name).map(|running| running.boot);
                if guest.boot.is_some() && guest.boot != boot && guest.wanted != GuestWanted::Remove
                {
                    dead.extend(
                        self.named_kernel(name, guest.boot)
                            .map(|slot| (name.clone(), slot)),
                    );
                }
                match report.guests.get(name) {
                    Some(running) => {
                        guest.boot = Some(running.boot);
                        guest.addresses.clone_from(&running.addresses);
                    }
                    None => guest.boot = None,
                }
            }
        }
        let view = self.view();
        for (guest, slot) in dead {
            cluster::death::open(new, &view, &guest, slot);
        }
    }

    /// The slot of this kernel of a guest, if rows name it. None: nothing is lost with it.
    fn named_kernel(&self, name: &str, boot: Option<u64>) -> Option<GuestSlot> {
        let is_it = |known: &GuestRecord| known.name == name && Some(known.boot) == boot;
        let mut slots = self.slots.iter();
        let (slot, _) = slots.find(|(_, known)| is_it(known))?;
        let named = self.status.guests.get(slot).map_or(0, |guest| guest.named);
        (named > 0).then_some(*slot)
    }

    pub(super) fn write(&mut self, new: Records) -> Result<(), ControllerError> {
        let open = events::open_changes(&self.records);
        match self
            .records
            .write(&mut *self.options.store, &mut self.at, new)
        {
            Err(RecordsError::Conflict) => {
                tracing::warn!("another controller wrote; reading everything anew");
                (self.records, self.at) =
                    Records::load(&mut *self.options.store, || (self.options.new_key)())?;
                Ok(())
            }
            other => {
                other?;
                events::tell_ended(&open, &self.records);
                Ok(())
            }
        }
    }

    /// Policy, boots and losses for the machine; whether there was anything.
    fn tell_table(&mut self) -> Result<bool, ControllerError> {
        let mut has_told = false;
        let mut policy = policy(&self.records);
        self.hold_absent(&mut policy);
        if self.policy.as_ref() != Some(&policy) {
            has_told = true;
            self.policy = Some(policy.clone());
            self.feed(Input::Policy(policy));
        }
        let mut inputs = Vec::new();
        for (slot, guest) in &self.slots {
            // Kernels of which a whole report no longer speaks are gone.
            let record = self.records.guests.get(&guest.name);
            let is_reported = record.is_none_or(|record| {
                let node = self.records.nodes.get(&record.node);
                // The operator's word stands for a report.
                node.is_none_or(|node| node.kernel.is_none())
                    || self
                        .reports()
                        .get(record.node.as_str())
                        .is_some_and(|report| report.is_complete)
            });
            let is_gone = record.and_then(|record| record.boot) != Some(guest.boot);
            if is_gone && is_reported && guest.state != State::Gone {
                inputs.push(Input::Destroyed { slot: *slot });
            }
        }
        for (node, report) in self.reports() {
            for (name, guest) in &report.guests {
                let is_ours = self
                    .records
                    .guests
                    .get(name)
                    .is_some_and(|record| record.node == node);
                let has_slot = self
                    .slots
                    .values()
                    .any(|known| known.name == *name && known.boot == guest.boot);
                if is_ours && guest.is_ready && !has_slot {
                    inputs.push(Input::Booted {
                        name: name.clone(),
                        boot: guest.boot,
                    });
                }
            }
        }
        if self.reachable != self.met.guests {
            self.reachable.clone_from(&self.met.guests);
            let slots = self.reachable.clone();
            inputs.push(Input::Reachable { slots });
        }
        for seen in self.seen.values_mut().filter(|seen| !seen.is_connected) {
            let Some(node) = self.records.nodes.get(&seen.name) else {
                continue;
            };
            let reported = seen.report.as_ref().and_then(|report| report.director_id);
            if node.is_directing
                && reported == Some(node.director)
                && node.kernel == Some(seen.kernel)
            {
                seen.is_connected = true;
                inputs.push(Input::Connected(Party::Director(node.director)));
            }
        }
        has_told |= !inputs.is_empty();
        inputs.into_iter().for_each(|input| self.feed(input));
        if has_told {
            self.conclude()?;
        }
        Ok(has_told)
    }

    /// A guest that was drained serves again only when it is there: the kernel that was drained may
    /// have been destroyed since, as at a reboot of its node, without anybody having said so yet.
    fn hold_absent(&self, policy: &mut Policy) {
        let Some(old) = &self.policy else { return };
        let reports = self.reports();
        for (name, guest) in &mut policy.guests {
            let was_drained = old
                .guests
                .get(name)
                .is_some_and(|old| old.wanted == Wanted::Drain);
            let Some(record) = self.records.guests.get(name) else {
                continue;
            };
            let report = reports
                .get(record.node.as_str())
                .and_then(|report| report.guests.get(name));
            let is_there = report.is_some_and(|report| {
                report.is_linked && report.is_ready && Some(report.boot) == record.boot
            });
            if was_drained && !is_there {
                guest.wanted = Wanted::Drain;
            }
        }
    }
}

/// What the operator wants of the table, as the machine wants to know it.
fn policy(records: &Records) -> Policy {
    let guest = |(name, guest): (&String, &records::GuestRecord)| {
        let node = records.nodes.get(&guest.node);
        let node_serves = node.is_some_and(|node| node.wanted == NodeWanted::Member);
        let serves = guest.wanted == GuestWanted::Serve && node_serves;
        let change = match (guest.wanted, node) {
            (GuestWanted::Serve, Some(node)) if !node_serves => node.change.clone(),
            _ => guest.change.clone(),
        };
        let wanted = if serves { Wanted::Serve } else { Wanted::Drain };
        (
            name.clone(),
            GuestPolicy {
                weight: 1,
                node: guest.node.clone(),
                wanted,
                change,
            },
        )
    };
    let directing = records.nodes.values().filter(|node| node.is_directing);
    Policy {
        guests: records.guests.iter().map(guest).collect(),
        directors: directing.map(|node| node.director).collect(),
        unit: Unit::Bucket,
    }
}
