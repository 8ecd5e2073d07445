//! Flow control both ways: bounds, back-pressure, fairness.

use crate::http2::frame::Kind;
use crate::http2::{Connection, Context, ErrorCode, Event, Fault, Head, Limits, Role, Work};

use super::driver::{Action, End, Seen};
use super::wire::{self, GET, POST, data, headers, padded, window};

fn with(limits: Limits) -> End {
    let mut end = End::new(Role::Server, limits);
    end.input(wire::hello());
    end.forget();
    end
}

/// Data bytes that were sent per stream, in the order of the frames.
fn sent(end: &End) -> Vec<(u32, usize)> {
    end.frames()
        .into_iter()
        .filter(|frame| frame.kind == Kind::Data)
        .map(|frame| (frame.stream, frame.payload.len()))
        .collect()
}

fn total(end: &End, stream: u32) -> usize {
    let of_stream = |(id, len): (u32, usize)| if id == stream { len } else { 0 };
    sent(end).into_iter().map(of_stream).sum()
}

/// Windows that were given: (stream, bytes).
fn updates(end: &End) -> Vec<(u32, u32)> {
    end.frames()
        .into_iter()
        .filter(|frame| frame.kind == Kind::WindowUpdate)
        .map(|frame| {
            (
                frame.stream,
                u32::from_be_bytes(frame.payload[..].try_into().unwrap()),
            )
        })
        .collect()
}

#[test]
fn a_body_stops_at_the_stream_s_window_and_goes_on_with_it() {
    let mut end = End::server();
    end.input([headers(1, GET, true), window(0, 1 << 20)].concat());
    end.act(&Action::Respond {
        stream: 1,
        status: 200,
        ends: false,
    });
    end.act(&Action::Send {
        stream: 1,
        len: 100_000,
        ends: true,
    });
    assert_eq!(total(&end, 1), 65_535);
    end.input(window(1, 1));
    assert_eq!(total(&end, 1), 65_536);
    assert!(end.connection.is_open(1));
    end.input(window(1, 100_000));
    assert_eq!(total(&end, 1), 100_000);
    assert!(!end.connection.is_open(1));
}

#[test]
fn a_window_of_one_byte_sends_one_byte() {
    let mut end = End::server();
    end.input([wire::setting(4, 1), headers(1, GET, true)].concat());
    end.act(&Action::Respond {
        stream: 1,
        status: 200,
        ends: false,
    });
    end.act(&Action::Send {
        stream: 1,
        len: 5,
        ends: true,
    });
    assert_eq!(sent(&end), [(1, 1)]);
}

/// RFC 9113 section 6.9.2: a window may become negative, and counts up from there.
#[test]
fn settings_move_the_windows_of_open_streams() {
    let mut end = End::server();
    end.input(headers(1, GET, true));
    end.act(&Action::Respond {
        stream: 1,
        status: 200,
        ends: false,
    });
    end.act(&Action::Send {
        stream: 1,
        len: 50_000,
        ends: false,
    });
    end.input(wire::setting(4, 10_000));
    end.act(&Action::Send {
        stream: 1,
        len: 2_000,
        ends: true,
    });
    assert_eq!(total(&end, 1), 50_000);
    // At 10,000 - 50,000: 40,000 bring it to 0.
    end.input(window(1, 40_000));
    assert_eq!(total(&end, 1), 50_000);
    end.input(wire::setting(4, 11_000));
    assert_eq!(total(&end, 1), 51_000);
    end.input(wire::setting(4, 20_000));
    assert_eq!(total(&end, 1), 52_000);
}

#[test]
fn the_connection_s_window_is_shared_in_turn() {
    let mut end = End::server();
    // Streams may have a lot each, together they may not.
    end.input(wire::setting(4, 10_000_000));
    for stream in [1, 3, 5] {
        end.input(headers(stream, GET, true));
        end.act(&Action::Respond {
            stream,
            status: 200,
            ends: false,
        });
    }
    end.act(&Action::Send {
        stream: 1,
        len: 1_000_000,
        ends: true,
    });
    assert_eq!(total(&end, 1), 65_535);
    for stream in [3, 5] {
        end.act(&Action::Send {
            stream,
            len: 1_000_000,
            ends: true,
        });
        assert_eq!(total(&end, stream), 0);
    }
    end.forget();
    for _ in 0..10 {
        end.input(window(0, 60_000));
    }
    let shares: Vec<usize> = [1, 3, 5].map(|stream| total(&end, stream)).into();
    assert_eq!(shares.iter().sum::<usize>(), 600_000);
    let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
    assert!(most - least <= 16_384, "{shares:?}");
}

