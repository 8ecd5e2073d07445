//! The stream server: a pool member that does what each connection's first frame wishes, and checks
//! every byte.
//!
//! What it finds wrong it says to the client in a frame, so that the tally, which clients alone
//! make, knows. It counts nothing itself.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::wire::{BACKLOG_BYTES_MAX, Direction, Event, Reader, Wish, Writer, now_us};

/// How often messages that are due are looked for.
const TICK: Duration = Duration::from_millis(10);
/// Read at once from one connection, so that no connection keeps the others waiting.
const READ_BYTES: usize = 64 << 10;
/// Times that one connection's backlog is filled and sent per turn: at most 50 MB/s on each.
const BULK_ROUNDS: usize = 2;
const EVENTS: usize = 1_024;
const FIRST_CONNECTION: usize = 64;
const STOP: Token = Token(FIRST_CONNECTION - 1);

/// Serves on `listeners` (at most 63) until `stop` becomes readable or is closed at its other end.
pub fn serve(
    listeners: &[SocketAddr],
    stop: &OwnedFd,
    ready: impl FnOnce(&[SocketAddr]),
) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut bound = Vec::with_capacity(listeners.len());
    for (index, address) in listeners.iter().take(STOP.0).enumerate() {
        let mut listener = TcpListener::bind(*address)?;
        poll.registry()
            .register(&mut listener, Token(index), Interest::READABLE)?;
        bound.push(listener);
    }
    poll.registry()
        .register(&mut SourceFd(&stop.as_raw_fd()), STOP, Interest::READABLE)?;
    let addresses: io::Result<Vec<SocketAddr>> =
        bound.iter().map(TcpListener::local_addr).collect();
    ready(&addresses?);

    let mut connections: Slab<Connection> = Slab::new();
    let mut events = Events::with_capacity(EVENTS);
    let mut scratch = vec![0; READ_BYTES];
    let mut next_tick_us = 0;
    loop {
        match poll.poll(&mut events, Some(TICK)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            match event.token() {
                STOP => return Ok(()),
                Token(index) if index < FIRST_CONNECTION => {
                    accept(&bound[index], &poll, &mut connections)?;
                }
                Token(index) => {
                    let key = index - FIRST_CONNECTION;
                    let Some(connection) = connections.get_mut(key) else {
                        continue;
                    };
                    if !connection.advance(&mut scratch) {
                        connections.remove(key);
                    }
                }
            }
        }
        let now = now_us();
        if now >= next_tick_us {
            next_tick_us = now + TICK.as_micros() as u64;
            connections.retain(|_, connection| connection.tick(now, &mut scratch));
        }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, to: &mut Slab<Connection>) -> io::Result<()> {
    loop {
        let (mut socket, _) = match listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // A client that has gone again, or too many open files: the next one may fare better.
            Err(_) => return Ok(()),
            Ok(accepted) => accepted,
        };
        let _ = socket.set_nodelay(true);
        let entry = to.vacant_entry();
        let token = Token(entry.key() + FIRST_CONNECTION);
        poll.registry()
            .register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        entry.insert(Connection::new(socket));
    }
}

struct Connection {
    socket: TcpStream,
    reader: Reader,
    /// None until the wish has been read.
    writer: Option<Writer>,
    wish: Wish,
    next_message_us: u64,
    ends_at_us: u64,
    /// There may be more to read than was read.
    is_hungry: bool,
    has_read_all: bool,
    /// The client sent what cannot be understood: what follows is read and dropped.
    is_deaf: bool,
}

impl Connection {
    fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            reader: Reader::new(None, Direction::FromClient),
            writer: None,
            wish: Wish {
                message_bytes: 0,
                interval_us: 0,
                lasts_us: 0,
                is_half_closed: false,
            },
            next_message_us: 0,
            ends_at_us: u64::MAX,
            is_hungry: false,
            has_read_all: false,
            is_deaf: false,
        }
    }

    /// Reads, answers, writes. False if the connection is over.
    fn advance(&mut self, scratch: &mut [u8]) -> bool {
        self.is_hungry = false;
        if !self.has_read_all {
            match self.socket.read(scratch) {
                // The end of the client's direction; ours may go on if that was wished.
                Ok(0) => self.has_read_all = true,
                Ok(count) => {
                    self.is_hungry = true;
                    if !self.is_deaf && !self.take(&scratch[..count]) {
                        return false;
                    }
                }
                Err(error) if is_later(&error) => {}
                Err(_) => return false,
            }
        }
        self.make_and_send(now_us())
    }

    fn take(&mut self, bytes: &[u8]) -> bool {
        let mut arrived = Vec::new();
        let result = self.reader.feed(bytes, |event| arrived.push(event));
        let connection = self.reader.connection().unwrap_or_default();
        for event in arrived {
            if let Event::Wish(wish) = event {
                let now = now_us();
                self.wish = wish;
                self.next_message_us = now;
                if wish.lasts_us > 0 {
                    self.ends_at_us = now + wish.lasts_us;
                }
                self.writer = Some(Writer::new(connection, Direction::FromServer));
                continue;
            }
            let Some(writer) = &mut self.writer else {
                return false;
            };
            match event {
                Event::Probe => writer.probe_answer(),
                Event::End if !self.wish.is_half_closed => writer.end(),
                Event::Wish(_)
                | Event::Message { .. }
                | Event::End
                | Event::ProbeAnswer
                | Event::Complaint(_) => {}
            }
        }
        if let Err(wrong) = result {
            let writer = self
                .writer
                .get_or_insert_with(|| Writer::new(connection, Direction::FromServer));
            if !writer.has_ended() {
                writer.complaint(&wrong);
            }
            self.is_deaf = true;
        }
        true
    }

    fn tick(&mut self, now: u64, scratch: &mut [u8]) -> bool {
        if self.is_hungry {
            return self.advance(scratch);
        }
        self.make_and_send(now)
    }

    /// Makes the messages that are due and sends. False if the connection is over.
    fn make_and_send(&mut self, now: u64) -> bool {
        let Some(writer) = &mut self.writer else {
            return !self.has_read_all;
        };
        if now >= self.ends_at_us {
            writer.end();
        }
        for _ in 0..BULK_ROUNDS {
            self.make(now);
            let Some(writer) = &mut self.writer else {
                return true;
            };
            match writer.flush(&mut self.socket) {
                Err(_) => return false,
                Ok(false) => return true,
                Ok(true) if writer.has_ended() => {
                    // All is said. The client closes first where it still may speak, so wait for
                    // its end: closing with unread bytes would reset what we have sent.
                    let _ = self.socket.shutdown(Shutdown::Write);
                    return !self.has_read_all;
                }
                // A client that has gone without an end gets no more.
                Ok(true) if self.has_read_all && !self.reader.has_ended() => return false,
                Ok(true) => {}
            }
        }
        true
    }

    fn make(&mut self, now: u64) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let interval_us = u64::from(self.wish.interval_us);
        while self.wish.message_bytes > 0
            && !writer.has_ended()
            && now >= self.next_message_us
            && writer.backlog() < BACKLOG_BYTES_MAX
        {
            writer.message(self.wish.message_bytes);
            if interval_us > 0 {
                // Messages that could not be made in time are not made up for.
                let next = self.next_message_us + interval_us;
                self.next_message_us = if next > now { next } else { now + interval_us };
            }
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
