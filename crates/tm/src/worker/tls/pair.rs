//! Raw TCP of which one side or both speak TLS: bytes have to pass through this process.
//!
//! Nothing is taken out of a source's socket before all that became of it is in the other side's.
//! A direction looks at what there is, opens or seals it, sends it, and only then takes it out of
//! the source. So nothing but keys and numbers is ever in this process alone: the bytes of a *batch*
//! are in the source's socket, and what was sent of it the kernel has counted.
//!
//! ```text
//! between batches ─ look, open, seal ─► sending ─ all sent ─ take out ─► between batches
//! ```
//!
//! So a kill costs nothing: keys and numbers are in the vault ([`kept`]), a batch is noted there
//! before its first byte goes out, and the next worker opens and seals it again. Only while keys
//! change can a kill cost the connection.

use std::os::fd::OwnedFd;

use hitless_carry::socket::{hold_window, progress};
use hitless_proto::tls::{Event, Role};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown};

use super::kept::{self, KeptBatch};
use super::layer::{Layer, Tls, has_unsent, send_bytes};
use super::shaking::Shaking;
use crate::wire::{Malformed, Reader, Writer};
use crate::worker::core_of_lane::Core;
use crate::worker::http::READ_BYTES_MAX;
use crate::worker::stats::Keyed;
use crate::worker::tcp::{CLIENT, MEMBER};
use crate::worker::trial::Point;

/// A record that is not whole stays in the socket, and beside it what the kernel has of the packet
/// that its first bytes came in, up to 64 KiB and as much of the kernel's own: the window has to stay
/// open beyond these.
const WINDOW_BYTES: u32 = 256 * 1024;

/// TLS of a raw TCP pair.
#[derive(Debug, Default)]
pub(in crate::worker) struct Sealed {
    pub(in crate::worker) sides: [Tls; 2],
    batches: [Batch; 2],
    /// The handshake with the member; until it is over, the pair is connecting.
    pub(in crate::worker) shaking: Option<Box<Shaking>>,
    /// The kernel has told of this side's end.
    pub(in crate::worker) is_hung_up: [bool; 2],
    slot: u32,
    /// Bytes taken out of each side's socket, and written to it, as the kernel counts them.
    taken: [u64; 2],
    written: [u64; 2],
    /// Keys change: what is in the vault does not hold until all is still.
    is_changing: bool,
}

/// What is on its way in one direction.
#[derive(Debug, Default)]
struct Batch {
    /// Bytes of the source that it stands for, which are still in its socket.
    source: usize,
    /// What the destination has not taken of it.
    unsent: Vec<u8>,
}

/// How a step of one direction went.
pub(in crate::worker) enum Step {
    /// Something moved.
    Moved,
    /// The source has nothing more, the destination takes nothing more.
    WaitsForSource,
    WaitsForDestination,
    /// The source said that this was all, and all of it has gone on.
    Ended,
}

impl Sealed {
    /// A pair whose client's handshake is over, or that needs none. `expects`: one with the member
    /// is to come.
    pub(in crate::worker) fn new(
        core: &Core,
        slot: u32,
        client: (&OwnedFd, Tls),
        expects: bool,
    ) -> Box<Self> {
        core.seal_slot(slot);
        let (socket, layer) = client;
        let mut sealed = Self {
            sides: [layer, None],
            slot,
            ..Self::default()
        };
        sealed.count(CLIENT, socket);
        if let Some(entry) = core.entry(slot) {
            kept::changes(entry);
            if let Some(layer) = &sealed.sides[CLIENT] {
                kept::put_layer(entry, CLIENT, &layer.records, None);
            }
            if expects {
                kept::expect_layer(entry, MEMBER);
            }
            sealed.is_changing = sealed.has_unsent_control();
            if !sealed.is_changing {
                kept::now_holds(entry);
            }
        }
        Box::new(sealed)
    }

