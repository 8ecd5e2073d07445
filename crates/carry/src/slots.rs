//! The memory file of a keeper: connection slots, counters and ledgers, shared by keeper and
//! workers.
//!
//! It outlives every program: what a worker wrote up to the instant of its death is there for the
//! next. One *lane* per event loop; a lane's part is written by that event loop alone (by two for a
//! moment in a takeover), so that no cache line is shared on a request's path. The layout has a
//! version; a program that does not know it does not touch the file.
//!
//! ```text
//! page 0          Head
//! then per lane   LaneHead (counters), KEYED_PER_LANE x Keyed, slots_per_lane x Slot
//! ```

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::io;
use std::os::fd::OwnedFd;

use crate::memory::SharedMemory;

/// Version of everything in this module.
pub const LAYOUT: u32 = 1;
/// Counters of a lane as a whole.
pub const LANE_COUNTERS: usize = 64;
/// Virtual servers and members with counters of their own, per lane. Further ones share the first
/// entry.
pub const KEYED_PER_LANE: usize = 1024;
/// Counters of one keyed entry.
pub const KEYED_COUNTERS: usize = 7;
/// Fields of one ledger.
pub const LEDGER_FIELDS: usize = 16;
/// Lanes at most: their sockets travel in one packet.
pub const LANES_MAX: u32 = 128;
/// Slots of a lane at most: a million connections on each event loop.
pub const SLOTS_PER_LANE_MAX: u32 = 1 << 20;

const MAGIC: u64 = u64::from_le_bytes(*b"hitlslot");
const HEAD_BYTES: usize = 4096;

/// What a slot is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    Free = 0,
    /// A client's HTTP connection; the keeper has at most the client's socket.
    Http = 1,
    /// A raw TCP pair; the keeper has both sockets and every pipe that holds bytes.
    Tcp = 2,
    /// A client's HTTP/2 connection. Its state is in its worker's memory alone.
    Http2 = 3,
}

/// The flag in [`Slot::flags`] of an HTTP connection on which a request is under way.
pub const IN_FLIGHT: u32 = 1;
/// The flag of a slot whose descriptors were given to the keeper.
pub const REGISTERED: u32 = 2;
/// The flag of an HTTP connection whose last answer goes out whole in the next system call: after
/// that it is only to be closed.
pub const CLOSING: u32 = 4;

/// The flag of a connection of which a side speaks TLS: its keys are elsewhere.
pub const SEALED: u32 = 8;

/// What must be known of a connection after its worker's death: one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Slot {
    /// A [`Kind`].
    pub kind: AtomicU32,
    /// Grows by one with each use of the slot.
    pub generation: AtomicU32,
    /// The incarnation of the worker that serves it.
    pub owner: AtomicU32,
    /// Crashes of a worker while it worked on this connection.
    pub crashes: AtomicU32,
    /// Hash of the virtual server's name.
    pub virtual_server: AtomicU64,
    /// HTTP: bytes read from the client up to the end of the last finished request. HTTP/2:
    /// requests under way.
    pub read_done: AtomicU64,
    /// HTTP: bytes for the client up to the end of the last finished response.
    pub written_done: AtomicU64,
    /// TCP: the pipe in each direction (from client, from member), number + 1; 0 is none.
    pub pipes: [AtomicU32; 2],
    pub flags: AtomicU32,
    reserved: AtomicU32,
}

/// Named counters, all at 0 in a new file.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Keyed {
    /// Hash of the name. 0 is a free entry.
    key: AtomicU64,
    pub counters: [AtomicU64; KEYED_COUNTERS],
}

#[derive(Debug)]
#[repr(C, align(64))]
pub struct LaneHead {
    pub counters: [AtomicU64; LANE_COUNTERS],
    /// Slot that is being worked on, + 1; 0 is none.
    pub busy_slot: AtomicU32,
    /// The number of the next pipe.
    pub next_pipe: AtomicU32,
    /// Not 0 from before a connection is accepted until the keeper has it or its slot says what it
    /// does: one that no slot tells of may be open.
    pub accepting: AtomicU32,
    /// Not 0 if this event loop is the one that brought its worker down.
    pub guilty: AtomicU32,
}

/// The part of the file that belongs to no lane.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Head {
    magic: AtomicU64,
    layout: AtomicU32,
    lanes: AtomicU32,
    slots_per_lane: AtomicU32,
    /// The last worker's incarnation; the first is 1.
    pub incarnation: AtomicU32,
    /// Not 0 while the keeper has no room for more descriptors: workers accept nothing.
    pub paused: AtomicU32,
    /// How often that began.
    pub pauses: AtomicU32,
    pub takeover: [AtomicU64; LEDGER_FIELDS],
    pub crash: [AtomicU64; LEDGER_FIELDS],
    /// Not 0 while clients are told to close where their protocol can say so: this host is being
    /// drained.
    pub tells_to_close: AtomicU32,
    /// Not 0 while the keeper is so near its limit that event loops have to wait until it has what
    /// they sent it before they accept more.
    pub is_scarce: AtomicU32,
}

