//! What the codec adds to a request's cost: parse and rewrite of both heads and the framing of both
//! bodies, beside bare `httparse` over the same bytes in the same run.
//!
//! `cargo xtask bench codec` prints a table, with `--json` one document in the form of all our
//! benchmarks; it fails if a goal is missed. Ours and theirs alternate; a figure is the median of the rounds.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a benchmark has a clock"
)]

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::process::ExitCode;
use std::time::Instant;

use hitless_harness::figures::{Arguments, Document, Figure, median};
use hitless_proto::http1::{Connection, Context, Event, Limits, Rewrite, Side, Work};

const ROUNDS: usize = 200;
const EXCHANGES: u32 = 2_000;

/// The prototype proxies spent 700 to 1,200 ns of user time per request, loop and bookkeeping
/// included; the codec shall be at most half of the lower figure.
const GOAL_NS: f64 = 350.0;

struct Case {
    measure: &'static str,
    request: Vec<u8>,
    response: Vec<u8>,
    goal_ns: f64,
}

fn main() -> ExitCode {
    match Arguments::read(&[]) {
        Ok(arguments) => {
            let figures = cases().iter().map(figure).collect();
            Document::new("codec", figures).print(&arguments)
        }
        Err(code) => code,
    }
}

fn cases() -> Vec<Case> {
    let small =
        "GET /100 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: load/1.0\r\nAccept: */*\r\n\r\n";
    let browser = "GET /assets/app.js?v=20240611 HTTP/1.1\r\nHost: www.example.com\r\n\
        Connection: keep-alive\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:126.0) Gecko/20100101 Firefox/126.0\r\n\
        Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
        Accept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n\
        Referer: http://www.example.com/index.html\r\nCookie: session=4c1f0f8b2b5e4d3f9a7c; theme=dark\r\n\
        If-None-Match: \"5f3-61a8c\"\r\nCache-Control: max-age=0\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 11 Jun 2024 10:00:00 GMT\r\n\
        Content-Type: application/octet-stream\r\nConnection: keep-alive\r\n";
    let plain = format!("{head}Content-Length: 100\r\n\r\n{}", "x".repeat(100));
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(10)
    );
    let case = |measure, request: &str, response: &str, goal_ns| Case {
        measure,
        request: request.as_bytes().to_vec(),
        response: response.as_bytes().to_vec(),
        goal_ns,
    };
    vec![
        case(
            "HTTP/1 exchange, 3 fields, 100 B response",
            small,
            &plain,
            GOAL_NS,
        ),
        case(
            "HTTP/1 exchange, 10 fields, 100 B response",
            browser,
            &plain,
            2.0 * GOAL_NS,
        ),
        case(
            "HTTP/1 exchange, 3 fields, 10 chunks of 1 kB",
            small,
            &chunked,
            2.0 * GOAL_NS,
        ),
    ]
}

fn figure(case: &Case) -> Figure {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut proxy = Proxy::new();
    for _ in 0..ROUNDS {
        ours.push(time(|| proxy.exchange(&case.request, &case.response)));
        theirs.push(time(|| tokenise(&case.request, &case.response)));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    Figure::new(case.measure, "ns", ours)
        .beside("httparse", theirs)
        .goal(format!("<= {:.0} ns", case.goal_ns), ours <= case.goal_ns)
}

fn time(mut exchange: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..EXCHANGES {
        exchange();
    }
    start.elapsed().as_nanos() as f64 / f64::from(EXCHANGES)
}

/// What a worker has for it: one connection, and the thread's room.
struct Proxy {
    connection: Connection,
    work: Work,
    limits: Limits,
    rewrite: Rewrite,
    now_us: u64,
}

impl Proxy {
    fn new() -> Proxy {
        Proxy {
            connection: Connection::new(0),
            work: Work::default(),
            limits: Limits::default(),
            rewrite: Rewrite::default(),
            now_us: 0,
        }
    }

    fn exchange(&mut self, request: &[u8], response: &[u8]) {
        self.now_us += 1;
        let cx = Context {
            now_us: self.now_us,
            limits: &self.limits,
            rewrite: &self.rewrite,
            client: [192, 0, 2, 1].into(),
            draining: false,
            date: None,
        };
        let (connection, work) = (&mut self.connection, &mut self.work);
        let request = black_box(request);
        let step = connection.step(Side::Client, &cx, request, work);
        assert_eq!(step.event, Event::Request);
        let consumed = connection.forward_request(&cx, request, work);
        assert_eq!(consumed, request.len());
        black_box(&work.out);
        work.out.clear();

        let response = black_box(response);
        let step = connection.step(Side::Member, &cx, response, work);
        assert_eq!(step.event, Event::Response);
        let mut rest = &response[connection.forward_response(&cx, response, work)..];
        loop {
            let step = connection.step(Side::Member, &cx, rest, work);
            black_box((&work.out, &rest[step.tail.clone()]));
            rest = &rest[step.consumed..];
            work.out.clear();
            match step.event {
                Event::Body => {}
                Event::Done { .. } => return,
                event => panic!("{event:?}"),
            }
        }
    }
}

/// The floor: both heads cut into tokens, nothing else.
fn tokenise(request: &[u8], response: &[u8]) {
    let mut table = [const { MaybeUninit::uninit() }; 128];
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed.parse_with_uninit_headers(black_box(request), &mut table);
    assert!(status.is_ok_and(|status| status.is_complete()));
    black_box(&parsed);

    let mut table = [const { MaybeUninit::uninit() }; 128];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status =
        config.parse_response_with_uninit_headers(&mut parsed, black_box(response), &mut table);
    assert!(status.is_ok_and(|status| status.is_complete()));
    black_box(&parsed);
}
