//! What the proxy costs, and for how long a change of its worker stops its connections.
//!
//! `cargo xtask bench proxy [PART]`: `exchange` (CPU and system calls of the worker for each
//! request), `bulk` (CPU for each byte of long bodies and streams), `stall` (a crash and a takeover
//! with many connections); without a part all of them. `--json` prints one document in the form of
//! all our benchmarks. Members and clients are threads of this process. There are no goals here yet,
//! and no peers.

#![allow(clippy::unwrap_used, dead_code)]

#[path = "../tests/common/mod.rs"]
mod instance;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use hitless_harness::figures::{Arguments, Document, Figure};
use hitless_tm::control::{Outcome, Request};
use instance::{HttpClient, Instance, Options, own_address};

type Measure = fn() -> Vec<Figure>;

/// Each part, with what measures it.
const PARTS: [(&str, Measure); 3] = [("exchange", exchange), ("bulk", bulk), ("stall", stall)];

fn main() -> ExitCode {
    let arguments = match Arguments::read(&PARTS.map(|(name, _)| name)) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let figures = PARTS
        .iter()
        .filter(|(name, _)| arguments.wants(name))
        .flat_map(|(_, measure)| measure())
        .collect();
    Document::new("proxy", figures).print(&arguments)
}

fn site(raw: SocketAddr, web: SocketAddr) -> String {
    format!(
        "limits: {{ connections: 40000 }}\n\
         timeouts: {{ request_head: 10m, idle: 10m, response: 5m }}\npools:\n  \
         raw: {{ members: ['{raw}'] }}\n  web: {{ members: ['{web}'] }}\nvirtual_servers:\n  \
         raw: {{ listen: '{}', protocol: tcp, pool: raw }}\n  \
         web: {{ listen: '{}', protocol: http, pool: web }}\n",
        own_address(),
        own_address()
    )
}

/// Nanoseconds that all threads of a process have run.
fn cpu_ns(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |entry: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(entry.unwrap().path().join("schedstat")).unwrap_or_default();
        let first = text.split(' ').next().and_then(|text| text.parse().ok());
        first.unwrap_or(0u64)
    };
    tasks.map(of).sum()
}

/// A member that reads requests and answers each with so many bytes, from memory.
fn member(body: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::Builder::new()
                .stack_size(128 * 1024)
                .spawn(move || {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n");
                    let block = vec![b'x'; body.min(1 << 20)];
                    let mut input = Vec::new();
                    stream.set_nodelay(true).unwrap();
                    while let Ok(Some(_)) = instance::read_head(&mut stream, &mut input) {
                        let mut first = head.clone().into_bytes();
                        let mut left = body;
                        first.extend_from_slice(&block[..left.min(1000)]);
                        left -= left.min(1000);
                        let mut result = stream.write_all(&first);
                        while left > 0 && result.is_ok() {
                            let count = left.min(block.len());
                            result = stream.write_all(&block[..count]);
                            left -= count;
                        }
                        if result.is_err() {
                            return;
                        }
                    }
                })
                .unwrap();
        }
    });
    address
}

/// A member that sends without end to whoever connects.
fn source() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let block = vec![b'x'; 1 << 20];
                while stream.write_all(&block).is_ok() {}
            });
        }
    });
    address
}

fn get(client: &mut HttpClient, count: usize) {
    client.send(b"GET / HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\nUser-Agent: bench\r\n\r\n");
    let (_, body) = client.answer();
    assert_eq!(body.len(), count);
}

fn exchange() -> Vec<Figure> {
    const BODY: usize = 100;
    const CLIENTS: usize = 16;
    let rounds: usize = 4_000;
    let web = member(BODY);
    let options = Options {
        threads: 1,
        ..Options::default()
    };
    let instance = Instance::start_with(&site(web, web), &options);
    let (address, pid) = (instance.address("web"), instance.worker_pid());
    let run = |clients: usize, rounds: usize| {
        std::thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| {
                    let mut client = HttpClient::connect(address);
                    for _ in 0..rounds {
                        get(&mut client, BODY);
                    }
                });
            }
        });
    };
    run(CLIENTS, 200);
    let mut figures = Vec::new();
    for _ in 0..7 {
        let before = cpu_ns(pid);
        run(CLIENTS, rounds);
        let requests = (CLIENTS * rounds) as u64;
        figures.push((cpu_ns(pid) - before) as f64 / requests as f64 / 1000.0);
    }
    let mut rows = vec![figure("worker CPU of a request", "us", &mut figures)];
    rows.extend(count_calls(pid, || run(1, 1_000), 1_000));
    rows
}

fn figure(what: &str, unit: &'static str, figures: &mut [f64]) -> Figure {
    figures.sort_by(f64::total_cmp);
    let (low, median, high) = (
        figures[0],
        figures[figures.len() / 2],
        figures[figures.len() - 1],
    );
    Figure::new(what, unit, median).note(format!("({low:.2} to {high:.2})"))
}

