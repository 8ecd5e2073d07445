//! TLS with clients and members: rustls, openssl and curl are the other ends, and every byte is
//! checked.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::tls::{Bridge, Identity, Side, client};
use common::traffic::Traffic;
use common::{Echo, HttpClient, Instance, Options, PATIENCE, Stream, own_address, wait_for};
use hitless_tm::control::{Outcome, Request};
use hitless_tm::worker::Point;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// `raw` and `web` with TLS.
fn site(identity: &Identity, tcp: &Echo, http: &Echo) -> String {
    let tls = format!("tls: {{ certificates: [{}] }}", identity.item());
    site_with(&tls, "", (tcp.address, http.address))
}

/// `tls`: a field of virtual servers; `of_pools`: one of pools.
fn site_with(tls: &str, of_pools: &str, (tcp, http): (SocketAddr, SocketAddr)) -> String {
    let (raw, web) = (own_address(), own_address());
    format!(
        "timeouts: {{ request_head: 5m, keep_alive: 5m, idle: 5m, response: 5m }}\npools:\n  \
         raw: {{ members: ['{tcp}']{of_pools} }}\n  web: {{ members: ['{http}']{of_pools} }}\n\
         virtual_servers:\n  raw: {{ listen: '{raw}', protocol: tcp, pool: raw, {tls} }}\n  \
         web: {{ listen: '{web}', protocol: http, pool: web, {tls} }}\n",
    )
}

/// A way to a virtual server for who speaks in cleartext.
fn bridge(identity: &Identity, instance: &Instance, server: &str) -> Bridge {
    let config = client(&[identity], &[], BOTH);
    let side = Side::Client(Arc::new(config), "a.test");
    Bridge::start(side, instance.address(server), 100_000)
}

#[test]
fn both_versions_and_every_kind_of_key_pass_bytes() {
    let identity = Identity::new(&["a.test"]);
    let (tcp, http) = (Echo::start(), Echo::http());
    let instance = Instance::start(&site(&identity, &tcp, &http));
    for versions in [&[&TLS13][..], &[&TLS12]] {
        let config = Arc::new(client(&[&identity], &["http/1.1"], versions));
        let side = Side::Client(Arc::clone(&config), "a.test");
        let web = Bridge::start(side, instance.address("web"), 100_000);
        let mut client = HttpClient::connect(web.address);
        client.get(0);
        client.get(10);
        client.get(1_000_000);
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols = Vec::new();
        let side = Side::Client(Arc::new(config), "a.test");
        let raw = Bridge::start(side, instance.address("raw"), 100_000);
        let stream = Stream::start(raw.address, 1, 1 << 18, Duration::ZERO);
        stream.wait_progress();
        stream.wait_progress();
        assert!(stream.finish().unwrap() > 0);
    }
    assert!(instance.metric("hitless_tls_handshakes_total") >= 4.0);
    assert_eq!(instance.metric("hitless_tls_handshake_failures_total"), 0.0);
}

fn upgrades_carry_every_connection(traffic: Traffic, instance: &Instance) {
    let connections = traffic.count();
    for round in 0..2 {
        instance.install(&format!("build-{round}"), "");
        let reply = instance.call(Request::Upgrade);
        assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
        let status = instance.status();
        let change = status["changes"].as_array().unwrap().last().unwrap();
        let ledger = &change["ledger"];
        assert_eq!(ledger["carried"]["takeover"], connections, "{change}");
        assert_eq!(ledger["reset"], 0, "{change}");
        assert!(instance.metric("hitless_change_mid_message_connections") >= 30.0);
        traffic.wait_progress();
    }
    traffic.finish();
}

#[test]
fn upgrades_carry_every_connection_of_clients() {
    let identity = Identity::new(&["a.test"]);
    let (tcp, http) = (Echo::start(), Echo::http());
    let instance = Instance::start(&site(&identity, &tcp, &http));
    let raw = bridge(&identity, &instance, "raw");
    let web = bridge(&identity, &instance, "web");
    let traffic = Traffic::start_at(&instance, raw.address, web.address);
    upgrades_carry_every_connection(traffic, &instance);
}

