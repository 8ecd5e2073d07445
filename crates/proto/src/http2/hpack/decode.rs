//! Blocks to fields.

use crate::layout::{Reader, RestoreError, Writer};

use super::super::fields::Fields;
use super::table::{ENTRY_OVERHEAD, Table};
use super::{HpackError, fixed, huffman, integer};

/// The side that reads blocks.
#[derive(Debug, Clone)]
pub struct Decoder {
    table: Table,
    /// Largest table that the peer may ask for.
    size_limit: usize,
    /// The limit was lowered below the table's size: the next block must begin with an update.
    owes_update: bool,
}

/// How much of a block is kept.
#[derive(Debug, Clone, Copy)]
pub struct DecodeLimits {
    /// Beyond these the block is still read, since the table depends on it, but nothing is kept.
    pub list_bytes_max: usize,
    pub fields_max: usize,
    /// Beyond this the block is a bomb, and decoding ends with an error.
    pub work_bytes_max: usize,
}

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    Whole,
    /// More bytes than [`DecodeLimits::list_bytes_max`]: the fields are not all there.
    TooLarge,
    TooManyFields,
}

impl Decoder {
    /// A decoder whose table may have up to `size_max` bytes.
    pub fn new(size_max: usize) -> Decoder {
        Decoder {
            table: Table::new(size_max),
            size_limit: size_max,
            owes_update: false,
        }
    }

    /// Its table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The peer has acknowledged this table size.
    pub fn limit(&mut self, size_max: usize) {
        self.size_limit = size_max;
        self.owes_update |= size_max < self.table.size_max();
    }

    /// Decodes a whole block into `fields`, which is emptied first.
    pub fn decode(
        &mut self,
        mut block: &[u8],
        limits: &DecodeLimits,
        fields: &mut Fields,
    ) -> Result<Decoded, HpackError> {
        fields.clear();
        block = self.size_updates(block)?;
        let mut list_bytes = 0;
        let mut count = 0_usize;
        let mut decoded = Decoded::Whole;
        while !block.is_empty() {
            let kept = fields.mark();
            block = self.field(block, fields)?;
            let (name, value) = fields.last().expect("a field was just pushed");
            list_bytes += name.len() + value.len() + ENTRY_OVERHEAD;
            count += 1;
            if list_bytes > limits.work_bytes_max {
                return Err(HpackError::Bomb);
            }
            if list_bytes > limits.list_bytes_max {
                decoded = Decoded::TooLarge;
            } else if count > limits.fields_max && decoded == Decoded::Whole {
                decoded = Decoded::TooManyFields;
            }
            if decoded != Decoded::Whole {
                fields.truncate(kept);
            }
        }
        Ok(decoded)
    }

    /// Table size updates stand before the first field, two at most (RFC 7541 section 4.2).
    fn size_updates<'a>(&mut self, mut block: &'a [u8]) -> Result<&'a [u8], HpackError> {
        for _ in 0..2 {
            let Some(0x20..0x40) = block.first() else {
                break;
            };
            let (size, rest) = integer::decode(block, 5)?;
            if size > self.size_limit {
                return Err(HpackError::SizeUpdate);
            }
            self.table.resize(size);
            self.owes_update = false;
            block = rest;
        }
        match self.owes_update {
            true => Err(HpackError::SizeUpdate),
            false => Ok(block),
        }
    }

    /// Decodes one field to the end of `fields`.
    fn field<'a>(&mut self, block: &'a [u8], fields: &mut Fields) -> Result<&'a [u8], HpackError> {
        let first = *block.first().ok_or(HpackError::Truncated)?;
        let (prefix, is_indexed, is_never) = match first {
            0x80.. => {
                let (index, rest) = integer::decode(block, 7)?;
                let (name, value) = self.lookup(index)?;
                fields.push(name, value, false);
                return Ok(rest);
            }
            0x40.. => (6, true, false),
            0x20.. => return Err(HpackError::SizeUpdate),
            0x10.. => (4, false, true),
            _ => (4, false, false),
        };
        let (index, mut rest) = integer::decode(block, prefix)?;
        let start = fields.begin();
        if index == 0 {
            rest = string(rest, fields.text())?;
        } else {
            let (name, _) = self.lookup(index)?;
            fields.text().extend_from_slice(name);
        }
        let name_end = fields.text().len();
        rest = string(rest, fields.text())?;
        fields.end(start, name_end, is_never);
        if is_indexed {
            let (name, value) = fields.last().expect("a field was just pushed");
            self.table.insert(name, value);
        }
        Ok(rest)
    }

    fn lookup(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        match index {
            0 => Err(HpackError::Index),
            1..=fixed::COUNT => {
                let (name, value) = fixed::TABLE[index - 1];
                Ok((name.as_bytes(), value.as_bytes()))
            }
            _ => self
                .table
                .entry(index - fixed::COUNT - 1)
                .ok_or(HpackError::Index),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u32(self.size_limit as u32);
        writer.u8(self.owes_update.into());
        self.table.write(writer);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Decoder, RestoreError> {
        Ok(Decoder {
            size_limit: reader.u32()? as usize,
            owes_update: reader.bool()?,
            table: Table::read(reader)?,
        })
    }
}

/// Appends a string (RFC 7541 section 5.2) to `text`. Returns the rest.
fn string<'a>(input: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], HpackError> {
    let is_coded = input.first().is_some_and(|first| first & 0x80 != 0);
    let (len, rest) = integer::decode(input, 7)?;
    let (string, rest) = rest.split_at_checked(len).ok_or(HpackError::Truncated)?;
    match is_coded {
        true => huffman::decode(string, text)?,
        false => text.extend_from_slice(string),
    }
    Ok(rest)
}
