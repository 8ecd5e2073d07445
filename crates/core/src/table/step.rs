//! One bucket's steps: who gets its row when, and which row comes next.
//!
//! ```text
//!  row written ─> Leaver ─> Guests ─> Joiner ─> Directors ─> Done ──> next row, or settled
//!                   │ leaver holds connections, or is suspect
//!                   └──> withdrawn: the next sequence repeats the row before
//!
//!  voluntary move:  [A,S] ─warm─> [A,B,S] ─shift─> [B,A,S] ─settle─> [B,S]
//!  new standby:     [B,S] ─> [B,S',S] ─settle─> [B,S']
//!  forced:          suspect to the tail; the destroyed leave; a holder that the row lacks is appended
//! ```
//!
//! A stage is left when every party of it that [`owes`] an acknowledgement has given it; a party is
//! offered the row when its stage has come. The stage is not stored: it follows from the row, the
//! row before and the acknowledgements, so a new controller learns it by asking.
//!
//! Invariants: a row differs from the one before by at most one living guest that leaves; nothing
//! leaves without its own count of zero or its destruction; the next row comes only when all living
//! parties have this one.

use serde::{Deserialize, Serialize};

use crate::assign::Wish;
use crate::row::{GuestSlot, ROW_SLOTS, Row, Sequence};
use crate::rules::Rules;
use crate::table::message::{DirectorId, Party};

/// One bucket as it lies in the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Entry {
    /// The newest row.
    pub row: Row,
    /// The row that it replaced: who leaves and who joins follows from the two.
    pub before: Row,
    /// Where the bucket is to go.
    pub wish: Wish,
    /// Why the newest row was written.
    pub why: Why,
}

/// How the controller sees a guest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Alive as far as known.
    Serving,
    /// Perhaps dead, and its lease may still run.
    Suspect,
    /// Perhaps dead, and its lease has run out: it may live and serve, but it answers nothing
    /// unknown.
    Fenced,
    /// Its kernel is known to be destroyed.
    Gone,
}

/// How far the newest row has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The leaver has it, or gets it.
    Leaver,
    /// All other guests but the joiner.
    Guests,
    /// The joiner.
    Joiner,
    /// The directors.
    Directors,
    /// All have it: the barrier.
    Done,
}

/// What a guest's kernel is known to hold of a bucket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Live {
    /// Not counted yet.
    Unknown,
    /// Nothing.
    Zero,
    /// So many connections.
    Some(u32),
}

/// What [`next_row`] asks about guests.
pub trait View {
    /// How the controller sees the guest.
    fn standing(&self, slot: GuestSlot) -> Standing;
    /// What it last said of its live connections in this bucket.
    fn live(&self, slot: GuestSlot) -> Live;
    /// Whether it refused to leave by the entry's row because it holds connections.
    fn has_refused(&self, slot: GuestSlot) -> bool;
    /// A guest outside the row that holds connections of the bucket, if there is one.
    fn holder(&self) -> Option<GuestSlot>;
}

/// What comes after a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Next {
    /// This row.
    Row { row: Row, why: Why },
    /// Nothing yet.
    Wait(Wait),
    /// Nothing: the bucket is where it is wished.
    Settled,
}

/// Why a row was written.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The bucket's first row.
    #[default]
    First,
    /// The new owner joins behind the head.
    Warm,
    /// The new owner becomes the head.
    Shift,
    /// A guest that holds nothing leaves.
    Settle,
    /// A new standby joins.
    Standby,
    /// The leaver held connections or became suspect: the row before again.
    Withdrawn,
    /// A suspect goes to the tail.
    SuspectToTail,
    /// A suspect is dropped. Only without the rule.
    SuspectDropped,
    /// The destroyed leave.
    Destroyed,
    /// A guest outside the row holds connections.
    HolderAppended,
}

/// What a bucket waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Acknowledgements of this stage.
    Stage(Stage),
    /// This guest's connections have to end.
    Connections(GuestSlot),
    /// This guest has not counted yet.
    Count(GuestSlot),
    /// This guest is suspect: it comes back or is confirmed destroyed.
    Suspect(GuestSlot),
    /// All four places are taken by guests that cannot leave yet.
    RowFull,
    /// This director is not listed any more, but stamped lately: nothing settles.
    Stray(DirectorId),
    /// The wished owner is suspect; another plan comes.
    Owner(GuestSlot),
    /// No guest can serve.
    NoGuest,
}

