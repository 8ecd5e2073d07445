//! Controller, three agents and their guests' ingresses in one process, over real sockets, with
//! data planes in memory: adding, draining, calling back, deadlines, killing each role, a guest's
//! death, nodes that leave and that are off.

#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use std::collections::BTreeMap;

use hitless_api::{AtDeadline, BucketRun, ChangeState, GuestPhase, Order, WaitCode};
use hitless_control::node;
use hitless_core::row::{BUCKETS, Bucket};
use support::TestCluster;

#[test]
fn a_cluster_lives_through_its_changes() {
    let mut cluster = TestCluster::new();
    let refused = cluster.client.order(&Order::AddGuest {
        guest: "g1".into(),
        node: "n1".into(),
    });
    assert!(refused.unwrap_err().to_string().contains("no node"));
    assert!(
        cluster
            .client
            .put_site("nonsense")
            .unwrap_err()
            .to_string()
            .contains("line 1")
    );
    cluster.add_node("n1");
    cluster.add_node("n2");
    cluster.add_node("n3");
    cluster.client.put_site("good").unwrap();
    cluster.add_guest("g1", "n1");
    cluster.settled();
    cluster.check_rest(&["g1"]);
    cluster.add_guest("g2", "n2");
    cluster.settled();
    cluster.check_rest(&["g1", "g2"]);
    // A guest that joins is given its share, nothing else changes its owner, and none of those that
    // are there loses more than another.
    let before = cluster.table();
    cluster.add_guest("g3", "n3");
    cluster.settled();
    cluster.check_rest(&["g1", "g2", "g3"]);
    let slot = |name: &str| cluster.client.guest(name).unwrap().slot.unwrap();
    let mut moved = BTreeMap::<u16, usize>::new();
    for (before, now) in before.iter().zip(cluster.table()) {
        let (before, now) = (before.head().unwrap(), now.head().unwrap());
        if before != now {
            assert_eq!(now.number(), slot("g3"));
            *moved.entry(before.number()).or_default() += 1;
        }
    }
    let owned = cluster.client.guest("g3").unwrap().buckets_owned as usize;
    assert_eq!(moved.values().sum::<usize>(), owned);
    assert!(owned.abs_diff(BUCKETS / 3) <= 1, "{owned}");
    let (g1, g2) = (moved[&slot("g1")], moved[&slot("g2")]);
    assert!(g1.abs_diff(g2) <= 1, "{moved:?}");

    // A drain waits for the last connection, says so, and can be called back.
    let held = |guest: &str, node: usize, live: &[(Bucket, u32)]| cluster.hold(guest, node, live);
    let of_g2 = cluster.bucket_of("g2");
    held("g2", 1, &[(of_g2, 3)]);
    let drain = Order::DrainGuest {
        guest: "g2".into(),
        deadline_s: None,
        at_deadline: AtDeadline::Close,
        remove: false,
    };
    let change = cluster.order(drain.clone());
    cluster.until("waiting for connections", |status| {
        status
            .waits
            .iter()
            .any(|wait| wait.code == WaitCode::ConnectionsLive)
            && cluster
                .client
                .guest("g2")
                .is_ok_and(|guest| guest.buckets_owned == 0 && guest.buckets_standby == 1)
    });
    assert_eq!(
        cluster.client.guest("g2").unwrap().phase,
        GuestPhase::Draining
    );
    // Each bucket says for itself: one waits, for whom and for which change; others are settled.
    cluster.until("but one settled", |_| {
        let runs = cluster.client.buckets().unwrap().items;
        let waiting: Vec<_> = runs.iter().filter(|run| run.wait.is_some()).collect();
        let is_it = |run: &BucketRun| (run.first, run.last) == (of_g2.0, of_g2.0);
        matches!(waiting[..], [one] if is_it(one))
    });
    let bucket = cluster.client.bucket(of_g2.0).unwrap();
    let wait = bucket.wait.unwrap();
    assert_eq!(wait.code, WaitCode::ConnectionsLive);
    assert_eq!(
        (wait.objects, wait.connections),
        (vec!["g2".to_owned()], Some(3))
    );
    assert_eq!(wait.change.as_ref(), Some(&change));
    assert_eq!(
        wait.ends_when,
        "the 3 connections that g2 holds of it have ended"
    );
    // It is behind the head: whoever leads, it is another.
    let behind = bucket.row.iter().position(|name| name == "g2");
    assert!(behind.is_some_and(|at| at > 0), "{:?}", bucket.row);
    let settled = cluster.client.bucket(of_g2.0.wrapping_add(1)).unwrap();
    assert_eq!(
        (settled.wait, settled.row.contains(&"g2".to_owned())),
        (None, false)
    );
    cluster.client.call_back(&change).unwrap();
    cluster.settled();
    let runs = cluster.client.buckets().unwrap().items;
    assert!(runs.iter().all(|run| run.wait.is_none()), "{runs:?}");
    assert_eq!(
        cluster.client.change(&change).unwrap().state,
        ChangeState::CalledBack
    );
    cluster.check_rest(&["g1", "g2", "g3"]);
    // Packets that nobody knew stand beside its ledger, and are no losses in it.
    held("g2", 1, &[(of_g2, 3)]);
    let change = cluster.order(drain);
    cluster.count("g2", 1, "answered", 2);
    cluster.until("the alarm", |_| {
        let change = cluster.client.change(&change);
        change.is_ok_and(|change| change.unknown_reset == 2)
    });
    held("g2", 1, &[]);
    cluster.settled();
    let ended = cluster.client.change(&change).unwrap();
    assert_eq!(ended.state, ChangeState::Done);
    assert_eq!((ended.unknown_reset, ended.ledger.reset), (2, 0));
    assert_eq!(
        cluster.client.guest("g2").unwrap().phase,
        GuestPhase::Drained
    );
    cluster.check_rest(&["g1", "g3"]);

    // A controller that comes back goes on with what its store says, in the middle of a change too.
    let change = cluster.order(Order::UndrainGuest { guest: "g2".into() });
    cluster.stop_controller();
    cluster.start_controller();
    cluster.until("back", |status| status.settled && status.nodes_linked == 3);
    assert_eq!(
        cluster.client.change(&change).unwrap().state,
        ChangeState::Done
    );
    cluster.check_rest(&["g1", "g2", "g3"]);

    // Replaced programs, an upgrade, a site that a traffic manager refuses.
    let change = cluster.order(Order::ReplacePrograms {});
    cluster.settled();
    assert_eq!(
        cluster.client.change(&change).unwrap().state,
        ChangeState::Done
    );
    assert!(
        cluster
            .nodes
            .iter()
            .all(|node| *node.machine.director.replaced.lock().unwrap() == 1)
    );
    let change = cluster.order(Order::UpgradeTrafficManagers {
        program: "/bin/true".into(),
    });
    cluster.settled();
    assert_eq!(
        cluster.client.change(&change).unwrap().state,
        ChangeState::Done
    );
    let change = cluster.client.put_site("bad").unwrap().change;
    cluster.until("refused", |_| {
        cluster
            .client
            .change(&change)
            .is_ok_and(|c| c.state == ChangeState::Failed)
    });
    cluster.client.put_site("good again").unwrap();
    cluster.settled();
}

