//! Packets of a lane: what an event loop gives the keeper to hold, and what it gets back after a
//! death.
//!
//! A packet is a list of entries of 9 bytes; the descriptors of all entries follow each other
//! beside it.

use crate::wire::{Malformed, Reader, Writer};

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// Hold these descriptors (1 or 2) for a slot, in place of what is held for it.
    Register {
        slot: u32,
        generation: u32,
        fds: u8,
    },
    /// Close what is held for a slot.
    Release {
        slot: u32,
        generation: u32,
    },
    /// Hold both ends of a pipe: reading end first.
    AddPipe {
        pipe: u32,
    },
    DropPipe {
        pipe: u32,
    },
    /// Keeper to worker: a client that the dead worker had accepted, and of which nobody has read
    /// or written a byte. One descriptor.
    Fresh,
    /// Keeper to worker: what follows the death of `dead` (0: nothing does) was sent completely. If
    /// it was `searched` for clients that were just accepted, all that were found came before.
    End {
        dead: u32,
        searched: bool,
    },
}

/// Entries in one packet.
pub(crate) const ENTRIES_MAX: usize = 100;

impl Entry {
    /// How many descriptors travel with it.
    pub(crate) fn fds(self) -> usize {
        match self {
            Self::Register { fds, .. } => fds.into(),
            Self::AddPipe { .. } => 2,
            Self::Fresh => 1,
            Self::Release { .. } | Self::DropPipe { .. } | Self::End { .. } => 0,
        }
    }
}

pub(crate) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut w = Writer::new();
    for entry in entries {
        let (code, first, second) = match *entry {
            Entry::Register {
                slot,
                generation,
                fds,
            } => (fds, slot, generation),
            Entry::Release { slot, generation } => (8, slot, generation),
            Entry::AddPipe { pipe } => (9, pipe, 0),
            Entry::DropPipe { pipe } => (10, pipe, 0),
            Entry::End { dead, searched } => (11, dead, searched.into()),
            Entry::Fresh => (12, 0, 0),
        };
        w.u8(code).u32(first).u32(second);
    }
    w.bytes
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let mut r = Reader::new(bytes);
    let mut entries = Vec::with_capacity(bytes.len() / 9);
    while !r.is_empty() {
        let (code, first, second) = (r.u8()?, r.u32()?, r.u32()?);
        entries.push(match code {
            1 | 2 => Entry::Register {
                slot: first,
                generation: second,
                fds: code,
            },
            8 => Entry::Release {
                slot: first,
                generation: second,
            },
            9 => Entry::AddPipe { pipe: first },
            10 => Entry::DropPipe { pipe: first },
            11 => Entry::End {
                dead: first,
                searched: second != 0,
            },
            12 => Entry::Fresh,
            _ => return Err(Malformed),
        });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive() {
        let entries = [
            Entry::Register {
                slot: 1,
                generation: 2,
                fds: 2,
            },
            Entry::Release {
                slot: 3,
                generation: u32::MAX,
            },
            Entry::AddPipe { pipe: 4 },
            Entry::DropPipe { pipe: 5 },
            Entry::Fresh,
            Entry::End {
                dead: 6,
                searched: true,
            },
        ];
        let bytes = encode(&entries);
        assert_eq!(decode(&bytes), Ok(entries.to_vec()));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(Malformed));
        assert_eq!(decode(&[77; 9]), Err(Malformed));
    }
}
