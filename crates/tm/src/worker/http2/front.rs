//! A client's connection: its bytes, its events, its time.

use core::ops::Range;

use hitless_carry::slots::IN_FLIGHT;
use hitless_proto::http2::{Connection, ErrorCode, Event as Told};
use mio::event::Event;
use rustix::io::Errno;

use super::leave::{End, announce_end, close_down, end, over, said_end};
use super::{Front, Leaving, context, exchange, request};
use crate::worker::core_of_lane::{Core, ROUNDS_MAX, Source};
use crate::worker::http::{Closing, Http, READ_BYTES_MAX, Room};
use crate::worker::stats::{Keyed, Lane};
use crate::worker::tls::{self, Got};

/// A client whose first bytes are the preface goes on here. They are in the scratch buffer.
pub(in crate::worker) fn take_over_client(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    length: usize,
) {
    let client = http.clients.remove(index);
    core.unwatch(&client.socket);
    core.slot(client.slot).become_http2();
    core.slot(client.slot).set_flag(IN_FLIGHT, false);
    let codec = Connection::server(&context(core), &mut room.http2.work.out);
    let mut front = Front::new(
        client.slot,
        client.server,
        client.socket,
        client.address,
        codec,
    );
    front.tls = client.tls;
    front.codec.take_output(&mut room.http2.work, core.now_us);
    front.codec.keep_stuck(&room.scratch[..length]);
    let index = http.fronts.insert(front);
    begin(core, room, http, index);
}

/// Starts serving a front that was carried over; output of its exchanges may be in the room.
pub(in crate::worker) fn begin_carried(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
) {
    let front = &mut http.fronts[index];
    front.codec.take_output(&mut room.http2.work, core.now_us);
    begin(core, room, http, index);
}

/// Starts serving a front.
pub(in crate::worker) fn begin(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) {
    match core.watch(&http.fronts[index].socket, Source::Front(index)) {
        Ok(()) => work(core, room, http, index),
        Err(_) => end(core, http, index, End::Reset),
    }
}

pub(in crate::worker) fn on_front(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    event: &Event,
) {
    let Some(front) = http.fronts.get_mut(index) else {
        return;
    };
    front.is_hung_up |= event.is_read_closed() || event.is_error();
    front.readable |= event.is_readable() || front.is_hung_up;
    front.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    if front.readable || front.has_unsent() {
        work(core, room, http, index);
    }
}

pub(in crate::worker) fn on_front_timer(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
) {
    let Some(front) = http.fronts.get_mut(index) else {
        return;
    };
    front.armed_us = 0;
    if http.is_frozen {
        return;
    }
    if front.closing != Closing::No {
        if core.now_us >= front.close_at_us {
            let is_sent = !front.has_unsent();
            let how = if is_sent { End::Closed } else { End::Reset };
            return end(core, http, index, how);
        }
        return arm(core, http, index);
    }
    loop {
        let front = &mut http.fronts[index];
        let told = front.codec.expire(&context(core), &mut room.http2.work);
        if told == Told::NeedMore {
            break;
        }
        core.count(Lane::TimeoutsHit, 1);
        let is_over = !event(core, room, http, index, told, 0..0);
        if is_over {
            break;
        }
    }
    let exchanges: Vec<usize> = http.fronts[index]
        .streams
        .iter()
        .map(|(_, at)| *at)
        .collect();
    for at in exchanges {
        exchange::expire(core, room, http, at);
    }
    let front = &mut http.fronts[index];
    front.codec.take_output(&mut room.http2.work, core.now_us);
    work(core, room, http, index);
}

/// Moves what can be moved on a client's connection.
pub(in crate::worker) fn work(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) {
    let Some(front) = http.fronts.get(index) else {
        return;
    };
    if http.is_frozen {
        return;
    }
    core.busy(Some(front.slot));
    if core.trial.fault.is_some() {
        core.trial.taste(&front.socket);
    }
    let mut rounds = 0;
    while http.fronts.contains(index) && round(core, room, http, index) {
        rounds += 1;
        if rounds == ROUNDS_MAX {
            core.again.push(Source::Front(index).token());
            break;
        }
    }
    core.busy(None);
    settle(core, http, index);
}