    /// What began as HTTP. Bytes may wait in its layers that codecs have not seen.
    pub(in crate::worker) fn switched(
        core: &Core,
        slot: u32,
        sockets: &[OwnedFd; 2],
        layers: [Tls; 2],
    ) -> Box<Self> {
        core.seal_slot(slot);
        let mut sealed = Self {
            sides: layers,
            slot,
            is_changing: true,
            ..Self::default()
        };
        for from in [CLIENT, MEMBER] {
            sealed.count(from, &sockets[from]);
            let layer = sealed.sides[from].as_mut();
            let opened = layer.map(|layer| layer.take_plain()).unwrap_or_default();
            let out = &mut sealed.batches[from].unsent;
            match &mut sealed.sides[1 - from] {
                None => *out = opened,
                // One that we have closed takes nothing: nothing of it is under way.
                Some(layer) => drop(layer.records.seal(&opened, out)),
            }
        }
        sealed.note_still(core);
        Box::new(sealed)
    }

    /// The connection to the member is made.
    pub(in crate::worker) fn connected(&mut self, core: &Core, socket: &OwnedFd, layer: Tls) {
        self.sides[MEMBER] = layer;
        self.count(MEMBER, socket);
        self.is_changing = true;
        self.note_still(core);
    }

    /// Another member is tried.
    pub(in crate::worker) fn forget_member(&mut self) {
        self.shaking = None;
        self.sides[MEMBER] = None;
        self.is_hung_up[MEMBER] = false;
    }

    pub(in crate::worker) fn set_slot(&mut self, slot: u32) {
        self.slot = slot;
    }

    fn count(&mut self, side: usize, socket: &OwnedFd) {
        if self.sides[side].is_some() {
            hold_window(socket, WINDOW_BYTES);
        }
        if let Ok(now) = progress(socket) {
            self.taken[side] = now.read;
            self.written[side] = now.written;
        }
    }

    fn has_unsent_control(&self) -> bool {
        self.sides.iter().any(has_unsent)
    }

    fn key_changes(&self) -> u32 {
        let layers = self.sides.iter().flatten();
        layers.map(|layer| layer.records.key_changes()).sum()
    }

    /// Once nothing is on its way: what is in the vault holds again.
    fn note_still(&mut self, core: &Core) {
        let is_idle = |batch: &Batch| batch.source == 0 && batch.unsent.is_empty();
        let is_still = self.batches.iter().all(is_idle);
        let of_records = |layer: &Layer| {
            // What was closed is noted as it was before.
            let is_whole = layer.is_still() && layer.records.is_between_messages();
            is_whole && !layer.records.has_closed()
        };
        let is_whole = self.sides.iter().flatten().all(|layer| of_records(layer));
        if !self.is_changing || !is_still || !is_whole || self.has_unsent_control() {
            return;
        }
        let Some(entry) = core.entry(self.slot) else {
            return;
        };
        kept::changes(entry);
        for side in [CLIENT, MEMBER] {
            match &self.sides[side] {
                Some(layer) => kept::put_layer(entry, side, &layer.records, None),
                None => kept::forget_layer(entry, side),
            }
        }
        kept::now_holds(entry);
        self.is_changing = false;
    }

    /// After a crash. `None`: bytes of it are nowhere.
    pub(in crate::worker) fn recover(
        core: &mut Core,
        slot: u32,
        sockets: &[OwnedFd; 2],
        is_connecting: bool,
    ) -> Option<Self> {
        let vault = core.vault.clone()?;
        let entry = vault.entry(core.lane, slot);
        let now = [progress(&sockets[0]).ok()?, progress(&sockets[1]).ok()?];
        let mut pending = [None; 2];
        for from in [CLIENT, MEMBER] {
            let batch = kept::batch(entry, from);
            match now[from].read.checked_sub(batch.read_at)? {
                _ if batch.source == 0 => {}
                0 => pending[from] = Some(batch),
                taken if taken == batch.source => kept::end_batch(entry, from),
                _ => return None,
            }
        }
        let layer = |side: usize, role| {
            let records = kept::layer(entry, side, role)?;
            Some(Box::new(Layer::new(
                records,
                now[side].read,
                now[side].written,
            )))
        };
        let mut sealed = Self {
            sides: [layer(CLIENT, Role::Server), layer(MEMBER, Role::Client)],
            slot,
            taken: now.map(|now| now.read),
            written: now.map(|now| now.written),
            ..Self::default()
        };
        if is_connecting {
            sealed.sides[MEMBER] = None;
            return Some(sealed);
        }
        for from in [CLIENT, MEMBER] {
            let to = 1 - from;
            if let Some(batch) = pending[from] {
                let sent = now[to].written.checked_sub(batch.written_at)?;
                sealed.repeat(core, sockets, from, batch.source as usize, sent as usize)?;
            }
            if let Some(at) = kept::closing(entry, to)
                && let Some(layer) = &mut sealed.sides[to]
            {
                let sent = now[to].written.checked_sub(at)? as usize;
                let mut out = Vec::new();
                layer.records.close(&mut out);
                layer.records.keep_unsent(out.get(sent..)?);
            }
        }
        Some(sealed)
    }

