//! Handshake messages after the handshake: whole ones out of records that may cut them anywhere.

use super::fault::Fault;

/// Types of messages.
pub(super) const HELLO_REQUEST: u8 = 0;
pub(super) const CLIENT_HELLO: u8 = 1;
pub(super) const NEW_SESSION_TICKET: u8 = 4;
pub(super) const KEY_UPDATE: u8 = 24;

/// Type and length.
const HEADER_BYTES: usize = 4;
/// The longest message that is read: a session ticket of 65,535 bytes and what stands around it.
const MESSAGE_BYTES_MAX: usize = 66_000;

/// A key update that asks for one in return, or does not.
pub(super) fn key_update(asks: bool) -> [u8; HEADER_BYTES + 1] {
    [KEY_UPDATE, 0, 0, 1, u8::from(asks)]
}

/// The message under way. Of its body only the first byte is ever looked at, so no more is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Messages {
    pub(super) header: Vec<u8>,
    pub(super) first: Option<u8>,
    /// Bytes of the body so far.
    pub(super) count: usize,
}

/// A whole message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u8,
    first: Option<u8>,
    count: usize,
}

impl Message {
    /// Of a key update.
    pub(super) fn asks_for_update(self) -> Result<bool, Fault> {
        match (self.first, self.count) {
            (Some(asks @ (0 | 1)), 1) => Ok(asks == 1),
            _ => Err(Fault::Malformed),
        }
    }
}

impl Messages {
    /// Whether no message is half read.
    pub(super) fn is_between(&self) -> bool {
        self.header.is_empty()
    }

    /// Takes the next whole message from the front of `inside`. None: all of it was taken, and the
    /// message goes on in the next record.
    pub(super) fn next(&mut self, inside: &mut &[u8]) -> Result<Option<Message>, Fault> {
        let missing = HEADER_BYTES - self.header.len();
        let taken;
        (taken, *inside) = inside.split_at(missing.min(inside.len()));
        self.header.extend_from_slice(taken);
        let Some(bytes) = self.length() else {
            return Ok(None);
        };
        if bytes > MESSAGE_BYTES_MAX {
            return Err(Fault::MessageTooLong { bytes });
        }
        let body;
        (body, *inside) = inside.split_at((bytes - self.count).min(inside.len()));
        self.first = self.first.or(body.first().copied());
        self.count += body.len();
        if self.count < bytes {
            return Ok(None);
        }
        let whole = std::mem::take(self);
        Ok(Some(Message {
            kind: whole.header[0],
            first: whole.first,
            count: whole.count,
        }))
    }

    /// Of the body, once the header is whole.
    pub(super) fn length(&self) -> Option<usize> {
        let [_, high, middle, low] = *self.header.first_chunk::<HEADER_BYTES>()?;
        Some(u32::from_be_bytes([0, high, middle, low]) as usize)
    }

    /// Whether this can be the state between two records.
    pub(super) fn is_possible(&self) -> bool {
        let is_cut = self.length().is_none_or(|length| self.count < length);
        self.header.len() <= HEADER_BYTES
            && self.count <= MESSAGE_BYTES_MAX
            && is_cut
            && (self.length().is_some() || self.count == 0)
            && self.first.is_some() == (self.count > 0)
    }
}