/// Whether a party takes a row that it is offered: it has none, or an older one.
pub fn is_news(own: Row, offered: Row) -> bool {
    own == Row::NONE || offered.sequence().is_newer_than(own.sequence())
}

/// Whether `slot` leaves by the entry's row.
pub fn leaves(entry: &Entry, slot: GuestSlot) -> bool {
    entry.before.contains(slot) && !entry.row.contains(slot)
}

/// Whether `slot`, which leaves, acknowledges only with a count of zero that began after it had the
/// row.
pub fn counts_before_leaving(rules: &Rules, entry: &Entry, slot: GuestSlot) -> bool {
    rules.leaver_first && leaves(entry, slot)
}

/// The stage at which a party is offered the entry's row and owes its acknowledgement.
pub fn stage_of(rules: &Rules, entry: &Entry, party: Party) -> Stage {
    match party {
        Party::Director(_) if rules.guests_before_directors => Stage::Directors,
        Party::Director(_) => Stage::Guests,
        Party::Guest(slot) if counts_before_leaving(rules, entry, slot) => Stage::Leaver,
        Party::Guest(slot)
            if rules.joiner_last && entry.row.contains(slot) && !entry.before.contains(slot) =>
        {
            Stage::Joiner
        }
        Party::Guest(_) => Stage::Guests,
    }
}

/// Whether the row waits for this guest's acknowledgement. (For a director it does until that is
/// removed.)
pub fn owes(rules: &Rules, entry: &Entry, slot: GuestSlot, standing: Standing) -> bool {
    match standing {
        Standing::Serving => true,
        Standing::Suspect | Standing::Fenced if leaves(entry, slot) && rules.suspect_to_tail => {
            // It may hold connections: the row is withdrawn, never passed over its head.
            true
        }
        Standing::Suspect => {
            let changes_head = entry.row.head() != entry.before.head();
            rules.lease_wait && (rules.lease_wait_for_every_row || changes_head)
        }
        Standing::Fenced | Standing::Gone => false,
    }
}

/// Whether a suspect may be trusted with a lease again. `has_newest_rows`: it acknowledged the
/// newest row of every bucket.
pub const fn may_trust_again(rules: &Rules, has_newest_rows: bool) -> bool {
    has_newest_rows || !rules.lease_back_with_newest_row
}

/// The slot of a kernel that comes back: a new one. `old` is the slot it had.
pub const fn slot_of_new_kernel(rules: &Rules, old: GuestSlot, new: GuestSlot) -> GuestSlot {
    if rules.new_slot_for_new_kernel {
        new
    } else {
        old
    }
}

/// The row after the entry's, which has come to `stage`.
pub fn next_row(rules: &Rules, entry: &Entry, stage: Stage, view: &impl View) -> Next {
    if stage == Stage::Leaver {
        let must_withdraw = |slot: GuestSlot| {
            leaves(entry, slot)
                && (view.has_refused(slot)
                    || matches!(view.standing(slot), Standing::Suspect | Standing::Fenced))
        };
        if entry.before.slots().any(must_withdraw) {
            return written(entry, entry.before.slots(), Why::Withdrawn);
        }
    }
    if stage != Stage::Done && rules.barrier {
        return Next::Wait(Wait::Stage(stage));
    }
    forced(rules, entry, view).unwrap_or_else(|| voluntary(rules, entry, view))
}

/// Rows that faults ask for, before anything voluntary.
fn forced(rules: &Rules, entry: &Entry, view: &impl View) -> Option<Next> {
    let row = entry.row;
    let is_gone = |slot: &GuestSlot| view.standing(*slot) == Standing::Gone;
    let is_suspect =
        |slot: &GuestSlot| matches!(view.standing(*slot), Standing::Suspect | Standing::Fenced);
    let remaining = || row.slots().filter(|slot| !is_gone(slot));
    if let Some(holder) = view.holder().filter(|_| rules.append_holder) {
        if remaining().count() < ROW_SLOTS {
            return Some(written(
                entry,
                remaining().chain([holder]),
                Why::HolderAppended,
            ));
        }
        let idle = row.slots().skip(1).find(|slot| may_leave(view, *slot));
        return Some(match idle {
            Some(idle) => written(entry, row.slots().filter(|slot| *slot != idle), Why::Settle),
            None => Next::Wait(Wait::RowFull),
        });
    }
    if row.slots().any(|slot| is_gone(&slot)) {
        return Some(written(entry, remaining(), Why::Destroyed));
    }
    let living = || row.slots().filter(|slot| !is_suspect(slot));
    let suspects = row.slots().filter(is_suspect);
    if !rules.suspect_to_tail {
        let drops = living().count() > 0 && row.slots().any(|slot| is_suspect(&slot));
        return drops.then(|| written(entry, living(), Why::SuspectDropped));
    }
    let behind = Row::from_slots(living().chain(suspects), row.sequence())
        .expect("a row's slots in another order are a row");
    (behind != row).then(|| written(entry, behind.slots(), Why::SuspectToTail))
}

