//! Raw TCP and HTTP/1.1 through one keeper and worker.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use common::{Echo, HttpClient, Instance, PATIENCE, Stream, header, own_address};

fn site(protocol: &str, members: &[&Echo]) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|member| member.address.to_string())
        .collect();
    format!(
        "pools:\n  main: {{ members: ['{}'] }}\nvirtual_servers:\n  main: {{ listen: '{}', \
         protocol: {protocol}, pool: main }}\n",
        members.join("', '"),
        own_address()
    )
}

#[test]
fn raw_tcp_is_byte_exact_with_half_close() {
    let echo = Echo::start();
    let instance = Instance::start(&site("tcp", &[&echo]));
    let address = instance.address("main");
    let streams: Vec<Stream> = (0..20)
        .map(|seed| Stream::start(address, seed, 1 << 18, Duration::from_millis(1)))
        .collect();
    for stream in &streams {
        stream.wait_progress();
    }
    for stream in streams {
        assert!(stream.finish().unwrap() > 0);
    }
    assert!(instance.metric("hitless_accepted_connections_total") >= 20.0);
}

#[test]
fn http_keeps_connections_and_answers_requests_in_pieces() {
    let member = Echo::http();
    let instance = Instance::start(&site("http", &[&member]));
    let mut client = HttpClient::connect(instance.address("main"));
    for count in [0, 1, 100, 10_000, 1_000_000] {
        client.get(count);
    }
    // A head in single bytes.
    for byte in b"GET /77 HTTP/1.1\r\nHost: test\r\n\r\n" {
        client.send(&[*byte]);
    }
    client.expect_pattern(77);
    // Two requests at once.
    client.send(b"GET /5 HTTP/1.1\r\nHost: test\r\n\r\nGET /6 HTTP/1.1\r\nHost: test\r\n\r\n");
    client.expect_pattern(5);
    client.expect_pattern(6);
    // A body in pieces.
    client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n01234");
    client.send(b"56789");
    assert_eq!(client.answer().1, b"0123456789");
    // HEAD has no body; the connection goes on.
    client.send(b"HEAD /9 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let head = common::read_head(&mut client.stream, &mut client.input)
        .unwrap()
        .unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(header(&head, "connection").as_deref(), Some("close"));
    // One connection to the member did for all of it.
    assert!(member.accepted.load(std::sync::atomic::Ordering::Relaxed) <= 2);
}

#[test]
fn ambiguous_requests_and_dead_members_get_a_clear_status() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let member = Echo::http();
    let text = format!(
        "pools:\n  dead: {{ members: ['{dead}'] }}\n  half: {{ members: ['{dead}', '{}'] }}\n\
         virtual_servers:\n  dead: {{ listen: '{}', protocol: http, pool: dead }}\n  \
         half: {{ listen: '{}', protocol: http, pool: half }}\n  \
         raw: {{ listen: '{}', protocol: tcp, pool: dead }}\n",
        member.address,
        own_address(),
        own_address(),
        own_address()
    );
    let instance = Instance::start(&text);

    let mut client = HttpClient::connect(instance.address("half"));
    client.send(
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let (head, _) = client.answer();
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    assert_eq!(
        client.stream.read(&mut [0; 10]).unwrap(),
        0,
        "closed after the answer"
    );

    let mut client = HttpClient::connect(instance.address("dead"));
    client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    let (head, _) = client.answer();
    assert!(head.starts_with("HTTP/1.1 502"), "{head}");

    // Refused by one member, served by the other.
    for _ in 0..6 {
        HttpClient::connect(instance.address("half")).get(3);
    }
    assert!(instance.metric("hitless_connect_retries_total") > 0.0);

    let mut raw = TcpStream::connect(instance.address("raw")).unwrap();
    raw.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(
        raw.read(&mut [0; 1]).is_err(),
        "a reset, not an end that looks complete"
    );
}

#[test]
fn a_member_that_answers_after_the_clients_half_close_is_heard() {
    let member = Echo::start_with(|mut stream| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let _ = stream.write_all(format!("{} bytes", all.len()).as_bytes());
    });
    let instance = Instance::start(&site("tcp", &[&member]));
    let mut client = TcpStream::connect(instance.address("main")).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(&vec![7u8; 3_000_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "3000000 bytes");
}

#[test]
fn metrics_are_served_where_the_site_says_and_the_monitors_run() {
    let member = Echo::http();
    let admin = own_address();
    let text = format!(
        "admin: {{ listen: '{admin}' }}\npools:\n  web:\n    members: ['{}']\n    \
         monitor: {{ tcp: {{ interval: 100ms }} }}\nvirtual_servers:\n  \
         web: {{ listen: '{}', protocol: http, pool: web }}\n",
        member.address,
        own_address()
    );
    let instance = Instance::start(&text);
    HttpClient::connect(instance.address("web")).get(10);
    common::wait_for("the monitor", || {
        (instance.status()["pools"][0]["members"][0]["health"] == "up").then_some(())
    });
    // Several, so that each event loop's socket would be hit if there were more than one.
    for _ in 0..8 {
        let mut scraper = TcpStream::connect(admin).unwrap();
        scraper.set_read_timeout(Some(PATIENCE)).unwrap();
        scraper
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        scraper.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("hitless_virtual_server_requests_total{virtual_server=\"web\"} 1"));
        assert!(answer.contains("hitless_build_info{build=\"first\"} 1"));
    }
}

/// An operator sees which member is bad, however it is bad.
#[test]
fn what_members_fail_is_counted_at_the_member() {
    let answering = |answer: &'static [u8]| {
        Echo::start_with(move |mut stream| {
            let mut input = Vec::new();
            let head = common::read_head(&mut stream, &mut input);
            if head.is_ok_and(|head| head.is_some()) {
                let _ = stream.write_all(answer);
            }
        })
    };
    let cut = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n123");
    let garbage = answering(b"NOT HTTP\r\n\r\n");
    let silent = answering(b"");
    for (member, status) in [
        (cut, "HTTP/1.1 200"),
        (garbage, "HTTP/1.1 502"),
        (silent, "HTTP/1.1 502"),
    ] {
        let instance = Instance::start(&site("http", &[&member]));
        let mut client = HttpClient::connect(instance.address("main"));
        client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        let mut answer = Vec::new();
        // The one that is cut ends in a reset.
        let _ = client.stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(status), "{answer}");
        assert_eq!(
            instance.metric("hitless_member_failures_total"),
            1.0,
            "{status}"
        );
        assert_eq!(
            instance.metric("hitless_virtual_server_failures_total"),
            1.0
        );
    }
}

/// A client that goes away is no fault of its member.
#[test]
fn what_clients_fail_is_not_counted_at_the_member() {
    let member = Echo::http();
    let instance = Instance::start(&site("http", &[&member]));
    let mut client = HttpClient::connect(instance.address("main"));
    client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\nabc");
    common::wait_for("the request", || {
        (instance.metric("hitless_requests_in_flight") == 1.0).then_some(())
    });
    drop(client);
    common::wait_for("its end", || {
        (instance.metric("hitless_connections") == 0.0).then_some(())
    });
    assert_eq!(instance.metric("hitless_member_failures_total"), 0.0);
}
