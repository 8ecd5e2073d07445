//! The clients' loop.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::http::Http;
use super::plan::{Answer, Command, Plan, Workload, WorkloadKind};
use super::stream::{Stream, is_later};
use super::tally::{Failure, Flow, Outcome, Report};
use super::window::Window;
use crate::wire::now_us;

/// How often what is due is looked for.
const TICK: Duration = Duration::from_millis(10);
/// How often the kernel is asked for retransmissions.
const SAMPLE_US: u64 = 250_000;
const READ_BYTES: usize = 64 << 10;
/// Longest that streams are given to end at [`Command::Finish`].
const FINISH_WITHIN_US: u64 = 30_000_000;
const CONTROL: Token = Token(usize::MAX - 1);

/// How a connection ended.
#[derive(Debug)]
pub(super) struct End(pub Outcome, pub String);

impl End {
    pub(super) fn of_error(error: &io::Error) -> Self {
        let outcome = match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Outcome::Reset,
            // Given up by our own kernel after many retransmissions: the other side is not there.
            _ => Outcome::ClosedEarly,
        };
        Self(outcome, error.to_string())
    }
}

/// How long a connection has waited for what was due.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Since when something has been due. None: nothing is.
    since_us: Option<u64>,
    longest_us: u64,
}

impl Waiting {
    /// Something is due at the latest `after_us` from now, if nothing was due before.
    pub(super) fn expects(&mut self, now: u64, after_us: u64) {
        let since = *self.since_us.get_or_insert(now + after_us);
        self.took(now.saturating_sub(since));
    }

    pub(super) const fn expects_nothing(&mut self) {
        self.since_us = None;
    }

    /// Bytes arrived.
    pub(super) fn received(&mut self, now: u64) {
        if let Some(since) = self.since_us.take() {
            self.took(now.saturating_sub(since));
        }
    }

    /// Something took so long.
    pub(super) fn took(&mut self, us: u64) {
        self.longest_us = self.longest_us.max(us);
    }

    fn silent_us(&self, now: u64) -> u64 {
        self.since_us.map_or(0, |since| now.saturating_sub(since))
    }
}

#[derive(Debug)]
enum Body {
    Stream(Stream),
    Http(Http),
}

impl Body {
    fn is_mid_message(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.is_mid_message(),
            Self::Http(http) => http.is_mid_message(),
        }
    }
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    workload: usize,
    to: SocketAddr,
    opened_us: u64,
    is_established: bool,
    waiting: Waiting,
    /// As last read.
    retransmits: u32,
    body: Body,
}

/// Runs until `control` ends, as [`super`] says.
pub fn run(control: impl Read + AsFd, answers: impl Write) -> io::Result<()> {
    Clients::new(answers)?.run(control)
}

struct Clients<W> {
    answers: W,
    poll: Poll,
    connections: Slab<Connection>,
    plan: Plan,
    window: Window,
    /// How many of each workload shall be open.
    wanted: Vec<u32>,
    /// Which address of the workload is next.
    turn: Vec<usize>,
    /// When the next connection of an `http-new` workload is due.
    next_new_us: Vec<u64>,
    serial: u64,
    last_s: Option<u64>,
    /// What is answered once it has come true.
    pending: Option<Pending>,
    is_finishing: bool,
}

#[derive(Debug)]
enum Pending {
    /// All connections are established or have failed.
    Established,
    /// Idle connections have answered; nothing is half open.
    Mark {
        name: String,
        is_steady: bool,
        asked_us: u64,
    },
    /// All connections have ended.
    Finish { until_us: u64 },
}

impl<W: Write> Clients<W> {
    fn new(answers: W) -> io::Result<Self> {
        let now = now_us();
        Ok(Self {
            answers,
            poll: Poll::new()?,
            connections: Slab::new(),
            plan: Plan {
                workloads: Vec::new(),
                silence_ms_max: 0,
                connect_ms_max: 0,
            },
            window: Window::begin(now),
            wanted: Vec::new(),
            turn: Vec::new(),
            next_new_us: Vec::new(),
            // Connections of different client processes must not have the same numbers.
            serial: u64::from(std::process::id()) << 32,
            last_s: None,
            pending: None,
            is_finishing: false,
        })
    }

