//! What the controller decides: slots, trust, wishes, next rows; and what it offers to whom.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Action, Controller, GuestRecord, Header, OFFER_AGAIN_US, PAGE_BUCKETS, Page, Planned, Policy,
    SCHEMA, State, Store, Wanted, page_of,
};
use crate::assign::{Candidate, assign};
use crate::row::{BUCKETS, Bucket, GuestSlot, Row};
use crate::rules::Rules;
use crate::table::message::{BATCH, Generation, Party, ToAgent, ToGuest};
use crate::table::step::{
    self, Entry, Live, Next, Standing, View, Wait, Why, counts_before_leaving, first_row,
    may_trust_again, next_row, slot_of_new_kernel, stage_of,
};
use crate::time::Time;

/// What [`next_row`] sees of one bucket.
struct BucketView<'a> {
    controller: &'a Controller,
    index: usize,
}

impl View for BucketView<'_> {
    fn standing(&self, slot: GuestSlot) -> Standing {
        self.controller.standing(slot)
    }

    fn live(&self, slot: GuestSlot) -> Live {
        self.controller.inventory.live(slot, self.index)
    }

    fn has_refused(&self, slot: GuestSlot) -> bool {
        self.controller.inventory.refused.get(&self.index) == Some(&slot)
    }

    fn holder(&self) -> Option<GuestSlot> {
        let row = self.controller.entries[self.index].row;
        let is_outside = |slot: &GuestSlot| {
            !row.contains(*slot) && self.controller.standing(*slot) == Standing::Serving
        };
        self.controller
            .inventory
            .holders(self.index)
            .find(is_outside)
    }
}

impl Controller {
    /// Takes the next decision that there is, unless the last one is still being written.
    pub(super) fn decide(&mut self, now: Time) {
        if !matches!(self.store, Store::Idle) || self.inventory.policy.is_none() {
            return;
        }
        let header = self.next_header(now);
        let has_changed = self
            .header
            .as_ref()
            .is_none_or(|old| old.guests != header.guests);
        let suspects: BTreeSet<GuestSlot> = of_state(&header, State::Suspect);
        self.inventory.note_suspects(&suspects, now);
        let has_long_suspects = self.inventory.has_new_long_suspects(now);
        let entries = if has_changed || self.must_replan || has_long_suspects {
            self.must_replan = false;
            self.replanned(&header, now)
        } else {
            Vec::new()
        };
        if has_changed || !entries.is_empty() {
            self.write(header, entries);
            return;
        }
        let entries = self.next_rows(now);
        if !entries.is_empty() {
            self.write(header, entries);
        }
    }

    /// The header after boots, losses, suspicions and returns, with the generation of the next
    /// write.
    fn next_header(&self, now: Time) -> Header {
        let old = self.header.clone().unwrap_or(Header {
            schema: SCHEMA,
            generation: Generation(0),
            trust: Generation(0),
            last_slot: 0,
            guests: BTreeMap::new(),
        });
        let mut header = old.clone();
        header.generation = Generation(old.generation.0 + 1);
        for (name, boot) in &self.inventory.boots {
            book_in(&self.rules, &mut header, name, *boot);
        }
        for (slot, record) in &mut header.guests {
            let has_newest_rows = self.progress.has_all(Party::Guest(*slot));
            record.is_known |= self.inventory.reachable.contains(slot);
            match record.state {
                _ if self.inventory.destroyed.contains(slot) => record.state = State::Gone,
                State::Serving if self.inventory.is_suspect(*slot) => {
                    record.state = State::Suspect;
                }
                State::Suspect
                    if self.inventory.is_calm(*slot, now)
                        && may_trust_again(&self.rules, has_newest_rows) =>
                {
                    record.state = State::Serving;
                }
                State::Serving | State::Suspect | State::Gone => {}
            }
        }
        if self.progress.under_way.len() == 0 && self.todo.len() == 0 {
            let named =
                |slot: &GuestSlot| self.entries.iter().any(|entry| entry.row.contains(*slot));
            header
                .guests
                .retain(|slot, record| record.state != State::Gone || named(slot));
        }
        let trust = |header: &Header| {
            (
                of_state(header, State::Serving),
                of_state(header, State::Suspect),
            )
        };
        if trust(&header) != trust(&old) {
            header.trust = header.generation;
        }
        header
    }

