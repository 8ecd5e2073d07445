use std::net::SocketAddr;

use hitless_api::{AtDeadline, ErrorCode, Order};
use hitless_core::flow::FlowKey;
use hitless_core::ledger::Ledger;
use hitless_core::row::GuestSlot;
use hitless_core::table::message::DirectorId;

use super::*;
use crate::controller::records::{
    ChangeOutcome, ChangeRecord, ClusterRecord, GuestRecord, GuestWanted, NodeRecord, NodeWanted,
    SiteRecord,
};
use crate::message::{Ended, Programs};
use crate::plane::Connection;

const SECOND: u64 = 1_000_000;

/// What is kept and what is seen: two nodes with a guest each, which serve 10 connections each.
struct World {
    records: Records,
    table: Status,
    reports: BTreeMap<String, NodeReport>,
    strangers: Strangers,
    now_us: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            records: Records {
                cluster: ClusterRecord {
                    vni: 1,
                    key: FlowKey([0; 16]),
                    next_change: 1,
                    next_director: 3,
                    programs: Programs::default(),
                },
                site: SiteRecord {
                    generation: 1,
                    ..SiteRecord::default()
                },
                nodes: BTreeMap::new(),
                guests: BTreeMap::new(),
                changes: BTreeMap::new(),
            },
            table: Status {
                generation: None,
                guests: BTreeMap::new(),
                unsettled: 0,
                waits: Vec::new(),
                changes: Vec::new(),
            },
            reports: BTreeMap::new(),
            strangers: Strangers::default(),
            now_us: 1_000 * SECOND,
        };
        for number in [1, 2] {
            world.add(number);
        }
        world
    }

    fn add(&mut self, number: u16) {
        let (node, guest) = (format!("n{number}"), format!("g{number}"));
        let record = NodeRecord {
            wanted: NodeWanted::Member,
            change: None,
            director: DirectorId(number),
            kernel: Some(1),
            address: None,
            is_directing: true,
            is_joined: true,
            release: None,
        };
        self.records.nodes.insert(node.clone(), record);
        let record = GuestRecord {
            node: node.clone(),
            wanted: GuestWanted::Serve,
            change: None,
            boot: Some(1),
            addresses: Vec::new(),
            ends_for: None,
        };
        self.records.guests.insert(guest.clone(), record);
        let status = GuestStatus {
            name: guest.clone(),
            standing: Standing::Serving,
            is_known: true,
            leads: 32_768,
            named: 32_768,
            connections: Some(10),
        };
        self.table.guests.insert(slot(number), status);
        let report = NodeReport {
            is_complete: true,
            guests: BTreeMap::from([(guest, GuestReport::default())]),
            ..NodeReport::default()
        };
        self.reports.insert(node, report);
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Records, &View<'_>) -> T) -> T {
        let reports = self.reports.iter();
        let view = View {
            now_us: self.now_us,
            table: &self.table,
            reports: reports
                .map(|(name, report)| (name.as_str(), report))
                .collect(),
            strangers: &self.strangers,
        };
        act(&mut self.records, &view)
    }

    fn order(&mut self, ordered: Order) -> String {
        self.with(|records, view| order(records, view, ordered))
            .unwrap()
    }

    fn refused(&mut self, ordered: Order) -> ErrorCode {
        let before = self.records.clone();
        let refused = self.with(|records, view| order(records, view, ordered));
        assert_eq!(self.records, before, "nothing is half done");
        refused.unwrap_err().code
    }

    fn advance(&mut self) {
        self.with(advance);
    }

    fn change(&self, name: &str) -> &ChangeRecord {
        let mut changes = self.records.changes.values();
        changes.find(|change| change.name == name).unwrap()
    }

    fn outcome(&self, name: &str) -> &ChangeOutcome {
        &self.change(name).outcome
    }

    fn wanted(&self, guest: &str) -> GuestWanted {
        self.records.guests[guest].wanted
    }

    /// The table has taken the guest out of all rows.
    fn leave_rows(&mut self, number: u16) {
        let guest = self.table.guests.get_mut(&slot(number)).unwrap();
        (guest.leads, guest.named, guest.connections) = (0, 0, Some(0));
    }

    /// The guest's kernel is gone, and its agent says so.
    fn destroy(&mut self, number: u16) {
        self.records
            .guests
            .get_mut(&format!("g{number}"))
            .unwrap()
            .boot = None;
        self.leave_rows(number);
    }

    fn guest_report(&mut self, number: u16) -> &mut GuestReport {
        let node = self.reports.get_mut(&format!("n{number}")).unwrap();
        node.guests.get_mut(&format!("g{number}")).unwrap()
    }

    /// The guest ended so many connections for the newest change.
    fn end(&mut self, number: u16, total: u64, is_all: bool) {
        let change = self.records.cluster.next_change - 1;
        let address = |port| SocketAddr::from(([203, 0, 113, 9], port));
        let connection = |at| Connection {
            client: address(1_000 + at as u16),
            server: address(80),
        };
        self.guest_report(number).ended = Some(Ended {
            change,
            total,
            named: (0..total.min(2)).map(connection).collect(),
            is_all,
        });
    }
}

