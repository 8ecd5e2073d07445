//! Raw TCP: a client's socket and a member's, and bytes that never leave the kernel.
//!
//! ```text
//! Connecting ─ connected ─► Open ─ both directions shut down ─► over
//!     │  └ refused, timeout: next member, at most CONNECT_TRIES_MAX
//!     └ none left: client reset
//! ```
//!
//! A direction moves bytes by splice through a pipe that it has only while bytes are in it. The
//! pipe's number is in the connection's slot before the first byte is in the pipe, and the keeper
//! has both ends, so that a kill at any point loses no byte. A pipe is filled only when empty and
//! emptied before it is filled again: the answer "try again" then says which side is stuck. Nothing
//! is read from a side whose other side does not take it: that is the back-pressure.

use core::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use hitless_carry::slots::Kind;
use mio::event::Event;
use rustix::io::Errno;
use rustix::net::Shutdown;
use rustix::pipe::SpliceFlags;
use slab::Slab;

use super::balance::key_of_client;
use super::core_of_lane::{
    Core, PIPE_BYTES, Pipe, ROUNDS_MAX, Source, end_on_close, reset_on_close,
};
use super::http::Switched;
use super::stats::{Keyed, Lane};
use super::tls::{self, Connect, Layer, Sealed, Step};
use super::trial::Point;
use crate::egress;

/// Members tried for one client connection.
pub(super) const CONNECT_TRIES_MAX: usize = 3;

pub(super) const CLIENT: usize = 0;
pub(super) const MEMBER: usize = 1;

/// One connection. `sockets[d]` is the source of direction `d` and the destination of the other.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) slot: u32,
    pub(super) server: usize,
    pub(super) member: usize,
    pub(super) sockets: [OwnedFd; 2],
    pub(super) is_connecting: bool,
    /// `None`: both sides are in cleartext, and no byte leaves the kernel.
    pub(super) sealed: Option<Box<Sealed>>,
    pub(super) tried: Vec<usize>,
    pub(super) directions: [Direction; 2],
    readable: [bool; 2],
    writable: [bool; 2],
    /// Last progress, or the beginning of the connect.
    pub(super) since_us: u64,
    armed_us: u64,
}

#[derive(Debug, Default)]
pub(super) struct Direction {
    /// Present while bytes are in it.
    pub(super) pipe: Option<Pipe>,
    /// The source has closed its half.
    pub(super) is_at_end: bool,
    /// The destination was told.
    pub(super) is_shut: bool,
}

/// What became of a connection that was worked on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Live,
    Finished,
    /// A side failed: the other gets a reset, since a stream that is cut must not look complete.
    Broken,
}

impl Pair {
    pub(super) fn new(
        slot: u32,
        server: usize,
        member: usize,
        sockets: [OwnedFd; 2],
        is_connecting: bool,
        now_us: u64,
    ) -> Self {
        Self {
            slot,
            server,
            member,
            sockets,
            is_connecting,
            sealed: None,
            tried: Vec::new(),
            directions: [Direction::default(), Direction::default()],
            readable: [true; 2],
            writable: [true; 2],
            since_us: now_us,
            armed_us: 0,
        }
    }

    pub(super) fn bytes_in_pipes(&self) -> u64 {
        let pipes = self
            .directions
            .iter()
            .filter_map(|direction| direction.pipe.as_ref());
        pipes.map(|pipe| pipe.length as u64).sum()
    }
}

/// Takes a client that was just accepted. Its sockets are registered with the keeper; the caller
/// flushes that and then calls [`begin`].
pub(super) fn accept(
    core: &mut Core,
    pairs: &mut Slab<Pair>,
    server: usize,
    client: OwnedFd,
    from: Option<SocketAddr>,
) -> Option<usize> {
    let _ = rustix::net::sockopt::set_tcp_nodelay(&client, true);
    let key = from.map_or(0, |from| key_of_client(from.ip()));
    let (slot, _) = core.begin_slot(Kind::Tcp, server)?;
    core.point(Point::Begun);
    let mut tried = Vec::new();
    let Some((member, opened)) = connect(core, server, key, &mut tried) else {
        core.count_server(server, Keyed::Failures, 1);
        core.end_slot(slot);
        return None;
    };
    core.point(Point::Connected);
    let is_connecting = core.is_connecting(&opened, member);
    let sockets = [client, opened.socket];
    core.register(slot, &[&sockets[0], &sockets[1]]);
    core.point(Point::Registered);
    let mut pair = Pair::new(slot, server, member, sockets, is_connecting, core.now_us);
    pair.tried = tried;
    if core.tables.members[member].tls.is_some() {
        let client = (&pair.sockets[CLIENT], None);
        pair.sealed = Some(Sealed::new(core, slot, client, true));
    }
    Some(pairs.insert(pair))
}

