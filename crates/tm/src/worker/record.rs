//! Connection records: how one event loop writes a connection down and the next one reads it.
//!
//! The layout's version stands in the Begin packet of a takeover, before any record. Virtual
//! servers and members are written by name, since their places differ between programs.

use core::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hitless_proto::http1::{Connection, Side};
use hitless_proto::http2;
use hitless_types::site::Protocol;

use super::core_of_lane::{Core, Pipe};
use super::http::{Client, Closing, Up};
use super::http2::{Exchange, Front, Half, Leaving, Trunk};
use super::stats::member_key;
use super::tcp::{CLIENT, MEMBER, Pair};
use super::tls::{Greeting, Layer, Sealed, Shaking, Tls};
use crate::wire::{Malformed, Reader, Writer};

/// One thing that is handed over.
#[derive(Debug)]
pub(super) enum Item {
    Tcp(Pair),
    Http(Box<Client>, Option<Up>),
    /// A client's HTTP/2 connection with its streams' exchanges.
    Front(Box<Front>, Vec<(Exchange, Option<Up>)>),
    /// A member's HTTP/2 connection, with the number by which exchanges name it.
    Trunk(u32, Box<Trunk>),
    /// An idle connection to a member.
    Idle(Up),
    /// A TLS handshake with a client: its socket, and what can begin anew elsewhere.
    Greeting(Box<Greeting>),
}

/// Room in a packet for what one item may need at most, HTTP/2 aside: two sockets, two pipes with
/// two ends.
pub(super) const FDS_PER_ITEM: usize = 6;

