//! The successor's half: batches are restored, acknowledged, and served when they are its own.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use hitless_carry::{memory, message};

use super::{BATCH, BATCH_BYTES_MAX, Taking};
use crate::clock::now_us;
use crate::ledger::{Field, TAKEOVER};
use crate::link::{SNAPSHOT_LAYOUT, SNAPSHOT_LAYOUT_OLDEST};
use crate::wire::{Malformed, Reader, Writer};
use crate::worker::core_of_lane::{Core, Source};
use crate::worker::event_loop::{EventLoop, Report};
use crate::worker::record::Item;
use crate::worker::tls::Sealed;
use crate::worker::trial::Fault;

impl EventLoop {
    pub(in crate::worker) fn begin_taking(&mut self, peer: OwnedFd) {
        let watched = self.core.watch_reads(&peer, Source::Takeover);
        self.http.carried.clear();
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

    pub(super) fn read_batches(&mut self) {
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
                if !(SNAPSHOT_LAYOUT_OLDEST..=SNAPSHOT_LAYOUT).contains(&r.u16()?) {
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
        let goes_on = items.first().is_some_and(Item::goes_on);
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

fn count_carried(core: &Core, item: &Item) {
    let ledger = TAKEOVER.of(core.slots.head());
    match item {
        Item::Tcp(pair) => {
            ledger.add(Field::Carried, 1);
            ledger.add(Field::BytesInPipes, pair.bytes_in_pipes());
            let sealed = pair.sealed.as_deref();
            let is_mid = sealed.is_some_and(Sealed::is_mid_message) || pair.bytes_in_pipes() > 0;
            ledger.add(Field::MidMessage, is_mid.into());
            ledger.add(Field::BytesBuffered, item.buffered() as u64);
        }
        Item::Http(client, _) => {
            ledger.add(Field::Carried, 1);
            ledger.add(Field::MidMessage, client.is_mid_message().into());
            ledger.add(Field::BytesBuffered, item.buffered() as u64);
        }
        Item::Front(front, _) => {
            ledger.add(Field::Carried, 1);
            ledger.add(Field::MidMessage, front.is_mid_message().into());
            ledger.add(Field::BytesBuffered, item.buffered() as u64);
        }
        Item::Greeting(_) => ledger.add(Field::Carried, 1),
        Item::Trunk(..) | Item::Idle(_) => {}
    }
}
