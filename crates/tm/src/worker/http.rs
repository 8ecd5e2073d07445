//! HTTP/1.1: a client's connection, and a member's for as long as a request needs one.
//!
//! ```text
//! idle ─ request head ─► choose member ─► connecting ─► exchange ─ done ─► idle, or closing ─► over
//!                          └ none: 503       └ refused: next member; none left: 502
//! ```
//!
//! The codec ([`hitless_proto::http1::Connection`]) decides everything about messages; this moves bytes and keeps the
//! books in the slot: how many bytes were read and written at the end of the last finished exchange, so that after a
//! crash the kernel's counters tell whether a byte of a later request is lost. Bytes are read into the thread's scratch
//! buffer, and a connection owns memory only while some of them are stuck.

use core::net::IpAddr;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use hitless_carry::slots::{IN_FLIGHT, Kind, REGISTERED};
use hitless_proto::http1::{After, Connection, Context, Event as Told, Side, Work, http_date};
use mio::event::Event;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use slab::Slab;

use super::core_of_lane::{Core, ROUNDS_MAX, Source, reset_on_close};
use super::stats::{Keyed, Lane};
use super::tcp::CONNECT_TRIES_MAX;
use crate::egress;

/// After an answer that the client may not expect, its sending half is read and dropped for this long, so that no reset
/// overtakes the answer.
const LINGER_US_MAX: u64 = 1_000_000;
/// Bytes of one read.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Of the scratch buffer: a read behind the longest thing that can be stuck.
pub(super) const SCRATCH_BYTES: usize = 4 * READ_BYTES_MAX;
/// Idle connections kept per member by one event loop: more than it uses at once is of no use.
const IDLE_PER_MEMBER_MAX: usize = 256;
/// An idle connection to a member is closed after this; members commonly keep them for a minute.
const MEMBER_IDLE_US_MAX: u64 = 30_000_000;

/// What a thread lends to the connection that it works on.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) scratch: Vec<u8>,
    pub(super) work: Work,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) slot: u32,
    pub(super) server: usize,
    pub(super) socket: OwnedFd,
    pub(super) address: IpAddr,
    pub(super) codec: Connection,
    /// Place of the member's connection while a request needs it.
    pub(super) up: Option<usize>,
    pub(super) tried: Vec<usize>,
    /// Bytes read from the client and written to it.
    pub(super) read: u64,
    pub(super) written: u64,
    readable: bool,
    /// The kernel has told of the client's end: a short read is not the last one.
    is_hung_up: bool,
    writable: bool,
    /// The client's end was read.
    pub(super) is_at_end: bool,
    pub(super) closing: Closing,
    /// Set while the connection is closing.
    pub(super) close_at_us: u64,
    armed_us: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Closing {
    No = 0,
    /// When all is sent: close.
    AfterOutput = 1,
    /// When all is sent: shut down, then read until the client closes.
    Lingering = 2,
    /// Was shut down.
    Shut = 3,
}

/// A connection to a member.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) socket: OwnedFd,
    pub(super) member: usize,
    /// Place of the client that uses it; `None`: idle.
    pub(super) client: Option<usize>,
    pub(super) is_connecting: bool,
    /// It was used before: the member may have closed it meanwhile.
    pub(super) is_reused: bool,
    readable: bool,
    is_hung_up: bool,
    writable: bool,
    pub(super) is_at_end: bool,
    pub(super) since_us: u64,
    /// A request that may be sent once more on another connection, until its response begins.
    retry: Vec<u8>,
    armed_us: u64,
}

#[derive(Debug, Default)]
pub(super) struct Http {
    pub(super) clients: Slab<Client>,
    pub(super) ups: Slab<Up>,
}

impl Client {
    pub(super) fn new(
        slot: u32,
        server: usize,
        socket: OwnedFd,
        address: IpAddr,
        now_us: u64,
    ) -> Self {
        Self {
            slot,
            server,
            socket,
            address,
            codec: Connection::new(now_us),
            up: None,
            tried: Vec::new(),
            read: 0,
            written: 0,
            readable: true,
            is_hung_up: false,
            writable: true,
            is_at_end: false,
            closing: Closing::No,
            close_at_us: 0,
            armed_us: 0,
        }
    }

    /// Inside a request or response, or with bytes that are nobody else's.
    pub(super) fn is_mid_message(&self) -> bool {
        !self.codec.is_idle()
    }
}