impl Item {
    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Tcp(pair) => {
                let mut fds: Vec<_> = pair.sockets.iter().map(AsFd::as_fd).collect();
                for pipe in pair.directions.iter().filter_map(|dir| dir.pipe.as_ref()) {
                    fds.push(pipe.reader.as_fd());
                    fds.push(pipe.writer.as_fd());
                }
                fds
            }
            Self::Http(client, up) => {
                let up = up.as_ref().map(|up| up.socket.as_fd());
                core::iter::once(client.socket.as_fd()).chain(up).collect()
            }
            Self::Front(front, exchanges) => {
                let ups = exchanges.iter().filter_map(|(_, up)| up.as_ref());
                let ups = ups.map(|up| up.socket.as_fd());
                core::iter::once(front.socket.as_fd()).chain(ups).collect()
            }
            Self::Trunk(_, trunk) => vec![trunk.socket.as_fd()],
            Self::Idle(up) => vec![up.socket.as_fd()],
            Self::Greeting(greeting) => vec![greeting.socket.as_fd()],
        }
    }

    /// Raw TCP in cleartext: it has no state but the kernel's and the slot file's.
    pub(super) fn goes_on(&self) -> bool {
        matches!(self, Self::Tcp(pair) if pair.sealed.is_none())
    }

    /// Bytes that are in memory and in no socket.
    pub(super) fn buffered(&self) -> usize {
        let of_codec = |codec: &Connection| -> usize {
            let sides = [Side::Client, Side::Member];
            let bytes = sides.map(|side| codec.stuck(side).len() + codec.unsent(side).len());
            bytes.iter().sum()
        };
        let of_layers: usize = self.layers().map(|(_, layer)| layer.buffered()).sum();
        let of_codecs = match self {
            Self::Tcp(pair) => pair.sealed.as_ref().map_or(0, |sealed| sealed.buffered()),
            Self::Idle(_) | Self::Greeting(_) => 0,
            Self::Trunk(_, trunk) => trunk.codec.stuck().len() + trunk.codec.unsent().len(),
            Self::Http(client, _) => of_codec(&client.codec),
            Self::Front(front, exchanges) => {
                let own = front.codec.stuck().len() + front.codec.unsent().len();
                let of_exchange = |(one, _): &(Exchange, Option<Up>)| {
                    let waiting = one.request.waiting.len() + one.response.waiting.len();
                    waiting + of_codec(&one.codec)
                };
                own + exchanges.iter().map(of_exchange).sum::<usize>()
            }
        };
        of_layers + of_codecs
    }

    /// Layers of TLS by the place of their socket: that of the connection itself, then members'.
    fn layers(&self) -> impl Iterator<Item = (u32, &Layer)> {
        let mut all: Vec<&Tls> = Vec::new();
        match self {
            // Its layers go with what is between them.
            Self::Tcp(_) | Self::Greeting(_) => {}
            Self::Http(client, up) => {
                all.push(&client.tls);
                all.extend(up.iter().map(|up| &up.tls));
            }
            Self::Front(front, exchanges) => {
                all.push(&front.tls);
                let of_ups = exchanges.iter().map(|(_, up)| up.as_ref());
                all.extend(of_ups.map(|up| up.map_or(&None, |up| &up.tls)));
            }
            Self::Trunk(_, trunk) => all.push(&trunk.tls),
            Self::Idle(up) => all.push(&up.tls),
        }
        let layers = (0u32..).zip(all);
        layers.filter_map(|(place, tls)| Some((place, tls.as_deref()?)))
    }

    /// Gives a layer back to the socket at a place.
    fn attach(&mut self, place: u32, layer: Layer) -> Result<(), Malformed> {
        let at = match (self, place) {
            (Self::Http(client, _), 0) => &mut client.tls,
            (Self::Http(_, Some(up)), 1) => &mut up.tls,
            (Self::Front(front, _), 0) => &mut front.tls,
            (Self::Front(_, exchanges), place) => {
                let exchange = exchanges.get_mut(place as usize - 1).ok_or(Malformed)?;
                &mut exchange.1.as_mut().ok_or(Malformed)?.tls
            }
            (Self::Trunk(_, trunk), 0) => &mut trunk.tls,
            (Self::Idle(up), 0) => &mut up.tls,
            _ => return Err(Malformed),
        };
        *at = Some(Box::new(layer));
        Ok(())
    }

    pub(super) fn slot(&self) -> Option<u32> {
        match self {
            Self::Tcp(pair) => Some(pair.slot),
            Self::Http(client, _) => Some(client.slot),
            Self::Front(front, _) => Some(front.slot),
            Self::Greeting(greeting) => Some(greeting.slot),
            Self::Idle(_) | Self::Trunk(..) => None,
        }
    }

    /// In front of what an item is in cleartext stand its layers.
    pub(super) fn write(&self, core: &Core, w: &mut Writer) {
        for (place, layer) in self.layers() {
            w.u8(6).u32(place);
            layer.write(w);
        }
        match self {
            Self::Greeting(greeting) => {
                let replay = greeting.shaking.as_ref().and_then(|one| one.replay());
                w.u8(8)
                    .u32(greeting.slot)
                    .u64(core.tables.servers[greeting.server].key);
                w.address(SocketAddr::new(greeting.address, 0))
                    .u64(greeting.since_us)
                    .bytes(replay.unwrap_or_default());
            }
            Self::Tcp(pair) => {
                if let Some(sealed) = &pair.sealed {
                    w.u8(7);
                    sealed.write(w);
                }
                w.u8(1)
                    .u32(pair.slot)
                    .u64(core.tables.servers[pair.server].key);
                write_member(core, pair.member, w);
                w.u8(pair.is_connecting.into()).u64(pair.since_us);
                for direction in &pair.directions {
                    w.u8(direction.is_at_end.into())
                        .u8(direction.is_shut.into());
                    let pipe = direction.pipe.as_ref();
                    w.u32(pipe.map_or(0, |pipe| pipe.number + 1));
                    w.u64(pipe.map_or(0, |pipe| pipe.length as u64));
                }
            }
            Self::Http(client, up) => {
                w.u8(2)
                    .u32(client.slot)
                    .u64(core.tables.servers[client.server].key);
                w.address(SocketAddr::new(client.address, 0))
                    .u64(client.read)
                    .u64(client.written);
                w.u8(client.is_at_end.into())
                    .u8(client.closing as u8)
                    .u64(client.close_at_us);
                w.bytes(&client.codec.snapshot(core.now_us));
                write_up_if(core, up.as_ref(), w);
            }
            Self::Front(front, exchanges) => {
                w.u8(4)
                    .u32(front.slot)
                    .u64(core.tables.servers[front.server].key);
                w.address(SocketAddr::new(front.address, 0))
                    .u8(front.is_at_end.into())
                    .u8(front.leaving as u8)
                    .u8(front.closing as u8)
                    .u64(front.close_at_us);
                w.bytes(&front.codec.snapshot(core.now_us));
                w.u32(exchanges.len() as u32);
                for (exchange, up) in exchanges {
                    write_exchange(core, exchange, w);
                    write_up_if(core, up.as_ref(), w);
                }
            }
            Self::Trunk(number, trunk) => {
                w.u8(5).u32(*number);
                write_member(core, trunk.member, w);
                w.u8(trunk.is_connecting.into())
                    .u8(trunk.is_at_end.into())
                    .u64(trunk.since_us)
                    .bytes(&trunk.codec.snapshot(core.now_us));
            }
            Self::Idle(up) => {
                w.u8(3);
                write_up(core, up, w);
            }
        }
    }

    /// Reads one item; its descriptors come from `fds` in the order in which [`fds`](Self::fds)
    /// gave them.
    pub(super) fn read(
        core: &mut Core,
        r: &mut Reader<'_>,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Self, Malformed> {
        let mut layers = Vec::new();
        let mut kind = r.u8()?;
        while kind == 6 {
            let place = r.u32()?;
            layers.push((place, Layer::read(r)?));
            kind = r.u8()?;
        }
        let mut item = Self::read_kind(core, kind, r, fds)?;
        for (place, layer) in layers {
            item.attach(place, layer)?;
        }
        Ok(item)
    }

    fn read_kind(
        core: &mut Core,
        kind: u8,
        r: &mut Reader<'_>,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Self, Malformed> {
        match kind {
            1 => read_tcp(core, r, fds).map(Self::Tcp),
            2 => read_http(core, r, fds),
            3 => read_up(core, r, fds).map(Self::Idle),
            4 => read_front(core, r, fds),
            5 => read_trunk(core, r, fds),
            7 => {
                let mut sealed = Sealed::read(r)?;
                if r.u8()? != 1 {
                    return Err(Malformed);
                }
                let mut pair = read_tcp(core, r, fds)?;
                sealed.set_slot(pair.slot);
                pair.sealed = Some(Box::new(sealed));
                Ok(Self::Tcp(pair))
            }
            8 => read_greeting(core, r, fds),
            _ => Err(Malformed),
        }
    }
}

