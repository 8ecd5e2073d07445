//! Frames: a JSON part that any tool reads, and a binary tail for what comes by the thousand.
//!
//! ```text
//!  bytes 0..4  length of what follows, little-endian
//!        4..8  length of the JSON part
//!        8..   JSON part, then the tail
//! ```
//!
//! A row costs 10 bytes, so 65,536 rows are 640 KiB and are read in well below a millisecond.

use std::io::{self, Read, Write};

use hitless_core::row::{Bucket, Row, Sequence};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest frame: a site configuration of 4 MiB, whose JSON escapes at most double it.
pub const FRAME_BYTES_MAX: usize = 9 << 20;
const HEAD_BYTES: usize = 4;

/// What is sent over a link.
pub trait Message: Serialize + DeserializeOwned + Send + 'static {
    /// Moves what comes by the thousand out of the message into the tail.
    fn pack(&mut self, tail: &mut Vec<u8>) {
        let _ = tail;
    }

    /// Moves it back in.
    fn unpack(&mut self, tail: &mut Tail<'_>) -> io::Result<()> {
        let _ = tail;
        Ok(())
    }
}

/// The tail of a frame as it is read.
#[derive(Debug)]
pub struct Tail<'a>(&'a [u8]);

/// An item of a tail: of a fixed number of bytes.
pub trait Packed: Sized {
    /// How many.
    const BYTES: usize;
    /// Appends them.
    fn write(&self, tail: &mut Vec<u8>);
    /// Reads them; `bytes` has the right length. None: they are no such item.
    fn read(bytes: &[u8]) -> Option<Self>;
}

impl Packed for (Bucket, Row) {
    const BYTES: usize = 10;

    fn write(&self, tail: &mut Vec<u8>) {
        tail.extend_from_slice(&self.0.0.to_le_bytes());
        tail.extend_from_slice(&self.1.word().to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let row = u64::from_le_bytes(bytes.get(2..10)?.try_into().ok()?);
        Some((bucket(bytes)?, Row::from_word(row)?))
    }
}

impl Packed for (Bucket, Sequence) {
    const BYTES: usize = 4;

    fn write(&self, tail: &mut Vec<u8>) {
        tail.extend_from_slice(&self.0.0.to_le_bytes());
        tail.extend_from_slice(&self.1.0.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let sequence = u16::from_le_bytes(bytes.get(2..4)?.try_into().ok()?);
        Some((bucket(bytes)?, Sequence(sequence)))
    }
}

impl Packed for (Bucket, Sequence, u32) {
    const BYTES: usize = 8;

    fn write(&self, tail: &mut Vec<u8>) {
        (self.0, self.1).write(tail);
        tail.extend_from_slice(&self.2.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (bucket, sequence) = <(Bucket, Sequence)>::read(bytes)?;
        Some((
            bucket,
            sequence,
            u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?),
        ))
    }
}

impl Packed for (Bucket, u32) {
    const BYTES: usize = 6;

    fn write(&self, tail: &mut Vec<u8>) {
        tail.extend_from_slice(&self.0.0.to_le_bytes());
        tail.extend_from_slice(&self.1.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Some((
            bucket(bytes)?,
            u32::from_le_bytes(bytes.get(2..6)?.try_into().ok()?),
        ))
    }
}

fn bucket(bytes: &[u8]) -> Option<Bucket> {
    Some(Bucket(u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?)))
}

/// Moves `items` to the end of the tail, with their number before them.
pub fn pack<T: Packed>(items: &mut Vec<T>, tail: &mut Vec<u8>) {
    let items = std::mem::take(items);
    let count = u32::try_from(items.len()).expect("a message's items are below 65,536 by four");
    tail.reserve(4 + items.len() * T::BYTES);
    tail.extend_from_slice(&count.to_le_bytes());
    items.iter().for_each(|item| item.write(tail));
}

impl Tail<'_> {
    /// Reads what [`pack`] wrote.
    pub fn unpack<T: Packed>(&mut self, items: &mut Vec<T>) -> io::Result<()> {
        let (count, rest) = self
            .0
            .split_first_chunk::<4>()
            .ok_or_else(|| bad("the tail is cut"))?;
        let bytes = (u32::from_le_bytes(*count) as usize).checked_mul(T::BYTES);
        let split = bytes.and_then(|bytes| rest.split_at_checked(bytes));
        let (own, rest) = split.ok_or_else(|| bad("the tail is cut"))?;
        self.0 = rest;
        *items = own
            .chunks_exact(T::BYTES)
            .map(T::read)
            .collect::<Option<_>>()
            .ok_or_else(|| bad("the tail holds what is no row"))?;
        Ok(())
    }
}

/// Writes one message.
pub fn write<M: Message>(writer: &mut impl Write, mut message: M) -> io::Result<()> {
    let mut tail = Vec::new();
    message.pack(&mut tail);
    write_frame(writer, &serde_json::to_vec(&message)?, &tail)
}

/// Reads one message; none at the end of the stream.
pub fn read<M: Message>(reader: &mut impl Read) -> io::Result<Option<M>> {
    let Some((frame, json_bytes)) = read_frame(reader)? else {
        return Ok(None);
    };
    let (json, tail) = frame.split_at(json_bytes);
    let mut message: M = serde_json::from_slice(json)?;
    let mut tail = Tail(tail);
    message.unpack(&mut tail)?;
    if tail.0.is_empty() {
        Ok(Some(message))
    } else {
        Err(bad("the tail is too long"))
    }
}

pub(super) fn write_json<T: Serialize>(writer: &mut impl Write, value: &T) -> io::Result<()> {
    write_frame(writer, &serde_json::to_vec(value)?, &[])?;
    writer.flush()
}

pub(super) fn read_json<T: DeserializeOwned>(reader: &mut impl Read) -> io::Result<T> {
    match read_frame(reader)? {
        Some((frame, json_bytes)) => Ok(serde_json::from_slice(&frame[..json_bytes])?),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn write_frame(writer: &mut impl Write, json: &[u8], tail: &[u8]) -> io::Result<()> {
    let length = HEAD_BYTES + json.len() + tail.len();
    if length > FRAME_BYTES_MAX {
        return Err(bad("a message is longer than a frame may be"));
    }
    writer.write_all(&(length as u32).to_le_bytes())?;
    writer.write_all(&(json.len() as u32).to_le_bytes())?;
    writer.write_all(json)?;
    writer.write_all(tail)
}

/// The JSON part with the tail behind it, and where the tail begins.
fn read_frame(reader: &mut impl Read) -> io::Result<Option<(Vec<u8>, usize)>> {
    let mut length = [0; 4];
    match reader.read(&mut length)? {
        0 => return Ok(None),
        read => reader.read_exact(&mut length[read..])?,
    }
    let length = u32::from_le_bytes(length) as usize;
    let mut json_bytes = [0; HEAD_BYTES];
    reader.read_exact(&mut json_bytes)?;
    let json_bytes = u32::from_le_bytes(json_bytes) as usize;
    if !(HEAD_BYTES..=FRAME_BYTES_MAX).contains(&length) || json_bytes > length - HEAD_BYTES {
        return Err(bad("this is no frame of ours"));
    }
    let mut frame = vec![0; length - HEAD_BYTES];
    reader.read_exact(&mut frame)?;
    Ok(Some((frame, json_bytes)))
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