/// What a drain's deadline does with endless connections, as it was ordered.
#[test]
fn a_deadline_closes_and_names_what_is_left_or_gives_up() {
    let mut cluster = TestCluster::new();
    cluster.port += 2;
    cluster.add_node("n1");
    cluster.add_node("n2");
    cluster.client.put_site("good").unwrap();
    cluster.add_guest("g1", "n1");
    cluster.add_guest("g2", "n2");
    cluster.settled();
    let drain = |at_deadline, deadline_s, remove| Order::DrainGuest {
        guest: "g2".into(),
        deadline_s: Some(deadline_s),
        at_deadline,
        remove,
    };

    // Given up: nothing is closed, and it serves again.
    cluster.hold("g2", 1, &[(cluster.bucket_of("g2"), 2)]);
    let change = cluster.over(&cluster.order(drain(AtDeadline::GiveUp, 1, false)));
    assert_eq!(change.state, ChangeState::Failed);
    let failure = change.failure.unwrap();
    assert!(
        failure.contains("guest g2 had 2 connections left"),
        "{failure}"
    );
    assert_eq!((change.ledger.reset, change.closed), (0, None));
    cluster.settled();
    assert_eq!(
        cluster.client.guest("g2").unwrap().phase,
        GuestPhase::Serving
    );
    cluster.check_rest(&["g1", "g2"]);

    // Closed: the two are named, and the guest stays, drained.
    let change = cluster.order(drain(AtDeadline::Close, 4, false));
    // While it runs, it says how it gets on: they do not end by themselves, the deadline is an end.
    cluster.until("counting", |_| {
        let drain = cluster.client.change(&change).unwrap().drain;
        drain.is_some_and(|drain| {
            drain.left == Some(2)
                && drain.ends_per_s == Some(0.0)
                && drain.estimate == "the deadline ends it"
        })
    });
    let change = cluster.over(&change);
    assert_eq!(change.state, ChangeState::Done);
    assert_eq!((change.ledger.connections, change.ledger.reset), (2, 2));
    change.ledger.check().unwrap();
    let closed = change.closed.unwrap();
    assert_eq!(
        (closed.total, closed.named.len(), closed.left_out),
        (2, 2, 0)
    );
    for one in &closed.named {
        assert_eq!(one.guest, "g2");
        assert!(one.client.starts_with("10.9."), "{one:?}");
        assert_eq!(one.server, "203.0.113.10:80");
        assert_eq!(one.virtual_server.as_deref(), Some("raw"));
    }
    assert_eq!(change.drain, None);
    assert_eq!(
        cluster.client.guest("g2").unwrap().phase,
        GuestPhase::Drained
    );

    // More than are named, and the guest goes.
    cluster.order(Order::UndrainGuest { guest: "g2".into() });
    cluster.settled();
    cluster.hold("g2", 1, &[(cluster.bucket_of("g2"), 300)]);
    let change = cluster.over(&cluster.order(drain(AtDeadline::Close, 1, true)));
    assert_eq!(
        (change.state, change.ledger.reset),
        (ChangeState::Done, 300)
    );
    let closed = change.closed.unwrap();
    assert_eq!(
        (closed.total, closed.named.len(), closed.left_out),
        (300, 256, 44)
    );
    cluster.settled();
    assert!(cluster.client.guest("g2").is_err());
    cluster.check_rest(&["g1"]);
}