/// Goes on with what began as HTTP. Until the slot says that it is a pair, its worker's death counts
/// the request that began it as lost.
pub(super) fn take_switched(core: &mut Core, pairs: &mut Slab<Pair>, switched: Switched) {
    let Switched {
        slot,
        server,
        member,
        sockets,
        layers,
    } = switched;
    sockets.iter().for_each(reset_on_close);
    core.register(slot, &[&sockets[0], &sockets[1]]);
    core.flush_entries();
    let mut pair = Pair::new(slot, server, member, sockets, false, core.now_us);
    if layers.iter().any(Option::is_some) {
        pair.sealed = Some(Sealed::switched(core, slot, &pair.sockets, layers));
    }
    core.slot(slot).become_tcp();
    let index = pairs.insert(pair);
    begin(core, pairs, index);
}

/// Takes a client whose TLS handshake is over.
pub(super) fn accept_sealed(
    core: &mut Core,
    pairs: &mut Slab<Pair>,
    (slot, server): (u32, usize),
    client: OwnedFd,
    layer: Layer,
) {
    let mut tried = Vec::new();
    let key = key_of_peer(&client);
    let Some((member, opened)) = connect(core, server, key, &mut tried) else {
        core.count_server(server, Keyed::Failures, 1);
        return core.end_slot(slot);
    };
    core.slot(slot).become_tcp();
    let is_connecting = core.is_connecting(&opened, member);
    let sockets = [client, opened.socket];
    let mut pair = Pair::new(slot, server, member, sockets, is_connecting, core.now_us);
    pair.tried = tried;
    let expects = core.tables.members[member].tls.is_some();
    let client = (&pair.sockets[CLIENT], Some(Box::new(layer)));
    pair.sealed = Some(Sealed::new(core, slot, client, expects));
    core.register(slot, &[&pair.sockets[CLIENT], &pair.sockets[MEMBER]]);
    core.flush_entries();
    let index = pairs.insert(pair);
    begin(core, pairs, index);
}

/// Starts serving a connection that the keeper knows.
pub(super) fn begin(core: &mut Core, pairs: &mut Slab<Pair>, index: usize) {
    let Some(pair) = pairs.get(index) else { return };
    let watched = core
        .watch(&pair.sockets[CLIENT], Source::TcpClient(index))
        .and_then(|()| core.watch(&pair.sockets[MEMBER], Source::TcpMember(index)));
    match watched {
        Ok(()) => work(core, pairs, index),
        Err(_) => end(core, pairs, index, Fate::Broken),
    }
}

/// What a pool that chooses by a hash knows of a raw connection.
fn key_of_peer(client: &OwnedFd) -> u64 {
    let peer = rustix::net::getpeername(client).ok().flatten();
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    peer.map_or(0, |peer| key_of_client(peer.ip()))
}

/// Opens a connection to a member that was not tried yet.
fn connect(
    core: &mut Core,
    server: usize,
    key: u64,
    tried: &mut Vec<usize>,
) -> Option<(usize, egress::Opened)> {
    while tried.len() < CONNECT_TRIES_MAX {
        let member = core.tables.choose(server, key, tried)?;
        tried.push(member);
        let address = core.tables.members[member].address;
        core.count_member(member, Keyed::Connections, 1);
        match egress::connect(address, egress::Source::Any) {
            Ok(opened) => {
                // Towards a member, too, a stream that a death cuts must not look complete.
                reset_on_close(&opened.socket);
                core.enter_member(member);
                return Some((member, opened));
            }
            Err(_) => {
                core.count_member(member, Keyed::Failures, 1);
                core.count(Lane::ConnectRetries, 1);
            }
        }
    }
    None
}