/// One whose own window is shut does not hold up the others.
#[test]
fn a_stream_without_a_window_does_not_block_others() {
    let mut end = End::server();
    end.input([wire::setting(4, 10), window(0, 1 << 20)].concat());
    for stream in [1, 3] {
        end.input(headers(stream, GET, true));
        end.act(&Action::Respond {
            stream,
            status: 200,
            ends: false,
        });
        end.act(&Action::Send {
            stream,
            len: 1_000,
            ends: true,
        });
    }
    end.input(window(3, 10_000));
    assert_eq!((total(&end, 1), total(&end, 3)), (10, 1_000));
}

/// A socket that takes nothing: no more than the limit lies here, however much there is to send.
#[test]
fn a_slow_reader_does_not_grow_memory() {
    let mut end = with(Limits::default());
    end.is_slow = true;
    end.input([wire::setting(4, 1 << 30), window(0, 1 << 30)].concat());
    for stream in (1..100).step_by(2) {
        end.input(headers(stream, GET, true));
    }
    for stream in (1..100).step_by(2) {
        end.act(&Action::Respond {
            stream,
            status: 200,
            ends: false,
        });
        end.act(&Action::Send {
            stream,
            len: 1_000_000,
            ends: true,
        });
    }
    let held = end.connection.unsent().len();
    assert!(held <= 65_536 + 16_384 + 50 * 60, "{held}");
    end.is_slow = false;
    end.act(&Action::Drain(usize::MAX));
    for stream in (1..100).step_by(2) {
        assert_eq!(total(&end, stream), 1_000_000);
    }
}

#[test]
fn released_bytes_are_given_back_by_halves() {
    let mut end = End::server();
    end.releases = false;
    end.input([headers(1, POST, false), data(1, &[0; 16_000], false)].concat());
    end.act(&Action::Release {
        stream: 1,
        len: 16_000,
    });
    assert_eq!(updates(&end), []);
    for _ in 0..2 {
        end.input(data(1, &[0; 16_000], false));
        end.act(&Action::Release {
            stream: 1,
            len: 16_000,
        });
    }
    assert_eq!(updates(&end), [(1, 48_000)]);
    // More than is held gives nothing.
    end.act(&Action::Release {
        stream: 1,
        len: 1_000_000,
    });
    assert_eq!(updates(&end).len(), 1);
}

#[test]
fn nobody_sends_beyond_the_window_that_is_not_released() {
    let mut end = End::server();
    end.releases = false;
    end.input(headers(1, POST, false));
    for _ in 0..3 {
        end.input(data(1, &[0; 16_384], false));
    }
    end.input(data(1, &[0; 16_383], false));
    assert_eq!(end.resets(), []);
    assert_eq!(end.connection.held(1), 65_535);
    end.input(data(1, &[0; 1], false));
    assert_eq!(end.resets(), [(1, ErrorCode::FLOW_CONTROL_ERROR)]);
}

#[test]
fn padding_counts_against_windows_and_is_given_back_at_once() {
    let mut end = End::server();
    end.releases = false;
    end.input(headers(1, POST, false));
    // Each costs 256 bytes and is worth one.
    for _ in 0..400 {
        end.input(padded(1, b"x", 254, false));
    }
    assert_eq!(end.resets(), []);
    assert_eq!(end.connection.held(1), 400);
    let given: u32 = updates(&end).iter().map(|(_, bytes)| bytes).sum();
    assert!(given >= 65_535 && given.is_multiple_of(255), "{given}");
}

#[test]
fn the_connection_s_window_is_a_bound_too() {
    let limits = Limits {
        connection_window_bytes: 65_535,
        ..Limits::default()
    };
    let mut end = with(limits);
    end.releases = false;
    for stream in [1, 3, 5, 7] {
        end.input(
            [
                headers(stream, POST, false),
                data(stream, &[0; 16_383], false),
            ]
            .concat(),
        );
    }
    end.input(data(1, &[0; 3], false));
    assert_eq!(end.told(), None);
    end.input(data(3, &[0; 1], false));
    assert_eq!(end.faults(), [Fault::WindowExceeded]);
    assert_eq!(end.told(), Some(ErrorCode::FLOW_CONTROL_ERROR));
}

/// What a stream held goes back to the connection's window when the stream ends, however it ends.
#[test]
fn streams_that_end_give_back_what_they_held() {
    let limits = Limits {
        connection_window_bytes: 65_535,
        ..Limits::default()
    };
    let mut end = with(limits);
    end.releases = false;
    for round in 0..30 {
        let stream = 2 * round + 1;
        end.input(
            [
                headers(stream, POST, false),
                data(stream, &[0; 16_384], false),
            ]
            .concat(),
        );
        // The peer can end it between frames only, we in the middle of one.
        match round % 3 {
            0 => end.input(wire::reset(stream, ErrorCode::CANCEL)),
            kind => {
                let frame = data(stream, &[0; 16_384], false);
                end.input(&frame[..8_000]);
                end.act(&match kind {
                    1 => Action::Reset { stream },
                    _ => Action::Respond {
                        stream,
                        status: 200,
                        ends: true,
                    },
                });
                end.input(&frame[8_000..]);
            }
        }
    }
    assert_eq!(end.told(), None);
    assert_eq!(end.connection.streams(), 0);
}

