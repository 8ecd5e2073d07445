//! Heads that change their form: what is written for HTTP/1.1 is read back by its codec, and the
//! other way round.

use crate::http1;
use crate::http2::bridge::{self, Framing};
use crate::http2::{Connection, Context, Event, Head, Limits, Work};

use super::wire;

const CLIENT: &str = "192.0.2.7";

fn one() -> (http1::Limits, http1::Rewrite) {
    (http1::Limits::default(), http1::Rewrite::default())
}

fn cx<'a>(limits: &'a http1::Limits, rewrite: &'a http1::Rewrite) -> http1::Context<'a> {
    http1::Context {
        now_us: 1_000_000,
        limits,
        rewrite,
        client: CLIENT.parse().unwrap(),
        draining: false,
        date: None,
    }
}

/// The head of a request as it comes over HTTP/2.
fn came(fields: &[(&str, &str)], ends: bool) -> Head {
    let (limits, mut work, mut body) = (Limits::default(), Work::default(), Vec::new());
    let cx = Context {
        now_us: 0,
        limits: &limits,
    };
    let mut connection = Connection::server(&cx, &mut Vec::new());
    connection.feed(&wire::hello());
    connection.feed(&wire::headers(1, fields, ends));
    assert_eq!(
        connection.poll_event(&cx, &mut work, &mut body),
        Event::Settings
    );
    let event = connection.poll_event(&cx, &mut work, &mut body);
    assert_eq!(event, Event::Request { stream: 1, ends });
    work.head
}

fn written(head: &Head, ends: bool) -> (String, Framing) {
    let mut out = Vec::new();
    let rewrite = http1::Rewrite::default();
    let client = CLIENT.parse().unwrap();
    let framing = bridge::write_request(head, ends, &rewrite, client, None, &mut out);
    (String::from_utf8(out).unwrap(), framing)
}

#[test]
fn a_request_becomes_one_of_http_1_1() {
    let head = came(
        &[
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/a?b"),
            (":authority", "x.test"),
            ("cookie", "a=b"),
            ("accept", "*/*"),
            ("x-forwarded-for", "10.0.0.1"),
            ("cookie", "c=d"),
            ("te", "trailers"),
        ],
        false,
    );
    let (text, framing) = written(&head, false);
    assert_eq!(framing, Framing::Chunked);
    assert_eq!(
        text,
        "POST /a?b HTTP/1.1\r\nhost: x.test\r\naccept: */*\r\ncookie: a=b; c=d\r\n\
         te: trailers\r\nconnection: te\r\nx-forwarded-for: 10.0.0.1, 192.0.2.7\r\n\
         via: 2 hitless\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    // Without a body, or with a length, there are no chunks.
    let (text, framing) = written(&came(wire::GET, true), true);
    assert!(framing == Framing::AsDeclared && !text.contains("transfer-encoding"));
    let with_length = [wire::POST, &[("content-length", "3")]].concat();
    let (text, framing) = written(&came(&with_length, false), false);
    assert!(framing == Framing::AsDeclared && text.contains("content-length: 3\r\n"));
}

/// The next parser sees one request, the same one: nothing of it can be read as another.
#[test]
fn what_is_written_is_read_back_as_one_request() {
    let (limits, rewrite) = one();
    let cx = cx(&limits, &rewrite);
    let rows: [&[(&str, &str)]; 4] = [
        wire::GET,
        &[
            (":method", "OPTIONS"),
            (":scheme", "http"),
            (":path", "*"),
            (":authority", "[::1]:80"),
        ],
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            ("host", "y.test:8080"),
        ],
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/'\"<>\\^`{|}"),
            (":authority", "x"),
            ("x", ""),
            ("y", "a: b\tc"),
        ],
    ];
    for fields in rows {
        let head = came(fields, true);
        let (text, _) = written(&head, true);
        let mut connection = http1::Connection::new(0);
        let mut work = http1::Work::default();
        let step = connection.step(http1::Side::Client, &cx, text.as_bytes(), &mut work);
        assert_eq!(step.event, http1::Event::Request, "{text}");
        assert_eq!(work.head.len(), text.len());
        assert_eq!(work.head.path().bytes(text.as_bytes()), head.path());
        let host = work.head.host().unwrap().bytes(text.as_bytes());
        assert_eq!(Some(host), head.authority());
    }
}

