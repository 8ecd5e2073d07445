//! Bytes of an HTTP connection: read into the scratch buffer, stepped through the codec, sent to
//! the other side.
//!
//! A system call per read and one per write of what a read brought: small pieces are collected in
//! the codec's output, and a long run of a body goes out behind it from where it was read.

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use hitless_carry::slots::IN_FLIGHT;
use hitless_proto::http1::{Event as Told, Side};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::exchange::{act, fail, may_retry, note_done, request, retry};
use super::{Closing, Http, READ_BYTES_MAX, Room, with_context};
use crate::worker::core_of_lane::Core;
use crate::worker::stats::Keyed;
use crate::worker::trial::Point;

pub(super) enum Flushed {
    All,
    Stuck,
    Failed,
}

pub(super) fn flush_client(core: &mut Core, http: &mut Http, index: usize) -> Flushed {
    core.flush_registrations();
    let client = &mut http.clients[index];
    if !client.writable {
        return Flushed::Stuck;
    }
    match send(&client.socket, client.codec.unsent(Side::Client), &[]) {
        Ok(count) => {
            client.written += count as u64;
            client.codec.sent(Side::Client, count, core.now_us);
            core.count_server(client.server, Keyed::BytesOut, count as u64);
        }
        Err(Errno::AGAIN) => {}
        Err(_) => return Flushed::Failed,
    }
    client.writable = client.codec.unsent(Side::Client).is_empty();
    if client.writable {
        Flushed::All
    } else {
        Flushed::Stuck
    }
}

pub(super) fn flush_member(core: &Core, http: &mut Http, index: usize, up: usize) -> Flushed {
    let (client, up) = (&mut http.clients[index], &mut http.ups[up]);
    if !up.writable {
        return Flushed::Stuck;
    }
    match send(&up.socket, client.codec.unsent(Side::Member), &[]) {
        Ok(count) => {
            client.codec.sent(Side::Member, count, core.now_us);
            core.count_member(up.member, Keyed::BytesIn, count as u64);
        }
        Err(Errno::AGAIN) => {}
        Err(_) => return Flushed::Failed,
    }
    up.writable = client.codec.unsent(Side::Member).is_empty();
    if up.writable {
        Flushed::All
    } else {
        Flushed::Stuck
    }
}