    /// Opens and seals a batch again, of which `sent` bytes are out.
    fn repeat(
        &mut self,
        core: &mut Core,
        sockets: &[OwnedFd; 2],
        from: usize,
        source: usize,
        sent: usize,
    ) -> Option<()> {
        let length = self.look(core, sockets, from, 0).ok()??;
        let (opened, data) = self.open(core, from, length.min(source)).ok()?;
        if opened != source {
            return None;
        }
        self.batches[from].source = source;
        let (room, out) = core.tls.both();
        let bytes = match &mut self.sides[1 - from] {
            None => &room[..data],
            Some(layer) => {
                layer.records.seal(&room[..data], out).ok()?;
                &out[..]
            }
        };
        let rest = bytes.get(sent..).map(<[u8]>::to_vec);
        out.clear();
        self.batches[from].unsent = rest?;
        Some(())
    }

    /// Bytes in memory that are in no socket, or twice.
    pub(in crate::worker) fn buffered(&self) -> usize {
        let layers = self.sides.iter().flatten().map(|layer| layer.buffered());
        let batches = self.batches.iter().map(|batch| batch.unsent.len());
        layers.chain(batches).sum()
    }

    /// In the midst of a batch, or of a record.
    pub(in crate::worker) fn is_mid_message(&self) -> bool {
        self.batches.iter().any(|batch| batch.source > 0)
    }

    /// One step of the direction whose source is `from`.
    pub(in crate::worker) fn step(
        &mut self,
        core: &mut Core,
        sockets: &[OwnedFd; 2],
        from: usize,
        (server, member): (usize, usize),
    ) -> Result<Step, Errno> {
        let to = 1 - from;
        if !self.flush(sockets, from)? {
            return Ok(Step::WaitsForDestination);
        }
        if self.batches[from].source > 0 {
            self.take_out(core, sockets, from)?;
            return Ok(Step::Moved);
        }
        self.note_still(core);
        if self.sides[from]
            .as_ref()
            .is_some_and(|layer| layer.records.has_ended())
        {
            return Ok(Step::Ended);
        }
        let stuck = match &mut self.sides[from] {
            Some(layer) => layer.records.take_stuck(core.tls.sealed()),
            None => 0,
        };
        let looked = self.look(core, sockets, from, stuck);
        let Ok(Some(length)) = looked else {
            self.keep_stuck(core, from, stuck);
            return looked.map(|_| Step::WaitsForSource);
        };
        if length == 0 {
            return match &self.sides[from] {
                Some(_) => Err(Errno::CONNRESET),
                None => Ok(Step::Ended),
            };
        }
        let changes = self.key_changes();
        let (source, data) = self.open(core, from, stuck + length)?;
        if source == 0 {
            self.keep_stuck(core, from, stuck);
            if self.sides[from]
                .as_ref()
                .is_some_and(|layer| layer.records.has_ended())
            {
                return Ok(Step::Ended);
            }
            // Half a record, and nothing that could follow it.
            return match self.is_hung_up[from] {
                true => Err(Errno::CONNRESET),
                false => Ok(Step::WaitsForSource),
            };
        }
        let counter = if from == CLIENT {
            Keyed::BytesIn
        } else {
            Keyed::BytesOut
        };
        core.count_server(server, counter, data as u64);
        core.count_member(member, counter, data as u64);
        // What was stuck is less than a record, and in no socket any more.
        let source = source.saturating_sub(stuck);
        self.begin(core, sockets, (from, to), (source, data), changes)?;
        Ok(Step::Moved)
    }