fn slot(number: u16) -> GuestSlot {
    GuestSlot::new(number).unwrap()
}

fn drain(deadline_s: Option<u64>, at_deadline: AtDeadline, remove: bool) -> Order {
    Order::DrainGuest {
        guest: "g1".into(),
        deadline_s,
        at_deadline,
        remove,
    }
}

fn remove_node(confirm_off: bool) -> Order {
    Order::RemoveNode {
        node: "n1".into(),
        deadline_s: None,
        at_deadline: AtDeadline::Close,
        confirm_off,
    }
}

#[test]
fn a_drain_ends_when_no_row_names_the_guest() {
    let mut world = World::new();
    let change = world.order(drain(None, AtDeadline::Close, false));
    assert_eq!(world.wanted("g1"), GuestWanted::Drain);
    world.advance();
    assert_eq!(world.outcome(&change), &ChangeOutcome::Open);
    world.leave_rows(1);
    world.advance();
    assert_eq!(world.outcome(&change), &ChangeOutcome::Done);
    assert_eq!(world.wanted("g1"), GuestWanted::Drain, "it stays, drained");
    // Of 20 connections 10 are left: the others ended by themselves.
    let ledger = world.change(&change).ledger;
    assert_eq!(
        (ledger.connections, ledger.carried.total(), ledger.finished),
        (20, 10, 10)
    );
    assert_eq!((ledger.reset, ledger.told_to_close), (0, 0));
}

#[test]
fn a_drain_with_removal_forgets_the_guest_once_its_kernel_is_gone() {
    let mut world = World::new();
    let change = world.order(drain(None, AtDeadline::Close, true));
    world.leave_rows(1);
    world.advance();
    assert_eq!(world.wanted("g1"), GuestWanted::Remove);
    assert_eq!(world.outcome(&change), &ChangeOutcome::Open);
    world.destroy(1);
    world.reports.get_mut("n1").unwrap().is_complete = false;
    world.advance();
    assert_eq!(
        world.outcome(&change),
        &ChangeOutcome::Open,
        "its agent is not sure yet"
    );
    world.reports.get_mut("n1").unwrap().is_complete = true;
    world.advance();
    assert_eq!(world.outcome(&change), &ChangeOutcome::Done);
    assert!(!world.records.guests.contains_key("g1"));
}

#[test]
fn a_later_order_calls_an_earlier_one_back() {
    let mut world = World::new();
    let first = world.order(drain(Some(1), AtDeadline::Close, false));
    let second = world.order(Order::UndrainGuest { guest: "g1".into() });
    assert_eq!(world.outcome(&first), &ChangeOutcome::CalledBack);
    assert_eq!(world.wanted("g1"), GuestWanted::Serve);
    world.now_us += 100 * SECOND;
    world.advance();
    let guest = &world.records.guests["g1"];
    assert_eq!(guest.ends_for, None, "the deadline went with the drain");
    assert_eq!(
        world.outcome(&second),
        &ChangeOutcome::Open,
        "its agent has not linked to it"
    );
    let report = world.guest_report(1);
    (report.is_linked, report.is_ready) = (true, true);
    world.advance();
    assert_eq!(world.outcome(&second), &ChangeOutcome::Done);
}

