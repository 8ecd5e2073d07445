//! Virtual servers, pools and members as one event loop uses them: its own copy, replaced in place
//! by a reload.
//!
//! A connection knows its virtual server and member by their place here. Places are kept for as
//! long as the program runs: a virtual server that a reload removes accepts nothing more, and its
//! connections go on.

use core::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hitless_carry::slots::Slots;
use hitless_proto::{http1, http2};
use hitless_types::site::{HashBy, MembersProtocol, Protocol, Site};
use rustls::ServerConfig;

use super::balance::{Balance, Choice, key};
use super::http::MEMBER_IDLE_US_MAX;
use super::http2::STREAMS_PER_TRUNK;
use super::stats::{Keyed, member_key, server_key};
use crate::monitor::{Board, MemberState};
use crate::tls::{Loaded, MembersSide};

/// Times in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    pub(super) connect_us: u64,
    pub(super) idle_us: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) servers: Vec<Server>,
    pub(super) members: Vec<Member>,
    pub(super) limits: http1::Limits,
    pub(super) http2_limits: http2::Limits,
    /// Towards members that speak HTTP/2.
    pub(super) trunk_limits: http2::Limits,
    pub(super) rewrite: http1::Rewrite,
    pub(super) times: Times,
    /// Client connections of this event loop at most.
    pub(super) connections_max: usize,
    /// Of all together, as the file says.
    pub(super) connections_limit: u32,
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) key: u64,
    pub(super) protocol: Protocol,
    pub(super) requested: SocketAddr,
    /// `None` once a reload removed it, and while the worker is being handed over or drained.
    pub(super) listener: Option<OwnedFd>,
    pub(super) hash_by: HashBy,
    pub(super) members_speak_http2: bool,
    /// `None`: in cleartext.
    pub(super) tls: Option<Arc<ServerConfig>>,
    balance: Balance,
    /// Its counters' place in the lane.
    pub(super) keyed: usize,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) pool: String,
    pub(super) address: SocketAddr,
    /// `None`: in cleartext.
    pub(super) tls: Option<Arc<MembersSide>>,
    pub(super) state: Arc<MemberState>,
    pub(super) keyed: usize,
    /// In use by clients of this event loop.
    pub(super) open: u32,
    /// Idle HTTP connections, by their place; the last one used last.
    pub(super) idle: Vec<usize>,
    /// HTTP/2 connections, by their place.
    pub(super) trunks: Vec<usize>,
}

impl Tables {
    /// Applies a configuration; `listeners` has this event loop's socket for each address. Returns
    /// the listening sockets that are not needed any more, with their servers: what waits in them
    /// is to be accepted before they are closed.
    pub(super) fn apply(
        &mut self,
        (site, tls): (&Site, &Loaded),
        board: &Board,
        slots: &Slots,
        lane: u32,
        mut listeners: Vec<(SocketAddr, OwnedFd)>,
    ) -> Vec<(usize, OwnedFd)> {
        self.limits = limits(site);
        self.http2_limits = http2_limits(site);
        self.trunk_limits = http2::Limits {
            idle_time_us: MEMBER_IDLE_US_MAX,
            // Clients that do not read hold up nobody else: there is a window for every stream.
            connection_window_bytes: STREAMS_PER_TRUNK * self.http2_limits.stream_window_bytes,
            ..self.http2_limits.clone()
        };
        self.times = Times {
            connect_us: site.timeouts.connect.as_micros() as u64,
            idle_us: site.timeouts.idle.as_micros() as u64,
        };
        self.connections_limit = site.limits.connections;
        self.connections_max = (site.limits.connections as usize).div_ceil(slots.lanes() as usize);
        let mut unused = Vec::new();
        let mut is_kept = vec![false; self.servers.len()];
        for virtual_server in &site.virtual_servers {
            let pool = site.pool_of(virtual_server);
            let members_tls = tls.pools.get(pool.name.as_str());
            let choices = pool.members.iter().map(|member| {
                let at = self.member(pool.name.as_str(), member.address, board, slots, lane);
                self.members[at].tls = members_tls.cloned();
                Choice {
                    member: at,
                    weight: member.weight,
                    name: key(member.address.to_string().as_bytes()),
                }
            });
            let choices: Vec<Choice> = choices.collect();
            let found = listeners
                .iter()
                .position(|(asked, _)| *asked == virtual_server.listen);
            let listener = found.map(|at| listeners.swap_remove(at).1);
            let name = virtual_server.name.as_str();
            let server_tls = tls.servers.get(name).cloned();
            let Some(at) = self.servers.iter().position(|server| server.name == name) else {
                let key = server_key(name);
                let mut balance = Balance::new(lane);
                balance.apply(pool.method, choices);
                self.servers.push(Server {
                    name: name.to_owned(),
                    key,
                    protocol: virtual_server.protocol,
                    requested: virtual_server.listen,
                    listener,
                    hash_by: pool.hash_by.clone(),
                    members_speak_http2: pool.members_protocol == MembersProtocol::Http2,
                    tls: server_tls,
                    balance,
                    keyed: slots.keyed_index(lane, key),
                });
                continue;
            };
            is_kept[at] = true;
            let server = &mut self.servers[at];
            server.protocol = virtual_server.protocol;
            server.hash_by = pool.hash_by.clone();
            server.members_speak_http2 = pool.members_protocol == MembersProtocol::Http2;
            server.tls = server_tls;
            server.balance.apply(pool.method, choices);
            if server.requested != virtual_server.listen || server.listener.is_none() {
                unused.extend(server.listener.take().map(|old| (at, old)));
                server.requested = virtual_server.listen;
                server.listener = listener;
            }
        }
        for (at, is_kept) in is_kept.into_iter().enumerate() {
            if !is_kept {
                unused.extend(self.servers[at].listener.take().map(|old| (at, old)));
            }
        }
        unused
    }