/// The next step towards the wish.
fn voluntary(rules: &Rules, entry: &Entry, view: &impl View) -> Next {
    let row = entry.row;
    let Some(owner) = entry.wish.owner else {
        return Next::Wait(Wait::NoGuest);
    };
    if view.standing(owner) != Standing::Serving {
        return Next::Wait(Wait::Owner(owner));
    }
    let standby = entry
        .wish
        .standby
        .filter(|slot| *slot != owner && view.standing(*slot) == Standing::Serving);
    let is_wished = |slot: GuestSlot| slot == owner || Some(slot) == standby;
    let joiner = [Some(owner), standby]
        .into_iter()
        .flatten()
        .find(|slot| !row.contains(*slot));
    if !rules.join_before_leaving
        && let Some(joiner) = joiner.filter(|joiner| *joiner != owner)
        && row.head() == Some(owner)
        && row.len() > 2
    {
        let goes = |slot: &GuestSlot| !is_wished(*slot);
        return match row
            .slots()
            .filter(goes)
            .find(|slot| !may_leave(view, *slot))
        {
            Some(slot) => Next::Wait(Wait::Connections(slot)),
            None => written(entry, [owner, joiner].into_iter(), Why::Settle),
        };
    }
    let joins =
        |slot: &GuestSlot| rules.join_before_leaving || *slot == owner || row.head() == Some(owner);
    if let Some(joiner) = joiner.filter(joins)
        && row.len() < ROW_SLOTS
    {
        // Behind the head; before it only where no living guest of the row could take a new
        // connection.
        let has_living_head = row
            .head()
            .is_some_and(|head| view.standing(head) == Standing::Serving);
        let ahead = usize::from(has_living_head);
        let slots = row
            .slots()
            .take(ahead)
            .chain([joiner])
            .chain(row.slots().skip(ahead));
        let why = if joiner == owner {
            Why::Warm
        } else {
            Why::Standby
        };
        return written(entry, slots, why);
    }
    if row.contains(owner) && row.head() != Some(owner) {
        let others = row.slots().filter(|slot| *slot != owner);
        return written(entry, [owner].into_iter().chain(others), Why::Shift);
    }
    let mut waits = None;
    for slot in row.slots().filter(|slot| !is_wished(*slot)) {
        if may_leave(view, slot) {
            let stays = |other: &GuestSlot| {
                *other != slot
                    && (rules.one_leaves_per_row || is_wished(*other) || !may_leave(view, *other))
            };
            return written(entry, row.slots().filter(stays), Why::Settle);
        }
        waits = Some(match (view.standing(slot), view.live(slot)) {
            (Standing::Serving, Live::Unknown) => Wait::Count(slot),
            (Standing::Serving, _) => Wait::Connections(slot),
            _ => Wait::Suspect(slot),
        });
    }
    match (waits, joiner) {
        (_, Some(_)) => Next::Wait(Wait::RowFull),
        (Some(wait), None) => Next::Wait(wait),
        (None, None) => Next::Settled,
    }
}

/// Whether a guest of a row may be asked to leave it: it lives and has counted zero.
fn may_leave(view: &impl View, slot: GuestSlot) -> bool {
    view.standing(slot) == Standing::Serving && view.live(slot) == Live::Zero
}

/// The row of these slots, with the sequence after the entry's.
fn written(entry: &Entry, slots: impl Iterator<Item = GuestSlot>, why: Why) -> Next {
    let row = Row::from_slots(slots, entry.row.sequence().next())
        .expect("at most four slots, each once: callers check for room");
    Next::Row { row, why }
}

/// The entry once `row` is written.
#[must_use]
pub fn advanced(entry: &Entry, row: Row, why: Why) -> Entry {
    Entry {
        row,
        before: entry.row,
        wish: entry.wish,
        why,
    }
}

/// The first row of a bucket whose wish is `wish`: sequence 1.
pub fn first_row(wish: Wish) -> Row {
    Row::from_slots(wish.owner.into_iter().chain(wish.standby), Sequence(1))
        .expect("owner and standby are two guests")
}

#[cfg(test)]
mod tests;
