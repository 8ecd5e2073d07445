//! A request and its response: which member serves it, what happens when one fails, and how it
//! ends.

use std::sync::atomic::Ordering;

use hitless_carry::slots::{CLOSING, IN_FLIGHT};
use hitless_proto::http1::{After, Event as Told, Side};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::flow::{note_told_to_close, put};
use super::{
    Client, Closing, Http, IDLE_PER_MEMBER_MAX, LINGER_US_MAX, MEMBER_IDLE_US_MAX, Room, Up, User,
    protect, with_context, work,
};
use crate::egress;
use crate::worker::balance::{key_of_client, key_of_request};
use crate::worker::core_of_lane::{Core, Source, end_on_close};
use crate::worker::stats::{Keyed, Lane};
use crate::worker::tcp::CONNECT_TRIES_MAX;
use crate::worker::tls;
use crate::worker::trial::Point;

/// Room for a request that may be sent again, kept by an idle connection to a member.
const RETRY_BYTES_KEPT: usize = 1024;

/// A request head is there: finds it a member. Returns the bytes of the head; `None`: the client is
/// not to be stepped on.
pub(super) fn request(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    at: usize,
    length: usize,
) -> Option<usize> {
    let client = &mut http.clients[index];
    let server = client.server;
    core.count_server(server, Keyed::Requests, 1);
    client.tried.clear();
    let (head, input) = (&room.work.head, &room.scratch[at..length]);
    let fields = head.fields().iter();
    let fields = fields.map(|field| (field.name.bytes(input), field.value.bytes(input)));
    let host = head.host().map(|host| host.bytes(input));
    let by = &core.tables.servers[server].hash_by;
    let key = key_of_request(by, host, head.path().bytes(input), fields);
    client.key = key.unwrap_or_else(|| key_of_client(client.address));
    // The members of a pool of HTTP/2 are spoken to for clients of HTTP/2 alone.
    let is_spoken = !core.tables.servers[server].members_speak_http2;
    if !is_spoken || !obtain(core, http, index) {
        let status = if is_spoken { 503 } else { 505 };
        let client = &mut http.clients[index];
        let was_kept = client.codec.keeps_client();
        let consumed = with_context(core, client.address, |cx| {
            client
                .codec
                .answer(cx, &room.scratch[at..length], &mut room.work, status)
        });
        note_told_to_close(core, client, was_kept);
        core.count(Lane::Refusals, 1);
        core.count_server(server, Keyed::Failures, 1);
        protect_kept(core, http, index);
        put(core, room, http, index, Side::Client, 0..0);
        return http.clients.contains(index).then_some(consumed);
    }
    let client = &mut http.clients[index];
    let consumed = with_context(core, client.address, |cx| {
        client
            .codec
            .forward_request(cx, &room.scratch[at..length], &mut room.work)
    });
    let up = client.up.map(|up| &mut http.ups[up])?;
    core.count_member(up.member, Keyed::Requests, 1);
    if up.is_reused {
        let head = &room.work.head;
        let method = head.method_name().bytes(&room.scratch[at..length]);
        let is_safe = matches!(method, b"GET" | b"HEAD" | b"OPTIONS");
        if is_safe && head.declared_length().unwrap_or(0) == 0 {
            up.retry.extend_from_slice(&room.work.out);
        }
    }
    protect_kept(core, http, index);
    Some(consumed)
}

fn protect_kept(core: &mut Core, http: &Http, index: usize) {
    let client = &http.clients[index];
    if client.codec.keeps_client() {
        protect(core, client);
    }
}

/// Binds a member's connection to a client: an idle one, or a new one. `false`: there is no usable
/// member.
pub(super) fn obtain(core: &mut Core, http: &mut Http, index: usize) -> bool {
    loop {
        let client = &mut http.clients[index];
        if client.tried.len() >= CONNECT_TRIES_MAX {
            return false;
        }
        let Some(member) = core.tables.choose(client.server, client.key, &client.tried) else {
            return false;
        };
        if let Some(at) = take_idle(core, http, member, User::Client(index)) {
            http.clients[index].up = Some(at);
            return true;
        }
        if open_new(core, http, index, member) {
            return true;
        }
    }
}

