//! Fields to blocks.

use crate::layout::{Reader, RestoreError, Writer};

use super::super::fields::Fields;
use super::table::{ENTRY_OVERHEAD, Found, Table};
use super::{fixed, huffman, integer};

/// The side that writes blocks.
#[derive(Debug, Clone)]
pub struct Encoder {
    table: Table,
    /// Our own bound.
    size_cap: usize,
    /// The smallest size that the table had to take since the last block. None: the peer knows.
    lowest: Option<usize>,
}

/// What the tables may keep of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Indexing {
    /// It is likely to come again.
    Add,
    /// It is not.
    Pass,
    /// Nobody on the way may keep it.
    Never,
}

impl Encoder {
    /// An encoder whose table has up to `size_cap` bytes. Until the peer says otherwise it keeps a
    /// table of 4,096, so ours is at most that.
    pub fn new(size_cap: usize) -> Encoder {
        let size = size_cap.min(super::super::settings::TABLE_BYTES_INITIAL);
        Encoder {
            table: Table::new(size),
            size_cap,
            lowest: (size < super::super::settings::TABLE_BYTES_INITIAL).then_some(size),
        }
    }

    /// Its table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The peer keeps a table of this size.
    pub fn limit(&mut self, size: usize) {
        let size = size.min(self.size_cap);
        if size == self.table.size_max() && self.lowest.is_none() {
            return;
        }
        self.table.resize(size);
        let size = self.table.size_max();
        self.lowest = Some(self.lowest.map_or(size, |lowest| lowest.min(size)));
    }

    /// Appends a whole block.
    pub fn block(&mut self, fields: &Fields, out: &mut Vec<u8>) {
        self.begin(out);
        for field in fields.iter() {
            self.field(field.name, field.value, field.is_sensitive, out);
        }
    }

    /// Begins a block: tells changes of the table's size.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        let Some(lowest) = self.lowest.take() else {
            return;
        };
        let size = self.table.size_max();
        if lowest < size {
            integer::encode(lowest, 5, 0x20, out);
        }
        integer::encode(size, 5, 0x20, out);
    }

    /// Appends a field. `is_sensitive`: it was sent to us as never to be indexed.
    pub(crate) fn field(
        &mut self,
        name: &[u8],
        value: &[u8],
        is_sensitive: bool,
        out: &mut Vec<u8>,
    ) {
        let fixed_name = fixed::index_of_name(name);
        let fixed_field = fixed::index_of_field(fixed_name, name, value);
        if fixed_field > 0 && !is_sensitive {
            integer::encode(fixed_field, 7, 0x80, out);
            return;
        }
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        let indexing = match is_sensitive {
            true => Indexing::Never,
            // One field that displaces most others is not worth it.
            false if size > self.table.size_max() / 2 => indexing(name).min_add(),
            false => indexing(name),
        };
        let mut index = fixed_name;
        if indexing == Indexing::Add || fixed_name == 0 {
            match self.table.find(name, value) {
                Found::Field(at) if indexing != Indexing::Never => {
                    integer::encode(at + fixed::COUNT + 1, 7, 0x80, out);
                    return;
                }
                Found::Field(at) | Found::Name(at) if fixed_name == 0 => {
                    index = at + fixed::COUNT + 1;
                }
                Found::Field(_) | Found::Name(_) | Found::Nothing => {}
            }
        }
        match indexing {
            Indexing::Add => integer::encode(index, 6, 0x40, out),
            Indexing::Pass => integer::encode(index, 4, 0x00, out),
            Indexing::Never => integer::encode(index, 4, 0x10, out),
        }
        if index == 0 {
            string(name, out);
        }
        string(value, out);
        if indexing == Indexing::Add {
            self.table.insert(name, value);
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u32(self.size_cap as u32);
        writer.u32(self.lowest.map_or(u32::MAX, |lowest| lowest as u32));
        self.table.write(writer);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Encoder, RestoreError> {
        let size_cap = reader.u32()? as usize;
        let lowest = match reader.u32()? {
            u32::MAX => None,
            lowest => Some(lowest as usize),
        };
        let table = Table::read(reader)?;
        if table.size_max() > size_cap || lowest.is_some_and(|lowest| lowest > table.size_max()) {
            return Err(reader.impossible());
        }
        Ok(Encoder {
            table,
            size_cap,
            lowest,
        })
    }
}

impl Indexing {
    /// The same, but nothing is added.
    fn min_add(self) -> Indexing {
        match self {
            Indexing::Add => Indexing::Pass,
            other => other,
        }
    }
}

/// What is usual for a name. Secrets stay out of tables: a connection to a member carries many
/// clients' requests, and a client that can guess must not learn from the length of a block.
fn indexing(name: &[u8]) -> Indexing {
    match name {
        b"authorization" | b"proxy-authorization" | b"cookie" | b"set-cookie" => Indexing::Never,
        b":path" | b"age" | b"content-length" | b"content-range" | b"etag" | b"expires"
        | b"if-modified-since" | b"if-none-match" | b"last-modified" | b"location"
        | b"x-forwarded-for" | b"x-request-id" | b"traceparent" => Indexing::Pass,
        _ => Indexing::Add,
    }
}

/// Appends a string in its shorter form.
fn string(text: &[u8], out: &mut Vec<u8>) {
    let coded = huffman::encoded_len(text);
    if coded < text.len() {
        integer::encode(coded, 7, 0x80, out);
        huffman::encode(text, out);
    } else {
        integer::encode(text.len(), 7, 0, out);
        out.extend_from_slice(text);
    }
}
