//! Both ends of ours against each other, and single exchanges frame by frame.

use crate::http2::frame::{Kind, flag};
use crate::http2::{Cause, ErrorCode, Head, Limits, Refusal, Role};

use super::driver::{Action, End, Seen};
use super::wire::{self, GET, OK, POST};

/// Moves output between two ends until nothing more comes.
fn join(one: &mut End, other: &mut End) {
    loop {
        let (to_other, to_one) = (
            std::mem::take(&mut one.sent),
            std::mem::take(&mut other.sent),
        );
        if to_other.is_empty() && to_one.is_empty() {
            return;
        }
        if !to_other.is_empty() {
            other.input(to_other);
        }
        if !to_one.is_empty() {
            one.input(to_one);
        }
    }
}

fn pair(limits: Limits) -> (End, End) {
    let mut client = End::new(Role::Client, limits.clone());
    let mut server = End::new(Role::Server, limits);
    join(&mut client, &mut server);
    client.forget();
    server.forget();
    (client, server)
}

#[test]
fn requests_and_responses_go_both_ways() {
    let (mut client, mut server) = pair(Limits::default());
    client.act(&Action::Open { ends: false });
    client.act(&Action::Send {
        stream: 1,
        len: 3,
        ends: true,
    });
    join(&mut client, &mut server);
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        server.seen,
        [
            Seen::Request {
                stream: 1,
                ends: false,
                fields: vec![
                    field(":method", "POST"),
                    field(":path", "/"),
                    field(":authority", "x.test"),
                    field("x-any", "value"),
                ],
            },
            Seen::Data {
                stream: 1,
                ends: true,
                bytes: b"ddd".to_vec()
            },
        ]
    );
    server.act(&Action::Respond {
        stream: 1,
        status: 103,
        ends: false,
    });
    server.act(&Action::Respond {
        stream: 1,
        status: 200,
        ends: false,
    });
    server.act(&Action::Send {
        stream: 1,
        len: 2,
        ends: false,
    });
    server.act(&Action::Trailers { stream: 1 });
    join(&mut client, &mut server);
    assert_eq!(
        client.seen,
        [
            Seen::Interim {
                stream: 1,
                status: 103
            },
            Seen::Response {
                stream: 1,
                ends: false,
                status: 200,
                fields: vec![field("server", "any")],
            },
            Seen::Data {
                stream: 1,
                ends: false,
                bytes: b"dd".to_vec()
            },
            Seen::Trailers {
                stream: 1,
                fields: vec![field("grpc-status", "0")]
            },
        ]
    );
    assert!(client.connection.is_idle() && server.connection.is_idle());
}

#[test]
fn megabytes_go_through_windows_both_ways() {
    let (mut client, mut server) = pair(Limits::default());
    for stream in [1, 3, 5] {
        client.act(&Action::Open { ends: false });
        client.act(&Action::Send {
            stream,
            len: 3_000_000,
            ends: true,
        });
    }
    join(&mut client, &mut server);
    let body = |end: &End, id: u32| -> usize {
        end.seen
            .iter()
            .map(|seen| match seen {
                Seen::Data { stream, bytes, .. } if *stream == id => bytes.len(),
                _ => 0,
            })
            .sum()
    };
    for stream in [1, 3, 5] {
        assert_eq!(body(&server, stream), 3_000_000);
        server.act(&Action::Respond {
            stream,
            status: 200,
            ends: false,
        });
        server.act(&Action::Send {
            stream,
            len: 2_000_000,
            ends: true,
        });
    }
    join(&mut client, &mut server);
    for stream in [1, 3, 5] {
        assert_eq!(body(&client, stream), 2_000_000);
    }
    assert!(client.connection.is_idle() && server.connection.is_idle());
}

#[test]
fn a_server_opens_with_its_settings_and_acknowledges_the_client_s() {
    let mut end = End::new(Role::Server, Limits::default());
    let first = end.frames();
    assert_eq!((first[0].kind, first[0].flags), (Kind::Settings, 0));
    assert_eq!(first[1].kind, Kind::WindowUpdate);
    end.input(wire::hello());
    let last = end.frames().pop().unwrap();
    assert_eq!((last.kind, last.flags), (Kind::Settings, flag::ACK));
}