fn remove(node: &str, confirm_off: bool) -> Order {
    Order::RemoveNode {
        node: node.into(),
        deadline_s: None,
        at_deadline: AtDeadline::Close,
        confirm_off,
    }
}

/// A machine that is off cannot leave by itself: it is removed by the operator's word.
#[test]
fn a_node_that_is_off_is_removed_by_the_operator_s_word() {
    let mut cluster = TestCluster::new();
    cluster.port += 3;
    cluster.add_node("n1");
    cluster.add_node("n2");
    cluster.client.put_site("good").unwrap();
    cluster.add_guest("g1", "n1");
    cluster.add_guest("g2", "n2");
    cluster.settled();
    let client = cluster.client.clone();
    let refusal = |order: &Order| client.order(order).unwrap_err().to_string();
    let answers = refusal(&remove("n2", true));
    assert!(
        answers.contains("\"n2\" answers, so it is not off"),
        "{answers}"
    );
    // The machine's power is cut: the agent first, so that nobody tells of the guest's end.
    cluster.nodes[1].stop();
    cluster.nodes[1].machine.kill_guest("g2");
    cluster.until("missing", |status| status.nodes_linked == 1);
    let silent = refusal(&remove("n2", false));
    assert!(
        silent.contains("does not answer") && silent.contains("--confirm-off"),
        "{silent}"
    );
    let change = cluster.over(&cluster.order(remove("n2", true)));
    assert_eq!(change.state, ChangeState::Done);
    cluster.settled();
    assert_eq!(cluster.client.nodes().unwrap().items.len(), 1);
    assert_eq!(cluster.client.guests().unwrap().items.len(), 1);
    cluster.nodes.pop();
    cluster.check_rest(&["g1"]);
    let changes = cluster.client.changes().unwrap().items;
    let died = changes.iter().find(|one| one.kind == "guest-died").unwrap();
    assert_eq!(
        (died.object.as_deref(), died.state),
        (Some("g2"), ChangeState::Done)
    );
    // One that never came is removed without a word, and what was asked of it ends.
    let added = cluster.order(Order::AddNode { node: "n9".into() });
    cluster.add_guest("g9", "n9");
    let change = cluster.over(&cluster.order(remove("n9", false)));
    assert_eq!(change.state, ChangeState::Done);
    cluster.settled();
    assert_eq!(
        cluster.client.change(&added).unwrap().state,
        ChangeState::CalledBack
    );
    let changes = cluster.client.changes().unwrap().items;
    let waited = changes
        .iter()
        .find(|one| one.kind == "add-guest" && one.object.as_deref() == Some("g9"))
        .unwrap();
    assert_eq!(waited.failure.as_deref(), Some("guest g9 was removed"));
    // What was done stays as it was, whoever has gone since.
    let site = changes.iter().find(|one| one.kind == "apply-site").unwrap();
    assert_eq!((site.progress.done, site.progress.total), (0, 0));
}

