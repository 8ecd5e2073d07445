//! What comes from a member on its HTTP/2 connection, and what becomes of streams that are lost.

use core::ops::Range;

use hitless_proto::http2::{Cause, ErrorCode, Event as Told, Refusal};
use rustix::io::Errno;

use super::{
    REPEATS_MAX, flush, leave, leave_queue, release, seek, send_and_touch, touch_front,
    trunk_context,
};
use crate::worker::core_of_lane::Core;
use crate::worker::http::{Http, READ_BYTES_MAX, Room};
use crate::worker::http2::exchange::{drop_exchange, obtain, send_response};
use crate::worker::http2::{answer, context};
use crate::worker::stats::{Keyed, Lane};
use crate::worker::tls::{self, Got};

/// Reads from the member and acts on what comes. `false`: nothing came, or the connection is over.
pub(super) fn read(core: &mut Core, room: &mut Room, http: &mut Http, place: usize) -> bool {
    let trunk = &mut http.trunks[place];
    if !trunk.readable && trunk.codec.stuck().is_empty() {
        return false;
    }
    let stuck = trunk.codec.take_stuck(&mut room.scratch);
    let room_end = room.scratch.len().min(stuck + READ_BYTES_MAX);
    let mut length = stuck;
    let mut is_end = false;
    if trunk.readable && !trunk.is_at_end && stuck < room_end && trunk.codec.stuck().is_empty() {
        let into = &mut room.scratch[stuck..room_end];
        match tls::recv(&trunk.socket, &mut trunk.tls, &mut core.tls, into) {
            Ok(Got::End) => is_end = true,
            Ok(Got::Data { count, is_more }) => {
                length += count;
                trunk.readable = is_more || trunk.is_hung_up;
                core.count_member(trunk.member, Keyed::BytesOut, count as u64);
            }
            Err(Errno::AGAIN | Errno::INTR) => trunk.readable = false,
            Err(_) => {
                fail_trunk(core, room, http, place, false);
                return false;
            }
        }
    }
    let mut at = 0;
    while let Some(trunk) = http.trunks.get_mut(place) {
        let step = trunk.codec.step(
            &trunk_context(core),
            &room.scratch[at..length],
            &mut room.http2.trunk,
        );
        let data = at + step.data.start..at + step.data.end;
        at += step.consumed;
        trunk.codec.take_output(&mut room.http2.trunk, core.now_us);
        if !event(core, room, http, place, step.event, data) {
            break;
        }
    }
    let Some(trunk) = http.trunks.get_mut(place) else {
        return false;
    };
    trunk.codec.keep_stuck(&room.scratch[at..length]);
    http.touch_trunk(place);
    if is_end {
        http.trunks[place].is_at_end = true;
        fail_trunk(core, room, http, place, false);
        return false;
    }
    length > stuck || at > 0
}

/// Does what the codec said. `false`: it has nothing more to say for now.
pub(super) fn event(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    place: usize,
    told: Told,
    data: Range<usize>,
) -> bool {
    let of = |http: &Http, stream| http.trunks[place].exchange_of(stream);
    match told {
        Told::NeedMore | Told::Wait => return false,
        Told::Interim { stream } => {
            if let Some(at) = of(http, stream) {
                respond(core, room, http, at, true, false);
            }
        }
        Told::Response { stream, ends } => {
            if let Some(at) = of(http, stream) {
                respond(core, room, http, at, false, ends);
            }
        }
        Told::Data { stream, ends } => match of(http, stream) {
            Some(at) => {
                let response = &mut http.exchanges[at].response;
                response.waiting.extend_from_slice(&room.scratch[data]);
                response.has_ended = ends;
                go_on(core, room, http, at);
            }
            None => release(core, room, http, (place, stream), data.len()),
        },
        Told::Trailers { stream } => {
            if let Some(at) = of(http, stream) {
                let response = &mut http.exchanges[at].response;
                response.trailers = Some(Box::new(room.http2.trunk.head.clone()));
                response.has_ended = true;
                go_on(core, room, http, at);
            }
        }
        Told::Reset { stream, cause } => {
            if let Some(at) = of(http, stream) {
                let is_refused = cause == Cause::Peer(ErrorCode::REFUSED_STREAM);
                let is_untouched = is_refused || cause == Cause::Untouched;
                lost(core, room, http, at, cause, is_untouched);
            }
        }
        Told::Failed(_) | Told::Closed => {
            if told == Told::Closed {
                let trunk = &mut http.trunks[place];
                let out = &mut room.http2.trunk.out;
                trunk.codec.go_away(ErrorCode::NO_ERROR, out);
                trunk.codec.take_output(&mut room.http2.trunk, core.now_us);
            }
            flush(core, http, place);
            fail_trunk(core, room, http, place, false);
            return false;
        }
        Told::Settings => leave_queue(core, room, http, place),
        Told::Window | Told::GoAway { .. } | Told::Pong(_) => {}
        Told::Request { .. } => {}
    }
    true
}