pub(super) fn send(socket: &OwnedFd, first: &[u8], second: &[u8]) -> Result<usize, Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        let sent = if second.is_empty() {
            rustix::net::send(socket, first, flags)
        } else {
            let parts = [IoSlice::new(first), IoSlice::new(second)];
            let mut none = rustix::net::SendAncillaryBuffer::default();
            rustix::net::sendmsg(socket, &parts, &mut none, flags)
        };
        match sent {
            Err(Errno::INTR) => {}
            other => return other,
        }
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
        match rustix::net::recv(&client.socket, into, RecvFlags::DONTWAIT) {
            Ok((0, _)) => is_end = true,
            Ok((count, _)) => {
                length += count;
                client.read += count as u64;
                core.point(Point::RequestRead);
                // Less than there was room for: the socket is empty, and says when it no longer is.
                // An end that the kernel has told of already is not told again.
                client.readable = length == room_end || client.is_hung_up;
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
        if may_read && client.codec.is_idle() {
            core.slot(client.slot).set_flag(IN_FLIGHT, false);
        }
        return false;
    }
    let consumed = step_client(core, room, http, index, length);
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

/// Steps through `length` bytes of client input in the scratch buffer and keeps what is left.
/// Returns the bytes used.
pub(super) fn step_client(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    length: usize,
) -> usize {
    let mut at = 0;
    loop {
        let client = &mut http.clients[index];
        if !client.codec.unsent(Side::Member).is_empty() && client.up.is_some() {
            break;
        }
        let step = with_context(core, client.address, |cx| {
            client
                .codec
                .step(Side::Client, cx, &room.scratch[at..length], &mut room.work)
        });
        let tail = at + step.tail.start..at + step.tail.end;
        at += step.consumed;
        match step.event {
            Told::Body | Told::NeedMore | Told::Wait => {
                // Small pieces are collected; a long one goes out with them.
                if !tail.is_empty() && !put_member(core, room, http, index, tail) {
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
            told => {
                if !put_member(core, room, http, index, tail) {
                    break;
                }
                let rest = room.scratch[at..length].to_vec();
                http.clients[index].codec.keep_stuck(Side::Client, &rest);
                act(core, room, http, index, told);
                return at;
            }
        }
    }
    if let Some(client) = http.clients.get_mut(index) {
        client
            .codec
            .keep_stuck(Side::Client, &room.scratch[at..length]);
        if !room.work.out.is_empty() {
            put_member(core, room, http, index, 0..0);
        }
    }
    room.work.out.clear();
    at
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
        step_member(core, room, http, index, stuck);
        return false;
    }
    let into = &mut room.scratch[stuck..room_end];
    match rustix::net::recv(&up.socket, into, RecvFlags::DONTWAIT) {
        Ok((0, _)) => is_end = true,
        Ok((count, _)) => {
            length += count;
            up.readable = length == room_end || up.is_hung_up;
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
    step_member(core, room, http, index, length);
    let Some(client) = http.clients.get_mut(index) else {
        return true;
    };
    if is_end && client.up == Some(at) {
        let told = with_context(core, client.address, |cx| {
            client.codec.end_of_stream(Side::Member, cx, &mut room.work)
        });
        if !room.work.out.is_empty() {
            put_client(core, room, http, index, 0..0);
        }
        act(core, room, http, index, told);
    }
    true
}

pub(super) fn step_member(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    length: usize,
) {
    let mut at = 0;
    loop {
        let client = &mut http.clients[index];
        if !client.codec.unsent(Side::Client).is_empty() {
            break;
        }
        let step = with_context(core, client.address, |cx| {
            client
                .codec
                .step(Side::Member, cx, &room.scratch[at..length], &mut room.work)
        });
        let tail = at + step.tail.start..at + step.tail.end;
        at += step.consumed;
        match step.event {
            Told::Body | Told::NeedMore | Told::Wait => {
                if !tail.is_empty() && !put_client(core, room, http, index, tail) {
                    break;
                }
                if step.event != Told::Body {
                    break;
                }
            }
            Told::Response => {
                let consumed = with_context(core, client.address, |cx| {
                    client
                        .codec
                        .forward_response(cx, &room.scratch[at..length], &mut room.work)
                });
                at += consumed;
            }
            told => {
                if matches!(told, Told::Done { .. }) {
                    let client = &http.clients[index];
                    note_done(core, client, (room.work.out.len() + tail.len()) as u64);
                }
                put_client(core, room, http, index, tail);
                core.point(Point::Answered);
                if let Some(client) = http.clients.get_mut(index) {
                    // What a member sent behind its response belongs to nobody: it is mad, and not
                    // used again.
                    let is_clean = at == length;
                    if !is_clean && let Some(up) = client.up {
                        http.ups[up].is_at_end = true;
                    }
                    act(core, room, http, index, told);
                }
                room.work.out.clear();
                return;
            }
        }
    }
    if let Some(client) = http.clients.get_mut(index) {
        client
            .codec
            .keep_stuck(Side::Member, &room.scratch[at..length]);
        if !room.work.out.is_empty() {
            put_client(core, room, http, index, 0..0);
        }
    }
    room.work.out.clear();
}

/// Sends what the codec wrote and then a range of the scratch buffer to the client. `false`: the
/// connection is over.
pub(super) fn put_client(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    tail: core::ops::Range<usize>,
) -> bool {
    let Some(client) = http.clients.get_mut(index) else {
        return false;
    };
    let (out, tail) = (&room.work.out[..], &room.scratch[tail]);
    let mut sent = 0;
    core.flush_registrations();
    if client.codec.unsent(Side::Client).is_empty() && client.writable && out.len() + tail.len() > 0
    {
        core.point(Point::Answering);
        match send_parts(&client.socket, out, tail) {
            Ok(count) => sent = count,
            Err(Errno::AGAIN) => {}
            Err(_) => {
                room.work.out.clear();
                fail(core, room, http, index, Side::Client);
                return false;
            }
        }
        client.written += sent as u64;
        client.writable = sent == out.len() + tail.len();
        core.count_server(client.server, Keyed::BytesOut, sent as u64);
    }
    client
        .codec
        .keep_unsent(Side::Client, &out[sent.min(out.len())..]);
    client
        .codec
        .keep_unsent(Side::Client, &tail[sent.saturating_sub(out.len())..]);
    room.work.out.clear();
    true
}

/// The same towards the member; while it is connecting, all of it waits. `false`: the connection is
/// over.
pub(super) fn put_member(
    core: &Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    tail: core::ops::Range<usize>,
) -> bool {
    let Some(client) = http.clients.get_mut(index) else {
        return false;
    };
    let (out, tail) = (&room.work.out[..], &room.scratch[tail]);
    let mut sent = 0;
    let mut has_failed = false;
    let is_empty = client.codec.unsent(Side::Member).is_empty();
    if let Some(up) = client.up.map(|up| &mut http.ups[up])
        && !up.is_connecting
        && up.writable
        && is_empty
        && out.len() + tail.len() > 0
    {
        match send_parts(&up.socket, out, tail) {
            Ok(count) => sent = count,
            Err(Errno::AGAIN) => {}
            // It may have answered before it closed: reading tells. The bytes are nobody's any
            // more.
            Err(_) => has_failed = true,
        }
        up.writable = sent == out.len() + tail.len();
        core.count_member(up.member, Keyed::BytesIn, sent as u64);
        up.readable |= has_failed;
        core.point(Point::RequestSent);
    }
    if !has_failed && client.up.is_some() {
        client
            .codec
            .keep_unsent(Side::Member, &out[sent.min(out.len())..]);
        client
            .codec
            .keep_unsent(Side::Member, &tail[sent.saturating_sub(out.len())..]);
    }
    room.work.out.clear();
    true
}

pub(super) fn send_parts(socket: &OwnedFd, out: &[u8], tail: &[u8]) -> Result<usize, Errno> {
    if out.is_empty() {
        send(socket, tail, &[])
    } else {
        send(socket, out, tail)
    }
}
