//! A member's HTTP/2 connection, which streams of many clients share.
//!
//! ```text
//! connecting ─► serving ─ GOAWAY, or no number is left ─► takes no new stream ─ last one over ─► closed
//!      └ refused: its exchanges go to other members       └ fault, end: its exchanges are lost or repeated
//! ```
//!
//! A stream's request may be repeated on another connection while nothing of its body has been sent
//! and its member has certainly not touched it, or if its method may be repeated anyway. Its output
//! is sent once a turn of the event loop, for all its streams together.

use std::os::fd::OwnedFd;

use hitless_proto::http2::{Connection, Context, ErrorCode, Event as Told};
use mio::event::Event;
use rustix::io::Errno;

use self::events::{event, fail_trunk, read};
use super::exchange::obtain;
use super::{answer, context, front, member};
use crate::egress;
use crate::worker::core_of_lane::{Core, ROUNDS_MAX, Source};
use crate::worker::http::{Http, Room};
use crate::worker::stats::{Keyed, Lane};
use crate::worker::tls::{self, Shaking, Tls};

pub(in crate::worker) use self::carry::{insert, rejoin, thaw};

mod carry;
mod events;

/// Streams of one connection, whatever its member allows: then another one is opened.
pub(in crate::worker) const STREAMS_PER_TRUNK: u32 = 100;
/// How often one request is repeated.
const REPEATS_MAX: u8 = 2;

/// A member's connection.
#[derive(Debug)]
pub(in crate::worker) struct Trunk {
    pub(in crate::worker) socket: OwnedFd,
    pub(in crate::worker) tls: Tls,
    /// Its TLS handshake; until it is over, it is connecting.
    pub(in crate::worker) shaking: Option<Box<Shaking>>,
    pub(in crate::worker) member: usize,
    pub(in crate::worker) codec: Connection,
    /// Streams with the places of their exchanges, by rising number.
    pub(in crate::worker) streams: Vec<(u32, usize)>,
    /// Exchanges that wait for its member's settings, which say how many streams there may be.
    pub(super) queue: Vec<usize>,
    pub(in crate::worker) is_connecting: bool,
    readable: bool,
    is_hung_up: bool,
    writable: bool,
    pub(in crate::worker) is_at_end: bool,
    pub(in crate::worker) since_us: u64,
    armed_us: u64,
}

impl Trunk {
    pub(in crate::worker) fn new(
        socket: OwnedFd,
        member: usize,
        codec: Connection,
        is_connecting: bool,
        now_us: u64,
    ) -> Self {
        Self {
            socket,
            tls: None,
            shaking: None,
            member,
            codec,
            streams: Vec::new(),
            queue: Vec::new(),
            is_connecting,
            readable: true,
            is_hung_up: false,
            writable: true,
            is_at_end: false,
            since_us: now_us,
            armed_us: 0,
        }
    }

    /// Bytes wait for the member.
    fn has_unsent(&self) -> bool {
        !self.codec.unsent().is_empty() || tls::has_unsent(&self.tls)
    }

    fn has_room(&self) -> bool {
        !self.is_at_end
            && !self.is_hung_up
            && self.codec.may_open()
            && self.codec.streams() + self.queue.len() < STREAMS_PER_TRUNK as usize
    }

    fn exchange_of(&self, stream: u32) -> Option<usize> {
        let place = self.streams.binary_search_by_key(&stream, |(id, _)| *id);
        place.ok().map(|place| self.streams[place].1)
    }
}

fn trunk_context(core: &Core) -> Context<'_> {
    Context {
        now_us: core.now_us,
        limits: &core.tables.trunk_limits,
    }
}

