//! After a crash: what a dead worker owned, from the keeper's duplicates and the slot file.
//!
//! Raw TCP goes on as it was: its bytes are in sockets and pipes. An idle HTTP connection goes on
//! if the kernel's byte counters are where the last finished exchange left them; otherwise bytes of
//! a request or response died with the worker's memory, and the client is told by a reset. A
//! connection on which two workers in a row died is not given to a third.

use core::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use hitless_carry::slots::{CLOSING, IN_FLIGHT, Kind, REGISTERED, SEALED, Slots};
use hitless_carry::socket::{TcpState, bytes_in_pipe, progress};
use hitless_types::site::Protocol;
use rustix::net::RecvFlags;
use serde_json::{Value, json};

use super::core_of_lane::{Core, Pipe, end_on_close, reset_on_close};
use super::event_loop::{EventLoop, Report};
use super::http::{self, Client};
use super::stats::{Keyed, Lane};
use super::tcp::{self, CLIENT, MEMBER, Pair};
use super::tls::{self, Sealed};
use crate::clock::now_us;
use crate::ledger::{CRASH, Field};
use crate::link::lane::{Entry, decode};

/// Crashes on one connection after which it is closed.
const CRASHES_MAX: u32 = 2;
/// Unread bytes that a description of one has.
const UNREAD_SHOWN_MAX: usize = 16 << 10;

/// Looks at what the dead worker was doing in each lane, and counts its death against that: the
/// slot of each lane that is to blame. Before anything is adopted.
///
/// A worker that was killed from outside was killed by no connection. If an event loop says that it
/// brought its worker down, the others' connections have nothing to do with it.
pub(super) fn blame(slots: &Slots, blames: bool) -> Vec<Option<u32>> {
    let lanes = || (0..slots.lanes()).map(|lane| slots.lane(lane));
    let is_known = lanes().any(|lane| lane.guilty.load(Ordering::Relaxed) != 0);
    let one = |number: u32| {
        let lane = slots.lane(number);
        let is_guilty = lane.guilty.swap(0, Ordering::Relaxed) != 0;
        lane.accepting.store(0, Ordering::Relaxed);
        let busy = lane.busy_slot.swap(0, Ordering::Relaxed).checked_sub(1)?;
        if !blames || (is_known && !is_guilty) || busy >= slots.slots_per_lane() {
            return None;
        }
        slots
            .slot(number, busy)
            .crashes
            .fetch_add(1, Ordering::Relaxed);
        Some(busy)
    };
    (0..slots.lanes()).map(one).collect()
}

/// Nobody else serves in this lane: the gauges begin at what this event loop has.
pub(super) fn reset_gauges(core: &Core) {
    for index in 0..hitless_carry::slots::KEYED_PER_LANE {
        let entry = core.slots.keyed(core.lane, index);
        entry.counters[Keyed::Open as usize].store(0, Ordering::Relaxed);
    }
    for (index, member) in core.tables.members.iter().enumerate() {
        core.count_member(index, Keyed::Open, member.open.into());
    }
}

/// One side of a connection, with the bytes that nobody has read yet: what a worker stumbles over
/// is most often the next thing that it would have read.
fn describe_socket(fd: &OwnedFd) -> Value {
    let address = |address: Option<rustix::net::SocketAddrAny>| {
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        address.map(|address| address.to_string())
    };
    let now = progress(fd).ok();
    let mut unread = vec![0u8; UNREAD_SHOWN_MAX];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let count = rustix::net::recv(fd, &mut unread[..], flags).map_or(0, |(count, _)| count);
    json!({
        "peer": address(rustix::net::getpeername(fd).ok().flatten()),
        "local": address(rustix::net::getsockname(fd).ok()),
        "state": now.map(|now| format!("{:?}", now.state).to_lowercase()),
        "read": now.map(|now| now.read),
        "written": now.map(|now| now.written),
        "unread": unread[..count].escape_ascii().to_string(),
    })
}

