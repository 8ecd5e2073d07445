//! A director's part in the table's protocol: the machine inside `hitless node`.
//!
//! ```text
//!  rows offered ─> Store ─(stored, grace period over)─> acknowledged
//!  trust (newest generation) ─> acknowledged at once; from then on only the trusted get leases
//!  LeaseRequest ─> grant to the trusted; who asks is not believed dead
//!  100 ms without a request, or somebody saw its end: believed dead
//!  trusted no more, and a row still names it: believed dead until no row does
//! ```
//!
//! The driver's part, action by action, in the order in which they come (a `Keep` is on disk before
//! the `Send` behind it leaves, since that acknowledges it): `Store`: write the rows into the
//! director's map, wait for an RCU grace period, hand in [`Input::Stored`]. `Send`: to the
//! controller. `Grant`: to the guest that asked. `Believe`: write whom to believe dead into the
//! director's map.
//!
//! After a restart, make the machine with the rows of the pinned map. It grants nothing before it
//! has heard the controller's trust, which it is given again on connecting; it keeps the last trust
//! it acknowledged in a file, so that it serves without a controller: see [`Agent::new`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::row::{BUCKETS, Bucket, GuestSlot, Row, Sequence};
use crate::table::guest::Ticket;
use crate::table::message::{DirectorId, FromAgent, Generation, LeaseGrant, LeaseRequest, ToAgent};
use crate::table::step::is_news;
use crate::time::Time;

/// A guest that asked for no lease for so long is believed dead: five requests are missing.
pub const BELIEVE_DEAD_AFTER_US: u64 = 100_000;

/// A guest that is watched from now on has this long to ask for the first time.
pub const FIRST_REQUEST_WITHIN_US: u64 = 500_000;
/// A machine that is run so much later than its deadline was starved, and so was its ear.
pub const STARVED_AFTER_US: u64 = 20_000;
/// How often an agent tells the controller whom it does not hear.
pub const SILENT_EVERY_US: u64 = 100_000;

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// The controller says.
    Message(ToAgent),
    /// The rows of this ticket are in the map, and no packet is judged by older ones.
    Stored { ticket: Ticket },
    /// A guest asks for its lease.
    Request(LeaseRequest),
    /// Somebody saw the end of these guests. A hint: they are believed dead from now on, instead of
    /// after their silence, until they ask again. It may be false, as any belief.
    SeenDead { guests: Vec<GuestSlot> },
    /// `deadline()` has come.
    Tick,
}

/// What the driver is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    Store {
        ticket: Ticket,
        rows: Vec<(Bucket, Row)>,
    },
    Send(FromAgent),
    Grant {
        to: GuestSlot,
        grant: LeaseGrant,
    },
    Believe {
        dead: Vec<GuestSlot>,
    },
    /// Keep this trust in a file, so that a restarted agent grants leases without a controller.
    Keep(Trust),
}

/// Whom leases are renewed for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Trust {
    pub generation: Generation,
    pub trusted: BTreeSet<GuestSlot>,
    /// Not renewed, but watched.
    pub suspects: BTreeSet<GuestSlot>,
}

impl Trust {
    fn watches(&self, slot: &GuestSlot) -> bool {
        self.trusted.contains(slot) || self.suspects.contains(slot)
    }
}

/// What an agent knows, for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    pub director: DirectorId,
    /// Buckets that it has a row of.
    pub rows: usize,
    pub trust: Trust,
    pub believed_dead: Vec<GuestSlot>,
    /// When a lease was last renewed, per guest.
    pub last_renewal: BTreeMap<GuestSlot, Time>,
}

/// The machine.
#[derive(Debug)]
pub struct Agent {
    id: DirectorId,
    rows: Vec<Row>,
    trust: Trust,
    /// When each watched guest last asked, or since when it is watched.
    heard: BTreeMap<GuestSlot, Time>,
    /// Watched no more, since they were destroyed, while rows of ours still name them.
    departed: BTreeSet<GuestSlot>,
    believed_dead: BTreeSet<GuestSlot>,
    last_renewal: BTreeMap<GuestSlot, Time>,
    storing: BTreeMap<Ticket, Vec<(Bucket, Sequence)>>,
    silent_due: Time,
    next_ticket: Ticket,
    actions: VecDeque<Action>,
}