#[test]
fn an_answer_before_the_request_s_end_tells_the_client_to_stop() {
    let mut end = End::server();
    end.input(wire::headers(1, POST, false));
    end.act(&Action::Respond {
        stream: 1,
        status: 200,
        ends: true,
    });
    assert_eq!(end.resets(), [(1, ErrorCode::NO_ERROR)]);
    // What is still under way is ignored, and its window is given back.
    end.input(
        [
            wire::data(1, &[0; 9_000], false),
            wire::data(1, &[0; 9_000], true),
        ]
        .concat(),
    );
    assert_eq!(end.told(), None);
    assert_eq!(end.resets().len(), 1);
}

#[test]
fn a_response_to_head_has_a_length_and_no_body() {
    let mut client = End::client();
    let mut head = Head::default();
    head.begin_request(b"HEAD", b"http", Some(b"x.test"), b"/");
    let mut out = Vec::new();
    let limits = Limits::default();
    let cx = crate::http2::Context {
        now_us: client.now_us,
        limits: &limits,
    };
    client.connection.open(&cx, &head, true, &mut out).unwrap();
    client.connection.open(&cx, &head, true, &mut out).unwrap();
    let response = [(":status", "200"), ("content-length", "5")];
    client.input(wire::headers(1, &response, true));
    assert!(matches!(
        client.seen[..],
        [Seen::Response { ends: true, .. }]
    ));
    client.forget();
    client.input(
        [
            wire::headers(3, &response, false),
            wire::data(3, b"hello", true),
        ]
        .concat(),
    );
    let cause = Cause::Refused(Refusal::LengthDiffers);
    assert_eq!(client.seen.last(), Some(&Seen::Reset { stream: 3, cause }));
}

#[test]
fn statuses_without_a_body_have_none() {
    for (status, length, is_fine) in [("304", "5", true), ("204", "5", false), ("204", "0", true)] {
        let mut client = End::client();
        client.act(&Action::Open { ends: true });
        client.input(wire::headers(
            1,
            &[(":status", status), ("content-length", length)],
            true,
        ));
        let has_come = matches!(client.seen[..], [Seen::Response { .. }]);
        assert_eq!(has_come, is_fine, "{status} {length}");
    }
    for status in ["204", "304"] {
        let mut client = End::client();
        client.act(&Action::Open { ends: true });
        client.input(wire::headers(1, &[(":status", status)], false));
        client.input(wire::data(1, b"x", true));
        assert_eq!(
            client.resets(),
            [(1, ErrorCode::PROTOCOL_ERROR)],
            "{status}"
        );
    }
}

#[test]
fn extended_connect_is_taken_only_if_announced() {
    let connect = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/chat"),
        (":authority", "x.test"),
    ];
    let mut plain = End::server();
    plain.input(wire::headers(1, &connect, false));
    assert_eq!(plain.resets(), [(1, ErrorCode::PROTOCOL_ERROR)]);

    let limits = Limits {
        has_extended_connect: true,
        ..Limits::default()
    };
    let (mut client, mut server) = pair(limits);
    let mut head = Head::default();
    head.begin_connect(b"websocket", b"https", b"x.test", b"/chat");
    let cx_limits = client.limits.clone();
    let cx = crate::http2::Context {
        now_us: client.now_us,
        limits: &cx_limits,
    };
    let mut out = Vec::new();
    client.connection.open(&cx, &head, false, &mut out).unwrap();
    server.input(&out);
    assert!(matches!(
        server.seen[..],
        [Seen::Request {
            stream: 1,
            ends: false,
            ..
        }]
    ));
    // Both directions live for themselves: the server's end does not stop the client.
    server.act(&Action::Respond {
        stream: 1,
        status: 200,
        ends: false,
    });
    server.act(&Action::Send {
        stream: 1,
        len: 4,
        ends: true,
    });
    assert_eq!(server.resets(), []);
    join(&mut client, &mut server);
    client.act(&Action::Send {
        stream: 1,
        len: 4,
        ends: true,
    });
    join(&mut client, &mut server);
    assert!(client.connection.is_idle() && server.connection.is_idle());

    let mut refused = End::client();
    let limits = Limits::default();
    let cx = crate::http2::Context {
        now_us: refused.now_us,
        limits: &limits,
    };
    let sent = refused.connection.open(&cx, &head, false, &mut Vec::new());
    assert_eq!(sent, Err(crate::http2::SendError::NoExtendedConnect));
}