/// Output of an exchange's work is in the room: sends it, and what it makes room for.
pub(super) fn work_with_output(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) {
    if let Some(front) = http.fronts.get_mut(index) {
        front.codec.take_output(&mut room.http2.work, core.now_us);
        work(core, room, http, index);
    }
}

fn settle(core: &mut Core, http: &mut Http, index: usize) {
    let Some(front) = http.fronts.get(index) else {
        return;
    };
    let slot = core.slot(front.slot);
    let under_way = front.streams.len() as u64;
    slot.read_done
        .store(under_way, std::sync::atomic::Ordering::Relaxed);
    slot.set_flag(IN_FLIGHT, under_way > 0);
    arm(core, http, index);
}

pub(super) fn arm(core: &mut Core, http: &mut Http, index: usize) {
    let Some(front) = http.fronts.get_mut(index) else {
        return;
    };
    let due_us = if front.closing != Closing::No {
        front.close_at_us
    } else {
        match front.codec.deadline(&core.tables.http2_limits) {
            Some(deadline) => deadline.at_us,
            None => return,
        }
    };
    let token = Source::Front(index).token();
    core.wheel.set(token, due_us, &mut front.armed_us);
}

/// One pass over all that could move. `false`: nothing did, or the connection is over.
fn round(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) -> bool {
    if core.tells_to_close() && http.fronts[index].leaving == Leaving::No {
        announce_end(core, room, http, index);
    }
    let mut has_moved = false;
    match flush(core, http, index) {
        Ok(sent) => has_moved |= sent,
        Err(Failed) => {
            end(core, http, index, End::Reset);
            return false;
        }
    }
    let front = &mut http.fronts[index];
    if front.leaving == Leaving::Said && front.closing == Closing::No && front.codec.streams() == 0
    {
        over(core, http, index, Closing::Lingering);
    }
    let front = &mut http.fronts[index];
    if front.closing != Closing::No {
        return !front.has_unsent() && close_down(core, room, http, index);
    }
    let waiting = front.codec.unsent().len();
    if front.waits && waiting < core.tables.http2_limits.unsent_bytes_max {
        front.waits = false;
    }
    if !front.waits {
        has_moved |= read(core, room, http, index);
    }
    if http.fronts.contains(index) {
        has_moved |= answer_writable(core, room, http, index);
    }
    has_moved && http.fronts.contains(index)
}

/// Streams that could not send all and can send more now, each in its turn.
fn answer_writable(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) -> bool {
    let mut has_moved = false;
    while let Some(front) = http.fronts.get_mut(index) {
        let out = &room.http2.work.out;
        let Some(stream) = front.codec.next_writable(&context(core), out) else {
            break;
        };
        has_moved = true;
        if let Some(at) = front.exchange_of(stream) {
            exchange::send_response(core, room, http, at);
        }
    }
    if let Some(front) = http.fronts.get_mut(index) {
        front.codec.take_output(&mut room.http2.work, core.now_us);
    }
    has_moved
}

/// The client takes no bytes any more.
struct Failed;

/// Sends what waits for the client. Whether that was all of something.
fn flush(core: &mut Core, http: &mut Http, index: usize) -> Result<bool, Failed> {
    let front = &mut http.fronts[index];
    if !front.has_unsent() || !front.writable {
        return Ok(false);
    }
    core.flush_registrations();
    let unsent = front.codec.unsent();
    match tls::send(&front.socket, &mut front.tls, &mut core.tls, unsent, &[]) {
        Ok(count) => {
            front.codec.sent(count, core.now_us);
            core.count_server(front.server, Keyed::BytesOut, count as u64);
        }
        Err(Errno::AGAIN) => {}
        Err(_) => return Err(Failed),
    }
    front.writable = !front.has_unsent();
    Ok(front.writable)
}

