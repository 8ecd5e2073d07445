//! Whether a head may be passed on (RFC 9113 section 8): what another parser behind us could read
//! differently is malformed here.

use super::fault::Refusal;
use super::head::{Head, Pseudo};
use super::limits::Limits;
use crate::semantics::is_authority;

/// What a byte may be part of.
const NAME: u8 = 1;
const VALUE: u8 = 2;
const PATH: u8 = 4;
const TOKEN: u8 = 8;

static BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let this = byte as u8;
        let is_letter = this.is_ascii_alphanumeric();
        let is_mark = matches!(
            this,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        );
        if is_letter || is_mark {
            bytes[byte] |= TOKEN;
        }
        if (is_letter || is_mark) && !this.is_ascii_uppercase() {
            bytes[byte] |= NAME;
        }
        if this == b'\t' || (this >= b' ' && this != 0x7f) {
            bytes[byte] |= VALUE;
        }
        if this.is_ascii_graphic() && this != b'#' {
            bytes[byte] |= PATH;
        }
        byte += 1;
    }
    bytes
};

fn are(bytes: &[u8], class: u8) -> bool {
    bytes
        .iter()
        .all(|&byte| BYTES[usize::from(byte)] & class != 0)
}

/// Judges a request's head. `has_extended_connect`: it was announced.
pub(super) fn request(
    head: &mut Head,
    limits: &Limits,
    has_extended_connect: bool,
) -> Result<(), Refusal> {
    pseudo_fields(head, |name| match name {
        b":method" => Some(Pseudo::Method),
        b":scheme" => Some(Pseudo::Scheme),
        b":authority" => Some(Pseudo::Authority),
        b":path" => Some(Pseudo::Path),
        b":protocol" if has_extended_connect => Some(Pseudo::Protocol),
        _ => None,
    })?;
    regular_fields(head, true)?;
    let method = head.method();
    if method.is_empty() {
        return Err(Refusal::Pseudo);
    }
    if !are(method, TOKEN) {
        return Err(Refusal::MethodName);
    }
    let (is_connect, is_extended) = (method == b"CONNECT", head.has(Pseudo::Protocol));
    if is_connect && !is_extended {
        let is_bare = !head.has(Pseudo::Scheme) && !head.has(Pseudo::Path);
        return match is_bare && head.has(Pseudo::Authority) {
            true => Err(Refusal::Method),
            false => Err(Refusal::Pseudo),
        };
    }
    if is_extended && (!is_connect || !are(head.protocol().unwrap_or(b""), TOKEN)) {
        return Err(Refusal::Pseudo);
    }
    if !matches!(head.scheme(), b"http" | b"https") {
        return Err(match head.has(Pseudo::Scheme) {
            true => Refusal::Scheme,
            false => Refusal::Pseudo,
        });
    }
    let path = head.path();
    match path {
        [] => return Err(Refusal::Pseudo),
        b"*" if method == b"OPTIONS" => {}
        [b'/', ..] if are(path, PATH) => {}
        _ => return Err(Refusal::Path),
    }
    match head.authority() {
        None | Some([]) => return Err(Refusal::AuthorityMissing),
        Some(authority) if !is_authority(authority) => return Err(Refusal::Authority),
        Some(_) => {}
    }
    if path.len() > limits.path_bytes_max {
        return Err(Refusal::PathTooLong);
    }
    if method == b"TRACE" {
        return Err(Refusal::Method);
    }
    let is_too_long = |length| length > limits.request_body_bytes_max;
    match head.content_length {
        Some(length) if is_too_long(length) => Err(Refusal::BodyTooLarge),
        _ => Ok(()),
    }
}

