//! The Huffman code of RFC 7541 Appendix B.
//!
//! The code is canonical: within a length, codes rise with the symbol, and lengths follow each
//! other. So the lengths are all there is to write down; codes and decoding tables are computed
//! from them when the program is compiled.

use super::HpackError;

/// Symbols: all bytes and the end of string.
const SYMBOLS: usize = 257;
const END_OF_STRING: usize = 256;
/// Longest code in bits.
const BITS_MAX: usize = 30;

/// Bits of each symbol's code.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// Each symbol's code, right-aligned.
static CODES: [u32; SYMBOLS] = codes();

/// Symbols in the order of their codes.
static ORDER: [u16; SYMBOLS] = order();

/// Of each code length: the first code behind it, left-aligned in 32 bits, and what a code of this
/// length must be lowered by to be a place in [`ORDER`].
static RANKS: [(u64, i64); BITS_MAX + 1] = ranks();

/// What the first eight bits of a code say: symbol and length, length 0 if the code is longer.
static SHORT: [(u8, u8); 256] = short();

const fn order() -> [u16; SYMBOLS] {
    let mut order = [0; SYMBOLS];
    let mut count = 0;
    let mut bits = 1;
    while bits <= BITS_MAX {
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == bits {
                order[count] = symbol as u16;
                count += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    order
}

const fn codes() -> [u32; SYMBOLS] {
    let order = order();
    let mut codes = [0; SYMBOLS];
    let mut code: u64 = 0;
    let mut bits = LENGTHS[order[0] as usize];
    let mut place = 0;
    while place < SYMBOLS {
        let symbol = order[place] as usize;
        code <<= LENGTHS[symbol] - bits;
        bits = LENGTHS[symbol];
        codes[symbol] = code as u32;
        code += 1;
        place += 1;
    }
    codes
}

const fn ranks() -> [(u64, i64); BITS_MAX + 1] {
    let order = order();
    let codes = codes();
    let mut ranks = [(0, 0); BITS_MAX + 1];
    let mut place = 0;
    while place < SYMBOLS {
        let symbol = order[place] as usize;
        let bits = LENGTHS[symbol] as usize;
        let code = codes[symbol] as u64;
        ranks[bits] = ((code + 1) << (32 - bits), place as i64 - code as i64);
        place += 1;
    }
    ranks
}

const fn short() -> [(u8, u8); 256] {
    let codes = codes();
    let mut short = [(0, 0); 256];
    let mut symbol = 0;
    while symbol < END_OF_STRING {
        let bits = LENGTHS[symbol] as u32;
        if bits <= 8 {
            let first = codes[symbol] << (8 - bits);
            let mut offset = 0;
            while offset < 1 << (8 - bits) {
                short[(first + offset) as usize] = (symbol as u8, bits as u8);
                offset += 1;
            }
        }
        symbol += 1;
    }
    short
}

/// Bytes of `text` when encoded.
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text
        .iter()
        .map(|&byte| usize::from(LENGTHS[usize::from(byte)]))
        .sum();
    bits.div_ceil(8)
}

/// Appends the code of `text`, filled up with ones.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let mut pending: u64 = 0;
    let mut count = 0;
    for &byte in text {
        let bits = u32::from(LENGTHS[usize::from(byte)]);
        pending = pending << bits | u64::from(CODES[usize::from(byte)]);
        count += bits;
        if count >= 32 {
            count -= 32;
            out.extend_from_slice(&((pending >> count) as u32).to_be_bytes());
        }
    }
    while count >= 8 {
        count -= 8;
        out.push((pending >> count) as u8);
    }
    if count > 0 {
        let filler = 0xff_u64 >> count;
        out.push((pending << (8 - count) | filler) as u8);
    }
}

/// Appends the text of a code. Refused: the end of string inside, and a filling that is longer than
/// seven bits or not all ones.
pub(super) fn decode(code: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    // No code is shorter than five bits.
    out.reserve(code.len() * 8 / 5 + 1);
    let mut input = code.iter();
    // Unread bits, left-aligned.
    let mut pending: u64 = 0;
    let mut count: u32 = 0;
    loop {
        while count <= 56 {
            let Some(&byte) = input.next() else { break };
            pending |= u64::from(byte) << (56 - count);
            count += 8;
        }
        let (symbol, bits) = SHORT[(pending >> 56) as usize];
        if bits > 0 && u32::from(bits) <= count {
            out.push(symbol);
            pending <<= bits;
            count -= u32::from(bits);
            continue;
        }
        // All input is in `pending` unless at least 57 bits are, which is more than any code has.
        if count < 8 && is_filling(pending, count) {
            return Ok(());
        }
        let window = pending >> 32;
        let bits = (5..=BITS_MAX).find(|&bits| window < RANKS[bits].0);
        let Some(bits) = bits.filter(|&bits| bits as u32 <= count) else {
            return Err(HpackError::Huffman);
        };
        let code = (window >> (32 - bits)) as i64;
        let symbol = usize::from(ORDER[(code + RANKS[bits].1) as usize]);
        if symbol == END_OF_STRING {
            return Err(HpackError::Huffman);
        }
        out.push(symbol as u8);
        pending <<= bits;
        count -= bits as u32;
    }
}

/// Whether the `count` (below 8) first bits are ones.
fn is_filling(pending: u64, count: u32) -> bool {
    count == 0 || pending >> (64 - count) == (1 << count) - 1
}