/// Puts an exchange on a connection to this member. `false`: it cannot be.
pub(super) fn join(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    at: usize,
    member: usize,
) -> bool {
    let known = core.tables.members[member].trunks.iter().copied();
    let mut found = known.clone().find(|&trunk| http.trunks[trunk].has_room());
    if found.is_none() {
        http.exchanges[at].tried.push(member);
        found = open_trunk(core, room, http, member);
    }
    let Some(place) = found else { return false };
    let (trunk, exchange) = (&mut http.trunks[place], &mut http.exchanges[at]);
    exchange.member = member;
    if !trunk.codec.has_peer_settings() {
        trunk.queue.push(at);
        exchange.queued = Some(place);
        return true;
    }
    let request = &mut exchange.request;
    let ends = request.has_ended && request.waiting.is_empty() && request.trailers.is_none();
    let Some(head) = exchange.head.as_deref() else {
        return false;
    };
    let out = &mut room.http2.trunk.out;
    match trunk.codec.open(&trunk_context(core), head, ends, out) {
        Ok(stream) => {
            request.is_done = ends;
            exchange.trunk = Some((place, stream));
            exchange.since_us = core.now_us;
            trunk.streams.push((stream, at));
            trunk.codec.take_output(&mut room.http2.trunk, core.now_us);
        }
        Err(_) => exchange.tried.push(member),
    }
    let has_joined = exchange.trunk.is_some();
    if has_joined {
        core.enter_member(member);
        core.count_member(member, Keyed::Requests, 1);
        http.touch_trunk(place);
    }
    has_joined
}

fn open_trunk(core: &mut Core, room: &mut Room, http: &mut Http, member: usize) -> Option<usize> {
    core.count_member(member, Keyed::Connections, 1);
    let address = core.tables.members[member].address;
    let Ok(opened) = egress::connect(address, egress::Source::Any) else {
        core.count_member(member, Keyed::Failures, 1);
        core.count(Lane::ConnectRetries, 1);
        return None;
    };
    let codec = Connection::client(&trunk_context(core), &mut room.http2.trunk.out);
    let now_us = core.now_us;
    let is_connecting = core.is_connecting(&opened, member);
    let mut trunk = Trunk::new(opened.socket, member, codec, is_connecting, now_us);
    trunk.codec.take_output(&mut room.http2.trunk, now_us);
    let place = http.trunks.insert(trunk);
    let socket = &http.trunks[place].socket;
    if core.watch(socket, Source::Trunk(place)).is_err() {
        http.trunks.remove(place);
        return None;
    }
    core.tables.members[member].trunks.push(place);
    arm(core, http, place);
    Some(place)
}

/// Sends of a request's body what the member takes. Output for the front is in the room.
pub(super) fn send_request(core: &Core, room: &mut Room, http: &mut Http, at: usize) -> bool {
    let exchange = &mut http.exchanges[at];
    let Some((place, stream)) = exchange.trunk else {
        return false;
    };
    let trunk = &mut http.trunks[place];
    let request = &mut exchange.request;
    if trunk.is_connecting || request.is_done {
        return false;
    }
    let (cx, out) = (trunk_context(core), &mut room.http2.trunk.out);
    let mut has_moved = false;
    let ends = request.has_ended && request.trailers.is_none();
    if !request.waiting.is_empty() {
        // A stream that is gone says so by an event.
        let data = &request.waiting;
        let sent = trunk.codec.send_data(&cx, stream, data, ends, out);
        let count = sent.unwrap_or(data.len());
        request.waiting.drain(..count);
        has_moved = count > 0;
        request.is_done = ends && request.waiting.is_empty();
        if has_moved {
            exchange.head = None;
            exchange.since_us = core.now_us;
            let front = &mut http.fronts[exchange.front];
            let out = &mut room.http2.work.out;
            front
                .codec
                .release(&context(core), exchange.stream, count, out);
        }
    }
    if request.has_ended && request.waiting.is_empty() && !request.is_done {
        request.is_done = true;
        exchange.head = None;
        has_moved = true;
        let out = &mut room.http2.trunk.out;
        let _ = match request.trailers.take() {
            Some(head) => trunk.codec.send_trailers(&cx, stream, &head, out),
            None => {
                let sent = trunk.codec.send_data(&cx, stream, &[], true, out);
                sent.map(|_| ())
            }
        };
    }
    trunk.codec.take_output(&mut room.http2.trunk, core.now_us);
    http.touch_trunk(place);
    has_moved
}