/// A socket became ready.
pub(super) fn on_event(
    core: &mut Core,
    pairs: &mut Slab<Pair>,
    index: usize,
    side: usize,
    event: &Event,
) {
    let Some(pair) = pairs.get_mut(index) else {
        return;
    };
    pair.readable[side] |= event.is_readable() || event.is_read_closed() || event.is_error();
    pair.writable[side] |= event.is_writable() || event.is_write_closed() || event.is_error();
    if let Some(sealed) = &mut pair.sealed {
        sealed.is_hung_up[side] |= event.is_read_closed() || event.is_error();
    }
    if pair.is_connecting && side == MEMBER {
        return on_connect(core, pairs, index, event.is_writable());
    }
    work(core, pairs, index);
}

fn on_connect(core: &mut Core, pairs: &mut Slab<Pair>, index: usize, is_writable: bool) {
    let Some(pair) = pairs.get_mut(index) else {
        return;
    };
    let shaking = pair.sealed.as_mut().and_then(|one| one.shaking.take());
    let member = (&core.tables.members[pair.member], core.holds_handshakes);
    let socket = &pair.sockets[MEMBER];
    match tls::connect(member, socket, shaking, is_writable, core.tls.sealed()) {
        Connect::Open(layer) => {
            if let Some(sealed) = &mut pair.sealed {
                sealed.connected(core, &pair.sockets[MEMBER], layer);
            }
            pair.is_connecting = false;
            pair.tried = Vec::new();
            pair.since_us = core.now_us;
            work(core, pairs, index);
        }
        Connect::Waiting(shaking) => {
            if let Some(sealed) = &mut pair.sealed {
                sealed.shaking = shaking;
            }
        }
        Connect::Failed => try_next(core, pairs, index),
    }
}

/// The member did not take the connection: another one may.
pub(super) fn try_next(core: &mut Core, pairs: &mut Slab<Pair>, index: usize) {
    let Some(pair) = pairs.get_mut(index) else {
        return;
    };
    core.leave_member(pair.member);
    core.count_member(pair.member, Keyed::Failures, 1);
    core.count(Lane::ConnectRetries, 1);
    let mut tried = core::mem::take(&mut pair.tried);
    let server = pair.server;
    let key = key_of_peer(&pair.sockets[CLIENT]);
    let Some((member, opened)) = connect(core, server, key, &mut tried) else {
        // No member is left in `member`: enter it again so that the end leaves it.
        core.enter_member(pair.member);
        core.count_server(server, Keyed::Failures, 1);
        return end(core, pairs, index, Fate::Broken);
    };
    core.unwatch(&pair.sockets[MEMBER]);
    pair.is_connecting = core.is_connecting(&opened, member);
    pair.sockets[MEMBER] = opened.socket;
    pair.member = member;
    pair.tried = tried;
    if core.tables.members[member].tls.is_some() && pair.sealed.is_none() {
        let client = (&pair.sockets[CLIENT], None);
        pair.sealed = Some(Sealed::new(core, pair.slot, client, true));
    }
    if let Some(sealed) = &mut pair.sealed {
        sealed.forget_member();
    }
    pair.readable[MEMBER] = true;
    pair.writable[MEMBER] = true;
    pair.since_us = core.now_us;
    let slot = pair.slot;
    core.register(slot, &[&pair.sockets[0], &pair.sockets[1]]);
    core.flush_entries();
    match core.watch(&pairs[index].sockets[MEMBER], Source::TcpMember(index)) {
        Ok(()) => work(core, pairs, index),
        Err(_) => end(core, pairs, index, Fate::Broken),
    }
}

/// Begins the connect to a member anew, for a connection that had none yet when its worker died.
pub(super) fn reconnect(core: &mut Core, pairs: &mut Slab<Pair>, index: usize) {
    match core.watch(&pairs[index].sockets[CLIENT], Source::TcpClient(index)) {
        Ok(()) => try_next(core, pairs, index),
        Err(_) => end(core, pairs, index, Fate::Broken),
    }
}

