//! nghttp2's tools as clients of our end, over a socket: evidence from a codec that is not ours.
//!
//! Needs `nghttp` and `h2load` (Debian's nghttp2-client); without them it says so and passes.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "a test with sockets and a clock"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use hitless_harness::needs;
use hitless_proto::http2::{Connection, Context, Event, Head, Limits, Work};

/// Longer than any of these takes on a busy machine.
const SECONDS_MAX: &str = "60";

/// Runs a tool to its end and returns what it printed.
fn run(tool: &str, args: &[&str]) -> String {
    let output = Command::new("timeout")
        .args([SECONDS_MAX, tool])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{tool}: {} {text} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A server that answers `/N` with N bytes, and a POST with the length of what came. Its threads end
/// with their connections, the listening one with the test's process.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let socket = socket.unwrap();
            std::thread::spawn(move || Served::new(socket).run());
        }
    });
    address
}

struct Served {
    socket: TcpStream,
    connection: Connection,
    limits: Limits,
    work: Work,
    start: Instant,
    /// Bytes that are still to be sent.
    owed: BTreeMap<u32, usize>,
    /// Bytes that have come.
    came: BTreeMap<u32, usize>,
    /// The next request is not taken before output has gone.
    waits: bool,
}

impl Served {
    fn new(socket: TcpStream) -> Served {
        let (limits, mut work) = (Limits::default(), Work::default());
        let cx = Context {
            now_us: 0,
            limits: &limits,
        };
        let mut connection = Connection::server(&cx, &mut work.out);
        connection.take_output(&mut work, 0);
        Served {
            socket,
            connection,
            limits,
            work,
            start: Instant::now(),
            owed: BTreeMap::new(),
            came: BTreeMap::new(),
            waits: false,
        }
    }

    fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Connection, &Context<'_>, &mut Vec<u8>) -> T,
    ) -> T {
        let cx = Context {
            now_us: self.now_us(),
            limits: &self.limits,
        };
        let result = call(&mut self.connection, &cx, &mut self.work.out);
        self.connection.take_output(&mut self.work, 0);
        result
    }

    fn respond(&mut self, stream: u32, len: usize) {
        let mut head = Head::default();
        head.begin_response(200);
        head.push(b"content-length", len.to_string().as_bytes());
        self.call(|connection, cx, out| connection.respond(cx, stream, &head, len == 0, out))
            .unwrap();
        if len > 0 {
            self.owed.insert(stream, len);
            self.serve(stream);
        }
    }

    fn serve(&mut self, stream: u32) {
        const ZEROS: &[u8] = &[0; 65_536];
        while let Some(&left) = self.owed.get(&stream) {
            let data = &ZEROS[..left.min(ZEROS.len())];
            let ends = data.len() == left;
            let sent = self
                .call(|connection, cx, out| connection.send_data(cx, stream, data, ends, out))
                .unwrap();
            self.owed.insert(stream, left - sent);
            if left == sent {
                self.owed.remove(&stream);
            }
            if sent < data.len() {
                return;
            }
        }
    }

    fn run(mut self) {
        let mut buffer = [0; 20_000];
        loop {
            if !self.events() {
                return;
            }
            while !self.connection.poll_output().is_empty() {
                let Ok(count) = self.socket.write(self.connection.poll_output()) else {
                    return;
                };
                let now_us = self.now_us();
                self.connection.sent(count, now_us);
                self.writable();
            }
            if self.waits {
                continue;
            }
            let count = match self.socket.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            self.connection.feed(&buffer[..count]);
            // Every read may be the last before a move.
            let now_us = self.now_us();
            let snapshot = self.connection.snapshot(now_us);
            self.connection = Connection::restore(&snapshot, now_us).unwrap();
        }
    }

    /// False: the connection is over.
    fn events(&mut self) -> bool {
        self.waits = false;
        loop {
            let mut body = Vec::new();
            let cx = Context {
                now_us: self.now_us(),
                limits: &self.limits,
            };
            let event = self.connection.poll_event(&cx, &mut self.work, &mut body);
            match event {
                Event::NeedMore => break,
                Event::Wait => {
                    self.waits = true;
                    break;
                }
                Event::Closed => return false,
                Event::Failed(fault) => panic!("{fault}"),
                Event::Request { stream, ends: true } => {
                    let path = self.work.head.path().to_vec();
                    let len = std::str::from_utf8(&path[1..]).unwrap().parse().unwrap();
                    self.respond(stream, len);
                }
                Event::Request { stream, .. } => {
                    self.came.insert(stream, 0);
                }
                Event::Data { stream, ends } => {
                    self.call(|connection, cx, out| {
                        connection.release(cx, stream, body.len(), out);
                    });
                    let came = self.came.get_mut(&stream).unwrap();
                    *came += body.len();
                    let len = *came;
                    if ends {
                        self.respond(stream, len);
                    }
                }
                Event::Trailers { stream } => {
                    let len = self.came[&stream];
                    self.respond(stream, len);
                }
                Event::Reset { stream, .. } => {
                    self.owed.remove(&stream);
                }
                _ => {}
            }
        }
        self.writable();
        true
    }

    fn writable(&mut self) {
        while let Some(id) = self.call(|connection, cx, out| connection.next_writable(cx, out)) {
            self.serve(id);
        }
    }
}

#[test]
fn nghttp_gets_what_it_asks_for() {
    if !needs::program("nghttp", "nghttp2-client") {
        return;
    }
    let address = server();
    for len in [0, 1, 100, 70_000, 3_000_000] {
        let text = run("nghttp", &["--stat", &format!("http://{address}/{len}")]);
        assert!(text.contains(" 200 "), "{text}");
    }
    // A body with trailers and padding, in small windows.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![b'x'; 500_000]).unwrap();
    let path = file.path().to_str().unwrap();
    let url = format!("http://{address}/");
    let args = [
        "-v",
        "-n",
        "-d",
        path,
        "--trailer",
        "x-sum: 1",
        "-b",
        "100",
        "-w",
        "12",
        &url,
    ];
    let text = run("nghttp", &args);
    assert!(text.contains("content-length: 500000"), "{text}");
    assert!(text.contains(":status: 200"), "{text}");
    assert!(
        !text.contains("recv GOAWAY") && !text.contains("recv RST_STREAM"),
        "{text}"
    );
}

#[test]
fn h2load_loses_nothing() {
    if !needs::program("h2load", "nghttp2-client") {
        return;
    }
    let address = server();
    for (len, count) in [("100", "4000"), ("10000", "1000"), ("1000000", "40")] {
        let url = format!("http://{address}/{len}");
        let text = run("h2load", &["-n", count, "-c", "4", "-m", "20", &url]);
        let all = format!("{count} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(text.contains(&all), "{text}");
    }
}
