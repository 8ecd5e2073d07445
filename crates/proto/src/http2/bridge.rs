//! Heads between HTTP/1.1 and HTTP/2.
//!
//! Both codecs have judged what they hand over; this only changes the form. What belongs to one hop
//! is left out (RFC 9113 section 8.2.2), cookies that came in crumbs are joined (section 8.2.3),
//! Host and `:authority` stand for each other.

use std::io::Write;
use std::net::IpAddr;

use crate::http1::{self, FieldId, ForwardedFor, Rewrite, is_nominated};
use crate::semantics::list;

use super::head::Head;
use super::judge::is_connection_specific;

/// How the body of a message is framed in HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body, or its Content-Length is among the fields.
    AsDeclared,
    /// Each piece is to be written as a chunk.
    Chunked,
}

/// Writes a request as HTTP/1.1 for a member. `ends`: it has no body. An extended CONNECT becomes
/// an upgrade with `key`, which has to be random and of the form that RFC 6455 asks for.
pub fn write_request(
    head: &Head,
    ends: bool,
    rewrite: &Rewrite,
    client: IpAddr,
    key: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Framing {
    let method = match head.protocol() {
        Some(_) => &b"GET"[..],
        None => head.method(),
    };
    for part in [method, b" ", head.path(), b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    line(b"host", head.authority().unwrap_or(b""), out);
    let merges = rewrite.forwarded_for != ForwardedFor::Keep;
    for field in head.fields() {
        match field.name {
            b"cookie" | b"te" => {}
            b"x-forwarded-for" if merges => {}
            b"content-length" | b"sec-websocket-key" if head.protocol().is_some() => {}
            name => line(name, field.value, out),
        }
    }
    cookies(head, out);
    if head.field(b"te").is_some() && head.protocol().is_none() {
        out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n");
    }
    if merges {
        forwarded_for(head, rewrite, client, out);
    }
    if let Some(via) = rewrite.via.as_deref() {
        write!(out, "via: 2 {via}\r\n").expect("a vector takes all writes");
    }
    let framing = match (head.protocol(), key) {
        (Some(protocol), key) => {
            out.extend_from_slice(b"connection: upgrade\r\n");
            line(b"upgrade", protocol, out);
            if let Some(key) = key {
                line(b"sec-websocket-key", key, out);
            }
            Framing::AsDeclared
        }
        (None, _) if ends || head.content_length().is_some() => Framing::AsDeclared,
        (None, _) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Framing::Chunked
        }
    };
    out.extend_from_slice(b"\r\n");
    framing
}

/// A request as it goes on in HTTP/2: another hop's, with the same fields.
pub fn onward(from: &Head, rewrite: &Rewrite, client: IpAddr, head: &mut Head) {
    let (scheme, path) = (from.scheme(), from.path());
    match (from.protocol(), from.authority()) {
        (Some(protocol), authority) => {
            head.begin_connect(protocol, scheme, authority.unwrap_or(b""), path);
        }
        (None, authority) => head.begin_request(from.method(), scheme, authority, path),
    }
    let merges = rewrite.forwarded_for != ForwardedFor::Keep;
    for field in from.fields() {
        match field.name {
            b"x-forwarded-for" if merges => {}
            name if field.is_sensitive => head.push_sensitive(name, field.value),
            name => head.push(name, field.value),
        }
    }
    if merges {
        let mut value = Vec::new();
        forwarded(from, rewrite, client, &mut value);
        head.push(b"x-forwarded-for", &value);
    }
    if let Some(via) = rewrite.via.as_deref() {
        head.push(b"via", format!("2 {via}").as_bytes());
    }
}

/// Writes a response as HTTP/1.1 for a client. `has_body`: data or trailers may follow.
pub fn write_response(head: &Head, has_body: bool, closes: bool, out: &mut Vec<u8>) -> Framing {
    let status = head.status();
    write!(out, "HTTP/1.1 {status} \r\n").expect("a vector takes all writes");
    for field in head.fields() {
        line(field.name, field.value, out);
    }
    let is_bare = head.is_interim() || matches!(status, 204 | 304) || !has_body;
    let framing = match is_bare || head.content_length().is_some() {
        true => Framing::AsDeclared,
        false => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Framing::Chunked
        }
    };
    if closes {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    framing
}

/// Writes one piece of a chunked body; nothing for an empty one, which would be the end.
pub fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    write!(out, "{:x}\r\n", data.len()).expect("a vector takes all writes");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Writes the end of a chunked body with its trailers, if there are any.
pub fn write_last_chunk(trailers: Option<&Head>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for field in trailers.into_iter().flat_map(|head| head.fields()) {
        line(field.name, field.value, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// A request of HTTP/1.1 as one of HTTP/2. `input` starts with the head.
pub fn request(
    from: &http1::Head,
    input: &[u8],
    scheme: &[u8],
    rewrite: &Rewrite,
    client: IpAddr,
    head: &mut Head,
) {
    let method = from.method_name().bytes(input);
    let path = from.path().bytes(input);
    let host = from.host().map(|host| host.bytes(input));
    match path {
        [] if from.method() == http1::Method::Options => {
            head.begin_request(method, scheme, host, b"*");
        }
        [] => head.begin_request(method, scheme, host, b"/"),
        [b'?', ..] => head.begin_request(method, scheme, host, &[b"/", path].concat()),
        _ => head.begin_request(method, scheme, host, path),
    }
    let merges = rewrite.forwarded_for != ForwardedFor::Keep;
    copy(from, input, head, |id| {
        matches!(id, FieldId::Host)
            || (id == FieldId::XForwardedFor && merges)
            || (id == FieldId::Expect && from.minor() == 0)
    });
    let takes_trailers = from
        .fields()
        .iter()
        .filter(|field| field.id == FieldId::Te)
        .any(|field| list(field.value.bytes(input)).any(|item| item == b"trailers"));
    if takes_trailers {
        head.push(b"te", b"trailers");
    }
    if merges {
        let mut value = Vec::new();
        if rewrite.forwarded_for == ForwardedFor::Append {
            let before = from
                .fields()
                .iter()
                .filter(|field| field.id == FieldId::XForwardedFor && !field.value.is_empty());
            for field in before {
                value.extend_from_slice(field.value.bytes(input));
                value.extend_from_slice(b", ");
            }
        }
        write!(value, "{}", client.to_canonical()).expect("a vector takes all writes");
        head.push(b"x-forwarded-for", &value);
    }
    if let Some(via) = rewrite.via.as_deref() {
        head.push(b"via", format!("1.{} {via}", from.minor()).as_bytes());
    }
}

/// A response of HTTP/1.1 as one of HTTP/2. `input` starts with the head.
pub fn response(from: &http1::Head, input: &[u8], head: &mut Head) {
    head.begin_response(from.status());
    let is_bare = from.is_interim() || from.status() == 204;
    copy(from, input, head, |id| {
        id == FieldId::ContentLength && is_bare
    });
}

/// A trailer section of HTTP/1.1 as one of HTTP/2. `input` starts with the section.
pub fn trailers(from: &http1::Head, input: &[u8], head: &mut Head) {
    head.begin_trailers();
    for field in from.fields() {
        head.push(field.name.bytes(input), field.value.bytes(input));
    }
}

/// Copies the fields that are for more than one hop.
fn copy(from: &http1::Head, input: &[u8], head: &mut Head, is_left_out: impl Fn(FieldId) -> bool) {
    for field in from.fields() {
        let is_of_this_hop = field.id.is_hop_by_hop() || is_nominated(from, field, input);
        if !is_of_this_hop && !is_left_out(field.id) {
            head.push(field.name.bytes(input), field.value.bytes(input));
        }
    }
}

/// All crumbs of the cookie in one field.
fn cookies(head: &Head, out: &mut Vec<u8>) {
    let mut crumbs = head.fields().filter(|field| field.name == b"cookie");
    let Some(first) = crumbs.next() else { return };
    out.extend_from_slice(b"cookie: ");
    out.extend_from_slice(first.value);
    for crumb in crumbs {
        out.extend_from_slice(b"; ");
        out.extend_from_slice(crumb.value);
    }
    out.extend_from_slice(b"\r\n");
}

fn forwarded_for(head: &Head, rewrite: &Rewrite, client: IpAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(b"x-forwarded-for: ");
    forwarded(head, rewrite, client, out);
    out.extend_from_slice(b"\r\n");
}

/// The value of X-Forwarded-For.
fn forwarded(head: &Head, rewrite: &Rewrite, client: IpAddr, out: &mut Vec<u8>) {
    if rewrite.forwarded_for == ForwardedFor::Append {
        let before = head
            .fields()
            .filter(|field| field.name == b"x-forwarded-for" && !field.value.is_empty());
        for field in before {
            out.extend_from_slice(field.value);
            out.extend_from_slice(b", ");
        }
    }
    write!(out, "{}", client.to_canonical()).expect("a vector takes all writes");
}

fn line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    debug_assert!(!is_connection_specific(name) || name == b"upgrade");
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}
