//! Integers with a prefix (RFC 7541 section 5.1).

use super::HpackError;

/// Largest integer that is read: no length, index or table size of ours comes near.
const VALUE_MAX: u32 = 1 << 24;

/// Reads an integer whose first byte has `prefix` bits of it. Returns it and the rest.
pub(super) fn decode(input: &[u8], prefix: u32) -> Result<(usize, &[u8]), HpackError> {
    let (&first, mut rest) = input.split_first().ok_or(HpackError::Truncated)?;
    let mask = (1_u32 << prefix) - 1;
    let mut value = u32::from(first) & mask;
    if value < mask {
        return Ok((value as usize, rest));
    }
    let mut shift = 0;
    loop {
        let (&byte, behind) = rest.split_first().ok_or(HpackError::Truncated)?;
        rest = behind;
        // Four bytes of seven bits: zeros beyond them are padding, which nobody needs.
        if shift > 21 {
            return Err(HpackError::Integer);
        }
        value += u32::from(byte & 0x7f) << shift;
        if value > VALUE_MAX {
            return Err(HpackError::Integer);
        }
        if byte & 0x80 == 0 {
            return Ok((value as usize, rest));
        }
        shift += 7;
    }
}

/// Appends an integer whose first byte has `prefix` bits of it, and `first` in its other bits.
pub(super) fn encode(value: usize, prefix: u32, first: u8, out: &mut Vec<u8>) {
    let mask = (1_usize << prefix) - 1;
    if value < mask {
        out.push(first | value as u8);
        return;
    }
    out.push(first | mask as u8);
    let mut left = value - mask;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}
