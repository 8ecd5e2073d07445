//! kill -9 of the worker under traffic: raw TCP and idle HTTP connections live on, and nobody is
//! refused.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Echo, HttpClient, Instance, PATIENCE, Stream, own_address, wait_for};
use hitless_tm::control::{Outcome, Request};

fn site(tcp: &Echo, http: &Echo) -> String {
    format!(
        "timeouts: {{ request_head: 5m, idle: 5m, response: 5m }}\npools:\n  \
         raw: {{ members: ['{}'] }}\n  web: {{ members: ['{}'] }}\nvirtual_servers:\n  \
         raw: {{ listen: '{}', protocol: tcp, pool: raw }}\n  \
         web: {{ listen: '{}', protocol: http, pool: web }}\n",
        tcp.address,
        http.address,
        own_address(),
        own_address()
    )
}

#[test]
fn raw_tcp_and_idle_http_survive_and_nobody_is_refused() {
    let (tcp, http) = (Echo::start(), Echo::http());
    let instance = Instance::start(&site(&tcp, &http));
    let (raw, web) = (instance.address("raw"), instance.address("web"));
    let streams: Vec<Stream> = (0..40)
        .map(|seed| {
            let window = if seed < 4 { 1 << 18 } else { 1000 };
            Stream::start(raw, seed, window, Duration::from_millis(50))
        })
        .collect();
    let mut idle: Vec<HttpClient> = (0..50).map(|_| HttpClient::connect(web)).collect();
    for (count, client) in idle.iter_mut().enumerate().skip(10) {
        client.get(count);
    }
    // Two requests under way: these are lost, and counted.
    let mut lost: Vec<HttpClient> = (0..2).map(|_| HttpClient::connect(web)).collect();
    for client in &mut lost {
        client.get(1);
        client.send(b"GET /8000000 HTTP/1.1\r\nHost: t\r\n\r\nGET");
    }
    // New connections all the time: none may be refused or reset before it has sent something.
    let stop = Arc::new(AtomicBool::new(false));
    let (ends, made) = (Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&made);
    let churn = std::thread::spawn(move || {
        while !ends.load(Ordering::Relaxed) {
            let mut stream = TcpStream::connect(raw).expect("nobody is refused");
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"hello").unwrap();
            stream.read_exact(&mut [0; 5]).expect("served");
            count.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    // Clients that send and do not read: their bytes fill every queue, and the pipes.
    let slow: Vec<_> = (0..2)
        .map(|seed| SlowReader::start(raw, 1000 + seed))
        .collect();
    let mut piped = 0.0;
    for round in 0..2 {
        for stream in &streams {
            stream.wait_progress();
        }
        for reader in &slow {
            reader.wait_until_stuck();
        }
        if round == 0 {
            wait_for("requests to be in flight", || {
                (instance.metric("hitless_requests_in_flight") >= 2.0).then_some(())
            });
        }
        instance.kill_worker();
        for stream in &streams {
            stream.wait_progress();
        }
        piped += instance.labelled("hitless_change_piped_bytes{change=\"crash\"}");
        let reset = instance.labelled("hitless_change_reset_connections{change=\"crash\"}");
        let in_flight = instance.labelled("hitless_change_lost_requests{change=\"crash\"}");
        assert_eq!(reset, in_flight, "only requests under way are lost");
        assert_eq!(in_flight, if round == 0 { 2.0 } else { 0.0 });
        let carried = instance.labelled("hitless_change_carried_connections{change=\"crash\"}");
        assert!(carried >= 90.0, "{carried} carried");
    }
    assert_eq!(instance.metric("hitless_worker_restarts_total"), 2.0);
    assert!(piped > 0.0, "a kill counts only if bytes were in pipes");
    let now = made.load(Ordering::Relaxed);
    wait_for("new connections", || {
        (made.load(Ordering::Relaxed) > now).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    churn.join().unwrap();
    for client in &mut lost {
        // What was sent before the kill may still be read; then comes a reset, never an end that
        // looks complete.
        let mut all = Vec::new();
        assert!(client.stream.read_to_end(&mut all).is_err(), "a reset");
    }
    for reader in slow {
        reader.finish();
    }
    for (count, client) in idle.iter_mut().enumerate() {
        client.get(count + 1000);
    }
    for stream in &streams {
        stream.tell_to_finish();
    }
    for stream in streams {
        stream.finish().unwrap();
    }
}

/// Sends a known stream and reads its echo only at the end.
struct SlowReader {
    seed: u64,
    stream: TcpStream,
    written: Arc<AtomicU64>,
    writer: std::thread::JoinHandle<()>,
}

impl SlowReader {
    const BYTES: u64 = 30_000_000;

    fn start(address: std::net::SocketAddr, seed: u64) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let written = Arc::new(AtomicU64::new(0));
        let (count, mut out) = (Arc::clone(&written), stream.try_clone().unwrap());
        let writer = std::thread::spawn(move || {
            let mut buffer = vec![0u8; 100_000];
            for place in (0..Self::BYTES).step_by(buffer.len()) {
                common::fill(seed, place, &mut buffer);
                out.write_all(&buffer).unwrap();
                count.store(place, Ordering::Relaxed);
            }
            out.shutdown(std::net::Shutdown::Write).unwrap();
        });
        Self {
            seed,
            stream,
            written,
            writer,
        }
    }

    /// Nothing more is taken: every queue on the way is full.
    fn wait_until_stuck(&self) {
        let mut seen = (u64::MAX, 0);
        wait_for("a full pipe", || {
            let now = self.written.load(Ordering::Relaxed);
            seen = if seen.0 == now {
                (now, seen.1 + 1)
            } else {
                (now, 0)
            };
            (seen.1 > 20 && now > 0).then_some(())
        });
    }

    fn finish(mut self) {
        let (mut place, mut buffer) = (0, vec![0u8; 256 * 1024]);
        loop {
            let read = self.stream.read(&mut buffer).unwrap();
            if read == 0 {
                break;
            }
            assert_eq!(common::wrong_byte(self.seed, place, &buffer[..read]), None);
            place += read as u64;
        }
        assert_eq!(place, Self::BYTES);
        self.writer.join().unwrap();
    }
}

/// Kills the worker while its connections go over to a successor with a fault; `both`: the
/// successor as well.
fn kill_in_a_takeover(fault: &str, both: bool) {
    let (tcp, http) = (Echo::start(), Echo::http());
    let instance = Instance::start(&site(&tcp, &http));
    let raw = instance.address("raw");
    let streams: Vec<Stream> = (0..60)
        .map(|seed| Stream::start(raw, seed, 20_000, Duration::from_millis(20)))
        .collect();
    for stream in &streams {
        stream.wait_progress();
    }
    instance.install("second", fault);
    let pid = instance.worker_pid();
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| instance.call(Request::Upgrade));
        // The successor hangs, with connections acknowledged and others on their way.
        let successor = wait_for("the takeover", || {
            let carried = "hitless_change_carried_connections{change=\"takeover\"}";
            (instance.try_labelled(carried)? > 0.0).then_some(())?;
            children(instance.child.id())
                .into_iter()
                .find(|&child| child != pid && !is_twin(child))
        });
        if both {
            kill(successor);
        }
        kill(pid);
        let reply = upgrade.join().unwrap();
        assert!(!reply.body.is_empty(), "the upgrade is answered");
    });
    // Whoever serves now: one worker, every stream, and the next upgrade.
    for stream in &streams {
        stream.wait_progress();
    }
    instance.install("third", "");
    let reply = instance.call(Request::Upgrade);
    assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
    for stream in streams {
        stream.finish().unwrap();
    }
}

