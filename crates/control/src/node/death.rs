//! Deaths of guests that this node runs, seen at once and told to all other directors.
//!
//! A guest's kernel is gone when its end of its link is: the kernel of the node says so within
//! microseconds, while its lease requests would be missed after 100 ms. This node's director then
//! puts the guest last at once, and the agents of the other nodes are told directly, without a
//! controller, by datagrams that are repeated. All that is a hint: a guest that asks for its lease
//! again is believed alive again, and leaving nobody out is the rule either way.
//!
//! Not here: destroying the guest and making it anew ([`super::guests`]), and what a belief means
//! (`core::steer`).

use std::collections::{BTreeMap, BTreeSet};
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

/// How often others are told: one may be lost, and a request of the guest that was on its way may
/// undo another.
const TELL_TIMES: u8 = 3;
const TELL_EVERY_US: u64 = 15_000;

/// What is known of deaths, and who is still to be told.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    /// Guests' links that are cut.
    cut: BTreeSet<u32>,
    telling: Vec<Telling>,
    /// The newest notice of each director.
    heard: BTreeMap<DirectorId, Time>,
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
