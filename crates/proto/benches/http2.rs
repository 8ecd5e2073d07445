//! What the HTTP/2 codec adds to a request's cost, beside the `h2` crate in the same run.
//!
//! `cargo xtask bench http2` prints a table, with `--json` one document in the form of all our
//! benchmarks; it fails if a goal is missed. An exchange is both ends: a request with its head encoded, framed, decoded and judged,
//! a response the same way, and its body. The peer is driven over a pipe in memory, ours by passing
//! buffers; what the pipe costs is in the peer's figure. Ours and theirs alternate; a figure is the
//! median of the rounds. The row of allocations is exact: they are counted.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::unwrap_used,
    reason = "a benchmark has a clock and stops at the first fault"
)]

use std::alloc::System;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use bytes::Bytes;
use hitless_harness::figures::{Arguments, Document, Figure, median};
use hitless_proto::http2::{Connection, Context, Event, Head, Limits, Work};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 60;
const EXCHANGES: u32 = 500;

/// The prototype proxy spent 3.6 us per request, kernel included. A proxy has two ends of HTTP/2 per
/// exchange when both sides speak it, as here; they shall be at most 0.3 of that.
const GOAL_NS: f64 = 1_100.0;

struct Case {
    measure: &'static str,
    request: &'static [(&'static str, &'static str)],
    response: &'static [(&'static str, &'static str)],
    body: usize,
    /// Streams at once.
    streams: u32,
    goal_ns: f64,
}

const SMALL: &[(&str, &str)] = &[("user-agent", "load/1.0"), ("accept", "*/*")];
const BROWSER: &[(&str, &str)] = &[
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:126.0) Gecko/20100101 Firefox/126.0",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("accept-language", "en-GB,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br"),
    ("referer", "http://www.example.com/index.html"),
    ("cookie", "session=4c1f0f8b2b5e4d3f9a7c; theme=dark"),
    ("if-none-match", "\"5f3-61a8c\""),
    ("cache-control", "max-age=0"),
];
const ANSWER: &[(&str, &str)] = &[
    ("server", "nginx/1.22.1"),
    ("date", "Tue, 11 Jun 2024 10:00:00 GMT"),
    ("content-type", "application/octet-stream"),
];

const CASES: &[Case] = &[
    Case {
        measure: "HTTP/2 exchange, both ends, 2 fields, 100 B response",
        request: SMALL,
        response: ANSWER,
        body: 100,
        streams: 1,
        goal_ns: GOAL_NS,
    },
    Case {
        measure: "HTTP/2 exchange, both ends, 8 fields, 100 B response",
        request: BROWSER,
        response: ANSWER,
        body: 100,
        streams: 1,
        goal_ns: 2.0 * GOAL_NS,
    },
    Case {
        measure: "HTTP/2 exchange, both ends, 2 fields, 10 kB response",
        request: SMALL,
        response: ANSWER,
        body: 10_000,
        streams: 1,
        goal_ns: 1.5 * GOAL_NS,
    },
    Case {
        measure: "HTTP/2 exchange, both ends, 2 fields, 100 B response, 50 streams",
        request: SMALL,
        response: ANSWER,
        body: 100,
        streams: 50,
        goal_ns: GOAL_NS,
    },
];

fn main() -> ExitCode {
    match Arguments::read(&[]) {
        Ok(arguments) => {
            let figures = CASES.iter().flat_map(figures).collect();
            Document::new("http2", figures).print(&arguments)
        }
        Err(code) => code,
    }
}

fn figures(case: &'static Case) -> [Figure; 2] {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut pair = Pair::new(case);
    let mut peer = Peer::new(case);
    let turns = EXCHANGES / case.streams;
    let time = |turn: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..turns {
            turn();
        }
        start.elapsed().as_nanos() as f64 / f64::from(turns * case.streams)
    };
    for _ in 0..ROUNDS {
        ours.push(time(&mut || pair.turn(case)));
        theirs.push(time(&mut || peer.turn(case)));
    }
    let allocations = |turn: &mut dyn FnMut()| {
        let region = Region::new(ALLOCATOR);
        for _ in 0..turns {
            turn();
        }
        region.change().allocations as f64 / f64::from(turns * case.streams)
    };
    let ours_allocated = allocations(&mut || pair.turn(case));
    let theirs_allocated = allocations(&mut || peer.turn(case));
    let (ours, theirs) = (median(ours), median(theirs));
    let figure = |measure: String, unit, ours: f64, theirs, goal: f64| {
        Figure::new(measure, unit, ours)
            .beside("h2", theirs)
            .goal(format!("<= {goal:.0} {unit}"), ours <= goal)
    };
    let allocations = format!("{}: allocations", case.measure);
    [
        figure(case.measure.to_owned(), "ns", ours, theirs, case.goal_ns),
        figure(allocations, "1", ours_allocated, theirs_allocated, 0.0),
    ]
}

/// Both ends of ours, with what a worker's thread lends them.
struct Pair {
    client: Connection,
    server: Connection,
    limits: Limits,
    request: Head,
    response: Head,
    body: Vec<u8>,
    to_server: Work,
    to_client: Work,
    now_us: u64,
}

