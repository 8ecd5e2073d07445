//! Bytes of an HTTP connection: read into the scratch buffer, stepped through the codec, sent to
//! the other side.
//!
//! A system call per read and one per write of what a read brought: small pieces are collected in
//! the codec's output, and a long run of a body goes out behind it from where it was read.

use core::ops::Range;
use std::os::fd::OwnedFd;

use hitless_carry::slots::IN_FLIGHT;
use hitless_proto::http1::{Connection, Event as Told, Side};
use rustix::io::Errno;
use slab::Slab;

use super::exchange::{act, fail, may_retry, note_done, request, retry};
use super::{Client, Closing, Http, READ_BYTES_MAX, Room, Up, with_context};
use crate::worker::core_of_lane::Core;
use crate::worker::http2;
use crate::worker::stats::{Keyed, Lane};
use crate::worker::tls::{self, Got, Tls};
use crate::worker::trial::Point;

/// Counts a client that this answer tells to close, though it did not ask for that itself.
pub(super) fn note_told_to_close(core: &Core, client: &Client, was_kept: bool) {
    if was_kept && !client.codec.keeps_client() && core.tells_to_close() {
        core.count(Lane::ToldToClose, 1);
    }
}

pub(super) enum Flushed {
    All,
    Stuck,
    Failed,
}

/// Sends what waits for a side.
pub(super) fn flush(core: &mut Core, http: &mut Http, index: usize, to: Side) -> Flushed {
    if to == Side::Client {
        core.flush_registrations();
    }
    let (client, ups) = (&mut http.clients[index], &mut http.ups);
    let (peer, codec, books) = split(client, ups, to);
    let Some(peer) = peer.filter(|peer| *peer.writable) else {
        return Flushed::Stuck;
    };
    match tls::send(peer.socket, peer.tls, &mut core.tls, codec.unsent(to), &[]) {
        Ok(count) => {
            codec.sent(to, count, core.now_us);
            books.note(core, count);
        }
        Err(Errno::AGAIN) => {}
        Err(_) => return Flushed::Failed,
    }
    *peer.writable = codec.unsent(to).is_empty() && !tls::has_unsent(peer.tls);
    if *peer.writable {
        Flushed::All
    } else {
        Flushed::Stuck
    }
}

/// The socket of one side, and whether the kernel takes bytes for it.
struct Peer<'a> {
    socket: &'a OwnedFd,
    tls: &'a mut Tls,
    writable: &'a mut bool,
}

/// Where bytes that went to one side are counted.
enum Books<'a> {
    Client {
        server: usize,
        written: &'a mut u64,
    },
    Member(usize),
    /// There is no member at the moment: nothing can go there.
    Nobody,
}

impl Books<'_> {
    fn note(self, core: &Core, count: usize) {
        let count = count as u64;
        match self {
            Self::Client { server, written } => {
                *written += count;
                core.count_server(server, Keyed::BytesOut, count);
            }
            Self::Member(member) => core.count_member(member, Keyed::BytesIn, count),
            Self::Nobody => {}
        }
    }
}

/// A client's parts, with the socket of one side; `None`: there is no connection to a member, or
/// none yet.
fn split<'a>(
    client: &'a mut Client,
    ups: &'a mut Slab<Up>,
    to: Side,
) -> (Option<Peer<'a>>, &'a mut Connection, Books<'a>) {
    let codec = &mut client.codec;
    match to {
        Side::Client => (
            Some(Peer {
                socket: &client.socket,
                tls: &mut client.tls,
                writable: &mut client.writable,
            }),
            codec,
            Books::Client {
                server: client.server,
                written: &mut client.written,
            },
        ),
        Side::Member => match client.up.and_then(|at| ups.get_mut(at)) {
            Some(up) if !up.is_connecting => (
                Some(Peer {
                    socket: &up.socket,
                    tls: &mut up.tls,
                    writable: &mut up.writable,
                }),
                codec,
                Books::Member(up.member),
            ),
            _ => (None, codec, Books::Nobody),
        },
    }
}

