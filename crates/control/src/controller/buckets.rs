//! The table as the API shows it: each bucket's row, why it is that, and what it waits for.

use hitless_api::{BucketRun, BucketWait};
use hitless_core::row::{BUCKETS, Bucket, GuestSlot};
use hitless_core::table::message::Party;
use hitless_core::table::step::{Entry, Stage, Wait, Why};

use super::Controller;
use super::records::ChangeOutcome;
use super::show::wait_code;

/// What is shown of a bucket beside its number.
#[derive(PartialEq)]
struct Shown {
    slots: Vec<GuestSlot>,
    why: Why,
    stage: Stage,
    wait: Option<(Wait, Vec<Party>)>,
    /// Connections that it waits for.
    held: Option<u32>,
    /// A guest for whose sake it moves.
    moves_for: Option<GuestSlot>,
}

impl Controller {
    pub(super) fn buckets(&self) -> Vec<BucketRun> {
        let mut runs: Vec<(u16, u16, u16, Shown)> = Vec::new();
        for number in 0..BUCKETS {
            let number = number as u16;
            let Some((entry, stage)) = self.table.bucket(Bucket(number)) else {
                break;
            };
            let shown = self.shown(Bucket(number), &entry, stage);
            match runs.last_mut() {
                Some((_, last, _, before)) if *before == shown => *last = number,
                _ => runs.push((number, number, entry.row.sequence().0, shown)),
            }
        }
        let run = |(first, last, sequence, shown): (u16, u16, u16, Shown)| BucketRun {
            first,
            last,
            row: shown
                .slots
                .iter()
                .map(|slot| self.guest_name(*slot))
                .collect(),
            slots: shown.slots.iter().map(|slot| slot.number()).collect(),
            sequence,
            reason: reason(shown.why, shown.stage),
            wait: self.bucket_wait(&shown),
        };
        runs.into_iter().map(run).collect()
    }

    fn shown(&self, bucket: Bucket, entry: &Entry, stage: Stage) -> Shown {
        let wait = self.table.bucket_wait(bucket);
        let held = match &wait {
            Some((Wait::Connections(slot), _)) => self.table.held(*slot, bucket),
            _ => None,
        };
        // Whoever leaves, or else whoever comes.
        let wish = &entry.wish;
        let leaves = |slot: &GuestSlot| ![wish.owner, wish.standby].contains(&Some(*slot));
        let leaver = entry.row.slots().chain(entry.before.slots()).find(leaves);
        let moves_for = wait.as_ref().and(leaver.or(wish.owner));
        Shown {
            slots: entry.row.slots().collect(),
            why: entry.why,
            stage,
            wait,
            held,
            moves_for,
        }
    }

    fn bucket_wait(&self, shown: &Shown) -> Option<BucketWait> {
        let (wait, objects) = shown.wait.as_ref()?;
        let objects: Vec<String> = objects.iter().map(|party| self.party(*party)).collect();
        let names = objects.join(", ");
        let ends_when = match wait {
            Wait::Stage(_) => format!("{names} acknowledged the row"),
            Wait::Connections(_) => match shown.held {
                Some(1) => format!("the connection that {names} holds of it has ended"),
                Some(held) => format!("the {held} connections that {names} holds of it have ended"),
                None => format!("what {names} holds of it has ended"),
            },
            Wait::Count(_) => format!("{names} has counted what it holds of it"),
            Wait::Suspect(_) => format!("{names} is heard again, or known to be destroyed"),
            Wait::RowFull => "one of its guests can leave".to_owned(),
            Wait::Stray(_) => format!("{names}, no longer a member, has sent nothing for 2 s"),
            Wait::Owner(_) => format!("it is given to another than {names}, which is suspect"),
            Wait::NoGuest => "a guest can serve".to_owned(),
        };
        Some(BucketWait {
            code: wait_code(*wait),
            connections: shown.held,
            change: shown.moves_for.and_then(|slot| self.change_of(slot)),
            ends_when,
            objects,
        })
    }

    /// The change under way that wants something of this guest. None: no order does.
    fn change_of(&self, slot: GuestSlot) -> Option<String> {
        let name = self.guest_name(slot);
        let guest = self.records.guests.get(&name)?;
        let node = self.records.nodes.get(&guest.node);
        let asked = [
            guest.change.as_ref(),
            node.and_then(|node| node.change.as_ref()),
        ];
        let changes = self.records.changes.values();
        let mut open = changes.filter(|change| change.outcome == ChangeOutcome::Open);
        let change = open.find(|change| asked.contains(&Some(&change.name)))?;
        Some(change.name.clone())
    }
}

/// Why the row is what it is, and how far it has come.
fn reason(why: Why, stage: Stage) -> String {
    let why = match why {
        Why::First => "the first row",
        Why::Warm => "its new owner joined",
        Why::Shift => "its new owner became the head",
        Why::Settle => "a guest that held nothing left",
        Why::Standby => "a new standby joined",
        Why::Withdrawn => "the row before again: the leaver held connections",
        Why::SuspectToTail => "a suspect went to the tail",
        Why::SuspectDropped => "a suspect was dropped",
        Why::Destroyed => "a destroyed guest left",
        Why::HolderAppended => "a guest that holds connections was appended",
    };
    let waits_for = match stage {
        Stage::Done => return why.to_owned(),
        Stage::Leaver => "the guest that leaves",
        Stage::Guests => "its guests",
        Stage::Joiner => "the guest that joins",
        Stage::Directors => "the directors",
    };
    format!("{why}; offered to {waits_for}")
}
