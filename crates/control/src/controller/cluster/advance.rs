//! What is next for every open change.

use hitless_api::Order;
use hitless_core::ledger::{Ledger, Outcome, Rung};
use hitless_core::table::step::Standing;

use super::View;
use super::progress::progress;
use crate::controller::records::{ChangeOutcome, ChangeRecord, GuestWanted, Records, Subject};

/// Closes a change: connections that were there and were not reset were carried along the rows, or
/// ended by themselves.
pub(super) fn end(change: &mut ChangeRecord, view: &View<'_>, outcome: ChangeOutcome) {
    change.outcome = outcome;
    change.ended_us = Some(view.now_us);
    let answered = view.answered().saturating_sub(change.answered_before);
    for _ in 0..answered.min(change.ledger.open()) {
        change.ledger.record(Outcome::Reset, 0);
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
/// Does what is next for every open change.
pub fn advance(records: &mut Records, view: &View<'_>) {
    let open = records
        .changes
        .iter()
        .filter(|(_, change)| change.outcome == ChangeOutcome::Open);
    let open: Vec<u64> = open.map(|(number, _)| *number).collect();
    for number in open {
        let change = records.changes[&number].clone();
        let is_late = change
            .deadline_us
            .is_some_and(|deadline| deadline <= view.now_us);
        let step = step(records, view, &change, is_late);
        let progress = progress(records, view, &change);
        let Some(change) = records.changes.get_mut(&number) else {
            continue;
        };
        change.total = change.total.max(progress.total);
        match step {
            Step::Wait => {}
            Step::Done(ledger) => {
                if let Some(ledger) = ledger {
                    change.ledger = ledger;
                }
                end(change, view, ChangeOutcome::Done);
            }
            Step::Failed(reason) => end(change, view, ChangeOutcome::Failed(reason)),
        }
    }
}

enum Step {
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

fn step(records: &mut Records, view: &View<'_>, change: &ChangeRecord, is_late: bool) -> Step {
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
        Subject::Order(order) => match order {
            Order::AddNode { node } => done_if(is_joined(records, node)),
            Order::DrainNode { node, .. } => {
                done_if(drain_guests_of(records, view, node, false, is_late))
            }
            Order::RemoveNode { node, .. } => remove_node(records, view, node, is_late),
            Order::UndrainNode { node } => {
                let guests = guests_of(records, node);
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
                drain_guest(records, view, guest, *remove, is_late)
            }
            Order::RemoveGuest { guest } => done_if(is_removed(records, view, guest)),
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

fn guests_of(records: &Records, node: &str) -> Vec<String> {
    let own = records
        .guests
        .iter()
        .filter(|(_, guest)| guest.node == node);
    own.map(|(name, _)| name.clone()).collect()
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

fn drain_guest(
    records: &mut Records,
    view: &View<'_>,
    name: &str,
    remove: bool,
    is_late: bool,
) -> Step {
    let Some(guest) = records.guests.get(name) else {
        return Step::Done(None);
    };
    let is_drained = view.is_out_of_rows(name);
    if guest.wanted == GuestWanted::Remove {
        return done_if(is_removed(records, view, name));
    }
    if !is_drained && !is_late {
        return Step::Wait;
    }
    if !is_drained {
        close_the_rest(records, view, name);
    }
    if remove || !is_drained {
        if let Some(guest) = records.guests.get_mut(name) {
            guest.wanted = GuestWanted::Remove;
        }
        return Step::Wait;
    }
    Step::Done(None)
}

/// The deadline has come: what the guest still holds is lost, and counted by name.
fn close_the_rest(records: &mut Records, view: &View<'_>, name: &str) {
    let left = view
        .guest(name)
        .and_then(|guest| guest.connections)
        .unwrap_or(0);
    let change = records
        .guests
        .get(name)
        .and_then(|guest| guest.change.clone());
    if let Some(change) = change.and_then(|change| records.change_mut(&change)) {
        for _ in 0..left.min(change.ledger.open()) {
            change.ledger.record(Outcome::Reset, 0);
        }
    }
}

/// Whether a guest's kernel is gone; then its record goes.
fn is_removed(records: &mut Records, view: &View<'_>, name: &str) -> bool {
    let Some(guest) = records.guests.get(name) else {
        return true;
    };
    let node_is_gone = records
        .nodes
        .get(&guest.node)
        .is_none_or(|node| node.kernel.is_none());
    let is_gone = guest.boot.is_none()
        && (node_is_gone
            || view
                .reports
                .get(guest.node.as_str())
                .is_some_and(|report| report.is_complete));
    if is_gone {
        records.guests.remove(name);
    }
    is_gone
}

fn drain_guests_of(
    records: &mut Records,
    view: &View<'_>,
    node: &str,
    remove: bool,
    is_late: bool,
) -> bool {
    let mut all = true;
    for name in guests_of(records, node) {
        let is_drained = view.is_out_of_rows(&name);
        if is_late && !is_drained {
            close_the_rest(records, view, &name);
        }
        let Some(guest) = records.guests.get_mut(&name) else {
            continue;
        };
        if (remove && is_drained) || (is_late && !is_drained) {
            guest.wanted = GuestWanted::Remove;
        }
        all &= if guest.wanted == GuestWanted::Remove {
            is_removed(records, view, &name)
        } else {
            is_drained
        };
    }
    all
}

fn remove_node(records: &mut Records, view: &View<'_>, node: &str, is_late: bool) -> Step {
    if !records.nodes.contains_key(node) {
        return Step::Done(None);
    }
    let is_empty = drain_guests_of(records, view, node, true, is_late);
    if !is_empty || !guests_of(records, node).is_empty() {
        return Step::Wait;
    }
    let never_joined = records
        .nodes
        .get(node)
        .is_some_and(|node| node.kernel.is_none());
    if never_joined || view.reports.get(node).is_some_and(|report| report.has_left) {
        records.nodes.remove(node);
        return Step::Done(None);
    }
    Step::Wait
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
