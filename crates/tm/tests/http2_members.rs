//! Members that speak HTTP/2: streams of many clients on few connections.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::h2::H2Client;
use common::{Echo, HttpClient, Instance, Options, h2_member, own_address, wait_for};
use hitless_harness::needs;
use hitless_proto::http2::{ErrorCode, Limits};
use hitless_tm::control::{Outcome, Request};

fn site(members: &[SocketAddr]) -> String {
    let members: Vec<String> = members.iter().map(|member| format!("'{member}'")).collect();
    format!(
        "timeouts: {{ response: 3s }}\npools:\n  web: {{ members_protocol: http2, members: [{}] }}\n\
         virtual_servers:\n  web: {{ listen: '{}', protocol: http, pool: web }}\n",
        members.join(", "),
        own_address()
    )
}

fn stays() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(false))
}

fn start(member: &Echo) -> (Instance, SocketAddr) {
    let options = Options {
        threads: 1,
        ..Options::default()
    };
    let instance = Instance::start_with(&site(&[member.address]), &options);
    let address = instance.address("web");
    (instance, address)
}

#[test]
fn streams_of_many_clients_share_few_connections() {
    let member = h2_member::start(Limits::default(), stays());
    let (instance, address) = start(&member);
    let mut clients: Vec<H2Client> = (0..10).map(|_| H2Client::connect(address)).collect();
    for round in 0..3_usize {
        let mut asked = Vec::new();
        for (number, client) in clients.iter_mut().enumerate() {
            for place in 0..8_usize {
                let count = number * 9_000 + place * 1_000 + round;
                asked.push((number, client.get(&format!("/{count}")), count));
            }
            client.turn();
        }
        for (number, stream, count) in asked {
            clients[number].expect_pattern(stream, count);
        }
    }
    assert!(member.accepted.load(Ordering::Relaxed) <= 2);
    assert!(clients.iter().all(|client| client.told_to_go.is_empty()));
    let open = instance.status()["pools"][0]["members"][0]["traffic"]["connections"].clone();
    assert_eq!(open, 0, "requests that use the member now");
}

#[test]
fn monitors_speak_http_2_to_such_members() {
    let member = h2_member::start(Limits::default(), stays());
    let old = Echo::http();
    let text = site(&[member.address, old.address]).replace(
        "members_protocol",
        "monitor: { http: { path: /7, interval: 50ms, fall: 1 } }, members_protocol",
    );
    let instance = Instance::start(&text);
    let health = |at: usize| {
        let status = instance.status();
        let member = &status["pools"][0]["members"][at];
        (member["address"].clone(), member["health"].clone())
    };
    for (at, member, expected) in [(0, &member, "up"), (1, &old, "down")] {
        wait_for("the health", || (health(at).1 == expected).then_some(()));
        assert_eq!(health(at).0, member.address.to_string());
    }
    let mut client = H2Client::connect(instance.address("web"));
    for count in 0..10 {
        client.ask(count);
    }
}

#[test]
fn a_call_with_bodies_both_ways_ends_with_trailers() {
    let member = h2_member::start(Limits::default(), stays());
    let (_instance, address) = start(&member);
    let mut client = H2Client::connect(address);
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    let call = client.open("POST", "/grpc", &fields, false);
    for number in 0..30_usize {
        let message = vec![number as u8; 5_000];
        client.send(call, &message, false);
        let whole = (number + 1) * 5_000;
        client.until("the echo", |client| client.came[&call].body.len() == whole);
    }
    client.send(call, &[], true);
    let answer = client.finish(call);
    assert_eq!((answer.status, answer.field("x-from")), (200, Some("h2")));
    assert_eq!(
        answer.trailers,
        Some(vec![("grpc-status".into(), "0".into())])
    );
    // One that sends trailers itself, and a large body in one go.
    let call = client.open("POST", "/grpc", &fields, false);
    client.send(call, &vec![7; 600_000], false);
    client.send_trailers(call, &[("x-sum", "1")]);
    let answer = client.finish(call);
    assert_eq!(answer.body.len(), 600_000);
    assert!(answer.trailers.is_some());
}

#[test]
fn resets_have_the_right_code_on_either_side() {
    let member = h2_member::start(Limits::default(), stays());
    let (instance, address) = start(&member);
    let mut client = H2Client::connect(address);
    let mut ask = |path: &str| {
        let stream = client.get(path);
        let answer = client.finish(stream);
        (answer.status, answer.reset)
    };
    assert_eq!(ask("/reset"), (502, None));
    let code = format!("Peer({:?})", ErrorCode::CANCEL);
    assert_eq!(ask("/cut"), (200, Some(code)));
    assert_eq!(ask("/slow"), (504, None));
    // A client that goes away takes its stream along, and no other.
    let gone = client.get("/slow");
    let other = client.get("/500000");
    client.turn();
    client.reset(gone);
    client.expect_pattern(other, 500_000);
    client.ask(5);
    assert_eq!(member.accepted.load(Ordering::Relaxed), 1);
    assert_eq!(instance.metric("hitless_timeouts_total"), 1.0);
    // HTTP/1.1 is not translated for such members yet, and says so.
    let mut old = HttpClient::connect(address);
    old.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    let (head, _) = old.answer();
    assert!(head.starts_with("HTTP/1.1 505"), "{head}");
}