/// Opens a connection to a member for a client.
pub(super) fn open_new(core: &mut Core, http: &mut Http, index: usize, member: usize) -> bool {
    http.clients[index].tried.push(member);
    http.clients[index].up = open_up(core, http, member, User::Client(index));
    http.clients[index].up.is_some()
}

/// Opens a connection to a member.
pub(in crate::worker) fn open_up(
    core: &mut Core,
    http: &mut Http,
    member: usize,
    user: User,
) -> Option<usize> {
    core.count_member(member, Keyed::Connections, 1);
    let address = core.tables.members[member].address;
    let Ok(opened) = egress::connect(address, egress::Source::Any) else {
        core.count_member(member, Keyed::Failures, 1);
        core.count(Lane::ConnectRetries, 1);
        return None;
    };
    let is_connecting = core.is_connecting(&opened, member);
    let mut up = Up::new(opened.socket, member, is_connecting, core.now_us);
    up.user = Some(user);
    let at = http.ups.insert(up);
    if core
        .watch(&http.ups[at].socket, Source::HttpMember(at))
        .is_err()
    {
        http.ups.remove(at);
        return None;
    }
    core.enter_member(member);
    Some(at)
}

/// An idle connection to a member.
pub(in crate::worker) fn take_idle(
    core: &mut Core,
    http: &mut Http,
    member: usize,
    user: User,
) -> Option<usize> {
    let at = core.tables.members[member].idle.pop()?;
    let up = &mut http.ups[at];
    up.user = Some(user);
    up.is_reused = true;
    up.retry.clear();
    core.enter_member(member);
    Some(at)
}

/// The member did not take the connection: nothing of the request has been sent, so another member
/// may serve it.
pub(in crate::worker) fn connect_failed(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
) {
    let Some(client) = http.clients.get(index) else {
        return;
    };
    if let Some(up) = client.up {
        core.count_member(http.ups[up].member, Keyed::Failures, 1);
    }
    core.count(Lane::ConnectRetries, 1);
    release(core, http, index, After::Close);
    if obtain(core, http, index) {
        return work(core, room, http, index);
    }
    let told = http.clients[index].codec.lost(Side::Member);
    act(core, room, http, index, told);
    work(core, room, http, index);
}

/// A socket failed.
pub(super) fn fail(
    core: &mut Core,
    room: &mut Room,
    http: &mut Http,
    index: usize,
    side: Side,
) -> bool {
    let Some(client) = http.clients.get_mut(index) else {
        return false;
    };
    if side == Side::Member
        && let Some(at) = client.up
        && may_retry(http, index, at)
    {
        return retry(core, room, http, index);
    }
    let Some(client) = http.clients.get_mut(index) else {
        return false;
    };
    if side == Side::Client {
        end(core, http, index, End::Reset);
        return false;
    }
    let told = client.codec.lost(Side::Member);
    if let Some(up) = client.up.map(|up| &mut http.ups[up]) {
        up.readable = false;
        up.is_at_end = true;
    }
    act(core, room, http, index, told);
    http.clients.contains(index)
}

/// A request on a reused connection that the member had just closed.
pub(super) fn may_retry(http: &Http, index: usize, at: usize) -> bool {
    let codec = &http.clients[index].codec;
    !http.ups[at].retry.is_empty() && codec.is_in_exchange() && !codec.has_responded()
}

pub(super) fn retry(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) -> bool {
    let Some(at) = http.clients[index].up else {
        return false;
    };
    let request = core::mem::take(&mut http.ups[at].retry);
    let member = http.ups[at].member;
    core.count(Lane::RequestRetries, 1);
    release(core, http, index, After::Close);
    http.clients[index].codec.forget_member();
    http.clients[index]
        .codec
        .keep_unsent(Side::Member, &request);
    if open_new(core, http, index, member) || obtain(core, http, index) {
        return true;
    }
    let told = http.clients[index].codec.lost(Side::Member);
    act(core, room, http, index, told);
    http.clients.contains(index)
}

