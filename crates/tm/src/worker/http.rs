//! HTTP/1.1: a client's connection, and a member's for as long as a request needs one.
//!
//! ```text
//! idle ─ request head ─► choose member ─► connecting ─► exchange ─ done ─► idle, or closing ─► over
//!                          └ none: 503       └ refused: next member; none left: 502
//! ```
//!
//! The codec ([`hitless_proto::http1::Connection`]) decides everything about messages; this moves
//! bytes and keeps the books in the slot: how many bytes were read and written at the end of the
//! last finished exchange, so that after a crash the kernel's counters tell whether a byte of a
//! later request is lost. Bytes are read into the thread's scratch buffer, and a connection owns
//! memory only while some of them are stuck.

use core::net::IpAddr;
use std::os::fd::OwnedFd;

use hitless_carry::slots::{Kind, REGISTERED};
use hitless_proto::http1::{Connection, Context, Event as Told, Side, Work, http_date};
use mio::event::Event;
use slab::Slab;

pub(super) use self::exchange::connect_failed;
use self::exchange::{act, close_down, drop_idle, fail, note_idle};
pub(super) use self::exchange::{give_back, open_up, take_idle};
pub(super) use self::flow::recv_from_member;
use self::flow::{Flushed, flush, read_client, read_member};
use super::balance::key_of_client;
use super::core_of_lane::{Core, ROUNDS_MAX, Source};
use super::http2::{self, Exchange, Front, Trunk};
use super::stats::Lane;
use super::tls::{self, Layer, Shaking, Tls};
use super::trial::Point;

pub(super) use self::exchange::{End, end};

mod exchange;
mod flow;

/// After an answer that the client may not expect, its sending half is read and dropped for this
/// long, so that no reset overtakes the answer.
pub(super) const LINGER_US_MAX: u64 = 1_000_000;
/// Bytes of one read.
pub(super) const READ_BYTES_MAX: usize = 64 * 1024;
/// Of the scratch buffer: a read behind the longest thing that can be stuck.
pub(super) const SCRATCH_BYTES: usize = 4 * READ_BYTES_MAX;
/// Idle connections kept per member by one event loop: more than it uses at once is of no use.
const IDLE_PER_MEMBER_MAX: usize = 256;
/// An idle connection to a member is closed after this; members commonly keep them for a minute.
pub(super) const MEMBER_IDLE_US_MAX: u64 = 30_000_000;

/// What a thread lends to the connection that it works on.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) scratch: Vec<u8>,
    pub(super) work: Work,
    pub(super) http2: http2::Room,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) slot: u32,
    pub(super) server: usize,
    pub(super) socket: OwnedFd,
    pub(super) tls: Tls,
    pub(super) address: IpAddr,
    pub(super) codec: Connection,
    /// Place of the member's connection while a request needs it.
    pub(super) up: Option<usize>,
    pub(super) tried: Vec<usize>,
    /// The hash by which a member is chosen for the request under way.
    key: u64,
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
    pub(super) tls: Tls,
    /// Its TLS handshake; until it is over, it is connecting.
    pub(super) shaking: Option<Box<Shaking>>,
    pub(super) member: usize,
    /// `None`: idle.
    pub(super) user: Option<User>,
    pub(super) is_connecting: bool,
    /// It was used before: the member may have closed it meanwhile.
    pub(super) is_reused: bool,
    pub(super) readable: bool,
    pub(super) is_hung_up: bool,
    pub(super) writable: bool,
    pub(super) is_at_end: bool,
    pub(super) since_us: u64,
    /// A request that may be sent once more on another connection, until its response begins.
    pub(super) retry: Vec<u8>,
    armed_us: u64,
}

/// Who uses a connection to a member, by place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum User {
    Client(usize),
    /// A stream of a client's HTTP/2 connection.
    Exchange(usize),
}