/// Members with TLS, and clients without or with.
struct Members {
    identity: Identity,
    _echoes: (Echo, Echo),
    bridges: (Bridge, Bridge),
}

impl Members {
    fn start(name: &str, update_after: u64) -> Self {
        let identity = Identity::new(&[name]);
        let echoes = (Echo::start(), Echo::http());
        let start = |to| {
            let side = Side::Server(Arc::new(identity.server(&[])));
            Bridge::start(side, to, update_after)
        };
        let bridges = (start(echoes.0.address), start(echoes.1.address));
        Self {
            identity,
            _echoes: echoes,
            bridges,
        }
    }

    fn addresses(&self) -> (SocketAddr, SocketAddr) {
        (self.bridges.0.address, self.bridges.1.address)
    }

    fn field(&self, name: &str) -> String {
        let ca = self.identity.certificate();
        let ca = ca.display();
        format!(", tls: {{ verify: {ca}, server_name: {name} }}")
    }
}

#[test]
fn upgrades_carry_every_connection_of_members() {
    let members = Members::start("m.test", 1_000_000);
    let text = site_with("", &members.field("m.test"), members.addresses());
    let instance = Instance::start(&text.replace(",  }", " }"));
    let traffic = Traffic::start(&instance);
    upgrades_carry_every_connection(traffic, &instance);
}

#[test]
fn upgrades_carry_connections_that_are_sealed_on_both_sides() {
    let identity = Identity::new(&["a.test"]);
    let members = Members::start("m.test", 1_000_000);
    let tls = format!("tls: {{ certificates: [{}] }}", identity.item());
    let text = site_with(&tls, &members.field("m.test"), members.addresses());
    let instance = Instance::start(&text);
    let raw = bridge(&identity, &instance, "raw");
    let web = bridge(&identity, &instance, "web");
    let traffic = Traffic::start_at(&instance, raw.address, web.address);
    upgrades_carry_every_connection(traffic, &instance);
}

#[test]
fn a_member_that_does_not_prove_who_it_is_gets_nothing() {
    let members = Members::start("other.test", 1_000_000);
    let text = site_with("", &members.field("m.test"), members.addresses());
    let instance = Instance::start(&text.replace(",  }", " }"));
    let mut client = HttpClient::connect(instance.address("web"));
    client.send(b"GET /1 HTTP/1.1\r\nHost: t\r\n\r\n");
    let (head, _) = client.answer();
    assert!(head.starts_with("HTTP/1.1 50"), "{head}");
    let mut stream = TcpStream::connect(instance.address("raw")).unwrap();
    let _ = stream.write_all(b"secret");
    let mut came = Vec::new();
    assert!(stream.read_to_end(&mut came).is_err(), "a reset");
}

#[test]
fn a_member_that_speaks_http2_in_tls_is_served_so() {
    let identity = Identity::new(&["m.test"]);
    let leaves = Arc::default();
    let member = common::h2_member::start(hitless_proto::http2::Limits::default(), leaves);
    let side = Side::Server(Arc::new(identity.server(&["h2"])));
    let far = Bridge::start(side, member.address, 0);
    let ca = identity.certificate();
    let (ca, web) = (ca.display(), own_address());
    let text = format!(
        "pools:\n  web:\n    members: ['{}']\n    members_protocol: http2\n    tls: {{ verify: {ca}, \
         server_name: m.test }}\nvirtual_servers:\n  web: {{ listen: '{web}', protocol: http, pool: \
         web }}\n",
        far.address
    );
    let instance = Instance::start(&text);
    let mut client = common::h2::H2Client::connect(web);
    client.ask(100_000);
    instance.install("second", "");
    let reply = instance.call(Request::Upgrade);
    assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
    client.ask(200_000);
    assert_eq!(member.accepted.load(Ordering::Relaxed), 1, "one connection");
}

