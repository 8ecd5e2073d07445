//! Takeover: an event loop hands its connections to the same event loop of the next program.
//!
//! ```text
//! predecessor                                         successor
//!   stops accepting; Begin (layout)          ───────►
//!   batches of raw TCP (16 connections)      ───────►  owns them; Ack; serves them
//!   batches of HTTP, which stand still       ───────►  restores them; Ack; they stand still
//!          ◄───────  Ack (number, descriptors)
//!   all lanes have every Ack: End            ───────►  owns and serves HTTP; accepts
//! ```
//!
//! A batch is taken out of the predecessor's epoll before it is sent. Raw TCP has no state but the
//! kernel's and the slot file's, so it goes on at once, and its descriptors are closed here with
//! the acknowledgement; if the successor dies, it comes from the keeper with every byte. HTTP has
//! state in memory: the predecessor keeps descriptors and codecs of every connection until the
//! successor has restored all of all lanes, and the successor reads no byte of any before End. If
//! it is silent for [`ACK_US_MAX`], or dies, the keeper ends it and waits for that; then the
//! predecessor goes on with all that it kept. The commit of one connection is its owner in the slot
//! file, written by the successor before it serves it: what it owns when it dies after End is lost
//! or lives on as after any crash, and is counted so.
//!
//! HTTP stands still for as long as the HTTP connections of the fullest lane take: some 5 µs each,
//! 50 ms for 10,000. Connections stay in their slots, and the keeper's duplicates stay as they are.
//! Between two batches the predecessor serves what it has not sent yet; new connections wait in the
//! listening sockets until End.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use hitless_carry::slots::{Kind, REGISTERED};
use hitless_carry::{memory, message};

use super::core_of_lane::{Core, Source, reset_on_close};
use super::event_loop::{EventLoop, Report};
use super::record::{FDS_PER_ITEM, Item};
use super::trial::Fault;
use super::{http, tcp};
use crate::clock::now_us;
use crate::ledger::{Field, TAKEOVER};
use crate::link::SNAPSHOT_LAYOUT;
use crate::wire::{Malformed, Reader, Writer};

/// Connections of one batch: all at once would stop each for a quarter of a second, 16 for a
/// fraction of a millisecond.
const BATCH: usize = 16;
/// Batches on their way.
const IN_FLIGHT_MAX: usize = 4;
/// A batch takes some 100 µs; a successor that needs this long hangs.
const ACK_US_MAX: u64 = 1_000_000;
/// Longer records travel in a memory file beside the packet.
const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Records of one batch: 16 connections with four buffers of 256 KiB each.
const BATCH_BYTES_MAX: u64 = 32 << 20;

const _: () = assert!(BATCH * FDS_PER_ITEM < message::FDS_MAX);

/// Handing over.
pub(super) struct Giving {
    peer: OwnedFd,
    in_flight: VecDeque<Batch>,
    /// HTTP that the successor has acknowledged and does not serve before End.
    kept: Vec<Item>,
    next: u32,
    is_full: bool,
    has_failed: bool,
    /// All is acknowledged; what the other lanes say is awaited.
    is_prepared: bool,
    has_ended: bool,
}

struct Batch {
    number: u32,
    items: Vec<Item>,
    fds: u32,
    sent_us: u64,
}

/// Being handed to.
pub(super) struct Taking {
    peer: OwnedFd,
    batches: u32,
    /// HTTP that stands still until End, and since when.
    still: Vec<(u64, Item)>,
}

impl Giving {
    pub(super) fn has_room(&self) -> bool {
        self.in_flight.len() < IN_FLIGHT_MAX
            && !self.is_full
            && !self.has_failed
            && !self.is_prepared
    }

    pub(super) fn deadline_us(&self) -> Option<u64> {
        if self.has_failed {
            return None;
        }
        let oldest = self
            .in_flight
            .front()
            .map(|batch| batch.sent_us + ACK_US_MAX);
        if self.is_full && !self.is_prepared {
            Some(now_us() + 1000)
        } else {
            oldest
        }
    }
}

