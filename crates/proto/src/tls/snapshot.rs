//! Layout 1 of a TLS connection's snapshot. It holds the keys.

use zeroize::Zeroizing;

use crate::layout::{Reader, RestoreError, Writer};

use super::connection::{Records, Role};
use super::fault::Fault;
use super::half::Material;
use super::message::Messages;
use super::suite::Suite;

/// The layout that this release writes and reads.
pub const SNAPSHOT_LAYOUT: u8 = 1;

/// Length without buffers, with the longest secrets.
const FIXED_BYTES: usize = 192;

impl Records {
    /// All of the connection's state, as bytes. They hold the keys: who has them can read and write
    /// in the connection's name. They are wiped when they are dropped.
    pub fn snapshot(&self) -> Zeroizing<Vec<u8>> {
        let buffered = self.stuck.len() + self.unsent.len();
        let mut writer = Writer::new(SNAPSHOT_LAYOUT, FIXED_BYTES + buffered);
        writer.u8(match self.role {
            Role::Server => 0,
            Role::Client => 1,
        });
        writer.u8(match self.suite() {
            Suite::Aes128Gcm => 0,
            Suite::Aes256Gcm => 1,
            Suite::ChaCha20Poly1305 => 2,
        });
        for half in [&self.receiving, &self.sending] {
            match &half.material {
                Material::Secret(secret) => {
                    writer.u8(13);
                    writer.bytes(secret);
                }
                Material::Key { key, iv } => {
                    writer.u8(12);
                    writer.bytes(key);
                    writer.bytes(iv);
                }
            }
            writer.u64(half.sequence);
        }
        writer.bytes(&self.messages.header);
        writer.u8(self.messages.first.unwrap_or(0));
        writer.u32(u32::try_from(self.messages.count).expect("a message's length is bounded"));
        writer.u8(self.empty);
        writer.u8(u8::from(self.has_ended) | u8::from(self.has_closed) << 1);
        write_fault(&mut writer, self.fault);
        writer.bytes(&self.stuck);
        writer.bytes(&self.unsent);
        Zeroizing::new(writer.finish())
    }

    /// The connection of a snapshot.
    pub fn restore(snapshot: &[u8]) -> Result<Records, RestoreError> {
        let mut opened = Reader::open(snapshot, SNAPSHOT_LAYOUT)?;
        let reader = &mut opened;
        let role = match reader.u8()? {
            0 => Role::Server,
            1 => Role::Client,
            _ => return Err(reader.impossible()),
        };
        let suite = match reader.u8()? {
            0 => Suite::Aes128Gcm,
            1 => Suite::Aes256Gcm,
            2 => Suite::ChaCha20Poly1305,
            _ => return Err(reader.impossible()),
        };
        let (received, sent) = (read_material(reader)?, read_material(reader)?);
        let mut records =
            Records::new(role, suite, received, sent).ok_or_else(|| reader.impossible())?;
        let header = reader.bytes()?.to_vec();
        let first = reader.u8()?;
        let count = reader.u32()? as usize;
        records.messages = Messages {
            header,
            first: (count > 0).then_some(first),
            count,
        };
        records.empty = reader.u8()?;
        let flags = reader.u8()?;
        let has_no_first = count == 0 && first != 0;
        if flags > 3 || has_no_first || !records.messages.is_possible() {
            return Err(reader.impossible());
        }
        records.has_ended = flags & 1 != 0;
        records.has_closed = flags & 2 != 0;
        records.fault = read_fault(reader)?;
        records.stuck = reader.bytes()?.to_vec();
        records.unsent = reader.bytes()?.to_vec();
        opened.close()?;
        Ok(records)
    }
}

fn read_material(reader: &mut Reader<'_>) -> Result<(Material, u64), RestoreError> {
    let material = match reader.u8()? {
        13 => Material::Secret(reader.bytes()?.to_vec().into()),
        12 => Material::Key {
            key: reader.bytes()?.to_vec().into(),
            iv: reader
                .bytes()?
                .try_into()
                .map_err(|_| reader.impossible())?,
        },
        _ => return Err(reader.impossible()),
    };
    Ok((material, reader.u64()?))
}

/// A fault's number, and what it says beside it.
fn write_fault(writer: &mut Writer, fault: Option<Fault>) {
    let (number, detail) = match fault {
        None => (0, 0),
        Some(Fault::BadRecord) => (1, 0),
        Some(Fault::RecordTooLong) => (2, 0),
        Some(Fault::UnexpectedRecord { kind }) => (3, u32::from(kind)),
        Some(Fault::UnexpectedMessage { kind }) => (4, u32::from(kind)),
        Some(Fault::Malformed) => (5, 0),
        Some(Fault::MessageTooLong { bytes }) => (6, u32::try_from(bytes).unwrap_or(u32::MAX)),
        Some(Fault::Flood) => (7, 0),
        Some(Fault::Alert { description }) => (8, u32::from(description)),
        Some(Fault::KeysUsedUp) => (9, 0),
        Some(Fault::Closed) => (10, 0),
    };
    writer.u8(number);
    writer.u32(detail);
}

fn read_fault(reader: &mut Reader<'_>) -> Result<Option<Fault>, RestoreError> {
    let (number, detail) = (reader.u8()?, reader.u32()?);
    let byte = |reader: &Reader<'_>| u8::try_from(detail).map_err(|_| reader.impossible());
    if detail != 0 && !matches!(number, 3 | 4 | 6 | 8) {
        return Err(reader.impossible());
    }
    Ok(Some(match number {
        0 => return Ok(None),
        1 => Fault::BadRecord,
        2 => Fault::RecordTooLong,
        3 => Fault::UnexpectedRecord {
            kind: byte(reader)?,
        },
        4 => Fault::UnexpectedMessage {
            kind: byte(reader)?,
        },
        5 => Fault::Malformed,
        6 => Fault::MessageTooLong {
            bytes: detail as usize,
        },
        7 => Fault::Flood,
        8 => Fault::Alert {
            description: byte(reader)?,
        },
        9 => Fault::KeysUsedUp,
        10 => Fault::Closed,
        _ => return Err(reader.impossible()),
    }))
}
