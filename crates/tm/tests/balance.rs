//! Pools choose members as they were told, seen from outside.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;

use common::{Echo, HttpClient, Instance, own_address, read_head};

/// Answers each request with its own name.
fn named(name: &'static str) -> Echo {
    Echo::start_with(move |mut stream| {
        let mut input = Vec::new();
        while let Ok(Some(_)) = read_head(&mut stream, &mut input) {
            let answer =
                format!("HTTP/1.1 200 OK\r\nX-Member: {name}\r\nContent-Length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

struct Site {
    instance: Instance,
    listen: SocketAddr,
    _members: [Echo; 3],
}

fn start(pool: &str, weights: [u16; 3]) -> Site {
    let members = [named("a"), named("b"), named("c")];
    let listen = own_address();
    let list: Vec<String> = members
        .iter()
        .zip(weights)
        .map(|(member, weight)| format!("{{ address: '{}', weight: {weight} }}", member.address))
        .collect();
    let site = format!(
        "pools:\n  web: {{ {pool}, members: [{}] }}\nvirtual_servers:\n  \
         web: {{ listen: '{listen}', protocol: http, pool: web }}\n",
        list.join(", ")
    );
    let options = common::Options {
        threads: 1,
        ..Default::default()
    };
    Site {
        instance: Instance::start_with(&site, &options),
        listen,
        _members: members,
    }
}

/// The member that answers a request with these lines.
fn ask(client: &mut HttpClient, path: &str, lines: &str) -> String {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: t\r\n{lines}\r\n").as_bytes());
    let head = client.expect_pattern(0);
    common::header(&head, "x-member").unwrap()
}

#[test]
fn weights_are_shares() {
    let site = start("method: round_robin", [1, 2, 5]);
    let mut client = HttpClient::connect(site.listen);
    let mut served = BTreeMap::new();
    for _ in 0..80 {
        *served.entry(ask(&mut client, "/", "")).or_insert(0) += 1;
    }
    let expected = [
        ("a".to_owned(), 10),
        ("b".to_owned(), 20),
        ("c".to_owned(), 50),
    ];
    assert_eq!(served, BTreeMap::from(expected));
}

#[test]
fn a_header_leads_to_one_member_whatever_connection_and_worker() {
    let site = start("method: hash, hash_by: { header: x-user }", [1, 1, 1]);
    let user = |number: u32| format!("X-User: user-{number}\r\n");
    let mut client = HttpClient::connect(site.listen);
    let homes: Vec<String> = (0..30)
        .map(|number| ask(&mut client, "/", &user(number)))
        .collect();
    for name in ["a", "b", "c"] {
        assert!(homes.iter().any(|home| home == name), "{homes:?}");
    }
    let check = || {
        let mut client = HttpClient::connect(site.listen);
        for (number, home) in homes.iter().enumerate() {
            assert_eq!(ask(&mut client, "/", &user(number as u32)), *home);
        }
    };
    check();
    let worker = site.instance.worker_pid();
    site.instance.kill_worker();
    common::wait_for("another worker", || {
        (site.instance.worker_pid() != worker).then_some(())
    });
    check();
}

#[test]
fn a_cookie_or_path_leads_to_one_member() {
    let site = start("method: hash, hash_by: { cookie: id }", [1, 1, 1]);
    let mut client = HttpClient::connect(site.listen);
    for number in 0..20 {
        let home = ask(&mut client, "/", &format!("Cookie: id={number}\r\n"));
        let again = format!("Cookie: idx=9; a=b;id={number}; c=d\r\n");
        assert_eq!(ask(&mut client, "/other", &again), home);
    }
    let site = start("method: hash, hash_by: path", [1, 1, 1]);
    let mut client = HttpClient::connect(site.listen);
    for number in 0..20 {
        let path = format!("/{number}?q");
        let home = ask(&mut client, &path, "");
        assert_eq!(ask(&mut client, &path, "Cookie: a\r\n"), home);
    }
}