#[test]
fn calling_back_orders_the_opposite() {
    let node = || "n1".to_owned();
    let guest = || "g1".to_owned();
    let pairs = [
        (drain(None, AtDeadline::Close, true), "undrain-guest"),
        (
            Order::DrainNode {
                node: node(),
                deadline_s: None,
                at_deadline: AtDeadline::Close,
            },
            "undrain-node",
        ),
        (remove_node(false), "undrain-node"),
        (Order::UndrainNode { node: node() }, "drain-node"),
        (Order::UndrainGuest { guest: guest() }, "drain-guest"),
        (Order::AddNode { node: "n3".into() }, "remove-node"),
        (
            Order::AddGuest {
                guest: "g3".into(),
                node: node(),
            },
            "drain-guest",
        ),
    ];
    for (ordered, opposite) in pairs {
        let mut world = World::new();
        let change = world.order(ordered);
        let back = world
            .with(|records, view| call_back(records, view, &change))
            .unwrap();
        assert!(back.starts_with(opposite), "{change}: {back}");
        assert_eq!(
            world.outcome(&change),
            &ChangeOutcome::CalledBack,
            "{change}"
        );
        let again = world.with(|records, view| call_back(records, view, &change));
        assert_eq!(
            again.unwrap_err().code,
            ErrorCode::Conflict,
            "{change} is over"
        );
    }
    let mut world = World::new();
    let change = world.order(Order::ReplacePrograms {});
    let refused = world.with(|records, view| call_back(records, view, &change));
    assert_eq!(refused.unwrap_err().code, ErrorCode::Refused);
    assert_eq!(world.outcome(&change), &ChangeOutcome::Open);
}

#[test]
fn what_is_left_at_a_deadline_is_closed_by_name() {
    let mut world = World::new();
    let change = world.order(drain(Some(5), AtDeadline::Close, false));
    world.now_us += 4 * SECOND;
    world.advance();
    assert_eq!(world.records.guests["g1"].ends_for, None);
    world.now_us += SECOND;
    world.advance();
    assert_eq!(world.records.guests["g1"].ends_for, Some(1));
    // Out of the rows, but it may have more to tell.
    world.end(1, 3, false);
    world.leave_rows(1);
    world.advance();
    assert_eq!(world.outcome(&change), &ChangeOutcome::Open);
    world.end(1, 4, true);
    world.advance();
    assert_eq!(world.outcome(&change), &ChangeOutcome::Done);
    let change = world.change(&change);
    assert_eq!((change.ledger.reset, change.closed_total()), (4, 4));
    assert_eq!(change.closed["g1"].named.len(), 2);
    assert_eq!(world.records.guests["g1"].ends_for, None);
}

#[test]
fn a_guest_that_does_not_obey_a_deadline_is_removed_or_the_drain_fails() {
    for remove in [true, false] {
        let mut world = World::new();
        let change = world.order(drain(Some(5), AtDeadline::Close, remove));
        world.now_us += 20 * SECOND;
        world.advance();
        match remove {
            true => {
                assert_eq!(world.wanted("g1"), GuestWanted::Remove);
                assert_eq!(
                    world.change(&change).closed_total(),
                    10,
                    "by its last count"
                );
            }
            false => {
                assert!(matches!(world.outcome(&change), ChangeOutcome::Failed(_)));
                assert_eq!(world.wanted("g1"), GuestWanted::Drain);
            }
        }
    }
}

#[test]
fn a_drain_of_the_last_guest_says_what_is_missing() {
    let mut world = World::new();
    let change = world.order(drain(Some(5), AtDeadline::Close, false));
    // Nobody takes its buckets, so rows go on naming it.
    world.table.guests.get_mut(&slot(1)).unwrap().connections = Some(0);
    world.end(1, 0, true);
    world.now_us += 20 * SECOND;
    world.advance();
    let ChangeOutcome::Failed(reason) = world.outcome(&change) else {
        panic!("{:?}", world.outcome(&change));
    };
    assert!(reason.contains("no other guest has taken"), "{reason}");
}

#[test]
fn a_drain_that_gives_up_lets_the_guest_serve_again() {
    let mut world = World::new();
    let change = world.order(drain(Some(5), AtDeadline::GiveUp, true));
    world.now_us += 5 * SECOND;
    world.advance();
    let ChangeOutcome::Failed(reason) = world.outcome(&change) else {
        panic!("{:?}", world.outcome(&change));
    };
    assert!(
        reason.contains("guest g1 had 10 connections left"),
        "{reason}"
    );
    assert_eq!(world.wanted("g1"), GuestWanted::Serve);
    assert_eq!(world.change(&change).ledger.reset, 0);
}

