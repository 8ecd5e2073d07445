//! Deaths of guests that this node runs, seen at once and told to all other directors.
//!
//! A guest's kernel is gone when its end of its link is: the kernel of the node says so within
//! microseconds, while its lease requests would be missed after 100 ms. This node's director then
//! puts the guest last at once, and the agents of the other nodes are told directly, without a
//! controller, by datagrams that are repeated. All that is a hint: a guest that asks for its lease
//! again is believed alive again, and leaving nobody out is the rule either way.
//!
//! What was seen is remembered and reported, so that a controller which was away when it happened
//! can tell it.
//!
//! Not here: destroying the guest and making it anew ([`super::guests`]), and what a belief means
//! (`core::steer`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use hitless_core::row::GuestSlot;
use hitless_core::table::agent::Input;
use hitless_core::table::message::DirectorId;
use hitless_core::time::Time;

use super::Node;
use super::guests::GuestPlan;
use super::ways::Change;
use crate::clock;
use crate::lease::Notice;
use crate::message::{DEATHS_KEPT, DeathSeen, Held};

/// How often others are told: one may be lost, and a request of the guest that was on its way may
/// undo another.
const TELL_TIMES: u8 = 3;
const TELL_EVERY_US: u64 = 15_000;
/// Last counts that are kept: of twice as many guests as a node runs at most.
const HELD_MAX: usize = 2 * DEATHS_KEPT;

/// What is known of deaths, and who is still to be told.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    /// Guests' links that are cut.
    cut: BTreeSet<u32>,
    telling: Vec<Telling>,
    /// The newest notice of each director.
    heard: BTreeMap<DirectorId, Time>,
    /// Whom the director believes dead now.
    believed: BTreeSet<GuestSlot>,
    /// What was seen of guests that died, or were believed to have; oldest first.
    seen: VecDeque<DeathSeen>,
    /// What guests of this node held at their last counts.
    held: BTreeMap<GuestSlot, Held>,
}

#[derive(Debug)]
struct Telling {
    guest: GuestSlot,
    ifindex: u32,
    due: Time,
    times: u8,
}

impl Deaths {
    /// Forgets links that are gone for good: a number is not used again soon.
    pub(super) fn keep_only(&mut self, ifindexes: &BTreeSet<u32>) {
        let telling = &self.telling;
        self.cut.retain(|ifindex| {
            ifindexes.contains(ifindex) || telling.iter().any(|one| one.ifindex == *ifindex)
        });
    }

    /// A guest of this node has counted.
    pub(super) fn note_count(&mut self, slot: GuestSlot, connections: u64) {
        let counted_us = clock::wall_us();
        self.held.insert(
            slot,
            Held {
                connections,
                counted_us,
            },
        );
        if self.held.len() > HELD_MAX {
            let oldest = self.held.iter().min_by_key(|(_, held)| held.counted_us);
            if let Some(slot) = oldest.map(|(slot, _)| *slot) {
                self.held.remove(&slot);
            }
        }
    }

    /// The director believes exactly these dead now.
    pub(super) fn note_believed(&mut self, dead: &[GuestSlot]) {
        let now_us = clock::wall_us();
        let dead: BTreeSet<GuestSlot> = dead.iter().copied().collect();
        for slot in dead.difference(&self.believed.clone()) {
            self.seen_of(*slot).believed_us = Some(now_us);
        }
        self.believed = dead;
    }

    /// The guest's link is cut.
    fn note_cut(&mut self, slot: GuestSlot) {
        let held = self.held.get(&slot).copied();
        let seen = self.seen_of(slot);
        seen.cut_us = Some(clock::wall_us());
        seen.held = held;
    }

