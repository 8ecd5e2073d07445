//! Guests that leave: by themselves when they hold nothing, at the deadline, and for good.
//!
//! ```text
//!  in rows ──(its kernel holds nothing)──────────────────────────> out of rows ──> removed, if that
//!     │                                                                 ^           was asked for
//!     └─(deadline)─┬─ close: its ingress ends the rest and names it ────┘
//!                  │            └─(not obeyed within CLOSE_WITHIN_US)──> removed, or the drain fails
//!                  └─ give up: the drain fails, the guest serves again
//! ```

use hitless_api::{AtDeadline, Order};
use hitless_core::table::step::Standing;

use super::View;
use super::advance::Step;
use crate::controller::records::{
    ChangeRecord, ClosedRecord, GuestWanted, NodeWanted, Records, Subject,
};

/// From the deadline to the time at which nobody waits for the guest's own ingress any more: it
/// looks five times a second, and agents report twice a second.
const CLOSE_WITHIN_US: u64 = 10_000_000;

/// A change's deadline, as it is now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    /// The change's number.
    change: u64,
    is_past: bool,
    /// It is past for so long that guests which did not obey are not waited for.
    is_long_past: bool,
    at: AtDeadline,
}

impl Deadline {
    pub(super) fn of(number: u64, change: &ChangeRecord, now_us: u64) -> Self {
        let since = |us| {
            change
                .deadline_us
                .is_some_and(|deadline| deadline + us <= now_us)
        };
        Self {
            change: number,
            is_past: since(0),
            is_long_past: since(CLOSE_WITHIN_US),
            at: change.at_deadline(),
        }
    }
}

/// Connections that a drain's guests hold, by their last counts. None outside: it is no drain;
/// inside: not all have counted.
pub fn left(records: &Records, view: &View<'_>, change: &ChangeRecord) -> Option<Option<u64>> {
    let guests = leavers(records, &change.subject)?;
    let counts = guests.iter().filter_map(|name| view.guest(name));
    let serving = counts.filter(|guest| guest.standing != Standing::Gone);
    Some(serving.map(|guest| guest.connections).sum())
}

/// Guests that a change drains. None: it is no drain.
pub(super) fn leavers(records: &Records, subject: &Subject) -> Option<Vec<String>> {
    match subject {
        Subject::Order(Order::DrainGuest { guest, .. }) => Some(vec![guest.clone()]),
        Subject::Order(Order::DrainNode { node, .. } | Order::RemoveNode { node, .. }) => {
            Some(guests_of(records, node))
        }
        Subject::Order(_) | Subject::Site(_) | Subject::Died(_) => None,
    }
}

enum Drain {
    Waits,
    /// Out of all rows, or gone where that was asked for.
    Done,
    Failed(String),
}

/// Takes in what guests say that they told, and ended, for a change.
pub(super) fn take_in(records: &mut Records, view: &View<'_>, number: u64) {
    let ending = records.guests.iter();
    let ending = ending.filter(|(_, guest)| guest.ends_for == Some(number));
    let told: Vec<_> = ending
        .filter_map(|(name, _)| {
            let ended = view.report(records, name)?.ended.as_ref()?;
            (ended.change == number).then(|| (name.clone(), ended))
        })
        .collect();
    let Some(change) = records.changes.get_mut(&number) else {
        return;
    };
    // A guest that is made anew counts from 0 again: it tells nothing more for this change.
    for (name, told) in view.told_to_close() {
        if let Some((_, now)) = change.told_to_close.get_mut(&name) {
            *now = told.max(*now);
        }
    }
    for (name, ended) in told {
        let closed = ClosedRecord {
            total: ended.total,
            named: ended.named.clone(),
        };
        if closed.total > 0 {
            change.closed.insert(name, closed);
        }
    }
}

/// A guest's drain.
pub(super) fn guest(
    records: &mut Records,
    view: &View<'_>,
    name: &str,
    remove: bool,
    deadline: Deadline,
) -> Step {
    match drain(records, view, name, remove, deadline) {
        Drain::Waits => Step::Wait,
        Drain::Done => Step::Done(None),
        Drain::Failed(reason) => {
            if let Some(guest) = records.guests.get_mut(name)
                && deadline.at == AtDeadline::GiveUp
            {
                guest.wanted = GuestWanted::Serve;
            }
            Step::Failed(reason)
        }
    }
}

