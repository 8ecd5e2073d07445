//! Layout 1 of an HTTP/2 connection's snapshot.
//!
//! Times are stored as ages, because clocks differ between hosts. Tables go as their entries,
//! oldest first; a restored one answers to the same indices.

use std::collections::VecDeque;

use crate::layout::{Reader, RestoreError, Writer};

use super::budget::Budgets;
use super::connection::{Block, Connection, Payload, Phase};
use super::frame::{PAYLOAD_BYTES_MAX, STREAM_MAX};
use super::hpack::{Decoder, Encoder};
use super::interface::Role;
use super::settings::Settings;
use super::stream::{Stream, Streams};

/// The layout that this release writes and reads.
pub const SNAPSHOT_LAYOUT: u8 = 1;

/// A first guess of the length, which buffers and tables add to.
const FIXED_BYTES: usize = 256;

impl Connection {
    /// All of the connection's state at `now_us`, as bytes.
    pub fn snapshot(&self, now_us: u64) -> Vec<u8> {
        let buffered = self.stuck.len() + self.unsent.len();
        let mut writer = Writer::new(SNAPSHOT_LAYOUT, FIXED_BYTES + buffered);
        writer.u8(match self.role {
            Role::Server => 0,
            Role::Client => 1,
        });
        writer.u8(match self.phase {
            Phase::Preface => 0,
            Phase::Settings => 1,
            Phase::Open => 2,
            Phase::Failed => 3,
        });
        write_payload(&mut writer, self.payload);
        writer.u8(u8::from(self.is_acknowledged)
            | u8::from(self.has_lost) << 1
            | u8::from(self.has_ended) << 2
            | u8::from(self.block.is_some()) << 3
            | u8::from(self.last_taken.is_some()) << 4
            | u8::from(self.last_taken_by_peer.is_some()) << 5);
        for last in [self.last_taken, self.last_taken_by_peer]
            .into_iter()
            .flatten()
        {
            writer.u32(last);
        }
        if let Some(block) = &self.block {
            writer.u32(block.stream);
            writer.u8(u8::from(block.ends) | u8::from(block.depends_on_itself) << 1);
            writer.u32(block.frames.into());
            writer.u64(now_us.saturating_sub(block.since_us));
            writer.bytes(&block.bytes);
        }
        self.local.write(&mut writer);
        self.remote.write(&mut writer);
        writer.u32(self.last_remote);
        writer.u32(self.next_local);
        writer.u64(self.send_window as u64);
        writer.u64(self.recv_window as u64);
        writer.u32(self.freed);
        writer.u32(self.granted);
        writer.u64(now_us.saturating_sub(self.since_us));
        writer.u64(now_us.saturating_sub(self.sent_us));
        writer.u32(self.replies);
        self.budgets.write(now_us, &mut writer);
        for list in [&self.waiting, &self.reset_here, &self.ended] {
            writer.u32(list.len() as u32);
            list.iter().for_each(|id| writer.u32(*id));
        }
        self.decoder.write(&mut writer);
        self.encoder.write(&mut writer);
        writer.u32(self.streams.len() as u32);
        for stream in self.streams.iter() {
            stream.write(now_us, &mut writer);
        }
        writer.bytes(&self.stuck);
        writer.bytes(&self.unsent);
        writer.finish()
    }