#[test]
fn a_member_that_takes_few_streams_or_leaves_loses_no_request() {
    let limits = Limits {
        streams_max: 3,
        ..Limits::default()
    };
    let leaves = stays();
    let (member, gone) = (h2_member::start(limits, Arc::clone(&leaves)), Echo::http());
    let gone_address = gone.address;
    drop(gone);
    wait_for("a closed port", || TcpStream::connect(gone_address).err());
    let instance = Instance::start(&site(&[gone_address, member.address]));
    let mut client = H2Client::connect(instance.address("web"));
    client.ask(9);
    for _ in 0..5 {
        let streams: Vec<u32> = (0..12).map(|_| client.get("/70000")).collect();
        for stream in streams {
            client.expect_pattern(stream, 70_000);
        }
        // What it has not taken when it leaves goes on another connection.
        leaves.store(true, Ordering::Relaxed);
        let stream = client.get("/41");
        client.expect_pattern(stream, 41);
        assert!(!leaves.load(Ordering::Relaxed));
    }
}

#[test]
fn a_stream_that_nobody_reads_holds_up_no_other_of_the_member() {
    let member = h2_member::start(Limits::default(), stays());
    let (_instance, address) = start(&member);
    let mut slow = H2Client::connect(address);
    slow.releases = false;
    let stalled: Vec<u32> = (0..10).map(|_| slow.get("/900000")).collect();
    slow.until("full windows", |client| {
        stalled
            .iter()
            .all(|stream| client.came[stream].body.len() > 60_000)
    });
    let mut client = H2Client::connect(address);
    for _ in 0..20 {
        client.ask(200_000);
    }
    slow.releases = true;
    for stream in stalled {
        let held = slow.came[&stream].body.len();
        slow.release(stream, held);
        slow.expect_pattern(stream, 900_000);
    }
    assert_eq!(member.accepted.load(Ordering::Relaxed), 1);
}

/// Calls whose every byte is checked, in the midst of messages both ways.
struct Calls {
    client: H2Client,
    call: u32,
    big: u32,
    sent: usize,
}

impl Calls {
    fn start(address: SocketAddr) -> Self {
        let mut client = H2Client::connect(address);
        client.releases = false;
        let big = client.get("/4000000");
        client.until("a part", |client| client.came[&big].body.len() > 60_000);
        let call = client.open("POST", "/grpc", &[], false);
        client.releases = true;
        let mut calls = Self {
            client,
            call,
            big,
            sent: 0,
        };
        calls.go_on();
        calls.client.releases = false;
        calls
    }

    fn go_on(&mut self) {
        let (call, client) = (self.call, &mut self.client);
        client.send(call, &[3; 7_000], false);
        self.sent += 7_000;
        let sent = self.sent;
        client.until("the echo", |client| client.came[&call].body.len() == sent);
    }

    fn finish(mut self) {
        self.client.releases = true;
        self.go_on();
        self.client.send(self.call, &[], true);
        let answer = self.client.finish(self.call);
        assert_eq!((answer.status, answer.reset), (200, None));
        assert!(answer.body.iter().all(|byte| *byte == 3));
        assert!(answer.trailers.is_some());
        let held = self.client.came[&self.big].body.len();
        self.client.release(self.big, held);
        self.client.expect_pattern(self.big, 4_000_000);
        assert!(self.client.told_to_go.is_empty());
    }
}

#[test]
fn takeovers_carry_both_sides_in_the_midst_of_messages() {
    let member = h2_member::start(Limits::default(), stays());
    let instance = Instance::start(&site(&[member.address]));
    let address = instance.address("web");
    let mut calls: Vec<Calls> = (0..12).map(|_| Calls::start(address)).collect();
    let before = member.accepted.load(Ordering::Relaxed);
    for round in 0..4 {
        instance.install(&format!("build-{round}"), "");
        let reply = instance.call(Request::Upgrade);
        assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
        let status = instance.status();
        let change = status["changes"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone();
        assert_eq!(change["ledger"]["carried"]["takeover"], 12, "{change}");
        assert_eq!(change["ledger"]["reset"], 0, "{change}");
        for one in &mut calls {
            one.client.releases = true;
            one.go_on();
            one.client.releases = false;
        }
    }
    assert_eq!(member.accepted.load(Ordering::Relaxed), before);
    calls.into_iter().for_each(Calls::finish);
}

#[test]
fn a_successor_that_fails_gives_all_back() {
    let member = h2_member::start(Limits::default(), stays());
    let (instance, address) = start(&member);
    let mut calls: Vec<Calls> = (0..30).map(|_| Calls::start(address)).collect();
    for fault in ["die-1", "die-2", "hang-2", "die-end"] {
        instance.install("bad", fault);
        let reply = instance.call(Request::Upgrade);
        assert_ne!(reply.outcome, Outcome::Done, "{}", reply.body);
        for one in &mut calls {
            one.client.releases = true;
            one.go_on();
            one.client.releases = false;
        }
    }
    calls.into_iter().for_each(Calls::finish);
}

#[test]
fn h2load_loses_nothing_over_upgrades() {
    if !needs::program("h2load", "nghttp2-client") {
        return;
    }
    let member = h2_member::start(Limits::default(), stays());
    let instance = Instance::start(&site(&[member.address]));
    let address = instance.address("web");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                instance.install(&format!("build-{count}"), "");
                let reply = instance.call(Request::Upgrade);
                assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
            }
        });
        for (path, count) in [("100", "3000"), ("20000", "1000"), ("300000", "60")] {
            let url = format!("http://{address}/{path}");
            let output = Command::new("timeout")
                .args(["60", "h2load", "-n", count, "-c", "4", "-m", "20", &url])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let all = format!("{count} succeeded, 0 failed, 0 errored, 0 timeout");
            let is_good = text.contains(&all);
            stop.store(!is_good, Ordering::Relaxed);
            assert!(is_good, "{text}");
        }
        stop.store(true, Ordering::Relaxed);
    });
}