/// Streams in both directions at once, with more than the queues hold, and idle HTTP.
fn kills_lose_nothing(instance: &Instance, raw: SocketAddr, web: SocketAddr, kills: usize) {
    let stream = |seed: u64| {
        let window = if seed < 6 { 1 << 18 } else { 3_000 };
        Stream::start(raw, seed, window, Duration::from_millis(5))
    };
    let streams: Vec<Stream> = (0..30).map(stream).collect();
    let mut idle: Vec<HttpClient> = (0..30).map(|_| HttpClient::connect(web)).collect();
    for (count, client) in idle.iter_mut().enumerate() {
        client.get(count);
    }
    for _ in 0..kills {
        for stream in &streams {
            stream.wait_progress();
        }
        instance.kill_worker();
        let reset = instance.labelled("hitless_change_reset_connections{change=\"crash\"}");
        assert_eq!(reset, 0.0);
        for client in idle.iter_mut().step_by(3) {
            client.get(1000);
        }
    }
    for stream in &streams {
        stream.wait_progress();
    }
    for client in &mut idle {
        client.get(5);
    }
    for stream in streams {
        stream.finish().unwrap();
    }
}

#[test]
fn kills_lose_no_connection_with_tls() {
    let identity = Identity::new(&["a.test"]);
    let (tcp, http) = (Echo::start(), Echo::http());
    let instance = Instance::start(&site(&identity, &tcp, &http));
    for versions in [&[&TLS13][..], &[&TLS12]] {
        let config = Arc::new(client(&[&identity], &[], versions));
        let way = |server: &str| {
            let side = Side::Client(Arc::clone(&config), "a.test");
            Bridge::start(side, instance.address(server), 0)
        };
        let (raw, web) = (way("raw"), way("web"));
        kills_lose_nothing(&instance, raw.address, web.address, 3);
    }
}

#[test]
fn kills_lose_no_connection_that_is_sealed_on_both_sides() {
    let identity = Identity::new(&["a.test"]);
    let members = Members::start("m.test", 0);
    let tls = format!("tls: {{ certificates: [{}] }}", identity.item());
    let text = site_with(&tls, &members.field("m.test"), members.addresses());
    let instance = Instance::start(&text);
    let raw = bridge_without_updates(&identity, &instance, "raw");
    let web = bridge_without_updates(&identity, &instance, "web");
    kills_lose_nothing(&instance, raw.address, web.address, 3);
}

/// A change of keys is the one moment in which a kill may cost a connection.
fn bridge_without_updates(identity: &Identity, instance: &Instance, server: &str) -> Bridge {
    let side = Side::Client(Arc::new(client(&[identity], &[], BOTH)), "a.test");
    Bridge::start(side, instance.address(server), 0)
}

/// At each place of a batch's way, in one of the directions or the other.
#[test]
fn a_kill_at_any_place_of_a_batch_repeats_and_loses_nothing() {
    for (place, _) in Point::SEALED {
        let identity = Identity::new(&["a.test"]);
        let (tcp, http) = (Echo::start(), Echo::http());
        let options = Options {
            threads: 1,
            fault: format!("die-at-{place}"),
            ..Options::default()
        };
        let instance = Instance::start_with(&site(&identity, &tcp, &http), &options);
        let raw = bridge_without_updates(&identity, &instance, "raw");
        let stream = |seed: u64| {
            let window = if seed < 2 { 1 << 17 } else { 3_000 };
            Stream::start(raw.address, seed, window, Duration::from_millis(2))
        };
        let streams: Vec<Stream> = (0..6).map(stream).collect();
        for stream in &streams {
            stream.wait_progress();
        }
        for _ in 0..4 {
            let pid = instance.worker_pid();
            instance.arm();
            wait_for("the kill", || instance.has_fired().then_some(()));
            wait_for("another worker", || {
                (instance.worker_pid() != pid).then_some(())
            });
            for stream in &streams {
                stream.wait_progress();
            }
        }
        for stream in streams {
            stream.finish().unwrap();
        }
        assert_eq!(
            instance.metric("hitless_worker_restarts_total"),
            4.0,
            "{place}"
        );
    }
}