#[test]
fn extended_connect_becomes_an_upgrade() {
    let mut head = Head::default();
    head.begin_connect(b"websocket", b"https", b"x.test", b"/chat");
    head.push(b"sec-websocket-version", b"13");
    let mut out = Vec::new();
    let rewrite = http1::Rewrite {
        via: None,
        ..http1::Rewrite::default()
    };
    let key = Some(&b"dGhlIHNhbXBsZSBub25jZQ=="[..]);
    bridge::write_request(
        &head,
        false,
        &rewrite,
        CLIENT.parse().unwrap(),
        key,
        &mut out,
    );
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "GET /chat HTTP/1.1\r\nhost: x.test\r\nsec-websocket-version: 13\r\n\
         x-forwarded-for: 192.0.2.7\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
}

fn lines(head: &Head) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    head.fields()
        .map(|field| format!("{}: {}", text(field.name), text(field.value)))
        .collect()
}

#[test]
fn a_request_of_http_1_1_becomes_one_of_http_2() {
    let (limits, rewrite) = one();
    let cx = cx(&limits, &rewrite);
    let input = b"POST http://x.test?q HTTP/1.1\r\nHost: other\r\nAccept: */*\r\nX-One: 1\r\n\
        Connection: x-one, te\r\nKeep-Alive: timeout=5\r\nTE: trailers, gzip\r\nUpgrade: h2c\r\n\
        X-Forwarded-For: 10.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut connection = http1::Connection::new(0);
    let mut work = http1::Work::default();
    let step = connection.step(http1::Side::Client, &cx, input, &mut work);
    assert_eq!(step.event, http1::Event::Request);
    let mut head = Head::default();
    bridge::request(&work.head, input, b"https", &rewrite, cx.client, &mut head);
    let pseudo = (head.method(), head.scheme(), head.authority(), head.path());
    assert_eq!(
        pseudo,
        (
            &b"POST"[..],
            &b"https"[..],
            Some(&b"x.test"[..]),
            &b"/?q"[..]
        )
    );
    assert_eq!(
        lines(&head),
        [
            "accept: */*",
            "te: trailers",
            "x-forwarded-for: 10.0.0.1, 192.0.2.7",
            "via: 1.1 hitless"
        ]
    );
    // A server of ours takes it as it is.
    let limits = Limits::default();
    let cx = Context {
        now_us: 0,
        limits: &limits,
    };
    let (mut work, mut body) = (Work::default(), Vec::new());
    let mut client = Connection::client(&cx, &mut work.out);
    client.open(&cx, &head, true, &mut work.out).unwrap();
    let mut server = Connection::server(&cx, &mut Vec::new());
    server.feed(&work.out);
    work.out.clear();
    assert_eq!(
        server.poll_event(&cx, &mut work, &mut body),
        Event::Settings
    );
    let request = Event::Request {
        stream: 1,
        ends: true,
    };
    assert_eq!(server.poll_event(&cx, &mut work, &mut body), request);
    assert_eq!(lines(&work.head), lines(&head));
}

#[test]
fn responses_go_both_ways() {
    let (limits, rewrite) = one();
    let cx = cx(&limits, &rewrite);
    let input = b"HTTP/1.1 200 Fine\r\nServer: x\r\nConnection: close\r\nSet-Cookie: a=b\r\n\
        Set-Cookie: c=d\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut connection = http1::Connection::awaiting_response(0, false);
    let mut work = http1::Work::default();
    let step = connection.step(http1::Side::Member, &cx, input, &mut work);
    assert_eq!(step.event, http1::Event::Response);
    let mut head = Head::default();
    bridge::response(&work.head, input, &mut head);
    assert_eq!(head.status(), 200);
    assert_eq!(
        lines(&head),
        ["server: x", "set-cookie: a=b", "set-cookie: c=d"]
    );

    let mut out = Vec::new();
    let framing = bridge::write_response(&head, true, false, &mut out);
    assert_eq!(framing, Framing::Chunked);
    bridge::write_chunk(b"hello", &mut out);
    bridge::write_chunk(b"", &mut out);
    let mut trailers = Head::default();
    trailers.begin_trailers();
    trailers.push(b"x-sum", b"1");
    bridge::write_last_chunk(Some(&trailers), &mut out);
    assert_eq!(
        String::from_utf8(out.clone()).unwrap(),
        "HTTP/1.1 200 \r\nserver: x\r\nset-cookie: a=b\r\nset-cookie: c=d\r\n\
         transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"
    );
    let mut connection = http1::Connection::awaiting_response(0, false);
    connection.feed(http1::Side::Member, &out);
    let event = connection.poll_event(http1::Side::Member, &cx, &mut work);
    assert_eq!(event, http1::Event::Response);
    connection.pass_response(&cx, &mut work);
    let event = connection.poll_event(http1::Side::Member, &cx, &mut work);
    assert!(matches!(event, http1::Event::Done { .. }), "{event:?}");
}