fn write_member(core: &Core, member: usize, w: &mut Writer) {
    let member = &core.tables.members[member];
    w.text(&member.pool).address(member.address);
}

fn read_member(core: &mut Core, r: &mut Reader<'_>) -> Result<usize, Malformed> {
    let pool = r.text()?;
    let address = r.address()?;
    // Also of one that a reload removed: its connections are counted to their end.
    let keyed = match pool {
        "" => 0,
        pool => core.slots.keyed_index(core.lane, member_key(pool, address)),
    };
    Ok(core.tables.member_named(pool, address, keyed))
}

fn write_up_if(core: &Core, up: Option<&Up>, w: &mut Writer) {
    w.u8(up.is_some().into());
    if let Some(up) = up {
        write_up(core, up, w);
    }
}

fn read_up_if(
    core: &mut Core,
    r: &mut Reader<'_>,
    fds: &mut impl Iterator<Item = OwnedFd>,
) -> Result<Option<Up>, Malformed> {
    match r.flag()? {
        true => read_up(core, r, fds).map(Some),
        false => Ok(None),
    }
}

fn write_up(core: &Core, up: &Up, w: &mut Writer) {
    write_member(core, up.member, w);
    w.u8(up.is_connecting.into())
        .u8(up.is_reused.into())
        .u8(up.is_at_end.into())
        .u64(up.since_us);
}

fn read_up(
    core: &mut Core,
    r: &mut Reader<'_>,
    fds: &mut impl Iterator<Item = OwnedFd>,
) -> Result<Up, Malformed> {
    let member = read_member(core, r)?;
    let (is_connecting, is_reused, is_at_end) = (r.flag()?, r.flag()?, r.flag()?);
    let since_us = r.u64()?;
    let mut up = Up::new(
        fds.next().ok_or(Malformed)?,
        member,
        is_connecting,
        since_us,
    );
    up.is_reused = is_reused;
    up.is_at_end = is_at_end;
    Ok(up)
}

fn read_tcp(
    core: &mut Core,
    r: &mut Reader<'_>,
    fds: &mut impl Iterator<Item = OwnedFd>,
) -> Result<Pair, Malformed> {
    let (slot, key) = (read_slot(core, r)?, r.u64()?);
    let server = core.tables.server_of(key, Protocol::Tcp);
    let member = read_member(core, r)?;
    let (is_connecting, since_us) = (r.flag()?, r.u64()?);
    let sockets = [fds.next().ok_or(Malformed)?, fds.next().ok_or(Malformed)?];
    let mut pair = Pair::new(slot, server, member, sockets, is_connecting, since_us);
    for from in [CLIENT, MEMBER] {
        let direction = &mut pair.directions[from];
        direction.is_at_end = r.flag()?;
        direction.is_shut = r.flag()?;
        let (number, length) = (r.u32()?, r.u64()?);
        if let Some(number) = number.checked_sub(1) {
            let reader = fds.next().ok_or(Malformed)?;
            let writer = fds.next().ok_or(Malformed)?;
            direction.pipe = Some(Pipe {
                number,
                reader,
                writer,
                length: length as usize,
                is_adopted: true,
            });
        }
    }
    Ok(pair)
}

