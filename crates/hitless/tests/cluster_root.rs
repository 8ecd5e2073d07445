//! Two nodes and two guests in network namespaces, with the real programs: connections live on
//! while guests are added and drained, agents, ingresses and the controller are killed, and packets
//! change their director. Needs root; says so and passes without.

#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod bench;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bench::{Bench, Stream, VIP, WebClient, kill, pid_in, stream};
use hitless_api::{AtDeadline, ChangeState, Order};
use hitless_net::{Namespace, Netlink};

#[test]
fn connections_live_through_a_cluster_s_changes_root() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.start(&["g1"]);

    let (stop, turns) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let streams: Vec<Stream> = (0..30)
        .map(|number| stream(&bench.client, number, &stop, &turns))
        .collect();
    let goes_on = |bench: &Bench| {
        let before = turns.load(Ordering::Relaxed);
        bench.until("going on", || {
            (turns.load(Ordering::Relaxed) > before + 90).then_some(())
        });
    };
    goes_on(&bench);
    // A guest joins, on the other node, where fewest are; packets come by the other director.
    let scale = bench.hitless(&["scale", "2", "--watch"]).output().unwrap();
    let said = String::from_utf8(scale.stdout).unwrap();
    let watched = String::from_utf8(scale.stderr).unwrap();
    assert!(scale.status.success(), "{said}{watched}");
    assert!(
        said.starts_with("add-guest-") && said.contains(": done; ") && said.contains(" 0 reset"),
        "{said}"
    );
    assert!(watched.contains("/32768 buckets"), "{watched}");
    bench.settled();
    bench.direct_by(2);
    goes_on(&bench);
    // The first guest is drained; its connections live on behind the second chance; it is called
    // back.
    bench
        .api
        .order(&Order::DrainGuest {
            guest: "g1".into(),
            deadline_s: None,
            at_deadline: AtDeadline::Close,
            remove: false,
        })
        .unwrap();
    bench.until("out of the lead", || {
        bench
            .api
            .guest("g1")
            .ok()
            .filter(|guest| guest.buckets_owned == 0 && guest.buckets_standby <= 30)
    });
    let new = stream(&bench.client, 100, &stop, &turns);
    goes_on(&bench);
    assert!(
        bench
            .api
            .guest("g1")
            .unwrap()
            .live
            .is_some_and(|live| live >= 30)
    );
    bench.done(Order::UndrainGuest { guest: "g1".into() });
    // Every role is killed and comes back.
    bench
        .nodes
        .iter_mut()
        .filter_map(Option::take)
        .for_each(kill);
    bench.controller.take().into_iter().for_each(kill);
    goes_on(&bench);
    bench.start_controller();
    bench.start_node(1);
    bench.start_node(2);
    bench.settled();
    let pids: Vec<(PathBuf, u32)> = ["n1/guests/g1/ingress.pid", "n2/guests/guest-1/ingress.pid"]
        .iter()
        .map(|path| bench.folder.path().join(path))
        .map(|path| (path.clone(), pid_in(&path).unwrap()))
        .collect();
    for (_, pid) in &pids {
        let pid = rustix::process::Pid::from_raw(*pid as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    for (path, old) in &pids {
        bench.until("started again", || pid_in(path).filter(|pid| pid != old));
    }
    bench.settled();
    goes_on(&bench);
    bench.done(Order::ReplacePrograms {});
    goes_on(&bench);

    stop.store(true, Ordering::Relaxed);
    for stream in streams.into_iter().chain([new]) {
        assert!(stream.thread.join().unwrap().unwrap() > 0);
    }
    let counters = bench.api.counters().unwrap();
    let sum = |name: &str| -> u64 {
        counters
            .ingresses
            .iter()
            .filter_map(|ingress| ingress.counters.get(name))
            .sum()
    };
    assert!(
        sum("forwarded") + sum("restamped") > 0,
        "nothing went along a row: {counters:?}"
    );
    assert_eq!(sum("answered"), 0, "{counters:?}");
}

/// Two endless streams at a guest that is drained with a deadline: it names them, its ledger is the
/// clients' tally, and nobody else is touched.
#[test]
fn a_deadline_ends_endless_streams_by_name_root() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.start(&["g1"]);
    let (stop, turns) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let ended: Vec<Stream> = (0..2)
        .map(|number| stream(&bench.client, number, &stop, &turns))
        .collect();
    bench.add_guest("g2", 2);
    let drain = bench
        .hitless(&["drain", "g1", "--deadline", "6s", "--remove", "--watch"])
        .spawn()
        .unwrap();
    bench.until("out of the lead", || {
        let guest = bench.api.guest("g1").ok()?;
        (guest.buckets_owned == 0 && guest.buckets_standby <= 2).then_some(())
    });
    let other = stream(&bench.client, 9, &stop, &turns);
    // The buckets of the two say what they wait for, and all others are settled.
    let buckets = bench.hitless(&["get", "buckets"]).output().unwrap();
    let buckets = String::from_utf8(buckets.stdout).unwrap();
    let waiting: Vec<&str> = buckets
        .lines()
        .skip(1)
        .filter(|line| !line.contains("  settled  "))
        .collect();
    let is_of_g1 = |line: &&str| {
        line.contains("g2 > g1")
            && line.contains("the connection that g1 holds of it has ended")
            && line.contains("  drain-guest-")
    };
    assert!(
        matches!(waiting.len(), 1 | 2) && waiting.iter().all(is_of_g1),
        "{buckets}"
    );
    let drain = drain.wait_with_output().unwrap();
    let (said, watched) = (
        String::from_utf8(drain.stdout).unwrap(),
        String::from_utf8(drain.stderr).unwrap(),
    );
    assert!(drain.status.success(), "{said}{watched}");
    // How it went on: a rate, and no made-up end.
    assert!(
        watched.contains("2 connections left, 0.0 end per second")
            && watched.contains("(the deadline ends it)"),
        "{watched}"
    );
    // The clients' own tally.
    let froms: Vec<_> = ended.iter().map(|stream| stream.from).collect();
    for stream in ended {
        let error = stream.thread.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    assert!(said.contains(", 2 reset (of the whole cluster"), "{said}");
    assert!(
        said.contains("closed at the deadline: 2 connections\n"),
        "{said}"
    );
    let log = bench.log();
    for from in &froms {
        let line = format!("  {from} to raw ({VIP}), on g1\n");
        assert!(said.contains(&line), "{line} is not in {said}");
        let is_event = |line: &str| {
            line.contains("closed at the deadline") && line.contains(&from.to_string())
        };
        assert!(log.lines().any(is_event), "{from} is not in {log}");
    }
    let name = said.split(':').next().unwrap();
    let change = bench.api.change(name).unwrap();
    assert_eq!(change.ledger.reset, 2);
    change.ledger.check().unwrap();
    assert_eq!(
        change.closed.as_ref().map(|closed| closed.named.len()),
        Some(2)
    );
    let get = bench.hitless(&["get", "changes", name]).output().unwrap();
    let get = String::from_utf8(get.stdout).unwrap();
    assert!(get.contains(&format!("  {} to raw", froms[0])), "{get}");
    bench.settled();
    assert!(bench.api.guest("g1").is_err());

    // Whoever was elsewhere goes on.
    let before = turns.load(Ordering::Relaxed);
    bench.until("going on", || {
        (turns.load(Ordering::Relaxed) > before + 20).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    assert!(other.thread.join().unwrap().unwrap() > 0);

    // The node has no guest any more, and leaves in good order.
    bench.direct_by(2);
    let mut remove = bench.hitless(&["remove", "node", "n1", "--watch"]);
    let remove = remove.output().unwrap();
    let said = String::from_utf8(remove.stdout).unwrap();
    assert!(remove.status.success(), "{said}");
    bench.until("left", || {
        let nodes = bench.api.nodes().ok()?.items;
        (nodes.len() == 1).then_some(())
    });
    let log = bench.log();
    assert!(!log.contains("the data plane failed"), "{log}");
}

/// A guest dies while no controller runs: its own connections are lost, no other, and no new one is
/// refused. The controller that comes back tells of it, with the times that the agents saw.
#[test]
fn a_guest_that_dies_costs_its_own_connections_root() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.start(&["g1", "g2"]);
    let (stop, turns) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let streams: Vec<Stream> = (0..40)
        .map(|number| stream(&bench.client, number, &stop, &turns))
        .collect();
    let g2 = bench.namespace_of("n2", "g2");
    let held = bench.until("counted", || {
        let live = |guest| bench.api.guest(guest).ok()?.live;
        (live("g1")? + live("g2")? == 40).then(|| held_by(&g2))
    });
    assert!(!held.is_empty() && held.len() < 40, "{held:?}");

    bench.controller.take().into_iter().for_each(kill);
    cut_off(&g2);
    // New ones for as long as a new controller needs to be told, and longer: none is refused.
    let begun = Instant::now();
    let mut new = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        let mut socket = bench
            .client
            .run(|| TcpStream::connect(VIP))
            .unwrap()
            .unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        socket.write_all(b"new").unwrap();
        let mut answer = [0; 3];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"new");
        new += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(new >= 20, "only {new} in 4 s");
    let others = turns.load(Ordering::Relaxed);
    bench.start_controller();
    let died = bench.until("told of", || {
        let changes = bench.api.changes().ok()?.items;
        let died = changes
            .into_iter()
            .find(|change| change.kind == "guest-died");
        died.filter(|died| died.state.is_over())
    });
    bench.settled();

    assert_eq!(died.object.as_deref(), Some("g2"));
    assert_eq!(died.ledger.reset, held.len() as u64, "{died:?}");
    let death = died.death.as_ref().unwrap();
    assert_eq!(death.connections, Some(held.len() as u64), "{death:?}");
    let cut = death.cut_us.unwrap();
    let believed = death.believed_us.values().max().copied().unwrap();
    assert_eq!(death.believed_us.len(), 2, "{death:?}");
    // Before any controller was told, and with nobody's packets after it.
    assert!(believed < death.seen_us, "{death:?}");
    assert!(believed.saturating_sub(cut) < 2_000_000, "{death:?}");
    let last = death.last_packet_us.unwrap();
    assert!(last.saturating_sub(cut) < 2_000_000, "{death:?}");
    assert!(death.rows_us.is_some_and(|at| at >= believed), "{death:?}");
    let get = bench
        .hitless(&["get", "changes", &died.name])
        .output()
        .unwrap();
    let get = String::from_utf8(get.stdout).unwrap();
    assert!(get.contains("its link was cut (on n2, slot"), "{get}");
    assert!(bench.log().contains("a guest died"), "{}", bench.log());

    // The clients' tally: exactly the streams that its kernel held do not go on.
    bench.until("going on", || {
        (turns.load(Ordering::Relaxed) > others + 100).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    for stream in streams {
        let (from, result) = (stream.from, stream.thread.join().unwrap());
        assert_eq!(result.is_err(), held.contains(&from), "{from}: {result:?}");
    }
}

/// A drain tells clients to close where their protocol can, and is called back: those that were
/// told are counted, all others go on and are told nothing more.
#[test]
fn a_drain_that_is_called_back_counts_whom_it_told_to_close_root() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.start(&["g1"]);
    let (stop, turns) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let streams: Vec<Stream> = (0..4)
        .map(|number| stream(&bench.client, number, &stop, &turns))
        .collect();
    let mut clients: Vec<WebClient> = (0..6).map(|_| WebClient::connect(&bench.client)).collect();
    assert!(clients.iter_mut().all(|client| !client.ask()));
    bench.add_guest("g2", 2);
    let run = bench.folder.path().join("n1/g/g1/tm");
    let tells = |wanted: &str| {
        let status = ["status", "-o", "json", "--run-dir", run.to_str().unwrap()];
        bench.until(wanted, || {
            let status = bench.hitless(&status).output().unwrap();
            let status = String::from_utf8(status.stdout).unwrap();
            status
                .contains(&format!("\"tells_to_close\": {wanted}"))
                .then_some(())
        });
    };
    tells("false");
    let drain = Order::DrainGuest {
        guest: "g1".into(),
        deadline_s: None,
        at_deadline: AtDeadline::Close,
        remove: false,
    };
    let drain = bench.api.order(&drain).unwrap().change;
    tells("true");
    let mut told = clients.split_off(3);
    for client in &mut told {
        assert!(client.ask());
        assert!(client.is_at_end());
    }
    bench.until("counted", || {
        let change = bench.api.change(&drain).ok()?;
        (change.told_to_close == 3).then_some(())
    });
    let mut back = bench.hitless(&["call-back", &drain, "--watch"]);
    let back = back.output().unwrap();
    let said = String::from_utf8(back.stdout).unwrap();
    assert!(said.starts_with("undrain-guest-"), "{said}");
    assert!(back.status.success(), "{said}");
    tells("false");
    bench.settled();

    let change = bench.api.change(&drain).unwrap();
    assert_eq!(change.state, ChangeState::CalledBack);
    let ledger = &change.ledger;
    assert_eq!((ledger.told_to_close, ledger.reset), (3, 0), "{change:?}");
    assert!(change.ledger_by_counts);
    ledger.check().unwrap();
    let get = bench.hitless(&["get", "changes", &drain]).output().unwrap();
    let get = String::from_utf8(get.stdout).unwrap();
    assert!(
        get.contains("3 told to close") && get.contains("estimated from counts)"),
        "{get}"
    );
    for _ in 0..2 {
        assert!(clients.iter_mut().all(|client| !client.ask()));
    }
    let before = turns.load(Ordering::Relaxed);
    bench.until("going on", || {
        (turns.load(Ordering::Relaxed) > before + 20).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    for stream in streams {
        assert!(stream.thread.join().unwrap().unwrap() > 0);
    }
}

/// The clients of the VIP that a guest's kernel holds.
fn held_by(guest: &Namespace) -> BTreeSet<SocketAddr> {
    let pid = guest.processes().unwrap()[0];
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let address = |text: &str| {
        let (address, port) = text.split_once(':').unwrap();
        let address = u32::from_str_radix(address, 16).unwrap().to_ne_bytes();
        let port = u16::from_str_radix(port, 16).unwrap();
        SocketAddr::from((address, port))
    };
    let lines = table.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (address(fields[1]), address(fields[2]), fields[3] == "01")
    });
    let vip: SocketAddr = VIP.parse().unwrap();
    lines
        .filter(|(own, _, is_established)| *own == vip && *is_established)
        .map(|(_, client, _)| client)
        .collect()
}

/// Cuts a guest's link and kills all in it, as a machine that lost its power.
fn cut_off(guest: &Namespace) {
    Netlink::open(guest).unwrap().set_down("eth0").unwrap();
    for pid in guest.processes().unwrap() {
        if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