/// A response's head is in the trunk's room: goes on to the client.
fn respond(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    at: usize,
    is_interim: bool,
    ends: bool,
) {
    let exchange = &mut http.exchanges[at];
    let (index, stream) = (exchange.front, exchange.stream);
    let front = &mut http.fronts[index];
    let head = &mut room.http2.trunk.head;
    if !is_interim && head.field(b"date").is_none() {
        head.push(b"date", &core.date);
    }
    let out = &mut room.http2.work.out;
    exchange.since_us = core.now_us;
    let sent = front.codec.respond(&context(core), stream, head, ends, out);
    if !is_interim {
        exchange.head = None;
        exchange.has_responded = true;
        exchange.response.has_ended = ends;
        exchange.response.is_done = ends;
    }
    if sent.is_err() {
        answer::fail(core, room, http, at, 502);
    } else if ends {
        drop_exchange(core, http, at);
    }
    touch_front(core, room, http, index);
}

/// More of a response has come.
fn go_on(core: &mut Core, room: &mut Room, http: &mut Http, at: usize) {
    let index = http.exchanges[at].front;
    http.exchanges[at].since_us = core.now_us;
    send_response(core, room, http, at);
    touch_front(core, room, http, index);
}

/// An exchange has lost its stream.
fn lost(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    at: usize,
    cause: Cause,
    is_untouched: bool,
) {
    let exchange = &mut http.exchanges[at];
    let index = exchange.front;
    if let Some((place, stream)) = exchange.trunk.take() {
        leave(core, http, (place, stream), ErrorCode::CANCEL);
    }
    let exchange = &mut http.exchanges[at];
    if exchange.response.has_ended {
        // All of it has come; only its client is slow.
        return;
    }
    let is_over = matches!(cause, Cause::Refused(Refusal::ResponseTimeout));
    let may_repeat = exchange.head.is_some()
        && !is_over
        && (is_untouched || exchange.is_repeatable)
        && exchange.repeats < REPEATS_MAX;
    if may_repeat {
        exchange.repeats += 1;
        exchange.request.is_done = false;
        core.count(Lane::RequestRetries, 1);
        if obtain(core, room, http, at) {
            send_and_touch(core, room, http, at);
            return;
        }
    }
    let exchange = &http.exchanges[at];
    let (stream, has_responded) = (exchange.stream, exchange.has_responded);
    let code = match cause {
        Cause::Untouched | Cause::Peer(ErrorCode::REFUSED_STREAM) if !may_repeat => {
            Some(ErrorCode::REFUSED_STREAM)
        }
        Cause::Peer(ErrorCode::CANCEL) if has_responded => Some(ErrorCode::CANCEL),
        _ => None,
    };
    if let Some(code) = code {
        let out = &mut room.http2.work.out;
        let front = &mut http.fronts[index];
        front.codec.reset(&context(core), stream, code, out);
        core.count_server(front.server, Keyed::Failures, 1);
        drop_exchange(core, http, at);
    } else {
        core.count(Lane::Refusals, 1);
        answer::fail(core, room, http, at, if is_over { 504 } else { 502 });
    }
    touch_front(core, room, http, index);
}

/// The connection is over, and so are its streams. `is_refused`: it never was one.
pub(super) fn fail_trunk(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    place: usize,
    is_refused: bool,
) {
    let Some(trunk) = http.trunks.get_mut(place) else {
        return;
    };
    trunk.is_at_end = true;
    let member = trunk.member;
    let streams = core::mem::take(&mut trunk.streams);
    let queue = core::mem::take(&mut trunk.queue);
    core.tables.members[member]
        .trunks
        .retain(|known| *known != place);
    if is_refused {
        core.count(Lane::ConnectRetries, 1);
    }
    if is_refused || !streams.is_empty() {
        core.count_member(member, Keyed::Failures, 1);
    }
    for (_, at) in streams {
        let cause = Cause::Peer(ErrorCode::INTERNAL_ERROR);
        lost(core, room, http, at, cause, false);
    }
    for at in queue {
        let exchange = &mut http.exchanges[at];
        exchange.queued = None;
        if !exchange.tried.contains(&member) {
            exchange.tried.push(member);
        }
        seek(core, room, http, at);
    }
    let trunk = http.trunks.remove(place);
    core.unwatch(&trunk.socket);
}