    fn run(mut self, mut control: impl Read + AsFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&control, true)?;
        self.poll.registry().register(
            &mut SourceFd(&control.as_fd().as_raw_fd()),
            CONTROL,
            Interest::READABLE,
        )?;
        let mut events = Events::with_capacity(1_024);
        let mut scratch = vec![0; READ_BYTES];
        let mut lines: Vec<u8> = Vec::new();
        let mut next_tick_us = 0;
        let mut next_sample_us = 0;
        loop {
            match self.poll.poll(&mut events, Some(TICK)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                if event.token() == CONTROL {
                    if !self.hear(&mut control, &mut lines)? {
                        return Ok(());
                    }
                } else {
                    self.advance(event.token().0, &mut scratch);
                }
            }
            let now = now_us();
            if now >= next_tick_us {
                next_tick_us = now + TICK.as_micros() as u64;
                self.tick(now, &mut scratch);
                self.settle_pending(now)?;
            }
            if now >= next_sample_us {
                next_sample_us = now + SAMPLE_US;
                self.sample(now);
            }
        }
    }

    /// Reads commands. False when there will be no more.
    fn hear(&mut self, control: &mut impl Read, lines: &mut Vec<u8>) -> io::Result<bool> {
        let mut buffer = [0; 4_096];
        loop {
            match control.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => lines.extend_from_slice(&buffer[..count]),
                Err(error) if is_later(&error) => break,
                Err(error) => return Err(error),
            }
        }
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = lines.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(command) => self.obey(command)?,
                Err(error) => self.answer(&Answer::Refused {
                    reason: error.to_string(),
                })?,
            }
        }
        Ok(true)
    }

    fn obey(&mut self, command: Command) -> io::Result<()> {
        let now = now_us();
        match command {
            Command::Start { plan } => {
                if let Some(bad) = plan
                    .workloads
                    .iter()
                    .find(|workload| workload.to.is_empty())
                {
                    let reason = format!("workload {} has no address to go to", bad.name);
                    return self.answer(&Answer::Refused { reason });
                }
                let count = plan.workloads.len();
                self.window.prepare(count);
                self.wanted = plan
                    .workloads
                    .iter()
                    .map(|workload| workload.count)
                    .collect();
                self.turn = vec![0; count];
                self.next_new_us = vec![now; count];
                self.plan = plan;
                self.open_missing(now);
                self.pending = Some(Pending::Established);
            }
            Command::Refill => {
                self.open_missing(now);
                self.pending = Some(Pending::Established);
            }
            Command::Mark { name, is_steady } => {
                for (_, connection) in &mut self.connections {
                    if let Body::Stream(stream) = &mut connection.body {
                        stream.probe();
                    }
                }
                self.pending = Some(Pending::Mark {
                    name,
                    is_steady,
                    asked_us: now,
                });
            }
            Command::Last { seconds } => {
                self.last_s = seconds;
                self.limit_streams(now);
                self.answer_open()?;
            }
            Command::Flows => {
                let flows = self
                    .connections
                    .iter()
                    .filter(|(_, connection)| connection.is_established)
                    .filter_map(|(_, connection)| connection.flow())
                    .collect();
                self.answer(&Answer::Flows { flows })?;
            }
            Command::Finish => {
                self.is_finishing = true;
                for (_, connection) in &mut self.connections {
                    match &mut connection.body {
                        Body::Stream(stream) => stream.end_at(now),
                        Body::Http(http) => http.end(),
                    }
                }
                self.pending = Some(Pending::Finish {
                    until_us: now + FINISH_WITHIN_US,
                });
            }
        }
        Ok(())
    }

    fn limit_streams(&mut self, now: u64) {
        for (key, connection) in &mut self.connections {
            let workload = &self.plan.workloads[connection.workload];
            let Body::Stream(stream) = &mut connection.body else {
                continue;
            };
            if workload.lasts_s.is_some() {
                continue;
            }
            match self.last_s {
                Some(seconds) => stream.end_at(now + spread(key as u64, seconds)),
                None => stream.end_never(),
            }
        }
    }

    fn open_missing(&mut self, now: u64) {
        let mut missing = self.wanted.clone();
        for (_, connection) in &self.connections {
            missing[connection.workload] = missing[connection.workload].saturating_sub(1);
        }
        for (index, count) in missing.into_iter().enumerate() {
            if self.plan.workloads[index].kind != WorkloadKind::HttpNew {
                for _ in 0..count {
                    self.open(index, now);
                }
            }
        }
    }

    fn open(&mut self, index: usize, now: u64) {
        let workload = &self.plan.workloads[index];
        let to = workload.to[self.turn[index] % workload.to.len()];
        self.turn[index] += 1;
        self.serial += 1;
        self.window.opened(index);
        let body = match workload.kind {
            kind if kind.is_http() => Body::Http(Http::new(workload, self.serial, now)),
            _ => Body::Stream(Stream::new(
                workload,
                self.serial,
                now,
                ends_at(workload, self.serial, now, self.last_s),
            )),
        };
        let entry = self.connections.vacant_entry();
        let token = Token(entry.key());
        let opened = TcpStream::connect(to).and_then(|mut socket| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut socket, token, interest)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => {
                entry.insert(Connection {
                    socket,
                    workload: index,
                    to,
                    opened_us: now,
                    is_established: false,
                    waiting: Waiting::default(),
                    retransmits: 0,
                    body,
                });
            }
            Err(error) => {
                let flow = Flow {
                    from: unknown(to),
                    to,
                };
                let end = End(Outcome::Refused, error.to_string());
                self.fail(index, flow, end, false, now);
            }
        }
    }

    /// Something happened on a connection.
    fn advance(&mut self, key: usize, scratch: &mut [u8]) {
        let now = now_us();
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let result = connection.establish(now).and_then(|is_established| {
            if !is_established {
                return Ok(());
            }
            let Connection {
                socket,
                waiting,
                body,
                ..
            } = connection;
            match body {
                Body::Stream(stream) => {
                    stream.write(socket)?;
                    stream.read(socket, scratch, now, waiting)
                }
                Body::Http(http) => {
                    // Written first, so that a request that cannot go out does not hide an answer
                    // that is there.
                    let written = http.write(socket);
                    http.read(socket, scratch, now, waiting)?;
                    written
                }
            }
        });
        if let Err(end) = result {
            self.close(key, end, now);
        }
    }

    fn tick(&mut self, now: u64, scratch: &mut [u8]) {
        let mut ended = Vec::new();
        let (mut mid_message, mut mid_answer) = (0, 0);
        let connect_us_max = self.plan.connect_ms_max * 1_000;
        let silence_us_max = self.plan.silence_ms_max * 1_000;
        for (key, connection) in &mut self.connections {
            if !connection.is_established {
                if now.saturating_sub(connection.opened_us) > connect_us_max {
                    let text = "not established in time".to_owned();
                    ended.push((key, End(Outcome::Refused, text)));
                }
                continue;
            }
            let Connection {
                socket,
                waiting,
                body,
                ..
            } = connection;
            let result = match body {
                Body::Stream(stream) => stream.tick(socket, scratch, now, waiting),
                Body::Http(http) => http.tick(socket, now, waiting),
            };
            let count = u64::from(body.is_mid_message());
            mid_message += count;
            mid_answer += if matches!(body, Body::Http(_)) {
                count
            } else {
                0
            };
            match result {
                Err(end) => ended.push((key, end)),
                Ok(()) if waiting.silent_us(now) > silence_us_max => {
                    let text = format!("silent for {} ms", waiting.silent_us(now) / 1_000);
                    ended.push((key, End(Outcome::ClosedEarly, text)));
                }
                Ok(()) => {}
            }
        }
        self.window.looked(mid_message, mid_answer);
        for (key, end) in ended {
            self.close(key, end, now);
        }
        if self.is_finishing {
            return;
        }
        for index in 0..self.plan.workloads.len() {
            let workload = &self.plan.workloads[index];
            if workload.kind != WorkloadKind::HttpNew || workload.count == 0 {
                continue;
            }
            let interval_us = 1_000_000 / u64::from(workload.count);
            // No more than a tick's worth at once, so that a pause is not followed by a flood.
            for _ in 0..1 + TICK.as_micros() as u64 / interval_us.max(1) {
                if now < self.next_new_us[index] {
                    break;
                }
                self.next_new_us[index] += interval_us;
                self.open(index, now);
            }
            self.next_new_us[index] = self.next_new_us[index].max(now.saturating_sub(interval_us));
        }
    }

    fn close(&mut self, key: usize, end: End, now: u64) {
        let Some(mut connection) = self.connections.try_remove(key) else {
            return;
        };
        let retransmits = hitless_net::tcp_retransmits(&connection.socket);
        let retransmits = retransmits.unwrap_or(connection.retransmits);
        self.window.resent_gone(u64::from(retransmits));
        let index = connection.workload;
        let outcome = end.0;
        self.window.stalled(index, connection.waiting.longest_us);
        self.window.arrived(connection.take_arrived());
        let workload = &self.plan.workloads[index];
        if outcome == Outcome::Finished || outcome == Outcome::ToldToClose {
            self.window.ended(index, outcome);
            let follows = match &connection.body {
                Body::Stream(stream) => {
                    stream.ends_by_itself() && workload.kind != WorkloadKind::HttpNew
                }
                Body::Http(_) => false,
            };
            if follows && !self.is_finishing {
                self.open(index, now);
            }
        } else {
            let flow = connection.flow().unwrap_or(Flow {
                from: unknown(connection.to),
                to: connection.to,
            });
            self.fail(index, flow, end, connection.is_mid_message(), now);
        }
        let _ = self.poll.registry().deregister(&mut connection.socket);
    }

    fn fail(&mut self, index: usize, flow: Flow, end: End, is_mid_message: bool, now: u64) {
        let End(outcome, detail) = end;
        let failure = Failure {
            workload: self.plan.workloads[index].name.clone(),
            flow,
            outcome,
            detail,
            is_mid_message,
            at_ms: 0,
        };
        self.window.failed(index, failure, now);
    }

    /// Answers what has come true meanwhile.
    fn settle_pending(&mut self, now: u64) -> io::Result<()> {
        let is_half_open = self
            .connections
            .iter()
            .any(|(_, connection)| !connection.is_established);
        match &self.pending {
            Some(Pending::Established) if !is_half_open => {
                self.pending = None;
                self.answer_open()
            }
            Some(Pending::Mark {
                name,
                is_steady,
                asked_us,
            }) => {
                // Opened later, it is the next window's that it comes to something.
                let is_in_doubt = |connection: &Connection| {
                    connection.is_probing()
                        || !connection.is_established && connection.opened_us <= *asked_us
                };
                let (name, is_steady) = (name.clone(), *is_steady);
                let patience_ms = self.plan.silence_ms_max.max(self.plan.connect_ms_max);
                let is_late = now >= asked_us + patience_ms * 1_000;
                let in_doubt: Vec<usize> = self
                    .connections
                    .iter()
                    .filter(|(_, connection)| is_in_doubt(connection))
                    .map(|(key, _)| key)
                    .collect();
                if !in_doubt.is_empty() && !is_late {
                    return Ok(());
                }
                for key in in_doubt {
                    let (outcome, text) = match self.connections[key].is_established {
                        true => (Outcome::ClosedEarly, "a probe was not answered"),
                        false => (Outcome::Refused, "not established in time"),
                    };
                    self.close(key, End(outcome, text.to_owned()), now);
                }
                self.pending = None;
                let report = Box::new(self.end_window(name, is_steady, now));
                self.answer(&Answer::Report { report })
            }
            Some(Pending::Finish { until_us }) => {
                if !self.connections.is_empty() {
                    if now < *until_us {
                        return Ok(());
                    }
                    let left: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
                    for key in left {
                        let text = "did not end when asked to".to_owned();
                        self.close(key, End(Outcome::ClosedEarly, text), now);
                    }
                }
                self.pending = None;
                let report = Box::new(self.end_window("finished".to_owned(), false, now));
                self.answer(&Answer::Report { report })
            }
            Some(Pending::Established) | None => Ok(()),
        }
    }

    fn end_window(&mut self, next: String, is_steady: bool, now: u64) -> Report {
        self.sample(now);
        let mut open = vec![0; self.plan.workloads.len()];
        for (_, connection) in &mut self.connections {
            open[connection.workload] += 1;
            let longest_us = std::mem::take(&mut connection.waiting.longest_us);
            self.window.stalled(connection.workload, longest_us);
            self.window.arrived(connection.take_arrived());
        }
        self.window.end(next, is_steady, &self.plan, &open, now)
    }

    fn sample(&mut self, now: u64) {
        let mut total = 0;
        for (_, connection) in &mut self.connections {
            if let Ok(count) = hitless_net::tcp_retransmits(&connection.socket) {
                connection.retransmits = count;
            }
            total += u64::from(connection.retransmits);
        }
        self.window.resent_living(total, now);
    }

    fn answer_open(&mut self) -> io::Result<()> {
        self.answer(&Answer::Open {
            connections: self.connections.len() as u64,
        })
    }

    fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        self.answers.write_all(&line)?;
        self.answers.flush()
    }
}

