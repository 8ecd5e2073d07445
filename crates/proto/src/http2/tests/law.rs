//! The law: a snapshot and its restoration, after any byte, change no event and no output.
//!
//! Frames come from a grammar, whole or mutated; they are cut anywhere, what the caller does stands
//! in between, sockets are slow or not, time passes. `PROPTEST_CASES` makes it
//! search wider.

use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::RestoreError;
use crate::http2::frame::{Kind, flag};
use crate::http2::hpack::Encoder;
use crate::http2::{Connection, ErrorCode, Limits, Rates, Role, SNAPSHOT_LAYOUT};

use super::driver::{Action, End, Seen};
use super::{frames, heads, wire};

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

/// So tight that what counts towards a limit matters.
fn limits() -> Limits {
    Limits {
        streams_max: 3,
        header_list_bytes_max: 400,
        header_work_bytes_max: 3_000,
        fields_max: 8,
        block_bytes_max: 500,
        continuations_max: 3,
        decoder_table_bytes: 200,
        encoder_table_bytes: 150,
        stream_window_bytes: 300,
        request_body_bytes_max: 900,
        response_body_bytes_max: 900,
        interim_max: 2,
        unsent_bytes_max: 400,
        unsent_replies_bytes_max: 1_500,
        reset_streams_max: 2,
        rates: Rates {
            settings: 6,
            ping: 6,
            reset: 4,
            refused: 4,
            empty_data: 4,
            window_update: 6,
            priority: 4,
            ignored: 6,
        },
        has_extended_connect: true,
        ..Limits::default()
    }
}

fn stream() -> impl Strategy<Value = u32> {
    prop_oneof![6 => Just(1), 4 => Just(3), 3 => Just(5), 2 => Just(7), 1 => Just(9), 1 => Just(2)]
}

/// What is encoded when the script is made, since blocks depend on each other and numbers rise.
#[derive(Debug, Clone)]
struct Piece {
    kind: PieceKind,
    /// Streams and kinds of heads stay as they are drawn, mostly wrong.
    is_wild: bool,
}

#[derive(Debug, Clone)]
enum PieceKind {
    Head {
        stream: u32,
        kind: usize,
        extra: Vec<usize>,
        ends: bool,
        pieces: usize,
    },
    Raw(Vec<u8>),
    Act(Action),
}

const KINDS: &[&[(&str, &str)]] = &[
    wire::GET,
    wire::POST,
    wire::OK,
    &[(":status", "103")],
    &[(":status", "304"), ("content-length", "12")],
    &[("x-sum", "1")],
    &[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", "x"),
    ],
    &[
        (":method", "HEAD"),
        (":scheme", "http"),
        (":path", "/h"),
        (":authority", "x"),
    ],
];

const EXTRA: &[(&str, &str)] = &[
    ("accept", "*/*"),
    ("user-agent", "someone/1.0 with a longer text"),
    ("cookie", "a=b"),
    ("x-any", "other"),
    ("content-length", "10"),
    ("X-Upper", "no"),
    (
        "x-long",
        "0123456789012345678901234567890123456789012345678901234567890123456789",
    ),
];

fn head() -> impl Strategy<Value = PieceKind> {
    (
        stream(),
        0..KINDS.len(),
        prop::collection::vec(prop_oneof![20 => 0_usize..4, 1 => 4..EXTRA.len()], 0..4),
        any::<bool>(),
        prop_oneof![20 => Just(1_usize), 3 => Just(2), 1 => Just(4)],
    )
        .prop_map(|(stream, kind, extra, ends, pieces)| PieceKind::Head {
            stream,
            kind,
            extra,
            ends,
            pieces,
        })
}

