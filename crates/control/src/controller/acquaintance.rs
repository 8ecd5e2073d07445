//! Who knows whom: a guest gets rows, and a node packets, only once all who may have to send to it,
//! or to take from it, have told their data planes.
//!
//! A row that names a guest whom a director or another guest cannot reach loses packets, and so
//! does a director from which guests do not take any. Rows and orders go different ways at
//! different speeds, so the one does not tell that the other has arrived: planes report whom they
//! know, and [`Strangers`] are those whom somebody does not know.
//!
//! Not here: what follows from it (`core::table` for guests, [`super::cluster`] for nodes).

use std::collections::{BTreeMap, BTreeSet};

use hitless_core::row::GuestSlot;
use hitless_core::table::controller::{GuestRecord, State};
use hitless_core::table::message::DirectorId;

use super::cluster::Strangers;
use super::records::Records;
use crate::message::{GuestReport, NodeReport};

/// What is seen of a cluster, as far as it is about who knows whom.
pub(super) struct Acquaintance<'a> {
    pub records: &'a Records,
    /// The stored table's guests.
    pub slots: &'a BTreeMap<GuestSlot, GuestRecord>,
    /// By node; only of nodes that are linked.
    pub reports: &'a BTreeMap<&'a str, &'a NodeReport>,
}

/// Who knows whom by now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Met {
    /// Guests that were not known to all, and that now everybody can reach, and that can reach
    /// everybody.
    pub guests: BTreeSet<GuestSlot>,
    pub strangers: Strangers,
}

impl<'a> Acquaintance<'a> {
    /// Looks at all who were not known to all.
    pub(super) fn met(&self) -> Met {
        let mut met = Met::default();
        for (slot, guest) in self.slots {
            if guest.state == State::Gone || guest.is_known {
                continue;
            }
            match self.missing_for_guest(*slot) {
                Some(missing) => {
                    met.strangers.guests.insert(guest.name.clone(), missing);
                }
                None => {
                    met.guests.insert(*slot);
                }
            }
        }
        let nodes = self.records.nodes.iter();
        let nodes = nodes.filter(|(_, node)| !node.is_joined);
        met.strangers.nodes = nodes
            .filter_map(|(name, _)| Some((name.clone(), self.missing_for_node(name)?)))
            .collect();
        met
    }

    /// Who does not know a guest yet, or whom it does not know: a name. None: nobody is missing.
    fn missing_for_guest(&self, slot: GuestSlot) -> Option<String> {
        let (Some(guest), Some(own)) = (self.slots.get(&slot), self.report_of(slot)) else {
            return Some(format!("slot {}", slot.number()));
        };
        if !own.is_linked {
            return Some(guest.name.clone());
        }
        for (name, director) in self.directing() {
            let report = self.reports.get(name);
            let knows = report.is_some_and(|report| report.known.guests.contains(&slot));
            if !knows || !own.known.directors.contains(&director) {
                return Some(name.to_owned());
            }
        }
        for (other, name) in self.serving().filter(|(other, _)| *other != slot) {
            let report = self.report_of(other);
            let knows = report.is_some_and(|report| report.known.guests.contains(&slot));
            if !knows || !own.known.guests.contains(&other) {
                return Some(name.to_owned());
            }
        }
        None
    }

    /// Who does not know a node's director yet, or whom it does not know: a name. None: nobody is
    /// missing.
    pub(super) fn missing_for_node(&self, node: &str) -> Option<String> {
        let (Some(record), Some(own)) = (self.records.nodes.get(node), self.reports.get(node))
        else {
            return Some(node.to_owned());
        };
        for (other, _) in self.directing().filter(|(other, _)| *other != node) {
            let report = self.reports.get(other);
            if !report.is_some_and(|report| report.known.directors.contains(&record.director)) {
                return Some(other.to_owned());
            }
        }
        for (slot, name) in self.serving() {
            let report = self.report_of(slot);
            let knows =
                report.is_some_and(|guest| guest.known.directors.contains(&record.director));
            if !knows || !own.known.guests.contains(&slot) {
                return Some(name.to_owned());
            }
        }
        None
    }

    /// Nodes whose directors' acknowledgements count.
    fn directing(&self) -> impl Iterator<Item = (&'a str, DirectorId)> {
        let nodes = self.records.nodes.iter();
        nodes
            .filter(|(_, node)| node.is_directing)
            .map(|(name, node)| (name.as_str(), node.director))
    }

    /// Guests that rows may name.
    fn serving(&self) -> impl Iterator<Item = (GuestSlot, &'a str)> {
        let guests = self.slots.iter();
        guests
            .filter(|(_, guest)| guest.is_known && guest.state == State::Serving)
            .map(|(slot, guest)| (*slot, guest.name.as_str()))
    }

    /// What its node says of this kernel.
    fn report_of(&self, slot: GuestSlot) -> Option<&'a GuestReport> {
        let known = self.slots.get(&slot)?;
        let record = self.records.guests.get(&known.name)?;
        let report = self
            .reports
            .get(record.node.as_str())?
            .guests
            .get(&known.name)?;
        (report.boot == known.boot).then_some(report)
    }
}

#[cfg(test)]
mod tests;