#[test]
fn agents_and_guests_come_back() {
    let mut cluster = TestCluster::new();
    cluster.port += 1;
    cluster.add_node("n1");
    cluster.add_node("n2");
    cluster.client.put_site("good").unwrap();
    cluster.add_guest("g1", "n1");
    cluster.add_guest("g2", "n2");
    cluster.settled();
    cluster.check_rest(&["g1", "g2"]);
    let slot = |name: &str| cluster.client.guest(name).unwrap().slot;

    // A guest whose power is cut comes back as another kernel, with another slot.
    let before = slot("g2");
    cluster.hold("g2", 1, &[(cluster.bucket_of("g2"), 7)]);
    cluster.until("counted", |_| {
        cluster
            .client
            .guest("g2")
            .is_ok_and(|g2| g2.live == Some(7))
    });
    // Agents' reports of what was counted come twice a second.
    cluster.nodes[1].machine.kill_guest("g2");
    cluster.until("another slot", |_| {
        slot("g2").is_some_and(|now| Some(now) != before)
    });
    cluster.settled();
    cluster.check_rest(&["g1", "g2"]);
    // Its death is a change that nobody ordered, with what it cost and when it was seen.
    let changes = cluster.client.changes().unwrap().items;
    let deaths: Vec<_> = changes
        .iter()
        .filter(|one| one.kind == "guest-died")
        .collect();
    let [died] = deaths[..] else {
        panic!("{deaths:?}")
    };
    assert_eq!(
        (died.object.as_deref(), died.state),
        (Some("g2"), ChangeState::Done)
    );
    assert_eq!((died.ledger.connections, died.ledger.reset), (7, 7));
    died.ledger.check().unwrap();
    let death = died.death.as_ref().unwrap();
    assert_eq!((death.node.as_str(), Some(death.slot)), ("n2", before));
    assert_eq!(death.connections, Some(7));
    let nodes: Vec<&str> = death.believed_us.keys().map(String::as_str).collect();
    assert_eq!(nodes, ["n1", "n2"], "{death:?}");
    assert!(
        death
            .believed_us
            .values()
            .all(|at| Some(*at) <= death.rows_us),
        "{death:?}"
    );
    // An agent that comes back adopts its director's rows, and orders nothing anew.
    let rows = cluster.nodes[0]
        .machine
        .director
        .rows
        .lock()
        .unwrap()
        .clone();
    let (folder, port) = (cluster.folder.path().to_owned(), cluster.port);
    cluster.nodes[0].stop();
    cluster.until("missing", |status| status.nodes_linked == 1);
    cluster.nodes[0].start(&folder, port);
    cluster.until("back", |status| status.nodes_linked == 2);
    cluster.settled();
    assert!(rows == *cluster.nodes[0].machine.director.rows.lock().unwrap());

    // A node leaves: its guests are drained and removed, its director takes no part any more.
    let change = cluster.order(remove("n2", false));
    cluster.until("gone", |_| {
        cluster
            .client
            .change(&change)
            .is_ok_and(|c| c.state == ChangeState::Done)
    });
    let (_, thread) = cluster.nodes[1].agent.take().unwrap();
    assert_eq!(thread.join().unwrap(), node::Ended::Left);
    cluster.settled();
    assert_eq!(cluster.client.nodes().unwrap().items.len(), 1);
    cluster.check_rest(&["g1"]);
}