    /// Guests that may be given buckets, or that have some and shall be rid of them.
    fn candidates(
        &self,
        header: &Header,
        policy: &Policy,
        now: Time,
    ) -> BTreeMap<GuestSlot, Candidate> {
        let is_candidate = |slot: GuestSlot, record: &GuestRecord| {
            record.state != State::Gone
                && record.is_known
                && !self.inventory.is_suspect_for_long(slot, now)
        };
        let candidate = |record: &GuestRecord| {
            let wanted = policy.guests.get(&record.name)?;
            let weight = match wanted.wanted {
                Wanted::Serve => wanted.weight,
                Wanted::Drain => 0,
            };
            let node = wanted.node.clone();
            Some(Candidate { weight, node })
        };
        header
            .guests
            .iter()
            .filter(|(slot, record)| is_candidate(**slot, record))
            .filter_map(|(slot, record)| Some((*slot, candidate(record)?)))
            .collect()
    }

    /// Entries whose wish changes, or all of them with their first rows. None if nothing changed that
    /// wishes follow from: a suspicion does not, before it is an old one.
    fn replanned(&mut self, header: &Header, now: Time) -> Vec<(usize, Entry)> {
        let Some(policy) = &self.inventory.policy else {
            return Vec::new();
        };
        let candidates = self.candidates(header, policy, now);
        let unit = policy.unit;
        let planned = Planned { candidates, unit };
        if self.planned.as_ref() == Some(&planned) {
            return Vec::new();
        }
        let candidates = &self.planned.insert(planned).candidates;
        let has_anybody = candidates.values().any(|candidate| candidate.weight > 0);
        self.nobody_since = match (has_anybody, self.nobody_since) {
            (true, _) => None,
            (false, since) => since.or(Some(now)),
        };
        if !has_anybody {
            // Whoever has the buckets keeps them: there is nobody to give them to.
            return Vec::new();
        }
        let before: Vec<_> = self.entries.iter().map(|entry| entry.wish).collect();
        let wishes = assign(candidates, &before, unit).into_iter().enumerate();
        if self.entries.is_empty() {
            let first = |wish| Entry {
                row: first_row(wish),
                before: Row::NONE,
                wish,
                why: Why::First,
            };
            return wishes.map(|(index, wish)| (index, first(wish))).collect();
        }
        wishes
            .filter(|(index, wish)| self.entries[*index].wish != *wish)
            .map(|(index, wish)| {
                (
                    index,
                    Entry {
                        wish,
                        ..self.entries[index]
                    },
                )
            })
            .collect()
    }

    /// The next rows of all buckets that have one.
    fn next_rows(&mut self, now: Time) -> Vec<(usize, Entry)> {
        let stray = self.inventory.stray();
        let mut rows = Vec::new();
        for index in self.todo.take() {
            let entry = self.entries[index];
            let view = BucketView {
                controller: self,
                index,
            };
            let next = next_row(&self.rules, &entry, self.progress.stage(index), &view);
            let wait = match (next, stray) {
                (
                    Next::Row {
                        why: Why::Settle, ..
                    },
                    Some(stray),
                ) => Some(Wait::Stray(stray)),
                (Next::Row { row, why }, _) => {
                    rows.push((index, step::advanced(&entry, row, why)));
                    None
                }
                (Next::Wait(wait), _) => Some(wait),
                (Next::Settled, _) => None,
            };
            self.note_wait(index, wait, now);
        }
        rows
    }