#[derive(Debug, Default)]
pub(super) struct Http {
    pub(super) clients: Slab<Client>,
    pub(super) ups: Slab<Up>,
    /// Clients' HTTP/2 connections, and the requests on them.
    pub(super) fronts: Slab<Front>,
    pub(super) exchanges: Slab<Exchange>,
    /// Members' HTTP/2 connections.
    pub(super) trunks: Slab<Trunk>,
    /// Those with output of this turn, and clients' connections with output of one piece of work.
    pub(super) touched_trunks: Vec<usize>,
    pub(super) touched_fronts: Vec<usize>,
    /// HTTP/2 stands still: its connections to members are being handed over.
    pub(super) is_frozen: bool,
    /// Clients' connections that are no HTTP any more, and are still to become pairs.
    pub(super) switched: Vec<Switched>,
    /// Places of members' connections that are being carried over, by their numbers in records.
    pub(super) carried: Vec<(u32, usize)>,
}

/// A client and its member that speak another protocol from here on.
#[derive(Debug)]
pub(super) struct Switched {
    pub(super) slot: u32,
    pub(super) server: usize,
    pub(super) member: usize,
    /// The client's and the member's.
    pub(super) sockets: [OwnedFd; 2],
    pub(super) layers: [Tls; 2],
}

impl Http {
    pub(super) fn touch_trunk(&mut self, place: usize) {
        if !self.touched_trunks.contains(&place) {
            self.touched_trunks.push(place);
        }
    }
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
            tls: None,
            address,
            codec: Connection::new(now_us),
            up: None,
            tried: Vec::new(),
            key: key_of_client(address),
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

    /// Bytes wait for the client.
    fn has_unsent(&self) -> bool {
        !self.codec.unsent(Side::Client).is_empty() || tls::has_unsent(&self.tls)
    }
}