#[test]
fn heads_larger_than_a_frame_are_continued() {
    let (mut client, mut server) = pair(Limits {
        header_list_bytes_max: 60_000,
        block_bytes_max: 60_000,
        ..Limits::default()
    });
    let mut head = Head::default();
    head.begin_request(b"GET", b"http", Some(b"x.test"), b"/");
    // Bytes whose codes are long, so that nothing gets shorter.
    let value = vec![0xf7; 20_000];
    head.push(b"x-long", &value);
    head.push(b"x-longer", &value);
    let limits = client.limits.clone();
    let cx = crate::http2::Context {
        now_us: client.now_us,
        limits: &limits,
    };
    let mut out = Vec::new();
    client.connection.open(&cx, &head, true, &mut out).unwrap();
    let kinds: Vec<Kind> = wire::frames(&out).iter().map(|frame| frame.kind).collect();
    assert_eq!(
        kinds,
        [Kind::Headers, Kind::Continuation, Kind::Continuation]
    );
    server.input(&out);
    assert!(matches!(
        server.seen[..],
        [Seen::Request {
            stream: 1,
            ends: true,
            ..
        }]
    ));
}

#[test]
fn a_head_that_the_peer_does_not_take_is_not_sent() {
    let mut end = End::server();
    end.input(wire::setting(6, 40));
    end.input(wire::headers(1, GET, true));
    end.forget();
    end.act(&Action::Respond {
        stream: 1,
        status: 200,
        ends: true,
    });
    assert_eq!(
        end.seen,
        [Seen::NotSent(crate::http2::SendError::HeadTooLarge)]
    );
    assert!(end.sent.is_empty());
}

#[test]
fn the_peer_s_number_of_streams_is_kept() {
    let mut client = End::client();
    client.input(wire::setting(3, 2));
    client.forget();
    for _ in 0..3 {
        client.act(&Action::Open { ends: true });
    }
    assert_eq!(
        client.seen,
        [Seen::NotSent(crate::http2::SendError::NoStream)]
    );
    client.input(wire::headers(1, OK, true));
    assert!(client.connection.may_open());
}

#[test]
fn streams_that_a_leaving_peer_has_not_touched_are_told() {
    let mut client = End::client();
    for _ in 0..3 {
        client.act(&Action::Open { ends: true });
    }
    client.input(wire::raw(Kind::GoAway, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]));
    let untouched = |stream| Seen::Reset {
        stream,
        cause: Cause::Untouched,
    };
    let gone = Seen::GoAway {
        last: 1,
        code: ErrorCode::NO_ERROR,
    };
    assert_eq!(client.seen, [gone, untouched(3), untouched(5)]);
    assert!(!client.connection.may_open());
    client.input(wire::headers(1, OK, true));
    assert!(matches!(
        client.seen.last(),
        Some(Seen::Response { stream: 1, .. })
    ));
}

#[test]
fn after_going_away_new_streams_are_ignored_and_old_ones_finish() {
    let mut end = End::server();
    end.input(wire::headers(1, GET, true));
    end.act(&Action::AnnounceEnd);
    end.input(wire::headers(3, GET, true));
    end.act(&Action::GoAway);
    end.forget();
    end.input(wire::headers(5, POST, false));
    end.input(wire::data(5, b"x", true));
    assert_eq!(end.seen, []);
    for stream in [1, 3] {
        end.act(&Action::Respond {
            stream,
            status: 200,
            ends: true,
        });
    }
    assert!(end.connection.is_idle());
}

#[test]
fn pings_are_answered_and_asked() {
    let mut end = End::server();
    end.input(wire::ping());
    let frame = end.frames().pop().unwrap();
    assert_eq!(
        (frame.kind, frame.flags, &frame.payload[..]),
        (Kind::Ping, flag::ACK, &b"pingpong"[..])
    );
    end.act(&Action::Ping);
    end.input(wire::raw(Kind::Ping, flag::ACK, 0, b"whoisit?"));
    assert_eq!(end.seen, [Seen::Pong]);
}

/// No table is shared in a way that one head changes another's.
#[test]
fn heads_that_repeat_are_small_and_the_same() {
    let (mut client, mut server) = pair(Limits::default());
    let mut lens = Vec::new();
    for stream in [1, 3, 5] {
        client.act(&Action::Open { ends: true });
        lens.push(client.sent.len());
        join(&mut client, &mut server);
        server.act(&Action::Respond {
            stream,
            status: 200,
            ends: true,
        });
        join(&mut client, &mut server);
    }
    assert!(lens[1] < lens[0] && lens[1] == lens[2], "{lens:?}");
    let fields: Vec<_> = server
        .seen
        .iter()
        .map(|seen| match seen {
            Seen::Request { fields, .. } => fields.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(fields[0] == fields[1] && fields[1] == fields[2]);
}
