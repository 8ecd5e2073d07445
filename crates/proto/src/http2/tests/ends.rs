//! Floods, limits of time, and how connections end.

use crate::http2::frame::{Kind, flag};
use crate::http2::{Cause, ErrorCode, Fault, Flow, Limits, Overdue, Rates, Refusal, Role};

use super::driver::{Action, End, Seen};
use super::wire::{self, GET, POST, data, headers, ping, raw, reset, window};

const SECOND: u64 = 1_000_000;

/// A flow, its rate, and a frame of it by its number.
type Flood = (Flow, u32, Box<dyn Fn(u32) -> Vec<u8>>);

/// Frames that a polite client never sends so many of, with the flow that counts them.
fn floods() -> Vec<Flood> {
    let rates = Rates::default();
    let stream = |count: u32| 2 * count + 3;
    vec![
        (
            Flow::Settings,
            rates.settings,
            Box::new(|_| wire::settings()),
        ),
        (Flow::Ping, rates.ping, Box::new(|_| ping())),
        (
            Flow::Reset,
            rates.reset,
            Box::new(move |count| {
                let stream = stream(count);
                [headers(stream, GET, true), reset(stream, ErrorCode::CANCEL)].concat()
            }),
        ),
        // Made to be reset by us: by a window of 0, by data that nobody may send.
        (
            Flow::Refused,
            rates.refused,
            Box::new(move |count| {
                let stream = stream(count);
                [headers(stream, GET, true), window(stream, 0)].concat()
            }),
        ),
        (
            Flow::Refused,
            rates.refused,
            Box::new(move |count| {
                let stream = stream(count);
                [headers(stream, GET, true), data(stream, b"x", false)].concat()
            }),
        ),
        (
            Flow::Refused,
            rates.refused,
            Box::new(move |count| headers(stream(count), &[("A", "b")], true)),
        ),
        (
            Flow::EmptyData,
            rates.empty_data,
            Box::new(|_| data(1, b"", false)),
        ),
        (
            Flow::EmptyData,
            rates.empty_data,
            Box::new(|_| wire::padded(1, b"", 10, false)),
        ),
        (
            Flow::WindowUpdate,
            rates.window_update,
            Box::new(|_| window(1, 1)),
        ),
        (
            Flow::WindowUpdate,
            rates.window_update,
            Box::new(|_| window(0, 1)),
        ),
        (
            Flow::Priority,
            rates.priority,
            Box::new(|_| raw(Kind::Priority, 0, 1, &[0, 0, 0, 0, 16])),
        ),
        (
            Flow::Ignored,
            rates.ignored,
            Box::new(|_| raw(Kind::Unknown(0xbe), 0, 0, b"")),
        ),
    ]
}

#[test]
fn every_flood_ends_at_its_limit_and_not_before() {
    for (flow, rate, frame) in floods() {
        let mut end = End::server();
        end.now_us += SECOND;
        end.input(headers(1, POST, false));
        for count in 0..rate {
            end.input(frame(count));
        }
        assert_eq!(end.told(), None, "{flow:?} within its rate");
        end.input(frame(rate));
        assert_eq!(end.faults(), [Fault::Flood(flow)]);
        assert_eq!(end.told(), Some(ErrorCode::ENHANCE_YOUR_CALM));
    }
}

#[test]
fn the_same_frames_spread_over_time_are_polite() {
    for (flow, rate, frame) in floods() {
        let mut end = End::server();
        end.input(headers(1, POST, false));
        for count in 0..3 * rate {
            end.input(frame(count));
            end.now_us += SECOND / u64::from(rate) + 1;
        }
        assert_eq!(end.told(), None, "{flow:?}");
    }
}

#[test]
fn window_updates_that_sent_data_calls_for_are_no_flood() {
    let mut end = End::server();
    end.input(headers(1, GET, true));
    end.act(&Action::Respond {
        stream: 1,
        status: 200,
        ends: false,
    });
    end.act(&Action::Send {
        stream: 1,
        len: 20_000_000,
        ends: true,
    });
    while end.connection.is_open(1) {
        end.input([window(0, 16_384), window(1, 16_384)].concat());
        end.sent.clear();
    }
    assert_eq!(end.faults(), []);
}