impl Connection {
    /// Whether the handshake is done; a failed one is the connection's end.
    fn establish(&mut self, now: u64) -> Result<bool, End> {
        if self.is_established {
            return Ok(true);
        }
        let refused = |error: io::Error| End(Outcome::Refused, error.to_string());
        if let Some(error) = self.socket.take_error().map_err(refused)? {
            return Err(refused(error));
        }
        match self.socket.peer_addr() {
            Ok(_) => {
                let _ = self.socket.set_nodelay(true);
                self.is_established = true;
                self.waiting.took(now.saturating_sub(self.opened_us));
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(refused(error)),
        }
    }

    fn is_mid_message(&self) -> bool {
        self.body.is_mid_message()
    }

    fn is_probing(&self) -> bool {
        matches!(&self.body, Body::Stream(stream) if stream.is_probing())
    }

    /// Messages and answers that arrived since this was asked last.
    fn take_arrived(&mut self) -> u64 {
        match &mut self.body {
            Body::Stream(stream) => stream.take_arrived(),
            Body::Http(http) => http.take_arrived(),
        }
    }

    fn flow(&self) -> Option<Flow> {
        let from = self.socket.local_addr().ok()?;
        Some(Flow { from, to: self.to })
    }
}

/// When a new stream ends: after its workload's time, or the time that all have now; spread over
/// the second half of it, so that not all end at once.
fn ends_at(workload: &Workload, serial: u64, now: u64, last_s: Option<u64>) -> u64 {
    let limit = match (workload.lasts_s, last_s) {
        (Some(own), Some(all)) => Some(own.min(all)),
        (own, all) => own.or(all),
    };
    match limit {
        Some(seconds) => now + spread(serial, seconds),
        // The server of a half-closed stream must know when to end.
        None if workload.kind == WorkloadKind::HalfClosed => now + spread(serial, 20),
        None => u64::MAX,
    }
}

fn spread(number: u64, seconds: u64) -> u64 {
    let half_us = seconds * 500_000;
    half_us + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % half_us.max(1)
}

const fn unknown(to: SocketAddr) -> SocketAddr {
    match to {
        SocketAddr::V4(_) => {
            SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0)
        }
        SocketAddr::V6(_) => {
            SocketAddr::new(std::net::IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), 0)
        }
    }
}