fn kill(pid: i32) {
    let status = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(status.unwrap().success());
}

fn children(of: u32) -> Vec<i32> {
    let path = format!("/proc/{of}/task/{of}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let pids = text.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.collect()
}

fn is_twin(pid: i32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.trim() == "hitless-twin")
}

#[test]
fn a_worker_killed_in_a_takeover_whose_successor_hangs_is_replaced() {
    kill_in_a_takeover("hang-2", false);
}

#[test]
fn a_worker_killed_in_a_takeover_together_with_its_successor_is_replaced() {
    kill_in_a_takeover("hang-2", true);
}

/// Nobody but the keeper sees that a twin is gone.
#[test]
fn a_twin_that_ends_is_collected_and_nothing_else_happens() {
    let (tcp, http) = (Echo::start(), Echo::http());
    let instance = Instance::start(&site(&tcp, &http));
    let stream = Stream::start(instance.address("raw"), 1, 1 << 16, Duration::ZERO);
    stream.wait_progress();
    let worker = instance.worker_pid();
    let mut children = children(instance.child.id()).into_iter();
    let twin = children.find(|pid| is_twin(*pid)).unwrap();
    kill(twin);
    wait_for("the twin's end", || {
        (!std::path::Path::new(&format!("/proc/{twin}")).exists()).then_some(())
    });
    assert_eq!(instance.worker_pid(), worker);
    stream.wait_progress();
    // The worker's death costs what it always did.
    instance.kill_worker();
    stream.wait_progress();
    stream.finish().unwrap();
}

#[test]
fn the_worker_after_a_crash_knows_which_members_are_down() {
    let up = Echo::http();
    let down = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = down.local_addr().unwrap();
    drop(down);
    let instance = Instance::start(&format!(
        "pools:\n  web:\n    members: ['{}', '{closed}']\n    monitor: {{ tcp: {{ interval: 200ms, fall: 1, rise: 100 \
         }} }}\nvirtual_servers:\n  web: {{ listen: '{}', protocol: http, pool: web }}\n",
        up.address,
        own_address()
    ));
    let healths = || {
        let status = instance.status();
        let members = status["pools"][0]["members"].as_array().unwrap().clone();
        let of = |member: &serde_json::Value| member["health"].as_str().unwrap().to_owned();
        members.iter().map(of).collect::<Vec<_>>()
    };
    wait_for("both to be probed", || {
        (healths() == ["up", "down"]).then_some(())
    });
    // Without the memory the first good result would take it up; with it, the hundredth does.
    let _listener = TcpListener::bind(closed).unwrap();
    instance.kill_worker();
    assert_eq!(healths(), ["up", "down"]);
}