/// A client of whom nothing was read begins its handshake with the next worker.
#[test]
fn a_kill_before_a_handshake_loses_no_client() {
    for place in ["accepted", "begun"] {
        let identity = Identity::new(&["a.test"]);
        let (tcp, http) = (Echo::start(), Echo::http());
        let options = Options {
            threads: 1,
            fault: format!("die-at-{place}"),
            ..Options::default()
        };
        let instance = Instance::start_with(&site(&identity, &tcp, &http), &options);
        let web = bridge_without_updates(&identity, &instance, "web");
        instance.arm();
        for count in 0..5 {
            HttpClient::connect(web.address).get(count);
        }
        assert!(instance.has_fired(), "{place}");
        assert_eq!(
            instance.metric("hitless_worker_restarts_total"),
            1.0,
            "{place}"
        );
    }
}

#[test]
fn a_monitor_speaks_tls_and_believes_no_other_certificate() {
    let members = Members::start("m.test", 0);
    let health = |name: &str| {
        let text = site_with("", &members.field(name), members.addresses());
        let monitored = ", monitor: { http: { path: /1, interval: 50ms } }, tls";
        let text = text.replace(",  }", " }").replace(", tls", monitored);
        let instance = Instance::start(&text);
        wait_for("what the monitor says", || {
            let status = instance.status();
            let pools = status["pools"].as_array().unwrap();
            let web = pools.iter().find(|pool| pool["name"] == "web").unwrap();
            let member = web["members"][0].clone();
            (member["health"] != "unknown").then_some(member)
        })
    };
    assert_eq!(health("m.test")["health"], "up");
    let down = health("other.test");
    assert_eq!(down["health"], "down");
    assert!(down.to_string().contains("tls"), "{down}");
}

#[test]
fn sessions_are_resumed_after_a_reload_an_upgrade_and_a_crash() {
    let identity = Identity::new(&["a.test"]);
    let (tcp, http) = (Echo::start(), Echo::http());
    let instance = Instance::start(&site(&identity, &tcp, &http));
    for versions in [&[&TLS13][..], &[&TLS12]] {
        let config = Arc::new(client(&[&identity], &[], versions));
        let side = Side::Client(config, "a.test");
        let web = Bridge::start(side, instance.address("web"), 0);
        let mut resumed = 0;
        let mut connect = |expected: u64| {
            HttpClient::connect(web.address).get(7);
            resumed += expected;
            assert_eq!(web.resumed.load(Ordering::Relaxed), resumed);
        };
        connect(0);
        connect(1);
        assert_eq!(instance.call(Request::Reload).outcome, Outcome::Done);
        connect(1);
        instance.install("second", "");
        let reply = instance.call(Request::Upgrade);
        assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
        connect(1);
        instance.kill_worker();
        connect(1);
    }
    assert!(instance.metric("hitless_tls_resumed_handshakes_total") >= 8.0);
}

#[test]
fn a_reload_renews_certificates_and_a_wrong_one_changes_nothing() {
    let identity = Identity::new(&["a.test"]);
    let (tcp, http) = (Echo::start(), Echo::http());
    let instance = Instance::start(&site(&identity, &tcp, &http));
    let old = bridge(&identity, &instance, "web");
    let mut client = HttpClient::connect(old.address);
    client.get(3);
    let key = std::fs::read(identity.key()).unwrap();
    identity.renew();
    // A client that trusts the next one alone.
    let new = bridge(&identity, &instance, "web");
    let refused = TcpStream::connect(new.address).unwrap();
    assert!(request_fails(refused), "the one before is still in force");
    let renewed = std::fs::read(identity.key()).unwrap();

    std::fs::write(identity.key(), &key).unwrap();
    let reply = instance.call(Request::Reload);
    assert_eq!(reply.outcome, Outcome::Refused, "{}", reply.body);
    let text = &reply.body;
    assert!(text.contains("error[key-mismatch]"), "{text}");
    assert!(
        text.contains("site.yaml:6:") && text.contains("certificates[0].key"),
        "{text}"
    );
    client.get(4);
    // What is in force is what was read then, also for a worker that begins now.
    instance.kill_worker();
    client.get(5);
    HttpClient::connect(old.address).get(6);

    std::fs::write(identity.key(), renewed).unwrap();
    let reply = instance.call(Request::Reload);
    assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
    HttpClient::connect(new.address).get(7);
    client.get(8);
}

