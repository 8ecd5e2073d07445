//! What clients and stream server say to each other: numbered frames whose every byte both ends can
//! foretell.
//!
//! A frame is a header of 40 bytes and a payload. The header names connection, direction and
//! number, and when the frame was made; the payload of a message is a piece of an endless pattern
//! that depends on connection, direction and position. So a byte that is lost, doubled, changed, or
//! of another connection is noticed where it is read. Each direction ends with a frame that says
//! so; an end without it is no end.
//!
//! | bytes | field (little endian) |
//! | --- | --- |
//! | 0 to 3 | `HLf1` |
//! | 4, 5 | kind; direction: 1 from the client, 2 from the server |
//! | 6 to 7 | 0 |
//! | 8 to 15, 16 to 23 | connection; number of the frame in its direction |
//! | 24 to 31 | when it was made, microseconds of the machine's monotonic clock |
//! | 32 to 35, 36 to 39 | bytes of payload; FNV-1a of the 36 bytes before |

use std::io::{self, Write};
use std::time::Duration;

use rustix::time::ClockId;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 40;
/// Largest payload: more is no frame of ours.
pub const PAYLOAD_BYTES_MAX: u32 = 1 << 20;
/// A writer that has more than this to send makes no new frames.
pub const BACKLOG_BYTES_MAX: usize = 256 << 10;

const MAGIC: [u8; 4] = *b"HLf1";

/// The machine's monotonic clock in microseconds: the same in all of its processes and namespaces.
pub fn now_us() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    Duration::try_from(now).map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    FromClient = 1,
    FromServer = 2,
}

/// What a client wants of the server on one connection; its first frame says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Payload of each message from the server. 0: it sends nothing by itself.
    pub message_bytes: u32,
    /// Time between messages from the server. 0: as fast as they are taken.
    pub interval_us: u32,
    /// The server ends its direction by itself after this. 0: only when asked to.
    pub lasts_us: u64,
    /// The client's direction ends at once, the server's goes on.
    pub is_half_closed: bool,
}

/// What arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Wish(Wish),
    /// A whole message, every byte right.
    Message {
        made_us: u64,
    },
    /// The other side sends nothing more.
    End,
    Probe,
    ProbeAnswer,
    /// The other side found this in what we sent.
    Complaint(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Wish = 1,
    Message = 2,
    End = 3,
    Probe = 4,
    ProbeAnswer = 5,
    Complaint = 6,
}

impl Kind {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Wish,
            2 => Self::Message,
            3 => Self::End,
            4 => Self::Probe,
            5 => Self::ProbeAnswer,
            6 => Self::Complaint,
            _ => return None,
        })
    }
}

/// Eight bytes of the endless pattern (SplitMix64 of seed and position).
const fn pattern_word(seed: u64, word: u64) -> u64 {
    let mut z = seed.wrapping_add(word.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const fn seed(connection: u64, direction: Direction) -> u64 {
    connection ^ (direction as u64) << 62
}

/// Appends `length` bytes of the pattern of `seed`, from position `offset` on.
pub fn append_pattern(to: &mut Vec<u8>, seed: u64, mut offset: u64, length: usize) {
    let end = offset + length as u64;
    while offset < end {
        let word = pattern_word(seed, offset / 8).to_le_bytes();
        let from = (offset % 8) as usize;
        let count = (8 - from).min((end - offset) as usize);
        to.extend_from_slice(&word[from..from + count]);
        offset += count as u64;
    }
}

/// The position of the first byte that differs from the pattern of `seed` from `offset` on. None if
/// all are right.
pub fn first_difference(bytes: &[u8], seed: u64, mut offset: u64) -> Option<u64> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let word = pattern_word(seed, offset / 8).to_le_bytes();
        let from = (offset % 8) as usize;
        let count = (8 - from).min(rest.len());
        if rest[..count] != word[from..from + count] {
            let at = (0..count).find(|at| rest[*at] != word[from + at]);
            return Some(offset + at.unwrap_or(0) as u64);
        }
        offset += count as u64;
        rest = &rest[count..];
    }
    None
}

fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// One direction of a connection, being written.
#[derive(Debug)]
pub struct Writer {
    connection: u64,
    direction: Direction,
    number: u64,
    offset: u64,
    buffer: Vec<u8>,
    sent: usize,
    has_ended: bool,
}

impl Writer {
    pub fn new(connection: u64, direction: Direction) -> Self {
        Self {
            connection,
            direction,
            number: 0,
            offset: 0,
            buffer: Vec::new(),
            sent: 0,
            has_ended: false,
        }
    }

    pub fn wish(&mut self, wish: &Wish) {
        let mut payload = Vec::with_capacity(17);
        payload.extend_from_slice(&wish.message_bytes.to_le_bytes());
        payload.extend_from_slice(&wish.interval_us.to_le_bytes());
        payload.extend_from_slice(&wish.lasts_us.to_le_bytes());
        payload.push(u8::from(wish.is_half_closed));
        self.header(Kind::Wish, payload.len());
        self.buffer.extend_from_slice(&payload);
    }

    pub fn message(&mut self, bytes: u32) {
        let length = bytes.min(PAYLOAD_BYTES_MAX) as usize;
        self.header(Kind::Message, length);
        let seed = seed(self.connection, self.direction);
        append_pattern(&mut self.buffer, seed, self.offset, length);
        self.offset += length as u64;
    }

    pub fn probe(&mut self) {
        self.header(Kind::Probe, 0);
    }

    pub fn probe_answer(&mut self) {
        self.header(Kind::ProbeAnswer, 0);
    }

    pub fn complaint(&mut self, text: &str) {
        self.header(Kind::Complaint, text.len());
        self.buffer.extend_from_slice(text.as_bytes());
        self.has_ended = true;
    }

    /// Ends the direction. Only once.
    pub fn end(&mut self) {
        if !self.has_ended {
            self.header(Kind::End, 0);
            self.has_ended = true;
        }
    }

    pub const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Bytes that wait to be sent.
    pub fn backlog(&self) -> usize {
        self.buffer.len() - self.sent
    }

    /// Sends what it can. True if nothing is left.
    pub fn flush(&mut self, mut to: impl Write) -> io::Result<bool> {
        while self.sent < self.buffer.len() {
            match to.write(&self.buffer[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.buffer.clear();
        self.sent = 0;
        Ok(true)
    }

    fn header(&mut self, kind: Kind, length: usize) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&MAGIC);
        self.buffer
            .extend_from_slice(&[kind as u8, self.direction as u8, 0, 0]);
        for field in [self.connection, self.number, now_us()] {
            self.buffer.extend_from_slice(&field.to_le_bytes());
        }
        self.buffer
            .extend_from_slice(&(length as u32).to_le_bytes());
        let sum = checksum(&self.buffer[start..]);
        self.buffer.extend_from_slice(&sum.to_le_bytes());
        self.number += 1;
    }
}

/// One direction of a connection, being read and checked.
#[derive(Debug)]
pub struct Reader {
    /// None until the first frame says it.
    connection: Option<u64>,
    direction: Direction,
    number: u64,
    offset: u64,
    header: Vec<u8>,
    payload: Option<Payload>,
    has_ended: bool,
}

#[derive(Debug)]
struct Payload {
    kind: Kind,
    made_us: u64,
    left: usize,
    /// Kept only of frames that are no messages.
    bytes: Vec<u8>,
}

impl Reader {
    pub fn new(connection: Option<u64>, direction: Direction) -> Self {
        Self {
            connection,
            direction,
            number: 0,
            offset: 0,
            header: Vec::with_capacity(HEADER_BYTES),
            payload: None,
            has_ended: false,
        }
    }

    /// The connection's number, once a frame has said it.
    pub const fn connection(&self) -> Option<u64> {
        self.connection
    }

