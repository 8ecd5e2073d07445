//! TLS handshakes that a takeover meets: they end in the program in which they began.

use super::HANDSHAKES_US_MAX;
use crate::ledger::{Field, TAKEOVER};
use crate::worker::core_of_lane::Source;
use crate::worker::event_loop::EventLoop;
use crate::worker::http::User;
use crate::worker::{http, http2, tcp, tls};

impl EventLoop {
    /// Waits for those that cannot be moved, and ends what has had its time. `false`: not yet.
    pub(super) fn end_handshakes(&mut self, began_us: u64) -> bool {
        let is_stuck = |greeting: &tls::Greeting| {
            let shaking = greeting.shaking.as_ref();
            shaking.is_some_and(|shaking| shaking.replay().is_none())
        };
        let stuck: Vec<usize> = self
            .greetings
            .iter()
            .filter(|(_, greeting)| is_stuck(greeting))
            .map(|(index, _)| index)
            .collect();
        // No other handshake with a member begins from here on.
        self.core.holds_handshakes = true;
        let http = &self.http;
        let ups = http.ups.iter().filter(|(_, up)| up.shaking.is_some());
        let ups: Vec<usize> = ups.map(|(index, _)| index).collect();
        let trunks = http.trunks.iter().filter(|(_, one)| one.shaking.is_some());
        let trunks: Vec<usize> = trunks.map(|(place, _)| place).collect();
        let is_shaking = |pair: &tcp::Pair| {
            let sealed = pair.sealed.as_ref();
            sealed.is_some_and(|sealed| sealed.shaking.is_some())
        };
        let pairs = self.pairs.iter().filter(|(_, pair)| is_shaking(pair));
        let pairs: Vec<usize> = pairs.map(|(index, _)| index).collect();
        let count = stuck.len() + ups.len() + trunks.len() + pairs.len();
        if count > 0 && self.core.now_us < began_us + HANDSHAKES_US_MAX {
            return false;
        }
        for index in stuck {
            TAKEOVER.of(self.core.slots.head()).add(Field::Reset, 1);
            tls::end_greeting(self, index);
        }
        let Self {
            core,
            room,
            pairs: all,
            http,
            ..
        } = self;
        for index in ups {
            match http.ups.get(index).and_then(|up| up.user) {
                Some(User::Client(client)) => http::connect_failed(core, room, http, client),
                Some(User::Exchange(at)) => http2::connect_failed(core, room, http, at),
                None => {}
            }
        }
        for place in trunks {
            http2::connect_of_trunk_failed(core, room, http, place);
        }
        for index in pairs {
            tcp::try_next(core, all, index);
        }
        if let Some(giving) = &mut self.giving {
            giving.awaits_handshakes_us = None;
        }
        true
    }

    /// After a takeover that came to nothing: handshakes with members that were put off begin.
    pub(super) fn resume_handshakes(&mut self) {
        self.core.holds_handshakes = false;
        let core = &self.core;
        let ups = self.http.ups.iter().filter(|(_, up)| up.is_connecting);
        for (index, up) in ups {
            core.unwatch(&up.socket);
            let _ = core.watch(&up.socket, Source::HttpMember(index));
        }
        let trunks = self.http.trunks.iter();
        for (place, trunk) in trunks.filter(|(_, trunk)| trunk.is_connecting) {
            core.unwatch(&trunk.socket);
            let _ = core.watch(&trunk.socket, Source::Trunk(place));
        }
        for (index, pair) in self.pairs.iter().filter(|(_, pair)| pair.is_connecting) {
            let socket = &pair.sockets[tcp::MEMBER];
            core.unwatch(socket);
            let _ = core.watch(socket, Source::TcpMember(index));
        }
    }
}
