//! The monitors against real sockets on loopback. Everything is waited for with a deadline, nothing
//! by time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hitless_core::health::{Admin, AdminReason, Failure, Health, HealthReason};

use super::*;

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn site(monitor: &str, members: &[SocketAddr]) -> Site {
    let members: Vec<String> = members
        .iter()
        .map(|member| format!("\"{member}\""))
        .collect();
    let text = format!(
        "pools: {{ p: {{ members: [{}], monitor: {monitor} }} }}\n\
         virtual_servers: {{ v: {{ listen: \"127.0.0.1:1\", protocol: http, pool: p }} }}\n",
        members.join(", ")
    );
    Site::parse("test", text.as_bytes()).expect("the test's own site")
}

/// A server that answers each connection with the bytes of the moment, and ends with the test.
struct Server {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
    is_over: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(answer: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(answer.to_vec()));
        let is_over = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicUsize::new(0));
        let (thread_answer, over, count) = (answer.clone(), is_over.clone(), asked.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                stream
                    .set_read_timeout(Some(Duration::from_secs(5)))
                    .unwrap();
                let mut buffer = [0; 1024];
                let read = stream.read(&mut buffer).unwrap_or(0);
                if buffer[..read].starts_with(b"GET /health HTTP/1.1\r\nHost: ") {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                let answer = thread_answer.lock().unwrap().clone();
                let _ = stream.write_all(&answer);
            }
        });
        Self {
            address,
            answer,
            is_over,
            asked,
            thread: Some(thread),
        }
    }

    fn answer_with(&self, answer: &[u8]) {
        *self.answer.lock().unwrap() = answer.to_vec();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
const HTTP: &str = "{ http: { path: /health, interval: 10ms, rise: 2, fall: 2 } }";

#[test]
fn a_member_goes_down_and_comes_back_with_its_answers() {
    let server = Server::start(OK);
    let board = Board::new();
    let _monitors = Monitors::start(board.clone(), &site(HTTP, &[server.address])).unwrap();
    let member = board.member("p", server.address);
    assert!(
        member.is_usable(),
        "a member that nothing is known of is used"
    );
    wait_until("up", || member.detail().health == Health::Up);
    server.answer_with(BUSY);
    wait_until("down", || member.detail().health == Health::Down);
    assert!(!member.is_usable());
    let failure = Failure::Status {
        found: 503,
        expected: 200,
    };
    assert_eq!(
        member.detail().health_reason,
        HealthReason::Failed { failure }
    );
    server.answer_with(b"SSH-2.0-something\r\n");
    let not_http = HealthReason::Failed {
        failure: Failure::NotHttp,
    };
    wait_until("not HTTP", || member.detail().health_reason == not_http);
    server.answer_with(b"");
    let closed = HealthReason::Failed {
        failure: Failure::Closed,
    };
    wait_until("closed", || member.detail().health_reason == closed);
    server.answer_with(OK);
    wait_until("up again", || member.is_usable());
    assert!(server.asked.load(Ordering::SeqCst) >= 5);
}

#[test]
fn tcp_monitors_tell_a_listener_from_none() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = listener.local_addr().unwrap();
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let board = Board::new();
    let site = site("{ tcp: { interval: 10ms } }", &[there, gone]);
    let _monitors = Monitors::start(board.clone(), &site).unwrap();
    wait_until("one up, one down", || {
        let of = |address| board.member("p", address).detail().health;
        (of(there), of(gone)) == (Health::Up, Health::Down)
    });
    let refused = HealthReason::Failed {
        failure: Failure::Refused,
    };
    assert_eq!(board.member("p", gone).detail().health_reason, refused);
}

