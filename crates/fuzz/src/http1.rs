//! HTTP/1.1: an input is what both sides send, cut at bytes of 0x1e into pieces that take turns.

use hitless_proto::http1::{Connection, Context, Event, Limits, Rewrite, Side, Work};

const TURN: u8 = 0x1e;

/// Everything that can be seen of a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    events: Vec<Event>,
    to_client: Vec<u8>,
    to_member: Vec<u8>,
}

fn context<'a>(limits: &'a Limits, rewrite: &'a Rewrite) -> Context<'a> {
    Context {
        now_us: 1_000_000,
        limits,
        rewrite,
        client: [192, 0, 2, 1].into(),
        draining: false,
        date: None,
    }
}

/// With a snapshot after every piece, or without: it is the same.
pub(crate) fn exchange(input: &[u8]) {
    for len in [usize::MAX, 7, 1] {
        let plain = run(input, len, false);
        let moved = run(input, len, true);
        assert_eq!(plain, moved, "snapshots change something, pieces of {len}");
    }
}

fn run(input: &[u8], len: usize, is_moved: bool) -> Seen {
    let (limits, rewrite) = (Limits::default(), Rewrite::default());
    let cx = context(&limits, &rewrite);
    let mut connection = Connection::new(cx.now_us);
    let mut seen = Seen::default();
    for (turn, bytes) in input.split(|byte| *byte == TURN).enumerate() {
        let from = [Side::Client, Side::Member][turn % 2];
        for piece in bytes.chunks(len) {
            connection.feed(from, piece);
            if !drive(&mut connection, &cx, &mut seen) {
                return seen;
            }
            if is_moved {
                let snapshot = connection.snapshot(cx.now_us);
                connection = Connection::restore(&snapshot, cx.now_us).expect("just written");
            }
        }
    }
    seen
}

/// False: the connection is over.
fn drive(connection: &mut Connection, cx: &Context<'_>, seen: &mut Seen) -> bool {
    let mut work = Work::default();
    loop {
        let before = seen.events.len();
        for side in [Side::Client, Side::Member] {
            // As a worker does: nobody reads a member that is not needed.
            while side == Side::Client || connection.is_in_exchange() {
                let event = connection.poll_event(side, cx, &mut work);
                match event {
                    Event::NeedMore | Event::Wait => break,
                    Event::Request => connection.pass_request(cx, &mut work),
                    Event::Response => connection.pass_response(cx, &mut work),
                    Event::Done { .. } => connection.forget_member(),
                    _ => {}
                }
                seen.to_client
                    .extend_from_slice(connection.poll_output(Side::Client));
                seen.to_member
                    .extend_from_slice(connection.poll_output(Side::Member));
                for to in [Side::Client, Side::Member] {
                    let count = connection.poll_output(to).len();
                    connection.sent(to, count, cx.now_us);
                }
                let is_over = matches!(
                    event,
                    Event::Refused(_)
                        | Event::BadMember(_)
                        | Event::Abort(_)
                        | Event::Close
                        | Event::Switched
                );
                if event != Event::Body {
                    seen.events.push(event);
                }
                if is_over {
                    return false;
                }
            }
        }
        if seen.events.len() == before {
            return true;
        }
    }
}

/// A snapshot is refused, or what it makes can be used and exported again.
pub(crate) fn snapshot(input: &[u8]) {
    let (limits, rewrite) = (Limits::default(), Rewrite::default());
    let cx = context(&limits, &rewrite);
    let Ok(mut connection) = Connection::restore(input, cx.now_us) else {
        return;
    };
    let again = connection.snapshot(cx.now_us);
    assert!(Connection::restore(&again, cx.now_us).is_ok());
    let mut seen = Seen::default();
    connection.feed(Side::Client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    connection.feed(
        Side::Member,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    );
    drive(&mut connection, &cx, &mut seen);
    let _ = connection.deadline(&limits);
}