/// Moves what can be moved.
pub(super) fn work(core: &mut Core, pairs: &mut Slab<Pair>, index: usize) {
    let Some(pair) = pairs.get_mut(index) else {
        return;
    };
    core.busy(Some(pair.slot));
    if core.trial.fault.is_some() {
        core.trial.taste(&pair.sockets[CLIENT]);
    }
    let fate = if pair.is_connecting {
        Fate::Live
    } else {
        pump(core, pair, index)
    };
    core.busy(None);
    if fate != Fate::Live {
        return end(core, pairs, index, fate);
    }
    let due_us = due_us(core, pair);
    let mut armed_us = pair.armed_us;
    core.wheel
        .set(Source::TcpClient(index).token(), due_us, &mut armed_us);
    pairs[index].armed_us = armed_us;
}

fn due_us(core: &Core, pair: &Pair) -> u64 {
    let times = &core.tables.times;
    pair.since_us
        + if pair.is_connecting {
            times.connect_us
        } else {
            times.idle_us
        }
}

/// A timer entry of this connection fired.
pub(super) fn on_timer(core: &mut Core, pairs: &mut Slab<Pair>, index: usize) {
    let Some(pair) = pairs.get_mut(index) else {
        return;
    };
    pair.armed_us = 0;
    if due_us(core, pair) > core.now_us {
        return work(core, pairs, index);
    }
    core.count(Lane::TimeoutsHit, 1);
    if pair.is_connecting {
        return try_next(core, pairs, index);
    }
    end(core, pairs, index, Fate::Broken);
}

fn pump(core: &mut Core, pair: &mut Pair, index: usize) -> Fate {
    let first = pump_direction(core, pair, index, CLIENT);
    let second = pump_direction(core, pair, index, MEMBER);
    if first == Fate::Broken || second == Fate::Broken {
        // What the other side sent before it failed still reaches its reader, as far as that takes
        // it now.
        let _ = pump_direction(core, pair, index, CLIENT);
        let _ = pump_direction(core, pair, index, MEMBER);
        return Fate::Broken;
    }
    match pair.directions.iter().all(|direction| direction.is_shut) {
        true => Fate::Finished,
        false => Fate::Live,
    }
}

fn pump_direction(core: &mut Core, pair: &mut Pair, index: usize, from: usize) -> Fate {
    if pair.sealed.is_some() {
        return pump_sealed(core, pair, index, from);
    }
    let to = 1 - from;
    for _ in 0..ROUNDS_MAX {
        if pair.directions[from].pipe.is_some() {
            if !pair.writable[to] {
                return Fate::Live;
            }
            match empty_pipe(core, pair, from) {
                Ok(()) => {}
                Err(Errno::AGAIN) => {
                    pair.writable[to] = false;
                    return Fate::Live;
                }
                Err(_) => return Fate::Broken,
            }
        } else if pair.directions[from].is_at_end {
            if !pair.directions[from].is_shut {
                pair.directions[from].is_shut = true;
                let _ = rustix::net::shutdown(&pair.sockets[to], Shutdown::Write);
            }
            return Fate::Live;
        } else {
            if !pair.readable[from] {
                return Fate::Live;
            }
            match fill_pipe(core, pair, from) {
                Ok(true) => {}
                Ok(false) => pair.directions[from].is_at_end = true,
                Err(Errno::AGAIN) => {
                    pair.readable[from] = false;
                    return Fate::Live;
                }
                Err(Errno::NOMEM | Errno::MFILE | Errno::NFILE) => {
                    // No pipe to be had: the timer of the loop comes back to it.
                    core.again.push(Source::TcpClient(index).token());
                    return Fate::Live;
                }
                Err(_) => return Fate::Broken,
            }
        }
    }
    // An edge-triggered socket says nothing again: the loop has to come back by itself.
    core.again.push(Source::TcpClient(index).token());
    Fate::Live
}

