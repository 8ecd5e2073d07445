//! HTTP/2: an input is the frames that come behind a polite beginning.

use hitless_proto::http1;
use hitless_proto::http2::hpack::{DecodeLimits, Decoder, Encoder};
use hitless_proto::http2::{
    Connection, Context, Event, Fields, Head, Limits, Role, Work, bridge, frame,
};

const NOW_US: u64 = 1_000_000;

/// Settings and the acknowledgement of ours.
const WELCOME: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];

/// Everything that can be seen of a run. Body bytes are seen with their number, since pieces differ.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    events: Vec<(Event, Vec<u8>)>,
    body: usize,
    output: Vec<u8>,
}

fn limits() -> Limits {
    Limits {
        has_extended_connect: true,
        streams_max: 8,
        ..Limits::default()
    }
}

/// Frames of a client.
pub(crate) fn server(input: &[u8]) {
    compare(Role::Server, input);
}

/// Frames of a member, which has four requests to answer.
pub(crate) fn client(input: &[u8]) {
    compare(Role::Client, input);
}

fn compare(role: Role, input: &[u8]) {
    let whole = run(role, input, usize::MAX, false);
    for len in [1, 9, 100] {
        let plain = run(role, input, len, false);
        let moved = run(role, input, len, true);
        assert_eq!(plain, moved, "snapshots change something, pieces of {len}");
        assert_eq!(
            plain.events, whole.events,
            "cuts change something, pieces of {len}"
        );
        assert_eq!(
            plain.body, whole.body,
            "cuts change something, pieces of {len}"
        );
    }
}

fn run(role: Role, input: &[u8], len: usize, is_moved: bool) -> Seen {
    let limits = limits();
    let cx = Context {
        now_us: NOW_US,
        limits: &limits,
    };
    let mut work = Work::default();
    let mut connection = match role {
        Role::Server => Connection::server(&cx, &mut work.out),
        Role::Client => Connection::client(&cx, &mut work.out),
    };
    if role == Role::Server {
        connection.feed(frame::PREFACE);
    }
    connection.feed(WELCOME);
    let mut seen = Seen::default();
    drive(&mut connection, &cx, &mut seen);
    if role == Role::Client {
        let mut head = Head::default();
        for (method, ends) in [
            ("GET", true),
            ("HEAD", true),
            ("POST", false),
            ("GET", true),
        ] {
            head.begin_request(method.as_bytes(), b"http", Some(b"x"), b"/");
            let stream = connection
                .open(&cx, &head, ends, &mut work.out)
                .expect("the peer has named no limit");
            if !ends {
                let sent = connection.send_data(&cx, stream, b"hello", true, &mut work.out);
                assert_eq!(sent, Ok(5));
            }
        }
    }
    for piece in input.chunks(len) {
        connection.feed(piece);
        drive(&mut connection, &cx, &mut seen);
        if is_moved {
            let snapshot = connection.snapshot(cx.now_us);
            connection = Connection::restore(&snapshot, cx.now_us).expect("just written");
        }
    }
    seen
}

fn drive(connection: &mut Connection, cx: &Context<'_>, seen: &mut Seen) {
    let mut work = Work::default();
    loop {
        let mut body = Vec::new();
        let event = connection.poll_event(cx, &mut work, &mut body);
        let fields = fields_of(event, &work.head);
        seen.body += body.len();
        match event {
            Event::NeedMore => break,
            // The socket takes all of it, and the next request comes.
            Event::Wait => take(connection, cx, seen),
            Event::Data { stream, ends } => {
                connection.release(cx, stream, body.len(), &mut work.out);
                if ends {
                    seen.events.push((event, Vec::new()));
                }
            }
            event => {
                seen.events.push((event, fields));
                if let Event::Request { stream, ends } = event {
                    let mut head = Head::default();
                    head.begin_response(200);
                    // Some are answered at once, some later or never.
                    if ends && stream % 4 == 1 {
                        connection
                            .respond(cx, stream, &head, false, &mut work.out)
                            .expect("the stream is open");
                        let _ = connection.send_data(cx, stream, &[7; 100], true, &mut work.out);
                    }
                }
                if matches!(event, Event::Failed(_) | Event::Closed) {
                    break;
                }
            }
        }
        connection.take_output(&mut work, cx.now_us);
    }
    connection.take_output(&mut work, cx.now_us);
    while connection.next_writable(cx, &[]).is_some() {}
    take(connection, cx, seen);
    let _ = connection.deadline(cx.limits);
}

