//! A connection on which workers die: after two deaths in a row it is cut, by a reset, what is known
//! of it is kept, and all others live on.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use common::{Echo, HttpClient, Instance, Options, PATIENCE, Stream, own_address, wait_for};
use hitless_tm::worker::POISON;
use serde_json::Value;

/// Puts poison behind some good bytes and waits for what becomes of the connection.
fn poison(instance: &Instance, address: SocketAddr, good: &[u8]) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(good).unwrap();
    let mut answer = vec![0u8; 16 * 1024];
    let mut length = 0;
    while length < good.len().min(64) {
        let count = stream.read(&mut answer[length..]).unwrap();
        assert!(count > 0, "good bytes are answered");
        length += count;
    }
    let local = stream.local_addr().unwrap();
    stream.write_all(POISON).unwrap();
    // What was answered before may still come; then it is a reset, never an end that looks complete.
    let mut rest = Vec::new();
    let error = stream.read_to_end(&mut rest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let path = wait_for("the note of it", || {
        let status = instance.status();
        let changes = status["changes"].as_array().unwrap();
        let change = changes.iter().find(|change| {
            let text = change["text"].as_str().unwrap();
            change["kind"] == "quarantine" && text.contains(&local.to_string())
        })?;
        let (_, path) = change["text"].as_str().unwrap().split_once("; see ")?;
        Some(path.to_owned())
    });
    let known = std::fs::read_to_string(path).unwrap();
    let known: Value = serde_json::from_str(&known).unwrap();
    assert_eq!(known["workers_died"], 2);
    assert_eq!(known["client"]["peer"], local.to_string());
    let unread = POISON.escape_ascii().to_string();
    assert_eq!(known["client"]["unread"], unread, "{known}");
    known
}

#[test]
fn a_connection_on_which_two_workers_die_is_reset_and_kept_for_people() {
    let (tcp, http) = (Echo::start(), Echo::http());
    let options = Options {
        fault: "poison".to_owned(),
        ..Options::default()
    };
    let site = format!(
        "timeouts: {{ request_head: 5m, idle: 5m, response: 5m }}\npools:\n  \
         raw: {{ members: ['{}'] }}\n  web: {{ members: ['{}'] }}\nvirtual_servers:\n  \
         raw: {{ listen: '{}', protocol: tcp, pool: raw }}\n  \
         web: {{ listen: '{}', protocol: http, pool: web }}\n",
        tcp.address,
        http.address,
        own_address(),
        own_address()
    );
    let instance = Instance::start_with(&site, &options);
    let (raw, web) = (instance.address("raw"), instance.address("web"));
    let streams: Vec<Stream> = (0..10)
        .map(|seed| Stream::start(raw, seed, 20_000, Duration::from_millis(5)))
        .collect();
    let mut idle: Vec<HttpClient> = (0..10).map(|_| HttpClient::connect(web)).collect();
    for stream in &streams {
        stream.wait_progress();
    }

    let known = poison(&instance, raw, b"0123456789");
    assert_eq!(known["virtual_server"], "raw");
    assert_eq!(known["member"]["peer"], tcp.address.to_string());
    assert_eq!(known["client"]["read"], 10);
    let get = b"GET /0 HTTP/1.1\r\nHost: t\r\n\r\n";
    let known = poison(&instance, web, get);
    assert_eq!(known["virtual_server"], "web");
    assert_eq!(known["http_read_done"], get.len());

    assert_eq!(
        instance.labelled("hitless_quarantined_connections_total"),
        2.0
    );
    assert_eq!(instance.labelled("hitless_worker_restarts_total"), 4.0);
    let lost = instance.labelled("hitless_lost_connections_total{change=\"crash\"}");
    assert_eq!(lost, 2.0, "nobody else is lost");
    for stream in &streams {
        stream.wait_progress();
    }
    for (count, client) in idle.iter_mut().enumerate() {
        client.get(count);
    }
    for stream in streams {
        stream.finish().unwrap();
    }
}

#[test]
fn kills_from_outside_are_no_connections_fault() {
    let tcp = Echo::start();
    let site = format!(
        "pools:\n  raw: {{ members: ['{}'] }}\nvirtual_servers:\n  \
         raw: {{ listen: '{}', protocol: tcp, pool: raw }}\n",
        tcp.address,
        own_address()
    );
    let instance = Instance::start(&site);
    // One connection that is worked on nearly all the time.
    let stream = Stream::start(instance.address("raw"), 1, 1 << 20, Duration::ZERO);
    for _ in 0..6 {
        stream.wait_progress();
        instance.kill_worker();
    }
    assert_eq!(
        instance.labelled("hitless_quarantined_connections_total"),
        0.0
    );
    stream.finish().unwrap();
}