#[test]
fn streams_at_once_are_bounded() {
    let mut end = End::server();
    for stream in 0..100 {
        end.input(headers(2 * stream + 1, GET, true));
    }
    assert_eq!(end.connection.streams(), 100);
    end.input(headers(201, GET, true));
    assert_eq!(end.resets(), [(201, ErrorCode::REFUSED_STREAM)]);
    end.act(&Action::Respond {
        stream: 1,
        status: 200,
        ends: true,
    });
    end.input(headers(203, GET, true));
    assert_eq!(end.connection.streams(), 100);
}

/// A peer that asks and never listens.
#[test]
fn replies_that_nobody_reads_end_the_connection() {
    let mut end = End::server();
    end.is_slow = true;
    for _ in 0..20 {
        for _ in 0..1_000 {
            end.input(ping());
        }
        end.now_us += SECOND;
    }
    assert_eq!(end.faults(), [Fault::Unread]);
    assert!(end.connection.unsent().len() < 66_000);
}

/// A client that asks and does not read: requests wait in its socket, and nothing is lost.
#[test]
fn requests_wait_while_their_answers_are_not_read() {
    let mut end = End::server();
    end.is_slow = true;
    let mut asked = 0;
    for stream in (1..20_000).step_by(2) {
        end.input(headers(stream, GET, true));
        asked += 1;
        if let Some(Seen::Request { stream, .. }) = end.seen.last() {
            let stream = *stream;
            end.act(&Action::Respond {
                stream,
                status: 200,
                ends: true,
            });
        }
        if !end.connection.stuck().is_empty() {
            break;
        }
    }
    assert!(asked < 10_000);
    let held = end.connection.unsent().len();
    assert!((65_536..66_000).contains(&held), "{held}");
    // What is not a request still comes through behind what waits, once that has its turn.
    end.input(ping());
    assert_eq!(end.connection.unsent().len(), held);
    end.forget();
    end.act(&Action::Drain(usize::MAX));
    assert!(matches!(end.seen[..], [Seen::Request { .. }]));
    assert_eq!(end.connection.unsent().len(), 17);
}

/// Many answers in one turn are not replies that nobody reads.
#[test]
fn answers_of_one_turn_are_no_flood() {
    let mut end = End::server();
    end.is_slow = true;
    for stream in (1..200).step_by(2) {
        end.input(headers(stream, GET, true));
    }
    for stream in (1..200).step_by(2) {
        end.act(&Action::Respond {
            stream,
            status: 200,
            ends: false,
        });
        end.act(&Action::Send {
            stream,
            len: 10_000,
            ends: true,
        });
    }
    for _ in 0..1_000 {
        end.input(ping());
    }
    assert_eq!(end.faults(), []);
}

#[test]
fn a_bomb_ends_the_connection() {
    let mut block = wire::block(GET);
    block.extend([0x40, 1, b'a', 0x7f, 0xa1, 0x1e]);
    block.extend(std::iter::repeat_n(b'v', 4_000));
    block.extend(std::iter::repeat_n(0xbe, 10_000));
    let mut end = End::server();
    end.input(raw(
        Kind::Headers,
        flag::END_HEADERS | flag::END_STREAM,
        1,
        &block,
    ));
    assert_eq!(end.told(), Some(ErrorCode::ENHANCE_YOUR_CALM));
}

#[test]
fn late_frames_are_known_for_as_many_resets_as_are_remembered() {
    let limits = Limits {
        reset_streams_max: 4,
        ..Limits::default()
    };
    let mut end = End::new(Role::Server, limits);
    end.input(wire::hello());
    for count in 0..5 {
        end.input(headers(2 * count + 1, POST, false));
        end.act(&Action::Reset {
            stream: 2 * count + 1,
        });
    }
    end.forget();
    end.input(data(3, b"x", false));
    assert_eq!(end.resets(), []);
    end.input(data(1, b"x", false));
    assert_eq!(end.resets(), [(1, ErrorCode::STREAM_CLOSED)]);
}