fn request_fails(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let asked = stream.write_all(b"GET /1 HTTP/1.1\r\nHost: t\r\n\r\n");
    asked.is_err() || !matches!(stream.read(&mut [0; 100]), Ok(1..))
}

/// A handshake by hand: it can be stopped anywhere.
struct ByHand {
    stream: TcpStream,
    connection: ClientConnection,
}

impl ByHand {
    fn connect(identity: &Identity, address: SocketAddr) -> Self {
        let config = Arc::new(client(&[identity], &[], &[&TLS13]));
        let name = ServerName::try_from("a.test").unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            connection: ClientConnection::new(config, name).unwrap(),
        }
    }

    fn hello(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// Takes the server's answer and sends nothing.
    fn take_answer(&mut self) {
        while !self.connection.wants_write() {
            self.connection.read_tls(&mut self.stream).unwrap();
            self.connection.process_new_packets().unwrap();
        }
    }

    fn exchange(mut self) {
        let mut stream = rustls::Stream::new(&mut self.connection, &mut self.stream);
        stream
            .write_all(b"GET /9 HTTP/1.1\r\nHost: t\r\n\r\n")
            .unwrap();
        let mut came = [0; 12];
        stream.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"HTTP/1.1 200");
    }
}

#[test]
fn handshakes_end_where_they_began_or_begin_anew() {
    let identity = Identity::new(&["a.test"]);
    let (tcp, http) = (Echo::start(), Echo::http());
    let instance = Instance::start(&site(&identity, &tcp, &http));
    let web = instance.address("web");
    // One that has said nothing, one in the midst of its first message, one that was answered and
    // goes on after a while, and one that never does.
    let silent = ByHand::connect(&identity, web);
    let mut half = ByHand::connect(&identity, web);
    let hello = half.hello();
    half.stream.write_all(&hello[..hello.len() / 2]).unwrap();
    let answered = || {
        let mut one = ByHand::connect(&identity, web);
        let hello = one.hello();
        one.stream.write_all(&hello).unwrap();
        one.take_answer();
        one
    };
    let (goes_on, mut never) = (answered(), answered());
    wait_for("all to be accepted", || {
        (instance.metric("hitless_connections") == 4.0).then_some(())
    });
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        goes_on.exchange();
    });
    instance.install("second", "");
    let began = Instant::now();
    let reply = instance.call(Request::Upgrade);
    assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "it waits a while"
    );
    later.join().unwrap();
    let mut rest = [0; 1];
    assert!(
        matches!(never.stream.read(&mut rest), Ok(0) | Err(_)),
        "it was cut"
    );
    half.stream.write_all(&hello[hello.len() / 2..]).unwrap();
    half.exchange();
    silent.exchange();
    let status = instance.status();
    let change = status["changes"].as_array().unwrap().last().unwrap();
    assert_eq!(change["ledger"]["reset"], 1, "{change}");
}