impl Pair {
    fn new(case: &Case) -> Pair {
        let limits = Limits::default();
        let cx = Context {
            now_us: 0,
            limits: &limits,
        };
        let (mut to_server, mut to_client) = (Work::default(), Work::default());
        let mut request = Head::default();
        request.begin_request(
            b"GET",
            b"http",
            Some(b"www.example.com"),
            b"/assets/app.js?v=1",
        );
        for (name, value) in case.request {
            request.push(name.as_bytes(), value.as_bytes());
        }
        let mut response = Head::default();
        response.begin_response(200);
        for (name, value) in case.response {
            response.push(name.as_bytes(), value.as_bytes());
        }
        response.push(b"content-length", case.body.to_string().as_bytes());
        Pair {
            client: Connection::client(&cx, &mut to_server.out),
            server: Connection::server(&cx, &mut to_client.out),
            limits,
            request,
            response,
            body: vec![b'x'; case.body],
            to_server,
            to_client,
            now_us: 0,
        }
    }

    /// Requests on all streams, all responses.
    fn turn(&mut self, case: &Case) {
        self.now_us += 10;
        let cx = Context {
            now_us: self.now_us,
            limits: &self.limits,
        };
        for _ in 0..case.streams {
            self.client
                .open(&cx, &self.request, true, &mut self.to_server.out)
                .unwrap();
        }
        // The server's input is the client's output; its output is for the client.
        let input = std::mem::take(&mut self.to_server.out);
        let (mut rest, mut served) = (&input[..], 0);
        while served < case.streams {
            let step = self.server.step(&cx, rest, &mut self.to_client);
            rest = &rest[step.consumed..];
            if let Event::Request { stream, .. } = step.event {
                black_box(self.to_client.head.path());
                let out = &mut self.to_client.out;
                self.server
                    .respond(&cx, stream, &self.response, false, out)
                    .unwrap();
                let sent = self.server.send_data(&cx, stream, &self.body, true, out);
                assert_eq!(sent, Ok(self.body.len()));
                served += 1;
            }
        }
        let step = self.server.step(&cx, rest, &mut self.to_client);
        assert_eq!(step.event, Event::NeedMore);
        self.to_server.out = input;
        self.to_server.out.clear();

        let input = std::mem::take(&mut self.to_client.out);
        let mut rest = &input[..];
        loop {
            let step = self.client.step(&cx, rest, &mut self.to_server);
            let data = rest[step.data.clone()].len();
            rest = &rest[step.consumed..];
            match step.event {
                Event::Data { stream, .. } => {
                    self.client
                        .release(&cx, stream, data, &mut self.to_server.out);
                }
                Event::NeedMore => break,
                event => {
                    black_box(event);
                }
            }
        }
        assert_eq!(self.client.streams() + self.server.streams(), 0);
        self.to_client.out = input;
        self.to_client.out.clear();
    }
}

/// The `h2` crate, client and server on one thread.
struct Peer {
    runtime: tokio::runtime::Runtime,
    local: tokio::task::LocalSet,
    client: h2::client::SendRequest<Bytes>,
}

impl Peer {
    fn new(case: &'static Case) -> Peer {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let local = tokio::task::LocalSet::new();
        let client = local.block_on(&runtime, async {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            tokio::task::spawn_local(async move {
                let mut connection = h2::server::handshake(theirs).await.unwrap();
                let body = Bytes::from(vec![b'x'; case.body]);
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    black_box(request.uri());
                    let mut response = http::Response::new(());
                    for (name, value) in case.response {
                        let value = http::HeaderValue::from_static(value);
                        response.headers_mut().insert(*name, value);
                    }
                    let headers = response.headers_mut();
                    headers.insert("content-length", http::HeaderValue::from(case.body));
                    let mut stream = respond.send_response(response, false).unwrap();
                    stream.send_data(body.clone(), true).unwrap();
                }
            });
            let (client, connection) = h2::client::handshake(ours).await.unwrap();
            tokio::task::spawn_local(async move {
                let _ = connection.await;
            });
            client
        });
        Peer {
            runtime,
            local,
            client,
        }
    }

    fn turn(&mut self, case: &Case) {
        let client = &mut self.client;
        self.local.block_on(&self.runtime, async {
            let mut responses = Vec::new();
            for _ in 0..case.streams {
                let mut request = http::Request::new(());
                *request.uri_mut() =
                    http::Uri::from_static("http://www.example.com/assets/app.js?v=1");
                for (name, value) in case.request {
                    let value = http::HeaderValue::from_static(value);
                    request.headers_mut().insert(*name, value);
                }
                std::future::poll_fn(|cx| client.poll_ready(cx))
                    .await
                    .unwrap();
                let (response, _) = client.send_request(request, true).unwrap();
                responses.push(response);
            }
            for response in responses {
                let mut body = response.await.unwrap().into_body();
                while let Some(data) = body.data().await {
                    let len = black_box(data.unwrap()).len();
                    body.flow_control().release_capacity(len).unwrap();
                }
            }
        });
    }
}