/// The mapped file.
#[derive(Debug)]
pub struct Slots {
    memory: SharedMemory,
    lanes: u32,
    slots_per_lane: u32,
}

impl Slots {
    /// A new file.
    pub fn create(lanes: u32, slots_per_lane: u32) -> io::Result<Self> {
        assert!(
            (1..=LANES_MAX).contains(&lanes),
            "lanes lie within their limit"
        );
        assert!(
            (1..=SLOTS_PER_LANE_MAX).contains(&slots_per_lane),
            "slots lie within their limit"
        );
        let length = HEAD_BYTES + lanes as usize * lane_bytes(slots_per_lane);
        let slots = Self {
            memory: SharedMemory::create("hitless-slots", length)?,
            lanes,
            slots_per_lane,
        };
        let head = slots.head();
        head.layout.store(LAYOUT, Ordering::Relaxed);
        head.lanes.store(lanes, Ordering::Relaxed);
        head.slots_per_lane.store(slots_per_lane, Ordering::Relaxed);
        head.magic.store(MAGIC, Ordering::Release);
        Ok(slots)
    }

    /// Maps the file of another process, or of the program before this one.
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let memory = SharedMemory::map(file)?;
        if memory.length() < HEAD_BYTES {
            return Err(wrong("slot file too short"));
        }
        let mut slots = Self {
            memory,
            lanes: 0,
            slots_per_lane: 0,
        };
        let head = slots.head();
        if head.magic.load(Ordering::Acquire) != MAGIC {
            return Err(wrong("not a slot file"));
        }
        let layout = head.layout.load(Ordering::Relaxed);
        if layout != LAYOUT {
            return Err(wrong(&format!(
                "slot file has layout {layout}, this program knows {LAYOUT}"
            )));
        }
        let lanes = head.lanes.load(Ordering::Relaxed);
        let slots_per_lane = head.slots_per_lane.load(Ordering::Relaxed);
        if !(1..=LANES_MAX).contains(&lanes) || !(1..=SLOTS_PER_LANE_MAX).contains(&slots_per_lane)
        {
            return Err(wrong("slot file with an impossible size"));
        }
        if slots.memory.length() != HEAD_BYTES + lanes as usize * lane_bytes(slots_per_lane) {
            return Err(wrong("slot file has not the length that it says"));
        }
        slots.lanes = lanes;
        slots.slots_per_lane = slots_per_lane;
        Ok(slots)
    }

    pub fn file(&self) -> std::os::fd::BorrowedFd<'_> {
        self.memory.file()
    }

    pub fn lanes(&self) -> u32 {
        self.lanes
    }

    pub fn slots_per_lane(&self) -> u32 {
        self.slots_per_lane
    }

    pub fn head(&self) -> &Head {
        // SAFETY: `Head` is repr(C) and made of atomic integers only.
        unsafe { self.memory.view(0) }
    }

    pub fn lane(&self, lane: u32) -> &LaneHead {
        // SAFETY: `LaneHead` is repr(C) and made of atomic integers only.
        unsafe { self.memory.view(self.lane_offset(lane)) }
    }

    /// The slot `index` of a lane.
    pub fn slot(&self, lane: u32, index: u32) -> &Slot {
        assert!(index < self.slots_per_lane, "slot lies in its lane");
        let offset = self.lane_offset(lane)
            + size_of::<LaneHead>()
            + KEYED_PER_LANE * size_of::<Keyed>()
            + index as usize * size_of::<Slot>();
        // SAFETY: `Slot` is repr(C) and made of atomic integers only.
        unsafe { self.memory.view(offset) }
    }

    /// The position of a key's counters in a lane, making the entry if there is none: for when a
    /// configuration is applied, not for each request. A table that is full gives the first entry
    /// to all further keys.
    pub fn keyed_index(&self, lane: u32, key: u64) -> usize {
        let key = key.max(1);
        let start = 1 + (key % (KEYED_PER_LANE as u64 - 1)) as usize;
        for step in 0..KEYED_PER_LANE - 1 {
            let index = 1 + (start - 1 + step) % (KEYED_PER_LANE - 1);
            let entry = self.keyed(lane, index);
            match entry
                .key
                .compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return index,
                Err(found) if found == key => return index,
                Err(_) => {}
            }
        }
        0
    }

    /// The counters at a position that [`keyed_index`](Self::keyed_index) gave.
    pub fn keyed(&self, lane: u32, index: usize) -> &Keyed {
        assert!(index < KEYED_PER_LANE, "entry lies in its lane");
        let offset = self.lane_offset(lane) + size_of::<LaneHead>() + index * size_of::<Keyed>();
        // SAFETY: `Keyed` is repr(C) and made of atomic integers only.
        unsafe { self.memory.view(offset) }
    }

    fn lane_offset(&self, lane: u32) -> usize {
        assert!(lane < self.lanes, "lane is one of the file's");
        HEAD_BYTES + lane as usize * lane_bytes(self.slots_per_lane)
    }
}