/// A client's slot, virtual server and address.
fn read_client(core: &mut Core, r: &mut Reader<'_>) -> Result<(u32, usize, IpAddr), Malformed> {
    let (slot, key) = (read_slot(core, r)?, r.u64()?);
    let server = core.tables.server_of(key, Protocol::Http);
    Ok((slot, server, r.address()?.ip()))
}

fn read_greeting(
    core: &mut Core,
    r: &mut Reader<'_>,
    fds: &mut impl Iterator<Item = OwnedFd>,
) -> Result<Item, Malformed> {
    let (slot, server, address) = read_client(core, r)?;
    let (since_us, replay) = (r.u64()?, r.bytes()?);
    let socket = fds.next().ok_or(Malformed)?;
    let shaking = match &core.tables.servers[server].tls {
        Some(config) => {
            let mut shaking = Shaking::server(config).map_err(|_| Malformed)?;
            shaking.begin_with(replay);
            Some(Box::new(shaking))
        }
        // Its virtual server is gone, or speaks in cleartext: it is over.
        None => None,
    };
    let of = (slot, server);
    let greeting = Greeting::new(of, (socket, address), shaking, since_us);
    Ok(Item::Greeting(Box::new(greeting)))
}

fn read_http(
    core: &mut Core,
    r: &mut Reader<'_>,
    fds: &mut impl Iterator<Item = OwnedFd>,
) -> Result<Item, Malformed> {
    let (slot, server, address) = read_client(core, r)?;
    let (read, written) = (r.u64()?, r.u64()?);
    let is_at_end = r.flag()?;
    let closing = read_closing(r)?;
    let close_at_us = r.u64()?;
    let codec = Connection::restore(r.bytes()?, core.now_us).map_err(|_| Malformed)?;
    let socket = fds.next().ok_or(Malformed)?;
    let mut client = Client::new(slot, server, socket, address, core.now_us);
    client.read = read;
    client.written = written;
    client.is_at_end = is_at_end;
    client.closing = closing;
    client.close_at_us = close_at_us;
    client.codec = codec;
    let up = read_up_if(core, r, fds)?;
    Ok(Item::Http(Box::new(client), up))
}

fn read_closing(r: &mut Reader<'_>) -> Result<Closing, Malformed> {
    match r.u8()? {
        0 => Ok(Closing::No),
        1 => Ok(Closing::AfterOutput),
        2 => Ok(Closing::Lingering),
        3 => Ok(Closing::Shut),
        _ => Err(Malformed),
    }
}

fn read_front(
    core: &mut Core,
    r: &mut Reader<'_>,
    fds: &mut impl Iterator<Item = OwnedFd>,
) -> Result<Item, Malformed> {
    let (slot, server, address) = read_client(core, r)?;
    let is_at_end = r.flag()?;
    let leaving = match r.u8()? {
        0 => Leaving::No,
        1 => Leaving::Announced,
        2 => Leaving::Said,
        _ => return Err(Malformed),
    };
    let (closing, close_at_us) = (read_closing(r)?, r.u64()?);
    let codec = http2::Connection::restore(r.bytes()?, core.now_us).map_err(|_| Malformed)?;
    let socket = fds.next().ok_or(Malformed)?;
    let mut front = Front::new(slot, server, socket, address, codec);
    front.is_at_end = is_at_end;
    front.leaving = leaving;
    front.closing = closing;
    front.close_at_us = close_at_us;
    let mut exchanges = Vec::new();
    for _ in 0..r.u32()? {
        let exchange = read_exchange(core, r)?;
        exchanges.push((exchange, read_up_if(core, r, fds)?));
    }
    Ok(Item::Front(Box::new(front), exchanges))
}

