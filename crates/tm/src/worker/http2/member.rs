//! The member's side of an exchange, in HTTP/1.1: the request's bytes out, the response's in.

use core::ops::Range;

use hitless_proto::http1::{After, Event as Told, Side};
use hitless_proto::http2::bridge;
use rustix::io::Errno;

use super::exchange::{drop_exchange, put_off, retry, send_response};
use super::{answer, context, trunk};
use crate::worker::core_of_lane::Core;
use crate::worker::http::{Http, READ_BYTES_MAX, Room, give_back, recv_from_member, with_context};
use crate::worker::stats::{Keyed, Lane};
use crate::worker::tls::{self, Got};

/// Sends of a request what its member takes, and opens the client's window for what has gone.
/// Output is for the front, in the room. `false`: nothing went.
pub(super) fn send_request(core: &mut Core, room: &mut Room, http: &mut Http, at: usize) -> bool {
    let exchange = &http.exchanges[at];
    if exchange.trunk.is_some() || exchange.queued.is_some() {
        return trunk::send_request(core, room, http, at);
    }
    let mut has_moved = false;
    loop {
        let exchange = &mut http.exchanges[at];
        let Some(up) = exchange.up.map(|up| &mut http.ups[up]) else {
            // Its member has answered and is gone: the rest of the request is nobody's.
            exchange.request.waiting = Vec::new();
            break;
        };
        if up.is_connecting {
            return has_moved;
        }
        let unsent = exchange.codec.unsent(Side::Member);
        if unsent.is_empty() && tls::has_unsent(&up.tls) {
            // What was sealed before goes first.
            let _ = tls::send(&up.socket, &mut up.tls, &mut core.tls, &[], &[]);
            up.writable = !tls::has_unsent(&up.tls);
            if !up.writable {
                return has_moved;
            }
            continue;
        }
        if unsent.is_empty() && !frame_more(&mut exchange.request, exchange.is_chunked, room) {
            break;
        } else if unsent.is_empty() {
            let text = &room.http2.text;
            exchange.codec.keep_unsent(Side::Member, text);
            continue;
        }
        if !up.writable {
            return has_moved;
        }
        match tls::send(&up.socket, &mut up.tls, &mut core.tls, unsent, &[]) {
            Ok(count) => {
                has_moved = true;
                exchange.codec.sent(Side::Member, count, core.now_us);
                exchange.since_us = core.now_us;
                up.writable =
                    exchange.codec.unsent(Side::Member).is_empty() && !tls::has_unsent(&up.tls);
                core.count_member(up.member, Keyed::BytesIn, count as u64);
            }
            Err(Errno::AGAIN) => up.writable = false,
            Err(_) => {
                // It may have answered before it closed: reading tells.
                let count = unsent.len();
                exchange.codec.sent(Side::Member, count, core.now_us);
                exchange.request.waiting = Vec::new();
                up.readable = true;
                put_off(core, http, at);
                break;
            }
        }
    }
    let exchange = &http.exchanges[at];
    let (front, stream) = (&mut http.fronts[exchange.front], exchange.stream);
    let held = front.codec.held(stream) as usize;
    if held > 0 {
        let out = &mut room.http2.work.out;
        front.codec.release(&context(core), stream, held, out);
        has_moved = true;
    }
    has_moved
}

/// Writes the next piece of a request's body, or its end, as text. `false`: there is none now.
fn frame_more(request: &mut super::Half, is_chunked: bool, room: &mut Room) -> bool {
    let text = &mut room.http2.text;
    text.clear();
    if !request.waiting.is_empty() {
        let data = core::mem::take(&mut request.waiting);
        match is_chunked {
            true => bridge::write_chunk(&data, text),
            false => text.extend_from_slice(&data),
        }
        return true;
    }
    if !request.has_ended || request.is_done {
        return false;
    }
    request.is_done = true;
    if is_chunked {
        bridge::write_last_chunk(request.trailers.take().as_deref(), text);
    }
    is_chunked
}

/// Reads from the member and takes its codec's steps. `false`: nothing came.
pub(super) fn read_response(core: &mut Core, room: &mut Room, http: &mut Http, at: usize) -> bool {
    let exchange = &mut http.exchanges[at];
    let Some(up) = exchange.up.map(|up| &mut http.ups[up]) else {
        return false;
    };
    if up.is_connecting || !up.readable || !exchange.response.waiting.is_empty() {
        return false;
    }
    let stuck = exchange.codec.take_stuck(Side::Member, &mut room.scratch);
    let room_end = room.scratch.len().min(stuck + READ_BYTES_MAX);
    let mut length = stuck;
    let mut is_end = false;
    let mut has_failed = false;
    if stuck < room_end {
        let into = &mut room.scratch[stuck..room_end];
        match recv_from_member(up, &mut core.tls, into) {
            Ok(Got::End) => is_end = true,
            Ok(Got::Data { count, is_more }) => {
                length += count;
                up.readable = is_more || up.is_hung_up;
                up.retry.clear();
                exchange.since_us = core.now_us;
                core.count_member(up.member, Keyed::BytesOut, count as u64);
            }
            Err(Errno::AGAIN | Errno::INTR) => up.readable = false,
            Err(_) => has_failed = true,
        }
    }
    if is_end || has_failed {
        up.readable = false;
        up.is_at_end = true;
        if length == 0 && retry(core, room, http, at) {
            return true;
        }
    }
    if has_failed {
        let exchange = &mut http.exchanges[at];
        let told = exchange.codec.lost(Side::Member);
        act(core, room, http, at, told);
        return true;
    }
    if length == stuck && !is_end && stuck < room_end {
        let exchange = &mut http.exchanges[at];
        let input = &room.scratch[..length];
        exchange.codec.keep_stuck(Side::Member, input);
        return false;
    }
    step_through(core, room, http, at, length);
    if is_end && http.exchanges.get(at).is_some_and(|one| one.up.is_some()) {
        let exchange = &mut http.exchanges[at];
        let address = http.fronts[exchange.front].address;
        let told = with_context(core, address, |cx| {
            exchange
                .codec
                .end_of_stream(Side::Member, cx, &mut room.work)
        });
        room.work.out.clear();
        act(core, room, http, at, told);
    }
    true
}