    /// Whether a frame has begun and not ended.
    pub fn is_mid_message(&self) -> bool {
        !self.header.is_empty() || self.payload.is_some()
    }

    /// Whether the other side has said that it sends nothing more.
    pub const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Takes bytes as they arrive. The error says what is wrong with them; after it the reader is
    /// of no use.
    pub fn feed(&mut self, mut bytes: &[u8], mut on: impl FnMut(Event)) -> Result<(), String> {
        while !bytes.is_empty() {
            if self.has_ended {
                return Err(format!("{} bytes behind the end", bytes.len()));
            }
            if let Some(payload) = &mut self.payload {
                let count = payload.left.min(bytes.len());
                let (now, later) = bytes.split_at(count);
                if payload.kind == Kind::Message {
                    let seed = seed(self.connection.unwrap_or_default(), self.direction);
                    if let Some(at) = first_difference(now, seed, self.offset) {
                        return Err(format!("the byte at {at} is wrong"));
                    }
                    self.offset += count as u64;
                } else {
                    payload.bytes.extend_from_slice(now);
                }
                payload.left -= count;
                bytes = later;
            } else {
                let count = (HEADER_BYTES - self.header.len()).min(bytes.len());
                self.header.extend_from_slice(&bytes[..count]);
                bytes = &bytes[count..];
                if self.header.len() < HEADER_BYTES {
                    continue;
                }
                self.payload = Some(self.check_header()?);
                self.header.clear();
            }
            if self
                .payload
                .as_ref()
                .is_some_and(|payload| payload.left == 0)
                && let Some(payload) = self.payload.take()
            {
                on(self.finish(payload)?);
            }
        }
        Ok(())
    }

    fn check_header(&mut self) -> Result<Payload, String> {
        let header = self.header.as_slice();
        let word = |at: usize| {
            u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes of forty"))
        };
        let half = |at: usize| {
            u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes of forty"))
        };
        if header[..4] != MAGIC || half(36) != checksum(&header[..36]) {
            return Err(format!(
                "no header where frame {} should begin",
                self.number
            ));
        }
        let kind = Kind::from_byte(header[4]).ok_or_else(|| format!("kind {}", header[4]))?;
        if header[5] != self.direction as u8 {
            return Err(format!("direction {}", header[5]));
        }
        let connection = *self.connection.get_or_insert(word(8));
        if word(8) != connection {
            return Err(format!(
                "a frame of connection {:x} in {connection:x}",
                word(8)
            ));
        }
        if word(16) != self.number {
            return Err(format!("frame {} instead of {}", word(16), self.number));
        }
        if half(32) > PAYLOAD_BYTES_MAX {
            return Err(format!("a frame of {} bytes", half(32)));
        }
        self.number += 1;
        Ok(Payload {
            kind,
            made_us: word(24),
            left: half(32) as usize,
            bytes: Vec::new(),
        })
    }

    fn finish(&mut self, payload: Payload) -> Result<Event, String> {
        Ok(match payload.kind {
            Kind::Message => Event::Message {
                made_us: payload.made_us,
            },
            Kind::End => {
                self.has_ended = true;
                Event::End
            }
            Kind::Probe => Event::Probe,
            Kind::ProbeAnswer => Event::ProbeAnswer,
            Kind::Complaint => {
                self.has_ended = true;
                Event::Complaint(String::from_utf8_lossy(&payload.bytes).into_owned())
            }
            Kind::Wish => {
                let bytes: [u8; 17] = payload
                    .bytes
                    .try_into()
                    .map_err(|_| "a wish of a wrong size".to_owned())?;
                let half = |at: usize| {
                    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four of seventeen"))
                };
                Event::Wish(Wish {
                    message_bytes: half(0),
                    interval_us: half(4),
                    lasts_us: u64::from(half(8)) | u64::from(half(12)) << 32,
                    is_half_closed: bytes[16] != 0,
                })
            }
        })
    }
}
