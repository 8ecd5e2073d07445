//! Orders and changes: what is wanted of nodes and guests, and how far that has come. Pure: records
//! in, records out.
//!
//! ```text
//!  order ──> change open ──(advance: what is seen fits what is wanted)──> done
//!                  │ undone by a later order, or called back ───────────> called back
//!                  └ cannot be done ────────────────────────────────────> failed
//! ```
//!
//! A change has no steps of its own that were to be remembered: [`advance`] looks at what is wanted
//! and what is seen, and does what is next, any number of times. Rows are none of its business; it
//! reads the table's status.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hitless_api::{ApiError, ErrorCode, Order, Progress, Wait, WaitCode};
use hitless_core::ledger::{Ledger, Outcome, Rung};
use hitless_core::table::controller::{GuestStatus, Status};
use hitless_core::table::message::DirectorId;
use hitless_core::table::step::Standing;

use super::records::{
    ChangeOutcome, ChangeRecord, GuestRecord, GuestWanted, NodeRecord, NodeWanted, Records,
    SiteRecord, Subject,
};
use crate::message::{GuestReport, NodeReport};

/// The virtual cluster's name: there is one.
pub const NAME: &str = "default";

/// What a site configuration says to a controller.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SiteFacts {
    pub vips: Vec<IpAddr>,
    /// `ADDRESS:PORT/PROTOCOL` of each virtual server.
    pub servers: Vec<String>,
}

/// What is seen.
#[derive(Debug)]
pub struct View<'a> {
    /// Microseconds since 1970.
    pub now_us: u64,
    pub table: &'a Status,
    /// By node; only of nodes that are linked.
    pub reports: BTreeMap<&'a str, &'a NodeReport>,
    pub strangers: Strangers,
}

/// Guests and nodes that others do not know yet, with one of these.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Strangers {
    pub guests: BTreeMap<String, String>,
    pub nodes: BTreeMap<String, String>,
}

impl View<'_> {
    /// What the table says of the guest's newest kernel.
    pub fn guest(&self, name: &str) -> Option<&GuestStatus> {
        let of_name = self
            .table
            .guests
            .values()
            .filter(|guest| guest.name == name);
        of_name.max_by_key(|guest| guest.standing != Standing::Gone)
    }

    pub(super) fn report(&self, records: &Records, guest: &str) -> Option<&GuestReport> {
        let node = &records.guests.get(guest)?.node;
        self.reports.get(node.as_str())?.guests.get(guest)
    }

    fn live(&self) -> u64 {
        self.table
            .guests
            .values()
            .filter_map(|guest| guest.connections)
            .sum()
    }

    /// Unknown packets that ingresses let the stack answer.
    fn answered(&self) -> u64 {
        let guests = self
            .reports
            .values()
            .flat_map(|report| report.guests.values());
        guests
            .filter_map(|guest| guest.counters.get("answered"))
            .sum()
    }

    /// Whether no row names the guest.
    fn is_out_of_rows(&self, guest: &str) -> bool {
        self.table
            .guests
            .values()
            .filter(|known| known.name == guest)
            .all(|known| known.named == 0)
    }

    fn is_settled(&self, change: &str) -> bool {
        self.table
            .changes
            .iter()
            .filter(|known| known.name == change)
            .all(|known| known.is_done)
    }
}

fn conflict(text: String) -> ApiError {
    ApiError::new(ErrorCode::Conflict, text)
}

fn open_change(records: &mut Records, view: &View<'_>, subject: Subject) -> String {
    let kind = match &subject {
        Subject::Order(order) => order.kind(),
        Subject::Site(_) => "apply-site",
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
        answered_before: view.answered(),
        ledger: Ledger::begin(view.live()),
        total: 0,
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
        Order::RemoveNode { node, .. } => {
            want_node(records, view, &node, NodeWanted::Leave, &change)
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
    let Subject::Order(ordered) = change.subject.clone() else {
        return Err(ApiError::new(
            ErrorCode::Refused,
            "apply the configuration of before instead",
        ));
    };
    let back = match ordered {
        Order::AddGuest { guest, .. } | Order::UndrainGuest { guest } => {
            let remove = name.starts_with("add-guest");
            Order::DrainGuest {
                guest,
                deadline_s: None,
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
        },
        Order::AddNode { node } => Order::RemoveNode {
            node,
            deadline_s: None,
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
        Order::RemoveNode { node: name, .. } => node(name).map(|_| ()),
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
    let before = guest.change.replace(change.to_owned());
    supersede(records, view, before, change);
}

fn want_node(records: &mut Records, view: &View<'_>, name: &str, wanted: NodeWanted, change: &str) {
    let Some(node) = records.nodes.get_mut(name) else {
        return;
    };
    node.wanted = wanted;
    let before = node.change.replace(change.to_owned());
    supersede(records, view, before, change);
}

fn supersede(records: &mut Records, view: &View<'_>, before: Option<String>, change: &str) {
    if let Some(before) = before.filter(|before| before != change)
        && let Some(old) = records.change_mut(&before)
        && old.outcome == ChangeOutcome::Open
    {
        end(old, view, ChangeOutcome::CalledBack);
    }
}

/// Closes a change: connections that were there and were not reset were carried along the rows, or
/// ended by themselves.
fn end(change: &mut ChangeRecord, view: &View<'_>, outcome: ChangeOutcome) {
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

fn is_joined(records: &Records, node: &str) -> bool {
    records.nodes.get(node).is_some_and(|node| node.is_joined)
}

/// Guests that have a kernel and shall keep it.
fn running(records: &Records) -> Vec<String> {
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

/// How far a change is.
pub fn progress(records: &Records, view: &View<'_>, change: &ChangeRecord) -> Progress {
    let counted = |unit: &str, total: usize, done: usize| Progress {
        done: done as u64,
        total: total as u64,
        unit: unit.into(),
    };
    let left: usize = view
        .table
        .changes
        .iter()
        .filter(|known| known.name == change.name)
        .map(|known| known.left)
        .sum();
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
        Subject::Order(_) => {
            let total = change.total.max(left as u64);
            let done = if change.outcome == ChangeOutcome::Open {
                total - left as u64
            } else {
                total
            };
            Progress {
                done,
                total,
                unit: "buckets".into(),
            }
        }
    }
}

/// Whether a change is done by rows: what they wait for, it waits for.
pub const fn is_of_rows(change: &ChangeRecord) -> bool {
    matches!(
        change.subject,
        Subject::Order(
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
    };
    for node in nodes
        .iter()
        .filter(|node| !view.reports.contains_key(node.as_str()))
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
        Subject::Order(_) => {}
    }
    waits
}