#[test]
fn whatever_stalls_has_a_deadline() {
    let reset_by = |refusal| {
        vec![Seen::Reset {
            stream: 1,
            cause: Cause::Refused(refusal),
        }]
    };
    // A request's body that does not go on.
    let mut end = End::server();
    end.input(headers(1, POST, false));
    end.forget();
    end.act(&Action::Pass(29 * SECOND));
    end.input(data(1, b"x", false));
    end.forget();
    end.act(&Action::Pass(29 * SECOND));
    assert_eq!(end.seen, []);
    end.act(&Action::Pass(SECOND));
    assert_eq!(end.seen, reset_by(Refusal::PeerStalls));
    assert_eq!(end.resets(), [(1, ErrorCode::CANCEL)]);

    // A response that the client opens no window for.
    let mut end = End::server();
    end.input([wire::setting(4, 0), headers(1, GET, true)].concat());
    end.act(&Action::Respond {
        stream: 1,
        status: 200,
        ends: false,
    });
    end.act(&Action::Send {
        stream: 1,
        len: 10,
        ends: true,
    });
    end.forget();
    end.act(&Action::Pass(30 * SECOND));
    assert_eq!(end.seen, reset_by(Refusal::WindowStalls));

    // The same for the connection's window.
    let mut end = End::server();
    end.input([wire::setting(4, 1 << 20), headers(1, GET, true)].concat());
    end.act(&Action::Respond {
        stream: 1,
        status: 200,
        ends: false,
    });
    end.act(&Action::Send {
        stream: 1,
        len: 70_000,
        ends: true,
    });
    end.forget();
    end.act(&Action::Pass(30 * SECOND));
    assert_eq!(end.seen, reset_by(Refusal::WindowStalls));

    // A member that does not answer.
    let mut end = End::client();
    end.act(&Action::Open { ends: true });
    end.act(&Action::Pass(60 * SECOND));
    assert_eq!(end.seen, reset_by(Refusal::ResponseTimeout));
}

#[test]
fn a_slow_receiver_here_is_not_the_peer_s_stall() {
    let mut end = End::server();
    end.releases = false;
    end.input([headers(1, POST, false), data(1, b"x", false)].concat());
    end.forget();
    end.act(&Action::Pass(300 * SECOND));
    assert_eq!(end.seen, []);
    end.act(&Action::Release { stream: 1, len: 1 });
    end.act(&Action::Pass(30 * SECOND));
    assert_eq!(end.seen.len(), 1);
}

#[test]
fn connections_have_deadlines_of_their_own() {
    // No settings, no acknowledgement.
    for input in [vec![], crate::http2::frame::PREFACE.to_vec()] {
        let mut end = End::new(Role::Server, Limits::default());
        end.input(input);
        end.forget();
        end.act(&Action::Pass(10 * SECOND));
        assert_eq!(end.faults(), [Fault::SettingsTimeout]);
    }
    // A block that is not continued.
    let mut end = End::server();
    end.input(raw(Kind::Headers, flag::END_STREAM, 1, &wire::block(GET)));
    end.act(&Action::Pass(10 * SECOND));
    assert_eq!(end.faults(), [Fault::BlockTimeout]);
    // Output that nobody takes.
    let mut end = End::server();
    end.is_slow = true;
    end.input([headers(1, GET, true), ping()].concat());
    end.act(&Action::Pass(30 * SECOND));
    assert_eq!(end.faults(), [Fault::Unread]);
    // Nothing at all: closed without a word.
    let mut end = End::server();
    end.act(&Action::Pass(60 * SECOND));
    assert_eq!((end.seen, end.sent), (vec![Seen::Closed], vec![]));
    // An endless response is nobody's fault.
    let mut end = End::server();
    end.input(headers(1, GET, true));
    end.act(&Action::Respond {
        stream: 1,
        status: 200,
        ends: false,
    });
    assert_eq!(end.connection.deadline(&end.limits), None);
}

#[test]
fn deadlines_tell_what_is_first_due() {
    let mut end = End::server();
    let idle = end.connection.deadline(&end.limits).unwrap();
    assert_eq!(
        (idle.at_us - end.now_us, idle.reason),
        (60 * SECOND, Overdue::Idle)
    );
    end.input(headers(1, POST, false));
    end.now_us += 7;
    end.input(headers(3, POST, false));
    let first = end.connection.deadline(&end.limits).unwrap();
    let stalls = Overdue::Stream(1, Refusal::PeerStalls);
    assert_eq!(
        (first.at_us - end.now_us + 7, first.reason),
        (30 * SECOND, stalls)
    );
}

#[test]
fn the_peer_s_end_is_orderly_only_without_streams() {
    let mut end = End::server();
    end.act(&Action::End);
    assert_eq!(end.seen[0], Seen::Closed);
    let mut end = End::server();
    end.input(headers(1, GET, true));
    end.act(&Action::End);
    assert_eq!(end.faults()[0], Fault::PeerClosed);
}
