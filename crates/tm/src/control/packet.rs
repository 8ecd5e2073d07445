//! Packets of the control socket. Both sides may be of different releases: the first 8 bytes never
//! change.
//!
//! | bytes | request | reply |
//! | --- | --- | --- |
//! | 0 to 3 | `htlc` | `htlc` |
//! | 4 to 5 | version, 1, little-endian | version |
//! | 6 | opcode | outcome |
//! | 7 | 0 | 1: more packets follow |
//! | 8.. | nothing | a part of the body |

use super::{Outcome, Request};

/// A packet of a reply carries at most this many bytes, header included.
pub const PACKET_BYTES_MAX: usize = 32 * 1024;

const MAGIC: [u8; 4] = *b"htlc";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 8;

/// One packet of a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part<'a> {
    pub outcome: Outcome,
    pub more: bool,
    pub body: &'a [u8],
}

/// Why a request cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadRequest {
    /// Not a request of ours, or cut.
    Malformed,
    /// A version or an opcode that this program does not know.
    Unknown,
}

pub fn encode_request(request: Request) -> [u8; HEADER_BYTES] {
    header(opcode(request), false)
}

pub(crate) fn opcode(request: Request) -> u8 {
    match request {
        Request::Reload => 1,
        Request::Upgrade => 2,
        Request::Status => 3,
        Request::Stop => 4,
        Request::Metrics => 5,
        Request::TellToClose => 6,
        Request::KeepOpen => 7,
        Request::AwaitEnd => 8,
    }
}

pub(crate) fn request_of(opcode: u8) -> Option<Request> {
    Some(match opcode {
        1 => Request::Reload,
        2 => Request::Upgrade,
        3 => Request::Status,
        4 => Request::Stop,
        5 => Request::Metrics,
        6 => Request::TellToClose,
        7 => Request::KeepOpen,
        8 => Request::AwaitEnd,
        _ => return None,
    })
}

pub fn decode_request(packet: &[u8]) -> Result<Request, BadRequest> {
    let Some((header, _)) = packet.split_first_chunk::<HEADER_BYTES>() else {
        return Err(BadRequest::Malformed);
    };
    if header[..4] != MAGIC {
        return Err(BadRequest::Malformed);
    }
    if u16::from_le_bytes([header[4], header[5]]) != VERSION {
        return Err(BadRequest::Unknown);
    }
    request_of(header[6]).ok_or(BadRequest::Unknown)
}

/// The packets of one reply, in order; at least one.
pub fn encode_reply(outcome: Outcome, body: &[u8]) -> Vec<Vec<u8>> {
    let code = match outcome {
        Outcome::Done => 0,
        Outcome::Refused => 1,
        Outcome::Failed => 2,
    };
    let room = PACKET_BYTES_MAX - HEADER_BYTES;
    let count = body.len().div_ceil(room).max(1);
    (0..count)
        .map(|index| {
            let part = &body[index * room..body.len().min((index + 1) * room)];
            let mut packet = header(code, index + 1 < count).to_vec();
            packet.extend_from_slice(part);
            packet
        })
        .collect()
}

/// `Err` has the version of a packet that this program cannot read (0 if it is no packet of ours).
pub fn decode_reply(packet: &[u8]) -> Result<Part<'_>, u16> {
    let (header, body) = packet.split_first_chunk::<HEADER_BYTES>().ok_or(0u16)?;
    if header[..4] != MAGIC {
        return Err(0);
    }
    let version = u16::from_le_bytes([header[4], header[5]]);
    if version != VERSION {
        return Err(version);
    }
    let outcome = match header[6] {
        0 => Outcome::Done,
        1 => Outcome::Refused,
        _ => Outcome::Failed,
    };
    Ok(Part {
        outcome,
        more: header[7] & 1 != 0,
        body,
    })
}

fn header(code: u8, more: bool) -> [u8; HEADER_BYTES] {
    let version = VERSION.to_le_bytes();
    [
        MAGIC[0],
        MAGIC[1],
        MAGIC[2],
        MAGIC[3],
        version[0],
        version[1],
        code,
        u8::from(more),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire_and_others_are_refused() {
        for request in [
            Request::Reload,
            Request::Upgrade,
            Request::Status,
            Request::Stop,
            Request::Metrics,
            Request::TellToClose,
            Request::KeepOpen,
            Request::AwaitEnd,
        ] {
            assert_eq!(decode_request(&encode_request(request)), Ok(request));
        }
        assert_eq!(
            decode_request(b"GET / HTTP/1.1\r\n"),
            Err(BadRequest::Malformed)
        );
        assert_eq!(decode_request(b""), Err(BadRequest::Malformed));
        assert_eq!(
            decode_request(b"htlc\x02\0\x01\0"),
            Err(BadRequest::Unknown)
        );
        assert_eq!(
            decode_request(b"htlc\x01\0\x63\0"),
            Err(BadRequest::Unknown)
        );
    }

    #[test]
    fn a_long_body_is_cut_and_joined() {
        let body = vec![b'x'; 100_000];
        let packets = encode_reply(Outcome::Refused, &body);
        assert_eq!(packets.len(), 4);
        let mut joined = Vec::new();
        for (index, packet) in packets.iter().enumerate() {
            let part = decode_reply(packet).expect("our own packet");
            assert_eq!(part.more, index < 3);
            assert_eq!(part.outcome, Outcome::Refused);
            joined.extend_from_slice(part.body);
        }
        assert_eq!(joined, body);
        assert_eq!(encode_reply(Outcome::Done, b"").len(), 1);
    }
}