fn raw() -> impl Strategy<Value = Vec<u8>> {
    let data = || prop::collection::vec(any::<u8>(), 0..120);
    prop_oneof![
        6 => (stream(), data(), any::<bool>()).prop_map(|(id, data, ends)| wire::data(id, &data, ends)),
        2 => (stream(), data(), any::<u8>(), any::<bool>())
            .prop_map(|(id, data, padding, ends)| wire::padded(id, &data, padding, ends)),
        4 => (0_u32..4, 0_u32..2_000).prop_map(|(id, bytes)| wire::window(id, bytes)),
        1 => stream().prop_map(|id| wire::reset(id, ErrorCode::CANCEL)),
        1 => (1_u16..10, prop_oneof![0_u32..200, Just(20_000), any::<u32>()])
            .prop_map(|(id, value)| wire::setting(id, value)),
        1 => Just(wire::ping()),
        1 => Just(wire::raw(Kind::Ping, flag::ACK, 0, b"whoisit?")),
        1 => (stream(), stream()).prop_map(|(id, parent)| {
            wire::raw(Kind::Priority, 0, id, &[0, 0, 0, parent as u8, 9])
        }),
        1 => (0_u8..9).prop_map(|last| wire::raw(Kind::GoAway, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0])),
        1 => (stream(), data()).prop_map(|(id, data)| wire::raw(Kind::Unknown(0x20), 0, id, &data)),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let ends = any::<bool>();
    prop_oneof![
        3 => any::<bool>().prop_map(|ends| Action::Open { ends }),
        4 => (stream(), prop::sample::select(vec![103_u16, 200, 200, 304]), any::<bool>())
            .prop_map(|(stream, status, ends)| Action::Respond { stream, status, ends }),
        4 => (stream(), 0_usize..800, ends)
            .prop_map(|(stream, len, ends)| Action::Send { stream, len, ends }),
        1 => stream().prop_map(|stream| Action::Trailers { stream }),
        3 => (stream(), 0_usize..300).prop_map(|(stream, len)| Action::Release { stream, len }),
        1 => stream().prop_map(|stream| Action::Reset { stream }),
        3 => prop_oneof![0_usize..300, Just(usize::MAX)].prop_map(Action::Drain),
        4 => (0_u64..400_000).prop_map(Action::Pass),
        1 => (0_u64..20_000_000).prop_map(Action::Pass),
        1 => prop_oneof![
            4 => Just(Action::Ping),
            1 => Just(Action::AnnounceEnd),
            1 => Just(Action::GoAway),
            1 => Just(Action::End),
        ],
    ]
}

fn piece() -> impl Strategy<Value = Piece> {
    let kind = prop_oneof![
        8 => head(),
        8 => mutated(raw()).prop_map(PieceKind::Raw),
        8 => action().prop_map(PieceKind::Act),
    ];
    (kind, prop::bool::weighted(0.02)).prop_map(|(kind, is_wild)| Piece { kind, is_wild })
}

/// Streams that the script has opened so far.
struct Numbers {
    role: Role,
    opened: u32,
}

impl Numbers {
    /// One of the last three.
    fn known(&self, drawn: u32) -> u32 {
        match self.opened {
            0 => drawn,
            opened => 2 * (opened - drawn / 2 % opened.min(3)) - 1,
        }
    }

    /// Stream and kind of a head that can come here.
    fn head(&mut self, drawn: u32, kind: usize) -> (u32, usize) {
        match self.role {
            Role::Server if kind == 5 && self.opened > 0 => (self.known(drawn), kind),
            Role::Server => {
                self.opened += 1;
                (2 * self.opened - 1, [0, 1, 1, 1, 6, 5, 0, 7][kind])
            }
            Role::Client if self.opened == 0 => (0, usize::MAX),
            Role::Client => (self.known(drawn), [2, 2, 2, 3, 4, 5, 2, 3][kind]),
        }
    }

    fn action(&mut self, action: &Action) -> Action {
        let mut action = action.clone();
        match &mut action {
            Action::Respond { stream, .. }
            | Action::Send { stream, .. }
            | Action::Trailers { stream }
            | Action::Release { stream, .. }
            | Action::Reset { stream } => *stream = self.known(*stream),
            Action::Open { .. } if self.role == Role::Client => self.opened += 1,
            _ => {}
        }
        action
    }

    fn frame(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if let Some(low) = bytes.get_mut(8)
            && *low > 0
        {
            if self.opened == 0 {
                return Vec::new();
            }
            *low = self.known((*low).into()) as u8;
        }
        bytes
    }
}

