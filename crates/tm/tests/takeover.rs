//! The program is replaced under traffic: every connection is carried at any byte, whatever the
//! successor does.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::h2::H2Client;
use common::{Echo, HttpClient, Instance, PATIENCE, Stream, header, own_address, wait_for};
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

/// Streams, and HTTP clients in every phase.
struct Traffic {
    streams: Vec<Stream>,
    idle: Vec<HttpClient>,
    in_head: Vec<HttpClient>,
    in_body: Vec<HttpClient>,
    reading: Vec<HttpClient>,
    /// HTTP/2: without a stream; inside a field block; with a body half sent beside another that is
    /// half received, and a frame cut in its midst.
    h2_idle: Vec<H2Client>,
    h2_in_head: Vec<(H2Client, u32, Vec<u8>)>,
    h2_busy: Vec<Busy>,
}

struct Busy {
    client: H2Client,
    post: u32,
    big: u32,
    rest: Vec<u8>,
}

const BODY: usize = 300_000;
const BIG: usize = 8_000_000;

impl Traffic {
    fn start(instance: &Instance) -> Self {
        let (raw, web) = (instance.address("raw"), instance.address("web"));
        let stream = |seed: u64| {
            let window = if seed < 4 { 1 << 18 } else { 2000 };
            Stream::start(raw, seed, window, Duration::from_millis(50))
        };
        let streams: Vec<Stream> = (0..60).map(stream).collect();
        let connect = |_| HttpClient::connect(web);
        let mut traffic = Self {
            streams,
            idle: (0..60).map(connect).collect(),
            in_head: (0..40).map(connect).collect(),
            in_body: (0..20).map(connect).collect(),
            reading: (0..6).map(connect).collect(),
            h2_idle: (0..10).map(|_| H2Client::connect(web)).collect(),
            h2_in_head: Vec::new(),
            h2_busy: (0..8).map(|seed| Busy::start(web, seed)).collect(),
        };
        for client in &mut traffic.h2_idle {
            client.ask(3_000);
        }
        for cut in 1..8 {
            let mut client = H2Client::connect(web);
            client.ask(30);
            let stream = client.get("/4321");
            let bytes = client.take_unsent();
            client.send_raw(&bytes[..cut * 2]);
            traffic
                .h2_in_head
                .push((client, stream, bytes[cut * 2..].to_vec()));
        }
        for (count, client) in traffic.idle.iter_mut().enumerate() {
            client.get(count);
        }
        for client in &mut traffic.in_head {
            client.get(10);
            client.send(b"GET /12 HTTP/1.1\r\nHo");
        }
        for client in &mut traffic.in_body {
            let head = format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {BODY}\r\n\r\n");
            client.send(head.as_bytes());
            client.send(&vec![b'x'; BODY / 2]);
        }
        for client in &mut traffic.reading {
            // More than all socket buffers hold: the rest waits in the worker and at the member.
            client.send(format!("GET /{BIG} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
        }
        traffic.wait_progress();
        wait_for("all to be accepted", || {
            let accepted = instance.metric("hitless_connections");
            (accepted == traffic.count() as f64).then_some(())
        });
        traffic
    }

    fn count(&self) -> u64 {
        let clients =
            self.idle.len() + self.in_head.len() + self.in_body.len() + self.reading.len();
        let h2 = self.h2_idle.len() + self.h2_in_head.len() + self.h2_busy.len();
        (self.streams.len() + clients + h2) as u64
    }

    fn wait_progress(&self) {
        let seen: Vec<u64> = self.streams.iter().map(Stream::position).collect();
        for (stream, seen) in self.streams.iter().zip(seen) {
            wait_for("progress", || (stream.position() > seen).then_some(()));
        }
    }

    /// Everything that was begun goes on where it was, on the same connections.
    fn finish(mut self) {
        self.wait_progress();
        for client in &mut self.in_head {
            client.send(b"st: test\r\n\r\n");
            let head = client.expect_pattern(12);
            assert_eq!(header(&head, "connection"), None, "nobody is told to close");
            client.get(1);
        }
        for client in &mut self.in_body {
            client.send(&vec![b'x'; BODY - BODY / 2]);
            let (head, body) = client.answer();
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            assert_eq!(body.len(), BODY);
            assert!(body.iter().all(|&byte| byte == b'x'));
            client.get(2);
        }
        for client in &mut self.reading {
            client.expect_pattern(BIG);
            client.get(3);
        }
        for client in &mut self.idle {
            client.get(100);
        }
        for client in &mut self.h2_idle {
            client.ask(100);
            assert!(client.told_to_go.is_empty());
        }
        for (client, stream, rest) in &mut self.h2_in_head {
            client.send_raw(rest);
            client.expect_pattern(*stream, 4321);
            client.ask(5);
            assert!(client.told_to_go.is_empty());
        }
        for busy in self.h2_busy {
            busy.finish();
        }
        for stream in &self.streams {
            stream.tell_to_finish();
        }
        for stream in self.streams {
            stream.finish().unwrap();
        }
    }
}

impl Busy {
    fn start(web: std::net::SocketAddr, seed: usize) -> Self {
        let mut client = H2Client::connect(web);
        client.releases = false;
        let big = client.get(&format!("/{BIG}"));
        client.until("a part", |client| client.came[&big].body.len() > 60_000);
        let length = BODY.to_string();
        let post = client.open("POST", "/", &[("content-length", &length)], false);
        client.send(post, &vec![b'y'; BODY / 2], false);
        client.until("an empty queue", H2Client::is_flushed);
        // A frame of which some of the header or of the data is missing.
        client.send(post, &[b'y'; 20], false);
        let bytes = client.take_unsent();
        let cut = 3 * seed + 1;
        client.send_raw(&bytes[..cut]);
        let rest = bytes[cut..].to_vec();
        Self {
            client,
            post,
            big,
            rest,
        }
    }

    fn finish(mut self) {
        let client = &mut self.client;
        client.send_raw(&self.rest);
        client.releases = true;
        let held = client.came[&self.big].body.len();
        client.release(self.big, held);
        client.send(self.post, &vec![b'y'; BODY - BODY / 2 - 20], true);
        let answer = client.finish(self.post);
        assert_eq!((answer.status, answer.reset), (200, None));
        assert_eq!(answer.body.len(), BODY);
        assert!(answer.body.iter().all(|&byte| byte == b'y'));
        client.expect_pattern(self.big, BIG);
        client.ask(77);
        assert!(client.told_to_go.is_empty());
    }
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