/// The drain of all guests of a node, which stay.
pub(super) fn node(records: &mut Records, view: &View<'_>, node: &str, deadline: Deadline) -> Step {
    all(records, view, node, false, deadline)
}

/// A node that leaves, with its guests.
pub(super) fn remove_node(
    records: &mut Records,
    view: &View<'_>,
    node: &str,
    deadline: Deadline,
) -> Step {
    if !records.nodes.contains_key(node) {
        return Step::Done(None);
    }
    // A drain that may be given up takes nobody away before all are drained.
    let may_remove = deadline.at == AtDeadline::Close
        || guests_of(records, node)
            .iter()
            .all(|guest| view.is_out_of_rows(guest));
    match all(records, view, node, may_remove, deadline) {
        Step::Done(_) if guests_of(records, node).is_empty() => {}
        Step::Done(_) => return Step::Wait,
        other => return other,
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

fn all(
    records: &mut Records,
    view: &View<'_>,
    node: &str,
    remove: bool,
    deadline: Deadline,
) -> Step {
    let mut is_done = true;
    for name in guests_of(records, node) {
        match drain(records, view, &name, remove, deadline) {
            Drain::Waits => is_done = false,
            Drain::Done => {}
            Drain::Failed(reason) => {
                if let Some(node) = records.nodes.get_mut(node)
                    && deadline.at == AtDeadline::GiveUp
                {
                    node.wanted = NodeWanted::Member;
                }
                return Step::Failed(reason);
            }
        }
    }
    if is_done {
        Step::Done(None)
    } else {
        Step::Wait
    }
}

fn drain(
    records: &mut Records,
    view: &View<'_>,
    name: &str,
    remove: bool,
    deadline: Deadline,
) -> Drain {
    let Some(guest) = records.guests.get(name) else {
        return Drain::Done;
    };
    if guest.wanted == GuestWanted::Remove {
        return match is_removed(records, view, name) {
            true => Drain::Done,
            false => Drain::Waits,
        };
    }
    let is_ending = guest.ends_for == Some(deadline.change);
    let is_out = view.is_out_of_rows(name);
    let has_told_all = !is_ending || deadline.is_long_past || {
        let ended = view
            .report(records, name)
            .and_then(|guest| guest.ended.as_ref());
        ended.is_some_and(|ended| ended.change == deadline.change && ended.is_all)
    };
    let mut want = |wanted| {
        if let Some(guest) = records.guests.get_mut(name) {
            guest.wanted = wanted;
        }
    };
    if is_out && has_told_all {
        if !remove {
            return Drain::Done;
        }
        want(GuestWanted::Remove);
        return Drain::Waits;
    }
    if !deadline.is_past {
        return Drain::Waits;
    }
    let left = view.guest(name).and_then(|guest| guest.connections);
    match deadline.at {
        AtDeadline::GiveUp => {
            let left = left.map_or("?".to_owned(), |left| left.to_string());
            Drain::Failed(format!(
                "given up at the deadline: guest {name} had {left} connections left, which go on"
            ))
        }
        AtDeadline::Close if !deadline.is_long_past => {
            if let Some(guest) = records.guests.get_mut(name) {
                guest.ends_for = Some(deadline.change);
            }
            Drain::Waits
        }
        AtDeadline::Close if remove => {
            want(GuestWanted::Remove);
            // They end with it; what it did not name is counted.
            if let Some(change) = records.changes.get_mut(&deadline.change) {
                let closed = change.closed.entry(name.to_owned()).or_default();
                closed.total = closed.total.max(left.unwrap_or(0));
            }
            Drain::Waits
        }
        AtDeadline::Close if left == Some(0) => Drain::Failed(format!(
            "guest {name} holds nothing, but no other guest has taken what it leads since the \
             deadline: let another one serve, then drain it again"
        )),
        AtDeadline::Close => Drain::Failed(format!(
            "guest {name} has not closed what it holds since the deadline; removing it will"
        )),
    }
}

/// Whether a guest's kernel is gone; then its record goes.
pub(super) fn is_removed(records: &mut Records, view: &View<'_>, name: &str) -> bool {
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

pub(super) fn guests_of(records: &Records, node: &str) -> Vec<String> {
    let own = records
        .guests
        .iter()
        .filter(|(_, guest)| guest.node == node);
    own.map(|(name, _)| name.clone()).collect()
}
