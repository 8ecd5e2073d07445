//! How far a change has come, and what it waits for: for people.

use hitless_api::{Order, Progress, Wait, WaitCode};

use super::View;
use super::advance::{is_joined, running};
use crate::controller::records::{ChangeOutcome, ChangeRecord, Records, Subject};

/// How far a change is.
pub fn progress(records: &Records, view: &View<'_>, change: &ChangeRecord) -> Progress {
    if change.outcome != ChangeOutcome::Open {
        return at_end(change);
    }
    let counted = |unit: &str, total: usize, done: usize| Progress {
        done: done as u64,
        total: total as u64,
        unit: unit.into(),
    };
    let left: usize = match &change.subject {
        Subject::Died(death) => {
            let guest = view.table.guests.get(&death.slot);
            guest.map_or(0, |guest| guest.named)
        }
        Subject::Order(_) | Subject::Site(_) => {
            let own = view.table.changes.iter();
            let own = own.filter(|known| known.name == change.name);
            own.map(|known| known.left).sum()
        }
    };
    let over_all = |is_done: &dyn Fn(&str) -> bool| {
        let guests = running(records);
        counted(
            "guests",
            guests.len(),
            guests.iter().filter(|name| is_done(name)).count(),
        )
    };
    match &change.subject {
        Subject::Site(generation) => over_all(&|name| {
            view.report(records, name)
                .is_some_and(|guest| guest.site_generation >= *generation)
        }),
        Subject::Order(Order::UpgradeTrafficManagers { .. }) => over_all(&|name| {
            let generation = records.cluster.programs.manager_generation;
            view.report(records, name)
                .is_some_and(|guest| guest.manager_generation >= generation)
        }),
        Subject::Order(Order::ReplacePrograms {}) => over_all(&|name| {
            let generation = records.cluster.programs.bpf_generation;
            view.report(records, name)
                .is_some_and(|guest| guest.bpf_generation >= generation)
        }),
        Subject::Order(_) | Subject::Died(_) => {
            let total = change.total.max(left as u64);
            Progress {
                done: total - left as u64,
                total,
                unit: "buckets".into(),
            }
        }
    }
}

/// How far a change had come when it ended: what is so later is none of its business.
fn at_end(change: &ChangeRecord) -> Progress {
    let is_of_guests = matches!(
        change.subject,
        Subject::Site(_)
            | Subject::Order(Order::UpgradeTrafficManagers { .. } | Order::ReplacePrograms {})
    );
    Progress {
        done: match change.outcome {
            ChangeOutcome::Done => change.total,
            _ => change.done,
        },
        total: change.total,
        unit: if is_of_guests { "guests" } else { "buckets" }.into(),
    }
}

/// Whether a change is done by rows: what they wait for, it waits for.
pub const fn is_of_rows(change: &ChangeRecord) -> bool {
    matches!(
        change.subject,
        Subject::Died(_)
            | Subject::Order(
                Order::RemoveNode { .. }
                    | Order::DrainNode { .. }
                    | Order::UndrainNode { .. }
                    | Order::AddGuest { .. }
                    | Order::DrainGuest { .. }
                    | Order::UndrainGuest { .. }
                    | Order::RemoveGuest { .. }
            )
    )
}

