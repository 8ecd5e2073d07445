//! A guest's part in the table's protocol: the machine inside `hitless ingress`.
//!
//! ```text
//!  rows offered ─> Store ─(stored, grace period over)─> acknowledged, where the row names this guest
//!                           └──> Count ─> zero: acknowledged, where the guest leaves by it
//!                                   └──> more: refused, the row will be withdrawn
//!  every 20 ms: LeaseRequest ─> grant: lease until asked + 100 ms, beliefs updated
//! ```
//!
//! The driver's part, action by action, in the order in which they come:
//! - `Store`: write the rows into the ingress map, wait until no packet is judged by an older one
//!   any more (RCU grace period, and what XDP passed up has been taken by the stack), then hand in
//!   [`Input::Stored`] with the ticket.
//! - `Count`: begin a scan of all TCP sockets of the guest's kernel now, count by [`Held::is_live`]
//!   per bucket, add what SYN cookies may still be out, and hand in [`Input::Counted`] with the
//!   ticket and all buckets that hold anything.
//! - `Send`: to the controller, over the node agent's link. `Ask`: to every director's agent that
//!   is linked.
//! - `Lease`: write `until` into the ingress map (the program compares it with
//!   `bpf_ktime_get_boot_ns`, so `now` is of that clock).
//! - `Believe`: write whom to believe dead into the ingress map.
//!
//! After a restart of the process, make the machine with the rows that the pinned map holds: their
//! sequences go on.
//!
//! [`Held::is_live`]: crate::steer::Held::is_live

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::row::{BUCKETS, Bucket, GuestSlot, Row, Sequence};
use crate::table::message::{BATCH, DirectorId, FromGuest, LeaseGrant, LeaseRequest, ToGuest};
use crate::table::step::is_news;
use crate::time::Time;

/// How long a lease runs from the moment at which it was asked for.
pub const LEASE_US: u64 = 100_000;
/// How often it is asked for: four answers may be lost.
pub const LEASE_REQUEST_EVERY_US: u64 = 20_000;
/// How often live connections are counted where nobody waits for a count: a drain's progress is
/// seen twice a second.
pub const COUNT_EVERY_US: u64 = 500_000;

/// A count that failed is begun again after this.
pub const COUNT_AGAIN_US: u64 = 100_000;

/// Every so many reports one is full, so that a lost one is made good within ten seconds.
pub const FULL_REPORT_EVERY: u64 = 20;

/// Marks a request to the driver; its answer carries the same number.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Ticket(pub u64);

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// The controller says.
    Message(ToGuest),
    /// The rows of this ticket are in the map, and no packet is judged by older ones.
    Stored { ticket: Ticket },
    /// All buckets that hold live connections, by a scan that began after this ticket's `Count`;
    /// `connections` in total.
    Counted {
        ticket: Ticket,
        live: Vec<(Bucket, u32)>,
        connections: u64,
    },
    /// The count of this ticket failed. Another is begun a little later.
    CountFailed { ticket: Ticket },
    /// A director's agent answers.
    Grant(LeaseGrant),
    /// The program saw stamps of these directors since it was last asked.
    Stamps { directors: Vec<DirectorId> },
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
    Count {
        ticket: Ticket,
    },
    Send(FromGuest),
    Ask(LeaseRequest),
    Lease {
        until: Time,
    },
    Believe {
        dead: Vec<GuestSlot>,
    },
}

/// What a guest knows, for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    pub slot: GuestSlot,
    /// Buckets that it has a row of.
    pub rows: usize,
    /// Buckets that it leads.
    pub leads: usize,
    /// Live connections by the last count. None: not counted yet.
    pub connections: Option<u64>,
    /// Buckets by whose row it leaves, and that are not counted empty yet.
    pub leaving: usize,
    pub lease_until: Time,
    pub believed_dead: Vec<GuestSlot>,
}

/// The machine.
#[derive(Debug)]
pub struct Guest {
    slot: GuestSlot,
    rows: Vec<Row>,
    /// Rows that are being stored: those acknowledged afterwards, and those counted first.
    storing: BTreeMap<Ticket, Storing>,
    /// Rows by which this guest leaves and that are stored, with the first ticket of a count that
    /// is late enough.
    leaving: BTreeMap<Bucket, (Sequence, Ticket)>,
    /// The count under way.
    counting: Option<Ticket>,
    count_due: Time,
    /// The last count failed: the next waits until it is due, though somebody waits for it.
    count_failed: bool,
    /// What the controller was last told, of buckets that this guest does not lead. None: nothing
    /// yet.
    reported: Option<BTreeMap<Bucket, u32>>,
    /// Buckets that it led until now: the next report tells of them, though it be 0.
    owed: BTreeSet<Bucket>,
    connections: Option<u64>,
    reports: u64,
    ask_due: Time,
    lease_until: Time,
    /// The last word of each director's agent on who is dead, and when it was asked for.
    beliefs: BTreeMap<DirectorId, (Time, BTreeSet<GuestSlot>)>,
    believed_dead: BTreeSet<GuestSlot>,
    stamped_by: BTreeSet<DirectorId>,
    next_ticket: Ticket,
    actions: VecDeque<Action>,
}