/// Does what the codec said.
pub(super) fn act(core: &mut Core, room: &mut Room, http: &mut Http, index: usize, told: Told) {
    let Some(client) = http.clients.get_mut(index) else {
        return;
    };
    match told {
        // What is switched is taken out once its client has been told.
        Told::NeedMore | Told::Wait | Told::Request | Told::Response | Told::Switched => {}
        Told::Body => {
            put(core, room, http, index, Side::Client, 0..0);
        }
        Told::Done {
            client: after_client,
            member,
        } => {
            release(core, http, index, member);
            done(core, http, index, after_client, member);
        }
        Told::Refused(refusal) => refuse(core, room, http, index, refusal.status()),
        Told::BadMember(refusal) => {
            count_member_failure(core, http, index);
            refuse(core, room, http, index, refusal.member_status());
        }
        Told::Abort(reason) => {
            if client.codec.blames(reason) == Side::Member {
                count_member_failure(core, http, index);
            }
            release(core, http, index, After::Close);
            end(core, http, index, End::Reset);
        }
        Told::Close => {
            release(core, http, index, After::Close);
            let client = &mut http.clients[index];
            client.closing = Closing::AfterOutput;
            client.close_at_us = core.now_us + core.tables.limits.body_time_us;
        }
    }
}

/// A request that its member failed, at the member and at the virtual server.
fn count_member_failure(core: &Core, http: &Http, index: usize) {
    let client = &http.clients[index];
    core.count_server(client.server, Keyed::Failures, 1);
    if let Some(up) = client.up {
        core.count_member(http.ups[up].member, Keyed::Failures, 1);
    }
}

/// Notes where an exchange ends that is complete but for `unsent` bytes of its answer: before these
/// are sent, so that a kill right behind the last one finds a connection that waits.
///
/// The answer's end is noted first: between the two, and until the last byte is out, the kernel's
/// counters differ from what is noted, and the request counts as lost. Of a connection that the
/// keeper does not have, nobody can ask the counters: if this answer is its last, it counts as
/// over. A send wakes its client, which often runs in place of this thread then, so a kill behind a
/// send is likely, and one between these lines and the send is not.
pub(super) fn note_done(core: &Core, client: &Client, unsent: u64, after: After) {
    let slot = core.slot(client.slot);
    let unread = client.codec.stuck(Side::Client).len() as u64;
    let (read, written) = match &client.tls {
        None => (client.read - unread, client.written + unsent),
        Some(layer) => {
            let (read, written) = tls::note_http(core, client.slot, layer, unsent as usize);
            // Where in sealed bytes the next request begins nobody knows.
            (if unread == 0 { read } else { u64::MAX }, written)
        }
    };
    slot.written_done.store(written, Ordering::Release);
    slot.read_done.store(read, Ordering::Release);
    slot.set_flag(CLOSING, after == After::Close);
}

/// What of TLS has come or gone outside of exchanges, such as other keys: the books follow.
pub(super) fn note_idle(core: &Core, client: &Client) {
    let Some(layer) = &client.tls else { return };
    let slot = core.slot(client.slot);
    let waiting = layer.records.unsent().len() as u64;
    let (read, written) = (layer.read, layer.written + waiting);
    let known = (
        slot.read_done.load(Ordering::Relaxed),
        slot.written_done.load(Ordering::Relaxed),
    );
    if known != (read, written) {
        note_done(core, client, 0, After::Keep);
    }
}

/// An exchange is complete: keeps the books.
pub(super) fn done(core: &Core, http: &mut Http, index: usize, after: After, member: After) {
    let Some(client) = http.clients.get_mut(index) else {
        return;
    };
    let unread = client.codec.stuck(Side::Client).len() as u64;
    let unsent = client.codec.unsent(Side::Client).len() as u64;
    note_done(core, client, unsent, after);
    let slot = core.slot(client.slot);
    let is_sealed_out = !tls::has_unsent(&client.tls);
    slot.set_flag(IN_FLIGHT, unread + unsent > 0 || !is_sealed_out);
    if unsent > 0 || !is_sealed_out {
        // It takes another call, and may wait for that as long as the client reads nothing.
        slot.set_flag(CLOSING, false);
    }
    if after == After::Close {
        // A client that asked for it sends nothing more. One that we tell may have sent its next
        // request, and behind a request that was answered early (its member is closed then) more of
        // its body may come.
        let is_expected = !core.tells_to_close() && member == After::Keep;
        client.closing = if is_expected {
            Closing::AfterOutput
        } else {
            Closing::Lingering
        };
        client.close_at_us = core.now_us + core.tables.limits.body_time_us;
    }
}