/// What the socket takes: everything.
fn take(connection: &mut Connection, cx: &Context<'_>, seen: &mut Seen) {
    seen.output.extend_from_slice(connection.poll_output());
    let count = connection.poll_output().len();
    connection.sent(count, cx.now_us);
}

/// The fields of an event that has a head. A request goes on to HTTP/1.1, whose codec must see one.
fn fields_of(event: Event, head: &Head) -> Vec<u8> {
    match event {
        Event::Request { ends, .. } => one_request(head, ends),
        Event::Response { .. } | Event::Interim { .. } | Event::Trailers { .. } => {}
        _ => return Vec::new(),
    }
    let mut fields = Vec::new();
    for field in head.fields() {
        for text in [field.name, b"=", field.value, b";"] {
            fields.extend_from_slice(text);
        }
    }
    fields
}

/// What is written of a request reads as that request and nothing more.
fn one_request(head: &Head, ends: bool) {
    let (limits, rewrite) = (http1::Limits::default(), http1::Rewrite::default());
    let limits = http1::Limits {
        head_bytes_max: 60_000,
        fields_max: 128,
        ..limits
    };
    let client = [192, 0, 2, 1].into();
    let mut text = Vec::new();
    bridge::write_request(head, ends, &rewrite, client, None, &mut text);
    let cx = http1::Context {
        now_us: NOW_US,
        limits: &limits,
        rewrite: &rewrite,
        client,
        draining: false,
        date: None,
    };
    let mut connection = http1::Connection::new(NOW_US);
    let mut work = http1::Work::default();
    let step = connection.step(http1::Side::Client, &cx, &text, &mut work);
    match step.event {
        http1::Event::Request => {
            assert_eq!(work.head.len(), text.len(), "more than one head");
            assert_eq!(work.head.path().bytes(&text), head.path());
            let host = work.head.host().map(|host| host.bytes(&text));
            assert_eq!(host, head.authority());
        }
        // Upgrades are not for every server, counting down is not for us.
        http1::Event::Refused(
            http1::Refusal::Upgrade | http1::Refusal::MaxForwards | http1::Refusal::LastForward,
        ) => {}
        event => panic!("{event:?} of {:?}", String::from_utf8_lossy(&text)),
    }
}

/// A snapshot is refused, or what it makes can be used and exported again.
pub(crate) fn snapshot(input: &[u8]) {
    let Ok(mut connection) = Connection::restore(input, NOW_US) else {
        return;
    };
    let again = connection.snapshot(NOW_US);
    assert!(Connection::restore(&again, NOW_US).is_ok());
    let limits = limits();
    let cx = Context {
        now_us: NOW_US,
        limits: &limits,
    };
    let mut seen = Seen::default();
    connection.feed(WELCOME);
    connection.feed(&[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88]);
    connection.feed(&[0, 0, 1, 0, 1, 0, 0, 0, 1, 0]);
    drive(&mut connection, &cx, &mut seen);
    let mut work = Work::default();
    for stream in [1, 3] {
        let _ = connection.send_data(&cx, stream, &[0; 100], true, &mut work.out);
        connection.release(&cx, stream, 1_000, &mut work.out);
    }
    connection.expire(&cx, &mut work);
}

/// Two blocks for one decoder: the input's first byte says where it is cut.
pub(crate) fn hpack(input: &[u8]) {
    let limits = DecodeLimits {
        list_bytes_max: 4_096,
        fields_max: 50,
        work_bytes_max: 65_536,
    };
    let Some((cut, rest)) = input.split_first() else {
        return;
    };
    let (first, second) = rest.split_at((*cut as usize).min(rest.len()));
    let mut decoder = Decoder::new(300);
    let mut encoder = Encoder::new(200);
    let mut reader = Decoder::new(4_096);
    for block in [first, second] {
        let mut fields = Fields::default();
        if decoder.decode(block, &limits, &mut fields).is_err() {
            return;
        }
        assert!(decoder.table().size() <= 300);
        let mut encoded = Vec::new();
        encoder.block(&fields, &mut encoded);
        let mut again = Fields::default();
        let decoded = reader.decode(&encoded, &limits, &mut again);
        assert!(decoded.is_ok(), "{decoded:?}");
        let pairs = |fields: &Fields| -> Vec<(Vec<u8>, Vec<u8>)> {
            fields
                .iter()
                .map(|field| (field.name.to_vec(), field.value.to_vec()))
                .collect()
        };
        assert_eq!(pairs(&fields), pairs(&again));
    }
}