impl EventLoop {
    pub(super) fn adopt_packet(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) {
        let Ok(entries) = decode(bytes) else {
            return tracing::error!("the keeper sent what is no packet of a lane");
        };
        self.core.now_us = now_us();
        let mut fds = fds.into_iter();
        for entry in entries {
            let with: Vec<OwnedFd> = fds.by_ref().take(entry.fds()).collect();
            match entry {
                Entry::AddPipe { pipe } => {
                    if let Ok([reader, writer]) = <[OwnedFd; 2]>::try_from(with) {
                        self.orphan_pipes.insert(pipe, (reader, writer));
                    }
                }
                Entry::Register {
                    slot, generation, ..
                } => self.adopt(slot, generation, with),
                Entry::Fresh => self.fresh.extend(with),
                Entry::End { dead, searched } => self.adopted_all(dead, searched),
                Entry::Release { .. } | Entry::DropPipe { .. } => {}
            }
        }
    }

    fn adopt(&mut self, index: u32, generation: u32, fds: Vec<OwnedFd>) {
        if index >= self.core.slots.slots_per_lane() {
            return;
        }
        let slot = self.core.slot(index);
        if slot.generation.load(Ordering::Relaxed) != generation {
            return;
        }
        if self.core.blamed != Some(index) {
            // Deaths count in a row.
            slot.crashes.store(0, Ordering::Relaxed);
        }
        self.core.busy(Some(index));
        self.adopt_slot(index, fds);
        self.core.busy(None);
    }

    fn adopt_slot(&mut self, index: u32, fds: Vec<OwnedFd>) {
        let slot = self.core.slot(index);
        let crashes = slot.crashes.load(Ordering::Relaxed);
        let (kind, is_sealed) = (slot.kind(), slot.has_flag(SEALED));
        slot.owner.store(self.core.incarnation, Ordering::Relaxed);
        self.core.open += 1;
        if crashes >= CRASHES_MAX {
            self.core.count(Lane::Quarantined, 1);
            let (text, known) = self.describe(index, &fds);
            self.outbox.send(Report::Quarantined { text, known });
            return self.lose(index, &fds);
        }
        let kept = self.core.entry(index).is_some_and(tls::holds);
        if is_sealed && !kept && kind != Some(Kind::Http2) {
            if kind == Some(Kind::Http) && self.core.slot(index).has_flag(IN_FLIGHT) {
                let ledger = CRASH.of(self.core.slots.head());
                ledger.add(Field::InFlightLost, 1);
            }
            return self.lose(index, &fds);
        }
        let mut fds_left = fds.into_iter();
        match (kind, fds_left.next(), fds_left.next()) {
            (Some(Kind::Tcp), Some(client), Some(member)) => self.adopt_tcp(index, client, member),
            // With a member if it was just switching: a request under way like any other.
            (Some(Kind::Http), Some(client), _) => self.adopt_http(index, client),
            (Some(Kind::Http2), Some(client), None) => {
                // Its tables and streams were in the dead worker's memory.
                self.count_lost_streams(index);
                self.lose(index, &[client]);
            }
            (_, first, second) => {
                let fds: Vec<OwnedFd> = first.into_iter().chain(second).collect();
                self.lose(index, &fds);
            }
        }
    }