/// Settings below what holds without them count from their acknowledgement.
#[test]
fn a_smaller_window_holds_once_it_is_acknowledged() {
    let limits = Limits {
        stream_window_bytes: 1_000,
        ..Limits::default()
    };
    let mut end = End::new(Role::Server, limits);
    end.releases = false;
    end.input([&crate::http2::frame::PREFACE[..], &wire::settings()].concat());
    end.input([headers(1, POST, false), data(1, &[0; 10_000], false)].concat());
    assert_eq!(end.resets(), []);
    end.input(wire::ack());
    end.input(data(1, &[0; 1], false));
    assert_eq!(end.resets(), [(1, ErrorCode::FLOW_CONTROL_ERROR)]);
    end.input([headers(3, POST, false), data(3, &[0; 1_000], false)].concat());
    assert_eq!(end.resets().len(), 1);
    end.input(data(3, &[0; 1], false));
    assert_eq!(end.resets()[1], (3, ErrorCode::FLOW_CONTROL_ERROR));
}

#[test]
fn what_crosses_a_reset_is_given_back() {
    let limits = Limits {
        connection_window_bytes: 65_535,
        ..Limits::default()
    };
    let mut end = with(limits);
    end.input(headers(1, POST, false));
    end.act(&Action::Reset { stream: 1 });
    for _ in 0..20 {
        end.input(data(1, &[0; 16_384], false));
    }
    assert_eq!(end.told(), None);
    assert!(
        end.seen
            .iter()
            .all(|seen| !matches!(seen, Seen::Data { .. }))
    );
}

/// As a worker does it: output stays in the thread's vector until the turn is over.
#[test]
fn a_turn_ends_when_its_output_is_large_enough() {
    let limits = Limits::default();
    let cx = Context {
        now_us: 0,
        limits: &limits,
    };
    let mut work = Work::default();
    let mut connection = Connection::server(&cx, &mut work.out);
    let streams = [1, 3, 5];
    let mut input = [wire::hello(), wire::setting(4, 1 << 30), window(0, 1 << 30)].concat();
    for stream in streams {
        input.extend(headers(stream, GET, true));
    }
    // Read in two goes, the first one ending inside a frame.
    let (first, second) = input.split_at(input.len() - 7);
    let mut scratch = vec![0; 4_096];
    for bytes in [first, second] {
        let stuck = connection.take_stuck(&mut scratch);
        scratch[stuck..stuck + bytes.len()].copy_from_slice(bytes);
        let (mut at, end) = (0, stuck + bytes.len());
        loop {
            let step = connection.step(&cx, &scratch[at..end], &mut work);
            at += step.consumed;
            if step.event == Event::NeedMore {
                break;
            }
        }
        connection.keep_stuck(&scratch[at..end]);
    }
    assert_eq!(connection.streams(), 3);
    work.out.clear();
    let mut head = Head::default();
    head.begin_response(200);
    for stream in streams {
        connection
            .respond(&cx, stream, &head, false, &mut work.out)
            .unwrap();
    }
    let body = vec![0; 1_000_000];
    let mut left = [1_000_000_usize; 3];
    let mut place = Some(0);
    let mut turns = 0;
    while left.iter().any(|left| *left > 0) {
        if let Some(index) = place {
            let data = &body[..left[index]];
            let sent = connection.send_data(&cx, streams[index], data, true, &mut work.out);
            left[index] -= sent.unwrap();
        } else {
            // The turn is over: all of it is sent.
            assert!(work.out.len() <= 65_536 + 16_393, "{}", work.out.len());
            work.out.clear();
            turns += 1;
        }
        let next = connection.next_writable(&cx, &work.out);
        place = next.map(|id| streams.iter().position(|stream| *stream == id).unwrap());
        if turns == 0 {
            // The others ask too, and wait.
            for (index, stream) in streams.iter().enumerate().skip(1) {
                let data = &body[..left[index]];
                let sent = connection.send_data(&cx, *stream, data, true, &mut work.out);
                left[index] -= sent.unwrap();
            }
        }
        assert!(turns < 100);
    }
    assert_eq!(connection.streams(), 0);
}

/// Streams whose bytes nobody releases hold most of the window: what is left goes round all the same.
#[test]
fn streams_that_stall_do_not_stop_the_rest_of_the_window() {
    let mut end = End::server();
    end.releases = false;
    for stream in (1..20).step_by(2) {
        end.input(headers(stream, POST, false));
        for _ in 0..4 {
            end.input(data(stream, &[1; 16_000], false));
        }
    }
    end.releases = true;
    end.input(headers(21, POST, false));
    // 640,000 of 1,048,576 bytes are held: less than half is left, for far more than that.
    for _ in 0..200 {
        end.input(data(21, &[2; 16_000], false));
    }
    assert_eq!(end.faults(), []);
}