fn read_trunk(
    core: &mut Core,
    r: &mut Reader<'_>,
    fds: &mut impl Iterator<Item = OwnedFd>,
) -> Result<Item, Malformed> {
    let (number, member) = (r.u32()?, read_member(core, r)?);
    let (is_connecting, is_at_end, since_us) = (r.flag()?, r.flag()?, r.u64()?);
    let codec = http2::Connection::restore(r.bytes()?, core.now_us).map_err(|_| Malformed)?;
    let socket = fds.next().ok_or(Malformed)?;
    let mut trunk = Trunk::new(socket, member, codec, is_connecting, since_us);
    trunk.is_at_end = is_at_end;
    Ok(Item::Trunk(number, Box::new(trunk)))
}

fn write_exchange(core: &Core, exchange: &Exchange, w: &mut Writer) {
    w.u32(exchange.stream)
        .u8(exchange.is_chunked.into())
        .u8(exchange.is_repeatable.into())
        .u8(exchange.has_responded.into())
        .u64(exchange.since_us);
    w.bytes(&exchange.codec.snapshot(core.now_us));
    write_half(&exchange.request, w);
    write_half(&exchange.response, w);
    w.u8(exchange.trunk.is_some().into());
    if let Some((number, stream)) = exchange.trunk {
        w.u32(number as u32).u32(stream);
    }
    w.u8(exchange.repeats).u8(exchange.queued.is_some().into());
    w.u8(exchange.head.is_some().into());
    if let Some(head) = &exchange.head {
        w.bytes(head.method()).bytes(head.scheme());
        w.u8(head.authority().is_some().into());
        w.bytes(head.authority().unwrap_or_default())
            .bytes(head.path());
        write_fields(head, w);
    }
}

fn write_fields(head: &http2::Head, w: &mut Writer) {
    w.u32(head.fields().count() as u32);
    for field in head.fields() {
        w.bytes(field.name)
            .bytes(field.value)
            .u8(field.is_sensitive.into());
    }
}

fn read_fields(r: &mut Reader<'_>, head: &mut http2::Head) -> Result<(), Malformed> {
    for _ in 0..r.u32()? {
        let (name, value) = (r.bytes()?, r.bytes()?);
        match r.flag()? {
            true => head.push_sensitive(name, value),
            false => head.push(name, value),
        }
    }
    Ok(())
}

/// Its place in a front is given when it is inserted.
fn read_exchange(core: &Core, r: &mut Reader<'_>) -> Result<Exchange, Malformed> {
    let mut exchange = Exchange::new(usize::MAX, r.u32()?, false, core.now_us);
    exchange.is_chunked = r.flag()?;
    exchange.is_repeatable = r.flag()?;
    exchange.has_responded = r.flag()?;
    exchange.since_us = r.u64()?;
    exchange.codec = Connection::restore(r.bytes()?, core.now_us).map_err(|_| Malformed)?;
    exchange.request = read_half(r)?;
    exchange.response = read_half(r)?;
    if r.flag()? {
        exchange.trunk = Some((r.u32()? as usize, r.u32()?));
    }
    exchange.repeats = r.u8()?;
    exchange.queued = r.flag()?.then_some(usize::MAX);
    if r.flag()? {
        let (method, scheme) = (r.bytes()?, r.bytes()?);
        let (has_authority, authority) = (r.flag()?, r.bytes()?);
        let authority = has_authority.then_some(authority);
        let mut head = Box::<http2::Head>::default();
        head.begin_request(method, scheme, authority, r.bytes()?);
        read_fields(r, &mut head)?;
        exchange.head = Some(head);
    }
    Ok(exchange)
}

fn write_half(half: &Half, w: &mut Writer) {
    w.bytes(&half.waiting)
        .u8(half.has_ended.into())
        .u8(half.is_done.into())
        .u8(half.trailers.is_some().into());
    if let Some(head) = &half.trailers {
        write_fields(head, w);
    }
}

fn read_half(r: &mut Reader<'_>) -> Result<Half, Malformed> {
    let mut half = Half {
        waiting: r.bytes()?.to_vec(),
        has_ended: r.flag()?,
        is_done: r.flag()?,
        trailers: None,
    };
    if r.flag()? {
        let mut head = Box::<http2::Head>::default();
        head.begin_trailers();
        read_fields(r, &mut head)?;
        half.trailers = Some(head);
    }
    Ok(half)
}

fn read_slot(core: &Core, r: &mut Reader<'_>) -> Result<u32, Malformed> {
    let slot = r.u32()?;
    if slot < core.slots.slots_per_lane() {
        Ok(slot)
    } else {
        Err(Malformed)
    }
}