fn step_through(core: &mut Core, room: &mut Room, http: &mut Http, at: usize, length: usize) {
    let mut place = 0;
    loop {
        let exchange = &mut http.exchanges[at];
        let address = http.fronts[exchange.front].address;
        let was_in_body = exchange.codec.is_in_response_body();
        let step = with_context(core, address, |cx| {
            let input = &room.scratch[place..length];
            exchange.codec.step(Side::Member, cx, input, &mut room.work)
        });
        let tail = place + step.tail.start..place + step.tail.end;
        let start = place;
        place += step.consumed;
        if step.event == Told::Response {
            let Some(consumed) = respond(core, room, http, at, place) else {
                return;
            };
            place += consumed;
            continue;
        }
        let section = room.work.head.section();
        if was_in_body && !section.is_empty() {
            let mut trailers = Box::<hitless_proto::http2::Head>::default();
            let input = &room.scratch[start + section.start..start + section.end];
            bridge::trailers(&room.work.head, input, &mut trailers);
            http.exchanges[at].response.trailers = Some(trailers);
        }
        if !pass_on(core, room, http, at, tail) {
            return;
        }
        match step.event {
            Told::Body => {}
            Told::NeedMore | Told::Wait => break,
            told => {
                if matches!(told, Told::Done { .. }) && place < length {
                    // What a member sent behind its response belongs to nobody: it is mad.
                    if let Some(up) = http.exchanges[at].up {
                        http.ups[up].is_at_end = true;
                    }
                }
                return act(core, room, http, at, told);
            }
        }
    }
    let exchange = &mut http.exchanges[at];
    let rest = &room.scratch[place..length];
    exchange.codec.keep_stuck(Side::Member, rest);
}

/// A response's head is in the room and at this place of the scratch buffer: goes on to the client.
/// Returns its length. `None`: the exchange is over.
fn respond(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    at: usize,
    place: usize,
) -> Option<usize> {
    let exchange = &mut http.exchanges[at];
    let front = &mut http.fronts[exchange.front];
    let (address, stream) = (front.address, exchange.stream);
    let from = &room.work.head;
    let head = &mut room.http2.head;
    bridge::response(from, &room.scratch[place..], head);
    let is_interim = from.is_interim();
    if !is_interim && head.field(b"date").is_none() {
        head.push(b"date", &core.date);
    }
    let consumed = with_context(core, address, |cx| {
        exchange.codec.take_response(cx, &room.work)
    });
    let ends = !is_interim && !exchange.codec.is_in_response_body();
    let out = &mut room.http2.work.out;
    let cx = context(core);
    let sent = front.codec.respond(&cx, stream, head, ends, out);
    if sent.is_err() {
        answer::fail(core, room, http, at, 502);
        return None;
    }
    exchange.has_responded = !is_interim;
    exchange.response.is_done = ends;
    Some(consumed)
}

/// Passes body bytes on: what the codec wrote, then a range of the scratch buffer. `false`: the
/// exchange is over.
fn pass_on(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    at: usize,
    tail: Range<usize>,
) -> bool {
    let exchange = &mut http.exchanges[at];
    let (front, stream) = (&mut http.fronts[exchange.front], exchange.stream);
    let cx = context(core);
    let waiting = &mut exchange.response.waiting;
    let mut is_gone = false;
    for part in [&room.work.out[..], &room.scratch[tail]] {
        let mut sent = 0;
        if !part.is_empty() && waiting.is_empty() {
            let out = &mut room.http2.work.out;
            match front.codec.send_data(&cx, stream, part, false, out) {
                Ok(count) => sent = count,
                Err(_) => is_gone = true,
            }
        }
        waiting.extend_from_slice(&part[sent..]);
    }
    room.work.out.clear();
    if is_gone {
        drop_exchange(core, http, at);
    }
    !is_gone
}

/// Does what the member's codec said at the end of a step.
fn act(core: &mut Core, room: &mut Room, http: &mut Http, at: usize, told: Told) {
    match told {
        Told::NeedMore | Told::Wait | Told::Request | Told::Response | Told::Body => {}
        Told::Done { member, .. } => {
            let exchange = &mut http.exchanges[at];
            let is_whole = exchange.request.is_done || !exchange.is_chunked;
            let is_sent = exchange.request.has_ended
                && exchange.request.waiting.is_empty()
                && exchange.codec.unsent(Side::Member).is_empty();
            exchange.response.has_ended = true;
            if let Some(up) = exchange.up.take() {
                let is_good = member == After::Keep && is_sent && is_whole;
                give_back(core, http, up, is_good);
            }
            send_response(core, room, http, at);
        }
        Told::Refused(refusal) | Told::BadMember(refusal) | Told::Abort(refusal) => {
            core.count(Lane::Refusals, 1);
            if let Some(up) = http.exchanges[at].up {
                core.count_member(http.ups[up].member, Keyed::Failures, 1);
            }
            answer::fail(core, room, http, at, refusal.member_status());
        }
        // A stream never asks for another protocol.
        Told::Close | Told::Switched => answer::fail(core, room, http, at, 502),
    }
}
