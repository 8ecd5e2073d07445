//! What a client is told of a failure: a status while it knows nothing yet, a reset afterwards.

use hitless_proto::http2::ErrorCode;

use super::context;
use super::exchange::drop_exchange;
use crate::worker::core_of_lane::Core;
use crate::worker::http::{Http, Room};
use crate::worker::stats::Keyed;

/// The exchange cannot go on. Output is for its front, in the room.
pub(in crate::worker) fn fail(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    at: usize,
    status: u16,
) {
    let exchange = &http.exchanges[at];
    let (front, stream) = (&mut http.fronts[exchange.front], exchange.stream);
    core.count_server(front.server, Keyed::Failures, 1);
    let cx = context(core);
    let (head, out) = (&mut room.http2.head, &mut room.http2.work.out);
    let mut is_answered = false;
    if !exchange.has_responded {
        head.begin_response(status);
        head.push(b"content-length", b"0");
        head.push(b"date", &core.date);
        is_answered = front.codec.respond(&cx, stream, head, true, out).is_ok();
    }
    if !is_answered {
        front
            .codec
            .reset(&cx, stream, ErrorCode::INTERNAL_ERROR, out);
    }
    drop_exchange(core, http, at);
}
