//! The tally cannot lie: against a right server it finds nothing, against each kind of wrong one
//! just that.
//!
//! No product takes part. All run on loopback and need no root.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::*;
use crate::client::http::OBJECT_SEED;
use crate::wire::append_pattern;

/// The clients on a thread of their own, spoken to through pipes as the process is.
struct Clients {
    commands: Option<PipeWriter>,
    answers: BufReader<PipeReader>,
    thread: Option<JoinHandle<()>>,
}

impl Clients {
    fn start(plan: Plan) -> Self {
        let (control, commands) = std::io::pipe().unwrap();
        let (answers, output) = std::io::pipe().unwrap();
        let thread = thread::spawn(move || run(control, output).unwrap());
        let mut clients = Self {
            commands: Some(commands),
            answers: BufReader::new(answers),
            thread: Some(thread),
        };
        assert!(matches!(
            clients.ask(&Command::Start { plan }),
            Answer::Open { .. }
        ));
        clients
    }

    fn ask(&mut self, command: &Command) -> Answer {
        let mut line = serde_json::to_string(command).unwrap();
        line.push('\n');
        self.commands
            .as_mut()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    fn mark(&mut self, name: &str) -> Report {
        let answer = self.ask(&Command::Mark {
            name: name.to_owned(),
            is_steady: false,
        });
        report(answer)
    }

    /// Marks until `is_there` holds of all windows' sum.
    fn mark_until(&mut self, is_there: impl Fn(&Tally) -> bool) -> (Tally, Vec<Report>) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let mut reports: Vec<Report> = Vec::new();
        let mut sum = Tally::default();
        while !is_there(&sum) {
            assert!(std::time::Instant::now() < deadline, "{sum:?} {reports:?}");
            thread::sleep(Duration::from_millis(20));
            let report = self.mark("next");
            sum += report.total;
            // A connection that goes on is the next window's, not the sum's.
            sum.connections -= report.total.carried;
            sum.carried -= report.total.carried;
            reports.push(report);
        }
        (sum, reports)
    }

    fn finish(&mut self) -> Report {
        let answer = self.ask(&Command::Finish);
        report(answer)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            if !thread::panicking() {
                result.unwrap();
            }
        }
    }
}

fn report(answer: Answer) -> Report {
    let Answer::Report { report } = answer else {
        panic!("{answer:?}");
    };
    assert!(report.total.adds_up(), "{report:?}");
    assert!(report.workloads.values().all(Tally::adds_up), "{report:?}");
    *report
}

/// The stream server on a thread.
struct Server {
    address: SocketAddr,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        let (stop_reader, stop) = std::io::pipe().unwrap();
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            let any = "127.0.0.1:0".parse().unwrap();
            crate::server::serve(&[any], &stop_reader.into(), |addresses| {
                sender.send(addresses[0]).unwrap();
            })
            .unwrap();
        });
        Self {
            address: receiver.recv().unwrap(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        let result = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            result.unwrap().unwrap();
        }
    }
}

/// A listener whose connections are handled by `handle`, each on a thread, as long as the test
/// runs.
fn listener(handle: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let handle = handle.clone();
            thread::spawn(move || handle(stream));
        }
    });
    address
}

/// A server of `/SIZE` whose answers are made by `answer` from request number and size.
fn http(answer: impl Fn(u32, u64) -> Vec<u8> + Clone + Send + 'static) -> SocketAddr {
    listener(move |mut stream| {
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        for number in 0.. {
            let mut size = None;
            loop {
                let mut line = String::new();
                if lines.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if let Some(rest) = line.strip_prefix("GET /") {
                    size = rest.split(' ').next().unwrap().parse().ok();
                }
                if line == "\r\n" {
                    break;
                }
            }
            let bytes = answer(number, size.unwrap());
            if bytes.is_empty() || stream.write_all(&bytes).is_err() {
                return;
            }
        }
    })
}

