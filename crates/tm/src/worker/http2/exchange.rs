//! One exchange: its member, its time, its end.

use hitless_proto::http1::Side;
use hitless_proto::http2::ErrorCode;

use super::{Half, answer, context, front, member, trunk};
use crate::worker::core_of_lane::{Core, ROUNDS_MAX, Source};
use crate::worker::http::{Http, Room, User, give_back, open_up, take_idle};
use crate::worker::stats::{Keyed, Lane};
use crate::worker::tcp::CONNECT_TRIES_MAX;

/// Finds the exchange a member: an idle connection, or a new one. `false`: there is no usable one.
pub(super) fn obtain(core: &mut Core, room: &mut Room, http: &mut Http, at: usize) -> bool {
    loop {
        let exchange = &mut http.exchanges[at];
        if exchange.tried.len() >= CONNECT_TRIES_MAX {
            return false;
        }
        let server = http.fronts[exchange.front].server;
        let Some(member) = core.tables.choose(server, exchange.key, &exchange.tried) else {
            return false;
        };
        if http.exchanges[at].head.is_some() {
            if trunk::join(core, room, http, at, member) {
                return true;
            }
            continue;
        }
        if let Some(up) = take_idle(core, http, member, User::Exchange(at)) {
            let exchange = &mut http.exchanges[at];
            if exchange.is_repeatable {
                let text = exchange.codec.unsent(Side::Member);
                http.ups[up].retry.extend_from_slice(text);
            }
            // Whatever comes now is news.
            http.ups[up].readable = false;
            exchange.up = Some(up);
            core.count_member(member, Keyed::Requests, 1);
            return true;
        }
        if open_new(core, http, at, member) {
            return true;
        }
    }
}

fn open_new(core: &mut Core, http: &mut Http, at: usize, member: usize) -> bool {
    http.exchanges[at].tried.push(member);
    http.exchanges[at].up = open_up(core, http, member, User::Exchange(at));
    let is_open = http.exchanges[at].up.is_some();
    if is_open {
        core.count_member(member, Keyed::Requests, 1);
    }
    is_open
}

/// The member did not take the connection: nothing of the request has been sent, so another member
/// may serve it.
pub(in crate::worker) fn connect_failed(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    at: usize,
) {
    let Some(exchange) = http.exchanges.get(at) else {
        return;
    };
    let index = exchange.front;
    connect_again(core, room, http, at);
    front::work_with_output(core, room, http, index);
}

fn connect_again(core: &mut Core, room: &mut Room, http: &mut Http, at: usize) {
    if let Some(up) = http.exchanges[at].up.take() {
        core.count_member(http.ups[up].member, Keyed::Failures, 1);
        give_back(core, http, up, false);
    }
    core.count(Lane::ConnectRetries, 1);
    if obtain(core, room, http, at) {
        member::send_request(core, room, http, at);
        return settle(core, http, at);
    }
    core.count(Lane::Refusals, 1);
    answer::fail(core, room, http, at, 502);
}

/// A request on a reused connection that the member had just closed goes on another one. `false`:
/// it cannot.
pub(super) fn retry(core: &mut Core, room: &mut Room, http: &mut Http, at: usize) -> bool {
    let Some(up) = http.exchanges[at].up else {
        return false;
    };
    let (request, member) = (
        core::mem::take(&mut http.ups[up].retry),
        http.ups[up].member,
    );
    if request.is_empty() || http.exchanges[at].has_responded {
        return false;
    }
    core.count(Lane::RequestRetries, 1);
    http.exchanges[at].up = None;
    give_back(core, http, up, false);
    let codec = &mut http.exchanges[at].codec;
    codec.forget_member();
    codec.keep_unsent(Side::Member, &request);
    open_new(core, http, at, member) || obtain(core, room, http, at)
}

/// Moves what can be moved between a member and its exchange.
pub(in crate::worker) fn work_exchange(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    at: usize,
) {
    let Some(exchange) = http.exchanges.get(at) else {
        return;
    };
    let index = exchange.front;
    if http.is_frozen {
        return;
    }
    core.busy(Some(http.fronts[index].slot));
    let mut rounds = 0;
    while http.exchanges.contains(at) {
        let has_sent = member::send_request(core, room, http, at);
        let has_read = http.exchanges.contains(at) && member::read_response(core, room, http, at);
        if !has_sent && !has_read {
            break;
        }
        rounds += 1;
        if rounds == ROUNDS_MAX {
            put_off(core, http, at);
            break;
        }
    }
    settle(core, http, at);
    front::work_with_output(core, room, http, index);
}

/// The member's connection may have more: it has its turn again.
pub(in crate::worker) fn put_off(core: &mut Core, http: &Http, at: usize) {
    let up = http.exchanges.get(at).and_then(|exchange| exchange.up);
    if let Some(up) = up {
        core.again.push(Source::HttpMember(up).token());
    }
}

