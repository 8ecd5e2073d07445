//! Taking orders: whether one can be done, and what is wanted from then on.

use std::collections::BTreeMap;

use hitless_api::{ApiError, AtDeadline, ErrorCode, Order};
use hitless_core::ledger::Ledger;
use hitless_core::table::message::DirectorId;

use super::advance::end;
use super::drain;
use super::{SiteFacts, View};
use crate::controller::records::{
    ChangeOutcome, ChangeRecord, GuestRecord, GuestWanted, NodeRecord, NodeWanted, Records,
    SiteRecord, Subject,
};

fn conflict(text: String) -> ApiError {
    ApiError::new(ErrorCode::Conflict, text)
}

/// Gives a change its name, and notes what there is when it begins.
pub(super) fn open_change(records: &mut Records, view: &View<'_>, subject: Subject) -> String {
    let kind = match &subject {
        Subject::Order(order) => order.kind(),
        Subject::Site(_) => "apply-site",
        Subject::Died(_) => "guest-died",
    };
    let number = records.cluster.next_change;
    records.cluster.next_change += 1;
    let name = format!("{kind}-{number}");
    let deadline_s = match &subject {
        Subject::Order(
            Order::DrainGuest { deadline_s, .. }
            | Order::DrainNode { deadline_s, .. }
            | Order::RemoveNode { deadline_s, .. },
        ) => *deadline_s,
        _ => None,
    };
    let leavers = drain::leavers(records, &subject).unwrap_or_default();
    let told_to_close = view.told_to_close();
    let told_to_close = told_to_close.filter(|(guest, _)| leavers.contains(guest));
    let told_to_close = told_to_close.map(|(guest, told)| (guest, (told, told)));
    let unknown_reset = view.unknown_reset();
    let unknown_reset = unknown_reset.map(|(guest, count)| (guest, (count, count)));
    let change = ChangeRecord {
        name: name.clone(),
        subject,
        outcome: ChangeOutcome::Open,
        started_us: view.now_us,
        ended_us: None,
        deadline_us: deadline_s.map(|seconds| {
            view.now_us
                .saturating_add(seconds.saturating_mul(1_000_000))
        }),
        ledger: Ledger::begin(view.live()),
        total: 0,
        done: 0,
        told_to_close: told_to_close.collect(),
        unknown_reset: unknown_reset.collect(),
        is_exact: false,
        closed: BTreeMap::new(),
    };
    records.changes.insert(number, change);
    name
}

/// Takes an order: what is wanted changes at once. Returns the change's name.
pub fn order(records: &mut Records, view: &View<'_>, order: Order) -> Result<String, ApiError> {
    order.check()?;
    check(records, view, &order)?;
    let change = open_change(records, view, Subject::Order(order.clone()));
    match order {
        Order::AddNode { node } => {
            let director = DirectorId(records.cluster.next_director);
            records.cluster.next_director = records.cluster.next_director.wrapping_add(1).max(1);
            let record = NodeRecord {
                wanted: NodeWanted::Member,
                change: Some(change.clone()),
                director,
                kernel: None,
                address: None,
                is_directing: false,
                is_joined: false,
                release: None,
            };
            records.nodes.insert(node, record);
        }
        Order::RemoveNode {
            node, confirm_off, ..
        } => {
            want_node(records, view, &node, NodeWanted::Leave, &change);
            if confirm_off {
                forget_kernel(records, view, &node);
            }
        }
        Order::DrainNode { node, .. } => {
            want_node(records, view, &node, NodeWanted::Drain, &change)
        }
        Order::UndrainNode { node } => want_node(records, view, &node, NodeWanted::Member, &change),
        Order::AddGuest { guest, node } => {
            let record = GuestRecord {
                node,
                wanted: GuestWanted::Serve,
                change: Some(change.clone()),
                boot: None,
                addresses: Vec::new(),
                ends_for: None,
            };
            records.guests.insert(guest, record);
        }
        Order::DrainGuest { guest, .. } => {
            want_guest(records, view, &guest, GuestWanted::Drain, &change)
        }
        Order::UndrainGuest { guest } => {
            want_guest(records, view, &guest, GuestWanted::Serve, &change)
        }
        Order::RemoveGuest { guest } => {
            want_guest(records, view, &guest, GuestWanted::Remove, &change)
        }
        Order::UpgradeTrafficManagers { program } => {
            records.cluster.programs.manager_generation += 1;
            records.cluster.programs.manager = Some(program);
        }
        Order::ReplacePrograms {} => records.cluster.programs.bpf_generation += 1,
    }
    Ok(change)
}

