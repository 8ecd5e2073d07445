//! What comes over the links of node agents: reports, and messages for the table's machine.

use std::collections::BTreeMap;
use std::time::Instant;

use hitless_core::row::GuestSlot;
use hitless_core::table::controller::Input;
use hitless_core::table::message::{DirectorId, Party};

use super::{Controller, Seen};
use crate::link::{LinkEvent, LinkId};
use crate::message::{FromNode, NodeReport, ToNode};

impl Controller {
    pub(super) fn node_event(&mut self, event: LinkEvent<FromNode, ToNode>) {
        match event {
            LinkEvent::Up { link, peer, sender } => {
                if !self.records.nodes.contains_key(&peer.name) {
                    tracing::warn!(
                        node = peer.name,
                        "a node links that was not added; it is told nothing"
                    );
                }
                let seen = Seen {
                    link: sender,
                    name: peer.name.clone(),
                    kernel: peer.kernel,
                    release: peer.release.clone(),
                    report: None,
                    told: None,
                    is_connected: false,
                };
                if !self.seen.up(link, seen) {
                    tracing::info!(
                        node = peer.name,
                        "an older link of a node that has a newer one"
                    );
                    return;
                }
                tracing::info!(
                    node = peer.name,
                    release = peer.release,
                    version = peer.version,
                    "a node linked"
                );
                self.look_due = Instant::now();
            }
            LinkEvent::Down { link, reason } => {
                if let Some(seen) = self.seen.down(link) {
                    tracing::info!(node = seen.name, reason, "a node's link ended");
                }
            }
            LinkEvent::Message { link, message } => match message {
                FromNode::Report(report) => {
                    let Some(seen) = self.seen.get_mut(link) else {
                        return;
                    };
                    // Counters change all the time; only what somebody waits for is looked at once.
                    let is_news = seen.report.as_ref().is_none_or(|old| is_news(old, &report));
                    seen.report = Some(*report);
                    if is_news {
                        self.look_due = Instant::now();
                    }
                }
                FromNode::Table { director, message } => {
                    let is_its = self.seen.get(link).is_some_and(|seen| {
                        self.records
                            .nodes
                            .get(&seen.name)
                            .is_some_and(|node| node.director == director)
                    });
                    if is_its {
                        self.feed(Input::FromAgent {
                            from: director,
                            message,
                        });
                    }
                }
                FromNode::Guest { slot, message } => {
                    if self.is_guest_of(link, slot) {
                        self.feed(Input::FromGuest {
                            from: slot,
                            message,
                        });
                    }
                }
                FromNode::GuestLinked { slot } => {
                    if self.is_guest_of(link, slot) {
                        self.feed(Input::Connected(Party::Guest(slot)));
                    }
                }
            },
        }
    }

    /// A node speaks for its own guests only.
    fn is_guest_of(&self, link: LinkId, slot: GuestSlot) -> bool {
        let guest = self
            .slots
            .get(&slot)
            .and_then(|guest| self.records.guests.get(&guest.name));
        let node = self.seen.get(link).map(|seen| seen.name.as_str());
        guest.is_some_and(|guest| Some(guest.node.as_str()) == node)
    }

    pub(super) fn node_of_director(&self, director: DirectorId) -> Option<&Seen> {
        let is_it = |seen: &&Seen| {
            self.records
                .nodes
                .get(&seen.name)
                .is_some_and(|node| node.director == director)
        };
        self.seen.values().find(is_it)
    }

    pub(super) fn node_of_guest(&self, slot: GuestSlot) -> Option<&Seen> {
        let name = &self.slots.get(&slot)?.name;
        let node = &self.records.guests.get(name)?.node;
        self.seen.values().find(|seen| seen.name == *node)
    }
}

/// Whether a report says something that orders or changes depend on.
fn is_news(old: &NodeReport, new: &NodeReport) -> bool {
    let bare = |report: &NodeReport| {
        let mut bare = NodeReport {
            counters: BTreeMap::new(),
            deaths: Vec::new(),
            at_us: 0,
            ..report.clone()
        };
        for guest in bare.guests.values_mut() {
            guest.counters = BTreeMap::new();
            guest.at_us = 0;
        }
        bare
    };
    bare(old) != bare(new)
}