impl Up {
    pub(super) fn new(socket: OwnedFd, member: usize, is_connecting: bool, now_us: u64) -> Self {
        Self {
            socket,
            member,
            client: None,
            is_connecting,
            is_reused: false,
            readable: true,
            is_hung_up: false,
            writable: true,
            is_at_end: false,
            since_us: now_us,
            retry: Vec::new(),
            armed_us: 0,
        }
    }
}

/// Takes a client that was just accepted.
pub(super) fn accept(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    server: usize,
    socket: OwnedFd,
    address: IpAddr,
) {
    let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
    let Some((slot, _)) = core.begin_slot(Kind::Http, server) else {
        return;
    };
    let client = Client::new(slot, server, socket, address, core.now_us);
    let index = http.clients.insert(client);
    begin(core, room, http, index);
}

/// Starts serving a client, new or carried over.
pub(super) fn begin(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) {
    let watched = core.watch(&http.clients[index].socket, Source::HttpClient(index));
    match watched {
        Ok(()) => work(core, room, http, index),
        Err(_) => end(core, http, index, End::Reset),
    }
}

pub(super) fn on_client(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    event: &Event,
) {
    let Some(client) = http.clients.get_mut(index) else {
        return;
    };
    client.is_hung_up |= event.is_read_closed() || event.is_error();
    client.readable |= event.is_readable() || client.is_hung_up;
    client.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    // A socket that is only writable again, and nothing waits for that: nothing to do.
    if client.readable || !client.codec.unsent(Side::Client).is_empty() {
        work(core, room, http, index);
    }
}

pub(super) fn on_member(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    event: &Event,
) {
    let Some(up) = http.ups.get_mut(index) else {
        return;
    };
    up.is_hung_up |= event.is_read_closed() || event.is_error();
    up.readable |= event.is_readable() || up.is_hung_up;
    up.writable |= event.is_writable() || event.is_write_closed();
    let Some(client) = up.client else {
        if event.is_readable() || up.is_hung_up {
            // An idle member has nothing to say: it closed, or it is mad.
            drop_idle(core, http, index);
        }
        return;
    };
    if up.is_connecting {
        match rustix::net::sockopt::socket_error(&up.socket) {
            Ok(Ok(())) if event.is_writable() => {
                up.is_connecting = false;
                up.since_us = core.now_us;
                http.clients[client].tried = Vec::new();
            }
            Ok(Ok(())) => return,
            _ => return connect_failed(core, room, http, client),
        }
    } else if !up.readable && http.clients[client].codec.unsent(Side::Member).is_empty() {
        return;
    }
    work(core, room, http, client);
}

/// A timer entry of this client fired.
pub(super) fn on_client_timer(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) {
    let Some(client) = http.clients.get_mut(index) else {
        return;
    };
    client.armed_us = 0;
    if client.closing != Closing::No {
        if core.now_us >= client.close_at_us {
            let is_sent = client.codec.unsent(Side::Client).is_empty();
            return end(
                core,
                http,
                index,
                if is_sent { End::Closed } else { End::Reset },
            );
        }
        return arm(core, http, index);
    }
    if let Some(up) = client.up.map(|up| &http.ups[up])
        && up.is_connecting
        && core.now_us >= up.since_us + core.tables.times.connect_us
    {
        core.count(Lane::TimeoutsHit, 1);
        return connect_failed(core, room, http, index);
    }
    let told = with_context(core, client.address, |cx| client.codec.expire(cx));
    if told != Told::Wait {
        core.count(Lane::TimeoutsHit, 1);
        act(core, room, http, index, told);
    }
    if http.clients.contains(index) {
        work(core, room, http, index);
    }
}

pub(super) fn on_member_timer(core: &mut Core, http: &mut Http, index: usize) {
    let Some(up) = http.ups.get_mut(index) else {
        return;
    };
    up.armed_us = 0;
    if up.client.is_some() {
        return;
    }
    let due_us = up.since_us + MEMBER_IDLE_US_MAX;
    if core.now_us >= due_us {
        return drop_idle(core, http, index);
    }
    core.wheel
        .set(Source::HttpMember(index).token(), due_us, &mut up.armed_us);
}

fn with_context<T>(core: &Core, client: IpAddr, call: impl FnOnce(&Context<'_>) -> T) -> T {
    call(&Context {
        now_us: core.now_us,
        limits: &core.tables.limits,
        rewrite: &core.tables.rewrite,
        client,
        draining: core.is_draining,
        date: Some(&core.date),
    })
}

/// The text for Date fields, made once a second.
pub(super) fn refresh_date(core: &mut Core) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse).tv_sec as u64;
    if now != core.date_s {
        core.date_s = now;
        core.date = http_date(now);
    }
}

