//! The predecessor's half: batches, acknowledgements, and what is taken back.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use hitless_carry::slots::{Kind, REGISTERED};
use hitless_carry::{memory, message};

use super::{ACK_US_MAX, BATCH, BATCH_BYTES_FULL, Batch, Giving, IN_FLIGHT_MAX, INLINE_BYTES_MAX};
use crate::clock::now_us;
use crate::ledger::{Field, TAKEOVER};
use crate::link::SNAPSHOT_LAYOUT;
use crate::wire::{Malformed, Reader, Writer};
use crate::worker::core_of_lane::{Source, reset_on_close};
use crate::worker::event_loop::{EventLoop, Report};
use crate::worker::http2;
use crate::worker::record::{FDS_PER_ITEM, Item};

impl EventLoop {
    pub(in crate::worker) fn begin_giving(&mut self, peer: OwnedFd) {
        // What the keeper has sent after an earlier death is part of what is given.
        self.on_keeper();
        self.stop_accepting();
        self.core.forget_free_slots();
        self.core.flush_entries();
        self.core.is_giving = true;
        TAKEOVER
            .of(self.core.slots.head())
            .add(Field::Connections, self.core.open as u64);
        let mut w = Writer::new();
        w.u8(1).u16(SNAPSHOT_LAYOUT).u32(self.core.incarnation);
        let sent = message::send(&peer, &[&w.bytes], &[], false);
        let watched = self.core.watch_reads(&peer, Source::Takeover);
        self.giving = Some(Giving {
            peer,
            in_flight: VecDeque::new(),
            kept: Vec::new(),
            next: 0,
            awaits_handshakes_us: Some(self.core.now_us),
            is_raw_done: false,
            is_full: false,
            has_failed: false,
            is_prepared: false,
            has_ended: false,
        });
        if let Err(error) = sent.and(watched) {
            self.fail_giving(&format!("takeover socket: {error}"));
        }
    }

    fn fail_giving(&mut self, why: &str) {
        if let Some(giving) = &mut self.giving
            && !giving.has_failed
        {
            giving.has_failed = true;
            self.outbox.send(Report::Failed(why.to_owned()));
        }
    }

    /// Once a turn: the next batches, as far as there is room.
    pub(in crate::worker) fn give_more(&mut self) {
        loop {
            let now_us = self.core.now_us;
            let Some(giving) = &mut self.giving else {
                return;
            };
            if giving.is_prepared || giving.has_failed {
                return;
            }
            if let Some(began_us) = giving.awaits_handshakes_us {
                if !self.end_handshakes(began_us) {
                    return;
                }
                continue;
            }
            if giving
                .in_flight
                .front()
                .is_some_and(|batch| now_us > batch.sent_us + ACK_US_MAX)
            {
                let millis = ACK_US_MAX / 1000;
                return self.fail_giving(&format!("no acknowledgement for {millis} ms"));
            }
            giving.is_full = false;
            if giving.in_flight.len() >= IN_FLIGHT_MAX {
                return;
            }
            let items = self.take_items();
            if items.is_empty() {
                return self.finish_giving();
            }
            self.core.flush_entries();
            if !self.send_batch(items) {
                return;
            }
        }
    }

    /// The next connections, out of the loop's hands: raw TCP or HTTP, not both.
    fn take_items(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        let (mut fds, mut bytes) = (0, 0);
        while items.len() < BATCH && bytes < BATCH_BYTES_FULL {
            if items.first().is_some_and(Item::goes_on) && self.next_raw().is_none() {
                break;
            }
            // One place is for a memory file.
            fds += self.next_fds();
            if fds >= message::FDS_MAX && !items.is_empty() {
                break;
            }
            let Some(item) = self.take_item() else { break };
            bytes += item.buffered();
            items.push(item);
        }
        items
    }

    /// Descriptors that the next item has at most.
    fn next_fds(&self) -> usize {
        let http = &self.http;
        if !self.pairs.is_empty() || !http.trunks.is_empty() || !http.clients.is_empty() {
            return FDS_PER_ITEM;
        }
        let front = self.http.fronts.iter().next();
        front.map_or(1, |(_, front)| 1 + front.streams.len())
    }

    /// A raw TCP connection in cleartext.
    fn next_raw(&mut self) -> Option<usize> {
        let giving = self.giving.as_mut()?;
        if giving.is_raw_done {
            return None;
        }
        let mut raw = self.pairs.iter().filter(|(_, pair)| pair.sealed.is_none());
        let found = raw.next().map(|(index, _)| index);
        giving.is_raw_done = found.is_none();
        found
    }