/// Sends of the response what the client takes; ends the exchange with its last byte. Output is for
/// the front, in the room.
pub(super) fn send_response(core: &mut Core, room: &mut Room, http: &mut Http, at: usize) {
    let exchange = &mut http.exchanges[at];
    let (front, stream) = (&mut http.fronts[exchange.front], exchange.stream);
    let (cx, out) = (context(core), &mut room.http2.work.out);
    let Half {
        waiting,
        has_ended,
        trailers,
        is_done,
    } = &mut exchange.response;
    let ends = *has_ended && trailers.is_none();
    if !waiting.is_empty() {
        let Ok(count) = front.codec.send_data(&cx, stream, waiting, ends, out) else {
            return drop_exchange(core, http, at);
        };
        if count == waiting.len() {
            *waiting = Vec::new();
        } else {
            waiting.drain(..count);
        }
        let is_all = waiting.is_empty();
        *is_done = ends && is_all;
        if let Some(place) = exchange.trunk.filter(|_| count > 0) {
            trunk::release(core, room, http, place, count);
        }
        if !is_all {
            return;
        }
    }
    finish_response(core, room, http, at);
}

/// What there was of the response has gone on: its end, or more of it.
fn finish_response(core: &mut Core, room: &mut Room, http: &mut Http, at: usize) {
    let exchange = &mut http.exchanges[at];
    let (front, stream) = (&mut http.fronts[exchange.front], exchange.stream);
    let (cx, out) = (context(core), &mut room.http2.work.out);
    let Half {
        has_ended,
        trailers,
        is_done,
        ..
    } = &mut exchange.response;
    if *has_ended && !*is_done {
        let sent = match trailers.take() {
            Some(head) => front.codec.send_trailers(&cx, stream, &head, out),
            None => front
                .codec
                .send_data(&cx, stream, &[], true, out)
                .map(|_| ()),
        };
        if sent.is_err() {
            front
                .codec
                .reset(&cx, stream, ErrorCode::INTERNAL_ERROR, out);
        }
        *is_done = true;
    }
    if *is_done {
        return drop_exchange(core, http, at);
    }
    // There is room for more of it.
    if exchange.up.is_some_and(|up| http.ups[up].readable) {
        put_off(core, http, at);
    }
}

/// Forgets an exchange that is over, or whose stream is.
pub(super) fn drop_exchange(core: &mut Core, http: &mut Http, at: usize) {
    let exchange = http.exchanges.remove(at);
    let streams = &mut http.fronts[exchange.front].streams;
    streams.retain(|(_, place)| *place != at);
    if let Some(up) = exchange.up {
        give_back(core, http, up, false);
    }
    if let Some(trunk) = exchange.queued.and_then(|place| http.trunks.get_mut(place)) {
        trunk.queue.retain(|queued| *queued != at);
    }
    if let Some(place) = exchange.trunk {
        let code = match exchange.response.is_done {
            // Nobody reads the rest of the request.
            true => ErrorCode::NO_ERROR,
            false => ErrorCode::CANCEL,
        };
        trunk::leave(core, http, place, code);
    }
}

/// When the member has to have done something. `None`: others are to act.
fn due_us(core: &Core, http: &Http, at: usize) -> Option<u64> {
    let exchange = &http.exchanges[at];
    let up = &http.ups[exchange.up?];
    let limits = &core.tables.http2_limits;
    if up.is_connecting {
        return Some(up.since_us + core.tables.times.connect_us);
    }
    if !exchange.codec.unsent(Side::Member).is_empty() {
        return Some(exchange.since_us + limits.body_time_us);
    }
    if !exchange.response.waiting.is_empty() {
        return None;
    }
    match exchange.has_responded {
        true => Some(exchange.since_us + limits.body_time_us),
        // While the request comes, its client is waited for.
        false if !exchange.request.is_done => None,
        false => Some(exchange.since_us + limits.response_time_us),
    }
}

/// Sets the front's timer, which is that of all its exchanges: an entry for each request would fill
/// the wheel.
pub(super) fn settle(core: &mut Core, http: &mut Http, at: usize) {
    if !http.exchanges.contains(at) {
        return;
    }
    if let Some(due_us) = due_us(core, http, at) {
        let index = http.exchanges[at].front;
        let armed_us = &mut http.fronts[index].armed_us;
        let token = Source::Front(index).token();
        core.wheel.set(token, due_us, armed_us);
    }
}

/// Fails what its member lets wait for too long. Output is for the front, in the room.
pub(super) fn expire(core: &mut Core, room: &mut Room, http: &mut Http, at: usize) {
    match due_us(core, http, at) {
        Some(due_us) if core.now_us >= due_us => {}
        _ => return settle(core, http, at),
    }
    core.count(Lane::TimeoutsHit, 1);
    let exchange = &http.exchanges[at];
    if exchange.up.is_some_and(|up| http.ups[up].is_connecting) {
        return connect_again(core, room, http, at);
    }
    core.count(Lane::Refusals, 1);
    answer::fail(core, room, http, at, 504);
}
