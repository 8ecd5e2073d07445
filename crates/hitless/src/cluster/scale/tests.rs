//! What `scale` orders.

use hitless_api::{ConfigState, Health};

use super::*;

fn node(name: &str, admin: AdminState) -> Node {
    Node {
        name: name.to_owned(),
        phase: match admin {
            AdminState::Ready => NodePhase::Joined,
            AdminState::Drain | AdminState::Maint => NodePhase::Drained,
        },
        admin,
        health: Health::Up,
        config: ConfigState::Synced,
        director: Some(1),
        linked: true,
        kernel: None,
        version: None,
        program: None,
        xdp: None,
        guests: Vec::new(),
    }
}

fn guest(name: &str, node: &str, admin: AdminState) -> Guest {
    Guest {
        name: name.to_owned(),
        node: node.to_owned(),
        phase: hitless_api::GuestPhase::Serving,
        admin,
        health: Health::Up,
        config: ConfigState::Synced,
        slot: Some(1),
        address: None,
        program: None,
        ingress_program: None,
        ingress_pid: None,
        keeper_pid: None,
        worker_pids: Vec::new(),
        live: None,
        buckets_owned: 0,
        buckets_standby: 0,
    }
}

fn add(guest: &str, node: &str) -> Order {
    Order::AddGuest {
        guest: guest.to_owned(),
        node: node.to_owned(),
    }
}

#[test]
fn new_guests_go_where_fewest_are_and_take_no_name_that_is_in_use() {
    use AdminState::{Drain, Ready};

    let nodes = [node("n1", Ready), node("n2", Ready), node("n3", Drain)];
    let guests = [
        guest("a", "n1", Ready),
        guest("guest-2", "n1", Drain),
        guest("guest-1", "n1", Ready),
    ];
    let orders = scaling(&nodes, &guests, 5).unwrap();
    let expected = [
        add("guest-3", "n2"),
        add("guest-4", "n2"),
        add("guest-5", "n1"),
    ];
    assert_eq!(orders, expected);
    assert_eq!(scaling(&nodes, &guests, 2).unwrap(), []);
    assert!(scaling(&nodes[2..], &guests, 5).is_err());
}

#[test]
fn nobody_and_too_many_are_refused_and_nodes_that_do_not_answer_do_not_count() {
    use AdminState::Ready;

    let mut nodes = [node("n1", Ready), node("n9", Ready)];
    nodes[1].linked = false;
    nodes[1].phase = NodePhase::Expected;
    let guests = [guest("a", "n1", Ready), guest("b", "n9", Ready)];
    let refusal = |count| scaling(&nodes, &guests, count).unwrap_err().to_string();
    assert!(refusal(0).contains("nobody would serve"));
    assert!(refusal(17).contains("16 each"));
    assert_eq!(scaling(&nodes, &guests, 1).unwrap(), []);
    assert_eq!(scaling(&nodes, &guests, 2).unwrap(), [add("guest-1", "n1")]);
}

#[test]
fn the_last_by_name_leave() {
    use AdminState::{Drain, Ready};

    let guests = [
        guest("a", "n1", Ready),
        guest("c", "n1", Ready),
        guest("b", "n1", Ready),
        guest("z", "n1", Drain),
    ];
    let orders = scaling(&[node("n1", Ready)], &guests, 1).unwrap();
    let leaves = |name: &str| Order::DrainGuest {
        guest: name.to_owned(),
        deadline_s: None,
        at_deadline: AtDeadline::Close,
        remove: true,
    };
    assert_eq!(orders, [leaves("b"), leaves("c")]);
}

#[test]
fn an_interrupted_one_says_what_it_has_done() {
    let mut so_far = SoFar::of(3);
    assert_eq!(so_far.told(), "interrupted: nothing was ordered");
    so_far.ordered.push("add-guest-7".to_owned());
    so_far.ordered.push("add-guest-8".to_owned());
    assert_eq!(
        so_far.told(),
        "interrupted: 2 of 3 changes were ordered and go on, 0 of them are done: add-guest-7, \
         add-guest-8; 1 was not ordered; `hitless get changes` shows them"
    );
    so_far.ordered.push("add-guest-9".to_owned());
    so_far.over = 1;
    assert_eq!(
        so_far.told(),
        "interrupted: 3 of 3 changes were ordered and go on, 1 of them is done: add-guest-7, \
         add-guest-8, add-guest-9; `hitless get changes` shows them"
    );
}