    fn take_item(&mut self) -> Option<Item> {
        let raw = self.next_raw();
        let Self {
            core,
            pairs,
            http,
            greetings,
            ..
        } = self;
        if let Some(index) = raw.or_else(|| Some(pairs.iter().next()?.0)) {
            let pair = pairs.remove(index);
            for socket in &pair.sockets {
                core.unwatch(socket);
            }
            core.leave_member(pair.member);
            core.open -= 1;
            return Some(Item::Tcp(pair));
        }
        if let Some(place) = http.trunks.iter().map(|(place, _)| place).next() {
            http.is_frozen = true;
            let trunk = http.trunks.remove(place);
            core.unwatch(&trunk.socket);
            core.tables.members[trunk.member]
                .trunks
                .retain(|&known| known != place);
            return Some(Item::Trunk(place as u32, Box::new(trunk)));
        }
        if let Some(index) = http.clients.iter().map(|(index, _)| index).next() {
            let mut client = http.clients.remove(index);
            core.unwatch(&client.socket);
            core.open -= 1;
            let up = client.up.take().map(|at| http.ups.remove(at));
            if let Some(up) = &up {
                core.unwatch(&up.socket);
                core.leave_member(up.member);
            }
            return Some(Item::Http(Box::new(client), up));
        }
        if let Some(index) = http.fronts.iter().map(|(index, _)| index).next() {
            let mut front = http.fronts.remove(index);
            core.unwatch(&front.socket);
            core.open -= 1;
            let mut exchanges = Vec::new();
            for (_, at) in core::mem::take(&mut front.streams) {
                let mut exchange = http.exchanges.remove(at);
                let up = exchange.up.take().map(|at| http.ups.remove(at));
                if exchange.trunk.is_some() {
                    core.leave_member(exchange.member);
                }
                if let Some(up) = &up {
                    core.unwatch(&up.socket);
                    core.leave_member(up.member);
                }
                exchanges.push((exchange, up));
            }
            return Some(Item::Front(Box::new(front), exchanges));
        }
        if let Some(index) = greetings.iter().map(|(index, _)| index).next() {
            let greeting = greetings.remove(index);
            core.unwatch(&greeting.socket);
            core.open -= 1;
            return Some(Item::Greeting(Box::new(greeting)));
        }
        let index = http.ups.iter().map(|(index, _)| index).next()?;
        let up = http.ups.remove(index);
        core.unwatch(&up.socket);
        core.tables.members[up.member]
            .idle
            .retain(|&idle| idle != index);
        Some(Item::Idle(up))
    }

    /// `false`: there is no room for it now, and it was taken back.
    fn send_batch(&mut self, items: Vec<Item>) -> bool {
        let Self {
            core,
            giving: Some(giving),
            ..
        } = self
        else {
            return false;
        };
        let frozen_us = now_us();
        let mut records = Writer::new();
        for item in &items {
            item.write(core, &mut records);
        }
        let mut fds: Vec<BorrowedFd<'_>> = items.iter().flat_map(Item::fds).collect();
        let count = fds.len() as u32;
        let mut head = Writer::new();
        head.u8(2)
            .u32(giving.next)
            .u64(frozen_us)
            .u32(items.len() as u32)
            .u32(count);
        let file;
        let sent = if records.bytes.len() > INLINE_BYTES_MAX {
            match memory::from_bytes("hitless-batch", &records.bytes) {
                Ok(made) => {
                    file = made;
                    fds.push(file.as_fd());
                    head.u8(1);
                    message::send(&giving.peer, &[&head.bytes], &fds, false)
                }
                Err(error) => Err(error),
            }
        } else {
            head.u8(0);
            message::send(&giving.peer, &[&head.bytes, &records.bytes], &fds, false)
        };
        drop(fds);
        match sent {
            Ok(()) => {
                let number = giving.next;
                giving.next += 1;
                giving.in_flight.push_back(Batch {
                    number,
                    items,
                    fds: count,
                    sent_us: frozen_us,
                });
                true
            }
            Err(error) => {
                let is_full = error.kind() == io::ErrorKind::WouldBlock
                    || error.raw_os_error() == Some(libc::ETOOMANYREFS);
                giving.is_full = is_full;
                self.put_back(items);
                if !is_full {
                    self.fail_giving(&format!("takeover socket: {error}"));
                }
                false
            }
        }
    }

    fn finish_giving(&mut self) {
        // What is on its way could still come back.
        if let Some(giving) = &mut self.giving
            && giving.in_flight.is_empty()
        {
            giving.is_prepared = true;
            self.outbox.send(Report::Prepared);
        }
    }