#[test]
fn a_node_that_dies_during_its_removal_is_removed_by_the_operator_s_word() {
    let mut world = World::new();
    let change = world.order(remove_node(false));
    world.advance();
    world.reports.remove("n1");
    world.now_us += 1_000 * SECOND;
    world.advance();
    assert_eq!(
        world.outcome(&change),
        &ChangeOutcome::Open,
        "it may still run"
    );
    assert_eq!(world.refused(remove_node(false)), ErrorCode::Refused);
    let confirmed = world.order(remove_node(true));
    assert_eq!(world.outcome(&change), &ChangeOutcome::CalledBack);
    let died = world
        .records
        .changes
        .values()
        .find(|change| change.name.starts_with("guest-died"));
    assert!(died.is_some(), "its guest's death is a change of its own");
    world.advance();
    assert_eq!(
        world.outcome(&confirmed),
        &ChangeOutcome::Open,
        "rows still name its guest"
    );
    world.leave_rows(1);
    world.advance();
    world.advance();
    assert_eq!(world.outcome(&confirmed), &ChangeOutcome::Done);
    assert!(!world.records.nodes.contains_key("n1"));
    assert!(!world.records.guests.contains_key("g1"));
}

#[test]
fn orders_that_cannot_be_are_refused_and_change_nothing() {
    let mut world = World::new();
    let to = |node: &str| Order::AddGuest {
        guest: "g3".into(),
        node: node.into(),
    };
    assert_eq!(world.refused(to("n9")), ErrorCode::NotFound);
    assert_eq!(
        world.refused(Order::AddNode { node: "n1".into() }),
        ErrorCode::Conflict
    );
    assert_eq!(
        world.refused(Order::RemoveGuest { guest: "g1".into() }),
        ErrorCode::Refused
    );
    assert_eq!(
        world.refused(remove_node(true)),
        ErrorCode::Refused,
        "it answers"
    );
    world.order(remove_node(false));
    assert_eq!(
        world.refused(to("n1")),
        ErrorCode::Conflict,
        "it is being removed"
    );
    world.records.site.generation = 0;
    assert_eq!(
        world.refused(to("n2")),
        ErrorCode::Refused,
        "there is nothing to serve"
    );
}

#[test]
fn packets_that_nobody_knew_stand_beside_the_ledger() {
    let mut world = World::new();
    let answered = |world: &mut World, number, count| {
        let counters = &mut world.guest_report(number).counters;
        counters.insert("answered".into(), count);
    };
    answered(&mut world, 2, 5);
    let change = world.order(drain(None, AtDeadline::Close, true));
    answered(&mut world, 2, 7);
    answered(&mut world, 1, 1);
    world.advance();
    // What a guest that goes has counted is not forgotten.
    world.reports.get_mut("n1").unwrap().guests.clear();
    world.destroy(1);
    world.advance();
    world.advance();
    assert_eq!(world.outcome(&change), &ChangeOutcome::Done);
    let change = world.change(&change);
    assert_eq!((change.unknown_reset_total(), change.ledger.reset), (3, 0));
}

#[test]
fn an_upgrade_s_ledger_is_what_guests_kept() {
    let mut world = World::new();
    let change = world.order(Order::UpgradeTrafficManagers {
        program: "/opt/hitless".into(),
    });
    for number in [1, 2] {
        world.advance();
        assert_eq!(world.outcome(&change), &ChangeOutcome::Open);
        let mut ledger = Ledger::begin(10);
        ledger.finished = 10;
        let report = world.guest_report(number);
        report.manager_generation = 1;
        report.upgrade_ledger = Some(ledger);
    }
    world.advance();
    assert_eq!(world.outcome(&change), &ChangeOutcome::Done);
    let change = world.change(&change);
    assert!(change.is_exact);
    assert_eq!(
        (change.ledger.connections, change.ledger.finished),
        (20, 20)
    );
    let failing = world.order(Order::UpgradeTrafficManagers {
        program: "/nowhere".into(),
    });
    world.guest_report(2).upgrade_failed = Some("no such file".into());
    world.advance();
    let reason = "guest g2: no such file".to_owned();
    assert_eq!(world.outcome(&failing), &ChangeOutcome::Failed(reason));
}
