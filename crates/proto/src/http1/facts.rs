//! What a head says of framing, routing and the connection; and every reason to refuse it.

use super::field::FieldId;
use super::head::{Field, Head, Method, Span};
use super::limits::Limits;
use super::refusal::Refusal;
use crate::semantics::{is_authority, list};

/// The conclusions from the fields of one head.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Facts {
    /// Content-Length.
    pub(super) length: Option<u64>,
    pub(super) is_chunked: bool,
    /// The sender closes after this message.
    pub(super) closes: bool,
    /// Connection names fields besides the known ones: they are removed.
    pub(super) nominates: bool,
    pub(super) expects_continue: bool,
    /// The client takes trailers.
    pub(super) takes_trailers: bool,
    /// The client asks for a WebSocket, or the member agrees to one (RFC 6455).
    pub(super) is_websocket: bool,
    pub(super) has_date: bool,
    pub(super) has_forwarded_for: bool,
    /// Max-Forwards of OPTIONS.
    pub(super) max_forwards: Option<u32>,
}

#[derive(Default)]
struct Seen {
    host: Option<Span>,
    hosts: u32,
    lengths: u32,
    codings: u32,
    keeps_alive: bool,
    option_upgrade: bool,
    websocket: bool,
    foreign_upgrade: bool,
}

/// Draws the conclusions for a request, or refuses it.
pub(super) fn judge_request(head: &mut Head, input: &[u8], limits: &Limits) -> Result<(), Refusal> {
    head.method = match head.method_name.bytes(input) {
        b"HEAD" => Method::Head,
        b"OPTIONS" => Method::Options,
        b"CONNECT" => Method::Connect,
        b"TRACE" => Method::Trace,
        _ => Method::Other,
    };
    if head.target.range().len() > limits.target_bytes_max {
        return Err(Refusal::TargetTooLong);
    }
    let (mut facts, seen) = judge_fields(head, input)?;
    judge_framing(head, &seen, &facts)?;
    match seen.hosts {
        0 if head.minor > 0 => return Err(Refusal::HostMissing),
        0 | 1 => {}
        _ => return Err(Refusal::HostRepeated),
    }
    if seen
        .host
        .is_some_and(|host| !is_authority(host.bytes(input)))
    {
        return Err(Refusal::Host);
    }
    head.host = seen.host;
    if matches!(head.method, Method::Connect | Method::Trace) {
        return Err(Refusal::Method);
    }
    judge_target(head, input)?;
    // A body, or another method, in front of a WebSocket is what nobody sends (RFC 6455 section 4.1)
    // and everybody might read in another way.
    let has_body = facts.is_chunked || facts.length.is_some_and(|length| length > 0);
    let is_get = head.method_name.bytes(input) == b"GET" && head.minor > 0 && !has_body;
    if seen.option_upgrade && (seen.foreign_upgrade || (seen.websocket && !is_get)) {
        return Err(Refusal::Upgrade);
    }
    facts.is_websocket = seen.option_upgrade && seen.websocket;
    if facts
        .length
        .is_some_and(|length| length > limits.request_body_bytes_max)
    {
        return Err(Refusal::BodyTooLarge);
    }
    if head.method == Method::Options && facts.max_forwards == Some(0) {
        return Err(Refusal::LastForward);
    }
    facts.closes |= head.minor == 0 && !seen.keeps_alive;
    head.facts = facts;
    Ok(())
}

/// Draws the conclusions for a response, or refuses it.
pub(super) fn judge_response(
    head: &mut Head,
    input: &[u8],
    limits: &Limits,
) -> Result<(), Refusal> {
    let (mut facts, seen) = judge_fields(head, input)?;
    judge_framing(head, &seen, &facts)?;
    facts.is_websocket = seen.option_upgrade && seen.websocket && !seen.foreign_upgrade;
    if !(100..600).contains(&head.status) || (head.status == 101 && !facts.is_websocket) {
        return Err(Refusal::Status);
    }
    if head.is_interim() || head.status == 204 {
        if facts.is_chunked || facts.length.is_some_and(|length| length > 0) {
            return Err(Refusal::FramingWithoutBody);
        }
        facts.length = None;
    }
    if facts
        .length
        .is_some_and(|length| length > limits.response_body_bytes_max)
    {
        return Err(Refusal::BodyTooLarge);
    }
    facts.closes |= head.minor == 0 && !seen.keeps_alive;
    head.facts = facts;
    Ok(())
}