fn ok(extra: &str, size: u64) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n{extra}\r\n").into_bytes();
    append_pattern(&mut bytes, OBJECT_SEED, 0, size as usize);
    bytes
}

fn workload(name: &str, kind: WorkloadKind, count: u32, to: SocketAddr) -> Workload {
    Workload {
        name: name.to_owned(),
        kind,
        count,
        to: vec![to],
        interval_ms: 20,
        bytes: 1_000,
        lasts_s: None,
    }
}

fn plan(workloads: Vec<Workload>) -> Plan {
    Plan {
        workloads,
        silence_ms_max: 5_000,
        connect_ms_max: 5_000,
    }
}

fn one(kind: WorkloadKind, to: SocketAddr) -> Clients {
    Clients::start(plan(vec![workload("only", kind, 1, to)]))
}

/// Copies both ways between each client and `to`; `change` may alter what goes to the client, told
/// how many bytes went before. False cuts both.
fn between(
    to: SocketAddr,
    change: impl Fn(&mut [u8], u64) -> bool + Clone + Send + 'static,
) -> SocketAddr {
    listener(move |client| {
        let server = TcpStream::connect(to).unwrap();
        let (mut from_client, mut to_server) =
            (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(std::net::Shutdown::Write);
        });
        let (mut from_server, mut to_client) = (server, client);
        let mut buffer = vec![0; 4_096];
        let mut before = 0;
        while let Ok(count) = from_server.read(&mut buffer) {
            if count == 0 {
                break;
            }
            if !change(&mut buffer[..count], before) {
                let _ = from_server.shutdown(std::net::Shutdown::Both);
                break;
            }
            before += count as u64;
            if to_client.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(std::net::Shutdown::Both);
    })
}

#[test]
fn every_workload_is_right_against_right_servers() {
    let server = Server::start();
    let web = http(|_, size| ok("", size));
    let mut half_closed = workload("half", WorkloadKind::HalfClosed, 5, server.address);
    half_closed.lasts_s = Some(1);
    let mut short = workload("short", WorkloadKind::Stream, 5, server.address);
    short.lasts_s = Some(1);
    let mut large = workload("large", WorkloadKind::Large, 2, server.address);
    large.bytes = 300_000;
    let mut slow = workload("slow", WorkloadKind::Slow, 3, server.address);
    slow.bytes = 50_000;
    let mut clients = Clients::start(plan(vec![
        workload("streams", WorkloadKind::Stream, 50, server.address),
        half_closed,
        short,
        large,
        slow,
        workload("idle", WorkloadKind::Idle, 10, server.address),
        workload("kept", WorkloadKind::HttpKeepAlive, 10, web),
        workload("new", WorkloadKind::HttpNew, 50, web),
    ]));
    let steady = clients.mark("one");
    assert_eq!(steady.total.lost(), 0, "{steady:?}");
    let Answer::Flows { flows } = clients.ask(&Command::Flows) else {
        panic!("no flows");
    };
    assert!(flows.len() >= 85, "{}", flows.len());
    // Short streams end, half-closed ones too, and new ones follow them.
    let (sum, reports) = clients.mark_until(|sum| sum.finished > 100);
    assert_eq!(sum.lost() + sum.told_to_close, 0, "{reports:?}");
    assert!(
        reports
            .iter()
            .any(|report| report.workloads["short"].finished > 0)
    );
    assert!(
        reports
            .iter()
            .any(|report| report.workloads["half"].finished > 0)
    );
    assert!(
        reports
            .iter()
            .all(|report| report.workloads["streams"].carried == 50)
    );
    assert!(reports.iter().any(|report| report.mid_message_max > 0));
    let last = clients.finish();
    assert_eq!(last.total.lost() + last.total.carried, 0, "{last:?}");
    assert!(last.total.finished >= 80, "{last:?}");
}