/// What `strace` counts while `work` is done; nothing if it is not installed.
fn count_calls(pid: i32, work: impl Fn(), units: u64) -> Vec<Figure> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("calls");
    let strace = Command::new("strace")
        .args(["-f", "-c", "-U", "calls,name", "-o"])
        .arg(&file)
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut strace) = strace else {
        eprintln!("system calls: strace is not installed");
        return Vec::new();
    };
    instance::wait_for("strace", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status
            .lines()
            .any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
            .then_some(())
    });
    work();
    let _ = Command::new("kill")
        .args(["-INT", &strace.id().to_string()])
        .status();
    let _ = strace.wait();
    let mut rows = Vec::new();
    for line in fs::read_to_string(&file).unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        let (count, name) = (words.next(), words.next());
        if let (Some(Ok(count)), Some(name)) = (count.map(str::parse::<u64>), name) {
            let ours = count as f64 / units as f64;
            rows.push(Figure::new(
                format!("system calls of a request, {name}"),
                "1",
                ours,
            ));
        }
    }
    rows
}

fn bulk() -> Vec<Figure> {
    const BODY: usize = 256 << 20;
    let (web, raw) = (member(BODY), source());
    let options = Options {
        threads: 1,
        ..Options::default()
    };
    let instance = Instance::start_with(&site(raw, web), &options);
    let pid = instance.worker_pid();
    let (raw, web) = (instance.address("raw"), instance.address("web"));
    let mut buffer = vec![0u8; 1 << 20];
    let mut read = |stream: &mut TcpStream, bytes: usize| {
        let mut left = bytes;
        while left > 0 {
            let room = buffer.len().min(left);
            left -= stream.read(&mut buffer[..room]).unwrap();
        }
    };
    let (mut copied, mut spliced) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        let mut client = HttpClient::connect(web);
        client.send(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n");
        instance::read_head(&mut client.stream, &mut client.input).unwrap();
        let before = cpu_ns(pid);
        read(&mut client.stream, BODY - client.input.len());
        copied.push((cpu_ns(pid) - before) as f64 / BODY as f64 * f64::from(1 << 20) / 1000.0);
        let mut stream = TcpStream::connect(raw).unwrap();
        read(&mut stream, 1 << 20);
        let before = cpu_ns(pid);
        read(&mut stream, BODY);
        spliced.push((cpu_ns(pid) - before) as f64 / BODY as f64 * f64::from(1 << 20) / 1000.0);
    }
    vec![
        figure("worker CPU of a MiB, body of HTTP", "us", &mut copied),
        figure("worker CPU of a MiB, raw TCP by splice", "us", &mut spliced),
    ]
}

fn stall() -> Vec<Figure> {
    let mut rows = Vec::new();
    for (kind, count) in [("http", 10_000), ("raw", 4_500)] {
        let web = member(100);
        let echo = instance::Echo::start();
        let instance = Instance::start(&site(echo.address, web));
        let address = instance.address(if kind == "http" { "web" } else { "raw" });
        let mut clients: Vec<HttpClient> = Vec::new();
        for _ in 0..count {
            clients.push(HttpClient::connect(address));
            touch(clients.last_mut().unwrap(), kind);
        }
        for change in ["crash", "takeover"] {
            let worst = std::thread::scope(|scope| {
                let changing = scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(200));
                    let began = Instant::now();
                    if change == "crash" {
                        instance.kill_worker();
                    } else {
                        let reply = instance.call(Request::Upgrade);
                        assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
                    }
                    began.elapsed()
                });
                // One after another, so that some connection is always asked for something.
                let mut worst = Duration::ZERO;
                let mut turn = 0;
                while !changing.is_finished() {
                    let began = Instant::now();
                    touch(&mut clients[turn % count], kind);
                    worst = worst.max(began.elapsed());
                    turn += 1;
                }
                (worst, changing.join().unwrap())
            });
            // When each was asked once more, all are judged.
            for client in &mut clients {
                touch(client, kind);
            }
            let figure = |name: &str| {
                instance.labelled(&format!("hitless_change_{name}{{change=\"{change}\"}}"))
            };
            let of = format!("{count} {kind} connections, {change}");
            let in_ms = |what: &str, seconds: f64| {
                Figure::new(format!("{of}: {what}"), "ms", seconds * 1000.0)
            };
            let count_of = |name: &str| {
                let what = name.replace('_', " ");
                Figure::new(format!("{of}: {what}"), "1", figure(name))
            };
            rows.extend([
                count_of("carried_connections"),
                count_of("reset_connections"),
                in_ms("ledger's longest stall", figure("stall_seconds")),
                in_ms("longest wait of a client", worst.0.as_secs_f64()),
                in_ms("over after", worst.1.as_secs_f64()),
            ]);
        }
    }
    rows
}

/// Something goes there and back.
fn touch(client: &mut HttpClient, kind: &str) {
    if kind == "http" {
        get(client, 100);
    } else {
        client.stream.write_all(b"touch").unwrap();
        client.stream.read_exact(&mut [0; 5]).unwrap();
    }
}
