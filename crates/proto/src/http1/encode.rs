//! Heads as the other side gets them.
//!
//! Lines that go on unchanged are copied in runs straight from the input, so a usual head is one or
//! two copies.

use std::io::Write;
use std::net::IpAddr;

use super::facts::is_nominated;
use super::field::FieldId;
use super::head::{Field, Head, Method};
use super::interface::{Context, ForwardedFor};

/// The connection line of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionLine {
    /// HTTP/1.1 that stays open says nothing.
    Nothing,
    KeepAlive,
    Close,
}

const WEBSOCKET: &[u8] = b"upgrade: websocket\r\nconnection: upgrade\r\n";

/// Writes the request head for the member: always HTTP/1.1, origin form, one Host field.
pub(super) fn request(head: &Head, input: &[u8], cx: &Context<'_>, out: &mut Vec<u8>) {
    let facts = &head.facts;
    let counts_down = head.method == Method::Options && facts.max_forwards.is_some();
    let merges_forwarded_for = cx.rewrite.forwarded_for != ForwardedFor::Keep;
    let is_removed = |field: &Field| {
        field.id.is_hop_by_hop()
            || match field.id {
                FieldId::Host => head.is_absolute,
                FieldId::Expect => head.minor == 0,
                FieldId::XForwardedFor => merges_forwarded_for,
                FieldId::MaxForwards => counts_down,
                FieldId::Trailer => !facts.is_chunked,
                _ => false,
            }
            || (facts.nominates && is_nominated(head, field, input))
    };
    let start = if head.is_absolute || head.minor == 0 {
        request_line(head, input, out);
        first_line_end(head)
    } else {
        0
    };
    copy_lines(head, input, start, is_removed, out);
    if facts.is_chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if facts.is_websocket {
        out.extend_from_slice(WEBSOCKET);
    }
    if facts.takes_trailers {
        out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n");
    }
    if let (true, Some(left)) = (counts_down, facts.max_forwards) {
        let left = left.saturating_sub(1);
        write!(out, "max-forwards: {left}\r\n").expect("a vector takes all writes");
    }
    if merges_forwarded_for {
        forwarded_for(head, input, cx, out);
    }
    if let Some(via) = cx.rewrite.via.as_deref() {
        let version: &[u8] = if head.minor == 0 {
            b"via: 1.0 "
        } else {
            b"via: 1.1 "
        };
        out.extend_from_slice(version);
        out.extend_from_slice(via.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a response head for the client.
pub(super) fn response(
    head: &Head,
    input: &[u8],
    cx: &Context<'_>,
    is_chunked: bool,
    connection: ConnectionLine,
    out: &mut Vec<u8>,
) {
    let facts = &head.facts;
    let has_no_body = head.is_interim() || head.status == 204;
    let is_removed = |field: &Field| {
        field.id.is_hop_by_hop()
            || match field.id {
                FieldId::Trailer => !is_chunked,
                FieldId::ContentLength => has_no_body,
                _ => false,
            }
            || (facts.nominates && is_nominated(head, field, input))
    };
    let start = if head.minor == 0 {
        out.extend_from_slice(b"HTTP/1.1");
        "HTTP/1.0".len()
    } else {
        0
    };
    copy_lines(head, input, start, is_removed, out);
    if is_chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if head.status == 101 {
        out.extend_from_slice(WEBSOCKET);
    }
    if let (false, false, Some(date)) = (facts.has_date, head.is_interim(), cx.date) {
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
    }
    connection_line(connection, out);
    out.extend_from_slice(b"\r\n");
}

/// Writes an answer of our own: status, a line of text unless `has_body` is false, and the
/// connection line.
pub(super) fn answer(
    status: u16,
    has_body: bool,
    date: Option<&[u8; 29]>,
    connection: ConnectionLine,
    out: &mut Vec<u8>,
) {
    let reason = reason(status);
    write!(out, "HTTP/1.1 {status} {reason}\r\n").expect("a vector takes all writes");
    if status != 204 {
        let length = "NNN ".len() + reason.len() + "\n".len();
        write!(
            out,
            "content-type: text/plain\r\ncontent-length: {length}\r\n"
        )
        .expect("a vector takes all writes");
    }
    if let Some(date) = date {
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
    }
    connection_line(connection, out);
    out.extend_from_slice(b"\r\n");
    if has_body && status != 204 {
        writeln!(out, "{status} {reason}").expect("a vector takes all writes");
    }
}

fn connection_line(connection: ConnectionLine, out: &mut Vec<u8>) {
    out.extend_from_slice(match connection {
        ConnectionLine::Nothing => b"",
        ConnectionLine::KeepAlive => b"connection: keep-alive\r\n",
        ConnectionLine::Close => b"connection: close\r\n",
    });
}

/// Copies the input from `start` to the head's empty line, without the lines that are removed.
fn copy_lines(
    head: &Head,
    input: &[u8],
    start: usize,
    is_removed: impl Fn(&Field) -> bool,
    out: &mut Vec<u8>,
) {
    let fields = head.fields();
    let mut run = start;
    for (index, field) in fields.iter().enumerate() {
        if is_removed(field) {
            out.extend_from_slice(&input[run..field.name.range().start]);
            run = fields
                .get(index + 1)
                .map_or(head.len - 2, |next| next.name.range().start);
        }
    }
    out.extend_from_slice(&input[run..head.len - 2]);
}

/// Where the first field line starts.
fn first_line_end(head: &Head) -> usize {
    head.fields()
        .first()
        .map_or(head.len - 2, |field| field.name.range().start)
}

fn request_line(head: &Head, input: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(head.method_name.bytes(input));
    out.push(b' ');
    let path = head.path.bytes(input);
    match path.first() {
        Some(b'?') => out.push(b'/'),
        None if head.method == Method::Options => out.push(b'*'),
        None => out.push(b'/'),
        Some(_) => {}
    }
    out.extend_from_slice(path);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if head.is_absolute || head.host.is_none() {
        out.extend_from_slice(b"host: ");
        out.extend_from_slice(head.host.map_or(&[][..], |host| host.bytes(input)));
        out.extend_from_slice(b"\r\n");
    }
}

/// One X-Forwarded-For line: what came, if it is trusted, and the client's address.
fn forwarded_for(head: &Head, input: &[u8], cx: &Context<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"x-forwarded-for: ");
    if head.facts.has_forwarded_for && cx.rewrite.forwarded_for == ForwardedFor::Append {
        let before = head
            .fields()
            .iter()
            .filter(|field| field.id == FieldId::XForwardedFor);
        for field in before.filter(|field| !field.value.is_empty()) {
            out.extend_from_slice(field.value.bytes(input));
            out.extend_from_slice(b", ");
        }
    }
    address(cx.client.to_canonical(), out);
    out.extend_from_slice(b"\r\n");
}

fn address(address: IpAddr, out: &mut Vec<u8>) {
    let IpAddr::V4(address) = address else {
        write!(out, "{address}").expect("a vector takes all writes");
        return;
    };
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        if octet >= 100 {
            out.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            out.push(b'0' + octet / 10 % 10);
        }
        out.push(b'0' + octet % 10);
    }
}

/// Reason phrases of the answers that a proxy gives itself.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Refused",
    }
}
