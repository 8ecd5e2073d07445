//! Handshakes with clients: from accept to the codec.
//!
//! A client in its handshake has a slot and nothing that outlives this process: a kill costs it, as
//! it costs a request that is under way. What is not read yet is in its socket, so that one of whom
//! nothing was read begins anew with the next worker.

use core::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use hitless_carry::slots::{IN_FLIGHT, Kind};
use hitless_types::site::Protocol;
use mio::event::Event;
use rustix::net::{RecvFlags, Shutdown};

use super::shaking::{Done, Shaking, Shook};
use crate::worker::core_of_lane::{Source, end_on_close};
use crate::worker::event_loop::EventLoop;
use crate::worker::stats::{Keyed, Lane};
use crate::worker::trial::Point;
use crate::worker::{http, tcp};

/// A client's handshake under way.
#[derive(Debug)]
pub(in crate::worker) struct Greeting {
    pub(in crate::worker) slot: u32,
    pub(in crate::worker) server: usize,
    pub(in crate::worker) socket: OwnedFd,
    pub(in crate::worker) address: IpAddr,
    /// `None` while it is worked on, and if it can come to nothing.
    pub(in crate::worker) shaking: Option<Box<Shaking>>,
    pub(in crate::worker) since_us: u64,
    armed_us: u64,
}

impl Greeting {
    pub(in crate::worker) fn new(
        (slot, server): (u32, usize),
        (socket, address): (OwnedFd, IpAddr),
        shaking: Option<Box<Shaking>>,
        since_us: u64,
    ) -> Self {
        Self {
            slot,
            server,
            socket,
            address,
            shaking,
            since_us,
            armed_us: 0,
        }
    }
}

/// Takes a client that was just accepted.
pub(in crate::worker) fn greet(
    this: &mut EventLoop,
    server: usize,
    socket: OwnedFd,
    from: Option<SocketAddr>,
) {
    let core = &mut this.core;
    let Some(config) = &core.tables.servers[server].tls else {
        return;
    };
    let shaking = match Shaking::server(config) {
        Ok(shaking) => Some(Box::new(shaking)),
        Err(error) => return tracing::error!("no TLS handshake: {error}"),
    };
    let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
    let Some((slot, _)) = core.begin_slot(Kind::Http, server) else {
        return;
    };
    core.point(Point::Begun);
    let address = from.map_or_else(|| [0, 0, 0, 0].into(), |from| from.ip());
    let greeting = Greeting::new((slot, server), (socket, address), shaking, core.now_us);
    begin(this, greeting);
}

/// Starts or goes on with a handshake.
pub(in crate::worker) fn begin(this: &mut EventLoop, greeting: Greeting) {
    let index = this.greetings.insert(greeting);
    let socket = &this.greetings[index].socket;
    match this.core.watch(socket, Source::Greeting(index)) {
        Ok(()) => work(this, index),
        Err(_) => end(this, index),
    }
}

pub(in crate::worker) fn on_greeting(this: &mut EventLoop, index: usize, event: &Event) {
    if !this.greetings.contains(index) {
        return;
    }
    work(this, index);
    // An end behind half a record is not seen by looking at what there is.
    if (event.is_read_closed() || event.is_error()) && this.greetings.contains(index) {
        fail(this, index, "the client closed");
    }
}

pub(in crate::worker) fn on_greeting_timer(this: &mut EventLoop, index: usize) {
    let Some(greeting) = this.greetings.get_mut(index) else {
        return;
    };
    greeting.armed_us = 0;
    if this.core.now_us < due_us(this, index) {
        return arm(this, index);
    }
    this.core.count(Lane::TimeoutsHit, 1);
    fail(this, index, "it took too long");
}

fn due_us(this: &EventLoop, index: usize) -> u64 {
    this.greetings[index].since_us + this.core.tables.limits.head_time_us
}

fn arm(this: &mut EventLoop, index: usize) {
    let due_us = due_us(this, index);
    let armed_us = &mut this.greetings[index].armed_us;
    let token = Source::Greeting(index).token();
    this.core.wheel.set(token, due_us, armed_us);
}

/// Goes on with a handshake.
pub(in crate::worker) fn work(this: &mut EventLoop, index: usize) {
    let Some(greeting) = this.greetings.get_mut(index) else {
        return;
    };
    let Some(shaking) = greeting.shaking.take() else {
        return fail(this, index, "its virtual server is gone");
    };
    let core = &mut this.core;
    core.busy(Some(greeting.slot));
    core.slot(greeting.slot).set_flag(IN_FLIGHT, true);
    let shook = shaking.advance(&greeting.socket, &mut this.room.scratch);
    core.busy(None);
    match shook {
        Shook::Waiting(shaking) => {
            core.slot(greeting.slot)
                .set_flag(IN_FLIGHT, shaking.has_read());
            greeting.shaking = Some(shaking);
            arm(this, index);
        }
        Shook::Done(done) => go_on(this, index, *done),
        Shook::Failed(why) => fail(this, index, &why),
    }
}

/// The handshake is over: the codec's turn.
fn go_on(this: &mut EventLoop, index: usize, done: Done) {
    let Greeting {
        slot,
        server,
        socket,
        address,
        ..
    } = this.greetings.remove(index);
    let EventLoop {
        core,
        room,
        pairs,
        http,
        ..
    } = this;
    core.unwatch(&socket);
    core.seal_slot(slot);
    core.count(Lane::Handshakes, 1);
    if done.is_resumed {
        core.count(Lane::HandshakesResumed, 1);
    }
    match core.tables.servers[server].protocol {
        Protocol::Http => {
            let is_http2 = done.protocol.as_deref() == Some(b"h2");
            let with = (done.layer, is_http2);
            http::accept_sealed(core, room, http, (slot, server), (socket, address), with);
        }
        Protocol::Tcp => tcp::accept_sealed(core, pairs, (slot, server), socket, done.layer),
    }
}

fn fail(this: &mut EventLoop, index: usize, why: &str) {
    let greeting = &this.greetings[index];
    let server = greeting.server;
    this.core.count(Lane::HandshakeFailures, 1);
    this.core.count_server(server, Keyed::Failures, 1);
    let name = &this.core.tables.servers[server].name;
    tracing::debug!(client = %greeting.address, server = %name, "TLS handshake: {why}");
    end(this, index);
}

/// Closes, in a way that lets what was said reach the client.
pub(in crate::worker) fn end(this: &mut EventLoop, index: usize) {
    let greeting = this.greetings.remove(index);
    this.core.unwatch(&greeting.socket);
    // A close with bytes that nobody has read is a reset, which overtakes what was sent.
    let _ = rustix::net::shutdown(&greeting.socket, Shutdown::Write);
    let _ = rustix::net::recv(
        &greeting.socket,
        &mut this.room.scratch[..],
        RecvFlags::DONTWAIT,
    );
    end_on_close(&greeting.socket);
    this.core.end_slot(greeting.slot);
}