#[test]
fn endless_streams_end_and_are_followed_while_all_last() {
    let server = Server::start();
    let mut clients = Clients::start(plan(vec![workload(
        "streams",
        WorkloadKind::Stream,
        20,
        server.address,
    )]));
    assert_eq!(clients.mark("endless").total.finished, 0);
    clients.ask(&Command::Last { seconds: Some(1) });
    let (sum, _) = clients.mark_until(|sum| sum.finished >= 20);
    assert_eq!(sum.lost(), 0);
    clients.ask(&Command::Last { seconds: None });
    clients.mark("endless again");
    let report = clients.mark("still");
    assert_eq!(
        (report.total.carried, report.total.lost()),
        (20, 0),
        "{report:?}"
    );
}

#[test]
fn a_reset_is_noticed() {
    let server = Server::start();
    let cut = listener(move |client| {
        let mut wish = [0; 57];
        (&client).read_exact(&mut wish).unwrap();
        let socket = socket(&client);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    });
    let mut clients = Clients::start(plan(vec![
        workload("cut", WorkloadKind::Stream, 3, cut),
        workload("right", WorkloadKind::Stream, 3, server.address),
    ]));
    let (sum, reports) = clients.mark_until(|sum| sum.lost() >= 3);
    assert_eq!((sum.reset, sum.lost()), (3, 3));
    let told: Vec<&Failure> = reports.iter().flat_map(|report| &report.failures).collect();
    assert!(
        told.len() == 3 && told.iter().all(|failure| failure.workload == "cut"),
        "{told:?}"
    );
    // Nothing is opened again by itself, but when it is asked for.
    assert_eq!(clients.mark("next").workloads["cut"].connections, 0);
    clients.ask(&Command::Refill);
    assert_eq!(clients.mark("refilled").workloads["cut"].connections, 3);
}

#[test]
fn an_early_close_is_noticed() {
    let server = Server::start();
    let cut = between(server.address, |_, before| before < 5_000);
    let (sum, _) = one(WorkloadKind::Stream, cut).mark_until(|sum| sum.lost() > 0);
    assert_eq!(sum.closed_early, 1);
    // A server that ends in good order, but without having been asked.
    let ended = listener(|mut client| {
        let mut wish = [0; 57];
        client.read_exact(&mut wish).unwrap();
    });
    let (sum, _) = one(WorkloadKind::Idle, ended).mark_until(|sum| sum.lost() > 0);
    assert_eq!(sum.closed_early, 1);
    let web = http(|number, size| if number < 3 { ok("", size) } else { Vec::new() });
    let (sum, _) = one(WorkloadKind::HttpKeepAlive, web).mark_until(|sum| sum.lost() > 0);
    assert_eq!(sum.closed_early, 1);
}

#[test]
fn a_flipped_byte_is_noticed_wherever_it_is() {
    let server = Server::start();
    // In the third header, in a payload, and in large messages far behind.
    for (kind, at) in [
        (WorkloadKind::Stream, 90),
        (WorkloadKind::Stream, 5_021),
        (WorkloadKind::Slow, 40_000),
        (WorkloadKind::HalfClosed, 3_000),
        (WorkloadKind::Large, 77_777),
    ] {
        let flips = between(server.address, move |bytes, before| {
            if let Some(byte) = usize::try_from(at - before as i64)
                .ok()
                .and_then(|index| bytes.get_mut(index))
            {
                *byte ^= 0x10;
            }
            true
        });
        let (sum, reports) = one(kind, flips).mark_until(|sum| sum.lost() > 0);
        assert_eq!(sum.corrupted, 1, "{kind:?} {at}: {reports:?}");
    }
    let web = http(|number, size| {
        let mut answer = ok("", size);
        if number == 2 {
            *answer.last_mut().unwrap() ^= 1;
        }
        answer
    });
    let (sum, _) = one(WorkloadKind::HttpKeepAlive, web).mark_until(|sum| sum.lost() > 0);
    assert_eq!(sum.corrupted, 1);
}

