//! HTTP/2 from clients by prior knowledge, members that speak HTTP/1.1.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::h2::H2Client;
use common::{
    Echo, HttpClient, Instance, Options, fill, own_address, read_head, wait_for, wrong_byte,
};
use hitless_harness::needs;
use hitless_proto::http2::{ErrorCode, Limits};
use hitless_tm::control::{Outcome, Request};

fn site(members: &[&Echo]) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|member| format!("'{}'", member.address))
        .collect();
    format!(
        "timeouts: {{ response: 3s }}\npools:\n  web: {{ members: [{}] }}\nvirtual_servers:\n  \
         web: {{ listen: '{}', protocol: http, pool: web }}\n",
        members.join(", "),
        own_address()
    )
}

fn start(member: &Echo) -> (Instance, std::net::SocketAddr) {
    let instance = Instance::start(&site(&[member]));
    let address = instance.address("web");
    (instance, address)
}

#[test]
fn many_streams_share_a_connection_and_few_of_the_member_s() {
    let member = Echo::http();
    // One event loop: each has its own connections to members.
    let options = Options {
        threads: 1,
        ..Options::default()
    };
    let instance = Instance::start_with(&site(&[&member]), &options);
    let address = instance.address("web");
    let mut client = H2Client::connect(address);
    let mut sizes = Vec::new();
    for round in 0..4 {
        for number in 0..25_usize {
            let count = number * number * 300 + round;
            let kind = if number % 2 == 0 { "" } else { "/chunked" };
            sizes.push((client.get(&format!("{kind}/{count}")), count));
        }
        for (stream, count) in sizes.drain(..) {
            client.expect_pattern(stream, count);
        }
    }
    assert!(client.told_to_go.is_empty());
    assert!(member.accepted.load(Ordering::Relaxed) <= 100);
    assert_eq!(instance.metric("hitless_connections"), 1.0);
    assert_eq!(instance.metric("hitless_requests_in_flight"), 0.0);
    assert_eq!(instance.metric("hitless_http2_connections"), 1.0);
    // The same listener serves HTTP/1.1, which uses the same connections to members.
    let before = member.accepted.load(Ordering::Relaxed);
    HttpClient::connect(address).get(700);
    assert_eq!(member.accepted.load(Ordering::Relaxed), before);
}

#[test]
fn bodies_go_both_ways_and_head_has_none() {
    let member = Echo::http();
    let (_instance, address) = start(&member);
    let mut client = H2Client::connect(address);
    let mut body = vec![0; 1_500_000];
    fill(77, 0, &mut body);
    let length = body.len().to_string();
    let post = client.open("POST", "/", &[("content-length", &length)], false);
    client.send(post, &body, true);
    let answer = client.finish(post);
    assert_eq!((answer.status, answer.body.len()), (200, body.len()));
    assert_eq!(wrong_byte(77, 0, &answer.body), None);
    assert!(answer.field("date").is_some());
    assert_eq!(answer.field("connection"), None);
}

/// A member that answers once with what it was sent, head included, and trailers.
fn mirror() -> Echo {
    Echo::start_with(|mut stream| {
        let mut input = Vec::new();
        while let Ok(Some(head)) = read_head(&mut stream, &mut input) {
            let mut text = head.clone();
            if head.contains("transfer-encoding: chunked") {
                while !input.ends_with(b"\r\n\r\n") {
                    let mut buffer = [0; 4096];
                    let count = stream.read(&mut buffer).unwrap();
                    input.extend_from_slice(&buffer[..count]);
                }
                text += &String::from_utf8(std::mem::take(&mut input)).unwrap();
            }
            let answer = format!(
                "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTrailer: x-sum\r\n\
                 Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\nx-sum: 7\r\n\r\n",
                text.len()
            );
            // In pieces of 7 bytes: no cut is special.
            for piece in answer.as_bytes().chunks(7) {
                stream.write_all(piece).unwrap();
            }
        }
    })
}