#[test]
fn a_member_that_never_answers_does_not_pile_up_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let board = Board::new();
    let monitor = "{ http: { interval: 10ms, timeout: 10ms, fall: 3 } }";
    let _monitors = Monitors::start(board.clone(), &site(monitor, &[address])).unwrap();
    let member = board.member("p", address);
    let (mut open, mut seen, mut open_max) = (Vec::new(), 0, 0);
    wait_until("20 probes", || {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).unwrap();
            open.push(stream);
            seen += 1;
        }
        // Connections that the monitor has closed read as ended.
        open.retain_mut(|stream| {
            loop {
                match stream.read(&mut [0; 1024]) {
                    Ok(0) => return false,
                    Ok(_) => {}
                    Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                }
            }
        });
        open_max = open_max.max(open.len());
        seen >= 20
    });
    // One may be closing while the next one opens.
    assert!(open_max <= 2, "{open_max} at a time");
    assert_eq!(member.detail().health, Health::Down);
    let timed_out = HealthReason::Failed {
        failure: Failure::TimedOut,
    };
    assert_eq!(member.detail().health_reason, timed_out);
}

#[test]
fn a_reload_keeps_what_is_known_of_members_that_stay() {
    let (a, b) = (Server::start(OK), Server::start(BUSY));
    let board = Board::new();
    let both = site(HTTP, &[a.address, b.address]);
    let monitors = Monitors::start(board.clone(), &both).unwrap();
    let (state_a, state_b) = (board.member("p", a.address), board.member("p", b.address));
    wait_until("both known", || {
        (state_a.detail().health, state_b.detail().health) == (Health::Up, Health::Down)
    });
    let since = state_b.detail().since_us;
    state_a.set_admin(Admin::Drain, AdminReason::Operator("night".into()));

    // Another interval, so long that nothing could be found out again.
    let slow = "{ http: { path: /health, interval: 1h, timeout: 1s } }";
    let c = Server::start(OK);
    monitors.reload(&site(slow, &[a.address, b.address, c.address]));
    assert!(!board.member("p", b.address).is_usable());
    assert_eq!(board.member("p", b.address).detail().since_us, since);
    assert_eq!(board.member("p", a.address).detail().admin, Admin::Drain);
    assert!(Arc::ptr_eq(&state_b, &board.member("p", b.address)));

    monitors.reload(&site(slow, &[a.address]));
    assert_eq!(board.export().len(), 1);
    monitors.reload(&site(HTTP, &[a.address, b.address]));
    assert_eq!(
        board.member("p", b.address).detail().since_us,
        None,
        "forgotten when it left"
    );
}

#[test]
fn the_next_worker_starts_with_what_this_one_knew() {
    let server = Server::start(BUSY);
    let old = Board::new();
    let monitors = Monitors::start(old.clone(), &site(HTTP, &[server.address])).unwrap();
    let down = |board: &Board| board.member("p", server.address).detail().health == Health::Down;
    wait_until("down", || down(&old));
    drop(monitors);
    let next = Board::new();
    next.import(old.export());
    assert!(down(&next));
    let slow = "{ http: { path: /health, interval: 1h, timeout: 1s } }";
    let _monitors = Monitors::start(next.clone(), &site(slow, &[server.address])).unwrap();
    assert!(down(&next));
    assert_eq!(next.export(), old.export());
}

#[test]
fn a_pool_that_loses_its_monitor_is_used_whatever_was_said() {
    let server = Server::start(BUSY);
    let board = Board::new();
    let monitors = Monitors::start(board.clone(), &site(HTTP, &[server.address])).unwrap();
    let member = board.member("p", server.address);
    wait_until("down", || !member.is_usable());
    let text = format!(
        "pools: {{ p: {{ members: [\"{}\"] }} }}\n\
         virtual_servers: {{ v: {{ listen: \"127.0.0.1:1\", protocol: tcp, pool: p }} }}\n",
        server.address
    );
    monitors.reload(&Site::parse("test", text.as_bytes()).unwrap());
    wait_until("usable", || member.is_usable());
    // The thread may have had a result at hand; it must not come back to it.
    drop(monitors);
    assert_eq!(member.detail().health_reason, HealthReason::NoMonitor);
}