#[test]
fn what_the_server_finds_wrong_reaches_the_tally() {
    let server = Server::start();
    let flips = listener(move |client| {
        let server = TcpStream::connect(server.address).unwrap();
        let (mut back_from, mut back_to) =
            (server.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
        let mut before = 0;
        let mut buffer = vec![0; 4_096];
        while let Ok(count) = (&client).read(&mut buffer) {
            if count == 0 {
                break;
            }
            if let Some(byte) = 3_333_usize
                .checked_sub(before)
                .and_then(|at| buffer[..count].get_mut(at))
            {
                *byte ^= 1;
            }
            before += count;
            if (&server).write_all(&buffer[..count]).is_err() {
                break;
            }
        }
    });
    let (sum, reports) = one(WorkloadKind::Stream, flips).mark_until(|sum| sum.lost() > 0);
    assert_eq!(sum.corrupted, 1, "{reports:?}");
    let last = reports.last().unwrap();
    assert!(
        last.failures[0].detail.contains("the server found"),
        "{last:?}"
    );
}

#[test]
fn a_swapped_connection_is_noticed() {
    // The answers of one connection come on another: every byte is a right one, but not here.
    let server = Server::start();
    let (sender, receiver) = mpsc::channel::<TcpStream>();
    let to = server.address;
    thread::spawn(move || {
        while let (Ok(one), Ok(other)) = (receiver.recv(), receiver.recv()) {
            let servers = [
                TcpStream::connect(to).unwrap(),
                TcpStream::connect(to).unwrap(),
            ];
            for (mut from, mut into) in [
                (one.try_clone().unwrap(), servers[0].try_clone().unwrap()),
                (other.try_clone().unwrap(), servers[1].try_clone().unwrap()),
                (servers[0].try_clone().unwrap(), other),
                (servers[1].try_clone().unwrap(), one),
            ] {
                thread::spawn(move || std::io::copy(&mut from, &mut into));
            }
        }
    });
    let swaps = listener(move |client| sender.send(client).unwrap());
    let pair = plan(vec![workload("pair", WorkloadKind::Stream, 2, swaps)]);
    let (sum, _) = Clients::start(pair).mark_until(|sum| sum.lost() > 1);
    assert_eq!(sum.corrupted, 2);
}

#[test]
fn a_refusal_is_noticed() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let (sum, _) = one(WorkloadKind::Stream, closed).mark_until(|sum| sum.lost() > 0);
    assert_eq!((sum.refused, sum.connections), (1, 1));
    let (sum, _) = one(WorkloadKind::HttpNew, closed).mark_until(|sum| sum.lost() > 2);
    assert_eq!(sum.refused, sum.lost());
    // Answered, but by an error.
    let web =
        http(|_, _| b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec());
    let (sum, _) = one(WorkloadKind::HttpKeepAlive, web).mark_until(|sum| sum.lost() > 0);
    assert_eq!(sum.refused, 1);
}