#[derive(Debug, Default)]
struct Storing {
    plain: Vec<(Bucket, Sequence)>,
    leaving: Vec<(Bucket, Sequence)>,
}

impl Guest {
    /// The machine of guest `slot`, with the rows that its map holds (empty, or all 65,536).
    pub fn new(slot: GuestSlot, rows: &[Row]) -> Self {
        let mut own = vec![Row::NONE; BUCKETS];
        for (row, kept) in own.iter_mut().zip(rows) {
            *row = *kept;
        }
        Self {
            slot,
            rows: own,
            storing: BTreeMap::new(),
            leaving: BTreeMap::new(),
            counting: None,
            count_due: Time(0),
            count_failed: false,
            reported: None,
            owed: BTreeSet::new(),
            connections: None,
            reports: 0,
            ask_due: Time(0),
            lease_until: Time(0),
            beliefs: BTreeMap::new(),
            believed_dead: BTreeSet::new(),
            stamped_by: BTreeSet::new(),
            next_ticket: Ticket(1),
            actions: VecDeque::new(),
        }
    }

    /// Takes what happened.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Message(ToGuest::Rows { rows, leaving }) => self.offered(rows, leaving),
            Input::Message(ToGuest::Report) => {
                self.reported = None;
                self.count_due = now;
            }
            Input::Stored { ticket } => self.stored(ticket),
            Input::Counted {
                ticket,
                live,
                connections,
            } => {
                self.counted(now, ticket, live, connections);
            }
            Input::CountFailed { ticket } => {
                if self.counting == Some(ticket) {
                    self.counting = None;
                    self.count_due = now.after_us(COUNT_AGAIN_US);
                    self.count_failed = true;
                }
            }
            Input::Grant(grant) => self.granted(now, grant),
            Input::Stamps { directors } => self.stamps(directors),
            Input::Tick => {}
        }
        self.ask(now);
        self.count(now);
    }

    /// What the driver is to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Time> {
        let count_due = self.counting.is_none().then_some(self.count_due);
        Some(count_due.map_or(self.ask_due, |due| due.min(self.ask_due)))
    }

    /// The guest's own copy of a row.
    pub fn row(&self, bucket: Bucket) -> Row {
        self.rows[usize::from(bucket.0)]
    }

    /// What the guest knows.
    pub fn status(&self) -> Status {
        Status {
            slot: self.slot,
            rows: self.rows.iter().filter(|row| **row != Row::NONE).count(),
            leads: self
                .rows
                .iter()
                .filter(|row| row.head() == Some(self.slot))
                .count(),
            connections: self.connections,
            leaving: self.leaving.len(),
            lease_until: self.lease_until,
            believed_dead: self.believed_dead.iter().copied().collect(),
        }
    }

    fn offered(&mut self, rows: Vec<(Bucket, Row)>, leaving: Vec<(Bucket, Row)>) {
        let mut news = Vec::new();
        let mut storing = Storing::default();
        for (offers, has) in [(rows, &mut storing.plain), (leaving, &mut storing.leaving)] {
            for (bucket, row) in offers {
                let own = &mut self.rows[usize::from(bucket.0)];
                if is_news(*own, row) {
                    if own.head() == Some(self.slot) && row.head() != Some(self.slot) {
                        self.owed.insert(bucket);
                    }
                    *own = row;
                    news.push((bucket, row));
                    self.leaving.remove(&bucket);
                }
                // An offer of what it has is acknowledged again; an older one is answered by a
                // later offer.
                if *own == row {
                    has.push((bucket, row.sequence()));
                }
            }
        }
        let ticket = self.ticket();
        // Also without news: an earlier store of the same rows may still be under way.
        self.storing.insert(ticket, storing);
        self.actions.push_back(Action::Store { ticket, rows: news });
    }

    fn stored(&mut self, ticket: Ticket) {
        let Some(Storing { plain, leaving }) = self.storing.remove(&ticket) else {
            return;
        };
        if !plain.is_empty() {
            self.actions
                .push_back(Action::Send(FromGuest::Applied { rows: plain }));
        }
        // Only a count that begins from now on tells what is held under these rows.
        let next_count = self.next_ticket;
        for (bucket, sequence) in leaving {
            if self.row(bucket).sequence() == sequence {
                self.leaving.insert(bucket, (sequence, next_count));
            }
        }
    }

    fn counted(&mut self, now: Time, ticket: Ticket, live: Vec<(Bucket, u32)>, connections: u64) {
        if self.counting != Some(ticket) {
            return;
        }
        self.counting = None;
        self.count_due = now.after_us(COUNT_EVERY_US);
        self.connections = Some(connections);
        let live: BTreeMap<Bucket, u32> = live.into_iter().filter(|(_, held)| *held > 0).collect();
        let mut empty = Vec::new();
        let mut holds = Vec::new();
        self.leaving.retain(|bucket, (sequence, first_count)| {
            if ticket < *first_count {
                return true;
            }
            match live.get(bucket) {
                None => empty.push((*bucket, *sequence)),
                Some(held) => holds.push((*bucket, *sequence, *held)),
            }
            false
        });
        for rows in empty.chunks(BATCH) {
            self.actions.push_back(Action::Send(FromGuest::Applied {
                rows: rows.to_vec(),
            }));
        }
        for rows in holds.chunks(BATCH) {
            self.actions.push_back(Action::Send(FromGuest::Holds {
                rows: rows.to_vec(),
            }));
        }
        self.report(live, connections);
    }

    /// Tells what changed in buckets that this guest does not lead: those it may be asked to leave,
    /// or holds unasked.
    fn report(&mut self, live: BTreeMap<Bucket, u32>, connections: u64) {
        let mut led_by_others = live;
        let (rows, slot) = (&self.rows, self.slot);
        led_by_others.retain(|bucket, _| rows[usize::from(bucket.0)].head() != Some(slot));
        if self.reports.is_multiple_of(FULL_REPORT_EVERY) {
            self.reported = None;
        }
        self.reports += 1;
        let is_full = self.reported.is_none();
        let before = self.reported.take().unwrap_or_default();
        let owed = core::mem::take(&mut self.owed);
        let ended = before
            .keys()
            .chain(owed.iter().filter(|bucket| !before.contains_key(bucket)))
            .filter(|bucket| !led_by_others.contains_key(bucket));
        let changed = led_by_others
            .iter()
            .filter(|(bucket, held)| before.get(bucket) != Some(held));
        let buckets: Vec<(Bucket, u32)> = ended
            .map(|bucket| (*bucket, 0))
            .chain(changed.map(|(bucket, held)| (*bucket, *held)))
            .collect();
        self.actions.push_back(Action::Send(FromGuest::Live {
            is_full,
            buckets,
            connections,
        }));
        self.reported = Some(led_by_others);
        if !self.stamped_by.is_empty() {
            let directors = core::mem::take(&mut self.stamped_by).into_iter().collect();
            self.actions
                .push_back(Action::Send(FromGuest::StampedBy { directors }));
        }
    }

    fn granted(&mut self, now: Time, grant: LeaseGrant) {
        if grant.asked > now {
            return;
        }
        let until = grant.asked.after_us(LEASE_US);
        if grant.is_renewed && until > self.lease_until {
            self.lease_until = until;
            self.actions.push_back(Action::Lease { until });
        }
        let dead = grant
            .believed_dead
            .into_iter()
            .filter(|slot| *slot != self.slot)
            .collect();
        let known = self.beliefs.get(&grant.director);
        if known.is_none_or(|(asked, _)| *asked <= grant.asked) {
            self.beliefs.insert(grant.director, (grant.asked, dead));
        }
        self.believe(now);
    }

    /// Dead is whom all agents that spoke within a lease's length believe dead; nobody, if none
    /// spoke.
    fn believe(&mut self, now: Time) {
        self.beliefs
            .retain(|_, (asked, _)| now.since_us(*asked) < LEASE_US);
        let mut all = self.beliefs.values().map(|(_, dead)| dead);
        let first = all.next().cloned().unwrap_or_default();
        let dead = all.fold(first, |dead, other| {
            dead.intersection(other).copied().collect()
        });
        if dead != self.believed_dead {
            self.believed_dead = dead;
            let dead = self.believed_dead.iter().copied().collect();
            self.actions.push_back(Action::Believe { dead });
        }
    }

    fn stamps(&mut self, directors: Vec<DirectorId>) {
        self.stamped_by.extend(directors);
    }

    fn ask(&mut self, now: Time) {
        if now >= self.ask_due {
            self.ask_due = now.after_us(LEASE_REQUEST_EVERY_US);
            self.actions.push_back(Action::Ask(LeaseRequest {
                guest: self.slot,
                asked: now,
            }));
            self.believe(now);
        }
    }

    /// Begins a count if somebody waits for one, or it is time.
    fn count(&mut self, now: Time) {
        let is_asked = !self.leaving.is_empty() && !self.count_failed;
        if self.counting.is_none() && (is_asked || now >= self.count_due) {
            self.count_failed = false;
            let ticket = self.ticket();
            self.counting = Some(ticket);
            self.actions.push_back(Action::Count { ticket });
        }
    }

    fn ticket(&mut self) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket = Ticket(ticket.0 + 1);
        ticket
    }
}

#[cfg(test)]
mod tests;
