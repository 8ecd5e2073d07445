//! A connection to the stream server.

use std::io::{self, Read};
use std::net::Shutdown;

use mio::net::TcpStream;

use super::plan::{Workload, WorkloadKind};
use super::run::{End, Waiting};
use super::tally::Outcome;
use crate::wire::{BACKLOG_BYTES_MAX, Direction, Event, Reader, Wish, Writer};

/// What a slow reader takes at once.
const SLOW_READ_BYTES: usize = 4 << 10;

#[derive(Debug)]
pub(super) struct Stream {
    kind: WorkloadKind,
    interval_us: u64,
    bytes: u32,
    reader: Reader,
    writer: Writer,
    next_due_us: u64,
    /// When it says its end. `u64::MAX`: when it is told to.
    ends_at_us: u64,
    is_hungry: bool,
    is_probing: bool,
    arrived: u64,
}

impl Stream {
    pub(super) fn new(workload: &Workload, connection: u64, now: u64, ends_at_us: u64) -> Self {
        let interval_us = u64::from(workload.interval_ms) * 1_000;
        let mut writer = Writer::new(connection, Direction::FromClient);
        let is_half_closed = workload.kind == WorkloadKind::HalfClosed;
        let server_interval_us = match workload.kind {
            WorkloadKind::Slow => 0,
            _ => u32::try_from(interval_us).unwrap_or(u32::MAX),
        };
        writer.wish(&Wish {
            message_bytes: match workload.kind {
                WorkloadKind::Idle => 0,
                _ => workload.bytes.max(1),
            },
            interval_us: server_interval_us,
            lasts_us: if is_half_closed {
                ends_at_us.saturating_sub(now)
            } else {
                0
            },
            is_half_closed,
        });
        if is_half_closed {
            writer.end();
        }
        Self {
            kind: workload.kind,
            interval_us,
            bytes: workload.bytes.max(1),
            reader: Reader::new(Some(connection), Direction::FromServer),
            writer,
            // Spread, so that not all speak at once.
            next_due_us: now
                + if interval_us > 0 {
                    connection % interval_us
                } else {
                    0
                },
            ends_at_us,
            is_hungry: false,
            is_probing: false,
            arrived: 0,
        }
    }

    pub(super) fn is_mid_message(&self) -> bool {
        self.reader.is_mid_message() || self.writer.backlog() > 0
    }

    /// Ends it at `at_us`, unless it ends before. A half-closed one has nothing left to say it
    /// with.
    pub(super) fn end_at(&mut self, at_us: u64) {
        if self.kind != WorkloadKind::HalfClosed {
            self.ends_at_us = self.ends_at_us.min(at_us);
        }
    }

    /// Takes back an end that has not been said yet.
    pub(super) fn end_never(&mut self) {
        if self.kind != WorkloadKind::HalfClosed {
            self.ends_at_us = u64::MAX;
        }
    }

    pub(super) const fn ends_by_itself(&self) -> bool {
        self.ends_at_us != u64::MAX
    }

    /// Asks the server whether it is there, if the connection is one that does not show it by
    /// itself.
    pub(super) fn probe(&mut self) -> bool {
        if self.kind == WorkloadKind::Idle && !self.writer.has_ended() {
            self.writer.probe();
            self.is_probing = true;
        }
        self.is_probing
    }

    pub(super) const fn is_probing(&self) -> bool {
        self.is_probing
    }

    pub(super) const fn take_arrived(&mut self) -> u64 {
        std::mem::replace(&mut self.arrived, 0)
    }

    /// Whether the server owes something: silence from now on is a stall.
    const fn is_owed(&self) -> bool {
        self.is_probing || self.writer.has_ended() || !matches!(self.kind, WorkloadKind::Idle)
    }

