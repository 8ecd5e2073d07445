//! Configurations that change while connections live, and those that are refused whole.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use common::{
    Echo, HttpClient, Instance, Options, PATIENCE, Stream, own_address, run_to_end, wait_for,
};
use hitless_tm::control::{Outcome, Request};

#[test]
fn a_reload_keeps_connections_and_a_bad_one_is_refused_whole() {
    let (first, second) = (Echo::http(), Echo::http());
    let raw_member = Echo::start();
    let (web, raw, added) = (own_address(), own_address(), own_address());
    let site = |member: &Echo, more: &str| {
        format!(
            "pools:\n  web: {{ members: ['{}'] }}\n  raw: {{ members: ['{}'] }}\n\
             virtual_servers:\n  web: {{ listen: '{web}', protocol: http, pool: web }}\n{more}",
            member.address, raw_member.address
        )
    };
    let with_raw = format!("  raw: {{ listen: '{raw}', protocol: tcp, pool: raw }}\n");
    let instance = Instance::start(&site(&first, &with_raw));
    let pid = instance.worker_pid();
    let mut client = HttpClient::connect(web);
    client.get(10);
    let stream = Stream::start(raw, 1, 10_000, Duration::from_millis(1));
    stream.wait_progress();

    // Another member, another virtual server instead of the raw one.
    let with_added = format!("  added: {{ listen: '{added}', protocol: http, pool: web }}\n");
    instance.write_site(&site(&second, &with_added));
    let reply = instance.call(Request::Reload);
    assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
    client.get(11);
    assert_eq!(instance.worker_pid(), pid, "the same worker");
    assert!(
        second.accepted.load(std::sync::atomic::Ordering::Relaxed) > 0,
        "the new member"
    );
    HttpClient::connect(added).get(12);
    assert!(
        TcpStream::connect(raw).is_err(),
        "the removed virtual server is closed"
    );
    stream.wait_progress();

    // Errors: nothing changes, and the text says what and where.
    instance.write_site("pools:\n  web: { members: [] }\nnonsense: 1\n");
    let reply = instance.call(Request::Reload);
    assert_eq!(reply.outcome, Outcome::Refused);
    assert!(
        reply.body.contains("nonsense") && reply.body.contains("site.yaml:"),
        "{}",
        reply.body
    );
    let status = instance.status();
    assert_eq!(status["config"], "rejected");
    let changes = status["changes"].as_array().unwrap();
    let kinds: Vec<_> = changes.iter().map(|change| &change["kind"]).collect();
    assert_eq!(kinds, ["start", "reload", "reload_refused"], "{status}");
    let occupied = TcpListener::bind(own_address()).unwrap();
    let taken = occupied.local_addr().unwrap();
    let with_taken = format!("  other: {{ listen: '{taken}', protocol: http, pool: web }}\n");
    instance.write_site(&site(&first, &with_taken));
    let reply = instance.call(Request::Reload);
    assert_eq!(reply.outcome, Outcome::Refused);
    assert!(reply.body.contains(&taken.to_string()), "{}", reply.body);
    client.get(13);
    HttpClient::connect(added).get(14);
    stream.finish().unwrap();

    // SIGHUP does the same.
    instance.write_site(&site(&first, ""));
    let pid = instance.child.id().to_string();
    std::process::Command::new("kill")
        .args(["-HUP", &pid])
        .status()
        .unwrap();
    wait_for("the reload", || {
        TcpStream::connect(added).is_err().then_some(())
    });
    client.get(15);

    // A site file that is none: refused, where waiting for its other end would stop everything.
    let path = instance.site_file();
    std::fs::remove_file(&path).unwrap();
    let status = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(status.unwrap().success());
    let reply = instance.call(Request::Reload);
    assert_eq!(reply.outcome, Outcome::Refused);
    assert!(reply.body.contains("not a regular file"), "{}", reply.body);
    client.get(16);
}