    /// The virtual server that listens at a connection's own address.
    pub(super) fn server_at(&self, local: SocketAddr) -> Option<usize> {
        self.servers.iter().position(|server| {
            let bound = server.listener.as_ref().map(rustix::net::getsockname);
            let bound = bound.and_then(|bound| SocketAddr::try_from(bound.ok()?).ok());
            bound.is_some_and(|bound| {
                bound.port() == local.port()
                    && (bound.ip().is_unspecified() || bound.ip() == local.ip())
            })
        })
    }

    /// The place of a member, made if there is none.
    pub(super) fn member(
        &mut self,
        pool: &str,
        address: SocketAddr,
        board: &Board,
        slots: &Slots,
        lane: u32,
    ) -> usize {
        let state = board.member(pool, address);
        let found = self
            .members
            .iter()
            .position(|member| member.address == address && member.pool == pool);
        if let Some(at) = found {
            self.members[at].state = state;
            return at;
        }
        let keyed = slots.keyed_index(lane, member_key(pool, address));
        self.members.push(Member {
            pool: pool.to_owned(),
            address,
            tls: None,
            state,
            keyed,
            open: 0,
            idle: Vec::new(),
            trunks: Vec::new(),
        });
        self.members.len() - 1
    }

    /// The member for the next connection or request, none of those in `tried`. `key` is the hash of
    /// what the pool chooses by. `None`: no usable one is left.
    pub(super) fn choose(&mut self, server: usize, key: u64, tried: &[usize]) -> Option<usize> {
        let members = &self.members;
        let usable = |member: usize| members[member].state.is_usable() && !tried.contains(&member);
        let open = |member: usize| members[member].open;
        self.servers[server].balance.choose(key, usable, open)
    }

    /// The place of a carried connection's virtual server; one that a reload removed gets a place
    /// that accepts nothing.
    pub(super) fn server_of(&mut self, key: u64, protocol: Protocol) -> usize {
        if let Some(at) = self.servers.iter().position(|server| server.key == key) {
            return at;
        }
        self.servers.push(Server {
            name: String::new(),
            key,
            protocol,
            requested: SocketAddr::from(([0, 0, 0, 0], 0)),
            listener: None,
            hash_by: HashBy::Source,
            members_speak_http2: false,
            tls: None,
            balance: Balance::default(),
            keyed: 0,
        });
        self.servers.len() - 1
    }

    /// The place of a member that a carried connection of this virtual server uses.
    pub(super) fn member_of(&mut self, server: usize, address: SocketAddr) -> usize {
        let choices = self.servers[server].balance.choices();
        let mut choices = choices.iter().map(|choice| choice.member);
        match choices.find(|&member| self.members[member].address == address) {
            Some(at) => at,
            None => self.member_named("", address, 0),
        }
    }

    /// The place of a member by pool and address; one that a reload removed gets a place that
    /// nobody chooses, with these counters.
    pub(super) fn member_named(&mut self, pool: &str, address: SocketAddr, keyed: usize) -> usize {
        let is_it = |member: &Member| member.address == address && member.pool == pool;
        if let Some(at) = self.members.iter().position(is_it) {
            return at;
        }
        self.members.push(Member {
            pool: pool.to_owned(),
            address,
            tls: None,
            state: Arc::default(),
            keyed,
            open: 0,
            idle: Vec::new(),
            trunks: Vec::new(),
        });
        self.members.len() - 1
    }
}

/// Adds to a counter of a name.
pub(super) fn count(slots: &Slots, lane: u32, keyed: usize, counter: Keyed, by: u64) {
    slots.keyed(lane, keyed).counters[counter as usize].fetch_add(by, Ordering::Relaxed);
}

fn limits(site: &Site) -> http1::Limits {
    let us = |duration: core::time::Duration| duration.as_micros() as u64;
    http1::Limits {
        head_bytes_max: site.limits.head_bytes as usize,
        fields_max: site.limits.headers.into(),
        idle_time_us: us(site.timeouts.keep_alive),
        head_time_us: us(site.timeouts.request_head),
        body_time_us: us(site.timeouts.idle),
        response_time_us: us(site.timeouts.response),
        ..http1::Limits::default()
    }
}

/// HTTP/2's own limits have their defaults; what the file says of heads and times holds for both.
fn http2_limits(site: &Site) -> http2::Limits {
    let us = |duration: core::time::Duration| duration.as_micros() as u64;
    let default = http2::Limits::default();
    let head_bytes = site.limits.head_bytes;
    http2::Limits {
        header_list_bytes_max: head_bytes,
        block_bytes_max: default.block_bytes_max.max(head_bytes as usize),
        header_work_bytes_max: default.header_work_bytes_max.max(4 * head_bytes),
        fields_max: site.limits.headers.into(),
        idle_time_us: us(site.timeouts.keep_alive),
        head_time_us: us(site.timeouts.request_head),
        body_time_us: us(site.timeouts.idle),
        response_time_us: us(site.timeouts.response),
        ..default
    }
}