    fn note_wait(&mut self, index: usize, wait: Option<Wait>, now: Time) {
        let old = core::mem::replace(&mut self.waiting[index], wait);
        if old == wait {
            return;
        }
        if let Some(old) = old
            && let Some((count, _)) = self.waits.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                self.waits.remove(&old);
            }
        }
        if let Some(wait) = wait {
            self.waits.entry(wait).or_insert((0, now)).0 += 1;
        }
    }

    fn write(&mut self, header: Header, entries: Vec<(usize, Entry)>) {
        let mut pages: BTreeMap<u16, Page> = BTreeMap::new();
        for (index, entry) in &entries {
            let number = page_of(*index);
            let page = pages.entry(number).or_insert_with(|| {
                let first = usize::from(number) * PAGE_BUCKETS;
                let old = self.entries.get(first..first + PAGE_BUCKETS);
                let entries =
                    old.map_or_else(|| vec![Entry::default(); PAGE_BUCKETS], <[_]>::to_vec);
                Page {
                    schema: SCHEMA,
                    entries,
                }
            });
            page.entries[index % PAGE_BUCKETS] = *entry;
        }
        self.actions.push_back(Action::Write {
            parent: self.header.as_ref().map(|header| header.generation),
            header: header.clone(),
            pages: pages.into_iter().collect(),
        });
        self.store = Store::Writing { header, entries };
    }

    /// Offers rows to all parties whose stage has come.
    pub(super) fn offer(&mut self, now: Time) {
        if self.header.is_none() {
            return;
        }
        if now >= self.offer_again {
            self.offer_again = now.after_us(OFFER_AGAIN_US);
            self.progress.offer_again();
            self.trust_lacking();
        }
        let dirty = self.progress.dirty.take();
        if dirty.is_empty() {
            return;
        }
        for party in self.parties() {
            let mut rows = Vec::new();
            let mut leaving = Vec::new();
            for index in &dirty {
                let entry = self.entries[*index];
                let stage = self.progress.stage(*index);
                let is_due =
                    entry.row != Row::NONE && stage_of(&self.rules, &entry, party) <= stage;
                if !is_due || !self.progress.offer(party, *index) {
                    continue;
                }
                let bucket = Bucket(u16::try_from(*index).expect("a bucket's index"));
                let counts = |slot| counts_before_leaving(&self.rules, &entry, slot);
                match party {
                    Party::Guest(slot) if counts(slot) => leaving.push((bucket, entry.row)),
                    Party::Guest(_) | Party::Director(_) => rows.push((bucket, entry.row)),
                }
            }
            self.send_rows(party, &rows, &leaving);
        }
    }

    fn send_rows(&mut self, party: Party, rows: &[(Bucket, Row)], leaving: &[(Bucket, Row)]) {
        for rows in rows.chunks(BATCH) {
            let rows = rows.to_vec();
            self.actions.push_back(match party {
                Party::Director(to) => Action::ToAgent {
                    to,
                    message: ToAgent::Rows { rows },
                },
                Party::Guest(to) => {
                    let message = ToGuest::Rows {
                        rows,
                        leaving: Vec::new(),
                    };
                    Action::ToGuest { to, message }
                }
            });
        }
        for leaving in leaving.chunks(BATCH) {
            if let Party::Guest(to) = party {
                let message = ToGuest::Rows {
                    rows: Vec::new(),
                    leaving: leaving.to_vec(),
                };
                self.actions.push_back(Action::ToGuest { to, message });
            }
        }
    }

    /// Tells all agents whom to trust.
    pub(super) fn trust_all(&mut self) {
        self.send_trust(|_, _, _| true);
    }

    fn trust_lacking(&mut self) {
        self.send_trust(|controller, id, trust| controller.lacks_trust(id, trust));
    }

    fn send_trust(
        &mut self,
        is_due: impl Fn(&Self, crate::table::message::DirectorId, Generation) -> bool,
    ) {
        let (Some(header), Some(policy)) = (&self.header, &self.inventory.policy) else {
            return;
        };
        let message = ToAgent::Trust {
            generation: header.trust,
            trusted: of_state(header, State::Serving).into_iter().collect(),
            suspects: of_state(header, State::Suspect).into_iter().collect(),
        };
        let to: Vec<_> = policy
            .directors
            .iter()
            .filter(|id| is_due(self, **id, header.trust))
            .copied()
            .collect();
        for to in to {
            self.actions.push_back(Action::ToAgent {
                to,
                message: message.clone(),
            });
        }
    }

    pub(super) fn ask_for_reports(&mut self, is_asked: impl Fn(GuestSlot) -> bool) {
        let Some(header) = &self.header else { return };
        let serving = of_state(header, State::Serving).into_iter();
        for to in serving.filter(|slot| is_asked(*slot)) {
            self.actions.push_back(Action::ToGuest {
                to,
                message: ToGuest::Report,
            });
        }
    }
}

/// Gives the kernel `boot` of guest `name` a slot, if it has none; its kernel before is gone.
fn book_in(rules: &Rules, header: &mut Header, name: &str, boot: u64) {
    if header
        .guests
        .values()
        .any(|record| record.name == name && record.boot == boot)
    {
        return;
    }
    let mut old = None;
    for (slot, record) in &mut header.guests {
        if record.name == name {
            record.state = State::Gone;
            old = Some(*slot);
        }
    }
    let numbers = (header.last_slot + 1..=GuestSlot::MAX).chain(1..=header.last_slot);
    let free = numbers
        .filter_map(GuestSlot::new)
        .find(|slot| !header.guests.contains_key(slot));
    // 4,095 guests are the limit of the row; one more waits until another is gone.
    let Some(new) = free else { return };
    let slot = slot_of_new_kernel(rules, old.unwrap_or(new), new);
    header.last_slot = slot.number();
    let record = GuestRecord {
        name: name.to_owned(),
        boot,
        state: State::Serving,
        is_known: false,
    };
    header.guests.insert(slot, record);
}

fn of_state(header: &Header, state: State) -> BTreeSet<GuestSlot> {
    let is = |record: &GuestRecord| record.state == state;
    header
        .guests
        .iter()
        .filter(|(_, record)| is(record))
        .map(|(slot, _)| *slot)
        .collect()
}

/// Every bucket's index fits a [`Bucket`].
const _: () = assert!(BUCKETS == u16::MAX as usize + 1);
