//! Members' HTTP/2 connections in a takeover: handed over before the streams on them, and taken back
//! if it comes to nothing.

use super::{Trunk, seek, touch_front};
use crate::worker::core_of_lane::{Core, Source};
use crate::worker::http::{Http, Room};
use crate::worker::http2::answer;

/// An exchange that was carried over finds its stream again. `false`: its connection is gone. In a
/// program that takes back what it gave, connections are in the places where they were, and
/// [`thaw`] does it for all exchanges.
pub(in crate::worker) fn rejoin(core: &mut Core, http: &mut Http, at: usize) -> bool {
    let exchange = &mut http.exchanges[at];
    if http.is_frozen {
        if exchange.trunk.is_some() {
            core.enter_member(exchange.member);
        }
        return true;
    }
    let Some((number, stream)) = exchange.trunk.take() else {
        // One that waited for a connection is given another by [`seek`].
        return exchange.queued.is_none();
    };
    let mut carried = http.carried.iter();
    let Some(&(_, place)) = carried.find(|(known, _)| *known == number as u32) else {
        return false;
    };
    let trunk = &mut http.trunks[place];
    trunk.streams.push((stream, at));
    trunk.streams.sort_unstable();
    core.enter_member(trunk.member);
    exchange.member = trunk.member;
    exchange.trunk = Some((place, stream));
    true
}

/// Serves a connection that was carried over, once the streams on it have come, too.
pub(in crate::worker) fn insert(core: &mut Core, http: &mut Http, number: u32, mut trunk: Trunk) {
    let member = trunk.member;
    trunk.streams.clear();
    trunk.queue.clear();
    trunk.armed_us = 0;
    let place = http.trunks.insert(trunk);
    debug_assert!(
        !http.is_frozen || place == number as usize,
        "a slab's order"
    );
    http.carried.push((number, place));
    core.tables.members[member].trunks.push(place);
    let _ = core.watch(&http.trunks[place].socket, Source::Trunk(place));
    core.again.push(Source::Trunk(place).token());
}

/// After a takeover that came to nothing: everything goes on.
pub(in crate::worker) fn thaw(core: &mut Core, room: &mut Room, http: &mut Http) {
    if !core::mem::take(&mut http.is_frozen) {
        return;
    }
    for (_, trunk) in &mut http.trunks {
        trunk.streams.clear();
        trunk.queue.clear();
    }
    let (mut gone, mut queued) = (Vec::new(), Vec::new());
    for (at, exchange) in &mut http.exchanges {
        let Some((place, stream)) = exchange.trunk else {
            if exchange.queued.take().is_some() {
                queued.push(at);
            }
            continue;
        };
        match http.trunks.get_mut(place) {
            Some(trunk) => trunk.streams.push((stream, at)),
            None => gone.push(at),
        }
    }
    for (_, trunk) in &mut http.trunks {
        trunk.streams.sort_unstable();
    }
    for at in gone {
        let exchange = &mut http.exchanges[at];
        let index = exchange.front;
        exchange.trunk = None;
        core.leave_member(exchange.member);
        answer::fail(core, room, http, at, 502);
        touch_front(core, room, http, index);
    }
    for at in queued {
        seek(core, room, http, at);
    }
    http.touched_fronts.clear();
    let fronts = http.fronts.iter().map(|(at, _)| Source::Front(at).token());
    core.again.extend(fronts);
    let trunks = http.trunks.iter().map(|(at, _)| Source::Trunk(at).token());
    core.again.extend(trunks);
    let ups = http.ups.iter().filter(|(_, up)| up.user.is_some());
    let ups = ups.map(|(at, _)| Source::HttpMember(at).token());
    core.again.extend(ups);
}