    /// The connection of a snapshot, at `now_us` of this program's clock.
    pub fn restore(snapshot: &[u8], now_us: u64) -> Result<Connection, RestoreError> {
        let mut opened = Reader::open(snapshot, SNAPSHOT_LAYOUT)?;
        let reader = &mut opened;
        let role = match reader.u8()? {
            0 => Role::Server,
            1 => Role::Client,
            _ => return Err(reader.impossible()),
        };
        let phase = match reader.u8()? {
            0 => Phase::Preface,
            1 => Phase::Settings,
            2 => Phase::Open,
            3 => Phase::Failed,
            _ => return Err(reader.impossible()),
        };
        let payload = read_payload(reader)?;
        let flags = reader.u8()?;
        if flags >= 64 {
            return Err(reader.impossible());
        }
        let has = |bit: u8| flags & 1 << bit != 0;
        let last_taken = has(4).then(|| reader.u32()).transpose()?;
        let last_taken_by_peer = has(5).then(|| reader.u32()).transpose()?;
        let block = has(3).then(|| read_block(reader, now_us)).transpose()?;
        let connection = Connection {
            role,
            phase,
            payload,
            block,
            local: Settings::read(reader)?,
            is_acknowledged: has(0),
            remote: Settings::read(reader)?,
            last_remote: reader.u32()?,
            next_local: reader.u32()?,
            send_window: reader.u64()? as i64,
            recv_window: reader.u64()? as i64,
            freed: reader.u32()?,
            granted: reader.u32()?,
            since_us: now_us.saturating_sub(reader.u64()?),
            sent_us: now_us.saturating_sub(reader.u64()?),
            replies: reader.u32()?,
            budgets: Budgets::read(reader, now_us)?,
            waiting: read_list(reader)?,
            reset_here: read_list(reader)?,
            ended: read_list(reader)?,
            decoder: Decoder::read(reader)?,
            encoder: Encoder::read(reader)?,
            streams: read_streams(reader, now_us)?,
            last_taken,
            last_taken_by_peer,
            has_lost: has(1),
            has_ended: has(2),
            stuck: reader.bytes()?.to_vec(),
            unsent: reader.bytes()?.to_vec(),
        };
        if !connection.is_possible() {
            return Err(reader.impossible());
        }
        opened.close()?;
        Ok(connection)
    }

    /// What arithmetic relies on.
    fn is_possible(&self) -> bool {
        let parity = match self.role {
            Role::Client => 1,
            Role::Server => 0,
        };
        let windows = 0..=i64::from(STREAM_MAX);
        self.next_local % 2 == parity
            && self.next_local > 0
            && self.next_local <= STREAM_MAX + 2
            && self.last_remote <= STREAM_MAX
            && windows.contains(&self.send_window)
            && windows.contains(&self.recv_window)
            && self.freed <= STREAM_MAX
            && self
                .streams
                .iter()
                .all(|stream| stream.held <= STREAM_MAX && stream.freed <= STREAM_MAX)
    }
}

fn write_payload(writer: &mut Writer, payload: Payload) {
    match payload {
        Payload::Between => writer.u8(0),
        Payload::Data {
            stream,
            left,
            padding,
            ends,
        } => {
            writer.u8(1 + u8::from(ends));
            writer.u32(stream);
            writer.u32(left);
            writer.u8(padding);
        }
        Payload::Skip { left } => {
            writer.u8(3);
            writer.u32(left);
        }
    }
}

fn read_payload(reader: &mut Reader<'_>) -> Result<Payload, RestoreError> {
    let payload = match reader.u8()? {
        0 => return Ok(Payload::Between),
        tag @ (1 | 2) => Payload::Data {
            ends: tag == 2,
            stream: reader.u32()?,
            left: reader.u32()?,
            padding: reader.u8()?,
        },
        3 => Payload::Skip {
            left: reader.u32()?,
        },
        _ => return Err(reader.impossible()),
    };
    match payload {
        Payload::Data { left, .. } | Payload::Skip { left }
            if left == 0 || left as usize > PAYLOAD_BYTES_MAX =>
        {
            Err(reader.impossible())
        }
        payload => Ok(payload),
    }
}

fn read_block(reader: &mut Reader<'_>, now_us: u64) -> Result<Block, RestoreError> {
    let stream = reader.u32()?;
    let flags = reader.u8()?;
    let frames = u16::try_from(reader.u32()?).map_err(|_| reader.impossible())?;
    if flags > 3 || stream == 0 || stream > STREAM_MAX {
        return Err(reader.impossible());
    }
    Ok(Block {
        stream,
        ends: flags & 1 != 0,
        depends_on_itself: flags & 2 != 0,
        frames,
        since_us: now_us.saturating_sub(reader.u64()?),
        bytes: reader.bytes()?.to_vec(),
    })
}

fn read_list(reader: &mut Reader<'_>) -> Result<VecDeque<u32>, RestoreError> {
    let mut list = VecDeque::new();
    for _ in 0..reader.u32()? {
        list.push_back(reader.u32()?);
    }
    Ok(list)
}

fn read_streams(reader: &mut Reader<'_>, now_us: u64) -> Result<Streams, RestoreError> {
    let mut streams = Streams::default();
    for _ in 0..reader.u32()? {
        if !streams.add(Stream::read(reader, now_us)?) {
            return Err(reader.impossible());
        }
    }
    Ok(streams)
}
