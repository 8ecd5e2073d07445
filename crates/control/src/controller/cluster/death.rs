//! Guests that died: a change that nobody ordered.
//!
//! ```text
//!  its node's report no longer has the kernel that a row names ──> change `guest-died`
//!     ──(no row names it, all have those rows; every director has told when it believed it)──> done
//! ```
//!
//! Agents see a death, and lead connections past it, with no controller: what they saw is in their
//! reports, for a controller that comes later. What the guest held is from its own last count, half
//! a second before its death at most, since nobody can count in a kernel that is gone.

use std::collections::BTreeMap;

use hitless_core::ledger::{Ledger, Outcome};
use hitless_core::row::GuestSlot;

use super::View;
use super::advance::Step;
use super::orders::open_change;
use crate::controller::records::{ChangeRecord, DeathRecord, Records, Subject};
use crate::message::DeathSeen;

/// For so long after its rows are rid of it a change waits for directors that have not told when
/// they believed it dead: an agent reports twice a second, and one that was killed has forgotten.
const TELL_WITHIN_US: u64 = 3_000_000;

/// A guest's kernel is gone that rows named.
pub(in crate::controller) fn open(
    records: &mut Records,
    view: &View<'_>,
    guest: &str,
    slot: GuestSlot,
) {
    let node = records.guests.get(guest).map(|guest| guest.node.clone());
    let death = DeathRecord {
        guest: guest.to_owned(),
        node: node.unwrap_or_default(),
        slot,
        cut_us: None,
        believed_us: BTreeMap::new(),
        last_packet_us: None,
        seen_us: view.now_us,
        rows_us: None,
        held: None,
    };
    open_change(records, view, Subject::Died(Box::new(death)));
}

/// What is next for it.
pub(super) fn step(
    records: &mut Records,
    view: &View<'_>,
    number: u64,
    change: &ChangeRecord,
    death: &DeathRecord,
) -> Step {
    let mut death = death.clone();
    let reports = view.reports.iter();
    for (node, seen) in
        reports.flat_map(|(node, report)| report.deaths.iter().map(move |seen| (node, seen)))
    {
        if seen.slot == death.slot {
            take_in(&mut death, node, seen);
        }
    }
    let named = view.table.guests.get(&death.slot).map(|guest| guest.named);
    if death.rows_us.is_none() && named.is_none_or(|named| named == 0) {
        death.rows_us = Some(view.now_us);
    }
    let mut directing = records.nodes.iter().filter(|(_, node)| node.is_directing);
    let all_told = directing.all(|(name, _)| death.believed_us.contains_key(name));
    let is_long_ago = |at: u64| at + TELL_WITHIN_US <= view.now_us;
    let is_done = death.rows_us.is_some_and(|at| all_told || is_long_ago(at));
    let mut ledger = Ledger::begin(death.held.map_or(0, |held| held.connections));
    if is_done {
        for _ in 0..ledger.connections {
            ledger.record(Outcome::Reset, 0);
        }
    }
    if let Some(record) = records.changes.get_mut(&number) {
        record.ledger = ledger;
        if change.subject != Subject::Died(Box::new(death.clone())) {
            record.subject = Subject::Died(Box::new(death));
        }
    }
    match is_done {
        true => Step::Done(None),
        false => Step::Wait,
    }
}

fn take_in(death: &mut DeathRecord, node: &str, seen: &DeathSeen) {
    if let Some(at) = seen.believed_us {
        death.believed_us.insert(node.to_owned(), at);
    }
    death.last_packet_us = death.last_packet_us.max(seen.last_packet_us);
    if node == death.node {
        death.cut_us = seen.cut_us;
        death.held = seen.held;
    }
}