fn judge_fields(head: &Head, input: &[u8]) -> Result<(Facts, Seen), Refusal> {
    let mut facts = Facts::default();
    let mut seen = Seen::default();
    for field in head.fields() {
        let value = || field.value.bytes(input);
        match field.id {
            FieldId::Other
            | FieldId::KeepAlive
            | FieldId::ProxyConnection
            | FieldId::Trailer
            | FieldId::Http2Settings => {}
            FieldId::Host => {
                seen.hosts += 1;
                seen.host = Some(field.value);
            }
            FieldId::ContentLength => {
                seen.lengths += 1;
                facts.length = Some(parse_length(value())?);
            }
            FieldId::TransferEncoding => {
                seen.codings += 1;
                judge_coding(value())?;
                facts.is_chunked = true;
            }
            FieldId::Connection => judge_connection(value(), &mut facts, &mut seen)?,
            FieldId::Te => {
                facts.takes_trailers |=
                    list(value()).any(|item| item.eq_ignore_ascii_case(b"trailers"));
            }
            FieldId::Upgrade => {
                // A server may ignore an upgrade. We ignore the one to HTTP/2, which common clients
                // offer with every request; one to another protocol means what only that protocol
                // can answer.
                for protocol in list(value()) {
                    let is = |known: &[u8]| protocol.eq_ignore_ascii_case(known);
                    seen.websocket |= is(b"websocket");
                    seen.foreign_upgrade |= !is(b"websocket") && !is(b"h2c");
                }
            }
            FieldId::Expect => {
                // HTTP/1.0 has no expectations: ignored there.
                if head.minor > 0 {
                    if !value().eq_ignore_ascii_case(b"100-continue") {
                        return Err(Refusal::Expectation);
                    }
                    facts.expects_continue = true;
                }
            }
            FieldId::MaxForwards => {
                let number = std::str::from_utf8(value())
                    .ok()
                    .and_then(|text| text.parse().ok());
                facts.max_forwards = Some(number.ok_or(Refusal::MaxForwards)?);
            }
            FieldId::XForwardedFor => facts.has_forwarded_for = true,
            FieldId::Date => facts.has_date = true,
            FieldId::Lookalike => return Err(Refusal::FieldLookalike),
        }
    }
    Ok((facts, seen))
}

fn judge_connection(value: &[u8], facts: &mut Facts, seen: &mut Seen) -> Result<(), Refusal> {
    for option in list(value) {
        match FieldId::of(option) {
            FieldId::Host
            | FieldId::ContentLength
            | FieldId::TransferEncoding
            | FieldId::Lookalike
            | FieldId::Connection => return Err(Refusal::ConnectionOption),
            FieldId::Upgrade => seen.option_upgrade = true,
            FieldId::KeepAlive => seen.keeps_alive = true,
            FieldId::Other if option.eq_ignore_ascii_case(b"close") => facts.closes = true,
            FieldId::Te | FieldId::ProxyConnection | FieldId::Http2Settings => {}
            FieldId::Other
            | FieldId::Trailer
            | FieldId::Expect
            | FieldId::MaxForwards
            | FieldId::XForwardedFor
            | FieldId::Date => facts.nominates = true,
        }
    }
    Ok(())
}

/// Only `chunked`, once: anything else may mean something else to the next one who reads it.
fn judge_coding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let is_chunked = |item: &&[u8]| item.eq_ignore_ascii_case(b"chunked");
    let chunked = list(value).filter(is_chunked).count();
    let is_final = list(value).last().as_ref().is_some_and(is_chunked);
    match chunked == 1 && is_final && list(value).count() > 1 {
        true => Err(Refusal::CodingUnknown),
        false => Err(Refusal::Coding),
    }
}

fn judge_framing(head: &Head, seen: &Seen, facts: &Facts) -> Result<(), Refusal> {
    if seen.codings > 0 && head.minor == 0 {
        return Err(Refusal::CodingInOldVersion);
    }
    if seen.codings > 1 {
        return Err(Refusal::Coding);
    }
    if facts.is_chunked && seen.lengths > 0 {
        return Err(Refusal::LengthAndCoding);
    }
    if seen.lengths > 1 {
        return Err(Refusal::LengthRepeated);
    }
    Ok(())
}

fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || value.len() > 19 {
        return Err(Refusal::Length);
    }
    let mut length = 0_u64;
    for &byte in value {
        if !byte.is_ascii_digit() {
            return Err(Refusal::Length);
        }
        // 19 digits are below 2^64.
        length = length * 10 + u64::from(byte - b'0');
    }
    Ok(length)
}

/// Checks the target's form and finds path and host in it.
fn judge_target(head: &mut Head, input: &[u8]) -> Result<(), Refusal> {
    let target = head.target.bytes(input);
    if target
        .iter()
        .any(|&byte| !(0x21..0x7f).contains(&byte) || byte == b'#')
    {
        return Err(Refusal::Target);
    }
    head.is_absolute = false;
    head.path = head.target;
    if target[0] == b'/' || (target == b"*" && head.method == Method::Options) {
        return Ok(());
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| {
            target
                .get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })
        .ok_or(Refusal::Target)?;
    let rest = &target[scheme.len()..];
    let authority = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    if authority == 0 || !is_authority(&rest[..authority]) {
        return Err(Refusal::Target);
    }
    let start = head.target.range().start + scheme.len();
    head.host = Some(Span::new(start, start + authority));
    head.path = Span::new(start + authority, head.target.range().end);
    head.is_absolute = true;
    Ok(())
}

/// Whether one of the Connection fields names this field.
pub(crate) fn is_nominated(head: &Head, field: &Field, input: &[u8]) -> bool {
    let name = field.name.bytes(input);
    head.fields()
        .iter()
        .filter(|other| other.id == FieldId::Connection)
        .any(|other| list(other.value.bytes(input)).any(|item| item.eq_ignore_ascii_case(name)))
}