pub(super) fn refuse(core: &mut Core, room: &mut Room, http: &mut Http, index: usize, status: u16) {
    release(core, http, index, After::Close);
    let Some(client) = http.clients.get_mut(index) else {
        return;
    };
    client.codec.forget_member();
    room.work.out.clear();
    let told = with_context(core, client.address, |cx| {
        client.codec.refuse(cx, &mut room.work, status)
    });
    match told {
        Told::Done { .. } => {
            core.count(Lane::Refusals, 1);
            client.closing = Closing::Lingering;
            client.close_at_us = core.now_us + core.tables.limits.body_time_us;
            put(core, room, http, index, Side::Client, 0..0);
        }
        Told::Abort(_) => end(core, http, index, End::Reset),
        _ => {
            client.closing = Closing::AfterOutput;
            client.close_at_us = core.now_us + LINGER_US_MAX;
        }
    }
}

/// The output of a closing connection is sent. `true`: go on at once.
pub(super) fn close_down(core: &mut Core, room: &mut Room, http: &mut Http, index: usize) -> bool {
    let client = &mut http.clients[index];
    match client.closing {
        Closing::No => return true,
        Closing::AfterOutput => {
            end(core, http, index, End::Closed);
            return false;
        }
        Closing::Lingering => {
            tls::shut_down(&client.socket, &mut client.tls);
            client.closing = Closing::Shut;
            client.close_at_us = core.now_us + LINGER_US_MAX;
        }
        Closing::Shut => {}
    }
    while client.readable {
        match rustix::net::recv(&client.socket, &mut room.scratch[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                end(core, http, index, End::Closed);
                return false;
            }
            Ok((count, _)) => client.read += count as u64,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => client.readable = false,
            Err(_) => {
                end(core, http, index, End::Closed);
                return false;
            }
        }
    }
    false
}

/// Parts a client from its member's connection, which is kept for others or closed.
pub(super) fn release(core: &mut Core, http: &mut Http, index: usize, after: After) {
    let Some(client) = http.clients.get_mut(index) else {
        return;
    };
    let Some(at) = client.up.take() else { return };
    let is_clean =
        client.codec.unsent(Side::Member).is_empty() && client.codec.stuck(Side::Member).is_empty();
    give_back(core, http, at, after == After::Keep && is_clean);
}

/// A member's connection has no user any more: it is kept for others or closed.
pub(in crate::worker) fn give_back(core: &mut Core, http: &mut Http, at: usize, is_good: bool) {
    let up = &mut http.ups[at];
    let member = up.member;
    core.leave_member(member);
    up.user = None;
    up.retry.clear();
    // Requests on this connection need about as much again; one long head is no reason to keep it.
    up.retry.shrink_to(RETRY_BYTES_KEPT);
    up.since_us = core.now_us;
    let idle = &mut core.tables.members[member].idle;
    let has_room = idle.len() < IDLE_PER_MEMBER_MAX && !core.is_draining;
    let is_still = !tls::has_unsent(&up.tls);
    if is_good && is_still && !up.is_at_end && !up.is_hung_up && !up.is_connecting && has_room {
        idle.push(at);
        let due_us = core.now_us + MEMBER_IDLE_US_MAX;
        core.wheel
            .set(Source::HttpMember(at).token(), due_us, &mut up.armed_us);
        return;
    }
    let up = http.ups.remove(at);
    core.unwatch(&up.socket);
}

pub(super) fn drop_idle(core: &mut Core, http: &mut Http, at: usize) {
    let Some(up) = http.ups.try_remove(at) else {
        return;
    };
    core.unwatch(&up.socket);
    core.tables.members[up.member]
        .idle
        .retain(|&idle| idle != at);
}

/// How a client's connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::worker) enum End {
    Closed,
    /// In a way that the client notices.
    Reset,
}

pub(in crate::worker) fn end(core: &mut Core, http: &mut Http, index: usize, how: End) {
    release(core, http, index, After::Close);
    let Some(mut client) = http.clients.try_remove(index) else {
        return;
    };
    core.unwatch(&client.socket);
    // Books first: a kill behind what the client sees finds them right.
    match how {
        End::Closed => {
            end_on_close(&client.socket);
            core.end_slot(client.slot);
            // The keeper may have a duplicate for a moment longer: say the end now.
            tls::shut_down(&client.socket, &mut client.tls);
        }
        // As it was accepted.
        End::Reset => core.end_slot(client.slot),
    }
    core.point(Point::Ended);
}
