//! A snapshot of layout 1 as a release wrote it: in every state that a connection can be in at
//! once. It is committed, so that a change of the layout is noticed and older ones stay readable.

use crate::http2::frame::Kind;
use crate::http2::{Connection, Limits, Role, SNAPSHOT_LAYOUT};

use super::driver::{Action, End, Seen};
use super::wire::{self, GET, POST, data, headers, raw};

const LAYOUT_1: &str = include_str!("snapshot-1.hex");

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Streams in several states, both tables filled, a body in the middle of a frame, output that
/// waits.
fn busy() -> End {
    let limits = Limits {
        has_extended_connect: true,
        ..Limits::default()
    };
    let mut end = End::new(Role::Server, limits);
    end.releases = false;
    end.input([wire::hello(), wire::setting(4, 1_000)].concat());
    // Indexed fields: a request from RFC 7541 Appendix C.4.1 with its entry.
    let block = [
        0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90,
        0xf4, 0xff,
    ];
    end.input(raw(Kind::Headers, 5, 1, &block));
    end.act(&Action::Respond {
        stream: 1,
        status: 200,
        ends: false,
    });
    end.act(&Action::Send {
        stream: 1,
        len: 5_000,
        ends: true,
    });
    end.input(headers(3, GET, true));
    end.act(&Action::Reset { stream: 3 });
    end.input(headers(
        5,
        &[POST, &[("content-length", "70")]].concat(),
        false,
    ));
    end.now_us += 1_234_567;
    end.input(&data(5, &[7; 60], false)[..30]);
    end.is_slow = true;
    end.act(&Action::Ping);
    end
}

#[test]
fn a_committed_snapshot_is_opened_and_goes_on() {
    let snapshot = bytes(LAYOUT_1);
    assert_eq!(snapshot[0], 1);
    let mut end = busy();
    end.owed.clear();
    end.connection = Connection::restore(&snapshot, end.now_us).unwrap();
    end.is_slow = false;
    end.forget();
    // The rest of the frame, the rest of the body, a request by the table.
    let rest = data(5, &[7; 60], false)[30..].to_vec();
    end.input(
        [
            rest,
            data(5, &[8; 10], true),
            raw(Kind::Headers, 5, 7, &[0x82, 0x86, 0x84, 0xbe]),
        ]
        .concat(),
    );
    assert!(
        matches!(&end.seen[0], Seen::Data { stream: 5, ends: true, bytes } if bytes.len() == 49)
    );
    assert!(
        matches!(&end.seen[1], Seen::Request { stream: 7, fields, .. } if fields[2].1 == "www.example.com")
    );
    assert_eq!(end.connection.held(5), 70);
    // The window that stream 1 waits for, and the byte it is good for.
    end.forget();
    end.input(wire::window(1, 1));
    assert_eq!(end.seen, [Seen::Window]);
    end.act(&Action::Send {
        stream: 1,
        len: 9,
        ends: false,
    });
    assert_eq!(end.frames().last().unwrap().payload.len(), 1);
}

/// What is written today is what was committed. If this fails, the layout has changed: it needs a
/// new number and a fixture of its own, and the old one is still to be read.
#[test]
fn the_layout_is_the_committed_one() {
    let end = busy();
    let snapshot = end.connection.snapshot(end.now_us);
    let lines: Vec<String> = snapshot
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    let written = lines.join("\n") + "\n";
    assert_eq!(SNAPSHOT_LAYOUT, 1);
    assert_eq!(written, LAYOUT_1);
}

/// Fixed part, tables, streams, what is buffered: no more than their sum.
#[test]
fn a_snapshot_is_as_long_as_what_it_holds() {
    let end = busy();
    let len = end.connection.snapshot(end.now_us).len();
    let (decoder, encoder) = end.connection.tables();
    let tables = decoder.size() + encoder.size();
    let bound = 300 + tables + 64 * end.connection.streams() + end.connection.unsent().len();
    assert!(len <= bound, "{len} > {bound}");
}