/// Reads from the client and acts on what comes. `false`: nothing came.
fn read(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) -> bool {
    let front = &mut http.fronts[index];
    let stuck = front.codec.take_stuck(&mut room.scratch);
    let mut length = stuck;
    let mut is_end = false;
    let room_end = room.scratch.len().min(stuck + READ_BYTES_MAX);
    let has_more_stuck = !front.codec.stuck().is_empty();
    if front.readable && !front.is_at_end && stuck < room_end && !has_more_stuck {
        let into = &mut room.scratch[stuck..room_end];
        match tls::recv(&front.socket, &mut front.tls, &mut core.tls, into) {
            Ok(Got::End) => is_end = true,
            Ok(Got::Data { count, is_more }) => {
                length += count;
                front.readable = is_more || front.is_hung_up;
                core.count_server(front.server, Keyed::BytesIn, count as u64);
            }
            Err(Errno::AGAIN | Errno::INTR) => front.readable = false,
            Err(_) => {
                end(core, http, index, End::Reset);
                return true;
            }
        }
    }
    if length == 0 && !is_end {
        return false;
    }
    let consumed = step_through(core, room, http, index, length);
    let Some(front) = http.fronts.get_mut(index) else {
        return true;
    };
    if is_end {
        front.is_at_end = true;
        front.readable = false;
        if front.closing == Closing::No {
            let told = front.codec.end_of_stream(&mut room.http2.work);
            event(core, room, http, index, told, 0..0);
            let front = &mut http.fronts[index];
            front.codec.take_output(&mut room.http2.work, core.now_us);
        }
    }
    length > stuck || consumed > 0
}

/// Steps through `length` bytes in the scratch buffer. Returns the bytes used.
fn step_through(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    length: usize,
) -> usize {
    let mut at = 0;
    loop {
        let front = &mut http.fronts[index];
        let step = front.codec.step(
            &context(core),
            &room.scratch[at..length],
            &mut room.http2.work,
        );
        let data = at + step.data.start..at + step.data.end;
        at += step.consumed;
        if !event(core, room, http, index, step.event, data) {
            break;
        }
    }
    let front = &mut http.fronts[index];
    front.codec.keep_stuck(&room.scratch[at..length]);
    front.codec.take_output(&mut room.http2.work, core.now_us);
    at
}

/// Does what the codec said. `false`: it has nothing more to say for now.
fn event(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    told: Told,
    data: Range<usize>,
) -> bool {
    match told {
        Told::NeedMore => return false,
        Told::Wait => {
            http.fronts[index].waits = true;
            return false;
        }
        Told::Request { stream, ends } => request::request(core, room, http, index, stream, ends),
        Told::Data { stream, ends } => {
            request::body(core, room, http, index, stream, data, ends);
        }
        Told::Trailers { stream } => request::trailers(core, room, http, index, stream),
        Told::Reset { stream, .. } => {
            if let Some(at) = http.fronts[index].exchange_of(stream) {
                exchange::drop_exchange(core, http, at);
            }
        }
        Told::Pong(ping) => said_end(room, http, index, ping),
        // Windows are asked for once a round. A client that goes opens no more streams.
        Told::Window | Told::Settings | Told::GoAway { .. } => {}
        Told::Failed(_) => {
            over(core, http, index, Closing::Lingering);
            return false;
        }
        Told::Closed => {
            let front = &mut http.fronts[index];
            if !front.is_at_end {
                // It was idle for long enough.
                front
                    .codec
                    .go_away(ErrorCode::NO_ERROR, &mut room.http2.work.out);
            }
            over(core, http, index, Closing::AfterOutput);
            return false;
        }
        Told::Interim { .. } | Told::Response { .. } => {}
    }
    true
}