    /// The successor has restored everything of every lane: from here on it serves.
    pub(in crate::worker) fn commit(&mut self) {
        let Some(giving) = self.giving.as_mut().filter(|giving| !giving.has_failed) else {
            return;
        };
        self.core.drop_idle_pipes();
        self.core.flush_entries();
        // Set first: with an End that may have arrived, only the slots say who serves what.
        giving.has_ended = true;
        if let Err(error) = message::send(&giving.peer, &[&[4]], &[], true) {
            return self.fail_giving(&format!("takeover socket: {error}"));
        }
        self.outbox.send(Report::Given);
    }

    pub(super) fn read_acknowledgements(&mut self) {
        let mut buffer = [0u8; 64];
        loop {
            let Some(giving) = &mut self.giving else {
                return;
            };
            let mut none = Vec::new();
            let length = match message::receive(&giving.peer, &mut buffer, &mut none, false) {
                Ok(received) => received.len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => 0,
            };
            if length == 0 {
                if !giving.has_ended {
                    self.fail_giving("the successor closed its end");
                }
                return;
            }
            let oldest = giving
                .in_flight
                .front()
                .map(|batch| (batch.number, batch.fds));
            match acknowledgement(&buffer[..length]) {
                Ok(found) if Some(found) == oldest => {
                    // Raw TCP: closes our duplicates of its descriptors, and nothing else.
                    let items = giving.in_flight.pop_front().map(|batch| batch.items);
                    let is_kept = |item: &Item| !item.goes_on();
                    let items = items.into_iter().flatten();
                    giving.kept.extend(items.filter(is_kept));
                }
                _ => return self.fail_giving("an acknowledgement that does not fit"),
            }
        }
    }

    /// The successor is dead and waited for: what it did not come to own is ours.
    pub(in crate::worker) fn take_back(&mut self, successor: u32) {
        self.read_acknowledgements();
        let Some(giving) = self.giving.take() else {
            return self.outbox.send(Report::TookBack);
        };
        self.core.unwatch(&giving.peer);
        self.core.is_giving = false;
        self.resume_handshakes();
        let mut items = if giving.has_ended {
            self.not_served_by(successor, giving.kept)
        } else {
            giving.kept
        };
        items.extend(giving.in_flight.into_iter().flat_map(|batch| batch.items));
        self.put_back(items);
        http2::thaw(&mut self.core, &mut self.room, &mut self.http);
        tracing::info!(successor, lane = self.core.lane, "connections taken back");
        // Accepting goes on when the keeper has sent what the successor had acknowledged.
        self.outbox.send(Report::TookBack);
    }

    /// Of what stood still, that of which the successor had not begun to read. The rest is the
    /// keeper's, or is lost.
    fn not_served_by(&self, successor: u32, items: Vec<Item>) -> Vec<Item> {
        let of_successor = |index: u32| {
            let owner = &self.core.slot(index).owner;
            owner.load(Ordering::Relaxed) == successor
        };
        let mut slots = items.iter().filter_map(Item::slot).peekable();
        let has_begun = slots.peek().is_none() || slots.any(of_successor);
        let is_ours = |item: &Item| {
            // A connection to a member has no slot: it may be in the midst of an answer. An HTTP/2
            // one is not touched before a client is served.
            let Some(index) = item.slot() else {
                return matches!(item, Item::Trunk(..)) && !has_begun;
            };
            let slot = self.core.slot(index);
            if slot.owner.load(Ordering::Relaxed) != successor {
                return true;
            }
            // The keeper does not have it, so nobody else can tell the client.
            let socket = match item {
                Item::Http(client, _) => Some(&client.socket),
                Item::Front(front, _) => Some(&front.socket),
                Item::Greeting(greeting) => Some(&greeting.socket),
                Item::Tcp(_) | Item::Idle(_) | Item::Trunk(..) => None,
            };
            if let Some(socket) = socket
                && matches!(slot.kind(), Some(Kind::Http | Kind::Http2))
                && !slot.has_flag(REGISTERED)
            {
                reset_on_close(socket);
            }
            false
        };
        items.into_iter().filter(is_ours).collect()
    }

    fn put_back(&mut self, mut items: Vec<Item>) {
        // Connections to members are there before the streams on them, and in the places where they
        // were: a slab gives the last place back first.
        items.sort_by_key(|item| match item {
            Item::Trunk(number, _) => -1 - i64::from(*number),
            _ => 0,
        });
        self.http.carried.clear();
        for item in items {
            if let Some(slot) = item.slot() {
                self.core
                    .slot(slot)
                    .owner
                    .store(self.core.incarnation, Ordering::Relaxed);
            }
            self.insert(item);
        }
    }
}

fn acknowledgement(bytes: &[u8]) -> Result<(u32, u32), Malformed> {
    let mut r = Reader::new(bytes);
    if r.u8()? != 3 {
        return Err(Malformed);
    }
    Ok((r.u32()?, r.u32()?))
}