/// Takes a site configuration that was read before.
pub fn apply(
    records: &mut Records,
    view: &View<'_>,
    text: String,
    facts: SiteFacts,
) -> Result<String, ApiError> {
    let generation = records.site.generation + 1;
    records.site = SiteRecord {
        generation,
        text,
        vips: facts.vips,
        servers: facts.servers,
        names: facts.names,
    };
    Ok(open_change(records, view, Subject::Site(generation)))
}

/// Undoes a change that is under way.
pub fn call_back(records: &mut Records, view: &View<'_>, name: &str) -> Result<String, ApiError> {
    let change = records.changes.values().find(|change| change.name == name);
    let change = change.ok_or_else(|| ApiError::not_found("change", name))?;
    if change.outcome != ChangeOutcome::Open {
        return Err(conflict(format!("{name} is over")));
    }
    let refused = |text: &str| Err(ApiError::new(ErrorCode::Refused, text));
    let ordered = match change.subject.clone() {
        Subject::Order(ordered) => ordered,
        Subject::Site(_) => return refused("apply the configuration of before instead"),
        Subject::Died(_) => return refused("a death cannot be called back"),
    };
    let back = match ordered {
        Order::AddGuest { guest, .. } | Order::UndrainGuest { guest } => {
            let remove = name.starts_with("add-guest");
            Order::DrainGuest {
                guest,
                deadline_s: None,
                at_deadline: AtDeadline::Close,
                remove,
            }
        }
        Order::DrainGuest { guest, .. } => Order::UndrainGuest { guest },
        Order::DrainNode { node, .. } | Order::RemoveNode { node, .. } => {
            Order::UndrainNode { node }
        }
        Order::UndrainNode { node } => Order::DrainNode {
            node,
            deadline_s: None,
            at_deadline: AtDeadline::Close,
        },
        Order::AddNode { node } => Order::RemoveNode {
            node,
            deadline_s: None,
            at_deadline: AtDeadline::Close,
            confirm_off: false,
        },
        Order::RemoveGuest { .. }
        | Order::UpgradeTrafficManagers { .. }
        | Order::ReplacePrograms {} => {
            let text = format!("{name} cannot be called back: order what it was before");
            return Err(ApiError::new(ErrorCode::Refused, text));
        }
    };
    order(records, view, back)
}

