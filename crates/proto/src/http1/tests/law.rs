//! The law: a snapshot and its restoration, after any byte, change no event and no output.
//!
//! Messages come from a grammar, whole or mutated; they are cut anywhere, both sides interleaved,
//! sockets slow or not, time passing. `PROPTEST_CASES` makes it search wider.

use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::RestoreError;
use crate::http1::{Connection, SNAPSHOT_LAYOUT, Side};

use super::driver::{Driver, Input, Seen};
use super::exchange::{SWITCHING, WEBSOCKET};
use super::{requests, responses};

fn config(cases: u32) -> Config {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(cases);
    Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    }
}

fn fields() -> impl Strategy<Value = String> {
    let field = prop_oneof![
        8 => Just("Accept: */*\r\n"),
        2 => Just("Connection: close\r\n"),
        2 => Just("Connection: keep-alive\r\n"),
        1 => Just("Connection: x-one\r\nX-One: 1\r\n"),
        1 => Just("Connection: upgrade\r\nUpgrade: h2c\r\n"),
        1 => Just("Connection: upgrade\r\nUpgrade: websocket\r\n"),
        2 => Just("X-Forwarded-For: 10.0.0.1\r\n"),
        1 => Just("TE: trailers\r\n"),
        1 => Just("Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"),
        2 => Just("Expect: 100-continue\r\n"),
        1 => Just("Content-Length: 3\r\n"),
        1 => Just("Transfer-Encoding: chunked\r\n"),
        1 => Just("Folded: a\r\n b\r\n"),
        1 => Just("Bare: a\n"),
    ];
    prop::collection::vec(field, 0..3).prop_map(|fields| fields.concat())
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        9 => prop::collection::vec(any::<u8>(), 1..40),
        1 => (2_000_usize..9_000, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
    ]
}

