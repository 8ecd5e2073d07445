//! The dynamic table (RFC 7541 section 2.3.2), newest entry first.
//!
//! Text lies in one buffer, oldest first; evicted text at its start is dropped when it is as long
//! as the table may be, so that a warm table never allocates and never moves a byte more than once
//! on average.

use std::collections::VecDeque;

use crate::layout::{Reader, RestoreError, Writer};

/// What an entry costs besides its text, by RFC 7541 section 4.1.
pub(crate) const ENTRY_OVERHEAD: usize = 32;
/// Largest table of any side: what limits and snapshots may ask for.
pub(crate) const TABLE_BYTES_CAP: usize = 65_536;

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Place of the name; the value follows it.
    at: u32,
    name_len: u32,
    value_len: u32,
    name_hash: u32,
    field_hash: u32,
}

/// A dynamic table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    text: Vec<u8>,
    /// Newest at the front.
    entries: VecDeque<Entry>,
    size: usize,
    size_max: usize,
}

/// Where a field is in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Field(usize),
    Name(usize),
    Nothing,
}

impl Table {
    /// An empty table of at most `size_max` bytes, counted as RFC 7541 section 4.1 does.
    pub(super) fn new(size_max: usize) -> Table {
        Table {
            size_max: size_max.min(TABLE_BYTES_CAP),
            ..Table::default()
        }
    }

    /// Entries in the table.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Its size as RFC 7541 counts it.
    pub fn size(&self) -> usize {
        self.size
    }

    pub(super) fn size_max(&self) -> usize {
        self.size_max
    }

    /// Name and value of an entry, 0 being the newest.
    pub fn entry(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let entry = self.entries.get(index)?;
        let name = entry.at as usize;
        let value = name + entry.name_len as usize;
        let end = value + entry.value_len as usize;
        Some((&self.text[name..value], &self.text[value..end]))
    }

    /// Adds an entry and evicts what it displaces; one larger than the table empties it.
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        self.shrink(self.size_max.saturating_sub(size));
        if size > self.size_max {
            return;
        }
        let dead = self.dead_bytes();
        if dead >= self.size_max {
            self.text.drain(..dead);
            for entry in &mut self.entries {
                entry.at -= dead as u32;
            }
        }
        let name_hash = hash(name);
        self.entries.push_front(Entry {
            at: self.text.len() as u32,
            name_len: name.len() as u32,
            value_len: value.len() as u32,
            name_hash,
            field_hash: both(name_hash, hash(value)),
        });
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.size += size;
    }

    /// Changes the bound and evicts what is beyond it.
    pub(super) fn resize(&mut self, size_max: usize) {
        self.size_max = size_max.min(TABLE_BYTES_CAP);
        self.shrink(self.size_max);
    }

    /// Looks for a field, the newest first.
    pub(super) fn find(&self, name: &[u8], value: &[u8]) -> Found {
        let name_hash = hash(name);
        let field_hash = both(name_hash, hash(value));
        let mut same_name = None;
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.name_hash != name_hash {
                continue;
            }
            if entry.field_hash == field_hash && self.entry(index) == Some((name, value)) {
                return Found::Field(index);
            }
            if same_name.is_none() && self.entry(index).is_some_and(|(known, _)| known == name) {
                same_name = Some(index);
            }
        }
        same_name.map_or(Found::Nothing, Found::Name)
    }

    /// Evicts the oldest until at most `size` is left.
    fn shrink(&mut self, size: usize) {
        while self.size > size {
            let Some(entry) = self.entries.pop_back() else {
                break;
            };
            self.size -= entry.name_len as usize + entry.value_len as usize + ENTRY_OVERHEAD;
        }
        if self.entries.is_empty() {
            self.text.clear();
        }
    }

    fn dead_bytes(&self) -> usize {
        self.entries
            .back()
            .map_or(self.text.len(), |oldest| oldest.at as usize)
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u32(self.size_max as u32);
        writer.u32(self.entries.len() as u32);
        for index in (0..self.entries.len()).rev() {
            let (name, value) = self.entry(index).expect("the index is below the length");
            writer.bytes(name);
            writer.bytes(value);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Table, RestoreError> {
        let size_max = reader.u32()? as usize;
        if size_max > TABLE_BYTES_CAP {
            return Err(reader.impossible());
        }
        let mut table = Table::new(size_max);
        let count = reader.u32()? as usize;
        for _ in 0..count {
            let name = reader.bytes()?;
            let value = reader.bytes()?;
            table.insert(name, value);
        }
        match table.len() == count {
            true => Ok(table),
            // More than the table holds.
            false => Err(reader.impossible()),
        }
    }
}

/// Of length, first and last bytes: names and values that differ in their middle only are told
/// apart by comparing them.
fn hash(text: &[u8]) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0_u64, |word, &byte| word << 8 | u64::from(byte))
    };
    let (first, last) = match text.len() {
        0..8 => (word(text), 0),
        len => (
            u64::from_be_bytes(*text.first_chunk().expect("it has eight bytes")),
            u64::from_be_bytes(text[len - 8..].try_into().expect("it has eight bytes")),
        ),
    };
    let mixed = (first ^ (text.len() as u64) << 56).wrapping_mul(ODD)
        ^ last.rotate_left(29).wrapping_mul(ODD);
    (mixed.wrapping_mul(ODD) >> 32) as u32
}

fn both(name: u32, value: u32) -> u32 {
    name.rotate_left(5) ^ value
}