impl Up {
    pub(super) fn new(socket: OwnedFd, member: usize, is_connecting: bool, now_us: u64) -> Self {
        Self {
            socket,
            tls: None,
            shaking: None,
            member,
            user: None,
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
    core.point(Point::Begun);
    let client = Client::new(slot, server, socket, address, core.now_us);
    let index = http.clients.insert(client);
    begin(core, room, http, index);
}

/// Takes a client whose TLS handshake is over.
pub(super) fn accept_sealed(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    (slot, server): (u32, usize),
    (socket, address): (OwnedFd, IpAddr),
    (layer, is_http2): (Layer, bool),
) {
    let mut client = Client::new(slot, server, socket, address, core.now_us);
    client.tls = Some(Box::new(layer));
    let index = http.clients.insert(client);
    if is_http2 {
        return http2::take_over_client(core, room, http, index, 0);
    }
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
    if client.readable || client.has_unsent() {
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
    let Some(user) = up.user else {
        if event.is_readable() || up.is_hung_up {
            // An idle member has nothing to say: it closed, or it is mad.
            drop_idle(core, http, index);
        }
        return;
    };
    if up.is_connecting {
        match connecting(core, room, up, event.is_writable()) {
            Connecting::Open => {
                up.is_connecting = false;
                up.since_us = core.now_us;
                match user {
                    User::Client(client) => http.clients[client].tried = Vec::new(),
                    User::Exchange(at) => http.exchanges[at].tried = Vec::new(),
                }
            }
            Connecting::Waiting => return,
            Connecting::Failed => {
                return match user {
                    User::Client(client) => connect_failed(core, room, http, client),
                    User::Exchange(at) => http2::connect_failed(core, room, http, at),
                };
            }
        }
    } else if let User::Client(client) = user
        && !up.readable
        && http.clients[client].codec.unsent(Side::Member).is_empty()
        && !tls::has_unsent(&up.tls)
    {
        return;
    }
    match user {
        User::Client(client) => work(core, room, http, client),
        User::Exchange(at) => http2::work_exchange(core, room, http, at),
    }
}

/// How far the connect to a member has come.
pub(super) enum Connecting {
    Open,
    Waiting,
    Failed,
}

/// Goes on with a connect, and with the TLS handshake that comes behind it.
fn connecting(core: &Core, room: &mut Room, up: &mut Up, is_writable: bool) -> Connecting {
    let member = (&core.tables.members[up.member], core.holds_handshakes);
    let shaking = up.shaking.take();
    match tls::connect(member, &up.socket, shaking, is_writable, &mut room.scratch) {
        tls::Connect::Open(layer) => {
            up.tls = layer;
            Connecting::Open
        }
        tls::Connect::Waiting(shaking) => {
            up.shaking = shaking;
            Connecting::Waiting
        }
        tls::Connect::Failed => Connecting::Failed,
    }
}

/// A member's connection whose work was put off.
pub(super) fn on_member_again(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) {
    match http.ups.get(index).and_then(|up| up.user) {
        Some(User::Client(client)) => work(core, room, http, client),
        Some(User::Exchange(at)) => http2::work_exchange(core, room, http, at),
        None => {}
    }
}

/// A timer entry of this client fired.
pub(super) fn on_client_timer(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) {
    let Some(client) = http.clients.get_mut(index) else {
        return;
    };
    client.armed_us = 0;
    if client.closing != Closing::No {
        if core.now_us >= client.close_at_us {
            let is_sent = !client.has_unsent();
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
    if up.user.is_some() {
        return;
    }
    let due_us = up.since_us + MEMBER_IDLE_US_MAX;
    if core.now_us >= due_us {
        return drop_idle(core, http, index);
    }
    core.wheel
        .set(Source::HttpMember(index).token(), due_us, &mut up.armed_us);
}

pub(super) fn with_context<T>(
    core: &Core,
    client: IpAddr,
    call: impl FnOnce(&Context<'_>) -> T,
) -> T {
    call(&Context {
        now_us: core.now_us,
        limits: &core.tables.limits,
        rewrite: &core.tables.rewrite,
        client,
        draining: core.tells_to_close(),
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
    if core.trial.fault.is_some() {
        core.trial.taste(&client.socket);
    }
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
    if client.codec.is_idle() {
        note_idle(core, client);
        protect(core, client);
    }
    arm(core, http, index);
}

/// A connection that waits for a request must survive, so the keeper gets it before it can wait: at
/// once, or before the answer to its first request goes out. One that asks to be closed with that
/// answer never waits, and costs the keeper nothing.
fn protect(core: &mut Core, client: &Client) {
    if !core.slot(client.slot).has_flag(REGISTERED) {
        core.register(client.slot, &[&client.socket]);
        core.point(Point::Registered);
    }
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

/// Client and member speak another protocol now. What of it was read already goes out first; then
/// the event loop makes a pair of the two, at the end of this turn. `false`: nothing moves here.
fn switch(core: &Core, http: &mut Http, index: usize) -> bool {
    let client = &mut http.clients[index];
    let (Some(up), true) = (client.up, client.codec.pass_switched()) else {
        return false;
    };
    let sides = [Side::Client, Side::Member];
    if sides.iter().any(|to| !client.codec.unsent(*to).is_empty()) {
        return true;
    }
    let client = http.clients.remove(index);
    let up = http.ups.remove(up);
    core.unwatch(&client.socket);
    core.unwatch(&up.socket);
    http.switched.push(Switched {
        slot: client.slot,
        server: client.server,
        member: up.member,
        sockets: [client.socket, up.socket],
        layers: [client.tls, up.tls],
    });
    false
}

/// One pass over all that could move. `false`: nothing did.
fn round(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) -> bool {
    let mut has_moved = false;
    if http.clients[index].has_unsent() {
        match flush(core, http, index, Side::Client) {
            Flushed::All => has_moved = true,
            Flushed::Stuck => {}
            Flushed::Failed => return fail(core, room, http, index, Side::Client),
        }
    }
    let client = &mut http.clients[index];
    if client.closing != Closing::No && !client.has_unsent() {
        return close_down(core, room, http, index);
    }
    if let Some(up) = client.up
        && !http.ups[up].is_connecting
        && (!client.codec.unsent(Side::Member).is_empty() || tls::has_unsent(&http.ups[up].tls))
    {
        match flush(core, http, index, Side::Member) {
            Flushed::All => has_moved = true,
            Flushed::Stuck => {}
            Flushed::Failed => return fail(core, room, http, index, Side::Member),
        }
    }
    let client = &http.clients[index];
    if client.codec.has_switched() {
        return switch(core, http, index);
    }
    if let Some(up) = client.up
        && !http.ups[up].is_connecting
        && http.ups[up].readable
        && !client.has_unsent()
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
