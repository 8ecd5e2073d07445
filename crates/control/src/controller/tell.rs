//! Orders for nodes: the whole of what is wanted of each, sent where it changed.

use std::collections::BTreeMap;

use hitless_core::row::GuestSlot;
use hitless_core::table::controller::{GuestRecord, State};

use super::records::{GuestWanted, NodeWanted};
use super::{Controller, cluster};
use crate::message::{Cluster, GuestOrder, Orders, Peer, SiteFile, ToNode};

impl Controller {
    /// Orders for every node that is linked, where they changed.
    pub(super) fn tell_nodes(&mut self) {
        let peers = self.peers();
        let directors = self.records.nodes.values();
        let directors = directors.filter(|node| node.is_directing || node.kernel.is_some());
        let directors: BTreeMap<_, _> = directors
            .filter_map(|node| Some((node.director, node.address?)))
            .collect();
        for seen in self.seen.values_mut() {
            let Some(node) = self.records.nodes.get(&seen.name) else {
                continue;
            };
            if node.kernel != Some(seen.kernel) {
                continue;
            }
            let own = self
                .records
                .guests
                .iter()
                .filter(|(_, guest)| guest.node == seen.name);
            let own = own.filter(|(_, guest)| guest.wanted != GuestWanted::Remove);
            let guests = own.map(|(name, record)| {
                let known = self.slots.iter().find(|(_, known)| {
                    known.name == *name
                        && Some(known.boot) == record.boot
                        && known.state != State::Gone
                });
                (
                    name.clone(),
                    GuestOrder {
                        slot: known.map(|(slot, known)| (known.boot, *slot)),
                        is_draining: !(record.wanted == GuestWanted::Serve
                            && node.wanted == NodeWanted::Member),
                        ends_for: record.ends_for,
                    },
                )
            });
            let has_guests = self
                .records
                .guests
                .values()
                .any(|guest| guest.node == seen.name);
            let orders = Orders {
                generation: 0,
                director: node.director,
                cluster: Cluster {
                    name: cluster::NAME.into(),
                    vni: self.records.cluster.vni,
                    key: self.records.cluster.key,
                    vips: self.records.site.vips.clone(),
                },
                guests: guests.collect(),
                peers: peers.clone(),
                directors: directors.clone(),
                programs: self.records.cluster.programs.clone(),
                site: SiteFile {
                    generation: self.records.site.generation,
                    text: self.records.site.text.clone(),
                },
                is_leaving: node.wanted == NodeWanted::Leave && !has_guests,
            };
            let same = |told: &Orders| {
                Orders {
                    generation: told.generation,
                    ..orders.clone()
                } == *told
            };
            if !seen.told.as_ref().is_some_and(same) {
                // The store's revision rises with everything that orders are made of.
                let before = seen.told.as_ref().map_or(0, |told| told.generation);
                let generation = self.options.store.revision().0.max(before);
                let orders = Orders {
                    generation,
                    ..orders
                };
                seen.told = Some(orders.clone());
                seen.link.send(ToNode::Orders(Box::new(orders)));
            }
        }
    }

    fn peers(&self) -> Vec<Peer> {
        let peer = |(slot, known): (&GuestSlot, &GuestRecord)| {
            let record = self.records.guests.get(&known.name)?;
            let is_there = record.boot == Some(known.boot) && known.state != State::Gone;
            is_there.then(|| Peer {
                slot: *slot,
                node: record.node.clone(),
                guest: known.name.clone(),
                addresses: record.addresses.clone(),
            })
        };
        self.slots.iter().filter_map(peer).collect()
    }
}