/// Bytes as they are, or with some of them changed.
fn mutated(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let interesting = prop::sample::select(vec![0_u8, 1, 2, 4, 8, 0x20, 0x40, 0x80, 0xff]);
    let edit = (any::<prop::sample::Index>(), interesting, 0_u8..3);
    (
        bytes,
        prop_oneof![60 => Just(0), 1 => Just(1)],
        prop::collection::vec(edit, 1),
    )
        .prop_map(|(mut bytes, count, edits)| {
            for (index, byte, kind) in edits.into_iter().take(count) {
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

/// The script as actions: blocks encoded with one encoder, streams numbered as its end has them,
/// bytes cut into pieces of `lengths` in turn.
fn script(role: Role, pieces: &[Piece], lengths: &[usize]) -> Vec<Action> {
    // No larger than what both kinds of limits announce.
    let mut encoder = Encoder::new(200);
    let hello = match role {
        Role::Server => wire::hello(),
        Role::Client => wire::welcome(),
    };
    let mut numbers = Numbers { role, opened: 0 };
    // A window that bodies run out of.
    let mut actions = vec![Action::Input(hello), Action::Input(wire::setting(4, 250))];
    for Piece { kind, is_wild } in pieces {
        // A body needs a head before it.
        if let PieceKind::Act(Action::Send { stream, len, .. }) = kind
            && len % 3 > 0
        {
            actions.push(numbers.action(&Action::Respond {
                stream: *stream,
                status: 200,
                ends: false,
            }));
        }
        actions.push(match kind {
            PieceKind::Act(action) if *is_wild => action.clone(),
            PieceKind::Act(action) => numbers.action(action),
            PieceKind::Raw(bytes) if *is_wild => Action::Input(bytes.clone()),
            PieceKind::Raw(bytes) => Action::Input(numbers.frame(bytes)),
            PieceKind::Head {
                stream,
                kind,
                extra,
                ends,
                pieces,
            } => {
                let (stream, kind) = match is_wild {
                    true => (*stream, *kind),
                    false => numbers.head(*stream, *kind),
                };
                if stream == 0 {
                    continue;
                }
                let mut block = Vec::new();
                encoder.begin(&mut block);
                let extra = extra.iter().map(|index| &EXTRA[*index]);
                for (name, value) in KINDS[kind].iter().chain(extra) {
                    encoder.field(name.as_bytes(), value.as_bytes(), false, &mut block);
                }
                Action::Input(in_frames(stream, &block, *ends, *pieces))
            }
        });
    }
    let mut lengths = lengths.iter().copied().cycle();
    let mut cut = Vec::new();
    for action in actions {
        let Action::Input(bytes) = action else {
            cut.push(action);
            continue;
        };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let len = lengths.next().unwrap_or(1).clamp(1, rest.len());
            cut.push(Action::Input(rest[..len].to_vec()));
            rest = &rest[len..];
        }
    }
    cut
}

fn in_frames(stream: u32, block: &[u8], ends: bool, pieces: usize) -> Vec<u8> {
    let len = block.len().div_ceil(pieces).max(1);
    let count = block.len().div_ceil(len);
    let mut out = Vec::new();
    for (index, piece) in block.chunks(len).enumerate() {
        let (kind, end) = match index {
            0 => (Kind::Headers, u8::from(ends)),
            _ => (Kind::Continuation, 0),
        };
        let last = if index + 1 == count {
            flag::END_HEADERS
        } else {
            0
        };
        out.extend(wire::raw(kind, end | last, stream, piece));
    }
    out
}

#[derive(Debug, Clone, Copy)]
struct Manner {
    role: Role,
    is_slow: bool,
    releases: bool,
}

fn manner() -> impl Strategy<Value = Manner> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(is_server, is_slow, releases)| {
        Manner {
            role: if is_server {
                Role::Server
            } else {
                Role::Client
            },
            is_slow,
            releases,
        }
    })
}

fn run(
    manner: Manner,
    limits: Limits,
    script: &[Action],
    mut snapshots: impl FnMut() -> bool,
) -> End {
    let mut end = End::new(manner.role, limits);
    end.is_slow = manner.is_slow;
    end.releases = manner.releases;
    for action in script {
        end.act(action);
        if snapshots() {
            end.through_snapshot();
        }
    }
    end
}

fn check(manner: Manner, limits: &Limits, script: &[Action]) -> Result<(), TestCaseError> {
    let plain = run(manner, limits.clone(), script, || false);
    let moved = run(manner, limits.clone(), script, || true);
    prop_assert_eq!(&plain.seen, &moved.seen);
    prop_assert_eq!(&plain.sent, &moved.sent);
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

    /// After every piece, pieces of 1 to 60 bytes.
    #[test]
    fn a_snapshot_after_any_piece_changes_nothing(
        pieces in prop::collection::vec(piece(), 1..30),
        lengths in prop::collection::vec(1_usize..60, 1..6),
        manner in manner(),
    ) {
        check(manner, &limits(), &script(manner.role, &pieces, &lengths))?;
    }

    /// The same with the limits that there are by default, so that connections live longer.
    #[test]
    fn wide_limits_change_nothing_either(
        pieces in prop::collection::vec(piece(), 1..30),
        lengths in prop::collection::vec(1_usize..60, 1..6),
        manner in manner(),
    ) {
        check(manner, &Limits::default(), &script(manner.role, &pieces, &lengths))?;
    }

    /// How bytes are cut changes no event and no output.
    #[test]
    fn cutting_changes_nothing(
        pieces in prop::collection::vec(piece(), 1..20),
        lengths in prop::collection::vec(1_usize..60, 1..6),
        manner in manner(),
    ) {
        // Bytes that are released in other pieces are given back in other pieces.
        let manner = Manner { releases: false, ..manner };
        let pieces: Vec<Piece> = pieces
            .into_iter()
            .filter(|piece| match &piece.kind {
                PieceKind::Act(action) => matches!(action, Action::Open { .. }),
                PieceKind::Head { .. } | PieceKind::Raw(_) => true,
            })
            .collect();
        let whole = run(manner, limits(), &script(manner.role, &pieces, &[usize::MAX]), || false);
        let cut = run(manner, limits(), &script(manner.role, &pieces, &lengths), || false);
        prop_assert_eq!(&whole.seen, &cut.seen);
        prop_assert_eq!(&whole.sent, &cut.sent);
    }

    /// No snapshot makes a restore panic, and what is restored from damaged bytes can be stepped.
    #[test]
    fn damaged_snapshots_are_refused_or_harmless(
        pieces in prop::collection::vec(piece(), 1..12),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        is_cut in any::<bool>(),
        manner in manner(),
    ) {
        let script = script(manner.role, &pieces, &[40]);
        let mut end = run(manner, limits(), &script, || false);
        let mut snapshot = end.connection.snapshot(end.now_us);
        for (index, byte) in edits {
            let at = index.index(snapshot.len());
            snapshot[at] = byte;
            if is_cut {
                snapshot.truncate(at);
                break;
            }
        }
        if let Ok(connection) = Connection::restore(&snapshot, end.now_us) {
            end.connection = connection;
            end.owed.clear();
            for action in &script {
                end.act(action);
            }
        }
    }
}

proptest! {
    #![proptest_config(config(300))]

    /// After every single byte.
    #[test]
    fn a_snapshot_after_any_byte_changes_nothing(
        pieces in prop::collection::vec(piece(), 1..12),
        manner in manner(),
    ) {
        check(manner, &limits(), &script(manner.role, &pieces, &[1]))?;
    }
}

/// Conversations in which each counter of the state decides something.
#[test]
fn what_random_scripts_seldom_reach_is_kept_too() {
    let input = |bytes: Vec<u8>| Action::Input(bytes);
    // 300 kB each way: both kinds of windows are given back and run out.
    let mut up = vec![
        input(wire::hello()),
        input(wire::headers(1, wire::POST, false)),
    ];
    let mut down = vec![
        input(wire::hello()),
        input(wire::setting(4, 100_000)),
        input(wire::headers(1, wire::GET, true)),
        Action::Respond {
            stream: 1,
            status: 200,
            ends: false,
        },
        Action::Send {
            stream: 1,
            len: 300_000,
            ends: true,
        },
    ];
    for _ in 0..20 {
        up.push(input(wire::padded(1, &[7; 15_000], 200, false)));
        down.push(input(
            [wire::window(0, 20_000), wire::window(1, 20_000)].concat(),
        ));
    }
    // Interim responses up to their number and one more.
    let mut interim = vec![input(wire::welcome()), Action::Open { ends: true }];
    for _ in 0..9 {
        interim.push(input(wire::headers(1, &[(":status", "103")], false)));
    }
    // Continuations likewise.
    let mut block = vec![input(wire::hello())];
    block.push(input(wire::raw(
        Kind::Headers,
        1,
        1,
        &wire::block(wire::GET),
    )));
    for _ in 0..9 {
        block.push(input(wire::raw(Kind::Continuation, 0, 1, &[])));
    }
    // A table that shrinks and grows between two heads of ours.
    let mut table = vec![input(wire::hello())];
    for (stream, size) in [(1, 4_096), (3, 0), (5, 4_096), (7, 60)] {
        table.push(input(wire::setting(1, size)));
        table.push(input(wire::headers(stream, wire::GET, true)));
        table.push(Action::Respond {
            stream,
            status: 200,
            ends: true,
        });
    }
    // Window updates beyond what the data that was sent calls for.
    let mut updates = down.clone();
    updates.truncate(5);
    updates.extend((0..1_100).map(|_| input(wire::window(1, 1))));
    // Pings that nobody reads the answers of, between other output.
    let mut unread = down.clone();
    unread.truncate(5);
    for _ in 0..4_200 {
        unread.push(input(wire::ping()));
        unread.push(Action::Pass(1_000));
    }
    // A connection's window that is given back within a script.
    let narrow = Limits {
        connection_window_bytes: 65_535,
        ..Limits::default()
    };
    // A table of ours that is smaller than what a peer begins with: its next head is an error.
    let small = Limits {
        decoder_table_bytes: 100,
        ..Limits::default()
    };
    let scripts = [up, down, interim, block, table, updates, unread];
    for script in &scripts {
        for limits in [&Limits::default(), &narrow, &small] {
            for (is_slow, releases) in [(false, true), (false, false), (true, true)] {
                let role = match script[0] == Action::Input(wire::welcome()) {
                    true => Role::Client,
                    false => Role::Server,
                };
                check(
                    Manner {
                        role,
                        is_slow,
                        releases,
                    },
                    limits,
                    script,
                )
                .unwrap();
            }
        }
    }
}

/// The rows of both tables, byte by byte.
#[test]
fn every_row_keeps_its_end_through_snapshots() {
    let manner = Manner {
        role: Role::Server,
        is_slow: false,
        releases: true,
    };
    for bytes in frames::all().chain(heads::all()) {
        // Long rows are long because of their data.
        let len = 1 + bytes.len() / 2_000;
        let script: Vec<Action> = bytes
            .chunks(len)
            .map(|piece| Action::Input(piece.to_vec()))
            .collect();
        check(manner, &Limits::default(), &script).unwrap();
    }
}

#[test]
fn a_snapshot_of_another_layout_is_refused_by_name() {
    let end = End::server();
    let mut snapshot = end.connection.snapshot(end.now_us);
    assert_eq!(snapshot[0], SNAPSHOT_LAYOUT);
    snapshot[0] = 200;
    let refused = RestoreError::UnknownLayout {
        found: 200,
        known: SNAPSHOT_LAYOUT,
    };
    assert_eq!(Connection::restore(&snapshot, 0).unwrap_err(), refused);
    assert_eq!(
        Connection::restore(&[], 0).unwrap_err(),
        RestoreError::Truncated { at: 0 }
    );
    let mut long = end.connection.snapshot(end.now_us);
    long.push(0);
    assert_eq!(
        Connection::restore(&long, 0).unwrap_err(),
        RestoreError::Trailing { count: 1 }
    );
}

#[test]
fn an_idle_snapshot_is_short() {
    for end in [End::server(), End::client()] {
        let len = end.connection.snapshot(end.now_us).len();
        assert!(len < 300, "{len}");
    }
}

/// The generator is worth its time only if it gets through to all kinds of events.
#[test]
fn the_generator_reaches_every_kind_of_event() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::new(config(1));
    let pieces = (prop::collection::vec(piece(), 1..30), manner());
    let mut counts = [0_u32; 13];
    for _ in 0..3_000 {
        let (pieces, manner) = pieces.new_tree(&mut runner).unwrap().current();
        let script = script(manner.role, &pieces, &[40]);
        for seen in run(manner, limits(), &script, || false).seen {
            counts[match seen {
                Seen::Request { .. } => 0,
                Seen::Interim { .. } => 1,
                Seen::Response { .. } => 2,
                Seen::Data { .. } => 3,
                Seen::Trailers { .. } => 4,
                Seen::Reset { .. } => 5,
                Seen::Window => 6,
                Seen::Settings => 7,
                Seen::Pong => 8,
                Seen::GoAway { .. } => 9,
                Seen::Failed(_) => 10,
                Seen::Closed => 11,
                Seen::NotSent(_) => 12,
            }] += 1;
        }
    }
    assert!(counts.iter().all(|count| *count >= 10), "{counts:?}");
}