fn check(records: &Records, view: &View<'_>, order: &Order) -> Result<(), ApiError> {
    let node = |name: &str| {
        records
            .nodes
            .get(name)
            .ok_or_else(|| ApiError::not_found("node", name))
    };
    let guest = |name: &str| {
        records
            .guests
            .get(name)
            .ok_or_else(|| ApiError::not_found("guest", name))
    };
    match order {
        Order::AddNode { node } if records.nodes.contains_key(node) => {
            Err(conflict(format!("there is a node \"{node}\" already")))
        }
        Order::AddNode { .. } => Ok(()),
        Order::DrainNode { node: name, .. } | Order::UndrainNode { node: name } => {
            match node(name)?.wanted {
                NodeWanted::Leave if matches!(order, Order::DrainNode { .. }) => {
                    Err(conflict(format!("node \"{name}\" is being removed")))
                }
                _ => Ok(()),
            }
        }
        Order::RemoveNode {
            node: name,
            confirm_off,
            ..
        } => {
            let is_linked = view.reports.contains_key(name.as_str());
            let has_joined = node(name)?.kernel.is_some();
            let refused = |text: String| Err(ApiError::new(ErrorCode::Refused, text));
            match (has_joined, is_linked, confirm_off) {
                (true, false, false) => refused(format!(
                    "node \"{name}\" does not answer, and its guests and its director may still \
                     run: start its agent, or confirm that the machine is off and stays off \
                     (--confirm-off)"
                )),
                (_, true, true) => refused(format!(
                    "node \"{name}\" answers, so it is not off: remove it without confirming that"
                )),
                _ => Ok(()),
            }
        }
        Order::AddGuest { guest, node: on } => {
            let on_record = node(on)?;
            if records.site.generation == 0 {
                let text =
                    "apply a site configuration first: a guest has nothing to serve without one";
                Err(ApiError::new(ErrorCode::Refused, text))
            } else if records.guests.contains_key(guest) {
                Err(conflict(format!("there is a guest \"{guest}\" already")))
            } else if on_record.wanted == NodeWanted::Leave {
                Err(conflict(format!("node \"{on}\" is being removed")))
            } else {
                Ok(())
            }
        }
        Order::DrainGuest { guest: name, .. } | Order::UndrainGuest { guest: name } => {
            if guest(name)?.wanted == GuestWanted::Remove {
                return Err(conflict(format!("guest \"{name}\" is being removed")));
            }
            Ok(())
        }
        Order::RemoveGuest { guest: name } => {
            let is_drained = guest(name)?.wanted == GuestWanted::Drain && view.is_out_of_rows(name);
            if is_drained || guest(name)?.boot.is_none() {
                Ok(())
            } else {
                let text =
                    format!("guest \"{name}\" serves: drain it first, or drain it with removal");
                Err(ApiError::new(ErrorCode::Refused, text))
            }
        }
        Order::UpgradeTrafficManagers { .. } | Order::ReplacePrograms {} => Ok(()),
    }
}

/// A later order for the same object ends the earlier change.
fn want_guest(
    records: &mut Records,
    view: &View<'_>,
    name: &str,
    wanted: GuestWanted,
    change: &str,
) {
    let Some(guest) = records.guests.get_mut(name) else {
        return;
    };
    guest.wanted = wanted;
    guest.ends_for = None;
    let before = guest.change.replace(change.to_owned());
    supersede(records, view, before, change);
}

fn want_node(records: &mut Records, view: &View<'_>, name: &str, wanted: NodeWanted, change: &str) {
    let Some(node) = records.nodes.get_mut(name) else {
        return;
    };
    node.wanted = wanted;
    let before = node.change.replace(change.to_owned());
    for guest in records.guests.values_mut() {
        if guest.node == name {
            guest.ends_for = None;
        }
    }
    supersede(records, view, before, change);
}

/// The operator's word that a node is off: its kernel, and with it those of its guests, are gone,
/// and nobody waits for its director. One that is on again has another director.
fn forget_kernel(records: &mut Records, view: &View<'_>, name: &str) {
    let Some(node) = records.nodes.get_mut(name) else {
        return;
    };
    node.kernel = None;
    node.is_directing = false;
    node.is_joined = false;
    node.director = DirectorId(records.cluster.next_director);
    records.cluster.next_director = records.cluster.next_director.wrapping_add(1).max(1);
    let mut dead = Vec::new();
    let own = records.guests.iter_mut();
    for (guest, record) in own.filter(|(_, guest)| guest.node == name) {
        record.boot = None;
        let kernels = view.table.guests.iter();
        let named = kernels.filter(|(_, known)| known.name == *guest && known.named > 0);
        dead.extend(named.map(|(slot, _)| (guest.clone(), *slot)));
    }
    for (guest, slot) in dead {
        super::death::open(records, view, &guest, slot);
    }
}

fn supersede(records: &mut Records, view: &View<'_>, before: Option<String>, change: &str) {
    if let Some(before) = before.filter(|before| before != change)
        && let Some(old) = records.change_mut(&before)
        && old.outcome == ChangeOutcome::Open
    {
        end(old, view, ChangeOutcome::CalledBack);
    }
}
