//! How far each bucket's newest row has come, kept step by step as acknowledgements arrive.

use std::collections::{BTreeMap, BTreeSet};

use super::Controller;
use crate::row::{BUCKETS, Bucket, Sequence};
use crate::rules::Rules;
use crate::table::bits::Bits;
use crate::table::message::Party;
use crate::table::step::{Entry, Stage, owes, stage_of};

/// Rounds of offers without an answer, at most, before a party is offered everything again: with one
/// round a second, the time that a starved machine may need for a table.
const PATIENCE_MAX: u32 = 8;

/// What was acknowledged and offered of the newest rows.
#[derive(Debug, Default)]
pub(super) struct Progress {
    parties: BTreeMap<Party, Heard>,
    /// Stage, and how many of it still owe; as long as the table.
    stages: Vec<(Stage, u16)>,
    /// Buckets that somebody may have to be offered.
    pub(super) dirty: Bits,
    /// Buckets whose row not all have.
    pub(super) under_way: Bits,
}

/// What one party acknowledged and was offered, of each bucket's newest row.
#[derive(Debug, Default)]
struct Heard {
    acknowledged: Bits,
    offered: Bits,
    /// It acknowledged something since the last round of offers.
    has_answered: bool,
    /// Rounds without an answer since it was last offered anything again, and how many of them it is
    /// given before the next time.
    silent_rounds: u32,
    patience: u32,
    /// Buckets of which it acknowledged any row since its link opened: it has that row, or a newer
    /// one.
    has_some: Bits,
}

impl Progress {
    pub(super) fn stage(&self, index: usize) -> Stage {
        self.stages
            .get(index)
            .map_or(Stage::Done, |(stage, _)| *stage)
    }

    pub(super) fn has_acknowledged(&self, party: Party, index: usize) -> bool {
        self.parties
            .get(&party)
            .is_some_and(|heard| heard.acknowledged.contains(index))
    }

    pub(super) fn has_all(&self, party: Party) -> bool {
        self.parties
            .get(&party)
            .is_some_and(|heard| heard.acknowledged.len() == BUCKETS)
    }

    /// Whether the party is known to have a row of every bucket, though not the newest of each.
    pub(super) fn has_some_of_all(&self, party: Party) -> bool {
        self.parties
            .get(&party)
            .is_some_and(|heard| heard.has_some.len() == BUCKETS)
    }

    /// Forgets parties that are none any more.
    pub(super) fn keep_only(&mut self, parties: &BTreeSet<Party>) {
        self.parties.retain(|party, _| parties.contains(party));
    }

    pub(super) fn has_open_offers(&self) -> bool {
        self.parties.values().any(|heard| heard.offered.len() > 0)
    }

    /// The bucket has another row: nobody has it.
    pub(super) fn new_row(&mut self, index: usize) {
        for heard in self.parties.values_mut() {
            heard.acknowledged.clear(index);
            heard.offered.clear(index);
        }
    }

    /// Notes an offer; `false` if the party has it, or was offered it already.
    pub(super) fn offer(&mut self, party: Party, index: usize) -> bool {
        let heard = self.parties.entry(party).or_default();
        !heard.acknowledged.contains(index) && heard.offered.set(index)
    }

    /// What was offered and not acknowledged may be offered again, to whom answered nothing. A party
    /// that is slow gets it later each time: offered all again while it works on what it has, it
    /// would never be done.
    pub(super) fn offer_again(&mut self) {
        for heard in self.parties.values_mut() {
            if heard.has_answered {
                heard.has_answered = false;
                heard.silent_rounds = 0;
                heard.patience = 1;
                continue;
            }
            heard.silent_rounds += 1;
            if heard.silent_rounds >= heard.patience {
                heard.silent_rounds = 0;
                heard.patience = (heard.patience * 2).clamp(1, PATIENCE_MAX);
                for index in heard.offered.take() {
                    self.dirty.set(index);
                }
            }
        }
    }

    /// The party has lost what it knew.
    pub(super) fn forget_party(&mut self, party: Party) {
        self.parties.remove(&party);
    }
}

impl Controller {
    /// Everybody whose acknowledgement may count.
    pub(super) fn parties(&self) -> Vec<Party> {
        let guests = self.header.iter().flat_map(|header| header.guests.keys());
        let directors = self
            .inventory
            .policy
            .iter()
            .flat_map(|policy| &policy.directors);
        guests
            .map(|slot| Party::Guest(*slot))
            .chain(directors.map(|id| Party::Director(*id)))
            .collect()
    }

    pub(super) fn recount_all(&mut self) {
        self.recount_where(|_, _| true);
    }

    /// Recounts buckets, and looks for their next rows.
    pub(super) fn recount_where(&mut self, is_touched: impl Fn(&Rules, &Entry) -> bool) {
        let parties = self.parties();
        for index in 0..self.entries.len() {
            if is_touched(&self.rules, &self.entries[index]) {
                self.recount_with(index, &parties);
                self.todo.set(index);
            }
        }
    }

    pub(super) fn recount(&mut self, index: usize) {
        let parties = self.parties();
        self.recount_with(index, &parties);
    }

    /// Finds the bucket's stage: the first of which somebody owes.
    fn recount_with(&mut self, index: usize, parties: &[Party]) {
        let entry = self.entries[index];
        let mut first = (Stage::Done, 0);
        for party in parties {
            if self.is_owed(index, *party) && !self.progress.has_acknowledged(*party, index) {
                let stage = stage_of(&self.rules, &entry, *party);
                if stage < first.0 {
                    first = (stage, 1);
                } else if stage == first.0 {
                    first.1 += 1;
                }
            }
        }
        self.progress
            .stages
            .resize(self.entries.len(), (Stage::Done, 0));
        self.progress.stages[index] = first;
        self.progress.dirty.set(index);
        if first.0 == Stage::Done {
            self.progress.under_way.clear(index);
            self.todo.set(index);
        } else {
            self.progress.under_way.set(index);
        }
    }

    /// Whether the bucket's row waits for this party, acknowledged or not.
    pub(super) fn is_owed(&self, index: usize, party: Party) -> bool {
        match party {
            Party::Director(_) => true,
            Party::Guest(slot) => {
                let standing = self.owing(slot);
                standing
                    .is_some_and(|standing| owes(&self.rules, &self.entries[index], slot, standing))
            }
        }
    }

    pub(super) fn acknowledged(&mut self, party: Party, rows: &[(Bucket, Sequence)]) {
        let parties = self.parties();
        let heard = self.progress.parties.entry(party).or_default();
        heard.has_answered = true;
        for (bucket, _) in rows {
            heard.has_some.set(usize::from(bucket.0));
        }
        for (bucket, sequence) in rows {
            let index = usize::from(bucket.0);
            let Some(entry) = self.entries.get(index) else {
                return;
            };
            if entry.row.sequence() != *sequence {
                continue;
            }
            let entry = *entry;
            let heard = self.progress.parties.entry(party).or_default();
            heard.offered.clear(index);
            if !heard.acknowledged.set(index) {
                continue;
            }
            let (stage, owing) = self.progress.stages[index];
            if stage_of(&self.rules, &entry, party) != stage || !self.is_owed(index, party) {
                continue;
            }
            if owing > 1 {
                self.progress.stages[index].1 -= 1;
            } else {
                self.recount_with(index, &parties);
                self.todo.set(index);
            }
        }
    }
}
