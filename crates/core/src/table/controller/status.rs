//! How the table is doing, for people: guests, waits with their reasons, changes with their
//! progress.

use std::collections::BTreeMap;

use super::{ChangeStatus, Controller, GuestStatus, State, Status, Store, WaitReason, Wanted};
use crate::row::{BUCKETS, Bucket, GuestSlot};
use crate::table::message::{DirectorId, Party};
use crate::table::step::{Live, Stage, Wait, stage_of};

impl Wait {
    /// The stable word for the reason.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Stage(Stage::Leaver) => "leaver-acknowledges",
            Self::Stage(Stage::Guests) => "guests-acknowledge",
            Self::Stage(Stage::Joiner) => "joiner-acknowledges",
            Self::Stage(Stage::Directors | Stage::Done) => "directors-acknowledge",
            Self::Connections(_) => "connections-live",
            Self::Count(_) => "guest-counts",
            Self::Suspect(_) => "guest-suspect",
            Self::RowFull => "row-full",
            Self::Stray(_) => "director-stray",
            Self::Owner(_) => "owner-suspect",
            Self::NoGuest => "no-guest",
        }
    }

    /// Whom it is about, where the reason itself says so.
    const fn object(&self) -> Option<Party> {
        match self {
            Self::Connections(slot)
            | Self::Count(slot)
            | Self::Suspect(slot)
            | Self::Owner(slot) => Some(Party::Guest(*slot)),
            Self::Stray(id) => Some(Party::Director(*id)),
            Self::Stage(_) | Self::RowFull | Self::NoGuest => None,
        }
    }
}

impl Controller {
    /// How the table is doing. Walks over all buckets: for people, not for every event.
    pub fn status(&self) -> Status {
        Status {
            generation: self.header.as_ref().map(|header| header.generation),
            guests: self.guests(),
            unsettled: self.waiting.iter().filter(|wait| wait.is_some()).count()
                + (0..self.waiting.len())
                    .filter(|index| self.waiting[*index].is_none())
                    .filter(|index| self.progress.under_way.contains(*index))
                    .count(),
            waits: self.wait_reasons(),
            changes: self.changes(),
        }
    }

    /// What a bucket waits for, and who it is that does not answer, where that is the reason. None:
    /// nothing, it is where it is wished, and all have its row.
    pub fn bucket_wait(&self, bucket: Bucket) -> Option<(Wait, Vec<Party>)> {
        let index = usize::from(bucket.0);
        let is_under_way = self.progress.under_way.contains(index);
        let offered = is_under_way.then(|| Wait::Stage(self.progress.stage(index)));
        let wait = self.waiting.get(index).copied()?.or(offered)?;
        let objects = match wait {
            Wait::Stage(_) => self.silent(index, &self.parties()).collect(),
            _ => wait.object().into_iter().collect(),
        };
        Some((wait, objects))
    }

    /// Connections of a bucket that a guest last said it holds. None: it has not said, or leads it.
    pub fn held(&self, slot: GuestSlot, bucket: Bucket) -> Option<u32> {
        match self.inventory.live(slot, usize::from(bucket.0)) {
            Live::Unknown => None,
            Live::Zero => Some(0),
            Live::Some(held) => Some(held),
        }
    }

    /// Whether this director is known to have a row of every bucket, if there are any: packets that
    /// it gets find one.
    pub fn directs_all(&self, director: DirectorId) -> bool {
        let is_empty = !matches!(self.store, Store::Loading) && self.entries.is_empty();
        is_empty || self.progress.has_some_of_all(Party::Director(director))
    }

    fn guests(&self) -> BTreeMap<GuestSlot, GuestStatus> {
        let guests = self.header.iter().flat_map(|header| &header.guests);
        let mut guests: BTreeMap<GuestSlot, GuestStatus> = guests
            .map(|(slot, record)| {
                let status = GuestStatus {
                    name: record.name.clone(),
                    standing: self.standing(*slot),
                    is_known: record.is_known,
                    leads: 0,
                    named: 0,
                    connections: self.inventory.connections(*slot),
                };
                (*slot, status)
            })
            .collect();
        for (index, entry) in self.entries.iter().enumerate() {
            for (position, slot) in entry.row.slots().enumerate() {
                if let Some(guest) = guests.get_mut(&slot) {
                    guest.named += 1;
                    guest.leads += usize::from(position == 0);
                }
            }
            // Not all may have the row by which a guest leaves, and it may yet be withdrawn.
            if self.progress.under_way.contains(index) {
                let leavers = entry.before.slots();
                for slot in leavers.filter(|slot| !entry.row.contains(*slot)) {
                    if let Some(guest) = guests.get_mut(&slot) {
                        guest.named += 1;
                    }
                }
            }
        }
        guests
    }