/// Moves what can be moved, in both directions.
pub(super) fn work(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) {
    let Some(client) = http.clients.get(index) else {
        return;
    };
    core.busy(Some(client.slot));
    let mut rounds = 0;
    while http.clients.contains(index) && round(core, room, http, index) {
        rounds += 1;
        if rounds == ROUNDS_MAX {
            core.again.push(Source::HttpClient(index).token());
            break;
        }
    }
    core.busy(None);
    settle(core, http, index);
}

/// What is done when nothing more can be moved: protection, and the timer.
fn settle(core: &mut Core, http: &mut Http, index: usize) {
    let Some(client) = http.clients.get(index) else {
        return;
    };
    if !core.slot(client.slot).has_flag(REGISTERED) && client.codec.is_idle() {
        // A connection that waits for its next request must survive; one that never waits costs the keeper nothing.
        core.register(client.slot, &[&client.socket]);
    }
    arm(core, http, index);
}

fn arm(core: &mut Core, http: &mut Http, index: usize) {
    let Some(client) = http.clients.get_mut(index) else {
        return;
    };
    let due_us = if client.closing != Closing::No {
        client.close_at_us
    } else if let Some(up) = client
        .up
        .map(|up| &http.ups[up])
        .filter(|up| up.is_connecting)
    {
        up.since_us + core.tables.times.connect_us
    } else {
        match client.codec.deadline(&core.tables.limits) {
            Some(deadline) => deadline.at_us,
            None => return,
        }
    };
    core.wheel.set(
        Source::HttpClient(index).token(),
        due_us,
        &mut client.armed_us,
    );
}

/// One pass over all that could move. `false`: nothing did.
fn round(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) -> bool {
    let mut has_moved = false;
    if !http.clients[index].codec.unsent(Side::Client).is_empty() {
        match flush_client(core, http, index) {
            Flushed::All => has_moved = true,
            Flushed::Stuck => {}
            Flushed::Failed => return fail(core, room, http, index, Side::Client),
        }
    }
    let client = &mut http.clients[index];
    if client.closing != Closing::No && client.codec.unsent(Side::Client).is_empty() {
        return close_down(core, room, http, index);
    }
    if let Some(up) = client.up
        && !http.ups[up].is_connecting
        && !client.codec.unsent(Side::Member).is_empty()
    {
        match flush_member(core, http, index, up) {
            Flushed::All => has_moved = true,
            Flushed::Stuck => {}
            Flushed::Failed => return fail(core, room, http, index, Side::Member),
        }
    }
    let client = &http.clients[index];
    if let Some(up) = client.up
        && !http.ups[up].is_connecting
        && http.ups[up].readable
        && client.codec.unsent(Side::Client).is_empty()
    {
        has_moved |= read_member(core, room, http, index, up);
    }
    let Some(client) = http.clients.get(index) else {
        return false;
    };
    if client.closing == Closing::No && client.codec.unsent(Side::Member).is_empty() {
        has_moved |= read_client(core, room, http, index);
    }
    has_moved && http.clients.contains(index)
}

enum Flushed {
    All,
    Stuck,
    Failed,
}

fn flush_client(core: &Core, http: &mut Http, index: usize) -> Flushed {
    let client = &mut http.clients[index];
    if !client.writable {
        return Flushed::Stuck;
    }
    match send(&client.socket, client.codec.unsent(Side::Client), &[]) {
        Ok(count) => {
            client.written += count as u64;
            client.codec.sent(Side::Client, count, core.now_us);
            core.count_server(client.server, Keyed::BytesOut, count as u64);
        }
        Err(Errno::AGAIN) => {}
        Err(_) => return Flushed::Failed,
    }
    client.writable = client.codec.unsent(Side::Client).is_empty();
    if client.writable {
        Flushed::All
    } else {
        Flushed::Stuck
    }
}

fn flush_member(core: &Core, http: &mut Http, index: usize, up: usize) -> Flushed {
    let (client, up) = (&mut http.clients[index], &mut http.ups[up]);
    if !up.writable {
        return Flushed::Stuck;
    }
    match send(&up.socket, client.codec.unsent(Side::Member), &[]) {
        Ok(count) => {
            client.codec.sent(Side::Member, count, core.now_us);
            core.count_member(up.member, Keyed::BytesIn, count as u64);
        }
        Err(Errno::AGAIN) => {}
        Err(_) => return Flushed::Failed,
    }
    up.writable = client.codec.unsent(Side::Member).is_empty();
    if up.writable {
        Flushed::All
    } else {
        Flushed::Stuck
    }
}