    /// Sends what waits for the destination of a direction. `false`: it takes nothing more.
    fn flush(&mut self, sockets: &[OwnedFd; 2], from: usize) -> Result<bool, Errno> {
        let to = 1 - from;
        let unsent = &mut self.batches[from].unsent;
        while !unsent.is_empty() {
            match send_bytes(&sockets[to], unsent, &[]) {
                Ok(count) => {
                    self.written[to] += count as u64;
                    match count == unsent.len() {
                        true => *unsent = Vec::new(),
                        false => drop(unsent.drain(..count)),
                    }
                }
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        self.flush_layer(sockets, to)
    }

    /// Sends what a side's layer has sealed. `false`: the socket takes nothing more.
    fn flush_layer(&mut self, sockets: &[OwnedFd; 2], to: usize) -> Result<bool, Errno> {
        let Some(layer) = &mut self.sides[to] else {
            return Ok(true);
        };
        let before = layer.written;
        let flushed = layer.flush(&sockets[to]);
        self.written[to] += layer.written - before;
        flushed?;
        Ok(layer.records.unsent().is_empty())
    }

    /// Half a record that was read before this was a pair waits for its rest.
    fn keep_stuck(&mut self, core: &mut Core, from: usize, stuck: usize) {
        if let Some(layer) = &mut self.sides[from] {
            layer.records.keep_stuck(&core.tls.sealed()[..stuck]);
        }
    }

    /// What is in the source's socket, and stays there, into the room behind what is in it. `None`:
    /// nothing now.
    fn look(
        &self,
        core: &mut Core,
        sockets: &[OwnedFd; 2],
        from: usize,
        behind: usize,
    ) -> Result<Option<usize>, Errno> {
        let room = &mut core.tls.sealed()[behind..];
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        loop {
            return match rustix::net::recv(&sockets[from], &mut room[..], flags) {
                Ok((count, _)) => Ok(Some(count)),
                Err(Errno::AGAIN) => Ok(None),
                Err(Errno::INTR) => continue,
                Err(errno) => Err(errno),
            };
        }
    }

    /// Opens what was looked at, if it is sealed: data comes to the front of the room. Returns the
    /// bytes of the source that this took, and those of data.
    fn open(
        &mut self,
        core: &mut Core,
        from: usize,
        length: usize,
    ) -> Result<(usize, usize), Errno> {
        let Some(layer) = &mut self.sides[from] else {
            return Ok((length.min(READ_BYTES_MAX), length.min(READ_BYTES_MAX)));
        };
        let room = core.tls.sealed();
        let (mut at, mut data) = (0, 0);
        let mut out = Vec::new();
        let failed = loop {
            let step = layer.records.step(&mut room[at..length], &mut out);
            match step.event {
                Event::Data => {
                    let opened = at + step.data.start..at + step.data.end;
                    let count = opened.len();
                    room.copy_within(opened, data);
                    data += count;
                }
                Event::Control => {}
                Event::NeedMore => break false,
                // It stays where it is: nothing comes behind it.
                Event::Ended => break false,
                Event::Failed(_) => break true,
            }
            at += step.consumed;
        };
        // For the side that it came from: goes out with the other direction, behind what was sealed
        // before.
        layer.records.keep_unsent(&out);
        layer.read += at as u64;
        match failed {
            true => Err(Errno::PROTO),
            false => Ok((at, data)),
        }
    }

    /// Data is in the room: begins to send what becomes of it.
    fn begin(
        &mut self,
        core: &mut Core,
        sockets: &[OwnedFd; 2],
        (from, to): (usize, usize),
        (source, data): (usize, usize),
        changes: u32,
    ) -> Result<(), Errno> {
        self.batches[from].source = source;
        let mut out = core.tls.take_out();
        if data > 0
            && let Some(layer) = &mut self.sides[to]
        {
            let sealed = layer.records.seal(&core.tls.sealed()[..data], &mut out);
            sealed.map_err(|_| Errno::PIPE)?;
        }
        self.note_batch(core, (from, to), changes);
        core.point(Point::Batched);
        let bytes = match &self.sides[to] {
            None => &core.tls.sealed()[..data],
            Some(_) => &out[..],
        };
        let sent = match bytes.is_empty() {
            true => Ok(0),
            false => send_bytes(&sockets[to], bytes, &[]),
        };
        let sent = match sent {
            Err(Errno::AGAIN) => Ok(0),
            other => other,
        };
        if let Ok(sent) = sent {
            self.written[to] += sent as u64;
            self.batches[from].unsent.extend_from_slice(&bytes[sent..]);
        }
        core.point(Point::BatchSent);
        core.tls.give_out(out);
        sent.map(|_| ())
    }

    /// Notes a batch, before its first byte goes out.
    fn note_batch(&mut self, core: &Core, (from, to): (usize, usize), changes: u32) {
        let Some(entry) = core.entry(self.slot) else {
            return;
        };
        let is_whole = |layer: &Layer| layer.records.is_between_messages();
        let is_whole = self.sides.iter().flatten().all(|layer| is_whole(layer));
        if changes != self.key_changes() || self.has_unsent_control() || !is_whole {
            self.is_changing = true;
            kept::changes(entry);
        }
        let number = |side: usize, half: usize| {
            let layer = self.sides[side].as_ref();
            layer.map_or(0, |layer| layer.records.keys()[half].1)
        };
        kept::put_batch(
            entry,
            from,
            KeptBatch {
                read_at: self.taken[from],
                source: self.batches[from].source as u64,
                written_at: self.written[to],
                received_after: number(from, 0),
                sent_after: number(to, 1),
            },
        );
    }

    /// A batch is sent: its bytes leave the source's socket.
    fn take_out(
        &mut self,
        core: &mut Core,
        sockets: &[OwnedFd; 2],
        from: usize,
    ) -> Result<(), Errno> {
        let count = core::mem::take(&mut self.batches[from].source);
        let room = &mut core.tls.sealed()[..count];
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        match rustix::net::recv(&sockets[from], room, flags) {
            Ok((_, taken)) if taken == count => {}
            Ok(_) => return Err(Errno::IO),
            Err(errno) => return Err(errno),
        }
        core.point(Point::TakenOut);
        self.taken[from] += count as u64;
        if let Some(entry) = core.entry(self.slot) {
            kept::end_batch(entry, from);
        }
        self.note_still(core);
        Ok(())
    }

    /// Tells the destination that no more comes. `false`: it takes nothing now.
    pub(in crate::worker) fn finish(
        &mut self,
        core: &Core,
        sockets: &[OwnedFd; 2],
        to: usize,
    ) -> Result<bool, Errno> {
        if let Some(layer) = &mut self.sides[to]
            && !layer.records.has_closed()
        {
            if let Some(entry) = core.entry(self.slot) {
                kept::put_closing(entry, to, self.written[to]);
            }
            layer.close();
        }
        if !self.flush_layer(sockets, to)? {
            return Ok(false);
        }
        let _ = rustix::net::shutdown(&sockets[to], Shutdown::Write);
        Ok(true)
    }

    /// What is left in the sockets is nobody's: a close with bytes that nobody has read would be a
    /// reset.
    pub(in crate::worker) fn empty(&self, core: &mut Core, sockets: &[OwnedFd; 2]) {
        for socket in sockets {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let _ = rustix::net::recv(socket, core.tls.sealed(), flags);
        }
    }

    pub(in crate::worker) fn write(&self, w: &mut Writer) {
        for side in &self.sides {
            w.u8(side.is_some().into());
            if let Some(layer) = side {
                layer.write(w);
            }
        }
        for (side, batch) in self.batches.iter().enumerate() {
            w.u32(batch.source as u32).bytes(&batch.unsent);
            w.u64(self.taken[side]).u64(self.written[side]);
        }
        w.u8(self.is_changing.into());
    }

    pub(in crate::worker) fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut sealed = Self::default();
        for side in [CLIENT, MEMBER] {
            if r.flag()? {
                sealed.sides[side] = Some(Box::new(Layer::read(r)?));
            }
        }
        for from in [CLIENT, MEMBER] {
            sealed.batches[from] = Batch {
                source: r.u32()? as usize,
                unsent: r.bytes()?.to_vec(),
            };
            sealed.taken[from] = r.u64()?;
            sealed.written[from] = r.u64()?;
        }
        sealed.is_changing = r.flag()?;
        Ok(sealed)
    }
}