    /// One line per reason and per party that is waited for.
    fn wait_reasons(&self) -> Vec<WaitReason> {
        let nobody = self.nobody_since.map(|since| WaitReason {
            code: Wait::NoGuest.code().to_owned(),
            wait: Wait::NoGuest,
            object: None,
            buckets: BUCKETS,
            since,
        });
        let mut reasons: Vec<WaitReason> = nobody.into_iter().collect();
        let parties = self.parties();
        for (wait, (buckets, since)) in &self.waits {
            let mut objects = BTreeMap::new();
            if let Wait::Stage(_) = wait {
                self.count_silent(*wait, &parties, &mut objects);
            } else {
                objects.insert(wait.object(), *buckets);
            }
            for (object, buckets) in objects {
                reasons.push(WaitReason {
                    code: wait.code().to_owned(),
                    wait: *wait,
                    object,
                    buckets,
                    since: *since,
                });
            }
        }
        reasons
    }

    /// Who has not acknowledged, in how many buckets that wait for that stage.
    fn count_silent(
        &self,
        wait: Wait,
        parties: &[Party],
        objects: &mut BTreeMap<Option<Party>, usize>,
    ) {
        for (index, _) in self
            .waiting
            .iter()
            .enumerate()
            .filter(|(_, other)| **other == Some(wait))
        {
            for party in self.silent(index, parties) {
                *objects.entry(Some(party)).or_default() += 1;
            }
        }
    }

    /// Who was offered a bucket's row, and has not acknowledged it.
    fn silent(&self, index: usize, parties: &[Party]) -> impl Iterator<Item = Party> {
        let stage = self.progress.stage(index);
        let is_due = move |party: &&Party| {
            stage_of(&self.rules, &self.entries[index], **party) == stage
                && self.is_owed(index, **party)
                && !self.progress.has_acknowledged(**party, index)
        };
        parties.iter().filter(is_due).copied()
    }

    fn changes(&self) -> Vec<ChangeStatus> {
        let Some(policy) = &self.inventory.policy else {
            return Vec::new();
        };
        let named = policy.guests.iter().filter_map(|(name, guest)| {
            guest
                .change
                .as_ref()
                .map(|change| (name, guest.wanted, change))
        });
        named
            .map(|(guest, wanted, change)| {
                let slot = self.slot_of(guest);
                let left = slot.map_or(0, |slot| self.left_to_do(slot, wanted));
                let is_planned = !self.must_replan && !self.entries.is_empty();
                let is_known = |slot| {
                    self.header
                        .as_ref()?
                        .guests
                        .get(&slot)
                        .map(|known| known.is_known)
                };
                let has_slot = wanted == Wanted::Drain || slot.and_then(is_known) == Some(true);
                ChangeStatus {
                    name: change.clone(),
                    guest: guest.clone(),
                    wanted,
                    left,
                    is_done: left == 0 && is_planned && has_slot,
                }
            })
            .collect()
    }

    /// Buckets that a guest still has to get (serve), or to be rid of (drain).
    fn left_to_do(&self, slot: GuestSlot, wanted: Wanted) -> usize {
        let is_left = |(index, entry): &(usize, &super::Entry)| match wanted {
            Wanted::Serve => {
                let is_wished = entry.wish.owner == Some(slot);
                is_wished && (entry.row.head() != Some(slot) || self.is_open(*index))
            }
            Wanted::Drain => {
                let is_leaving = entry.before.contains(slot) && self.is_open(*index);
                entry.row.contains(slot) || entry.wish.owner == Some(slot) || is_leaving
            }
        };
        let is_gone = self
            .header
            .as_ref()
            .and_then(|header| header.guests.get(&slot))
            .is_none_or(|record| record.state == State::Gone);
        if is_gone {
            0
        } else {
            self.entries.iter().enumerate().filter(is_left).count()
        }
    }

    fn is_open(&self, index: usize) -> bool {
        self.waiting[index].is_some() || self.progress.under_way.contains(index)
    }
}
