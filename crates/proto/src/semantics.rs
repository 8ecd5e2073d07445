//! What HTTP's fields mean in every version (RFC 9110): one reading for all codecs, since two that
//! differ are a way to smuggle.

/// The elements of a comma-separated list, without white space around them, empty ones left out.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|item| !item.is_empty())
}

/// Host with an optional port, as RFC 3986 has them, without user information and without a comma:
/// that would be two hosts to somebody. Empty is allowed: a client without an authority sends that.
pub(crate) fn is_authority(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|&byte| byte == b']') else {
                return false;
            };
            let is_address = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            if end == 0 || !rest[..end].iter().all(is_address) {
                return false;
            }
            (&[][..], &rest[end + 1..])
        }
        _ => value.split_at(
            value
                .iter()
                .position(|&byte| byte == b':')
                .unwrap_or(value.len()),
        ),
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(byte);
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_port && host.iter().all(is_name)
}