fn send(socket: &OwnedFd, first: &[u8], second: &[u8]) -> Result<usize, Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        let sent = if second.is_empty() {
            rustix::net::send(socket, first, flags)
        } else {
            let parts = [IoSlice::new(first), IoSlice::new(second)];
            let mut none = rustix::net::SendAncillaryBuffer::default();
            rustix::net::sendmsg(socket, &parts, &mut none, flags)
        };
        match sent {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Reads from the client and takes the codec's steps. `false`: nothing came and nothing was stuck that could go on.
fn read_client(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) -> bool {
    let client = &mut http.clients[index];
    let stuck = client.codec.take_stuck(Side::Client, &mut room.scratch);
    let mut length = stuck;
    let mut is_end = false;
    // While a pipelined request waits for its turn, nothing more is read: its pipeline would fill memory.
    let room_end = room.scratch.len().min(stuck + READ_BYTES_MAX);
    let may_read = client.readable
        && !client.is_at_end
        && (stuck == 0 || client.up.is_none())
        && stuck < room_end;
    if may_read {
        let slot = core.slot(client.slot);
        slot.set_flag(IN_FLIGHT, true);
        let into = &mut room.scratch[stuck..room_end];
        match rustix::net::recv(&client.socket, into, RecvFlags::DONTWAIT) {
            Ok((0, _)) => is_end = true,
            Ok((count, _)) => {
                length += count;
                client.read += count as u64;
                // Less than there was room for: the socket is empty, and says when it no longer is. An end that the
                // kernel has told of already is not told again.
                client.readable = length == room_end || client.is_hung_up;
                core.count_server(client.server, Keyed::BytesIn, count as u64);
            }
            Err(Errno::AGAIN | Errno::INTR) => client.readable = false,
            Err(_) => {
                client
                    .codec
                    .keep_stuck(Side::Client, &room.scratch[..length]);
                return fail(core, room, http, index, Side::Client);
            }
        }
    }
    if length == 0 && !is_end {
        if may_read && client.codec.is_idle() {
            core.slot(client.slot).set_flag(IN_FLIGHT, false);
        }
        return false;
    }
    let consumed = step_client(core, room, http, index, length);
    let Some(client) = http.clients.get_mut(index) else {
        return true;
    };
    let has_more = length > stuck || consumed > 0;
    if is_end {
        client.is_at_end = true;
        client.readable = false;
        if client.closing == Closing::No {
            let told = with_context(core, client.address, |cx| {
                client.codec.end_of_stream(Side::Client, cx, &mut room.work)
            });
            act(core, room, http, index, told);
            return true;
        }
    }
    has_more
}

/// Steps through `length` bytes of client input in the scratch buffer and keeps what is left. Returns the bytes used.
fn step_client(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    length: usize,
) -> usize {
    let mut at = 0;
    loop {
        let client = &mut http.clients[index];
        if !client.codec.unsent(Side::Member).is_empty() && client.up.is_some() {
            break;
        }
        let step = with_context(core, client.address, |cx| {
            client
                .codec
                .step(Side::Client, cx, &room.scratch[at..length], &mut room.work)
        });
        let tail = at + step.tail.start..at + step.tail.end;
        at += step.consumed;
        match step.event {
            Told::Body | Told::NeedMore | Told::Wait => {
                // Small pieces are collected; a long one goes out with them.
                if !tail.is_empty() && !put_member(core, room, http, index, tail) {
                    break;
                }
                if step.event != Told::Body {
                    break;
                }
            }
            Told::Request => match request(core, room, http, index, at, length) {
                Some(consumed) => at += consumed,
                None => break,
            },
            told => {
                if !put_member(core, room, http, index, tail) {
                    break;
                }
                let rest = room.scratch[at..length].to_vec();
                http.clients[index].codec.keep_stuck(Side::Client, &rest);
                act(core, room, http, index, told);
                return at;
            }
        }
    }
    if let Some(client) = http.clients.get_mut(index) {
        client
            .codec
            .keep_stuck(Side::Client, &room.scratch[at..length]);
        if !room.work.out.is_empty() {
            put_member(core, room, http, index, 0..0);
        }
    }
    room.work.out.clear();
    at
}

/// A request head is there: finds it a member. Returns the bytes of the head; `None`: the client is not to be stepped on.
fn request(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    at: usize,
    length: usize,
) -> Option<usize> {
    let client = &mut http.clients[index];
    let server = client.server;
    core.count_server(server, Keyed::Requests, 1);
    client.tried.clear();
    if !obtain(core, http, index) {
        let client = &mut http.clients[index];
        let consumed = with_context(core, client.address, |cx| {
            client
                .codec
                .answer(cx, &room.scratch[at..length], &mut room.work, 503)
        });
        core.count(Lane::Refusals, 1);
        core.count_server(server, Keyed::Failures, 1);
        put_client(core, room, http, index, 0..0);
        return http.clients.contains(index).then_some(consumed);
    }
    let client = &mut http.clients[index];
    let consumed = with_context(core, client.address, |cx| {
        client
            .codec
            .forward_request(cx, &room.scratch[at..length], &mut room.work)
    });
    let up = client.up.map(|up| &mut http.ups[up])?;
    core.count_member(up.member, Keyed::Requests, 1);
    if up.is_reused {
        let head = &room.work.head;
        let method = head.method_name().bytes(&room.scratch[at..length]);
        let is_safe = matches!(method, b"GET" | b"HEAD" | b"OPTIONS");
        if is_safe && head.declared_length().unwrap_or(0) == 0 {
            up.retry.extend_from_slice(&room.work.out);
        }
    }
    Some(consumed)
}

/// Binds a member's connection to a client: an idle one, or a new one. `false`: there is no usable member.
fn obtain(core: &mut Core, http: &mut Http, index: usize) -> bool {
    loop {
        let client = &mut http.clients[index];
        if client.tried.len() >= CONNECT_TRIES_MAX {
            return false;
        }
        let Some(member) = core.tables.choose(client.server, &client.tried) else {
            return false;
        };
        if let Some(at) = core.tables.members[member].idle.pop() {
            let up = &mut http.ups[at];
            up.client = Some(index);
            up.is_reused = true;
            up.retry.clear();
            client.up = Some(at);
            core.enter_member(member);
            return true;
        }
        if open_new(core, http, index, member) {
            return true;
        }
    }
}

/// Opens a connection to a member for a client.
fn open_new(core: &mut Core, http: &mut Http, index: usize, member: usize) -> bool {
    let client = &mut http.clients[index];
    client.tried.push(member);
    core.count_member(member, Keyed::Connections, 1);
    let address = core.tables.members[member].address;
    let Ok(opened) = egress::connect(address, egress::Source::Any) else {
        core.count_member(member, Keyed::Failures, 1);
        core.count(Lane::ConnectRetries, 1);
        return false;
    };
    let mut up = Up::new(opened.socket, member, !opened.is_connected, core.now_us);
    up.client = Some(index);
    let at = http.ups.insert(up);
    if core
        .watch(&http.ups[at].socket, Source::HttpMember(at))
        .is_err()
    {
        http.ups.remove(at);
        return false;
    }
    client.up = Some(at);
    core.enter_member(member);
    true
}

/// The member did not take the connection: nothing of the request has been sent, so another member may serve it.
fn connect_failed(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) {
    let Some(client) = http.clients.get(index) else {
        return;
    };
    if let Some(up) = client.up {
        core.count_member(http.ups[up].member, Keyed::Failures, 1);
    }
    core.count(Lane::ConnectRetries, 1);
    release(core, http, index, After::Close);
    if obtain(core, http, index) {
        return work(core, room, http, index);
    }
    let told = http.clients[index].codec.lost(Side::Member);
    core.count_server(http.clients[index].server, Keyed::Failures, 1);
    act(core, room, http, index, told);
    work(core, room, http, index);
}

/// Reads from the member and takes the codec's steps.
fn read_member(core: &mut Core, room: &mut Room, http: &mut Http, index: usize, at: usize) -> bool {
    let (client, up) = (&mut http.clients[index], &mut http.ups[at]);
    let stuck = client.codec.take_stuck(Side::Member, &mut room.scratch);
    let mut length = stuck;
    let mut is_end = false;
    let room_end = room.scratch.len().min(stuck + READ_BYTES_MAX);
    if stuck == room_end {
        // A member whose output cannot be used although there is as much of it as a head may have: the codec says so.
        step_member(core, room, http, index, stuck);
        return false;
    }
    let into = &mut room.scratch[stuck..room_end];
    match rustix::net::recv(&up.socket, into, RecvFlags::DONTWAIT) {
        Ok((0, _)) => is_end = true,
        Ok((count, _)) => {
            length += count;
            up.readable = length == room_end || up.is_hung_up;
            up.retry.clear();
            core.count_member(up.member, Keyed::BytesOut, count as u64);
        }
        Err(Errno::AGAIN | Errno::INTR) => up.readable = false,
        Err(_) => {
            client
                .codec
                .keep_stuck(Side::Member, &room.scratch[..length]);
            return fail(core, room, http, index, Side::Member);
        }
    }
    if is_end {
        up.readable = false;
        up.is_at_end = true;
        if length == 0 && may_retry(http, index, at) {
            return retry(core, room, http, index);
        }
    }
    if length == 0 && !is_end {
        return false;
    }
    step_member(core, room, http, index, length);
    let Some(client) = http.clients.get_mut(index) else {
        return true;
    };
    if is_end && client.up == Some(at) {
        let told = with_context(core, client.address, |cx| {
            client.codec.end_of_stream(Side::Member, cx, &mut room.work)
        });
        if !room.work.out.is_empty() {
            put_client(core, room, http, index, 0..0);
        }
        act(core, room, http, index, told);
    }
    true
}

fn step_member(core: &mut Core, room: &mut Room, http: &mut Http, index: usize, length: usize) {
    let mut at = 0;
    loop {
        let client = &mut http.clients[index];
        if !client.codec.unsent(Side::Client).is_empty() {
            break;
        }
        let step = with_context(core, client.address, |cx| {
            client
                .codec
                .step(Side::Member, cx, &room.scratch[at..length], &mut room.work)
        });
        let tail = at + step.tail.start..at + step.tail.end;
        at += step.consumed;
        match step.event {
            Told::Body | Told::NeedMore | Told::Wait => {
                if !tail.is_empty() && !put_client(core, room, http, index, tail) {
                    break;
                }
                if step.event != Told::Body {
                    break;
                }
            }
            Told::Response => {
                let consumed = with_context(core, client.address, |cx| {
                    client
                        .codec
                        .forward_response(cx, &room.scratch[at..length], &mut room.work)
                });
                at += consumed;
            }
            told => {
                put_client(core, room, http, index, tail);
                if let Some(client) = http.clients.get_mut(index) {
                    // What a member sent behind its response belongs to nobody: it is mad, and not used again.
                    let is_clean = at == length;
                    if !is_clean && let Some(up) = client.up {
                        http.ups[up].is_at_end = true;
                    }
                    act(core, room, http, index, told);
                }
                room.work.out.clear();
                return;
            }
        }
    }
    if let Some(client) = http.clients.get_mut(index) {
        client
            .codec
            .keep_stuck(Side::Member, &room.scratch[at..length]);
        if !room.work.out.is_empty() {
            put_client(core, room, http, index, 0..0);
        }
    }
    room.work.out.clear();
}

/// Sends what the codec wrote and then a range of the scratch buffer to the client. `false`: the connection is over.
fn put_client(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    tail: core::ops::Range<usize>,
) -> bool {
    let Some(client) = http.clients.get_mut(index) else {
        return false;
    };
    let (out, tail) = (&room.work.out[..], &room.scratch[tail]);
    let mut sent = 0;
    if client.codec.unsent(Side::Client).is_empty() && client.writable && out.len() + tail.len() > 0
    {
        match send_parts(&client.socket, out, tail) {
            Ok(count) => sent = count,
            Err(Errno::AGAIN) => {}
            Err(_) => {
                room.work.out.clear();
                fail(core, room, http, index, Side::Client);
                return false;
            }
        }
        client.written += sent as u64;
        client.writable = sent == out.len() + tail.len();
        core.count_server(client.server, Keyed::BytesOut, sent as u64);
    }
    client
        .codec
        .keep_unsent(Side::Client, &out[sent.min(out.len())..]);
    client
        .codec
        .keep_unsent(Side::Client, &tail[sent.saturating_sub(out.len())..]);
    room.work.out.clear();
    true
}

/// The same towards the member; while it is connecting, all of it waits. `false`: the connection is over.
fn put_member(
    core: &Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    tail: core::ops::Range<usize>,
) -> bool {
    let Some(client) = http.clients.get_mut(index) else {
        return false;
    };
    let (out, tail) = (&room.work.out[..], &room.scratch[tail]);
    let mut sent = 0;
    let mut has_failed = false;
    let is_empty = client.codec.unsent(Side::Member).is_empty();
    if let Some(up) = client.up.map(|up| &mut http.ups[up])
        && !up.is_connecting
        && up.writable
        && is_empty
        && out.len() + tail.len() > 0
    {
        match send_parts(&up.socket, out, tail) {
            Ok(count) => sent = count,
            Err(Errno::AGAIN) => {}
            // It may have answered before it closed: reading tells. The bytes are nobody's any more.
            Err(_) => has_failed = true,
        }
        up.writable = sent == out.len() + tail.len();
        core.count_member(up.member, Keyed::BytesIn, sent as u64);
        up.readable |= has_failed;
    }
    if !has_failed && client.up.is_some() {
        client
            .codec
            .keep_unsent(Side::Member, &out[sent.min(out.len())..]);
        client
            .codec
            .keep_unsent(Side::Member, &tail[sent.saturating_sub(out.len())..]);
    }
    room.work.out.clear();
    true
}

fn send_parts(socket: &OwnedFd, out: &[u8], tail: &[u8]) -> Result<usize, Errno> {
    if out.is_empty() {
        send(socket, tail, &[])
    } else {
        send(socket, out, tail)
    }
}

/// A socket failed.
fn fail(core: &mut Core, room: &mut Room, http: &mut Http, index: usize, side: Side) -> bool {
    let Some(client) = http.clients.get_mut(index) else {
        return false;
    };
    if side == Side::Member
        && let Some(at) = client.up
        && may_retry(http, index, at)
    {
        return retry(core, room, http, index);
    }
    let Some(client) = http.clients.get_mut(index) else {
        return false;
    };
    if side == Side::Client {
        end(core, http, index, End::Reset);
        return false;
    }
    core.count_server(client.server, Keyed::Failures, 1);
    let told = client.codec.lost(Side::Member);
    if let Some(up) = client.up.map(|up| &mut http.ups[up]) {
        core.count_member(up.member, Keyed::Failures, 1);
        up.readable = false;
        up.is_at_end = true;
    }
    act(core, room, http, index, told);
    http.clients.contains(index)
}

/// A request on a reused connection that the member had just closed.
fn may_retry(http: &Http, index: usize, at: usize) -> bool {
    let codec = &http.clients[index].codec;
    !http.ups[at].retry.is_empty() && codec.is_in_exchange() && !codec.has_responded()
}

fn retry(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) -> bool {
    let Some(at) = http.clients[index].up else {
        return false;
    };
    let request = core::mem::take(&mut http.ups[at].retry);
    let member = http.ups[at].member;
    core.count(Lane::RequestRetries, 1);
    release(core, http, index, After::Close);
    http.clients[index].codec.forget_member();
    http.clients[index]
        .codec
        .keep_unsent(Side::Member, &request);
    if open_new(core, http, index, member) || obtain(core, http, index) {
        return true;
    }
    let told = http.clients[index].codec.lost(Side::Member);
    act(core, room, http, index, told);
    http.clients.contains(index)
}

/// Does what the codec said.
fn act(core: &mut Core, room: &mut Room, http: &mut Http, index: usize, told: Told) {
    let Some(client) = http.clients.get_mut(index) else {
        return;
    };
    match told {
        Told::NeedMore | Told::Wait | Told::Request | Told::Response => {}
        Told::Body => {
            put_client(core, room, http, index, 0..0);
        }
        Told::Done {
            client: after_client,
            member,
        } => {
            release(core, http, index, member);
            done(core, http, index, after_client, member);
        }
        Told::Refused(refusal) => refuse(core, room, http, index, refusal.status()),
        Told::BadMember(refusal) => refuse(core, room, http, index, refusal.member_status()),
        Told::Abort(_) => {
            core.count_server(client.server, Keyed::Failures, 1);
            release(core, http, index, After::Close);
            end(core, http, index, End::Reset);
        }
        Told::Close => {
            release(core, http, index, After::Close);
            let client = &mut http.clients[index];
            client.closing = Closing::AfterOutput;
            client.close_at_us = core.now_us + core.tables.limits.body_time_us;
        }
    }
}

/// An exchange is complete: keeps the books.
fn done(core: &Core, http: &mut Http, index: usize, after: After, member: After) {
    let Some(client) = http.clients.get_mut(index) else {
        return;
    };
    let slot = core.slot(client.slot);
    let unread = client.codec.stuck(Side::Client).len() as u64;
    let unsent = client.codec.unsent(Side::Client).len() as u64;
    slot.read_done
        .store(client.read - unread, Ordering::Relaxed);
    slot.written_done
        .store(client.written + unsent, Ordering::Relaxed);
    slot.set_flag(IN_FLIGHT, unread + unsent > 0);
    if after == After::Close {
        // A client that asked for it sends nothing more. One that we tell may have sent its next request, and behind a
        // request that was answered early (its member is closed then) more of its body may come.
        let is_expected = !core.is_draining && member == After::Keep;
        client.closing = if is_expected {
            Closing::AfterOutput
        } else {
            Closing::Lingering
        };
        client.close_at_us = core.now_us + core.tables.limits.body_time_us;
    }
}

fn refuse(core: &mut Core, room: &mut Room, http: &mut Http, index: usize, status: u16) {
    release(core, http, index, After::Close);
    let Some(client) = http.clients.get_mut(index) else {
        return;
    };
    client.codec.forget_member();
    room.work.out.clear();
    let told = with_context(core, client.address, |cx| {
        client.codec.refuse(cx, &mut room.work, status)
    });
    match told {
        Told::Done { .. } => {
            core.count(Lane::Refusals, 1);
            client.closing = Closing::Lingering;
            client.close_at_us = core.now_us + core.tables.limits.body_time_us;
            put_client(core, room, http, index, 0..0);
        }
        Told::Abort(_) => end(core, http, index, End::Reset),
        _ => {
            client.closing = Closing::AfterOutput;
            client.close_at_us = core.now_us + LINGER_US_MAX;
        }
    }
}

/// The output of a closing connection is sent. `true`: go on at once.
fn close_down(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) -> bool {
    let client = &mut http.clients[index];
    match client.closing {
        Closing::No => return true,
        Closing::AfterOutput => {
            end(core, http, index, End::Closed);
            return false;
        }
        Closing::Lingering => {
            let _ = rustix::net::shutdown(&client.socket, Shutdown::Write);
            client.closing = Closing::Shut;
            client.close_at_us = core.now_us + LINGER_US_MAX;
        }
        Closing::Shut => {}
    }
    while client.readable {
        match rustix::net::recv(&client.socket, &mut room.scratch[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                end(core, http, index, End::Closed);
                return false;
            }
            Ok((count, _)) => client.read += count as u64,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => client.readable = false,
            Err(_) => {
                end(core, http, index, End::Closed);
                return false;
            }
        }
    }
    false
}

/// Parts a client from its member's connection, which is kept for others or closed.
fn release(core: &mut Core, http: &mut Http, index: usize, after: After) {
    let Some(client) = http.clients.get_mut(index) else {
        return;
    };
    let Some(at) = client.up.take() else { return };
    let is_clean =
        client.codec.unsent(Side::Member).is_empty() && client.codec.stuck(Side::Member).is_empty();
    let up = &mut http.ups[at];
    let member = up.member;
    core.leave_member(member);
    up.client = None;
    up.retry = Vec::new();
    up.since_us = core.now_us;
    let idle = &mut core.tables.members[member].idle;
    let has_room = idle.len() < IDLE_PER_MEMBER_MAX && !core.is_draining;
    if after == After::Keep
        && is_clean
        && !up.is_at_end
        && !up.is_hung_up
        && !up.is_connecting
        && has_room
    {
        idle.push(at);
        let due_us = core.now_us + MEMBER_IDLE_US_MAX;
        core.wheel
            .set(Source::HttpMember(at).token(), due_us, &mut up.armed_us);
        return;
    }
    let up = http.ups.remove(at);
    core.unwatch(&up.socket);
}

fn drop_idle(core: &mut Core, http: &mut Http, at: usize) {
    let Some(up) = http.ups.try_remove(at) else {
        return;
    };
    core.unwatch(&up.socket);
    core.tables.members[up.member]
        .idle
        .retain(|&idle| idle != at);
}

/// How a client's connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Closed,
    /// In a way that the client notices.
    Reset,
}

pub(super) fn end(core: &mut Core, http: &mut Http, index: usize, how: End) {
    release(core, http, index, After::Close);
    let Some(client) = http.clients.try_remove(index) else {
        return;
    };
    core.unwatch(&client.socket);
    match how {
        // The keeper may have a duplicate for a moment longer: say the end now.
        End::Closed => {
            let _ = rustix::net::shutdown(&client.socket, Shutdown::Write);
        }
        End::Reset => reset_on_close(&client.socket),
    }
    core.end_slot(client.slot);
}
