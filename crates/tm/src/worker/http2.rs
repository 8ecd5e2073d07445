//! HTTP/2 from clients: a connection with many streams, each of which is an exchange with a member.
//!
//! ```text
//! HTTP/1.1 client ─ first bytes are the preface ─► front ─ request on a stream ─► exchange
//! exchange   choose member ─► connecting ─► request goes out ─► response comes back ─► over
//!             └ none: 503      └ refused: next member; none left: 502
//! ```
//!
//! A *front* is a client's connection, an [`Exchange`] one request on it. The codec
//! ([`hitless_proto::http2::Connection`]) decides about frames, streams and windows; what a member
//! answers in HTTP/1.1 is read by its codec. Invariants: bytes of a body that one side does not take
//! lie in the exchange, at most a stream's window of a request and one read of a response; a
//! member is not read while bytes of its response wait, and a client's window opens only for bytes
//! that have gone on. Nobody is told to go but by a drain.
//!
//! Members speak HTTP/1.1, each request on a connection of its own while it lasts, or HTTP/2: then
//! streams of many clients share few connections ([`trunk`]).
//!
//! A front's state is in this process alone: it is carried over by a takeover and lost, with a
//! reset, if the process is killed.

use core::net::IpAddr;
use std::os::fd::OwnedFd;

use hitless_proto::http1;
use hitless_proto::http2::{Connection, Context, Head, Work, frame};

use super::core_of_lane::Core;
use super::http::Closing;
use super::tls::{self, Tls};

pub(super) use self::answer::fail;
pub(super) use self::exchange::{connect_failed, put_off, work_exchange};
pub(super) use self::front::{begin_carried, on_front, on_front_timer, take_over_client, work};
pub(super) use self::leave::end;
pub(super) use self::trunk::{
    STREAMS_PER_TRUNK, Trunk, connect_of_trunk_failed, flush_trunks, insert as insert_trunk,
    on_trunk, on_trunk_timer, rejoin, seek, thaw, work_trunk,
};

mod answer;
mod exchange;
mod front;
mod leave;
mod member;
mod request;
mod trunk;

/// What a thread lends to the connection that it works on.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Head of the last event, and output for the front that is worked on.
    work: Work,
    /// A head on its way out.
    head: Head,
    /// Head of the last event, and output for the trunk that is worked on.
    trunk: Work,
    /// Text for a member that speaks HTTP/1.1.
    text: Vec<u8>,
}

/// A client's HTTP/2 connection.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) slot: u32,
    pub(super) server: usize,
    pub(super) socket: OwnedFd,
    pub(super) tls: Tls,
    pub(super) address: IpAddr,
    pub(super) codec: Connection,
    /// Streams with the places of their exchanges, by rising number.
    pub(super) streams: Vec<(u32, usize)>,
    readable: bool,
    is_hung_up: bool,
    writable: bool,
    pub(super) is_at_end: bool,
    /// The next request is not taken before output has gone.
    waits: bool,
    pub(super) leaving: Leaving,
    pub(super) closing: Closing,
    /// Set while the connection is closing.
    pub(super) close_at_us: u64,
    /// Of the connection and of its exchanges.
    armed_us: u64,
}

/// How far a client has been told to go elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Leaving {
    No = 0,
    /// It knows that no stream is wanted; those under way to us are still taken.
    Announced = 1,
    /// It has heard of that: the last stream is said.
    Said = 2,
}

/// A request on a client's connection, and its response.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) front: usize,
    pub(super) stream: u32,
    /// Place of the member's connection. `None`: before there is one, and once it has done its
    /// part.
    pub(super) up: Option<usize>,
    /// Its trunk and stream there, with a member that speaks HTTP/2; it never has both this and the
    /// above.
    pub(super) trunk: Option<(usize, u32)>,
    /// The trunk whose member's settings it waits for.
    pub(super) queued: Option<usize>,
    /// Whose the trunk is.
    pub(super) member: usize,
    /// For such a member, while the request may have to be sent once more.
    pub(super) head: Option<Box<Head>>,
    pub(super) repeats: u8,
    /// Reads the response of a member that speaks HTTP/1.1.
    pub(super) codec: http1::Connection,
    /// The request's body goes on in chunks.
    pub(super) is_chunked: bool,
    /// It may be sent once more on another connection.
    pub(super) is_repeatable: bool,
    /// The hash by which a member is chosen.
    pub(super) key: u64,
    pub(super) has_responded: bool,
    pub(super) request: Half,
    pub(super) response: Half,
    pub(super) tried: Vec<usize>,
    /// Last progress on the member's side.
    pub(super) since_us: u64,
}

/// A body on its way: what has come and has not gone on.
#[derive(Debug, Default)]
pub(super) struct Half {
    pub(super) waiting: Vec<u8>,
    /// All of it has come.
    pub(super) has_ended: bool,
    pub(super) trailers: Option<Box<Head>>,
    /// All of it has gone on.
    pub(super) is_done: bool,
}

impl Front {
    pub(super) fn new(
        slot: u32,
        server: usize,
        socket: OwnedFd,
        address: IpAddr,
        codec: Connection,
    ) -> Self {
        Self {
            slot,
            server,
            socket,
            tls: None,
            address,
            codec,
            streams: Vec::new(),
            readable: true,
            is_hung_up: false,
            writable: true,
            is_at_end: false,
            waits: false,
            leaving: Leaving::No,
            closing: Closing::No,
            close_at_us: 0,
            armed_us: 0,
        }
    }

    /// Inside a request or response, or with bytes that are nobody else's.
    pub(super) fn is_mid_message(&self) -> bool {
        !self.codec.is_idle()
    }

    /// Bytes wait for the client.
    fn has_unsent(&self) -> bool {
        !self.codec.unsent().is_empty() || tls::has_unsent(&self.tls)
    }

    fn exchange_of(&self, stream: u32) -> Option<usize> {
        let place = self.streams.binary_search_by_key(&stream, |(id, _)| *id);
        place.ok().map(|place| self.streams[place].1)
    }
}

impl Exchange {
    pub(super) fn new(front: usize, stream: u32, is_head: bool, now_us: u64) -> Self {
        Self {
            front,
            stream,
            up: None,
            trunk: None,
            queued: None,
            member: 0,
            head: None,
            repeats: 0,
            codec: http1::Connection::awaiting_response(now_us, is_head),
            is_chunked: false,
            is_repeatable: false,
            key: 0,
            has_responded: false,
            request: Half::default(),
            response: Half::default(),
            tried: Vec::new(),
            since_us: now_us,
        }
    }
}

/// Whether first bytes are HTTP/2's preface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Preface {
    No,
    /// It may become one.
    Begun,
    Whole,
}

/// What a connection's first bytes are. `input` is not empty.
pub(super) fn preface(input: &[u8]) -> Preface {
    let count = input.len().min(frame::PREFACE.len());
    match input[..count] == frame::PREFACE[..count] {
        false => Preface::No,
        true if count < frame::PREFACE.len() => Preface::Begun,
        true => Preface::Whole,
    }
}

fn context(core: &Core) -> Context<'_> {
    Context {
        now_us: core.now_us,
        limits: &core.tables.http2_limits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_preface_is_one() {
        assert_eq!(preface(b"P"), Preface::Begun);
        assert_eq!(preface(b"PRI * HTTP/2.0\r\n\r\n"), Preface::Begun);
        assert_eq!(
            preface(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0"),
            Preface::Whole
        );
        for other in [&b"PUT"[..], b"PRI * HTTP/1.1\r\n\r\n", b"GET"] {
            assert_eq!(preface(other), Preface::No);
        }
    }
}
