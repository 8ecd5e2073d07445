//! Requests as they come on a client's connection: which member serves one, and its body.

use core::ops::Range;

use hitless_proto::http1::Side;
use hitless_proto::http2::Head;
use hitless_proto::http2::bridge::{self, Framing};

use super::exchange::{drop_exchange, obtain, settle};
use super::{Exchange, answer, member};
use crate::worker::balance::{key_of_client, key_of_request};
use crate::worker::core_of_lane::Core;
use crate::worker::http::{Http, Room};
use crate::worker::stats::{Keyed, Lane};

/// A request's head is in the room.
pub(super) fn request(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    stream: u32,
    ends: bool,
) {
    let front = &mut http.fronts[index];
    core.count_server(front.server, Keyed::Requests, 1);
    let head = &room.http2.work.head;
    let (method, rewrite) = (head.method(), &core.tables.rewrite);
    let mut exchange = Exchange::new(index, stream, method == b"HEAD", core.now_us);
    let fields = head.fields().map(|field| (field.name, field.value));
    let by = &core.tables.servers[front.server].hash_by;
    let key = key_of_request(by, head.authority(), head.path(), fields);
    exchange.key = key.unwrap_or_else(|| key_of_client(front.address));
    exchange.request.has_ended = ends;
    exchange.is_repeatable = ends && matches!(method, b"GET" | b"HEAD" | b"OPTIONS");
    if core.tables.servers[front.server].members_speak_http2 {
        let mut onward = Box::<Head>::default();
        bridge::onward(head, rewrite, front.address, &mut onward);
        exchange.head = Some(onward);
    } else {
        let text = &mut room.http2.text;
        text.clear();
        let framing = bridge::write_request(head, ends, rewrite, front.address, None, text);
        exchange.is_chunked = framing == Framing::Chunked;
        exchange.codec.keep_unsent(Side::Member, text);
    }
    let at = http.exchanges.insert(exchange);
    http.fronts[index].streams.push((stream, at));
    if !obtain(core, room, http, at) {
        core.count(Lane::Refusals, 1);
        return answer::fail(core, room, http, at, 503);
    }
    member::send_request(core, room, http, at);
    settle(core, http, at);
}

/// Bytes of a request's body are in the scratch buffer.
pub(super) fn body(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    stream: u32,
    data: Range<usize>,
    ends: bool,
) {
    let front = &mut http.fronts[index];
    let Some(at) = front.exchange_of(stream) else {
        // It was answered already; nobody reads the rest.
        let cx = super::context(core);
        let count = data.len();
        let out = &mut room.http2.work.out;
        return front.codec.release(&cx, stream, count, out);
    };
    let request = &mut http.exchanges[at].request;
    request.waiting.extend_from_slice(&room.scratch[data]);
    request.has_ended |= ends;
    go_on(core, room, http, at);
}

/// A request's trailers are in the room.
pub(super) fn trailers(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    stream: u32,
) {
    let Some(at) = http.fronts[index].exchange_of(stream) else {
        return;
    };
    let request = &mut http.exchanges[at].request;
    request.trailers = Some(Box::new(room.http2.work.head.clone()));
    request.has_ended = true;
    go_on(core, room, http, at);
}

fn go_on(core: &mut Core, room: &mut Room, http: &mut Http, at: usize) {
    let exchange = &http.exchanges[at];
    let is_open = http.fronts[exchange.front].codec.is_open(exchange.stream);
    if !is_open && exchange.response.is_done {
        return drop_exchange(core, http, at);
    }
    member::send_request(core, room, http, at);
    settle(core, http, at);
}
