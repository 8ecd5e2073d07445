//! Writer and reader of snapshots: little-endian integers and byte strings with a length, nothing
//! else.

use thiserror::Error;

/// Why a snapshot was not restored. The connection it stood for is not usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// Written by a release whose layout this one does not read.
    #[error("snapshot of layout {found}, this program reads layout {known}")]
    UnknownLayout { found: u8, known: u8 },
    /// It ends before the field at this offset.
    #[error("snapshot ends early, at byte {at}")]
    Truncated { at: usize },
    /// A value that no writer of this layout produces.
    #[error("snapshot holds an impossible value before byte {at}")]
    Impossible { at: usize },
    /// Bytes behind the last field.
    #[error("snapshot has {count} bytes too many")]
    Trailing { count: usize },
}

/// Appends fields to a snapshot.
#[derive(Debug)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(layout: u8, capacity: usize) -> Writer {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.push(layout);
        Writer { bytes }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.u32(u32::try_from(value.len()).expect("buffers are bounded far below 4 GiB"));
        self.bytes.extend_from_slice(value);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes fields from a snapshot.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Opens a snapshot, if it is of the layout `known`.
    pub(crate) fn open(bytes: &'a [u8], known: u8) -> Result<Reader<'a>, RestoreError> {
        let mut reader = Reader { bytes, at: 0 };
        let found = reader.u8()?;
        if found != known {
            return Err(RestoreError::UnknownLayout { found, known });
        }
        Ok(reader)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], RestoreError> {
        let taken = self
            .at
            .checked_add(count)
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or(RestoreError::Truncated { at: self.at })?;
        self.at += count;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, RestoreError> {
        Ok(self.take(1)?[0])
    }

    /// A byte that is 0 or 1.
    pub(crate) fn bool(&mut self) -> Result<bool, RestoreError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.impossible()),
        }
    }

    pub(crate) fn u32(&mut self) -> Result<u32, RestoreError> {
        let taken = self.take(4)?;
        Ok(u32::from_le_bytes(
            taken.try_into().expect("four bytes were taken"),
        ))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, RestoreError> {
        let taken = self.take(8)?;
        Ok(u64::from_le_bytes(
            taken.try_into().expect("eight bytes were taken"),
        ))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], RestoreError> {
        let count = self.u32()?;
        self.take(count as usize)
    }

    pub(crate) fn impossible(&self) -> RestoreError {
        RestoreError::Impossible { at: self.at }
    }

    /// Ends the reading; bytes that are left are an error.
    pub(crate) fn close(self) -> Result<(), RestoreError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            count => Err(RestoreError::Trailing { count }),
        }
    }
}