/// Likewise, through this process: a side speaks TLS.
fn pump_sealed(core: &mut Core, pair: &mut Pair, index: usize, from: usize) -> Fate {
    let to = 1 - from;
    let Some(sealed) = &mut pair.sealed else {
        return Fate::Live;
    };
    let direction = &mut pair.directions[from];
    for _ in 0..ROUNDS_MAX {
        if direction.is_shut {
            return Fate::Live;
        }
        if !direction.is_at_end {
            match sealed.step(core, &pair.sockets, from, (pair.server, pair.member)) {
                Ok(Step::Moved) => pair.since_us = core.now_us,
                Ok(Step::Ended) => direction.is_at_end = true,
                Ok(Step::WaitsForSource) => {
                    pair.readable[from] = false;
                    return Fate::Live;
                }
                Ok(Step::WaitsForDestination) => {
                    pair.writable[to] = false;
                    return Fate::Live;
                }
                Err(_) => return Fate::Broken,
            }
            continue;
        }
        match sealed.finish(core, &pair.sockets, to) {
            Ok(true) => direction.is_shut = true,
            Ok(false) => return Fate::Live,
            Err(_) => return Fate::Broken,
        }
    }
    // An edge-triggered socket says nothing again: the loop has to come back by itself.
    core.again.push(Source::TcpClient(index).token());
    Fate::Live
}

/// Source to an empty pipe. `false`: the source has ended.
fn fill_pipe(core: &mut Core, pair: &mut Pair, from: usize) -> Result<bool, Errno> {
    let Some(mut pipe) = core.take_pipe() else {
        return Err(Errno::MFILE);
    };
    let bound = &core.slot(pair.slot).pipes[from];
    bound.store(pipe.number + 1, Ordering::Release);
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    let read = rustix::pipe::splice(
        &pair.sockets[from],
        None,
        &pipe.writer,
        None,
        PIPE_BYTES,
        flags,
    );
    match read {
        Ok(count) if count > 0 => {
            pipe.length = count;
            pair.directions[from].pipe = Some(pipe);
            pair.since_us = core.now_us;
            let counter = if from == CLIENT {
                Keyed::BytesIn
            } else {
                Keyed::BytesOut
            };
            core.count_server(pair.server, counter, count as u64);
            core.count_member(pair.member, counter, count as u64);
            Ok(true)
        }
        other => {
            bound.store(0, Ordering::Release);
            core.give_pipe(pipe);
            other.map(|_| false)
        }
    }
}

/// A pipe to its destination, until it is empty.
fn empty_pipe(core: &mut Core, pair: &mut Pair, from: usize) -> Result<(), Errno> {
    let Some(mut pipe) = pair.directions[from].pipe.take() else {
        return Ok(());
    };
    let to = &pair.sockets[1 - from];
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    while pipe.length > 0 {
        match rustix::pipe::splice(&pipe.reader, None, to, None, pipe.length, flags) {
            Ok(count) => {
                pipe.length -= count.min(pipe.length);
                pair.since_us = core.now_us;
            }
            Err(Errno::INTR) => {}
            Err(errno) => {
                pair.directions[from].pipe = Some(pipe);
                return Err(errno);
            }
        }
    }
    core.slot(pair.slot).pipes[from].store(0, Ordering::Release);
    core.give_pipe(pipe);
    Ok(())
}

fn end(core: &mut Core, pairs: &mut Slab<Pair>, index: usize, fate: Fate) {
    let Some(pair) = pairs.try_remove(index) else {
        return;
    };
    if let (Some(sealed), Fate::Finished) = (&pair.sealed, fate) {
        sealed.empty(core, &pair.sockets);
    }
    for socket in &pair.sockets {
        core.unwatch(socket);
        if fate == Fate::Finished {
            end_on_close(socket);
        }
    }
    for direction in pair.directions {
        if let Some(pipe) = direction.pipe {
            core.drop_pipe(&pipe);
        }
    }
    core.leave_member(pair.member);
    core.end_slot(pair.slot);
}

/// Ends a connection whose time to drain is over.
pub(super) fn cut(core: &mut Core, pairs: &mut Slab<Pair>, index: usize) {
    end(core, pairs, index, Fate::Broken);
}
