//! What the keeper holds for connections: duplicates of their sockets and of the pipes that have
//! their bytes.
//!
//! Nobody reads or writes them here. They keep a connection open over its worker's death, and are
//! closed when the worker says so or when nobody is left to want them.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use hitless_carry::message;
use hitless_carry::slots::{IN_FLIGHT, Kind, Slots};

use crate::link::lane::{ENTRIES_MAX, Entry, encode};

/// A packet on its way to a lane of a worker.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) fds: Vec<Rc<OwnedFd>>,
}

#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) lanes: Vec<HeldLane>,
    /// Descriptors in all lanes.
    pub(super) count: usize,
    /// Connections that the keeper could not protect for want of descriptors. They live on in their
    /// worker.
    pub(super) unprotected: u64,
}

#[derive(Debug, Default)]
pub(super) struct HeldLane {
    pub(super) slots: HashMap<u32, HeldSlot>,
    pub(super) pipes: HashMap<u32, HeldPipe>,
}

#[derive(Debug)]
pub(super) struct HeldSlot {
    pub(super) generation: u32,
    /// One or two.
    pub(super) fds: Vec<Rc<OwnedFd>>,
}

/// A worker that died, and what its twin had.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) incarnation: u32,
    /// Whether the twin was asked, and answered.
    pub(super) has_searched: bool,
    pub(super) fresh: Vec<Rc<OwnedFd>>,
}

#[derive(Debug)]
pub(super) struct HeldPipe {
    /// The incarnation that made it.
    pub(super) maker: u32,
    pub(super) ends: [Rc<OwnedFd>; 2],
}

impl Held {
    pub(super) fn new(lanes: u32) -> Self {
        Self {
            lanes: (0..lanes).map(|_| HeldLane::default()).collect(),
            ..Self::default()
        }
    }

    /// Takes a worker's packet in. Descriptors that are missing (the keeper is at its limit) cost
    /// protection only.
    pub(super) fn apply(&mut self, lane: usize, maker: u32, entries: &[Entry], fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter().map(Rc::new);
        let held = &mut self.lanes[lane];
        for entry in entries {
            let with: Vec<Rc<OwnedFd>> = fds.by_ref().take(entry.fds()).collect();
            let is_complete = with.len() == entry.fds();
            match *entry {
                Entry::Register {
                    slot, generation, ..
                } => {
                    if let Some(old) = held.slots.remove(&slot) {
                        self.count -= old.fds.len();
                    }
                    if is_complete {
                        self.count += with.len();
                        held.slots.insert(
                            slot,
                            HeldSlot {
                                generation,
                                fds: with,
                            },
                        );
                    } else {
                        self.unprotected += 1;
                    }
                }
                Entry::Release { slot, generation } => {
                    if held
                        .slots
                        .get(&slot)
                        .is_some_and(|held| held.generation == generation)
                        && let Some(old) = held.slots.remove(&slot)
                    {
                        self.count -= old.fds.len();
                    }
                }
                Entry::AddPipe { pipe } => {
                    if let Ok(ends) = <[Rc<OwnedFd>; 2]>::try_from(with) {
                        self.count += 2;
                        held.pipes.insert(pipe, HeldPipe { maker, ends });
                    }
                }
                Entry::DropPipe { pipe } => {
                    if held.pipes.remove(&pipe).is_some() {
                        self.count -= 2;
                    }
                }
                // Sent by keepers only.
                Entry::Fresh | Entry::End { .. } => {}
            }
        }
    }

    /// Whether a dead worker may have had clients of which it had read nothing, and that are not
    /// here.
    pub(super) fn misses(&self, slots: &Slots, dead: u32) -> bool {
        (0..slots.lanes()).any(|lane| {
            if slots.lane(lane).accepting.load(Ordering::Relaxed) != 0 {
                return true;
            }
            (0..slots.slots_per_lane()).any(|index| {
                let slot = slots.slot(lane, index);
                let is_its = slot.kind() != Some(Kind::Free)
                    && slot.owner.load(Ordering::Relaxed) == dead
                    && !slot.has_flag(IN_FLIGHT);
                let generation = slot.generation.load(Ordering::Relaxed);
                let held = self.lanes[lane as usize].slots.get(&index);
                is_its && held.is_none_or(|held| held.generation != generation)
            })
        })
    }

