//! A host that is drained tells clients to close where their protocol can say so, and stops saying
//! it when it is called back.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Read;
use std::time::Duration;

use common::{Echo, HttpClient, Instance, Stream, header, own_address};
use hitless_tm::control::{Outcome, Request};

fn closes(head: &str) -> bool {
    header(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
}

#[test]
fn clients_are_told_to_close_by_answers_alone_until_the_host_is_called_back() {
    let (tcp, http) = (Echo::start(), Echo::http());
    let instance = Instance::start(&format!(
        "pools:\n  raw: {{ members: ['{}'] }}\n  web: {{ members: ['{}'] }}\nvirtual_servers:\n  \
         raw: {{ listen: '{}', protocol: tcp, pool: raw }}\n  \
         web: {{ listen: '{}', protocol: http, pool: web }}\n",
        tcp.address,
        http.address,
        own_address(),
        own_address()
    ));
    let (raw, web) = (instance.address("raw"), instance.address("web"));
    let stream = Stream::start(raw, 1, 20_000, Duration::from_millis(5));
    let mut clients: Vec<HttpClient> = (0..6).map(|_| HttpClient::connect(web)).collect();
    for client in &mut clients {
        assert!(!closes(&client.ask(100)));
    }
    let admin = || {
        let status = instance.status();
        let tells = status["program"]["tells_to_close"].as_bool();
        let servers = status["virtual_servers"].as_array().unwrap().clone();
        let of = |server: &serde_json::Value| server["admin"].as_str().unwrap().to_owned();
        (tells, servers.iter().map(of).collect::<Vec<_>>())
    };
    assert_eq!(admin(), (Some(false), vec!["ready".into(), "ready".into()]));

    assert_eq!(instance.call(Request::TellToClose).outcome, Outcome::Done);
    assert_eq!(admin(), (Some(true), vec!["drain".into(), "drain".into()]));
    // Nobody is closed who does not ask; who asks is answered, told, and then closed cleanly.
    let mut told = clients.split_off(4);
    let head = told[0].ask(3_000);
    assert!(closes(&head), "{head}");
    assert_eq!(told[0].stream.read(&mut [0]).unwrap(), 0, "a clean end");
    // It outlives a worker and an upgrade.
    instance.kill_worker();
    assert!(closes(&told[1].ask(20)));
    instance.install("second", "");
    assert_eq!(instance.call(Request::Upgrade).outcome, Outcome::Done);
    let mut told = clients.split_off(2);
    assert!(closes(&told[0].ask(20)));
    // New ones are served and told as well: the director leads them elsewhere, not the host.
    assert!(closes(&HttpClient::connect(web).ask(7)));

    assert_eq!(instance.call(Request::KeepOpen).outcome, Outcome::Done);
    assert_eq!(admin(), (Some(false), vec!["ready".into(), "ready".into()]));
    assert!(!closes(&told[1].ask(20)));
    // Each that was told is counted, by whatever worker told it.
    assert_eq!(instance.status()["told_to_close_total"].as_u64(), Some(4));
    for client in &mut clients {
        for _ in 0..2 {
            assert!(!closes(&client.ask(100)));
        }
    }
    stream.wait_progress();
    stream.finish().unwrap();
}