/// Whoever wants to switch a member off sees when its last connection is gone.
#[test]
fn a_removed_or_moved_member_is_shown_while_its_connections_live() {
    let (leaver, stayer) = (Echo::start(), Echo::start());
    let (raw, other) = (own_address(), own_address());
    let site = |pool: &str, members: &str, others: &str| {
        format!(
            "pools:\n  {pool}: {{ members: [{members}] }}\n  other: {{ members: [{others}] }}\n\
             virtual_servers:\n  raw: {{ listen: '{raw}', protocol: tcp, pool: {pool} }}\n  \
             other: {{ listen: '{other}', protocol: tcp, pool: other }}\n"
        )
    };
    let leaves = format!("'{}'", leaver.address);
    let stays = format!("'{}'", stayer.address);
    let instance = Instance::start(&site("raw", &leaves, &stays));
    let stream = Stream::start(raw, 1, 10_000, Duration::from_millis(1));
    stream.wait_progress();
    let reload = |text: &str| {
        instance.write_site(text);
        let reply = instance.call(Request::Reload);
        assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
    };
    // Of the member in its first pool: its admin state and its connections.
    let shown = || {
        let status = instance.status();
        let pools = status["pools"].as_array().unwrap();
        let pool = pools.iter().find(|pool| pool["name"] == "raw")?;
        let address = leaver.address.to_string();
        let members = pool["members"].as_array().unwrap();
        let member = members.iter().find(|member| member["address"] == address)?;
        let open = member["traffic"]["connections"].as_u64();
        Some((member["admin"].as_str().unwrap().to_owned(), open.unwrap()))
    };
    let metric = |what: &str| {
        let address = leaver.address;
        instance.try_labelled(&format!("{what}{{pool=\"raw\",member=\"{address}\"}}"))
    };
    let connections = || metric("hitless_member_connections");
    let drains = || Some(("drain".to_owned(), 1));
    assert_eq!(shown(), Some(("ready".to_owned(), 1)));

    // Out of its pool; into another one; and back.
    reload(&site("raw", &stays, &stays));
    assert_eq!(shown(), drains());
    assert_eq!(connections(), Some(1.0));
    assert_eq!(metric("hitless_member_usable"), Some(0.0));
    reload(&site("raw", &stays, &leaves));
    assert_eq!(shown(), drains());
    reload(&site("raw", &leaves, &stays));
    assert_eq!(shown(), Some(("ready".to_owned(), 1)));
    // The whole pool goes, and then the worker.
    reload(&site("fresh", &stays, &leaves));
    assert_eq!(shown(), drains());
    assert_eq!(instance.call(Request::Upgrade).outcome, Outcome::Done);
    assert_eq!(shown(), drains());
    assert_eq!(connections(), Some(1.0));
    stream.wait_progress();

    stream.finish().unwrap();
    wait_for("its end", || shown().is_none().then_some(()));
    assert_eq!(connections(), None);
}

/// Ctrl-C goes to the whole process group, and a service manager may signal each process: only the
/// keeper listens.
#[test]
fn signals_to_the_worker_change_nothing() {
    let member = Echo::http();
    let web = own_address();
    let instance = Instance::start(&format!(
        "pools:\n  web: {{ members: ['{}'] }}\n\
         virtual_servers:\n  web: {{ listen: '{web}', protocol: http, pool: web }}\n",
        member.address
    ));
    let pid = instance.worker_pid();
    let mut client = HttpClient::connect(web);
    for (count, signal) in ["-INT", "-TERM", "-HUP", "-USR2"].into_iter().enumerate() {
        let pid = pid.to_string();
        let status = std::process::Command::new("kill")
            .args([signal, &pid])
            .status();
        assert!(status.unwrap().success());
        client.get(10 + count);
    }
    assert_eq!(instance.worker_pid(), pid, "the same worker");
}