    /// What is known of a guest's death, if it is one. A slot is another guest's one day, long
    /// after it has been forgotten here.
    fn seen_of(&mut self, slot: GuestSlot) -> &mut DeathSeen {
        let at = match self.seen.iter().position(|seen| seen.slot == slot) {
            Some(at) => at,
            None => {
                if self.seen.len() == DEATHS_KEPT {
                    self.seen.pop_front();
                }
                self.seen.push_back(DeathSeen {
                    slot,
                    believed_us: None,
                    cut_us: None,
                    last_packet_us: None,
                    held: self.held.get(&slot).copied(),
                });
                self.seen.len() - 1
            }
        };
        &mut self.seen[at]
    }

    /// What is reported: with when the director last sent a packet to each, by its own counters.
    pub(super) fn reported(&self, counters: &BTreeMap<String, u64>) -> Vec<DeathSeen> {
        let shift_us = clock::wall_us().saturating_sub(clock::now().0);
        let report = |seen: &DeathSeen| {
            let name = format!("last_sent_ns_{}", seen.slot.number());
            let last_ns = counters.get(&name).filter(|ns| **ns > 0);
            DeathSeen {
                last_packet_us: last_ns.map(|ns| (ns / 1_000).saturating_add(shift_us)),
                held: seen.held.or(self.held.get(&seen.slot).copied()),
                ..seen.clone()
            }
        };
        self.seen.iter().map(report).collect()
    }

    /// When somebody is to be told again.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.telling.iter().map(|telling| telling.due).min()
    }

    /// Whether a notice is newer than all of its director before.
    fn is_news(&mut self, notice: &Notice) -> bool {
        let last = self.heard.entry(notice.director).or_default();
        let is_news = notice.seen > *last;
        *last = notice.seen.max(*last);
        is_news
    }

    /// Who is to be told of now. A guest whose link is whole again is told of no more.
    fn due(&mut self, now: Time) -> Vec<GuestSlot> {
        let cut = &self.cut;
        self.telling
            .retain(|telling| telling.times > 0 && cut.contains(&telling.ifindex));
        let mut due = Vec::new();
        for telling in self.telling.iter_mut().filter(|one| one.due <= now) {
            due.push(telling.guest);
            telling.times -= 1;
            telling.due = now.after_us(TELL_EVERY_US);
        }
        self.telling.retain(|telling| telling.times > 0);
        due
    }
}

impl Node {
    pub(super) fn network_changed(&mut self, change: Change) {
        match change {
            Change::Link {
                ifindex,
                is_running: true,
            } => {
                self.deaths.cut.remove(&ifindex);
            }
            Change::Link {
                ifindex,
                is_running: false,
            } => {
                if self.deaths.cut.insert(ifindex) {
                    self.link_cut(ifindex);
                }
            }
            Change::Ways => {}
        }
    }

    fn link_cut(&mut self, ifindex: u32) {
        let Some(orders) = &self.orders else { return };
        let mut guests = self.running.iter().flatten();
        let Some((name, guest)) = guests.find(|(_, guest)| guest.ifindex == ifindex) else {
            // An interface of something else, or of a guest that is being made.
            return;
        };
        tracing::info!(guest = name, "a guest's link is cut: it is believed dead");
        // Its keeper looks at once, and makes it anew.
        let _ = self.guests.send(GuestPlan::all(orders));
        let slot = orders.guests.get(name).and_then(|order| order.slot);
        if let Some((boot, slot)) = slot
            && boot == guest.boot
        {
            self.deaths.note_cut(slot);
            self.deaths.telling.push(Telling {
                guest: slot,
                ifindex,
                due: clock::now(),
                times: TELL_TIMES,
            });
        }
        self.tell_of_deaths(clock::now());
    }

    /// Believes dead, and tells the agents of the other directors.
    pub(super) fn tell_of_deaths(&mut self, now: Time) {
        let guests = self.deaths.due(now);
        if guests.is_empty() {
            return;
        }
        self.feed(Input::SeenDead {
            guests: guests.clone(),
        });
        let (Some(orders), Some(seal)) = (&self.orders, &self.seal) else {
            return;
        };
        for (at, guest) in guests.into_iter().enumerate() {
            let notice = Notice {
                guest,
                director: orders.director,
                // Notices of one moment are different ones.
                seen: now.after_us(at as u64),
            };
            let datagram = seal.notice(&notice);
            for (director, address) in &orders.directors {
                let to = SocketAddr::new(*address, self.options.lease_port);
                if *director != orders.director
                    && let Err(error) = self.socket.send_to(&datagram, to)
                {
                    // Its silence will tell that director, a little later.
                    tracing::debug!(%to, %error, "cannot tell of a death");
                }
            }
        }
    }

