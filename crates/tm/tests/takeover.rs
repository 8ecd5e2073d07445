//! The program is replaced under traffic: every connection is carried at any byte, whatever the
//! successor does.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::traffic::Traffic;
use common::{Echo, HttpClient, Instance, PATIENCE, own_address, wait_for};
use hitless_tm::control::{Client, Outcome, Request};
use rustix::process::{Pid, Signal, kill_process};

fn site(tcp: &Echo, http: &Echo) -> String {
    format!(
        "timeouts: {{ request_head: 5m, idle: 5m, response: 5m }}\npools:\n  raw: {{ members: ['{}'] }}\n  web: {{ members: ['{}'] }}\nvirtual_servers:\n  \
         raw: {{ listen: '{}', protocol: tcp, pool: raw }}\n  \
         web: {{ listen: '{}', protocol: http, pool: web }}\n",
        tcp.address,
        http.address,
        own_address(),
        own_address()
    )
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn an_upgrade_carries_every_connection_and_replaces_the_keeper() {
    let (tcp, http) = (Echo::start(), Echo::http());
    let instance = Instance::start(&site(&tcp, &http));
    let traffic = Traffic::start(&instance);
    let connections = traffic.count();
    assert!(connections >= 180);
    let (old, keeper) = (instance.worker_pid(), instance.child.id());

    for round in 0..2 {
        instance.install(&format!("build-{round}"), "");
        let reply = instance.call(Request::Upgrade);
        assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
        let status = instance.status();
        assert_eq!(
            status["program"]["build"],
            format!("build-{round}"),
            "{status}"
        );
        assert_eq!(
            status["program"]["keeper_pid"], keeper,
            "the keeper is the same process"
        );
        let change = status["changes"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone();
        let ledger = &change["ledger"];
        assert_eq!(ledger["carried"]["takeover"], connections, "{change}");
        assert_eq!(ledger["connections"], connections, "{change}");
        assert_eq!(ledger["reset"], 0, "{change}");
        assert!(instance.metric("hitless_change_mid_message_connections") >= 60.0);
        traffic.wait_progress();
    }
    let until = Instant::now() + Duration::from_secs(2);
    wait_for("the old worker's end", || (!is_alive(old)).then_some(()));
    assert!(Instant::now() < until, "the old worker is gone within 2 s");
    assert_eq!(instance.metric("hitless_upgrades_total"), 2.0);
    // New connections go to the new program.
    HttpClient::connect(instance.address("web")).get(5);
    traffic.finish();
}

/// What is asked for while an upgrade is under way waits for its turn, and the keeper that the
/// upgrade brings answers it.
#[test]
fn requests_that_wait_outlive_the_keeper_that_replaces_itself() {
    let (tcp, http) = (Echo::start(), Echo::http());
    let instance = Instance::start(&site(&tcp, &http));
    instance.install("build-1", "");
    let asked = [
        Request::Upgrade,
        Request::Reload,
        Request::Upgrade,
        Request::Reload,
    ];
    let (answered, answers) = std::sync::mpsc::channel();
    for request in asked {
        let client = Client::connect(&instance.run_folder()).unwrap();
        let answered = answered.clone();
        std::thread::spawn(move || answered.send(client.call(request)));
    }
    for _ in asked {
        let reply = answers.recv_timeout(PATIENCE).expect("an answer");
        assert_eq!(reply.unwrap().outcome, Outcome::Done);
    }
    assert_eq!(instance.metric("hitless_upgrades_total"), 2.0);
    assert_eq!(instance.metric("hitless_reloads_total"), 2.0);

    // Signals wait likewise; of one kind only one is pending at a time.
    let keeper = Pid::from_raw(instance.child.id() as i32).unwrap();
    let client = Client::connect(&instance.run_folder()).unwrap();
    let upgrade = std::thread::spawn(move || client.call(Request::Upgrade));
    kill_process(keeper, Signal::HUP).unwrap();
    assert_eq!(upgrade.join().unwrap().unwrap().outcome, Outcome::Done);
    wait_for("the reload by a signal", || {
        (instance.metric("hitless_reloads_total") == 3.0).then_some(())
    });
}

/// A habit from other programs must not cut everything.
#[test]
fn a_signal_without_a_meaning_changes_nothing() {
    let (tcp, http) = (Echo::start(), Echo::http());
    let instance = Instance::start(&site(&tcp, &http));
    let traffic = Traffic::start(&instance);
    let keeper = Pid::from_raw(instance.child.id() as i32).unwrap();
    kill_process(keeper, Signal::USR1).unwrap();
    kill_process(keeper, Signal::HUP).unwrap();
    wait_for("the reload that came behind it", || {
        (instance.metric("hitless_reloads_total") == 1.0).then_some(())
    });
    traffic.wait_progress();
    traffic.finish();
}

/// `threads`: event loops of the worker.
fn a_bad_successor_changes_nothing(fault: &str, threads: u32, expected: &str) {
    let (tcp, http) = (Echo::start(), Echo::http());
    let options = common::Options {
        threads,
        ..common::Options::default()
    };
    let instance = Instance::start_with(&site(&tcp, &http), &options);
    let traffic = Traffic::start(&instance);
    let pid = instance.worker_pid();
    instance.install("bad", fault);
    let reply = instance.call(Request::Upgrade);
    assert_ne!(reply.outcome, Outcome::Done, "{}", reply.body);
    assert!(reply.body.contains(expected), "{}", reply.body);
    assert_eq!(instance.worker_pid(), pid, "the worker before serves on");
    let status = instance.status();
    let changes = status["changes"].as_array().unwrap();
    assert_eq!(
        changes.last().unwrap()["kind"],
        "upgrade_failed",
        "{status}"
    );
    assert_eq!(status["config"], "synced", "{status}");
    if fault != "layout" {
        for lost in ["reset_connections", "lost_requests"] {
            let lost = format!("hitless_change_{lost}{{change=\"crash\"}}");
            assert_eq!(instance.labelled(&lost), 0.0, "{lost}");
        }
    }
    // And the next, good one takes over what goes on, in the midst of every message.
    traffic.wait_progress();
    HttpClient::connect(instance.address("web")).get(5);
    instance.install("good", "");
    let reply = instance.call(Request::Upgrade);
    assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
    traffic.finish();
}

#[test]
fn a_successor_that_dies_among_raw_tcp_loses_nothing() {
    a_bad_successor_changes_nothing("die-1", 2, "keeps serving");
}

/// 186 connections on two lanes: at the fifth batch of the fuller one, raw TCP is over and some
/// HTTP was acknowledged.
#[test]
fn a_successor_that_dies_with_requests_acknowledged_loses_nothing() {
    a_bad_successor_changes_nothing("die-5", 2, "keeps serving");
}

#[test]
fn a_successor_that_hangs_with_requests_acknowledged_loses_nothing() {
    a_bad_successor_changes_nothing("hang-5", 2, "no acknowledgement");
}

/// One lane: with more, another one may have begun to serve.
#[test]
fn a_successor_that_dies_at_the_end_loses_nothing() {
    a_bad_successor_changes_nothing("die-end", 1, "keeps serving");
}

#[test]
fn a_successor_that_hangs_at_the_end_loses_nothing() {
    a_bad_successor_changes_nothing("hang-end", 1, "takes too long");
}

#[test]
fn a_successor_of_another_layout_is_refused_before_anything_moves() {
    a_bad_successor_changes_nothing("layout", 2, "layout 99");
}