/// Reads from the client and takes the codec's steps. `false`: nothing came and nothing was stuck
/// that could go on.
pub(super) fn read_client(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) -> bool {
    let client = &mut http.clients[index];
    let stuck = client.codec.take_stuck(Side::Client, &mut room.scratch);
    let mut length = stuck;
    let mut is_end = false;
    // While a pipelined request waits for its turn, nothing more is read: its pipeline would fill
    // memory.
    let room_end = room.scratch.len().min(stuck + READ_BYTES_MAX);
    let may_read = client.readable
        && !client.is_at_end
        && (stuck == 0 || client.up.is_none())
        && stuck < room_end;
    if may_read {
        let slot = core.slot(client.slot);
        slot.set_flag(IN_FLIGHT, true);
        let into = &mut room.scratch[stuck..room_end];
        match tls::recv(&client.socket, &mut client.tls, &mut core.tls, into) {
            Ok(Got::End) => is_end = true,
            Ok(Got::Data { count, is_more }) => {
                length += count;
                client.read += count as u64;
                core.point(Point::RequestRead);
                // An end that the kernel has told of already is not told again.
                client.readable = is_more || client.is_hung_up;
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
        let is_still = client.tls.as_ref().is_none_or(|layer| layer.is_still());
        if may_read && client.codec.is_idle() && is_still {
            core.slot(client.slot).set_flag(IN_FLIGHT, false);
        }
        return false;
    }
    let client = &mut http.clients[index];
    // Nothing but what is here was ever read: it may be the preface of HTTP/2.
    if client.read == length as u64 && !is_end {
        match http2::preface(&room.scratch[..length]) {
            http2::Preface::No => {}
            http2::Preface::Begun => {
                // A request's first byte, as far as its time goes.
                let _ = with_context(core, client.address, |cx| {
                    let input = &room.scratch[..1];
                    client.codec.step(Side::Client, cx, input, &mut room.work)
                });
                client
                    .codec
                    .keep_stuck(Side::Client, &room.scratch[..length]);
                return length > stuck;
            }
            http2::Preface::Whole => {
                http2::take_over_client(core, room, http, index, length);
                return false;
            }
        }
    }
    let consumed = step_through(core, room, http, index, Side::Client, length);
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

/// Steps through `length` bytes of one side's input in the scratch buffer, sends what comes of it
/// to the other, and keeps what is left. Returns the bytes used.
fn step_through(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    from: Side,
    length: usize,
) -> usize {
    let to = from.other();
    let mut at = 0;
    loop {
        let client = &mut http.clients[index];
        let has_taker = to == Side::Client || client.up.is_some();
        if has_taker && !client.codec.unsent(to).is_empty() {
            break;
        }
        let step = with_context(core, client.address, |cx| {
            client
                .codec
                .step(from, cx, &room.scratch[at..length], &mut room.work)
        });
        let tail = at + step.tail.start..at + step.tail.end;
        at += step.consumed;
        match step.event {
            Told::Body | Told::NeedMore | Told::Wait => {
                // Small pieces are collected; a long one goes out with them.
                if !tail.is_empty() && !put(core, room, http, index, to, tail) {
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
            Told::Response => {
                let was_kept = client.codec.keeps_client();
                at += with_context(core, client.address, |cx| {
                    client
                        .codec
                        .forward_response(cx, &room.scratch[at..length], &mut room.work)
                });
                note_told_to_close(core, client, was_kept);
            }
            told => {
                if let (Side::Member, Told::Done { client: after, .. }) = (from, told) {
                    let unsent = room.work.out.len() + tail.len();
                    note_done(core, client, unsent as u64, after);
                }
                if put(core, room, http, index, to, tail) {
                    core.point(Point::Answered);
                    leave(http, index, from, &room.scratch[at..length], told);
                    act(core, room, http, index, told);
                }
                room.work.out.clear();
                return at;
            }
        }
    }
    if let Some(client) = http.clients.get_mut(index) {
        client.codec.keep_stuck(from, &room.scratch[at..length]);
        if !room.work.out.is_empty() {
            put(core, room, http, index, to, 0..0);
        }
    }
    room.work.out.clear();
    at
}

/// What is left of a side's input where an exchange ends.
fn leave(http: &mut Http, index: usize, from: Side, rest: &[u8], told: Told) {
    let client = &mut http.clients[index];
    match from {
        // Of the protocol that it switched to.
        Side::Member if told == Told::Switched => client.codec.keep_stuck(from, rest),
        // Its next request.
        Side::Client => client.codec.keep_stuck(from, rest),
        // What a member sent behind its response belongs to nobody: it is mad, and not used again.
        Side::Member => {
            if let Some(at) = client.up.filter(|_| !rest.is_empty()) {
                http.ups[at].is_at_end = true;
            }
        }
    }
}

/// Reads from a member's connection. A response must not look whole because it was cut: an end that
/// TLS does not confirm is a failure.
pub(in crate::worker) fn recv_from_member(
    up: &mut Up,
    room: &mut tls::Room,
    into: &mut [u8],
) -> Result<Got, Errno> {
    match tls::recv(&up.socket, &mut up.tls, room, into) {
        Ok(Got::End) if up.tls.as_ref().is_some_and(|layer| layer.is_cut()) => {
            Err(Errno::CONNRESET)
        }
        other => other,
    }
}

/// Reads from the member and takes the codec's steps.
pub(super) fn read_member(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    at: usize,
) -> bool {
    let (client, up) = (&mut http.clients[index], &mut http.ups[at]);
    let stuck = client.codec.take_stuck(Side::Member, &mut room.scratch);
    let mut length = stuck;
    let mut is_end = false;
    let room_end = room.scratch.len().min(stuck + READ_BYTES_MAX);
    if stuck == room_end {
        // A member whose output cannot be used although there is as much of it as a head may have:
        // the codec says so.
        step_through(core, room, http, index, Side::Member, stuck);
        return false;
    }
    let into = &mut room.scratch[stuck..room_end];
    match recv_from_member(up, &mut core.tls, into) {
        Ok(Got::End) => is_end = true,
        Ok(Got::Data { count, is_more }) => {
            length += count;
            up.readable = is_more || up.is_hung_up;
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
    step_through(core, room, http, index, Side::Member, length);
    let Some(client) = http.clients.get_mut(index) else {
        return true;
    };
    if is_end && client.up == Some(at) {
        let told = with_context(core, client.address, |cx| {
            client.codec.end_of_stream(Side::Member, cx, &mut room.work)
        });
        if !room.work.out.is_empty() {
            put(core, room, http, index, Side::Client, 0..0);
        }
        act(core, room, http, index, told);
    }
    true
}

/// Sends what the codec wrote and then a range of the scratch buffer to one side, or keeps it for
/// later; towards a member that is connecting all of it waits. `false`: the connection is over.
pub(super) fn put(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    to: Side,
    tail: Range<usize>,
) -> bool {
    if to == Side::Client {
        core.flush_registrations();
        core.point(Point::Answering);
    }
    let Some(client) = http.clients.get_mut(index) else {
        return false;
    };
    let (out, tail) = (&room.work.out[..], &room.scratch[tail]);
    let length = out.len() + tail.len();
    let (peer, codec, books) = split(client, &mut http.ups, to);
    let is_free = length > 0 && codec.unsent(to).is_empty();
    let mut sent = 0;
    if let Some(peer) = peer.filter(|peer| is_free && *peer.writable) {
        let result = tls::send(peer.socket, peer.tls, &mut core.tls, out, tail);
        sent = result.unwrap_or(0);
        *peer.writable = sent == length && !tls::has_unsent(peer.tls);
        if result.is_err_and(|errno| errno != Errno::AGAIN) {
            room.work.out.clear();
            return has_failed(core, room, http, index, to);
        }
        books.note(core, sent);
    }
    // Without a member, what was for it is nobody's.
    if to == Side::Client || client.up.is_some() {
        let codec = &mut client.codec;
        codec.keep_unsent(to, &out[sent.min(out.len())..]);
        codec.keep_unsent(to, &tail[sent.saturating_sub(out.len())..]);
    }
    room.work.out.clear();
    if to == Side::Member {
        core.point(Point::RequestSent);
    }
    true
}

/// A side takes no bytes any more. `false`: the connection is over.
fn has_failed(core: &mut Core, room: &mut Room, http: &mut Http, index: usize, side: Side) -> bool {
    if side == Side::Client {
        fail(core, room, http, index, side);
        return false;
    }
    // It may have answered before it closed: reading tells. The bytes are nobody's any more.
    if let Some(up) = http.clients[index].up {
        http.ups[up].readable = true;
    }
    true
}