#[test]
fn a_start_with_a_port_in_use_or_a_bad_file_says_so() {
    let occupied = TcpListener::bind(own_address()).unwrap();
    let taken = occupied.local_addr().unwrap();
    let site = format!(
        "pools:\n  web: {{ members: ['127.0.0.1:1'] }}\nvirtual_servers:\n  \
         web: {{ listen: '{taken}', protocol: http, pool: web }}\n"
    );
    let (is_ok, text) = run_to_end(&site);
    assert!(!is_ok);
    assert!(
        text.contains(&format!("cannot listen on {taken}: another program")),
        "{text}"
    );
    let (is_ok, text) = run_to_end("pools: {\n");
    assert!(!is_ok);
    assert!(text.contains("site.yaml:"), "{text}");
}

#[test]
fn near_its_descriptor_limit_the_keeper_pauses_accepting_and_loses_nobody() {
    let member = Echo::start();
    let listen = own_address();
    let site = format!(
        "pools:\n  raw: {{ members: ['{}'] }}\nvirtual_servers:\n  \
         raw: {{ listen: '{listen}', protocol: tcp, pool: raw }}\n",
        member.address
    );
    let options = Options {
        threads: 1,
        descriptors: Some(400),
        ..Options::default()
    };
    let instance = Instance::start_with(&site, &options);
    let stream = |seed| Stream::start(listen, seed, 100, Duration::from_millis(20));
    // Two sockets each: more than fit, however many pipes are in use.
    let streams: Vec<Stream> = (0..200).map(stream).collect();
    wait_for("the pause", || {
        (instance.metric("hitless_accept_paused") == 1.0).then_some(())
    });
    let accepted = instance.metric("hitless_connections") as usize;
    assert!(accepted < 200, "{accepted} accepted");
    let alive = |stream: &&Stream| stream.position() > 0;
    wait_for("those accepted to be served", || {
        (streams.iter().filter(alive).count() >= accepted).then_some(())
    });
    // However near the limit, the keeper has each of them.
    instance.kill_worker();
    streams.iter().filter(alive).for_each(Stream::wait_progress);
    // Those that wait are served when others end.
    let (served, waiting): (Vec<Stream>, Vec<Stream>) = streams
        .into_iter()
        .partition(|stream| stream.position() > 0);
    for stream in served {
        stream.finish().unwrap();
    }
    for stream in waiting {
        stream.finish().unwrap();
    }
    assert!(instance.metric("hitless_accept_pauses_total") >= 1.0);
    wait_for("the end of the pause", || {
        (instance.metric("hitless_accept_paused") == 0.0).then_some(())
    });
}

#[test]
fn a_stop_drains_and_tells_http_clients() {
    let (member, raw_member) = (Echo::http(), Echo::start());
    let (web, raw) = (own_address(), own_address());
    let site = format!(
        "pools:\n  web: {{ members: ['{}'] }}\n  raw: {{ members: ['{}'] }}\nvirtual_servers:\n  \
         web: {{ listen: '{web}', protocol: http, pool: web }}\n  \
         raw: {{ listen: '{raw}', protocol: tcp, pool: raw }}\n",
        member.address, raw_member.address
    );
    let mut instance = Instance::start(&site);
    let mut client = HttpClient::connect(web);
    client.get(1);
    let stream = Stream::start(raw, 1, 10_000, Duration::from_millis(1));
    stream.wait_progress();
    assert_eq!(instance.call(Request::Stop).outcome, Outcome::Done);
    wait_for("the listener's end", || {
        TcpStream::connect(web).is_err().then_some(())
    });
    client.send(b"GET /5 HTTP/1.1\r\nHost: t\r\n\r\n");
    let head = client.expect_pattern(5);
    assert_eq!(
        common::header(&head, "connection").as_deref(),
        Some("close"),
        "{head}"
    );
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.stream.read(&mut [0; 1]).unwrap(), 0);
    stream.wait_progress();
    stream.finish().unwrap();
    drop(client);
    let status = wait_for("the keeper's end", || instance.child.try_wait().unwrap());
    assert!(status.success());
}