#[test]
fn what_is_no_tls_is_told_so_and_counted() {
    let identity = Identity::new(&["a.test"]);
    let (tcp, http) = (Echo::start(), Echo::http());
    let instance = Instance::start(&site(&identity, &tcp, &http));
    let web = instance.address("web");
    let mut stream = TcpStream::connect(web).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        .unwrap();
    let mut came = Vec::new();
    stream.read_to_end(&mut came).unwrap();
    assert_eq!(came.first(), Some(&21), "an alert, then an end: {came:?}");
    // Ends within a handshake cost nothing but themselves.
    let mut stream = TcpStream::connect(web).unwrap();
    stream.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    drop(stream);
    wait_for("both to be counted", || {
        let failures = instance.metric("hitless_tls_handshake_failures_total");
        (failures == 2.0 && instance.metric("hitless_connections") == 0.0).then_some(())
    });
}

/// openssl or curl; what it wrote, and whether it was content.
fn run(program: &str, args: &[&str], input: &[u8]) -> (bool, String) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

#[test]
fn curl_gets_the_certificate_of_the_name_and_the_protocol_of_its_choice() {
    let (first, second) = (
        Identity::new(&["a.test"]),
        Identity::new(&["b.test", "*.c.test"]),
    );
    let (tcp, http) = (Echo::start(), Echo::http());
    let tls = format!(
        "tls: {{ certificates: [{}, {}] }}",
        first.item(),
        second.item()
    );
    let text = site_with(&tls, "", (tcp.address, http.address));
    let instance = Instance::start(&text);
    let web = instance.address("web");
    let get = |name: &str, identity: &Identity, options: &[&str]| {
        let url = format!("https://{name}:{}/300000", web.port());
        let resolve = format!("{name}:{}:{}", web.port(), web.ip());
        let ca = identity.certificate();
        let mut args = vec!["-sS", "--max-time", "20", "--resolve", &resolve, "--cacert"];
        args.extend([ca.to_str().unwrap(), "-o", "/dev/null", "-w"]);
        args.extend(["%{http_version} %{size_download}", &url]);
        args.extend(options);
        run("curl", &args, b"")
    };
    for (name, identity) in [
        ("a.test", &first),
        ("b.test", &second),
        ("x.c.test", &second),
    ] {
        assert_eq!(
            get(name, identity, &[]),
            (true, "2 300000".to_owned()),
            "{name}"
        );
    }
    let one = get("a.test", &first, &["--http1.1", "--tls-max", "1.2"]);
    assert_eq!(one, (true, "1.1 300000".to_owned()));
    // Nobody has this name: the first certificate, which curl does not take for it.
    assert!(!get("y.x.c.test", &second, &[]).0);
}

/// openssl as a person uses it: a line with K changes its keys and asks for ours to be changed.
struct Interactive {
    child: std::process::Child,
    shown: Arc<std::sync::Mutex<String>>,
}

impl Interactive {
    fn start(identity: &Identity, address: SocketAddr) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-crlf", "-servername", "a.test", "-CAfile"]);
        command.arg(identity.certificate());
        command.args(["-connect", &address.to_string()]);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let shown = Arc::<std::sync::Mutex<String>>::default();
        let show = |mut output: Box<dyn Read + Send>| {
            let all = Arc::clone(&shown);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = output.read(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..count]);
                    all.lock().unwrap().push_str(&text);
                }
            });
        };
        show(Box::new(child.stdout.take().unwrap()));
        show(Box::new(child.stderr.take().unwrap()));
        Self { child, shown }
    }

    fn type_in(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    fn wait_for(&self, what: &str, times: usize) {
        wait_for(what, || {
            let shown = self.shown.lock().unwrap();
            (shown.matches(what).count() >= times).then_some(())
        });
    }

    fn ask_twice_with_other_keys(mut self) {
        self.wait_for("Verify return code: 0", 1);
        for round in 1..=2 {
            self.type_in("K\n");
            self.wait_for("KEYUPDATE", round);
            self.type_in("GET /5 HTTP/1.1\nHost: a\n\n");
            self.wait_for("HTTP/1.1 200 OK", round);
        }
    }
}