fn chunks() -> impl Strategy<Value = Vec<u8>> {
    let chunk = (
        data(),
        prop_oneof![3 => Just(""), 1 => Just(";a=b")],
        any::<bool>(),
    );
    let trailer = prop_oneof![3 => Just(""), 1 => Just("A: b\r\n"), 1 => Just("Host: b\r\n")];
    (prop::collection::vec(chunk, 0..4), trailer).prop_map(|(chunks, trailer)| {
        let mut body = Vec::new();
        for (data, extension, is_upper) in chunks {
            let size = if is_upper {
                format!("0{:X}", data.len())
            } else {
                format!("{:x}", data.len())
            };
            body.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
            body.extend_from_slice(&data);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
        body
    })
}

/// A body with the field that frames it.
fn body() -> impl Strategy<Value = (String, Vec<u8>)> {
    prop_oneof![
        3 => Just((String::new(), Vec::new())),
        3 => data().prop_map(|data| (format!("Content-Length: {}\r\n", data.len()), data)),
        3 => chunks().prop_map(|body| ("Transfer-Encoding: chunked\r\n".to_owned(), body)),
        1 => data().prop_map(|data| (String::new(), data)),
    ]
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let method =
        prop_oneof![6 => Just("GET"), 4 => Just("POST"), 1 => Just("HEAD"), 1 => Just("OPTIONS")];
    let target =
        prop_oneof![6 => Just("/"), 1 => Just("/a?b"), 1 => Just("http://y/a"), 1 => Just("*")];
    let version = prop_oneof![6 => Just("HTTP/1.1"), 1 => Just("HTTP/1.0")];
    let before = prop_oneof![6 => Just(""), 1 => Just("\r\n"), 1 => Just("\r\n\r\n")];
    (before, method, target, version, fields(), body()).prop_map(
        |(before, method, target, version, fields, (framing, body))| {
            let line = format!("{before}{method} {target} {version}\r\n");
            let head = format!("{line}Host: x\r\n{fields}{framing}\r\n");
            [head.into_bytes(), body].concat()
        },
    )
}

fn response() -> impl Strategy<Value = Vec<u8>> {
    let status = prop_oneof![
        8 => Just("200 OK"),
        1 => Just("204 No Content"),
        1 => Just("304 Not Modified"),
        1 => Just("413 Content Too Large"),
        2 => Just("413 Content Too Large\r\nContent-Length: 0"),
        2 => Just("100 Continue\r\n\r\nHTTP/1.1 200 OK"),
        1 => Just("102 Processing\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK"),
        1 => Just("102 Processing\r\n\r\nHTTP/1.1 102 Processing"),
    ];
    let version = prop_oneof![6 => Just("HTTP/1.1"), 1 => Just("HTTP/1.0")];
    (version, status, fields(), body()).prop_map(|(version, status, fields, (framing, body))| {
        [
            format!("{version} {status}\r\n{fields}{framing}\r\n").into_bytes(),
            body,
        ]
        .concat()
    })
}

/// Bytes as they are, or with some of them changed.
fn mutated(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let interesting = prop::sample::select(b"\r\n \t:;,0\0aF\x80".to_vec());
    let edit = (any::<prop::sample::Index>(), interesting, 0_u8..3);
    (
        bytes,
        prop_oneof![3 => Just(0), 1 => Just(1), 1 => Just(2)],
        prop::collection::vec(edit, 2),
    )
        .prop_map(|(mut bytes, count, edits)| {
            for (index, byte, kind) in edits.into_iter().take(count) {
                if bytes.is_empty() {
                    break;
                }
                let at = index.index(bytes.len());
                match kind {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            bytes
        })
}

fn input() -> impl Strategy<Value = Input> {
    let side = || prop_oneof![Just(Side::Client), Just(Side::Member)];
    prop_oneof![
        10 => mutated(request()).prop_map(|bytes| Input::Bytes(Side::Client, bytes)),
        10 => mutated(response()).prop_map(|bytes| Input::Bytes(Side::Member, bytes)),
        3 => Just(Input::Bytes(Side::Client, WEBSOCKET.into())),
        3 => Just(Input::Bytes(Side::Member, SWITCHING.into())),
        1 => side().prop_map(Input::End),
        1 => side().prop_map(Input::Lost),
        8 => (side(), prop_oneof![0_usize..50, Just(usize::MAX)]).prop_map(|(to, n)| Input::Drain(to, n)),
        1 => (0_u64..20_000_000).prop_map(Input::Pass),
        1 => any::<bool>().prop_map(Input::Answer),
        1 => any::<bool>().prop_map(Input::Draining),
    ]
}

/// Cuts the bytes of a script into pieces, lengths taken from `lengths` in turn, long data in
/// longer pieces.
fn cut(script: Vec<Input>, lengths: &[usize]) -> Vec<Input> {
    let mut lengths = lengths.iter().copied().cycle();
    let mut pieces = Vec::new();
    for input in script {
        let Input::Bytes(from, bytes) = input else {
            pieces.push(input);
            continue;
        };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let scale = if rest.len() > 1_500 { 400 } else { 1 };
            let len = lengths
                .next()
                .map_or(1, |len| (len * scale).clamp(1, rest.len()));
            pieces.push(Input::Bytes(from, rest[..len].to_vec()));
            rest = &rest[len..];
        }
    }
    pieces
}

fn run(script: &[Input], is_slow: bool, mut snapshots: impl FnMut() -> bool) -> Driver {
    let mut driver = Driver::new();
    driver.is_slow = is_slow;
    // So tight that what counts towards a limit matters.
    driver.limits.interim_max = 3;
    driver.limits.discard_bytes_max = 60;
    driver.limits.chunk_extension_bytes_max = 10;
    driver.limits.request_body_bytes_max = 60;
    driver.limits.response_body_bytes_max = 9_000;
    for input in script {
        driver.input(input);
        if snapshots() {
            driver.through_snapshot();
        }
    }
    driver
}

fn check(script: &[Input], is_slow: bool) -> Result<(), TestCaseError> {
    let plain = run(script, is_slow, || false);
    let moved = run(script, is_slow, || true);
    prop_assert_eq!(&plain.seen, &moved.seen);
    prop_assert_eq!(&plain.to_client, &moved.to_client);
    prop_assert_eq!(&plain.to_member, &moved.to_member);
    prop_assert_eq!(
        plain.connection.deadline(&plain.limits),
        moved.connection.deadline(&moved.limits)
    );
    // What is left is the same too, byte for byte.
    prop_assert_eq!(
        plain.connection.snapshot(plain.now_us),
        moved.connection.snapshot(moved.now_us)
    );
    Ok(())
}

proptest! {
    #![proptest_config(config(1_500))]

    /// After every piece, pieces of 1 to 30 bytes.
    #[test]
    fn a_snapshot_after_any_piece_changes_nothing(
        script in prop::collection::vec(input(), 1..8),
        lengths in prop::collection::vec(1_usize..30, 1..6),
        is_slow in any::<bool>(),
    ) {
        check(&cut(script, &lengths), is_slow)?;
    }

    /// After every single byte.
    #[test]
    fn a_snapshot_after_any_byte_changes_nothing(
        script in prop::collection::vec(input(), 1..6),
        is_slow in any::<bool>(),
    ) {
        check(&cut(script, &[1]), is_slow)?;
    }

    /// How bytes are cut changes no event, and no output but the chunks made of a body without
    /// framing.
    #[test]
    fn cutting_changes_nothing(
        request in mutated(request()),
        lengths in prop::collection::vec(1_usize..30, 1..6),
    ) {
        let script = vec![Input::Bytes(Side::Client, request)];
        let whole = run(&script, false, || false);
        let cut = run(&cut(script, &lengths), false, || false);
        prop_assert_eq!(&whole.seen, &cut.seen);
        if !whole.is_over {
            prop_assert_eq!(&whole.to_member, &cut.to_member);
        }
    }

    /// No snapshot makes a restore panic, and what is restored from damaged bytes can be stepped.
    #[test]
    fn damaged_snapshots_are_refused_or_harmless(
        script in prop::collection::vec(input(), 1..4),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        is_cut in any::<bool>(),
    ) {
        let driver = run(&script, true, || false);
        let mut snapshot = driver.connection.snapshot(driver.now_us);
        for (index, byte) in edits {
            let at = index.index(snapshot.len());
            snapshot[at] = byte;
            if is_cut {
                snapshot.truncate(at);
                break;
            }
        }
        if let Ok(connection) = Connection::restore(&snapshot, driver.now_us) {
            let mut driver = driver;
            driver.connection = connection;
            driver.is_over = false;
            driver.is_slow = false;
            for input in &script {
                driver.input(input);
            }
        }
    }
}

/// Conversations in which each counter and flag of the state decides something.
#[test]
fn what_random_scripts_seldom_reach_is_kept_too() {
    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const POST: &str =
        "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    const INTERIM: &str = "HTTP/1.1 102 Processing\r\n\r\n";
    const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    let client = |text: &str| Input::Bytes(Side::Client, text.as_bytes().to_vec());
    let member = |text: &str| Input::Bytes(Side::Member, text.as_bytes().to_vec());
    let scripts = [
        vec![client(GET), member(&INTERIM.repeat(4)), member(FINAL)],
        vec![
            client(GET),
            member(&INTERIM.repeat(3)),
            member(FINAL),
            client(GET),
        ],
        vec![client(POST), member(FINAL)],
        vec![
            client(POST),
            member("HTTP/1.1 100 Continue\r\n\r\n"),
            member(FINAL),
            client("abcd"),
        ],
        vec![client(POST), member(INTERIM), client("abcd"), member(FINAL)],
        vec![
            client(CHUNKED),
            client(&"1;a=b\r\na\r\n".repeat(2)),
            client("0\r\n\r\n"),
            member(FINAL),
        ],
        vec![
            client(CHUNKED),
            client(&"1;a=b\r\na\r\n".repeat(3)),
            client("0\r\n\r\n"),
            member(FINAL),
        ],
        vec![
            client(CHUNKED),
            client(&"f\r\n0123456789abcde\r\n".repeat(5)),
        ],
        vec![client("\r\n"), client("\r\n"), client(GET)],
        vec![
            Input::Answer(true),
            client(CHUNKED),
            client("5\r\nhello\r\n0\r\n\r\n"),
            client(GET),
        ],
        vec![
            client(GET),
            Input::Pass(50_000_000),
            member("HTTP"),
            Input::Pass(11_000_000),
        ],
        vec![
            client(GET),
            Input::Drain(Side::Member, usize::MAX),
            member("HTTP/1.1 200 OK\r\n\r\nhi"),
            Input::End(Side::Member),
            Input::Drain(Side::Client, usize::MAX),
            Input::Drain(Side::Client, usize::MAX),
        ],
    ];
    for script in scripts {
        for is_slow in [false, true] {
            check(&cut(script.clone(), &[1]), is_slow).unwrap();
            check(&script, is_slow).unwrap();
        }
    }
}

/// The rows of both tables, byte by byte.
#[test]
fn every_shape_keeps_its_end_through_snapshots() {
    for bytes in requests::all() {
        check(&cut(vec![Input::Bytes(Side::Client, bytes)], &[1]), false).unwrap();
    }
    for (request, response) in responses::all() {
        let script = vec![
            Input::Bytes(Side::Client, request),
            Input::Bytes(Side::Member, response),
            Input::End(Side::Member),
        ];
        check(&cut(script, &[1]), false).unwrap();
    }
}

#[test]
fn a_snapshot_of_another_layout_is_refused_by_name() {
    let mut snapshot = Connection::new(0).snapshot(0);
    assert_eq!(snapshot[0], SNAPSHOT_LAYOUT);
    snapshot[0] = 200;
    let refused = RestoreError::UnknownLayout {
        found: 200,
        known: SNAPSHOT_LAYOUT,
    };
    assert_eq!(Connection::restore(&snapshot, 0), Err(refused));
    assert_eq!(
        Connection::restore(&[], 0),
        Err(RestoreError::Truncated { at: 0 })
    );
    let mut long = Connection::new(0).snapshot(0);
    long.push(0);
    assert_eq!(
        Connection::restore(&long, 0),
        Err(RestoreError::Trailing { count: 1 })
    );
}

/// The generator is worth its time only if it gets through to all kinds of ends.
#[test]
fn the_generator_reaches_every_kind_of_event() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::new(config(1));
    let script = prop::collection::vec(input(), 1..8);
    let mut counts = [0_u32; 8];
    for _ in 0..800 {
        let script = script.new_tree(&mut runner).unwrap().current();
        for seen in run(&script, false, || false).seen {
            counts[match seen {
                Seen::Request { .. } => 0,
                Seen::Response { .. } => 1,
                Seen::Done { .. } => 2,
                Seen::Refused(_) => 3,
                Seen::BadMember(_) => 4,
                Seen::Abort(_) => 5,
                Seen::Close => 6,
                Seen::Switched => 7,
            }] += 1;
        }
    }
    assert!(counts.iter().all(|&count| count >= 10), "{counts:?}");
}

/// Bytes of state without what is buffered.
#[test]
fn a_snapshot_is_small() {
    assert_eq!(Connection::new(0).snapshot(0).len(), 99);
    assert!(
        size_of::<Connection>() <= 256,
        "{}",
        size_of::<Connection>()
    );
}
