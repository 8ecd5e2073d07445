//! Accepting: which listening sockets are watched, when nothing is taken from them, and what
//! becomes of a client that was.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use std::os::fd::OwnedFd;

use hitless_types::site::Protocol;
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::core_of_lane::Source;
use super::event_loop::EventLoop;
use super::stats::Lane;
use super::trial::Point;
use super::{http, tcp, tls};
use crate::ledger::{CRASH, Field};

/// Connections accepted before the others have their turn.
const ACCEPTS_PER_TURN: usize = 32;
/// While accepting is stopped, how often the reason is looked at again.
const RETRY_ACCEPT_US: u64 = 20_000;
/// How often it is said at most that `limits.connections` is reached, by all event loops together:
/// often enough to be seen, seldom enough that a flood of clients is no flood of lines.
const SAY_LIMIT_US: u64 = 60_000_000;
/// When it was said last; 0: never.
static SAID_LIMIT_US: AtomicU64 = AtomicU64::new(0);

impl EventLoop {
    /// Begins to accept: the lane's slots are this program's now.
    pub(super) fn start_accepting(&mut self) {
        self.core.find_free_slots();
        self.is_accepting = true;
        self.watch_listeners();
    }

    pub(super) fn stop_accepting(&mut self) {
        self.is_accepting = false;
        self.accept_again_us = None;
        for server in &self.core.tables.servers {
            if let Some(listener) = &server.listener {
                self.core.unwatch(listener);
            }
        }
    }

    pub(super) fn watch_listeners(&mut self) {
        for (index, server) in self.core.tables.servers.iter().enumerate() {
            if let Some(listener) = &server.listener {
                // One that is watched already says so with an error.
                let _ = self.core.watch_reads(listener, Source::Listener(index));
            }
        }
        self.accept_all();
    }

    pub(super) fn accept_all(&mut self) {
        for index in 0..self.core.tables.servers.len() {
            self.accept(index);
        }
    }

    pub(super) fn accept(&mut self, server: usize) {
        if !self.is_accepting {
            return;
        }
        if self.core.keeper_lags() {
            return self.accept_later();
        }
        let Some(listener) = self.core.tables.servers[server].listener.take() else {
            return;
        };
        let is_all = self.accept_from(server, &listener);
        self.core.tables.servers[server].listener = Some(listener);
        if !is_all {
            self.core.again.push(Source::Listener(server).token());
        }
    }

    /// What waits in a listening socket that is about to be closed.
    pub(super) fn accept_rest(&mut self, server: usize, listener: &OwnedFd) {
        while !self.accept_from(server, listener) {}
    }

    fn may_accept(&self) -> bool {
        let is_paused = self.core.slots.head().paused.load(Ordering::Relaxed) != 0;
        let is_below = self.core.open < self.core.tables.connections_max;
        !is_paused && is_below && self.core.has_free_slot()
    }

    /// Accepts up to a turn's share. `true`: nothing more is there, or nothing may be accepted now.
    fn accept_from(&mut self, server: usize, listener: &OwnedFd) -> bool {
        let protocol = self.core.tables.servers[server].protocol;
        let mut fresh = Vec::new();
        let mut is_all = false;
        self.core.is_accepting(true);
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.may_accept() {
                self.accept_later();
                is_all = true;
                break;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (socket, from) = match rustix::net::acceptfrom_with(listener, flags) {
                Ok((socket, from)) => (socket, from),
                Err(Errno::AGAIN) => {
                    is_all = true;
                    break;
                }
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.accept_later();
                    is_all = true;
                    break;
                }
                // The client gave up before it was accepted.
                Err(_) => continue,
            };
            self.core.point(Point::Accepted);
            let from = from.and_then(|from| SocketAddr::try_from(from).ok());
            fresh.extend(self.take_client(protocol, server, socket, from));
        }
        self.core.flush_entries();
        self.core.is_accepting(false);
        self.core.point(Point::Sent);
        for index in fresh {
            tcp::begin(&mut self.core, &mut self.pairs, index);
        }
        is_all
    }

    /// Takes a client's socket. A raw TCP connection is to be begun once the keeper has both
    /// sockets: its place is returned.
    fn take_client(
        &mut self,
        protocol: Protocol,
        server: usize,
        socket: OwnedFd,
        from: Option<SocketAddr>,
    ) -> Option<usize> {
        if self.core.tables.servers[server].tls.is_some() {
            tls::greet(self, server, socket, from);
            return None;
        }
        let Self {
            core,
            room,
            pairs,
            http,
            ..
        } = self;
        match protocol {
            Protocol::Tcp => tcp::accept(core, pairs, server, socket, from),
            Protocol::Http => {
                let address = from.map_or_else(|| [0, 0, 0, 0].into(), |from| from.ip());
                http::accept(core, room, http, server, socket, address);
                None
            }
        }
    }

    /// Clients that a dead worker had accepted begin anew. Their bytes are all still to be read.
    pub(super) fn take_fresh(&mut self) {
        let mut begun = Vec::new();
        self.core.is_accepting(true);
        for socket in core::mem::take(&mut self.fresh) {
            let local = rustix::net::getsockname(&socket).ok();
            let local = local.and_then(|local| SocketAddr::try_from(local).ok());
            let found = local.and_then(|local| self.core.tables.server_at(local));
            // Of a virtual server that is gone by now: its client is told.
            let Some(server) = found.filter(|_| self.core.has_free_slot()) else {
                CRASH.of(self.core.slots.head()).add(Field::Reset, 1);
                continue;
            };
            let protocol = self.core.tables.servers[server].protocol;
            let from = rustix::net::getpeername(&socket).ok().flatten();
            let from = from.and_then(|from| SocketAddr::try_from(from).ok());
            CRASH.of(self.core.slots.head()).add(Field::Carried, 1);
            begun.extend(self.take_client(protocol, server, socket, from));
        }
        self.core.flush_entries();
        self.core.is_accepting(false);
        for index in begun {
            tcp::begin(&mut self.core, &mut self.pairs, index);
        }
    }

    /// Clients that wait in the kernel's queue see only time pass: the operator has to hear of it.
    fn say_limit(&self) {
        let (now, said) = (self.core.now_us, SAID_LIMIT_US.load(Ordering::Relaxed));
        if !may_say(said, now) {
            return;
        }
        // Another event loop may have said it meanwhile.
        let swapped =
            SAID_LIMIT_US.compare_exchange(said, now, Ordering::Relaxed, Ordering::Relaxed);
        if swapped.is_ok() {
            tracing::warn!(
                limit = self.core.tables.connections_limit,
                event_loop = self.core.lane,
                share = self.core.tables.connections_max,
                "limits.connections is reached: further clients wait until others end"
            );
        }
    }

    fn accept_later(&mut self) {
        if self.accept_again_us.is_none() {
            self.core.count(Lane::AcceptStops, 1);
            if self.core.open >= self.core.tables.connections_max {
                self.say_limit();
            }
        }
        self.accept_again_us = Some(self.core.now_us + RETRY_ACCEPT_US);
    }
}

fn may_say(said_us: u64, now_us: u64) -> bool {
    said_us == 0 || now_us.saturating_sub(said_us) >= SAY_LIMIT_US
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_said_at_once_and_then_once_a_minute() {
        assert!(may_say(0, 1));
        assert!(!may_say(1, 2));
        assert!(!may_say(1, SAY_LIMIT_US));
        assert!(may_say(1, SAY_LIMIT_US + 1));
    }
}