/// Bytes of a response have gone on: its member may send as many more.
pub(super) fn release(
    core: &Core,
    room: &mut Room,
    http: &mut Http,
    (place, stream): (usize, u32),
    count: usize,
) {
    let trunk = &mut http.trunks[place];
    let out = &mut room.http2.trunk.out;
    trunk
        .codec
        .release(&trunk_context(core), stream, count, out);
    trunk.codec.take_output(&mut room.http2.trunk, core.now_us);
    http.touch_trunk(place);
}

/// An exchange does not need its stream any more.
pub(super) fn leave(
    core: &mut Core,
    http: &mut Http,
    (place, stream): (usize, u32),
    code: ErrorCode,
) {
    let Some(trunk) = http.trunks.get_mut(place) else {
        return;
    };
    trunk.streams.retain(|(id, _)| *id != stream);
    core.leave_member(trunk.member);
    if trunk.codec.is_open(stream) {
        let mut out = Vec::new();
        trunk
            .codec
            .reset(&trunk_context(core), stream, code, &mut out);
        trunk.codec.keep_unsent(&out, core.now_us);
        http.touch_trunk(place);
    }
    arm(core, http, place);
}

/// Once a turn: what has been written for members.
pub(in crate::worker) fn flush_trunks(core: &mut Core, http: &mut Http) {
    for place in core::mem::take(&mut http.touched_trunks) {
        if http.is_frozen || !http.trunks.contains(place) {
            continue;
        }
        flush(core, http, place);
        arm(core, http, place);
    }
}

fn flush(core: &mut Core, http: &mut Http, place: usize) -> bool {
    let trunk = &mut http.trunks[place];
    if trunk.is_connecting || !trunk.writable || !trunk.has_unsent() {
        return false;
    }
    let unsent = trunk.codec.unsent();
    match tls::send(&trunk.socket, &mut trunk.tls, &mut core.tls, unsent, &[]) {
        Ok(count) => {
            trunk.codec.sent(count, core.now_us);
            core.count_member(trunk.member, Keyed::BytesIn, count as u64);
        }
        Err(Errno::AGAIN) => {}
        Err(_) => {
            // Reading tells what it had to say before it closed.
            trunk.readable = true;
            trunk.is_hung_up = true;
            core.again.push(Source::Trunk(place).token());
        }
    }
    trunk.writable = !trunk.has_unsent();
    trunk.writable
}

pub(in crate::worker) fn on_trunk(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    place: usize,
    event: &Event,
) {
    let Some(trunk) = http.trunks.get_mut(place) else {
        return;
    };
    trunk.is_hung_up |= event.is_read_closed() || event.is_error();
    trunk.readable |= event.is_readable() || trunk.is_hung_up;
    trunk.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    work_trunk(core, room, http, place);
}

/// Its member does not take it.
pub(in crate::worker) fn connect_of_trunk_failed(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    place: usize,
) {
    fail_trunk(core, room, http, place, true);
    work_fronts(core, room, http);
}

/// Moves what can be moved between a member and its clients.
pub(in crate::worker) fn work_trunk(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    place: usize,
) {
    let Some(trunk) = http.trunks.get_mut(place) else {
        return;
    };
    if http.is_frozen {
        return;
    }
    if trunk.is_connecting {
        let is_writable = rustix::net::getpeername(&trunk.socket).is_ok();
        let member = (&core.tables.members[trunk.member], core.holds_handshakes);
        let shaking = trunk.shaking.take();
        let scratch = &mut room.scratch;
        match tls::connect(member, &trunk.socket, shaking, is_writable, scratch) {
            tls::Connect::Open(layer) => {
                trunk.tls = layer;
                trunk.is_connecting = false;
                trunk.since_us = core.now_us;
            }
            tls::Connect::Waiting(shaking) => {
                trunk.shaking = shaking;
                return arm(core, http, place);
            }
            tls::Connect::Failed => fail_trunk(core, room, http, place, true),
        }
    }
    let mut rounds = 0;
    while http.trunks.contains(place) && round(core, room, http, place) {
        rounds += 1;
        if rounds == ROUNDS_MAX {
            core.again.push(Source::Trunk(place).token());
            break;
        }
    }
    arm(core, http, place);
    work_fronts(core, room, http);
}