impl Drop for Interactive {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_response_of_the_authority_is_stapled() {
    let identity = Identity::new(&["a.test"]);
    let (certificate, key) = (identity.certificate(), identity.key());
    let folder = certificate.parent().unwrap();
    let (index, response) = (folder.join("index"), folder.join("response.der"));
    let file = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let shown = ["x509", "-noout", "-serial", "-in", &file(&certificate)];
    let (_, serial) = run("openssl", &shown, b"");
    let serial = serial.trim().strip_prefix("serial=").unwrap();
    let line = format!("V\t401231000000Z\t\t{serial}\tunknown\t/CN=a\n");
    std::fs::write(&index, line).unwrap();
    let pem = file(&certificate);
    let mut args = vec!["ocsp", "-CA", &pem, "-rsigner", &pem, "-issuer", &pem];
    let (index, key, to) = (file(&index), file(&key), file(&response));
    args.extend(["-cert", &pem, "-index", &index, "-rkey", &key]);
    args.extend(["-respout", &to, "-ndays", "1"]);
    let (is_made, text) = run("openssl", &args, b"");
    assert!(is_made, "{text}");

    let (tcp, http) = (Echo::start(), Echo::http());
    let item = identity.item().replace(" }", &format!(", ocsp: {to} }}"));
    let tls = format!("tls: {{ certificates: [{item}] }}");
    let instance = Instance::start(&site_with(&tls, "", (tcp.address, http.address)));
    let address = instance.address("web").to_string();
    let asks = ["s_client", "-status", "-connect", &address, "-CAfile", &pem];
    let (_, text) = run("openssl", &asks, b"");
    assert!(text.contains("OCSP Response Status: successful"), "{text}");
}

#[test]
fn openssl_changes_keys_and_shows_a_certificate_where_one_is_asked_for() {
    let (identity, authority) = (Identity::new(&["a.test"]), Identity::new(&["client.test"]));
    let (tcp, http) = (Echo::start(), Echo::http());
    let tls = |more: &str| format!("tls: {{ certificates: [{}]{more} }}", identity.item());
    let ca = format!(
        ", client_certificates: {{ ca: {} }}",
        authority.certificate().display()
    );
    let members = (tcp.address, http.address);
    let open = Instance::start(&site_with(&tls(", minimum_version: 1.3"), "", members));
    let closed = Instance::start(&site_with(&tls(&ca), "", members));
    let connect = |instance: &Instance, options: &[&str], input: &[u8]| {
        let address = instance.address("web").to_string();
        let trusted = identity.certificate();
        let mut args = vec!["s_client", "-connect", &address, "-servername", "a.test"];
        args.extend(["-CAfile", trusted.to_str().unwrap(), "-verify_return_error"]);
        args.extend(options);
        run("openssl", &args, input)
    };
    let updates = Interactive::start(&identity, open.address("web"));
    updates.ask_twice_with_other_keys();
    let (is_good, text) = connect(&open, &["-tls1_2"], b"");
    assert!(
        !is_good && text.contains("alert protocol version"),
        "{text}"
    );

    let once = b"GET /5 HTTP/1.1\nHost: a\nConnection: close\n\n";
    let (_, text) = connect(&closed, &["-crlf", "-ign_eof"], once);
    assert!(text.contains("alert certificate required"), "{text}");
    let (certificate, key) = (authority.certificate(), authority.key());
    let shown = [
        "-cert",
        certificate.to_str().unwrap(),
        "-key",
        key.to_str().unwrap(),
    ];
    let options = [&shown[..], &["-crlf", "-ign_eof"]].concat();
    let (_, text) = connect(&closed, &options, once);
    assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
    // A certificate that another authority has signed.
    let (certificate, key) = (identity.certificate(), identity.key());
    let shown = [
        "-cert",
        certificate.to_str().unwrap(),
        "-key",
        key.to_str().unwrap(),
    ];
    let options = [&shown[..], &["-crlf", "-ign_eof"]].concat();
    let (_, text) = connect(&closed, &options, once);
    assert!(
        !text.contains("HTTP/1.1 200 OK") && text.contains("alert"),
        "{text}"
    );
}
