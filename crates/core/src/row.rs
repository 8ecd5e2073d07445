//! The row: which guests may hold a bucket's connections, in the order in which they are asked.
//!
//! A row is one 64-bit word (layout: `docs/adr/0001-row-and-option-layout.md`), so that a table is
//! changed by plain stores and no reader ever sees half a row. Invariants of every [`Row`]: no
//! guest slot appears twice, and no slot follows an empty one.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Buckets of a virtual cluster's table.
pub const BUCKETS: usize = 65_536;
/// Guests that one row can name.
pub const ROW_SLOTS: usize = 4;
/// Buckets that move together where a virtual cluster owns egress addresses.
pub const GROUP_BUCKETS: usize = 64;

/// A guest's number in the rows of one virtual cluster: 1 to 4,095. A kernel that comes back gets a
/// new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct GuestSlot(u16);

impl GuestSlot {
    /// The highest number: 12 bits, of which 0 means *none*.
    pub const MAX: u16 = 4_095;

    /// `None` if the number is 0 or above [`Self::MAX`].
    pub const fn new(number: u16) -> Option<Self> {
        if number == 0 || number > Self::MAX {
            None
        } else {
            Some(Self(number))
        }
    }

    /// The number, 1 to 4,095.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for GuestSlot {
    type Error = &'static str;

    fn try_from(number: u16) -> Result<Self, Self::Error> {
        Self::new(number).ok_or("a guest slot is a number from 1 to 4095")
    }
}

impl From<GuestSlot> for u16 {
    fn from(slot: GuestSlot) -> Self {
        slot.0
    }
}

impl fmt::Debug for GuestSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

impl fmt::Display for GuestSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How new a row is. Compared by serial arithmetic (RFC 1982), so it may wrap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Sequence(pub u16);

impl Sequence {
    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether this is newer than `other`. Two that are 32,768 apart are not ordered; that never
    /// happens, since a step waits for all acknowledgements of the one before.
    pub const fn is_newer_than(self, other: Self) -> bool {
        let ahead = self.0.wrapping_sub(other.0);
        ahead != 0 && ahead < 0x8000
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A bucket of a virtual cluster's table, 0 to 65,535.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Bucket(pub u16);

impl Bucket {
    /// The group of 64 that moves together, 0 to 1,023.
    pub const fn group(self) -> u16 {
        self.0 >> 6
    }

    /// The first bucket of a group; `group` is taken modulo 1,024.
    pub const fn first_of_group(group: u16) -> Self {
        Self((group & 0x3ff) << 6)
    }
}

/// A row of the bucket table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Row(u64);

impl Row {
    /// No row yet: no guest, sequence 0.
    pub const NONE: Self = Self(0);

    /// A row of `slots` in order. `None` if there are more than four or one is named twice.
    pub fn new(slots: &[GuestSlot], sequence: Sequence) -> Option<Self> {
        if slots.len() > ROW_SLOTS {
            return None;
        }
        let mut word = u64::from(sequence.0) << 48;
        for (position, slot) in slots.iter().enumerate() {
            if slots[..position].contains(slot) {
                return None;
            }
            word |= u64::from(slot.0) << (12 * position);
        }
        Some(Self(word))
    }

    /// The same as [`Self::new`], from an iterator.
    pub fn from_slots(
        slots: impl IntoIterator<Item = GuestSlot>,
        sequence: Sequence,
    ) -> Option<Self> {
        let mut word = u64::from(sequence.0) << 48;
        for (position, slot) in slots.into_iter().enumerate() {
            if position == ROW_SLOTS {
                return None;
            }
            word |= u64::from(slot.0) << (12 * position);
        }
        Self::from_word(word)
    }

    /// Reads a word from a table or a packet. `None` if a slot is named twice or follows an empty
    /// one.
    pub fn from_word(word: u64) -> Option<Self> {
        let row = Self(word);
        let mut seen_empty = false;
        for position in 0..ROW_SLOTS {
            match row.at(position) {
                None => seen_empty = true,
                Some(_) if seen_empty => return None,
                Some(slot) if (0..position).any(|before| row.at(before) == Some(slot)) => {
                    return None;
                }
                Some(_) => {}
            }
        }
        Some(row)
    }

    /// The word as it lies in tables, in host order.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// How new the row is.
    pub const fn sequence(self) -> Sequence {
        Sequence((self.0 >> 48) as u16)
    }

    /// The slot at `position` (0 is the head). `None` behind the last one.
    pub const fn at(self, position: usize) -> Option<GuestSlot> {
        if position >= ROW_SLOTS {
            return None;
        }
        GuestSlot::new(((self.0 >> (12 * position)) & 0xfff) as u16)
    }

    /// The slots in order.
    pub fn slots(self) -> impl DoubleEndedIterator<Item = GuestSlot> {
        (0..ROW_SLOTS).filter_map(move |position| self.at(position))
    }

    /// How many guests the row names.
    pub fn len(self) -> usize {
        self.slots().count()
    }

    /// Whether the row names no guest.
    pub const fn is_empty(self) -> bool {
        self.0 & 0xffff_ffff_ffff == 0
    }

    /// Who is asked first. `None` only for a row that names nobody.
    pub const fn head(self) -> Option<GuestSlot> {
        self.at(0)
    }

    /// Who is asked last.
    pub fn last(self) -> Option<GuestSlot> {
        self.slots().next_back()
    }

    /// Where `slot` stands, if the row names it.
    pub fn position(self, slot: GuestSlot) -> Option<usize> {
        self.slots().position(|other| other == slot)
    }

    /// Whether the row names `slot`.
    pub fn contains(self, slot: GuestSlot) -> bool {
        self.position(slot).is_some()
    }

    /// The same guests with another sequence.
    #[must_use]
    pub const fn with_sequence(self, sequence: Sequence) -> Self {
        Self((self.0 & 0xffff_ffff_ffff) | ((sequence.0 as u64) << 48))
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.slots()).finish()?;
        write!(f, "{:?}", self.sequence())
    }
}

#[cfg(test)]
mod tests;