impl EventLoop {
    pub(super) fn begin_giving(&mut self, peer: OwnedFd) {
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
    pub(super) fn give_more(&mut self) {
        loop {
            let now_us = self.core.now_us;
            let Some(giving) = &mut self.giving else {
                return;
            };
            if giving.is_prepared || giving.has_failed {
                return;
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
        while items.len() < BATCH {
            if self.pairs.is_empty() && matches!(items.first(), Some(Item::Tcp(_))) {
                break;
            }
            let Some(item) = self.take_item() else { break };
            items.push(item);
        }
        items
    }

    fn take_item(&mut self) -> Option<Item> {
        let Self {
            core, pairs, http, ..
        } = self;
        if let Some(index) = pairs.iter().map(|(index, _)| index).next() {
            let pair = pairs.remove(index);
            for socket in &pair.sockets {
                core.unwatch(socket);
            }
            core.leave_member(pair.member);
            core.open -= 1;
            return Some(Item::Tcp(pair));
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
    pub(super) fn commit(&mut self) {
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

    pub(super) fn on_takeover(&mut self) {
        if self.giving.is_some() {
            self.read_acknowledgements();
        } else {
            self.read_batches();
        }
    }

    fn read_acknowledgements(&mut self) {
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
                    let is_kept = |item: &Item| !matches!(item, Item::Tcp(_));
                    let items = items.into_iter().flatten();
                    giving.kept.extend(items.filter(is_kept));
                }
                _ => return self.fail_giving("an acknowledgement that does not fit"),
            }
        }
    }

    /// The successor is dead and waited for: what it did not come to own is ours.
    pub(super) fn take_back(&mut self, successor: u32) {
        self.read_acknowledgements();
        let Some(giving) = self.giving.take() else {
            return self.outbox.send(Report::TookBack);
        };
        self.core.unwatch(&giving.peer);
        self.core.is_giving = false;
        for batch in giving.in_flight {
            self.put_back(batch.items);
        }
        let kept = if giving.has_ended {
            self.not_served_by(successor, giving.kept)
        } else {
            giving.kept
        };
        self.put_back(kept);
        tracing::info!(successor, lane = self.core.lane, "connections taken back");
        // Accepting goes on when the keeper has sent what the successor had acknowledged.
        self.outbox.send(Report::TookBack);
    }

    /// Of what stood still, that of which the successor had not begun to read. The rest is the
    /// keeper's, or is lost.
    fn not_served_by(&self, successor: u32, items: Vec<Item>) -> Vec<Item> {
        let is_ours = |item: &Item| {
            // A connection to a member has no slot: it may be in the midst of an answer.
            let Some(index) = item.slot() else {
                return false;
            };
            let slot = self.core.slot(index);
            if slot.owner.load(Ordering::Relaxed) != successor {
                return true;
            }
            // The keeper does not have it, so nobody else can tell the client.
            if let Item::Http(client, _) = item
                && slot.kind() == Some(Kind::Http)
                && !slot.has_flag(REGISTERED)
            {
                reset_on_close(&client.socket);
            }
            false
        };
        items.into_iter().filter(is_ours).collect()
    }

    fn put_back(&mut self, items: Vec<Item>) {
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

    pub(super) fn begin_taking(&mut self, peer: OwnedFd) {
        let watched = self.core.watch_reads(&peer, Source::Takeover);
        self.taking = Some(Taking {
            peer,
            batches: 0,
            still: Vec::new(),
        });
        if let Err(error) = watched {
            self.outbox
                .send(Report::Failed(format!("takeover socket: {error}")));
        }
    }

    fn read_batches(&mut self) {
        let mut buffer = vec![0u8; message::BYTES_MAX];
        loop {
            let Some(taking) = &mut self.taking else {
                return;
            };
            let mut fds = Vec::new();
            let received = match message::receive(&taking.peer, &mut buffer, &mut fds, false) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => message::Received {
                    len: 0,
                    fds_lost: false,
                },
            };
            if received.fds_lost {
                let text = "descriptors were lost on their way: the successor is at its limit";
                return self.outbox.send(Report::Failed(text.to_owned()));
            }
            if received.len == 0 {
                // It died before its End: nobody else has what it sent, and the keeper knows when
                // it is gone and has the rest.
                self.core.now_us = now_us();
                self.finish_taking();
                return self.outbox.send(Report::PredecessorGone);
            }
            self.core.now_us = now_us();
            match self.on_packet(&buffer[..received.len], fds) {
                Ok(true) => {}
                Ok(false) => return,
                Err(Malformed) => {
                    let text = "a connection record that this program cannot read";
                    return self.outbox.send(Report::Failed(text.to_owned()));
                }
            }
        }
    }

    /// `false`: the takeover of this lane is over.
    fn on_packet(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) -> Result<bool, Malformed> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            1 => {
                if r.u16()? != SNAPSHOT_LAYOUT {
                    return Err(Malformed);
                }
                Ok(true)
            }
            2 => {
                self.on_batch(&mut r, fds)?;
                Ok(true)
            }
            4 => {
                self.misbehave(true);
                self.finish_taking();
                self.start_accepting();
                self.outbox.send(Report::Taken);
                Ok(false)
            }
            _ => Err(Malformed),
        }
    }

    fn on_batch(&mut self, r: &mut Reader<'_>, mut fds: Vec<OwnedFd>) -> Result<(), Malformed> {
        let (number, frozen_us) = (r.u32()?, r.u64()?);
        let (items_count, fds_count) = (r.u32()?, r.u32()?);
        let held;
        let mut records = if r.flag()? {
            let file = fds.pop().ok_or(Malformed)?;
            held = memory::to_bytes(&file, BATCH_BYTES_MAX).map_err(|_| Malformed)?;
            Reader::new(&held)
        } else {
            *r
        };
        if fds.len() != fds_count as usize || items_count as usize > BATCH {
            return Err(Malformed);
        }
        self.misbehave(false);
        let mut fds = fds.into_iter();
        let mut items = Vec::new();
        for _ in 0..items_count {
            items.push(Item::read(&mut self.core, &mut records, &mut fds)?);
        }
        let goes_on = matches!(items.first(), Some(Item::Tcp(_)));
        if goes_on {
            // Owned before acknowledged: if this process dies now, the predecessor takes them back,
            // and if it dies later, the keeper finds them under this owner.
            self.own(&items);
        }
        let Some(taking) = &mut self.taking else {
            return Ok(());
        };
        taking.batches += 1;
        let mut w = Writer::new();
        w.u8(3).u32(number).u32(fds_count);
        // A predecessor that died cannot take back either: serving them is right in any case.
        let _ = message::send(&taking.peer, &[&w.bytes], &[], true);
        let items = items.into_iter().map(|item| (frozen_us, item));
        if goes_on {
            items.for_each(|(frozen_us, item)| self.go_on(frozen_us, item));
        } else {
            taking.still.extend(items);
        }
        Ok(())
    }

    fn own(&self, items: &[Item]) {
        for slot in items.iter().filter_map(Item::slot) {
            self.core
                .slot(slot)
                .owner
                .store(self.core.incarnation, Ordering::Relaxed);
        }
    }

    /// Nobody else serves what stood still: it goes on here.
    fn finish_taking(&mut self) {
        let Some(taking) = self.taking.take() else {
            return;
        };
        self.core.unwatch(&taking.peer);
        for (frozen_us, item) in taking.still {
            self.own(core::slice::from_ref(&item));
            self.go_on(frozen_us, item);
        }
    }

    fn go_on(&mut self, frozen_us: u64, item: Item) {
        count_carried(&self.core, &item);
        self.insert(item);
        let ledger = TAKEOVER.of(self.core.slots.head());
        let now = now_us();
        ledger.max(Field::StallUsMax, now.saturating_sub(frozen_us));
        ledger.max(Field::EndedUs, now);
    }

    /// Serves what another event loop served.
    fn insert(&mut self, item: Item) {
        let Self {
            core,
            room,
            pairs,
            http,
            ..
        } = self;
        match item {
            Item::Tcp(pair) => {
                core.open += 1;
                core.enter_member(pair.member);
                let index = pairs.insert(pair);
                tcp::begin(core, pairs, index);
            }
            Item::Http(client, up) => {
                core.open += 1;
                let index = http.clients.insert(*client);
                if let Some(mut up) = up {
                    core.enter_member(up.member);
                    up.client = Some(index);
                    let at = http.ups.insert(up);
                    let _ = core.watch(&http.ups[at].socket, Source::HttpMember(at));
                    http.clients[index].up = Some(at);
                }
                http::begin(core, room, http, index);
            }
            Item::Idle(up) => {
                let member = up.member;
                let at = http.ups.insert(up);
                let _ = core.watch(&http.ups[at].socket, Source::HttpMember(at));
                core.tables.members[member].idle.push(at);
                http::on_member_timer(core, http, at);
            }
        }
    }

    /// Does what a test wants a successor to do wrong.
    fn misbehave(&self, is_end: bool) {
        let batches = self.taking.as_ref().map_or(0, |taking| taking.batches);
        match self.core.trial.fault {
            Some(Fault::DieAtBatch(at)) if batches >= at => std::process::abort(),
            Some(Fault::DieAtEnd) if is_end => std::process::abort(),
            Some(Fault::HangAtEnd) if is_end => hang(),
            Some(Fault::HangAtBatch(at)) if batches >= at => hang(),
            _ => {}
        }
    }
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

fn acknowledgement(bytes: &[u8]) -> Result<(u32, u32), Malformed> {
    let mut r = Reader::new(bytes);
    if r.u8()? != 3 {
        return Err(Malformed);
    }
    Ok((r.u32()?, r.u32()?))
}

fn count_carried(core: &Core, item: &Item) {
    let ledger = TAKEOVER.of(core.slots.head());
    match item {
        Item::Tcp(pair) => {
            ledger.add(Field::Carried, 1);
            ledger.add(Field::BytesInPipes, pair.bytes_in_pipes());
            ledger.add(Field::MidMessage, u64::from(pair.bytes_in_pipes() > 0));
        }
        Item::Http(client, _) => {
            use hitless_proto::http1::Side;
            ledger.add(Field::Carried, 1);
            ledger.add(Field::MidMessage, client.is_mid_message().into());
            let codec = &client.codec;
            let sides = [Side::Client, Side::Member];
            let bytes = sides.map(|side| codec.stuck(side).len() + codec.unsent(side).len());
            ledger.add(Field::BytesBuffered, bytes.iter().sum::<usize>() as u64);
        }
        Item::Idle(_) => {}
    }
}