impl Slot {
    /// `None` for a number that no version of ours wrote.
    pub fn kind(&self) -> Option<Kind> {
        match self.kind.load(Ordering::Acquire) {
            0 => Some(Kind::Free),
            1 => Some(Kind::Http),
            2 => Some(Kind::Tcp),
            3 => Some(Kind::Http2),
            _ => None,
        }
    }

    /// Takes a free slot into use; everything of its last use is forgotten. Returns the new
    /// generation.
    pub fn begin(&self, kind: Kind, owner: u32, virtual_server: u64) -> u32 {
        debug_assert_eq!(self.kind(), Some(Kind::Free), "only a free slot is taken");
        let generation = self.generation.load(Ordering::Relaxed).wrapping_add(1);
        self.generation.store(generation, Ordering::Relaxed);
        self.owner.store(owner, Ordering::Relaxed);
        self.crashes.store(0, Ordering::Relaxed);
        self.virtual_server.store(virtual_server, Ordering::Relaxed);
        self.read_done.store(0, Ordering::Relaxed);
        self.written_done.store(0, Ordering::Relaxed);
        self.pipes[0].store(0, Ordering::Relaxed);
        self.pipes[1].store(0, Ordering::Relaxed);
        self.flags.store(0, Ordering::Relaxed);
        self.kind.store(kind as u32, Ordering::Release);
        generation
    }

    /// The client turned out to speak HTTP/2.
    pub fn become_http2(&self) {
        self.read_done.store(0, Ordering::Relaxed);
        self.kind.store(Kind::Http2 as u32, Ordering::Release);
    }

    /// The connection only goes from side to side from here on. The keeper has both
    /// its sockets.
    pub fn become_tcp(&self) {
        self.set_flag(IN_FLIGHT, false);
        self.kind.store(Kind::Tcp as u32, Ordering::Release);
    }

    /// Gives the slot back.
    pub fn end(&self) {
        self.kind.store(Kind::Free as u32, Ordering::Release);
    }

    pub fn has_flag(&self, flag: u32) -> bool {
        self.flags.load(Ordering::Relaxed) & flag != 0
    }

    /// Only the slot's owner changes flags, so a load and a store do.
    pub fn set_flag(&self, flag: u32, on: bool) {
        let flags = self.flags.load(Ordering::Relaxed);
        self.flags.store(
            if on { flags | flag } else { flags & !flag },
            Ordering::Relaxed,
        );
    }
}

const fn lane_bytes(slots_per_lane: u32) -> usize {
    let bytes = size_of::<LaneHead>()
        + KEYED_PER_LANE * size_of::<Keyed>()
        + slots_per_lane as usize * size_of::<Slot>();
    bytes.next_multiple_of(4096)
}

const _: () = assert!(size_of::<Slot>() == 64 && size_of::<Keyed>() == 64);
const _: () = assert!(size_of::<Head>() <= HEAD_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_mapping_sees_slots_and_counters() {
        let first = Slots::create(2, 100).unwrap();
        let slot = first.slot(1, 99);
        assert_eq!(slot.begin(Kind::Tcp, 3, 77), 1);
        slot.set_flag(REGISTERED, true);
        let index = first.keyed_index(1, 4711);
        first.keyed(1, index).counters[2].fetch_add(5, Ordering::Relaxed);

        let second = Slots::map(first.file().try_clone_to_owned().unwrap()).unwrap();
        let slot = second.slot(1, 99);
        assert_eq!(
            (slot.kind(), slot.owner.load(Ordering::Relaxed)),
            (Some(Kind::Tcp), 3)
        );
        assert!(slot.has_flag(REGISTERED) && !slot.has_flag(IN_FLIGHT));
        assert_eq!(second.keyed_index(1, 4711), index);
        assert_eq!(
            second.keyed(1, index).counters[2].load(Ordering::Relaxed),
            5
        );
        slot.end();
        assert_eq!(first.slot(1, 99).kind(), Some(Kind::Free));
    }

    #[test]
    fn a_full_table_shares_the_first_entry_and_a_foreign_file_is_refused() {
        let slots = Slots::create(1, 1).unwrap();
        let seen: std::collections::HashSet<usize> = (1..KEYED_PER_LANE as u64)
            .map(|key| slots.keyed_index(0, key))
            .collect();
        assert_eq!(seen.len(), KEYED_PER_LANE - 1);
        assert_eq!(slots.keyed_index(0, 9_999_999), 0);

        slots.head().layout.store(99, Ordering::Relaxed);
        let copy = slots.file().try_clone_to_owned().unwrap();
        assert!(
            Slots::map(copy)
                .unwrap_err()
                .to_string()
                .contains("layout 99")
        );
    }
}