/// Judges a response's head.
pub(super) fn response(head: &mut Head, limits: &Limits) -> Result<(), Refusal> {
    head.forget();
    let status = match head.fields.get(0) {
        Some(field) if field.name == b":status" => field.value,
        _ => return Err(Refusal::Pseudo),
    };
    let [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'] = status else {
        return Err(Refusal::Status);
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    head.status = digit(a) * 100 + digit(b) * 10 + digit(c);
    head.pseudo_count = 1;
    if head
        .fields
        .get(1)
        .is_some_and(|field| field.name.first() == Some(&b':'))
    {
        return Err(Refusal::Pseudo);
    }
    // HTTP/2 has no 101 (RFC 9113 section 8.6).
    if head.status == 101 {
        return Err(Refusal::Status);
    }
    regular_fields(head, false)?;
    if head.is_interim() || head.status == 204 {
        if head.content_length.is_some_and(|length| length > 0) {
            return Err(Refusal::BodyWithoutPlace);
        }
        head.content_length = None;
    }
    let is_too_long = |length| length > limits.response_body_bytes_max;
    match head.content_length {
        Some(length) if is_too_long(length) => Err(Refusal::BodyTooLarge),
        _ => Ok(()),
    }
}

/// Judges a trailer section.
pub(super) fn trailers(head: &mut Head) -> Result<(), Refusal> {
    head.forget();
    for field in head.fields.iter() {
        name_and_value(field.name, field.value)?;
        let is_refused = matches!(
            field.name,
            b"content-length"
                | b"content_length"
                | b"transfer_encoding"
                | b"host"
                | b"te"
                | b"expect"
                | b"max-forwards"
                | b"trailer"
                | b"authorization"
                | b"proxy-authorization"
                | b"cookie"
                | b"set-cookie"
                | b"content-encoding"
                | b"content-type"
                | b"content-range"
                | b"cache-control"
                | b"range"
                | b"x-forwarded-for"
        );
        if is_connection_specific(field.name) {
            return Err(Refusal::ConnectionField);
        }
        if is_refused {
            return Err(Refusal::TrailerField);
        }
    }
    Ok(())
}

/// Finds the pseudo-header fields: all before the others, none twice, none unknown.
fn pseudo_fields(head: &mut Head, known: impl Fn(&[u8]) -> Option<Pseudo>) -> Result<(), Refusal> {
    head.forget();
    let mut index = 0;
    while let Some(field) = head.fields.get(index) {
        if field.name.first() != Some(&b':') {
            break;
        }
        let pseudo = known(field.name).ok_or(Refusal::Pseudo)?;
        if !head.set(pseudo, index) {
            return Err(Refusal::Pseudo);
        }
        index += 1;
    }
    head.pseudo_count = index;
    Ok(())
}

fn regular_fields(head: &mut Head, is_request: bool) -> Result<(), Refusal> {
    let mut host = None;
    let mut content_length = None;
    for (index, field) in head.fields.iter().enumerate().skip(head.pseudo_count) {
        name_and_value(field.name, field.value)?;
        match field.name {
            b"host" if is_request && host.replace(index).is_some() => {
                return Err(Refusal::HostDiffers);
            }
            b"content-length" => {
                let length = parse_length(field.value)?;
                if content_length.replace(length).is_some() {
                    return Err(Refusal::Length);
                }
            }
            b"te" if field.value != b"trailers" => return Err(Refusal::ConnectionField),
            b"expect" if is_request && !field.value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(Refusal::Expectation);
            }
            b"content_length" | b"transfer_encoding" => return Err(Refusal::FieldLookalike),
            name if is_connection_specific(name) => return Err(Refusal::ConnectionField),
            _ => {}
        }
    }
    head.content_length = content_length;
    match host {
        Some(index) if !head.set_host(index) => Err(Refusal::HostDiffers),
        _ => Ok(()),
    }
}

fn name_and_value(name: &[u8], value: &[u8]) -> Result<(), Refusal> {
    match name.first() {
        Some(b':') => return Err(Refusal::Pseudo),
        None => return Err(Refusal::FieldName),
        Some(_) if !are(name, NAME) => return Err(Refusal::FieldName),
        Some(_) => {}
    }
    let has_blank_end =
        matches!(value.first(), Some(b' ' | b'\t')) || matches!(value.last(), Some(b' ' | b'\t'));
    match has_blank_end || !are(value, VALUE) {
        true => Err(Refusal::FieldValue),
        false => Ok(()),
    }
}

pub(super) fn is_connection_specific(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection"
            | b"proxy-connection"
            | b"keep-alive"
            | b"transfer-encoding"
            | b"upgrade"
            | b"http2-settings"
    )
}

fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || value.len() > 19 {
        return Err(Refusal::Length);
    }
    // 19 digits are below 2^64.
    value.iter().try_fold(0, |length, byte| match byte {
        b'0'..=b'9' => Ok(length * 10 + u64::from(byte - b'0')),
        _ => Err(Refusal::Length),
    })
}