#[test]
fn heads_change_form_and_trailers_go_both_ways() {
    let member = mirror();
    let (_instance, address) = start(&member);
    let mut client = H2Client::connect(address);
    let fields = [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")];
    let stream = client.open("POST", "/x?y", &fields, false);
    client.send(stream, b"hello", false);
    for _ in 0..5 {
        client.turn();
    }
    client.send_trailers(stream, &[("x-check", "42")]);
    let answer = client.finish(stream);
    assert_eq!((answer.status, answer.interim), (200, vec![103]));
    assert_eq!(answer.trailers, Some(vec![("x-sum".into(), "7".into())]));
    let text = String::from_utf8(answer.body).unwrap();
    assert!(
        text.starts_with("POST /x?y HTTP/1.1\r\nhost: test\r\n"),
        "{text}"
    );
    for part in [
        "cookie: a=1; b=2\r\n",
        "via: 2 hitless\r\n",
        "x-forwarded-for: 127.",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(
        text.ends_with("5\r\nhello\r\n0\r\nx-check: 42\r\n\r\n"),
        "{text}"
    );
}

#[test]
fn the_preface_may_come_in_any_pieces() {
    let member = Echo::http();
    let (_instance, address) = start(&member);
    for cut in [1, 3, 4, 17, 18, 23, 24, 25, 40] {
        let mut client = H2Client::connect(address);
        let stream = client.get("/321");
        let bytes = client.take_unsent();
        client.stream.set_nodelay(true).unwrap();
        client.stream.write_all(&bytes[..cut]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
        client.stream.write_all(&bytes[cut..]).unwrap();
        client.expect_pattern(stream, 321);
    }
    // What only begins like it is HTTP/1.1.
    let mut other = HttpClient::connect(address);
    other.send(b"PRI / HTTP/1.1\r\nHost: t\r\n\r\n");
    let (head, _) = other.answer();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

#[test]
fn a_stream_that_nobody_reads_holds_up_no_other() {
    let member = Echo::http();
    let (_instance, address) = start(&member);
    let mut client = H2Client::connect_with(
        address,
        Limits {
            stream_window_bytes: 50_000,
            ..Limits::default()
        },
    );
    client.releases = false;
    let stalled: Vec<u32> = (0..5).map(|_| client.get("/400000")).collect();
    client.until("full windows", |client| {
        stalled
            .iter()
            .all(|stream| client.came[stream].body.len() == 50_000)
    });
    client.releases = true;
    for _ in 0..20 {
        client.ask(30_000);
    }
    // Who goes away is forgotten, and its member's connection is closed.
    for stream in stalled {
        client.reset(stream);
    }
    client.ask(100_000);
}

#[test]
fn a_member_that_fails_is_told_by_status_or_by_reset() {
    // Answers /0 with nothing, /1 with a part, /2 never, and closes.
    let member = Echo::start_with(|mut stream| {
        let mut input = Vec::new();
        while let Ok(Some(head)) = read_head(&mut stream, &mut input) {
            let part = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart";
            match head.split(' ').nth(1) {
                Some("/0") => return,
                Some("/1") => return stream.write_all(part).unwrap(),
                Some("/2") => drop(stream.read(&mut [0; 1])),
                Some("/3") => stream.write_all(b"SSH-2.0-x\r\n\r\n").unwrap(),
                _ => stream
                    .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                    .unwrap(),
            }
        }
    });
    let (instance, address) = start(&member);
    let mut client = H2Client::connect(address);
    let mut status = |path: &str| {
        let stream = client.get(path);
        let answer = client.finish(stream);
        (answer.status, answer.reset)
    };
    assert_eq!(status("/4"), (204, None));
    assert_eq!(status("/0"), (502, None));
    let cut = status("/1");
    let code = format!("Peer({:?})", ErrorCode::INTERNAL_ERROR);
    assert_eq!(cut, (200, Some(code)));
    assert_eq!(status("/2"), (504, None));
    assert_eq!(status("/3"), (502, None));
    assert_eq!(status("/4"), (204, None));
    assert!(client.told_to_go.is_empty() && !client.is_closed);
    assert_eq!(instance.metric("hitless_timeouts_total"), 1.0);
    drop(member);
}

#[test]
fn a_request_on_a_connection_that_its_member_closed_goes_on_another() {
    // Closes each connection after its second answer, without saying so.
    let member = Echo::start_with(|mut stream| {
        let mut input = Vec::new();
        for _ in 0..2 {
            if !matches!(read_head(&mut stream, &mut input), Ok(Some(_))) {
                return;
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .unwrap();
        }
    });
    let (_instance, address) = start(&member);
    let mut client = H2Client::connect(address);
    for _ in 0..40 {
        let stream = client.get("/");
        let answer = client.finish(stream);
        assert_eq!((answer.status, answer.reset), (200, None));
    }
}

#[test]
fn a_member_that_refuses_is_passed_over_and_none_is_503() {
    let member = Echo::http();
    let gone = Echo::http();
    let text = site(&[&gone, &member]);
    let gone_address = gone.address;
    drop(gone);
    wait_for("a closed port", || TcpStream::connect(gone_address).err());
    let instance = Instance::start(&text);
    let mut client = H2Client::connect(instance.address("web"));
    for count in 0..20 {
        client.ask(count);
    }
    assert!(instance.metric("hitless_connect_retries_total") >= 1.0);
    drop(member);
}

#[test]
fn a_flood_ends_its_connection_and_no_other() {
    let member = Echo::http();
    let (_instance, address) = start(&member);
    let mut polite = H2Client::connect(address);
    polite.ask(10);
    let mut client = H2Client::connect(address);
    client.ask(10);
    // Requests that are taken back at once, more than a second's worth.
    for _ in 0..2_000 {
        if client.is_closed || !client.told_to_go.is_empty() {
            break;
        }
        let stream = client.get("/100000");
        client.reset(stream);
    }
    client.until("GOAWAY", |client| !client.told_to_go.is_empty());
    assert_eq!(client.told_to_go[0].1, ErrorCode::ENHANCE_YOUR_CALM);
    polite.ask(100_000);
}

#[test]
fn a_reload_tells_nobody_and_streams_go_on() {
    let member = Echo::http();
    let (instance, address) = start(&member);
    let mut client = H2Client::connect(address);
    client.releases = false;
    let stream = client.get("/3000000");
    client.until("a part", |client| client.came[&stream].body.len() > 50_000);
    let text = std::fs::read_to_string(instance.site_file()).unwrap();
    instance.write_site(&text.replace("web: { members", "web: { method: round_robin, members"));
    assert_eq!(instance.call(Request::Reload).outcome, Outcome::Done);
    client.releases = true;
    // What was held back is given back by the next stream's data, too.
    let held = client.came[&stream].body.len();
    client.release(stream, held);
    client.expect_pattern(stream, 3_000_000);
    client.ask(12);
    assert!(client.told_to_go.is_empty());
}

#[test]
fn a_stop_tells_clients_to_go_and_finishes_what_is_under_way() {
    let member = Echo::http();
    let (mut instance, address) = start(&member);
    let mut idle = H2Client::connect(address);
    idle.ask(1);
    let mut busy = H2Client::connect(address);
    busy.releases = false;
    let stream = busy.get("/900000");
    busy.until("a part", |client| client.came[&stream].body.len() > 50_000);
    assert_eq!(instance.call(Request::Stop).outcome, Outcome::Done);
    idle.until("the end", |client| client.told_to_go.len() == 2);
    assert!(
        idle.told_to_go
            .iter()
            .all(|(_, code)| *code == ErrorCode::NO_ERROR)
    );
    while !idle.is_closed {
        idle.turn();
    }
    busy.until("GOAWAY", |client| client.told_to_go.len() == 2);
    busy.releases = true;
    let held = busy.came[&stream].body.len();
    busy.release(stream, held);
    busy.expect_pattern(stream, 900_000);
    while !busy.is_closed {
        busy.turn();
    }
    wait_for("the keeper's end", || instance.child.try_wait().unwrap());
}

#[test]
fn after_a_kill_clients_are_told_and_requests_are_counted() {
    let member = Echo::http();
    let (instance, address) = start(&member);
    let mut clients: Vec<H2Client> = (0..4).map(|_| H2Client::connect(address)).collect();
    for client in &mut clients {
        client.ask(10);
        client.releases = false;
    }
    for client in &mut clients[..2] {
        let streams = [client.get("/900000"), client.get("/900000")];
        client.until("parts", |client| {
            streams
                .iter()
                .all(|stream| client.came[stream].body.len() > 20_000)
        });
    }
    instance.kill_worker();
    for client in &mut clients {
        while !client.is_closed {
            client.turn();
        }
    }
    let of = |what: &str| instance.labelled(&format!("hitless_change_{what}{{change=\"crash\"}}"));
    wait_for("the count", || (of("lost_requests") == 4.0).then_some(()));
    assert_eq!(of("reset_connections"), 4.0);
    H2Client::connect(address).ask(1_000);
}

#[test]
fn h2load_loses_nothing() {
    if !needs::program("h2load", "nghttp2-client") {
        return;
    }
    let member = Echo::http();
    let (instance, address) = start(&member);
    let stop = Arc::new(AtomicBool::new(false));
    let upgrades = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (ends, count) = (Arc::clone(&stop), Arc::clone(&upgrades));
        let instance = &instance;
        scope.spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let build = format!("build-{}", count.fetch_add(1, Ordering::Relaxed));
                instance.install(&build, "");
                let reply = instance.call(Request::Upgrade);
                assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
            }
        });
        for (path, count) in [("100", "3000"), ("20000", "1000"), ("chunked/300000", "60")] {
            let url = format!("http://{address}/{path}");
            let output = Command::new("timeout")
                .args(["60", "h2load", "-n", count, "-c", "4", "-m", "20", &url])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let all = format!("{count} succeeded, 0 failed, 0 errored, 0 timeout");
            stop.store(!text.contains(&all), Ordering::Relaxed);
            assert!(text.contains(&all), "{text}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(upgrades.load(Ordering::Relaxed) > 0);
}