fn work_fronts(core: &mut Core, room: &mut Room, http: &mut Http) {
    while let Some(index) = http.touched_fronts.pop() {
        front::work(core, room, http, index);
    }
}

fn round(core: &mut Core, room: &mut Room, http: &mut Http, place: usize) -> bool {
    let mut has_moved = flush(core, http, place);
    has_moved |= read(core, room, http, place);
    while let Some(trunk) = http.trunks.get_mut(place) {
        let out = &room.http2.trunk.out;
        let Some(stream) = trunk.codec.next_writable(&trunk_context(core), out) else {
            break;
        };
        has_moved = true;
        if let Some(at) = trunk.exchange_of(stream) {
            send_and_touch(core, room, http, at);
        }
    }
    has_moved
}

/// The member's settings have come: who waited for them goes on, here or elsewhere.
fn leave_queue(core: &mut Core, room: &mut Room, http: &mut Http, place: usize) {
    for at in core::mem::take(&mut http.trunks[place].queue) {
        http.exchanges[at].queued = None;
        http.exchanges[at].tried = Vec::new();
        seek(core, room, http, at);
    }
}

/// Finds an exchange a stream that it does not have, or fails it.
pub(in crate::worker) fn seek(core: &mut Core, room: &mut Room, http: &mut Http, at: usize) {
    let index = http.exchanges[at].front;
    if obtain(core, room, http, at) {
        member::send_request(core, room, http, at);
    } else {
        core.count(Lane::Refusals, 1);
        answer::fail(core, room, http, at, 502);
    }
    touch_front(core, room, http, index);
}

/// Sends of a request's body what can be sent, from outside its front's work.
fn send_and_touch(core: &mut Core, room: &mut Room, http: &mut Http, at: usize) {
    let index = http.exchanges[at].front;
    member::send_request(core, room, http, at);
    touch_front(core, room, http, index);
}

/// Keeps output that is in the room for a front.
fn touch_front(core: &Core, room: &mut Room, http: &mut Http, index: usize) {
    if let Some(front) = http.fronts.get_mut(index) {
        front.codec.take_output(&mut room.http2.work, core.now_us);
        if !http.touched_fronts.contains(&index) {
            http.touched_fronts.push(index);
        }
    }
}

pub(in crate::worker) fn on_trunk_timer(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    place: usize,
) {
    let Some(trunk) = http.trunks.get_mut(place) else {
        return;
    };
    trunk.armed_us = 0;
    if http.is_frozen {
        return;
    }
    if trunk.is_connecting {
        if core.now_us >= trunk.since_us + core.tables.times.connect_us {
            core.count(Lane::TimeoutsHit, 1);
            fail_trunk(core, room, http, place, true);
        }
    } else {
        while let Some(trunk) = http.trunks.get_mut(place) {
            let told = trunk
                .codec
                .expire(&trunk_context(core), &mut room.http2.trunk);
            trunk.codec.take_output(&mut room.http2.trunk, core.now_us);
            if told == Told::NeedMore {
                break;
            }
            if told != Told::Closed {
                core.count(Lane::TimeoutsHit, 1);
            }
            if !event(core, room, http, place, told, 0..0) {
                break;
            }
            http.touch_trunk(place);
        }
    }
    arm(core, http, place);
    work_fronts(core, room, http);
}

fn arm(core: &mut Core, http: &mut Http, place: usize) {
    let Some(trunk) = http.trunks.get_mut(place) else {
        return;
    };
    let due_us = match trunk.is_connecting {
        true => trunk.since_us + core.tables.times.connect_us,
        false => match trunk.codec.deadline(&core.tables.trunk_limits) {
            Some(deadline) => deadline.at_us,
            None => return,
        },
    };
    let token = Source::Trunk(place).token();
    core.wheel.set(token, due_us, &mut trunk.armed_us);
}
