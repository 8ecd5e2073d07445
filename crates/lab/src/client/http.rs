//! A connection to an HTTP server whose objects are pieces of the pattern: `/16384` has so many
//! bytes of it.

use std::io::Read;

use mio::net::TcpStream;

use super::plan::{Workload, WorkloadKind};
use super::run::{End, Waiting};
use super::stream::is_later;
use super::tally::Outcome;
use crate::wire::first_difference;

/// Seed of the pattern that objects have.
pub(crate) const OBJECT_SEED: u64 = 0;
/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Http {
    is_kept_alive: bool,
    interval_us: u64,
    bytes: u32,
    next_due_us: u64,
    unsent: Vec<u8>,
    state: State,
    is_told_to_close: bool,
    is_ending: bool,
    requested_us: u64,
    arrived: u64,
}

#[derive(Debug)]
enum State {
    Idle,
    Head(Vec<u8>),
    Body { offset: u64, left: u64 },
}

impl Http {
    pub(super) fn new(workload: &Workload, number: u64, now: u64) -> Self {
        let interval_us = u64::from(workload.interval_ms) * 1_000;
        let is_kept_alive = workload.kind == WorkloadKind::HttpKeepAlive;
        let spread = if is_kept_alive && interval_us > 0 {
            number % interval_us
        } else {
            0
        };
        Self {
            is_kept_alive,
            interval_us,
            bytes: workload.bytes,
            next_due_us: now + spread,
            unsent: Vec::new(),
            state: State::Idle,
            is_told_to_close: false,
            is_ending: false,
            requested_us: 0,
            arrived: 0,
        }
    }

    pub(super) const fn is_mid_message(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    pub(super) const fn take_arrived(&mut self) -> u64 {
        std::mem::replace(&mut self.arrived, 0)
    }

    /// No request after the one that is under way.
    pub(super) const fn end(&mut self) {
        self.is_ending = true;
    }

    pub(super) fn tick(
        &mut self,
        socket: &mut TcpStream,
        now: u64,
        waiting: &mut Waiting,
    ) -> Result<(), End> {
        if matches!(self.state, State::Idle) {
            waiting.expects_nothing();
            if self.is_ending {
                return Err(End(Outcome::Finished, String::new()));
            }
            if now >= self.next_due_us && !self.is_told_to_close {
                let connection = if self.is_kept_alive {
                    "keep-alive"
                } else {
                    "close"
                };
                self.unsent = format!(
                    "GET /{} HTTP/1.1\r\nHost: lab\r\nConnection: {connection}\r\n\r\n",
                    self.bytes
                )
                .into_bytes();
                self.state = State::Head(Vec::new());
                self.requested_us = now;
                let next = self.next_due_us + self.interval_us;
                self.next_due_us = if next > now {
                    next
                } else {
                    now + self.interval_us
                };
            }
        }
        if !matches!(self.state, State::Idle) {
            waiting.expects(now, 0);
        }
        self.write(socket)
    }

    pub(super) fn write(&mut self, socket: &mut TcpStream) -> Result<(), End> {
        use std::io::Write;

        while !self.unsent.is_empty() {
            match socket.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return Err(End::of_error(&error)),
            }
        }
        Ok(())
    }

    pub(super) fn read(
        &mut self,
        socket: &mut TcpStream,
        scratch: &mut [u8],
        now: u64,
        waiting: &mut Waiting,
    ) -> Result<(), End> {
        loop {
            match socket.read(scratch) {
                Ok(0) if self.is_told_to_close && !self.is_mid_message() => {
                    return Err(End(Outcome::ToldToClose, String::new()));
                }
                Ok(0) => {
                    let what = if self.is_mid_message() {
                        "inside an answer"
                    } else {
                        "while idle"
                    };
                    return Err(End(Outcome::ClosedEarly, format!("closed {what}")));
                }
                Ok(count) => {
                    waiting.received(now);
                    self.take(&scratch[..count], now, waiting)?;
                }
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return Err(End::of_error(&error)),
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8], now: u64, waiting: &mut Waiting) -> Result<(), End> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Idle => {
                    return Err(End(
                        Outcome::Corrupted,
                        format!("{} bytes that nobody asked for", bytes.len()),
                    ));
                }
                State::Head(head) => {
                    let before = head.len();
                    head.extend_from_slice(bytes);
                    let Some(parsed) = parse(head)? else {
                        return Ok(());
                    };
                    let from = parsed.head_bytes - before;
                    bytes = &bytes[from..];
                    if parsed.status != 200 {
                        return Err(End(
                            Outcome::Refused,
                            format!("answered by status {}", parsed.status),
                        ));
                    }
                    if parsed.body_bytes != u64::from(self.bytes) {
                        return Err(End(
                            Outcome::Corrupted,
                            format!("{} bytes instead of {}", parsed.body_bytes, self.bytes),
                        ));
                    }
                    self.is_told_to_close |= parsed.closes && self.is_kept_alive;
                    self.state = State::Body {
                        offset: 0,
                        left: parsed.body_bytes,
                    };
                }
                State::Body { offset, left } => {
                    let count = (*left).min(bytes.len() as u64) as usize;
                    if let Some(at) = first_difference(&bytes[..count], OBJECT_SEED, *offset) {
                        return Err(End(
                            Outcome::Corrupted,
                            format!("the byte at {at} of the answer is wrong"),
                        ));
                    }
                    *offset += count as u64;
                    *left -= count as u64;
                    bytes = &bytes[count..];
                }
            }
            if matches!(self.state, State::Body { left: 0, .. }) {
                self.state = State::Idle;
                self.arrived += 1;
                waiting.took(now.saturating_sub(self.requested_us));
                if !self.is_kept_alive {
                    return Err(End(Outcome::Finished, String::new()));
                }
            }
        }
        Ok(())
    }
}

struct Head {
    head_bytes: usize,
    status: u16,
    body_bytes: u64,
    closes: bool,
}

fn parse(bytes: &[u8]) -> Result<Option<Head>, End> {
    let corrupted = |text: String| Err(End(Outcome::Corrupted, text));
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if bytes.len() > HEAD_BYTES_MAX => {
            return corrupted("an answer's head that does not end".to_owned());
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return corrupted(format!("no answer of HTTP: {error}")),
    };
    let mut body_bytes = None;
    let mut closes = false;
    for header in response.headers.iter() {
        let value = String::from_utf8_lossy(header.value);
        if header.name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.trim().parse().ok();
        } else if header.name.eq_ignore_ascii_case("connection") {
            closes |= value.to_ascii_lowercase().contains("close");
        }
    }
    let status = response.code.unwrap_or_default();
    let body_bytes = match body_bytes {
        Some(body_bytes) => body_bytes,
        // Refused anyway; its body does not matter.
        None if status != 200 => 0,
        None => return corrupted("an answer without its length".to_owned()),
    };
    Ok(Some(Head {
        head_bytes,
        status,
        body_bytes,
        closes,
    }))
}
