//! How a client's connection ends: told in time, in order, or cut.

use hitless_proto::http2::ErrorCode;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::Leaving;
use super::exchange::drop_exchange;
use crate::worker::core_of_lane::{Core, end_on_close};
use crate::worker::http::{Closing, Http, LINGER_US_MAX, Room};
use crate::worker::stats::Lane;
use crate::worker::tls;

pub(in crate::worker) use crate::worker::http::End;

/// What the client is to send back once it has heard that no new stream is wanted.
const LAST_CALL: [u8; 8] = *b"lastcall";

/// Tells the client that no new stream is wanted (RFC 9113 section 6.8): those that are under way
/// to us are taken until its answer to a ping says that it knows. Output is left with the codec.
pub(in crate::worker) fn announce_end(core: &Core, room: &mut Room, http: &mut Http, index: usize) {
    let front = &mut http.fronts[index];
    if front.leaving != Leaving::No || front.closing != Closing::No {
        return;
    }
    front.leaving = Leaving::Announced;
    core.count(Lane::ToldToClose, 1);
    front.codec.announce_end(&mut room.http2.work.out);
    front.codec.ping(LAST_CALL, &mut room.http2.work.out);
    front.codec.take_output(&mut room.http2.work, core.now_us);
}

/// The client has heard of it: streams that it opens from here on are not taken.
pub(super) fn said_end(room: &mut Room, http: &mut Http, index: usize, ping: [u8; 8]) {
    let front = &mut http.fronts[index];
    if front.leaving == Leaving::Announced && ping == LAST_CALL {
        front.leaving = Leaving::Said;
        let out = &mut room.http2.work.out;
        front.codec.go_away(ErrorCode::NO_ERROR, out);
    }
}

/// No stream goes on: the connection closes when its output is sent.
pub(super) fn over(core: &mut Core, http: &mut Http, index: usize, closing: Closing) {
    drop_exchanges(core, http, index);
    let front = &mut http.fronts[index];
    front.closing = closing;
    front.close_at_us = core.now_us + core.tables.http2_limits.body_time_us;
}

fn drop_exchanges(core: &mut Core, http: &mut Http, index: usize) {
    while let Some(&(_, at)) = http.fronts[index].streams.last() {
        drop_exchange(core, http, at);
    }
}

/// The output of a closing connection is sent. `true`: go on at once.
pub(super) fn close_down(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) -> bool {
    let front = &mut http.fronts[index];
    match front.closing {
        Closing::No => return true,
        Closing::AfterOutput => {
            end(core, http, index, End::Closed);
            return false;
        }
        Closing::Lingering => {
            tls::shut_down(&front.socket, &mut front.tls);
            front.closing = Closing::Shut;
            front.close_at_us = core.now_us + LINGER_US_MAX;
        }
        Closing::Shut => {}
    }
    while front.readable {
        match rustix::net::recv(&front.socket, &mut room.scratch[..], RecvFlags::DONTWAIT) {
            Ok((1.., _)) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => front.readable = false,
            Ok((0, _)) | Err(_) => {
                end(core, http, index, End::Closed);
                return false;
            }
        }
    }
    false
}

/// Ends a client's connection with all its streams.
pub(in crate::worker) fn end(core: &mut Core, http: &mut Http, index: usize, how: End) {
    if !http.fronts.contains(index) {
        return;
    }
    drop_exchanges(core, http, index);
    let mut front = http.fronts.remove(index);
    core.unwatch(&front.socket);
    if how == End::Closed {
        end_on_close(&front.socket);
    }
    core.end_slot(front.slot);
    if how == End::Closed {
        // The keeper may have a duplicate for a moment longer: say the end now.
        tls::shut_down(&front.socket, &mut front.tls);
    }
}