/// What a change waits for, beside the table's own waits.
pub fn waits(records: &Records, view: &View<'_>, change: &ChangeRecord) -> Vec<Wait> {
    let wait = |code, object: &str, ends_when: &str| Wait {
        code,
        object: object.to_owned(),
        since_us: change.started_us,
        until_us: change.deadline_us,
        ends_when: ends_when.to_owned(),
    };
    let mut waits = Vec::new();
    let node_of = |guest: &str| records.guests.get(guest).map(|guest| guest.node.clone());
    let nodes: Vec<String> = match &change.subject {
        Subject::Order(
            Order::AddNode { node }
            | Order::RemoveNode { node, .. }
            | Order::DrainNode { node, .. }
            | Order::UndrainNode { node },
        ) => vec![node.clone()],
        Subject::Order(
            Order::AddGuest { guest, .. }
            | Order::DrainGuest { guest, .. }
            | Order::UndrainGuest { guest }
            | Order::RemoveGuest { guest },
        ) => node_of(guest).into_iter().collect(),
        Subject::Order(Order::UpgradeTrafficManagers { .. } | Order::ReplacePrograms {})
        | Subject::Site(_) => records.nodes.keys().cloned().collect(),
        // The others go on without it.
        Subject::Died(_) => Vec::new(),
    };
    let leaves = matches!(change.subject, Subject::Order(Order::RemoveNode { .. }));
    let is_off = |node: &str| {
        let record = records.nodes.get(node);
        leaves && record.is_none_or(|node| node.kernel.is_none())
    };
    for node in nodes
        .iter()
        .filter(|node| !view.reports.contains_key(node.as_str()) && !is_off(node))
    {
        waits.push(wait(
            WaitCode::NodeNotLinked,
            node,
            "its agent links to the controller",
        ));
    }
    match &change.subject {
        Subject::Order(Order::AddNode { node } | Order::UndrainNode { node }) => {
            let is_linked = view.reports.contains_key(node.as_str());
            if is_linked && !is_joined(records, node) {
                let text = match view.strangers.nodes.get(node.as_str()) {
                    Some(missing) => format!("{missing} and its director know each other"),
                    None => "its director has all rows".to_owned(),
                };
                waits.push(wait(WaitCode::NotKnown, node, &text));
            }
        }
        Subject::Order(Order::AddGuest { guest, .. } | Order::UndrainGuest { guest }) => {
            if !view
                .report(records, guest)
                .is_some_and(|report| report.is_ready)
            {
                waits.push(wait(
                    WaitCode::GuestNotReady,
                    guest,
                    "its traffic manager answers",
                ));
            } else if !view
                .report(records, guest)
                .is_some_and(|report| report.is_linked)
            {
                waits.push(wait(
                    WaitCode::GuestNotReady,
                    guest,
                    "its ingress links to its agent",
                ));
            } else if let Some(missing) = view.strangers.guests.get(guest.as_str()) {
                let text = format!("it and {missing} know each other");
                waits.push(wait(WaitCode::NotKnown, guest, &text));
            }
        }
        Subject::Order(Order::DrainGuest { guest, .. }) => {
            let live = view
                .guest(guest)
                .and_then(|guest| guest.connections)
                .unwrap_or(0);
            if live > 0 {
                let text = format!("its {live} connections have ended");
                waits.push(wait(WaitCode::ConnectionsLive, guest, &text));
            }
        }
        Subject::Order(Order::UpgradeTrafficManagers { .. }) => {
            let generation = records.cluster.programs.manager_generation;
            for name in running(records) {
                if view
                    .report(records, &name)
                    .is_some_and(|guest| guest.manager_generation < generation)
                {
                    waits.push(wait(
                        WaitCode::TrafficManagerNotReady,
                        &name,
                        "its traffic manager is upgraded",
                    ));
                }
            }
        }
        Subject::Site(generation) => {
            for name in running(records) {
                if view
                    .report(records, &name)
                    .is_some_and(|guest| guest.site_generation < *generation)
                {
                    waits.push(wait(
                        WaitCode::TrafficManagerNotReady,
                        &name,
                        "its traffic manager is reloaded",
                    ));
                }
            }
        }
        Subject::Order(Order::ReplacePrograms {}) => {
            let generation = records.cluster.programs.bpf_generation;
            for name in running(records) {
                if view
                    .report(records, &name)
                    .is_some_and(|guest| guest.bpf_generation < generation)
                {
                    waits.push(wait(
                        WaitCode::ProgramNotReplaced,
                        &name,
                        "its ingress program is replaced",
                    ));
                }
            }
        }
        Subject::Order(_) | Subject::Died(_) => {}
    }
    waits
}