    /// The kernel's numbers of all client sockets here.
    pub(super) fn cookies(&self) -> HashSet<u64> {
        let slots = self.lanes.iter().flat_map(|lane| lane.slots.values());
        let clients = slots.filter_map(|slot| slot.fds.first());
        clients
            .filter_map(|fd| rustix::net::sockopt::socket_cookie(fd).ok())
            .collect()
    }

    /// What no living worker owns, as packets for the one that goes on, per lane; and forgets what
    /// nobody uses.
    pub(super) fn orphans(
        &mut self,
        slots: &Slots,
        dead: Dead,
        living: &[u32],
    ) -> Vec<Vec<Packet>> {
        let count = self.lanes.len();
        let mut fresh: Vec<Vec<Rc<OwnedFd>>> = vec![Vec::new(); count];
        for (at, fd) in dead.fresh.into_iter().enumerate() {
            fresh[at % count].push(fd);
        }
        let end = Entry::End {
            dead: dead.incarnation,
            searched: dead.has_searched,
        };
        let lanes = fresh.into_iter().enumerate();
        lanes
            .map(|(lane, fresh)| {
                let mut packets = self.orphans_of_lane(slots, lane, living);
                for fd in fresh {
                    packets.push(Entry::Fresh, &[fd]);
                }
                packets.push(end, &[]);
                packets.finish()
            })
            .collect()
    }

    fn orphans_of_lane(&mut self, slots: &Slots, lane: usize, living: &[u32]) -> PacketList {
        let held = &mut self.lanes[lane];
        let mut bound = HashSet::new();
        let mut wanted: Vec<u32> = Vec::new();
        let mut stale: Vec<u32> = Vec::new();
        for (&index, slot) in &held.slots {
            let shared = slots.slot(lane as u32, index);
            let is_used = shared.kind() != Some(Kind::Free)
                && shared.generation.load(Ordering::Relaxed) == slot.generation;
            if !is_used {
                stale.push(index);
                continue;
            }
            if !living.contains(&shared.owner.load(Ordering::Relaxed)) {
                wanted.push(index);
            }
            for pipe in &shared.pipes {
                if let Some(pipe) = pipe.load(Ordering::Relaxed).checked_sub(1) {
                    bound.insert(pipe);
                }
            }
        }
        for index in stale {
            if let Some(old) = held.slots.remove(&index) {
                self.count -= old.fds.len();
            }
        }
        let before = held.pipes.len();
        held.pipes
            .retain(|pipe, held| bound.contains(pipe) || living.contains(&held.maker));
        self.count -= (before - held.pipes.len()) * 2;

        wanted.sort_unstable();
        let mut packets = PacketList::default();
        for index in wanted {
            let shared = slots.slot(lane as u32, index);
            for pipe in &shared.pipes {
                if let Some(pipe) = pipe.load(Ordering::Relaxed).checked_sub(1)
                    && let Some(held) = held.pipes.get(&pipe)
                {
                    packets.push(Entry::AddPipe { pipe }, &held.ends);
                }
            }
            if let Some(slot) = held.slots.get(&index) {
                let fds = slot.fds.len() as u8;
                let entry = Entry::Register {
                    slot: index,
                    generation: slot.generation,
                    fds,
                };
                packets.push(entry, &slot.fds);
            }
        }
        packets
    }
}

/// Fills packets up to their limits, in order.
#[derive(Debug, Default)]
struct PacketList {
    done: Vec<Packet>,
    entries: Vec<Entry>,
    fds: Vec<Rc<OwnedFd>>,
}

impl PacketList {
    fn push(&mut self, entry: Entry, fds: &[Rc<OwnedFd>]) {
        if self.entries.len() >= ENTRIES_MAX || self.fds.len() + fds.len() > message::FDS_MAX {
            self.close();
        }
        self.entries.push(entry);
        self.fds.extend(fds.iter().cloned());
    }

    fn close(&mut self) {
        let fds = core::mem::take(&mut self.fds);
        self.done.push(Packet {
            bytes: encode(&self.entries),
            fds,
        });
        self.entries.clear();
    }

    fn finish(mut self) -> Vec<Packet> {
        if !self.entries.is_empty() {
            self.close();
        }
        self.done
    }
}
