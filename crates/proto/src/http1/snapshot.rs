//! Layout 1 of an HTTP/1 connection's snapshot.
//!
//! Times are stored as ages, because clocks differ between hosts. Offsets do not occur: a partial
//! head is in the stuck bytes and is found again from there. Phases 4 and 5 of a response came with
//! WebSocket: a program from before it refuses those connections alone.

use crate::layout::{Reader, RestoreError, Writer};

use super::body::{Body, Left, Wire};
use super::connection::{Connection, RequestPhase, ResponsePhase};

/// The layout that this release writes and reads.
pub const SNAPSHOT_LAYOUT: u8 = 1;

/// Fixed part: layout, phases, two bodies, flags, counters, ages and the lengths of the buffers.
const FIXED_BYTES: usize = 99;

impl Connection {
    /// All of the connection's state at `now_us`, as bytes.
    pub fn snapshot(&self, now_us: u64) -> Vec<u8> {
        let buffered: usize = self.stuck.iter().chain(&self.unsent).map(Vec::len).sum();
        let mut writer = Writer::new(SNAPSHOT_LAYOUT, FIXED_BYTES + buffered);
        writer.u8(match self.request {
            RequestPhase::Head => 0,
            RequestPhase::Body => 1,
            RequestPhase::Done => 2,
            RequestPhase::Closed => 3,
        });
        writer.u8(match self.response {
            ResponsePhase::Idle => 0,
            ResponsePhase::Head if self.asks_websocket => 4,
            ResponsePhase::Head => 1,
            ResponsePhase::Body => 2,
            ResponsePhase::Done => 3,
            ResponsePhase::Switched => 5,
        });
        write_body(&mut writer, &self.request_body);
        write_body(&mut writer, &self.response_body);
        writer.u8(self.empty_lines);
        writer.u8(self.interim);
        writer.u8(self.minor);
        for flag in [
            self.has_begun,
            self.is_head,
            self.awaits_continue,
            self.client_closes,
            self.member_closes,
            self.has_ended[0],
            self.has_ended[1],
        ] {
            writer.u8(flag.into());
        }
        writer.u64(self.discarded_bytes);
        for since in self.since_us {
            writer.u64(now_us.saturating_sub(since));
        }
        for bytes in self.stuck.iter().chain(&self.unsent) {
            writer.bytes(bytes);
        }
        writer.finish()
    }

    /// The connection of a snapshot, at `now_us` of this program's clock.
    pub fn restore(snapshot: &[u8], now_us: u64) -> Result<Connection, RestoreError> {
        let mut reader = Reader::open(snapshot, SNAPSHOT_LAYOUT)?;
        let mut connection = Connection::new(now_us);
        connection.request = match reader.u8()? {
            0 => RequestPhase::Head,
            1 => RequestPhase::Body,
            2 => RequestPhase::Done,
            3 => RequestPhase::Closed,
            _ => return Err(reader.impossible()),
        };
        connection.response = match reader.u8()? {
            0 => ResponsePhase::Idle,
            1 => ResponsePhase::Head,
            2 => ResponsePhase::Body,
            3 => ResponsePhase::Done,
            4 => {
                connection.asks_websocket = true;
                ResponsePhase::Head
            }
            5 => ResponsePhase::Switched,
            _ => return Err(reader.impossible()),
        };
        connection.request_body = read_body(&mut reader)?;
        connection.response_body = read_body(&mut reader)?;
        connection.empty_lines = reader.u8()?;
        connection.interim = reader.u8()?;
        connection.minor = u8::from(reader.bool()?);
        connection.has_begun = reader.bool()?;
        connection.is_head = reader.bool()?;
        connection.awaits_continue = reader.bool()?;
        connection.client_closes = reader.bool()?;
        connection.member_closes = reader.bool()?;
        connection.has_ended = [reader.bool()?, reader.bool()?];
        connection.discarded_bytes = reader.u64()?;
        for since in &mut connection.since_us {
            *since = now_us.saturating_sub(reader.u64()?);
        }
        for bytes in connection.stuck.iter_mut().chain(&mut connection.unsent) {
            *bytes = reader.bytes()?.to_vec();
        }
        reader.close()?;
        Ok(connection)
    }
}

fn write_body(writer: &mut Writer, body: &Body) {
    let (left, count) = match body.left {
        Left::Empty => (0, 0),
        Left::Length(left) => (1, left),
        Left::Line => (2, 0),
        Left::Data(left) => (3, left),
        Left::DataEnd => (4, 0),
        Left::Trailers => (5, 0),
        Left::UntilClose => (6, 0),
    };
    writer.u8(left);
    writer.u64(count);
    writer.u8(match body.wire {
        Wire::Same => 0,
        Wire::Plain => 1,
        Wire::Chunks => 2,
        Wire::Discard => 3,
    });
    writer.u8(body.owes_line_end.into());
    writer.u32(body.extension_bytes);
    writer.u64(body.bytes);
}

fn read_body(reader: &mut Reader<'_>) -> Result<Body, RestoreError> {
    let (left, count) = (reader.u8()?, reader.u64()?);
    let left = match (left, count) {
        (0, 0) => Left::Empty,
        (1, 1..) => Left::Length(count),
        (2, 0) => Left::Line,
        (3, 1..) => Left::Data(count),
        (4, 0) => Left::DataEnd,
        (5, 0) => Left::Trailers,
        (6, 0) => Left::UntilClose,
        _ => return Err(reader.impossible()),
    };
    let wire = match reader.u8()? {
        0 => Wire::Same,
        1 => Wire::Plain,
        2 => Wire::Chunks,
        3 => Wire::Discard,
        _ => return Err(reader.impossible()),
    };
    Ok(Body {
        left,
        wire,
        owes_line_end: reader.bool()?,
        extension_bytes: reader.u32()?,
        bytes: reader.u64()?,
    })
}
