//! Request heads that are passed on, and those that are not: what another parser behind us could
//! read as something else.

use crate::http2::{Cause, ErrorCode, Refusal};

use super::driver::{End, Seen};
use super::wire::{self, headers};

type Fields = Vec<(&'static str, Vec<u8>)>;

/// A GET with one pseudo-header field replaced; None leaves it out.
fn with(name: &str, value: Option<&str>) -> Fields {
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "x.test"),
    ]
    .into_iter()
    .filter_map(|(known, usual)| match known == name {
        true => value.map(|value| (known, value.into())),
        false => Some((known, usual.into())),
    })
    .collect()
}

/// A GET with more fields.
fn and(more: &[(&'static str, &[u8])]) -> Fields {
    let mut fields = with("", None);
    fields.extend(more.iter().map(|(name, value)| (*name, value.to_vec())));
    fields
}

fn method(name: &str, path: &str) -> Fields {
    let mut fields = with(":method", Some(name));
    fields[2].1 = path.into();
    fields
}

type Row = (&'static str, Fields, Result<(), Refusal>);

fn rows() -> Vec<Row> {
    [pseudo_rows(), field_rows()].concat()
}

fn pseudo_rows() -> Vec<Row> {
    use Refusal as No;
    let swapped = {
        let mut fields = with("", None);
        fields.insert(1, ("accept", b"*/*".to_vec()));
        fields
    };
    let twice = |name| {
        let mut fields = with("", None);
        fields.insert(0, (name, b"/".to_vec()));
        fields
    };
    vec![
        ("plain", with("", None), Ok(())),
        ("no method", with(":method", None), Err(No::Pseudo)),
        ("method empty", with(":method", Some("")), Err(No::Pseudo)),
        (
            "method with a space",
            with(":method", Some("GET /")),
            Err(No::MethodName),
        ),
        (
            "method with a line end",
            with(":method", Some("GET\r\nX: y")),
            Err(No::MethodName),
        ),
        ("method in lower case", with(":method", Some("get")), Ok(())),
        ("method unknown", with(":method", Some("BREW")), Ok(())),
        (
            "method trace",
            with(":method", Some("TRACE")),
            Err(No::Method),
        ),
        (
            "connect with a path",
            with(":method", Some("CONNECT")),
            Err(No::Pseudo),
        ),
        (
            "connect",
            vec![
                (":method", b"CONNECT".to_vec()),
                (":authority", b"x:1".to_vec()),
            ],
            Err(No::Method),
        ),
        (
            "connect without authority",
            vec![(":method", b"CONNECT".to_vec())],
            Err(No::Pseudo),
        ),
        (
            "protocol though not announced",
            [with("", None), vec![(":protocol", b"websocket".to_vec())]].concat(),
            Err(No::Pseudo),
        ),
        ("no scheme", with(":scheme", None), Err(No::Pseudo)),
        ("scheme https", with(":scheme", Some("https")), Ok(())),
        (
            "scheme other",
            with(":scheme", Some("ftp")),
            Err(No::Scheme),
        ),
        (
            "scheme with more behind it",
            with(":scheme", Some("http://evil/")),
            Err(No::Scheme),
        ),
        ("no path", with(":path", None), Err(No::Pseudo)),
        ("path empty", with(":path", Some("")), Err(No::Pseudo)),
        (
            "path with a query",
            with(":path", Some("/a?b=c&d=/")),
            Ok(()),
        ),
        (
            "path without a slash",
            with(":path", Some("a")),
            Err(No::Path),
        ),
        (
            "path absolute",
            with(":path", Some("http://y/")),
            Err(No::Path),
        ),
        (
            "path with a space",
            with(":path", Some("/ HTTP/1.1")),
            Err(No::Path),
        ),
        (
            "path with a line end",
            with(":path", Some("/ HTTP/1.1\r\nX: y")),
            Err(No::Path),
        ),
        ("path with NUL", with(":path", Some("/\0")), Err(No::Path)),
        (
            "path with a fragment",
            with(":path", Some("/#a")),
            Err(No::Path),
        ),
        (
            "path beyond ASCII",
            with(":path", Some("/ä")),
            Err(No::Path),
        ),
        ("path asterisk", with(":path", Some("*")), Err(No::Path)),
        ("path asterisk with options", method("OPTIONS", "*"), Ok(())),
        (
            "path asterisk and more",
            method("OPTIONS", "*/"),
            Err(No::Path),
        ),
        (
            "no authority",
            with(":authority", None),
            Err(No::AuthorityMissing),
        ),
        (
            "authority empty",
            with(":authority", Some("")),
            Err(No::AuthorityMissing),
        ),
        (
            "authority with a port",
            with(":authority", Some("x.test:8080")),
            Ok(()),
        ),
        (
            "authority of IPv6",
            with(":authority", Some("[::1]:80")),
            Ok(()),
        ),
        (
            "authority of IPv6 unclosed",
            with(":authority", Some("[::1")),
            Err(No::Authority),
        ),
        (
            "authority with user",
            with(":authority", Some("a@b")),
            Err(No::Authority),
        ),
        (
            "authority of two",
            with(":authority", Some("a,b")),
            Err(No::Authority),
        ),
        (
            "authority with a path",
            with(":authority", Some("a/b")),
            Err(No::Authority),
        ),
        (
            "authority with a line end",
            with(":authority", Some("a\r\nb: c")),
            Err(No::Authority),
        ),
        (
            "authority with a port of letters",
            with(":authority", Some("a:b")),
            Err(No::Authority),
        ),
        (
            "host alone",
            [with(":authority", None), vec![("host", b"x.test".to_vec())]].concat(),
            Ok(()),
        ),
        ("host equal", and(&[("host", b"X.test")]), Ok(())),
        (
            "host different",
            and(&[("host", b"y.test")]),
            Err(No::HostDiffers),
        ),
        (
            "host twice",
            and(&[("host", b"x.test"), ("host", b"x.test")]),
            Err(No::HostDiffers),
        ),
        ("host empty", and(&[("host", b"")]), Err(No::HostDiffers)),
        ("method twice", twice(":method"), Err(No::Pseudo)),
        ("path twice", twice(":path"), Err(No::Pseudo)),
        ("scheme twice", twice(":scheme"), Err(No::Pseudo)),
        ("authority twice", twice(":authority"), Err(No::Pseudo)),
        (
            "pseudo-header field behind others",
            swapped,
            Err(No::Pseudo),
        ),
        (
            "pseudo-header field unknown",
            twice(":test"),
            Err(No::Pseudo),
        ),
        (
            "pseudo-header field of a response",
            twice(":status"),
            Err(No::Pseudo),
        ),
        (
            "pseudo-header field unknown at the end",
            and(&[(":test", b"x")]),
            Err(No::Pseudo),
        ),
    ]
}

fn field_rows() -> Vec<Row> {
    use Refusal as No;
    vec![
        (
            "name in upper case",
            and(&[("X-Any", b"y")]),
            Err(No::FieldName),
        ),
        (
            "name with one upper-case letter",
            and(&[("x-anY", b"y")]),
            Err(No::FieldName),
        ),
        ("name empty", and(&[("", b"y")]), Err(No::FieldName)),
        (
            "name with a space",
            and(&[("x any", b"y")]),
            Err(No::FieldName),
        ),
        (
            "name with a space behind",
            and(&[("x-any ", b"y")]),
            Err(No::FieldName),
        ),
        (
            "name with a colon",
            and(&[("x:any", b"y")]),
            Err(No::FieldName),
        ),
        (
            "name with a line end",
            and(&[("x: y\r\nz", b"y")]),
            Err(No::FieldName),
        ),
        ("name with NUL", and(&[("x\0", b"y")]), Err(No::FieldName)),
        ("name beyond ASCII", and(&[("ä", b"y")]), Err(No::FieldName)),
        (
            "name with every mark",
            and(&[("!#$%&'*+-.^_`|~09az", b"y")]),
            Ok(()),
        ),
        ("value empty", and(&[("x", b"")]), Ok(())),
        ("value with a tab inside", and(&[("x", b"a\tb")]), Ok(())),
        ("value beyond ASCII", and(&[("x", b"\xe4\xff")]), Ok(())),
        (
            "value with CR LF",
            and(&[("x", b"a\r\nb: c")]),
            Err(No::FieldValue),
        ),
        ("value with CR", and(&[("x", b"a\rb")]), Err(No::FieldValue)),
        ("value with LF", and(&[("x", b"a\nb")]), Err(No::FieldValue)),
        (
            "value with NUL",
            and(&[("x", b"a\0b")]),
            Err(No::FieldValue),
        ),
        (
            "value with escape",
            and(&[("x", b"a\x1bb")]),
            Err(No::FieldValue),
        ),
        (
            "value with delete",
            and(&[("x", b"a\x7f")]),
            Err(No::FieldValue),
        ),
        (
            "value with a space before",
            and(&[("x", b" a")]),
            Err(No::FieldValue),
        ),
        (
            "value with a tab behind",
            and(&[("x", b"a\t")]),
            Err(No::FieldValue),
        ),
        (
            "connection",
            and(&[("connection", b"keep-alive")]),
            Err(No::ConnectionField),
        ),
        (
            "keep-alive",
            and(&[("keep-alive", b"timeout=5")]),
            Err(No::ConnectionField),
        ),
        (
            "proxy-connection",
            and(&[("proxy-connection", b"close")]),
            Err(No::ConnectionField),
        ),
        (
            "transfer-encoding",
            and(&[("transfer-encoding", b"chunked")]),
            Err(No::ConnectionField),
        ),
        (
            "upgrade",
            and(&[("upgrade", b"websocket")]),
            Err(No::ConnectionField),
        ),
        (
            "http2-settings",
            and(&[("http2-settings", b"AAMAAABk")]),
            Err(No::ConnectionField),
        ),
        ("te trailers", and(&[("te", b"trailers")]), Ok(())),
        (
            "te other",
            and(&[("te", b"trailers, deflate;q=0.5")]),
            Err(No::ConnectionField),
        ),
        (
            "content_length",
            and(&[("content_length", b"5")]),
            Err(No::FieldLookalike),
        ),
        (
            "transfer_encoding",
            and(&[("transfer_encoding", b"chunked")]),
            Err(No::FieldLookalike),
        ),
        (
            "expect 100-continue",
            and(&[("expect", b"100-continue")]),
            Ok(()),
        ),
        (
            "expect other",
            and(&[("expect", b"tea")]),
            Err(No::Expectation),
        ),
        ("length 0", and(&[("content-length", b"0")]), Ok(())),
        (
            "length twice",
            and(&[("content-length", b"0"), ("content-length", b"0")]),
            Err(No::Length),
        ),
        (
            "length of a list",
            and(&[("content-length", b"0, 0")]),
            Err(No::Length),
        ),
        (
            "length with a sign",
            and(&[("content-length", b"+0")]),
            Err(No::Length),
        ),
        (
            "length negative",
            and(&[("content-length", b"-1")]),
            Err(No::Length),
        ),
        (
            "length in hexadecimal",
            and(&[("content-length", b"0x0")]),
            Err(No::Length),
        ),
        (
            "length empty",
            and(&[("content-length", b"")]),
            Err(No::Length),
        ),
        (
            "length of 20 digits",
            and(&[("content-length", b"00000000000000000000")]),
            Err(No::Length),
        ),
        (
            "length without a body",
            and(&[("content-length", b"1")]),
            Err(No::LengthDiffers),
        ),
        (
            "cookie crumbs",
            and(&[("cookie", b"a=b"), ("cookie", b"c=d")]),
            Ok(()),
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
        .map(|(_, fields, _)| [wire::hello(), headers(1, &fields, true)].concat())
}

#[test]
fn every_head_is_passed_on_or_refused_by_name() {
    for (name, fields, expected) in rows() {
        let mut end = End::server();
        end.input(headers(1, &fields, true));
        let found = match &end.seen[..] {
            [Seen::Request { .. }] => Ok(()),
            [
                Seen::Reset {
                    stream: 1,
                    cause: Cause::Refused(refusal),
                },
            ] => Err(*refusal),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(found, expected, "{name}");
        let Err(refusal) = expected else { continue };
        match refusal.status() {
            // The response's head, whose status has an entry of its own or a literal.
            Some(_) => assert_eq!(end.resets(), [], "{name}"),
            None => assert_eq!(end.resets(), [(1, ErrorCode::PROTOCOL_ERROR)], "{name}"),
        }
        // The connection goes on, tables in step.
        end.forget();
        end.input(headers(3, wire::GET, true));
        assert!(
            matches!(end.seen[..], [Seen::Request { stream: 3, .. }]),
            "{name}"
        );
    }
}

#[test]
fn heads_beyond_a_limit_are_answered_with_its_status() {
    let long = "x".repeat(17_000);
    let path = format!("/{}", "x".repeat(9_000));
    let many: Vec<(&str, &str)> = wire::GET
        .iter()
        .copied()
        .chain(std::iter::repeat_n(("a", "b"), 97))
        .collect();
    let with_path = [
        wire::GET[0],
        wire::GET[1],
        (":path", &path[..]),
        wire::GET[3],
    ];
    let with_field = [wire::GET, &[("a", &long[..])]].concat();
    let rows = [
        (wire::block(&with_field), Refusal::HeadTooLarge, 431),
        (wire::block(&many), Refusal::TooManyFields, 431),
        (wire::block(&with_path), Refusal::PathTooLong, 414),
    ];
    for (block, refusal, status) in rows {
        let mut end = End::server();
        let (first, rest) = block.split_at(block.len().min(16_384));
        let kind = crate::http2::frame::Kind::Headers;
        let more = crate::http2::frame::Kind::Continuation;
        end.input(match rest {
            [] => wire::raw(kind, 5, 1, first),
            rest => [wire::raw(kind, 1, 1, first), wire::raw(more, 4, 1, rest)].concat(),
        });
        let cause = Cause::Refused(refusal);
        assert_eq!(end.seen, [Seen::Reset { stream: 1, cause }]);
        let mut client = End::client();
        client.act(&super::driver::Action::Open { ends: true });
        client.input(&end.sent);
        assert!(
            matches!(client.seen[..], [Seen::Response { status: found, ends: true, .. }] if found == status)
        );
    }
    // A body that is announced as too large.
    let mut end = End::server();
    end.limits.request_body_bytes_max = 10;
    end.input(headers(
        1,
        &[wire::POST, &[("content-length", "11")]].concat(),
        false,
    ));
    let cause = Cause::Refused(Refusal::BodyTooLarge);
    assert_eq!(end.seen, [Seen::Reset { stream: 1, cause }]);
    assert_eq!(end.resets(), [(1, ErrorCode::NO_ERROR)]);
    // One that is not.
    end.input(
        [
            headers(3, wire::POST, false),
            wire::data(3, &[0; 11], false),
        ]
        .concat(),
    );
    assert_eq!(end.resets()[1], (3, ErrorCode::CANCEL));
}