    /// Another agent's notice, if it is one.
    pub(super) fn noticed(&mut self, from: SocketAddr, bytes: &[u8]) {
        let Some(notice) = self.seal.as_ref().and_then(|seal| seal.open_notice(bytes)) else {
            return;
        };
        let sender = self
            .orders
            .as_ref()
            .and_then(|orders| orders.directors.get(&notice.director));
        if sender.is_some_and(|address| *address == from.ip()) && self.deaths.is_news(&notice) {
            self.feed(Input::SeenDead {
                guests: vec![notice.guest],
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u16) -> GuestSlot {
        GuestSlot::new(number).unwrap()
    }

    #[test]
    fn a_death_is_told_three_times_unless_the_link_comes_back() {
        let mut deaths = Deaths::default();
        for ifindex in [7, 8] {
            deaths.cut.insert(ifindex);
            deaths.telling.push(Telling {
                guest: slot(ifindex as u16),
                ifindex,
                due: Time(10),
                times: TELL_TIMES,
            });
        }
        assert_eq!(deaths.due(Time(9)), []);
        assert_eq!(deaths.due(Time(10)), [slot(7), slot(8)]);
        assert_eq!(deaths.due(Time(11)), []);
        let again = Time(10 + TELL_EVERY_US);
        assert_eq!(deaths.deadline(), Some(again));
        deaths.cut.remove(&7);
        assert_eq!(deaths.due(again), [slot(8)]);
        assert_eq!(deaths.due(Time(10 + 2 * TELL_EVERY_US)), [slot(8)]);
        assert_eq!(deaths.deadline(), None);
    }

    #[test]
    fn what_was_seen_of_a_death_is_reported_and_bounded() {
        let mut deaths = Deaths::default();
        deaths.note_count(slot(7), 31);
        deaths.note_count(slot(7), 30);
        deaths.note_cut(slot(7));
        deaths.note_believed(&[slot(7), slot(8)]);
        let counters = BTreeMap::from([("last_sent_ns_7".to_owned(), 1_000)]);
        let reported = deaths.reported(&counters);
        assert_eq!(reported.len(), 2);
        assert_eq!(reported[0].held.map(|held| held.connections), Some(30));
        assert!(reported[0].cut_us <= reported[0].believed_us);
        assert!(reported[0].cut_us.is_some() && reported[0].last_packet_us.is_some());
        assert_eq!((reported[1].cut_us, reported[1].held), (None, None));
        // Believed still is no news; believed again is.
        let first = reported[1].believed_us;
        deaths.note_believed(&[slot(8)]);
        assert_eq!(deaths.reported(&counters)[1].believed_us, first);
        for number in 1..=DEATHS_KEPT as u16 {
            deaths.note_believed(&[slot(100 + number)]);
        }
        let reported = deaths.reported(&counters);
        assert_eq!((reported.len(), reported[0].slot), (DEATHS_KEPT, slot(101)));
    }

    #[test]
    fn a_notice_is_taken_once() {
        let mut deaths = Deaths::default();
        let notice = |director, seen| Notice {
            guest: slot(1),
            director: DirectorId(director),
            seen: Time(seen),
        };
        assert!(deaths.is_news(&notice(1, 5)));
        assert!(!deaths.is_news(&notice(1, 5)));
        assert!(!deaths.is_news(&notice(1, 4)));
        assert!(deaths.is_news(&notice(2, 4)));
        assert!(deaths.is_news(&notice(1, 6)));
    }
}