    fn adopt_tcp(&mut self, index: u32, client: OwnedFd, member: OwnedFd) {
        let core = &mut self.core;
        let key = core.slot(index).virtual_server.load(Ordering::Relaxed);
        let server = core.tables.server_of(key, Protocol::Tcp);
        let is_sealed = core.slot(index).has_flag(SEALED);
        let expects = is_sealed && core.entry(index).is_some_and(tls::expects_member);
        let is_connecting = match progress(&member).map(|now| now.state) {
            // The handshake with it died with its worker; nothing of the client's is lost.
            Ok(TcpState::Open) if expects => true,
            Ok(TcpState::Connecting) => true,
            // Refused, and nobody has tried another one.
            Ok(TcpState::Closed) => {
                progress(&client).is_ok_and(|now| now.read == 0 && now.written == 0)
            }
            _ => false,
        };
        let peer = rustix::net::getpeername(&member).ok().flatten();
        let address = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        // A handshake under way has no peer yet by this call; its member is not known, so the
        // connect begins anew.
        let place = match address {
            Some(address) if !is_connecting => core.tables.member_of(server, address),
            _ => core
                .tables
                .member_named("", SocketAddr::from(([0, 0, 0, 0], 0)), 0),
        };
        core.enter_member(place);
        let now_us = core.now_us;
        let mut pair = Pair::new(
            index,
            server,
            place,
            [client, member],
            is_connecting,
            now_us,
        );
        for from in [CLIENT, MEMBER] {
            let bound = core.slot(index).pipes[from].load(Ordering::Relaxed);
            let Some(number) = bound.checked_sub(1) else {
                continue;
            };
            let Some((reader, writer)) = self.orphan_pipes.remove(&number) else {
                // Bytes of it may be in a pipe that nobody has: it would go on with a hole.
                core.leave_member(place);
                return self.lose(index, &pair.sockets);
            };
            let length = bytes_in_pipe(&reader).unwrap_or(0) as usize;
            let pipe = Pipe {
                number,
                reader,
                writer,
                length,
                is_adopted: true,
            };
            if length > 0 {
                pair.directions[from].pipe = Some(pipe);
            } else {
                core.slot(index).pipes[from].store(0, Ordering::Relaxed);
                core.give_pipe(pipe);
            }
        }
        if is_sealed {
            let Some(sealed) = Sealed::recover(core, index, &pair.sockets, is_connecting) else {
                core.leave_member(place);
                return self.lose(index, &pair.sockets);
            };
            pair.sealed = Some(Box::new(sealed));
        }
        let ledger = CRASH.of(core.slots.head());
        ledger.add(Field::Carried, 1);
        ledger.add(Field::BytesInPipes, pair.bytes_in_pipes());
        let at = self.pairs.insert(pair);
        if is_connecting {
            tcp::reconnect(&mut self.core, &mut self.pairs, at);
        } else {
            tcp::begin(&mut self.core, &mut self.pairs, at);
        }
        self.note_stall();
    }

    fn adopt_http(&mut self, index: u32, socket: OwnedFd) {
        let core = &mut self.core;
        let slot = core.slot(index);
        let read_done = slot.read_done.load(Ordering::Relaxed);
        let written_done = slot.written_done.load(Ordering::Relaxed);
        let now = progress(&socket).ok();
        let mut layer = None;
        if slot.has_flag(SEALED) {
            let recover = |entry| tls::recover_http(entry, read_done, written_done);
            layer = core.entry(index).and_then(recover).map(Box::new);
        }
        if slot.has_flag(CLOSING) && now.is_some_and(|now| now.written >= written_done) {
            // All that was to come has gone out: only its end is missing.
            end_on_close(&socket);
            tls::shut_down(&socket, &mut layer);
            CRASH.of(core.slots.head()).add(Field::Finished, 1);
            slot.set_flag(REGISTERED, true);
            return core.end_slot(index);
        }
        let is_whole = now.is_some_and(|now| {
            now.state == TcpState::Open && now.read == read_done && now.written == written_done
        });
        if !is_whole {
            CRASH.of(core.slots.head()).add(Field::InFlightLost, 1);
            return self.lose(index, &[socket]);
        }
        let key = slot.virtual_server.load(Ordering::Relaxed);
        slot.set_flag(IN_FLIGHT, false);
        slot.set_flag(REGISTERED, true);
        let server = core.tables.server_of(key, Protocol::Http);
        let peer = rustix::net::getpeername(&socket).ok().flatten();
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        let address = peer.map_or_else(|| [0, 0, 0, 0].into(), |peer| peer.ip());
        let mut client = Client::new(index, server, socket, address, core.now_us);
        client.read = read_done;
        client.written = written_done;
        client.tls = layer;
        CRASH.of(core.slots.head()).add(Field::Carried, 1);
        let at = self.http.clients.insert(client);
        let Self {
            core, room, http, ..
        } = self;
        http::begin(core, room, http, at);
        self.note_stall();
    }

