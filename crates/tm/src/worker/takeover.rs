//! Takeover: an event loop hands its connections to the same event loop of the next program.
//!
//! ```text
//! predecessor                                         successor
//!   stops accepting; Begin (layout)          ───────►
//!   batches of raw TCP (16 connections)      ───────►  owns them; Ack; serves them
//!   batches of HTTP, which stand still       ───────►  restores them; Ack; they stand still
//!          ◄───────  Ack (number, descriptors)
//!   all lanes have every Ack: End            ───────►  owns and serves HTTP; accepts
//! ```
//!
//! A batch is taken out of the predecessor's epoll before it is sent. Raw TCP has no state but the
//! kernel's and the slot file's, so it goes on at once, and its descriptors are closed here with
//! the acknowledgement; if the successor dies, it comes from the keeper with every byte. HTTP has
//! state in memory: the predecessor keeps descriptors and codecs of every connection until the
//! successor has restored all of all lanes, and the successor reads no byte of any before End. If
//! it is silent for [`ACK_US_MAX`], or dies, the keeper ends it and waits for that; then the
//! predecessor goes on with all that it kept. The commit of one connection is its owner in the slot
//! file, written by the successor before it serves it: what it owns when it dies after End is lost
//! or lives on as after any crash, and is counted so.
//!
//! A TLS handshake of which something was sent cannot be moved. It ends here, before anything is
//! handed over, or is cut when its time is over. One of which nothing was sent begins anew. A
//! connection with TLS has state in memory and goes like HTTP, raw TCP within it too.
//!
//! HTTP/2 connections to members go first, and from then on nothing of HTTP/2 is served here: their
//! streams belong to clients that are sent later.
//!
//! HTTP stands still for as long as the HTTP connections of the fullest lane take: some 5 µs each,
//! 50 ms for 10,000. Connections stay in their slots, and the keeper's duplicates stay as they are.
//! Between two batches the predecessor serves what it has not sent yet; new connections wait in the
//! listening sockets until End.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use hitless_carry::message;

use super::core_of_lane::{Core, Source};
use super::event_loop::EventLoop;
use super::http::{Http, Up, User};
use super::record::{FDS_PER_ITEM, Item};
use super::{http, http2, tcp, tls};
use crate::clock::now_us;

mod give;
mod handshakes;
mod take;

/// Connections of one batch: all at once would stop each for a quarter of a second, 16 for a
/// fraction of a millisecond.
const BATCH: usize = 16;
/// Batches on their way.
const IN_FLIGHT_MAX: usize = 4;
/// A batch takes some 100 µs, on a machine that is busy with other things far longer; a successor that
/// needs this long hangs, and so long the connections of its batches stand still.
const ACK_US_MAX: u64 = 3_000_000;
/// What is in the midst of a TLS handshake when a takeover begins has this long to end it here: three
/// round trips of the farthest client. All else is served meanwhile.
const HANDSHAKES_US_MAX: u64 = 1_000_000;
/// Longer records travel in a memory file beside the packet.
const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Records of one batch: 16 connections with four buffers of 256 KiB each.
const BATCH_BYTES_MAX: u64 = 64 << 20;
/// No further connection is added to a batch of so many bytes: an HTTP/2 one with a hundred stalled
/// streams has some 20 MB.
const BATCH_BYTES_FULL: usize = 8 << 20;

const _: () = assert!(BATCH * FDS_PER_ITEM < message::FDS_MAX);

/// Handing over.
pub(super) struct Giving {
    peer: OwnedFd,
    in_flight: VecDeque<Batch>,
    /// HTTP that the successor has acknowledged and does not serve before End.
    kept: Vec<Item>,
    next: u32,
    /// When it began, until every TLS handshake is over or has had its time.
    awaits_handshakes_us: Option<u64>,
    /// No raw TCP in cleartext is left.
    is_raw_done: bool,
    is_full: bool,
    has_failed: bool,
    /// All is acknowledged; what the other lanes say is awaited.
    is_prepared: bool,
    has_ended: bool,
}

struct Batch {
    number: u32,
    items: Vec<Item>,
    fds: u32,
    sent_us: u64,
}

/// Being handed to.
pub(super) struct Taking {
    peer: OwnedFd,
    batches: u32,
    /// HTTP that stands still until End, and since when.
    still: Vec<(u64, Item)>,
}

impl Giving {
    pub(super) fn has_room(&self) -> bool {
        self.in_flight.len() < IN_FLIGHT_MAX
            && self.awaits_handshakes_us.is_none()
            && !self.is_full
            && !self.has_failed
            && !self.is_prepared
    }

    pub(super) fn deadline_us(&self) -> Option<u64> {
        if self.has_failed {
            return None;
        }
        if let Some(began_us) = self.awaits_handshakes_us {
            return Some(began_us + HANDSHAKES_US_MAX);
        }
        let oldest = self
            .in_flight
            .front()
            .map(|batch| batch.sent_us + ACK_US_MAX);
        if self.is_full && !self.is_prepared {
            Some(now_us() + 1000)
        } else {
            oldest
        }
    }
}

impl EventLoop {
    pub(super) fn on_takeover(&mut self) {
        if self.giving.is_some() {
            self.read_acknowledgements();
        } else {
            self.read_batches();
        }
    }

    /// Serves what another event loop served.
    fn insert(&mut self, item: Item) {
        let Self {
            core,
            room,
            pairs,
            http,
            ..
        } = self;
        match item {
            Item::Tcp(pair) => {
                core.open += 1;
                core.enter_member(pair.member);
                let index = pairs.insert(pair);
                tcp::begin(core, pairs, index);
            }
            Item::Http(client, up) => {
                core.open += 1;
                let index = http.clients.insert(*client);
                if let Some(up) = up {
                    let user = User::Client(index);
                    http.clients[index].up = Some(insert_up(core, http, up, user));
                }
                http::begin(core, room, http, index);
            }
            Item::Front(front, exchanges) => {
                core.open += 1;
                let index = http.fronts.insert(*front);
                for (mut exchange, up) in exchanges {
                    exchange.front = index;
                    let stream = exchange.stream;
                    let at = http.exchanges.insert(exchange);
                    http.fronts[index].streams.push((stream, at));
                    if let Some(up) = up {
                        let user = User::Exchange(at);
                        http.exchanges[at].up = Some(insert_up(core, http, up, user));
                        http2::put_off(core, http, at);
                    }
                    if http2::rejoin(core, http, at) {
                        continue;
                    }
                    if http.exchanges[at].queued.take().is_some() {
                        http2::seek(core, room, http, at);
                    } else {
                        http2::fail(core, room, http, at, 502);
                    }
                }
                http2::begin_carried(core, room, http, index);
            }
            Item::Trunk(number, trunk) => http2::insert_trunk(core, http, number, *trunk),
            Item::Greeting(greeting) => {
                self.core.open += 1;
                tls::begin_greeting(self, *greeting);
            }
            Item::Idle(up) => {
                let member = up.member;
                let at = http.ups.insert(up);
                let _ = core.watch(&http.ups[at].socket, Source::HttpMember(at));
                core.tables.members[member].idle.push(at);
                http::on_member_timer(core, http, at);
            }
        }
    }
}

fn insert_up(core: &mut Core, http: &mut Http, mut up: Up, user: User) -> usize {
    core.enter_member(up.member);
    up.user = Some(user);
    let at = http.ups.insert(up);
    let _ = core.watch(&http.ups[at].socket, Source::HttpMember(at));
    at
}
