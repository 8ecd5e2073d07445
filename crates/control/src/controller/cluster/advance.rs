//! What is next for every open change.

use hitless_api::Order;
use hitless_core::ledger::{Ledger, Outcome, Rung};
use hitless_core::table::step::Standing;

use super::View;
use super::death;
use super::drain::{self, Deadline};
use super::progress::progress;
use crate::controller::records::{ChangeOutcome, ChangeRecord, GuestWanted, Records, Subject};

/// Closes a change: connections that were there and were not closed were carried along the rows, or
/// ended by themselves.
///
/// Packets that nobody knew are no losses by themselves: a stray of a connection that is long over
/// is one, and anybody on the network can send more. They stand beside the ledger.
pub(super) fn end(change: &mut ChangeRecord, view: &View<'_>, outcome: ChangeOutcome) {
    change.outcome = outcome;
    change.ended_us = Some(view.now_us);
    let closed = change.closed_total();
    // One that came while the change ran, and was closed by it, is its business.
    change.ledger.connections += closed.saturating_sub(change.ledger.open());
    for _ in 0..closed {
        change.ledger.record(Outcome::Reset, 0);
    }
    // They closed because they were asked to; those that have not yet are not carried.
    for _ in 0..change.told_to_close_total().min(change.ledger.open()) {
        change.ledger.record(Outcome::ToldToClose, 0);
    }
    let rest = change.ledger.open();
    let still = rest.min(view.live());
    for _ in 0..still {
        change
            .ledger
            .record(Outcome::Carried(Rung::SecondChance), 0);
    }
    for _ in still..rest {
        change.ledger.record(Outcome::Finished, 0);
    }
}

fn take_in_unknown(records: &mut Records, view: &View<'_>, number: u64) {
    let Some(change) = records.changes.get_mut(&number) else {
        return;
    };
    for (name, count) in view.unknown_reset() {
        // One that came meanwhile counts from 0.
        let (_, now) = change.unknown_reset.entry(name).or_default();
        *now = count.max(*now);
    }
}

/// Does what is next for every open change.
pub fn advance(records: &mut Records, view: &View<'_>) {
    let open = records
        .changes
        .iter()
        .filter(|(_, change)| change.outcome == ChangeOutcome::Open);
    let open: Vec<u64> = open.map(|(number, _)| *number).collect();
    for number in open {
        drain::take_in(records, view, number);
        take_in_unknown(records, view, number);
        let change = records.changes[&number].clone();
        let step = step(records, view, number, &change);
        let progress = progress(records, view, &change);
        let Some(change) = records.changes.get_mut(&number) else {
            continue;
        };
        change.total = change.total.max(progress.total);
        change.done = progress.done;
        match step {
            Step::Wait => {}
            Step::Done(ledger) => {
                if let Some(ledger) = ledger {
                    change.is_exact = true;
                    change.ledger = ledger;
                }
                end(change, view, ChangeOutcome::Done);
            }
            Step::Failed(reason) => end(change, view, ChangeOutcome::Failed(reason)),
        }
        if change.outcome != ChangeOutcome::Open {
            let ending = records.guests.values_mut();
            let ending = ending.filter(|guest| guest.ends_for == Some(number));
            ending.for_each(|guest| guest.ends_for = None);
        }
    }
}

pub(super) enum Step {
    Wait,
    /// With a ledger that somebody else kept.
    Done(Option<Ledger>),
    Failed(String),
}

fn done_if(is_done: bool) -> Step {
    if is_done {
        Step::Done(None)
    } else {
        Step::Wait
    }
}

fn step(records: &mut Records, view: &View<'_>, number: u64, change: &ChangeRecord) -> Step {
    let deadline = Deadline::of(number, change, view.now_us);
    match &change.subject {
        Subject::Site(generation) => {
            let guests = running(records);
            let refused = guests
                .iter()
                .find_map(|name| view.report(records, name)?.site_refused.clone());
            match refused {
                Some(reason) => Step::Failed(reason),
                None => done_if(guests.iter().all(|name| {
                    view.report(records, name)
                        .is_some_and(|guest| guest.site_generation >= *generation)
                })),
            }
        }
        Subject::Died(died) => death::step(records, view, number, change, died),
        Subject::Order(order) => match order {
            Order::AddNode { node } | Order::UndrainNode { node }
                if !records.nodes.contains_key(node) =>
            {
                Step::Failed(format!("node {node} was removed"))
            }
            Order::AddGuest { guest, .. } | Order::UndrainGuest { guest }
                if !records.guests.contains_key(guest) =>
            {
                Step::Failed(format!("guest {guest} was removed"))
            }
            Order::AddNode { node } => done_if(is_joined(records, node)),
            Order::DrainNode { node, .. } => drain::node(records, view, node, deadline),
            Order::RemoveNode { node, .. } => drain::remove_node(records, view, node, deadline),
            Order::UndrainNode { node } => {
                let guests = drain::guests_of(records, node);
                done_if(
                    is_joined(records, node)
                        && guests
                            .iter()
                            .all(|guest| serves(records, view, guest, &change.name)),
                )
            }
            Order::AddGuest { guest, .. } | Order::UndrainGuest { guest } => {
                done_if(serves(records, view, guest, &change.name))
            }
            Order::DrainGuest { guest, remove, .. } => {
                drain::guest(records, view, guest, *remove, deadline)
            }
            Order::RemoveGuest { guest } => done_if(drain::is_removed(records, view, guest)),
            Order::UpgradeTrafficManagers { .. } => upgrade(records, view),
            Order::ReplacePrograms {} => {
                let generation = records.cluster.programs.bpf_generation;
                let nodes = records.nodes.keys().all(|name| {
                    view.reports
                        .get(name.as_str())
                        .is_some_and(|node| node.bpf_generation >= generation)
                });
                let guests = running(records).iter().all(|name| {
                    view.report(records, name)
                        .is_some_and(|guest| guest.bpf_generation >= generation)
                });
                done_if(nodes && guests)
            }
        },
    }
}

pub(super) fn is_joined(records: &Records, node: &str) -> bool {
    records.nodes.get(node).is_some_and(|node| node.is_joined)
}

/// Guests that have a kernel and shall keep it.
pub(super) fn running(records: &Records) -> Vec<String> {
    let guests = records.guests.iter();
    let guests =
        guests.filter(|(_, guest)| guest.boot.is_some() && guest.wanted != GuestWanted::Remove);
    guests.map(|(name, _)| name.clone()).collect()
}

/// Whether a guest has its share of the buckets, and everybody has acknowledged that.
fn serves(records: &Records, view: &View<'_>, guest: &str, change: &str) -> bool {
    let is_linked = view
        .report(records, guest)
        .is_some_and(|report| report.is_linked && report.is_ready);
    let serving =
        view.table.guests.values().any(|known| {
            known.name == guest && known.standing == Standing::Serving && known.leads > 0
        });
    is_linked && serving && view.is_settled(change)
}

fn upgrade(records: &Records, view: &View<'_>) -> Step {
    let generation = records.cluster.programs.manager_generation;
    let mut ledger = Ledger::default();
    let mut all = true;
    for name in running(records) {
        let Some(report) = view.report(records, &name) else {
            all = false;
            continue;
        };
        if let Some(reason) = &report.upgrade_failed {
            return Step::Failed(format!("guest {name}: {reason}"));
        }
        all &= report.manager_generation >= generation;
        if let Some(part) = &report.upgrade_ledger {
            ledger.merge(part);
        }
    }
    if all {
        Step::Done(Some(ledger))
    } else {
        Step::Wait
    }
}
