//! The parts of the chunked coding that have a grammar: size lines and trailer sections.

use super::field::FieldId;
use super::head::{Head, parse_trailers};
use super::refusal::Refusal;

/// A size line.
pub(super) struct SizeLine {
    pub(super) value: u64,
    /// In its shortest form and without extensions.
    pub(super) is_canonical: bool,
    pub(super) extension_bytes: u32,
}

impl SizeLine {
    /// Parses a line without its CRLF.
    pub(super) fn parse(line: &[u8]) -> Result<SizeLine, Refusal> {
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        // 15 digits: sums of two sizes cannot overflow 64 bits.
        if digits == 0 || digits > 15 {
            return Err(Refusal::ChunkSize);
        }
        let value = line[..digits].iter().fold(0, |value, &byte| {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                _ => (byte | 0x20) - b'a' + 10,
            };
            value << 4 | u64::from(digit)
        });
        let extension = &line[digits..];
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let starts_well = match extension.iter().find(|byte| !is_blank(byte)) {
            Some(&first) => first == b';',
            None => extension.is_empty(),
        };
        let is_text = |byte: &u8| is_blank(byte) || (*byte > 0x20 && *byte != 0x7f);
        if !starts_well || !extension.iter().all(is_text) {
            return Err(Refusal::ChunkSize);
        }
        Ok(SizeLine {
            value,
            is_canonical: extension.is_empty() && (line[0] != b'0' || digits == 1),
            extension_bytes: extension.len() as u32,
        })
    }
}

/// Writes the shortest size line for `value`.
pub(super) fn push_size_line(out: &mut Vec<u8>, value: u64) {
    let digits = (64 - (value | 1).leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * place) & 15) as usize]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Refuses a trailer section that frames, routes or authorises: it comes after the decision on
/// these.
pub(super) fn judge_trailers(section: &[u8], head: &mut Head) -> Result<(), Refusal> {
    if !section.ends_with(b"\r\n\r\n") {
        return Err(Refusal::Trailer);
    }
    parse_trailers(head, section)?;
    let is_refused = |name: &[u8], id: FieldId| {
        const NAMES: [&[u8]; 8] = [
            b"authorization",
            b"proxy-authorization",
            b"cookie",
            b"set-cookie",
            b"content-encoding",
            b"content-type",
            b"content-range",
            b"cache-control",
        ];
        !matches!(id, FieldId::Other | FieldId::Date)
            || NAMES
                .iter()
                .any(|refused| name.eq_ignore_ascii_case(refused))
    };
    match head
        .fields()
        .iter()
        .any(|field| is_refused(field.name.bytes(section), field.id))
    {
        true => Err(Refusal::TrailerField),
        false => Ok(()),
    }
}