#[test]
fn told_to_close_is_told_apart() {
    let web = http(|number, size| match number {
        0..2 => ok("", size),
        2 => ok("Connection: close\r\n", size),
        _ => Vec::new(),
    });
    // The server closes after it has said so.
    let closes = listener(move |client| {
        let server = TcpStream::connect(web).unwrap();
        let (mut to_server, mut from_client) =
            (server.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
        let (mut from_server, mut to_client) = (server, client);
        let mut text = Vec::new();
        let mut buffer = [0; 4_096];
        while let Ok(count) = from_server.read(&mut buffer) {
            text.extend_from_slice(&buffer[..count]);
            to_client.write_all(&buffer[..count]).unwrap();
            let said = text
                .windows(17)
                .position(|window| window == b"Connection: close");
            if said.is_some_and(|at| text.len() >= at + 21 + 1_000) {
                to_client.shutdown(std::net::Shutdown::Write).unwrap();
                return;
            }
        }
    });
    let (sum, _) = one(WorkloadKind::HttpKeepAlive, closes).mark_until(|sum| sum.connections > 0);
    assert_eq!((sum.told_to_close, sum.lost()), (1, 0));
}

#[test]
fn a_gap_is_measured_and_silence_is_a_loss() {
    let server = Server::start();
    let has_paused = Arc::new(AtomicBool::new(false));
    let pauses = between(server.address, move |_, before| {
        if before > 3_000 && !has_paused.swap(true, Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(700));
        }
        true
    });
    let mut clients = one(WorkloadKind::Stream, pauses);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let mut longest = 0;
    while longest < 600 {
        assert!(std::time::Instant::now() < deadline, "{longest}");
        thread::sleep(Duration::from_millis(50));
        let report = clients.mark("next");
        assert_eq!(report.total.lost(), 0, "{report:?}");
        longest = longest.max(report.total.stall_ms_max);
    }
    // A later window does not have it any more. (The first ones may: the gap was seen while it
    // still went on.)
    while clients.mark("later").total.stall_ms_max >= 600 {
        assert!(std::time::Instant::now() < deadline, "each window has it");
        thread::sleep(Duration::from_millis(50));
    }

    // Nobody closes, nothing comes: still an end.
    for kind in [WorkloadKind::Stream, WorkloadKind::Idle] {
        let mute = listener(|mut client| {
            let _ = client.read_to_end(&mut Vec::new());
        });
        let mut silent = plan(vec![workload("mute", kind, 1, mute)]);
        silent.silence_ms_max = 300;
        let mut clients = Clients::start(silent);
        if kind == WorkloadKind::Idle {
            // Its probe is this window's, and so is that nobody answers it.
            let report = clients.mark("next");
            assert_eq!(report.total.closed_early, 1, "{report:?}");
            continue;
        }
        let (sum, _) = clients.mark_until(|sum| sum.lost() > 0);
        assert_eq!(sum.closed_early, 1, "{kind:?}");
    }
}

#[test]
fn what_is_sent_again_is_counted() {
    let server = Server::start();
    // One connection fills the queue of those that are to be accepted, so the clients' first
    // segment is dropped.
    let full = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    rustix::net::bind(&full, &any).unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let listener = TcpListener::from(full);
    let address = listener.local_addr().unwrap();
    let first = TcpStream::connect(address).unwrap();
    let to = server.address;
    thread::spawn(move || {
        // Not established, and on this machine nothing is under way: it was dropped.
        while !is_half_open(address) {
            thread::sleep(Duration::from_millis(10));
        }
        drop((listener.accept().unwrap(), first));
        let client = listener.accept().unwrap().0;
        let server = TcpStream::connect(to).unwrap();
        let (mut from_client, mut to_server) =
            (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
        let _ = std::io::copy(&mut &server, &mut &client);
    });
    let mut clients = one(WorkloadKind::Stream, address);
    let report = clients.mark("next");
    assert!(report.retransmits > 0, "{report:?}");
    assert_eq!(report.total.carried, 1, "{report:?}");
    // Nothing more, and the time before was no steady load.
    let report = clients.mark("later");
    assert_eq!((report.retransmits, report.retransmits_before), (0, 0));
}

/// Whether the kernel has a connection to `address` that is not established (SYN_SENT, 02).
fn is_half_open(address: SocketAddr) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let to = format!("0100007F:{:04X}", address.port());
    table.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(2);
        fields.next() == Some(&to) && fields.next() == Some("02")
    })
}

fn socket(stream: &TcpStream) -> Linger<'_> {
    Linger(stream)
}

/// Makes a close a reset.
struct Linger<'a>(&'a TcpStream);

impl Linger<'_> {
    fn set_linger(&self, linger: Option<Duration>) -> rustix::io::Result<()> {
        rustix::net::sockopt::set_socket_linger(self.0, linger)
    }
}