    /// What is known of a connection on which workers died, for people: a line, and all of it.
    fn describe(&self, index: u32, fds: &[OwnedFd]) -> (String, String) {
        let slot = self.core.slot(index);
        let key = slot.virtual_server.load(Ordering::Relaxed);
        let servers = &self.core.tables.servers;
        let server = servers.iter().find(|server| server.key == key);
        let name = server.map_or("?", |server| server.name.as_str());
        let sides: Vec<Value> = fds.iter().map(describe_socket).collect();
        let client = sides.first().and_then(|side| side["peer"].as_str());
        let text = format!(
            "cut {} of virtual server {name}, on which {CRASHES_MAX} workers in a row died",
            client.unwrap_or("?")
        );
        let known = json!({
            "virtual_server": name,
            "protocol": server.map(|server| server.protocol.name()),
            "workers_died": slot.crashes.load(Ordering::Relaxed),
            "client": sides.first(),
            "member": sides.get(1),
            "http_read_done": slot.read_done.load(Ordering::Relaxed),
            "http_written_done": slot.written_done.load(Ordering::Relaxed),
        });
        (text, format!("{known:#}\n"))
    }

    /// Requests that were under way on an HTTP/2 connection.
    fn count_lost_streams(&self, index: u32) {
        let slot = self.core.slot(index);
        let under_way = slot.read_done.load(Ordering::Relaxed);
        CRASH
            .of(self.core.slots.head())
            .add(Field::InFlightLost, under_way);
    }

    /// A connection that cannot go on: its client notices.
    fn lose(&mut self, index: u32, fds: &[OwnedFd]) {
        for fd in fds {
            reset_on_close(fd);
        }
        CRASH.of(self.core.slots.head()).add(Field::Reset, 1);
        self.core.slot(index).set_flag(REGISTERED, true);
        self.core.end_slot(index);
    }

    fn note_stall(&self) {
        let ledger = CRASH.of(self.core.slots.head());
        let now = now_us();
        ledger.max(Field::EndedUs, now);
        ledger.max(
            Field::StallUsMax,
            now.saturating_sub(ledger.read(Field::BeganUs)),
        );
    }

    /// The keeper has sent all, and this is the only worker: what is still another's, it had no
    /// descriptors of.
    fn adopted_all(&mut self, dead: u32, searched: bool) {
        self.orphan_pipes.clear();
        if dead != 0 {
            for index in 0..self.core.slots.slots_per_lane() {
                let slot = self.core.slot(index);
                let owner = slot.owner.load(Ordering::Relaxed);
                if slot.kind() != Some(Kind::Free) && owner != self.core.incarnation {
                    let ledger = CRASH.of(self.core.slots.head());
                    let is_begun = slot.has_flag(IN_FLIGHT) || slot.has_flag(SEALED);
                    if slot.has_flag(CLOSING) {
                        ledger.add(Field::Finished, 1);
                    } else if slot.kind() == Some(Kind::Http2) {
                        self.count_lost_streams(index);
                        ledger.add(Field::Reset, 1);
                    } else {
                        if slot.has_flag(IN_FLIGHT) {
                            ledger.add(Field::InFlightLost, 1);
                        }
                        // Of the others nothing was read: their clients are among those that were
                        // found, and begin anew.
                        if is_begun || !searched {
                            ledger.add(Field::Reset, 1);
                        }
                    }
                    if let Some(entry) = self.core.entry(index) {
                        entry.wipe();
                    }
                    slot.end();
                }
            }
            self.note_stall();
        }
        // Beside a living predecessor its Begin says when; while giving, nothing is accepted.
        if self.taking.is_none() && self.giving.is_none() && !self.core.is_draining {
            reset_gauges(&self.core);
            self.core.find_free_slots();
            self.take_fresh();
            self.start_accepting();
        } else if self.giving.is_none() {
            self.take_fresh();
        }
        self.core.flush_entries();
        if dead != 0 {
            self.outbox.send(Report::Adopted);
        }
    }
}
