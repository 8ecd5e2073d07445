//! A table of what clients send after their preface and what they get for it. Every row is fed
//! whole, byte by byte, and cut in two at every place.

use crate::http2::frame::{Kind, flag};
use crate::http2::{ErrorCode, Limits, Role};

use super::driver::End;
use super::wire::{
    self, GET, POST, block, data, headers, padded, pieces, ping, raw, reset, setting, window,
};

/// What comes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing is refused.
    Fine,
    /// GOAWAY with this code.
    Gone(ErrorCode),
    /// RST_STREAM for this stream, and the connection goes on.
    Reset(u32, ErrorCode),
}

use Outcome::{Fine, Gone, Reset};

const PROTOCOL: ErrorCode = ErrorCode::PROTOCOL_ERROR;
const SIZE: ErrorCode = ErrorCode::FRAME_SIZE_ERROR;
const CLOSED: ErrorCode = ErrorCode::STREAM_CLOSED;
const FLOW: ErrorCode = ErrorCode::FLOW_CONTROL_ERROR;
const COMPRESSION: ErrorCode = ErrorCode::COMPRESSION_ERROR;
const CALM: ErrorCode = ErrorCode::ENHANCE_YOUR_CALM;

type Row = (&'static str, Vec<Vec<u8>>, Outcome);

/// HEADERS without END_HEADERS.
fn open_block(stream: u32, ends: bool) -> Vec<u8> {
    raw(Kind::Headers, ends.into(), stream, &block(GET))
}

fn continuation(stream: u32, payload: &[u8], is_last: bool) -> Vec<u8> {
    let flags = if is_last { flag::END_HEADERS } else { 0 };
    raw(Kind::Continuation, flags, stream, payload)
}

fn with_priority(stream: u32, parent: u32) -> Vec<u8> {
    let payload = [&parent.to_be_bytes()[..], &[15], &block(GET)].concat();
    let flags = flag::END_HEADERS | flag::END_STREAM | flag::PRIORITY;
    raw(Kind::Headers, flags, stream, &payload)
}

fn priority(stream: u32, parent: u32) -> Vec<u8> {
    let payload = [&parent.to_be_bytes()[..], &[15]].concat();
    raw(Kind::Priority, 0, stream, &payload)
}

fn with_length(stream: u32, length: &str) -> Vec<u8> {
    headers(
        stream,
        &[POST, &[("content-length", length)]].concat(),
        false,
    )
}

fn rows() -> Vec<Row> {
    let get = || headers(1, GET, true);
    let post = || headers(1, POST, false);
    let cancel = || reset(1, ErrorCode::CANCEL);
    [
        frame_rows(),
        message_rows(),
        stream_rows(&get, &post, &cancel),
        control_rows(&get, &post),
    ]
    .concat()
}

fn frame_rows() -> Vec<Row> {
    let mut reserved = headers(1, GET, true);
    reserved[5] |= 0x80;
    let large = |kind, stream| raw(kind, 0, stream, &[0; 16_385]);
    vec![
        (
            "unknown kind",
            vec![raw(Kind::Unknown(0xff), 0, 0, b"what"), ping()],
            Fine,
        ),
        (
            "unknown kind on a stream",
            vec![raw(Kind::Unknown(0x20), 0xff, 7, b"what"), ping()],
            Fine,
        ),
        (
            "unknown kind without payload",
            vec![raw(Kind::Unknown(0x20), 0, 1, b""), ping()],
            Fine,
        ),
        (
            "unknown flags",
            vec![raw(Kind::Ping, 0x16, 0, b"12345678")],
            Fine,
        ),
        ("reserved bit of a stream", vec![reserved], Fine),
        (
            "unknown kind inside a block",
            vec![open_block(1, true), raw(Kind::Unknown(0xff), 0, 1, b"")],
            Gone(PROTOCOL),
        ),
        (
            "unknown kind too large",
            vec![large(Kind::Unknown(0xff), 0)],
            Gone(SIZE),
        ),
        (
            "data of the largest size",
            vec![headers(1, POST, false), data(1, &[0; 16_384], true)],
            Fine,
        ),
        (
            "data too large",
            vec![headers(1, POST, false), large(Kind::Data, 1)],
            Gone(SIZE),
        ),
        (
            "headers too large",
            vec![large(Kind::Headers, 1)],
            Gone(SIZE),
        ),
        (
            "settings too large",
            vec![large(Kind::Settings, 0)],
            Gone(SIZE),
        ),
        (
            "block interrupted by priority",
            vec![open_block(1, true), priority(1, 0)],
            Gone(PROTOCOL),
        ),
        (
            "block interrupted by headers",
            vec![open_block(1, true), headers(3, GET, true)],
            Gone(PROTOCOL),
        ),
        (
            "block interrupted by data",
            vec![open_block(1, false), data(1, b"x", true)],
            Gone(PROTOCOL),
        ),
        (
            "block continued on another stream",
            vec![open_block(1, true), continuation(3, b"", true)],
            Gone(PROTOCOL),
        ),
        (
            "block that cannot be decoded",
            vec![raw(Kind::Headers, 5, 1, &[0x40, 0xff])],
            Gone(COMPRESSION),
        ),
        (
            "block with an index of 0",
            vec![raw(Kind::Headers, 5, 1, &[0x80])],
            Gone(COMPRESSION),
        ),
        (
            "block with an index too high",
            vec![raw(Kind::Headers, 5, 1, &[0xff, 0x46])],
            Gone(COMPRESSION),
        ),
        (
            "block with a table too large",
            vec![raw(Kind::Headers, 5, 1, &[0x3f, 0xe2, 0x1f])],
            Gone(COMPRESSION),
        ),
        (
            "block with a table size at its end",
            vec![raw(
                Kind::Headers,
                5,
                1,
                &[&block(GET)[..], &[0x20]].concat(),
            )],
            Gone(COMPRESSION),
        ),
        (
            "block that is empty",
            vec![raw(Kind::Headers, 5, 1, &[])],
            Reset(1, PROTOCOL),
        ),
    ]
}

fn message_rows() -> Vec<Row> {
    let pad = |flags, payload: &[u8]| raw(Kind::Headers, flags, 1, payload);
    let padded_block =
        |padding: u8, there: usize| [&[padding][..], &block(GET), &vec![0; there]].concat();
    let all = flag::END_HEADERS | flag::END_STREAM | flag::PADDED;
    let trailers = |stream, ends| headers(stream, &[("x-sum", "1")], ends);
    vec![
        ("headers padded", vec![pad(all, &padded_block(4, 4))], Fine),
        (
            "headers all padding",
            vec![pad(all, &[3, 0, 0, 0])],
            Reset(1, PROTOCOL),
        ),
        (
            "headers with padding too long",
            vec![pad(all, &[200, 0x82])],
            Gone(PROTOCOL),
        ),
        (
            "headers padded without length",
            vec![pad(all, &[])],
            Gone(SIZE),
        ),
        ("headers with priority", vec![with_priority(1, 3)], Fine),
        (
            "headers with priority cut",
            vec![pad(flag::END_HEADERS | flag::PRIORITY, &[0; 4])],
            Gone(SIZE),
        ),
        (
            "headers that depend on themselves",
            vec![with_priority(1, 1)],
            Reset(1, PROTOCOL),
        ),
        (
            "headers in pieces",
            vec![
                open_block(1, true),
                continuation(1, &block(&[("a", "b")]), false),
                continuation(1, b"", true),
            ],
            Fine,
        ),
        (
            "continuation without a block",
            vec![continuation(1, b"", true)],
            Gone(PROTOCOL),
        ),
        (
            "continuation behind a whole block",
            vec![headers(1, GET, false), continuation(1, b"", true)],
            Gone(PROTOCOL),
        ),
        (
            "continuation behind a finished one",
            vec![
                open_block(1, false),
                continuation(1, b"", true),
                continuation(1, b"", true),
            ],
            Gone(PROTOCOL),
        ),
        (
            "continuation behind data",
            vec![
                headers(1, POST, false),
                data(1, b"x", true),
                continuation(1, b"", true),
            ],
            Gone(PROTOCOL),
        ),
        (
            "continuations without end",
            [
                vec![open_block(1, true)],
                vec![continuation(1, b"", false); 9],
            ]
            .concat(),
            Gone(CALM),
        ),
        (
            "continuations too large",
            vec![
                open_block(1, true),
                continuation(1, &[0; 16_384], false),
                continuation(1, &[0; 16_384], false),
            ],
            Gone(CALM),
        ),
        (
            "data padded",
            vec![headers(1, POST, false), padded(1, b"abc", 200, true)],
            Fine,
        ),
        (
            "data all padding",
            vec![
                headers(1, POST, false),
                padded(1, b"", 20, false),
                padded(1, b"", 0, true),
            ],
            Fine,
        ),
        (
            "data with padding too long",
            vec![
                headers(1, POST, false),
                raw(Kind::Data, flag::PADDED, 1, &[5, 0, 0, 0, 0]),
            ],
            Gone(PROTOCOL),
        ),
        (
            "data padded without length",
            vec![
                headers(1, POST, false),
                raw(Kind::Data, flag::PADDED, 1, &[]),
            ],
            Gone(SIZE),
        ),
        (
            "length met",
            vec![
                with_length(1, "5"),
                data(1, b"he", false),
                padded(1, b"llo", 9, true),
            ],
            Fine,
        ),
        (
            "length met by headers alone",
            vec![headers(
                1,
                &[POST, &[("content-length", "0")]].concat(),
                true,
            )],
            Fine,
        ),
        (
            "length of headers alone",
            vec![headers(
                1,
                &[POST, &[("content-length", "5")]].concat(),
                true,
            )],
            Reset(1, PROTOCOL),
        ),
        (
            "length exceeded",
            vec![with_length(1, "5"), data(1, b"hello!", true)],
            Reset(1, PROTOCOL),
        ),
        (
            "length exceeded by a second frame",
            vec![
                with_length(1, "5"),
                data(1, b"hello", false),
                data(1, b"!", false),
            ],
            Reset(1, PROTOCOL),
        ),
        (
            "length not met",
            vec![with_length(1, "5"), data(1, b"hell", true)],
            Reset(1, PROTOCOL),
        ),
        (
            "length not met before trailers",
            vec![
                with_length(1, "5"),
                data(1, b"hell", false),
                trailers(1, true),
            ],
            Reset(1, PROTOCOL),
        ),
        (
            "trailers",
            vec![
                with_length(1, "5"),
                data(1, b"hello", false),
                trailers(1, true),
            ],
            Fine,
        ),
        (
            "trailers without data",
            vec![headers(1, POST, false), trailers(1, true)],
            Fine,
        ),
        (
            "trailers without end",
            vec![headers(1, POST, false), trailers(1, false)],
            Reset(1, PROTOCOL),
        ),
        (
            "trailers with a pseudo-header field",
            vec![headers(1, POST, false), headers(1, &[(":path", "/")], true)],
            Reset(1, PROTOCOL),
        ),
        (
            "trailers with a length",
            vec![
                headers(1, POST, false),
                headers(1, &[("content-length", "0")], true),
            ],
            Reset(1, PROTOCOL),
        ),
        (
            "trailers with an upper-case name",
            vec![headers(1, POST, false), headers(1, &[("X", "0")], true)],
            Reset(1, PROTOCOL),
        ),
        (
            "trailers with a connection field",
            vec![
                headers(1, POST, false),
                headers(1, &[("connection", "x")], true),
            ],
            Reset(1, PROTOCOL),
        ),
    ]
}

fn stream_rows(
    get: &dyn Fn() -> Vec<u8>,
    post: &dyn Fn() -> Vec<u8>,
    cancel: &dyn Fn() -> Vec<u8>,
) -> Vec<Row> {
    let (get, post, cancel) = (|| get(), || post(), || cancel());
    vec![
        (
            "stream 0 with headers",
            vec![headers(0, GET, true)],
            Gone(PROTOCOL),
        ),
        (
            "stream 0 with data",
            vec![data(0, b"x", true)],
            Gone(PROTOCOL),
        ),
        (
            "stream 0 with a reset",
            vec![reset(0, ErrorCode::CANCEL)],
            Gone(PROTOCOL),
        ),
        (
            "stream 0 with priority",
            vec![priority(0, 1)],
            Gone(PROTOCOL),
        ),
        (
            "stream 0 continued",
            vec![open_block(1, true), continuation(0, b"", true)],
            Gone(PROTOCOL),
        ),
        (
            "stream with an even number",
            vec![headers(2, GET, true)],
            Gone(PROTOCOL),
        ),
        (
            "stream below the last",
            vec![headers(5, GET, true), headers(3, GET, true)],
            Gone(PROTOCOL),
        ),
        ("idle with data", vec![data(1, b"x", true)], Gone(PROTOCOL)),
        ("idle with a reset", vec![cancel()], Gone(PROTOCOL)),
        ("idle with a window", vec![window(1, 100)], Gone(PROTOCOL)),
        ("idle with priority", vec![priority(7, 3), get()], Fine),
        (
            "idle even with data",
            vec![data(2, b"x", true)],
            Gone(PROTOCOL),
        ),
        (
            "half-closed with data",
            vec![get(), data(1, b"x", true)],
            Reset(1, CLOSED),
        ),
        (
            "half-closed with headers",
            vec![get(), get()],
            Reset(1, CLOSED),
        ),
        (
            "half-closed with a window",
            vec![get(), window(1, 100), priority(1, 0)],
            Fine,
        ),
        ("half-closed with a reset", vec![get(), cancel()], Fine),
        (
            "closed with data",
            vec![post(), cancel(), data(1, b"x", true)],
            Reset(1, CLOSED),
        ),
        (
            "closed with headers",
            vec![post(), cancel(), post()],
            Gone(CLOSED),
        ),
        (
            "closed with a window",
            vec![post(), cancel(), window(1, 100)],
            Fine,
        ),
        (
            "closed with a reset",
            vec![post(), cancel(), cancel()],
            Fine,
        ),
        (
            "closed with priority",
            vec![post(), cancel(), priority(1, 0)],
            Fine,
        ),
        (
            "closed and continued",
            vec![post(), cancel(), continuation(1, b"", true)],
            Gone(PROTOCOL),
        ),
        (
            "refused with more of it",
            vec![
                headers(1, &[GET, &[("A", "b")]].concat(), false),
                data(1, b"x", false),
                headers(1, &[("x", "y")], true),
                cancel(),
                window(1, 5),
            ],
            Reset(1, PROTOCOL),
        ),
        (
            "push promise",
            vec![raw(Kind::PushPromise, flag::END_HEADERS, 1, &[0, 0, 0, 2])],
            Gone(PROTOCOL),
        ),
    ]
}

fn control_rows(get: &dyn Fn() -> Vec<u8>, post: &dyn Fn() -> Vec<u8>) -> Vec<Row> {
    let (get, post) = (|| get(), || post());
    let go_away = |stream| {
        raw(
            Kind::GoAway,
            0,
            stream,
            &[0, 0, 0, 0, 0, 0, 0, 0, b'b', b'y', b'e'],
        )
    };
    vec![
        (
            "settings on a stream",
            vec![raw(Kind::Settings, 0, 1, &[])],
            Gone(PROTOCOL),
        ),
        (
            "settings of 5 bytes",
            vec![raw(Kind::Settings, 0, 0, &[0; 5])],
            Gone(SIZE),
        ),
        (
            "settings acknowledged with a payload",
            vec![raw(Kind::Settings, flag::ACK, 0, &[0; 6])],
            Gone(SIZE),
        ),
        (
            "settings acknowledged twice",
            vec![wire::ack()],
            Gone(PROTOCOL),
        ),
        (
            "settings unknown",
            vec![setting(0xff, 7), setting(9, 1)],
            Fine,
        ),
        ("push 1", vec![setting(2, 1)], Fine),
        ("push 2", vec![setting(2, 2)], Gone(PROTOCOL)),
        (
            "window setting largest",
            vec![get(), setting(4, 0x7fff_ffff)],
            Fine,
        ),
        (
            "window setting too large",
            vec![setting(4, 0x8000_0000)],
            Gone(FLOW),
        ),
        (
            "window setting overflows a stream",
            vec![get(), window(1, 1_000_000), setting(4, 0x7fff_ffff)],
            Gone(FLOW),
        ),
        (
            "frame size too small",
            vec![setting(5, 16_383)],
            Gone(PROTOCOL),
        ),
        (
            "frame size too large",
            vec![setting(5, 1 << 24)],
            Gone(PROTOCOL),
        ),
        (
            "frame size least and largest",
            vec![setting(5, 16_384), setting(5, (1 << 24) - 1)],
            Fine,
        ),
        ("extended connect 2", vec![setting(8, 2)], Gone(PROTOCOL)),
        (
            "extended connect taken back",
            vec![setting(8, 1), setting(8, 0)],
            Gone(PROTOCOL),
        ),
        (
            "table of any size",
            vec![setting(1, 0), setting(1, u32::MAX), get()],
            Fine,
        ),
        (
            "ping on a stream",
            vec![raw(Kind::Ping, 0, 1, &[0; 8])],
            Gone(PROTOCOL),
        ),
        (
            "ping of 6 bytes",
            vec![raw(Kind::Ping, 0, 0, &[0; 6])],
            Gone(SIZE),
        ),
        (
            "ping of 9 bytes",
            vec![raw(Kind::Ping, 0, 0, &[0; 9])],
            Gone(SIZE),
        ),
        (
            "ping acknowledged though not sent",
            vec![raw(Kind::Ping, flag::ACK, 0, &[0; 8])],
            Fine,
        ),
        (
            "reset of 3 bytes",
            vec![post(), raw(Kind::RstStream, 0, 1, &[0; 3])],
            Gone(SIZE),
        ),
        (
            "reset of 5 bytes",
            vec![post(), raw(Kind::RstStream, 0, 1, &[0; 5])],
            Gone(SIZE),
        ),
        (
            "reset with an unknown code",
            vec![post(), reset(1, ErrorCode(0xffff))],
            Fine,
        ),
        (
            "priority of 4 bytes",
            vec![post(), raw(Kind::Priority, 0, 1, &[0; 4])],
            Reset(1, SIZE),
        ),
        (
            "priority of 6 bytes on an idle stream",
            vec![raw(Kind::Priority, 0, 1, &[0; 6])],
            Gone(SIZE),
        ),
        (
            "priority on itself",
            vec![post(), priority(1, 1)],
            Reset(1, PROTOCOL),
        ),
        (
            "priority on itself while idle",
            vec![priority(3, 3)],
            Gone(PROTOCOL),
        ),
        ("go away on a stream", vec![go_away(1)], Gone(PROTOCOL)),
        (
            "go away of 7 bytes",
            vec![raw(Kind::GoAway, 0, 0, &[0; 7])],
            Gone(SIZE),
        ),
        ("go away, requests go on", vec![go_away(0), get()], Fine),
        (
            "window of 3 bytes",
            vec![raw(Kind::WindowUpdate, 0, 0, &[0; 3])],
            Gone(SIZE),
        ),
        ("window of 0", vec![window(0, 0)], Gone(PROTOCOL)),
        (
            "window of 0 on a stream",
            vec![post(), window(1, 0)],
            Reset(1, PROTOCOL),
        ),
        (
            "window of the reserved bit alone",
            vec![window(0, 0x8000_0000)],
            Gone(PROTOCOL),
        ),
        (
            "window that overflows",
            vec![window(0, 0x7fff_ffff)],
            Gone(FLOW),
        ),
        (
            "window that overflows in two",
            vec![window(0, 0x4000_0000), window(0, 0x4000_0000)],
            Gone(FLOW),
        ),
        (
            "window that just fits",
            vec![window(0, 0x7fff_ffff - 65_535)],
            Fine,
        ),
        (
            "window that overflows a stream",
            vec![post(), window(1, 0x7fff_ffff)],
            Reset(1, FLOW),
        ),
        (
            "window that just fits a stream",
            vec![post(), window(1, 0x7fff_ffff - 65_535)],
            Fine,
        ),
    ]
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    rows().into_iter().map(|(name, ..)| name)
}

/// Every row's input, with what comes before it.
pub(super) fn all() -> impl Iterator<Item = Vec<u8>> {
    rows()
        .into_iter()
        .map(|(_, input, _)| [wire::hello(), input.concat()].concat())
}

fn run(input: &[Vec<u8>]) -> End {
    let mut end = End::server();
    for piece in input {
        end.input(piece);
    }
    end
}

fn outcome(end: &End) -> Outcome {
    match (end.told(), end.resets().first()) {
        (Some(code), _) => Gone(code),
        (None, Some((stream, code))) => Reset(*stream, *code),
        (None, None) => Fine,
    }
}

#[test]
fn every_row_ends_as_it_should_however_it_is_cut() {
    for (name, input, expected) in rows() {
        let input = input.concat();
        let whole = run(std::slice::from_ref(&input));
        assert_eq!(outcome(&whole), expected, "{name}");
        if let Gone(_) = expected {
            assert!(whole.connection.has_failed(), "{name}");
        }
        let places = 1..input.len();
        // Long rows are long because of their data: a sample of places is enough.
        let step = 1 + input.len() / 400;
        let mut ways: Vec<Vec<usize>> = places.clone().step_by(step).map(|at| vec![at]).collect();
        ways.push(places.clone().step_by(1 + input.len() / 4_000).collect());
        for cuts in ways {
            let cut = run(&pieces(&input, &cuts));
            assert_eq!(cut.seen, whole.seen, "{name} cut at {cuts:?}");
            assert_eq!(cut.sent, whole.sent, "{name} cut at {cuts:?}");
        }
    }
}

#[test]
fn row_names_are_unique() {
    let mut names: Vec<_> = names().collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// Before the settings there is the preface, and nothing but it.
#[test]
fn the_preface_is_all_or_nothing() {
    let preface = crate::http2::frame::PREFACE;
    let rows: [(&[u8], bool); 6] = [
        (preface, true),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", false),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", false),
        (b"INVALID CONNECTION PREFACE\r\n\r\n", false),
        (&[0x16, 3, 1, 2], false),
        (b"P", true),
    ];
    for (input, is_fine) in rows {
        let mut end = End::new(Role::Server, Limits::default());
        end.forget();
        end.input(input);
        assert_eq!(end.told(), (!is_fine).then_some(PROTOCOL), "{input:?}");
    }
    for first in [
        ping(),
        headers(1, GET, true),
        wire::ack(),
        raw(Kind::Unknown(99), 0, 0, b""),
    ] {
        let mut end = End::new(Role::Server, Limits::default());
        end.forget();
        end.input([&preface[..], &first].concat());
        assert_eq!(end.told(), Some(PROTOCOL));
    }
}

/// What members must not send to us.
#[test]
fn members_are_held_to_the_same_rules() {
    let rows: Vec<(&str, Vec<u8>, Outcome)> = vec![
        (
            "push",
            raw(Kind::PushPromise, 4, 1, &[0, 0, 0, 2, 0x88]),
            Gone(PROTOCOL),
        ),
        ("push allowed", setting(2, 1), Gone(PROTOCOL)),
        ("push not allowed", setting(2, 0), Fine),
        (
            "headers on a stream not opened",
            headers(3, wire::OK, true),
            Gone(PROTOCOL),
        ),
        (
            "headers on an even stream",
            headers(2, wire::OK, true),
            Gone(PROTOCOL),
        ),
        (
            "data before the head",
            data(1, b"x", true),
            Reset(1, PROTOCOL),
        ),
        (
            "no status",
            headers(1, &[("server", "x")], true),
            Reset(1, PROTOCOL),
        ),
        (
            "two statuses",
            headers(1, &[(":status", "200"), (":status", "200")], true),
            Reset(1, PROTOCOL),
        ),
        (
            "status behind a field",
            headers(1, &[("a", "b"), (":status", "200")], true),
            Reset(1, PROTOCOL),
        ),
        (
            "status of letters",
            headers(1, &[(":status", "2xx")], true),
            Reset(1, PROTOCOL),
        ),
        (
            "status of four digits",
            headers(1, &[(":status", "2000")], true),
            Reset(1, PROTOCOL),
        ),
        (
            "status 600",
            headers(1, &[(":status", "600")], true),
            Reset(1, PROTOCOL),
        ),
        (
            "status 099",
            headers(1, &[(":status", "099")], true),
            Reset(1, PROTOCOL),
        ),
        (
            "status 101",
            headers(1, &[(":status", "101")], false),
            Reset(1, PROTOCOL),
        ),
        (
            "path in a response",
            headers(1, &[(":status", "200"), (":path", "/")], true),
            Reset(1, PROTOCOL),
        ),
        (
            "interim that ends",
            headers(1, &[(":status", "103")], true),
            Reset(1, PROTOCOL),
        ),
        (
            "interim, then final",
            [
                headers(1, &[(":status", "103")], false),
                headers(1, wire::OK, true),
            ]
            .concat(),
            Fine,
        ),
        (
            "interim behind the final one",
            [
                headers(1, wire::OK, false),
                headers(1, &[(":status", "103")], false),
            ]
            .concat(),
            Reset(1, PROTOCOL),
        ),
        (
            "nine interim ones",
            headers(1, &[(":status", "103")], false).repeat(9),
            Reset(1, PROTOCOL),
        ),
        (
            "data behind the end",
            [headers(1, wire::OK, true), data(1, b"x", true)].concat(),
            Reset(1, CLOSED),
        ),
        (
            "length exceeded",
            [
                headers(1, &[(":status", "200"), ("content-length", "1")], false),
                data(1, b"xy", true),
            ]
            .concat(),
            Reset(1, PROTOCOL),
        ),
        (
            "connection field",
            headers(1, &[(":status", "200"), ("connection", "close")], true),
            Reset(1, PROTOCOL),
        ),
        (
            "upper-case name",
            headers(1, &[(":status", "200"), ("Server", "x")], true),
            Reset(1, PROTOCOL),
        ),
        (
            "line feed in a value",
            headers(1, &[(":status", "200"), ("server", "x\r\na: b")], true),
            Reset(1, PROTOCOL),
        ),
    ];
    for (name, input, expected) in rows {
        for cuts in [vec![], (1..input.len()).collect::<Vec<_>>()] {
            let mut end = End::client();
            end.act(&super::driver::Action::Open { ends: false });
            end.forget();
            for piece in pieces(&input, &cuts) {
                end.input(piece);
            }
            assert_eq!(outcome(&end), expected, "{name}");
        }
    }
}