    /// Reads until there is nothing, or enough for a turn.
    pub(super) fn read(
        &mut self,
        socket: &mut TcpStream,
        scratch: &mut [u8],
        now: u64,
        waiting: &mut Waiting,
    ) -> Result<(), End> {
        // A slow reader reads when its time comes; at its end it reads on as fast as it can.
        if self.kind == WorkloadKind::Slow && !self.writer.has_ended() && now < self.next_due_us {
            return Ok(());
        }
        let is_slow = self.kind == WorkloadKind::Slow && !self.writer.has_ended();
        let scratch = if is_slow {
            &mut scratch[..SLOW_READ_BYTES]
        } else {
            scratch
        };
        self.is_hungry = false;
        match socket.read(scratch) {
            Ok(0) if self.reader.has_ended() => Err(End(Outcome::Finished, String::new())),
            Ok(0) => Err(End(
                Outcome::ClosedEarly,
                "closed without an end".to_owned(),
            )),
            Ok(count) => {
                self.is_hungry = true;
                self.take(&scratch[..count], now, waiting)
            }
            Err(error) if is_later(&error) => Ok(()),
            Err(error) => Err(End::of_error(&error)),
        }
    }

    fn take(&mut self, bytes: &[u8], now: u64, waiting: &mut Waiting) -> Result<(), End> {
        let mut is_finished = false;
        let mut complaint = None;
        let is_paced = matches!(self.kind, WorkloadKind::Stream | WorkloadKind::HalfClosed);
        waiting.received(now);
        let is_probing = &mut self.is_probing;
        let arrived = &mut self.arrived;
        let result = self.reader.feed(bytes, |event| match event {
            Event::Message { made_us } => {
                *arrived += 1;
                // How long it was under way. One that was written without pause waited for its
                // turn, not for us.
                if is_paced {
                    waiting.took(now.saturating_sub(made_us));
                }
            }
            Event::ProbeAnswer => *is_probing = false,
            Event::End => is_finished = true,
            Event::Complaint(text) => complaint = Some(text),
            Event::Wish(_) | Event::Probe => {}
        });
        if let Err(wrong) = result {
            return Err(End(Outcome::Corrupted, wrong));
        }
        if let Some(text) = complaint {
            return Err(End(Outcome::Corrupted, format!("the server found: {text}")));
        }
        if is_finished {
            return if self.writer.has_ended() {
                Err(End(Outcome::Finished, String::new()))
            } else {
                Err(End(
                    Outcome::ClosedEarly,
                    "the server ended unasked".to_owned(),
                ))
            };
        }
        Ok(())
    }

    /// Makes what is due, sends it, reads what is left.
    pub(super) fn tick(
        &mut self,
        socket: &mut TcpStream,
        scratch: &mut [u8],
        now: u64,
        waiting: &mut Waiting,
    ) -> Result<(), End> {
        if now >= self.ends_at_us && self.kind != WorkloadKind::HalfClosed {
            self.writer.end();
        }
        let is_due = now >= self.next_due_us;
        let is_slow = self.kind == WorkloadKind::Slow && !self.writer.has_ended();
        if is_due && is_slow || self.is_hungry && !is_slow {
            self.read(socket, scratch, now, waiting)?;
        }
        if is_due {
            if self.kind == WorkloadKind::Stream
                && !self.writer.has_ended()
                && self.writer.backlog() < BACKLOG_BYTES_MAX
            {
                self.writer.message(self.bytes);
            }
            if self.interval_us > 0 {
                let next = self.next_due_us + self.interval_us;
                self.next_due_us = if next > now {
                    next
                } else {
                    now + self.interval_us
                };
            }
        }
        if self.is_owed() {
            waiting.expects(now, self.interval_us);
        } else {
            waiting.expects_nothing();
        }
        self.write(socket)
    }

    pub(super) fn write(&mut self, socket: &mut TcpStream) -> Result<(), End> {
        match self.writer.flush(&mut *socket) {
            Ok(true) if self.kind == WorkloadKind::HalfClosed => {
                match socket.shutdown(Shutdown::Write) {
                    Err(error) if error.kind() != io::ErrorKind::NotConnected => {
                        Err(End::of_error(&error))
                    }
                    _ => Ok(()),
                }
            }
            Ok(_) => Ok(()),
            Err(error) => Err(End::of_error(&error)),
        }
    }
}

pub(super) fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
