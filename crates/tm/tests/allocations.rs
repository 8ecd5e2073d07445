//! What is done for each request or piece of a stream takes no memory once everything is warm.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::{Echo, HttpClient, Instance, Options, PATIENCE, own_address};

/// Rounds before counting: buffers have their size by then, connections to members are there.
const WARM: usize = 300;
const ROUNDS: usize = 1_000;

#[test]
fn warm_connections_allocate_nothing() {
    let (tcp, http) = (Echo::start(), Echo::http());
    let options = Options {
        threads: 1,
        tells_allocations: true,
        ..Options::default()
    };
    let site = format!(
        "pools:\n  raw: {{ members: ['{}'] }}\n  web: {{ members: ['{}'] }}\nvirtual_servers:\n  \
         raw: {{ listen: '{}', protocol: tcp, pool: raw }}\n  \
         web: {{ listen: '{}', protocol: http, pool: web }}\n",
        tcp.address,
        http.address,
        own_address(),
        own_address()
    );
    let instance = Instance::start_with(&site, &options);
    let (raw, web) = (instance.address("raw"), instance.address("web"));

    let mut stream = TcpStream::connect(raw).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut piece = [7u8; 1000];
    let mut clients: Vec<HttpClient> = (0..2).map(|_| HttpClient::connect(web)).collect();
    let mut exchange = |rounds: usize| {
        for round in 0..rounds {
            stream.write_all(&piece).unwrap();
            stream.read_exact(&mut piece).unwrap();
            for client in &mut clients {
                client.get(100 + round % 2 * 5_000);
                let body = [b'x'; 500];
                client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 500\r\n\r\n");
                client.send(&body);
                assert_eq!(client.answer().1, body);
            }
        }
    };
    exchange(WARM);
    let before = instance.allocations();
    assert!(before > 0, "allocations are told");
    exchange(ROUNDS);
    let made = instance.allocations() - before;
    // What grows with time, not with requests: a place of the timer wheel that is used for the
    // first time.
    let requests = ROUNDS as u64 * 4;
    assert!(made < 10, "{made} allocations for {requests} requests");
    eprintln!("{made} allocations for {requests} requests and {ROUNDS} pieces of a stream");
}