impl Agent {
    /// The machine of director `id`, with the rows that its map holds (empty, or all 65,536) and
    /// the trust it kept.
    pub fn new(id: DirectorId, rows: &[Row], trust: Trust) -> Self {
        let mut own = vec![Row::NONE; BUCKETS];
        for (row, kept) in own.iter_mut().zip(rows) {
            *row = *kept;
        }
        Self {
            id,
            rows: own,
            trust,
            heard: BTreeMap::new(),
            departed: BTreeSet::new(),
            believed_dead: BTreeSet::new(),
            last_renewal: BTreeMap::new(),
            storing: BTreeMap::new(),
            silent_due: Time(0),
            next_ticket: Ticket(1),
            actions: VecDeque::new(),
        }
    }

    /// Takes what happened. Who is silent is judged by a tick only, so that a driver can hand in first
    /// all that it was sent.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.excuse_own_lateness(now);
        let may_judge = !matches!(
            input,
            Input::Request(_) | Input::Stored { .. } | Input::Message(ToAgent::Rows { .. })
        );
        match input {
            Input::Message(ToAgent::Rows { rows }) => self.offered(now, rows),
            Input::Message(ToAgent::Trust {
                generation,
                trusted,
                suspects,
            }) => {
                let trusted = trusted.into_iter().collect();
                let suspects = suspects.into_iter().collect();
                let trust = Trust {
                    generation,
                    trusted,
                    suspects,
                };
                self.trusts(now, trust);
            }
            Input::Stored { ticket } => {
                let stored = self.storing.remove(&ticket);
                self.forget_departed(now);
                if let Some(rows) = stored {
                    self.actions
                        .push_back(Action::Send(FromAgent::Applied { rows }));
                }
            }
            Input::Request(request) => self.requested(now, request),
            Input::SeenDead { guests } => {
                let long_ago = Time(now.0.saturating_sub(BELIEVE_DEAD_AFTER_US));
                let watched = guests.into_iter().filter(|slot| self.trust.watches(slot));
                self.heard.extend(watched.map(|slot| (slot, long_ago)));
            }
            Input::Tick => {}
        }
        if may_judge {
            self.revise_beliefs(now);
        }
    }

    /// What the driver is to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Input::Tick`] is due: when the next guest has been silent for too long, or the
    /// controller is to hear of it.
    pub fn deadline(&self) -> Option<Time> {
        self.heard
            .iter()
            .filter(|(slot, _)| !self.believed_dead.contains(slot))
            .map(|(_, heard)| heard.after_us(BELIEVE_DEAD_AFTER_US))
            .chain((!self.heard.is_empty()).then_some(self.silent_due))
            .min()
    }

    /// The agent's own copy of a row.
    pub fn row(&self, bucket: Bucket) -> Row {
        self.rows[usize::from(bucket.0)]
    }

    /// What the agent knows.
    pub fn status(&self) -> Status {
        Status {
            director: self.id,
            rows: self.rows.iter().filter(|row| **row != Row::NONE).count(),
            trust: self.trust.clone(),
            believed_dead: self.believed_dead.iter().copied().collect(),
            last_renewal: self.last_renewal.clone(),
        }
    }

    fn offered(&mut self, now: Time, rows: Vec<(Bucket, Row)>) {
        let mut strangers = BTreeSet::new();
        let mut news = Vec::new();
        let mut has = Vec::with_capacity(rows.len());
        for (bucket, row) in rows {
            let own = &mut self.rows[usize::from(bucket.0)];
            if is_news(*own, row) {
                *own = row;
                news.push((bucket, row));
                strangers.extend(row.slots().filter(|slot| !self.trust.watches(slot)));
            }
            // An offer of what it has is acknowledged again; of something older, by what it has.
            has.push((bucket, own.sequence()));
        }
        // Who joined, and was destroyed before this row came here.
        if self.trust.generation > Generation(0) && !strangers.is_subset(&self.believed_dead) {
            self.departed.extend(&strangers);
            self.believed_dead.extend(strangers);
            self.tell_beliefs(now);
        }
        let ticket = self.next_ticket;
        self.next_ticket = Ticket(ticket.0 + 1);
        // Also without news: an earlier store of the same rows may still be under way.
        self.storing.insert(ticket, has);
        self.actions.push_back(Action::Store { ticket, rows: news });
    }

    fn trusts(&mut self, now: Time, trust: Trust) {
        if trust.generation >= self.trust.generation && trust != self.trust {
            let before = core::mem::replace(&mut self.trust, trust);
            let trust = &self.trust;
            self.heard.retain(|slot, _| trust.watches(slot));
            // Their rows go on to name them for a while, and whoever sends by those must not begin
            // with the dead again.
            self.departed.extend(before.trusted.union(&before.suspects));
            self.departed.retain(|slot| !trust.watches(slot));
            self.forget_departed(now);
            self.actions.push_back(Action::Keep(self.trust.clone()));
        }
        let generation = self.trust.generation;
        self.actions
            .push_back(Action::Send(FromAgent::Trusting { generation }));
    }

    fn requested(&mut self, now: Time, request: LeaseRequest) {
        let is_renewed = self.trust.trusted.contains(&request.guest);
        if self.trust.watches(&request.guest) {
            self.heard.insert(request.guest, now);
            if self.believed_dead.remove(&request.guest) {
                self.tell_beliefs(now);
            }
        }
        if is_renewed {
            self.last_renewal.insert(request.guest, now);
        }
        let dead = |slot: &GuestSlot| *slot != request.guest;
        let grant = LeaseGrant {
            asked: request.asked,
            director: self.id,
            is_renewed,
            believed_dead: self.believed_dead.iter().copied().filter(dead).collect(),
        };
        self.actions.push_back(Action::Grant {
            to: request.guest,
            grant,
        });
    }

    /// Departed guests that no row names any more, in the map either, are nobody.
    fn forget_departed(&mut self, now: Time) {
        if self.departed.is_empty() || !self.storing.is_empty() {
            return;
        }
        let named: BTreeSet<GuestSlot> = self.rows.iter().flat_map(|row| row.slots()).collect();
        let forgotten: Vec<_> = self.departed.difference(&named).copied().collect();
        let mut was_believed_dead = false;
        for slot in forgotten {
            self.departed.remove(&slot);
            was_believed_dead |= self.believed_dead.remove(&slot);
        }
        if was_believed_dead {
            self.tell_beliefs(now);
        }
    }

    /// What an agent missed while it was not run itself makes nobody silent.
    fn excuse_own_lateness(&mut self, now: Time) {
        let late = self.deadline().map_or(0, |due| now.since_us(due));
        if late > STARVED_AFTER_US {
            let believed_dead = &self.believed_dead;
            let alive = self.heard.iter_mut();
            for (_, heard) in alive.filter(|(slot, _)| !believed_dead.contains(slot)) {
                // And then it takes a while to read what has come meanwhile.
                *heard = heard.after_us(late + STARVED_AFTER_US);
            }
            self.silent_due = self.silent_due.max(now);
        }
    }

    /// The director at once, the controller by the tick that is due now.
    fn tell_beliefs(&mut self, now: Time) {
        let dead = self.believed_dead.iter().copied().collect();
        self.actions.push_back(Action::Believe { dead });
        self.silent_due = now;
    }

    fn revise_beliefs(&mut self, now: Time) {
        for slot in self.trust.trusted.union(&self.trust.suspects) {
            let first = now.after_us(FIRST_REQUEST_WITHIN_US - BELIEVE_DEAD_AFTER_US);
            self.heard.entry(*slot).or_insert(first);
        }
        let dead: BTreeSet<GuestSlot> = self
            .heard
            .iter()
            .filter(|(_, heard)| now.since_us(**heard) >= BELIEVE_DEAD_AFTER_US)
            .map(|(slot, _)| *slot)
            .chain(self.departed.iter().copied())
            .collect();
        if dead != self.believed_dead {
            self.believed_dead = dead;
            self.tell_beliefs(now);
        }
        if now >= self.silent_due && !self.heard.is_empty() {
            self.silent_due = now.after_us(SILENT_EVERY_US);
            let silent = self.believed_dead.difference(&self.departed);
            let since = |slot: &GuestSlot| self.heard.get(slot).map_or(0, |at| now.since_us(*at));
            let guests = silent.map(|slot| (*slot, since(slot))).collect();
            self.actions
                .push_back(Action::Send(FromAgent::Silent { guests }));
        }
    }
}

#[cfg(test)]
mod tests;
