//! The clients' loop.

use std::collections::VecDeque;
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
use super::tally::{Failure, Flow, Outcome, Report, Tally};
use crate::wire::now_us;

/// How often what is due is looked for.
const TICK: Duration = Duration::from_millis(10);
/// How often the kernel is asked for retransmissions.
const SAMPLE_US: u64 = 250_000;
/// Samples that are kept: ten minutes.
const SAMPLES: usize = 2_400;
const READ_BYTES: usize = 64 << 10;
/// Failures that a report tells one by one.
const FAILURES_TOLD: usize = 20;
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
    tallies: Vec<Tally>,
    /// How many of each workload shall be open.
    wanted: Vec<u32>,
    /// Which address of the workload is next.
    turn: Vec<usize>,
    /// When the next connection of an `http-new` workload is due.
    next_new_us: Vec<u64>,
    serial: u64,
    last_s: Option<u64>,
    window: String,
    window_began_us: u64,
    started_us: u64,
    failures: Vec<Failure>,
    mid_message_max: u64,
    /// Retransmissions of connections that are gone.
    retransmits_gone: u64,
    /// When, and how many until then.
    samples: VecDeque<(u64, u64)>,
    /// What is answered once it has come true.
    pending: Option<Pending>,
    is_finishing: bool,
}

#[derive(Debug)]
enum Pending {
    /// All connections are established or have failed.
    Established,
    /// Idle connections have answered; nothing is half open.
    Mark { name: String, until_us: u64 },
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
            tallies: Vec::new(),
            wanted: Vec::new(),
            turn: Vec::new(),
            next_new_us: Vec::new(),
            // Connections of different client processes must not have the same numbers.
            serial: u64::from(std::process::id()) << 32,
            last_s: None,
            window: "start".to_owned(),
            window_began_us: now,
            started_us: now,
            failures: Vec::new(),
            mid_message_max: 0,
            retransmits_gone: 0,
            samples: VecDeque::new(),
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
                self.tallies = vec![Tally::default(); count];
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
            Command::Mark { name } => {
                for (_, connection) in &mut self.connections {
                    if let Body::Stream(stream) = &mut connection.body {
                        stream.probe();
                    }
                }
                let until_us = now + self.plan.silence_ms_max * 1_000;
                self.pending = Some(Pending::Mark { name, until_us });
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
        self.tallies[index].connections += 1;
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
                self.fail(index, flow, Outcome::Refused, error.to_string(), now);
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
        let mut mid_message = 0;
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
            mid_message += u64::from(match body {
                Body::Stream(stream) => stream.is_mid_message(),
                Body::Http(http) => http.is_mid_message(),
            });
            match result {
                Err(end) => ended.push((key, end)),
                Ok(()) if waiting.silent_us(now) > silence_us_max => {
                    let text = format!("silent for {} ms", waiting.silent_us(now) / 1_000);
                    ended.push((key, End(Outcome::ClosedEarly, text)));
                }
                Ok(()) => {}
            }
        }
        self.mid_message_max = self.mid_message_max.max(mid_message);
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
        self.retransmits_gone += u64::from(retransmits.unwrap_or(connection.retransmits));
        let index = connection.workload;
        let End(outcome, detail) = end;
        self.note_stall(index, &connection.waiting);
        let workload = &self.plan.workloads[index];
        if outcome == Outcome::Finished || outcome == Outcome::ToldToClose {
            self.tallies[index].count(outcome);
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
            self.fail(index, flow, outcome, detail, now);
        }
        let _ = self.poll.registry().deregister(&mut connection.socket);
    }

    fn note_stall(&mut self, index: usize, waiting: &Waiting) {
        let tally = &mut self.tallies[index];
        tally.stall_ms_max = tally.stall_ms_max.max(waiting.longest_us / 1_000);
    }

    fn fail(&mut self, index: usize, flow: Flow, outcome: Outcome, detail: String, now: u64) {
        self.tallies[index].count(outcome);
        if self.failures.len() < FAILURES_TOLD {
            self.failures.push(Failure {
                workload: self.plan.workloads[index].name.clone(),
                flow,
                outcome,
                detail,
                at_ms: now.saturating_sub(self.window_began_us) / 1_000,
            });
        }
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
            Some(Pending::Mark { name, until_us }) => {
                let is_probing = self.connections.iter().any(|(_, connection)| {
                    matches!(&connection.body, Body::Stream(stream) if stream.is_probing())
                });
                if is_probing && now < *until_us {
                    return Ok(());
                }
                let name = name.clone();
                self.pending = None;
                let report = self.end_window(name, now);
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
                let report = self.end_window("finished".to_owned(), now);
                self.answer(&Answer::Report { report })
            }
            Some(Pending::Established) | None => Ok(()),
        }
    }

    fn end_window(&mut self, next: String, now: u64) -> Report {
        self.sample(now);
        let open: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
        for key in open {
            let connection = &mut self.connections[key];
            let index = connection.workload;
            let waiting = std::mem::take(&mut connection.waiting.longest_us);
            let tally = &mut self.tallies[index];
            tally.stall_ms_max = tally.stall_ms_max.max(waiting / 1_000);
            tally.count(Outcome::Carried);
        }
        let duration_us = now.saturating_sub(self.window_began_us);
        let before_us = duration_us.min(self.window_began_us.saturating_sub(self.started_us));
        let until = |at: u64| {
            let before = self.samples.iter().rev().find(|(when, _)| *when <= at);
            before.map_or(0, |(_, count)| *count)
        };
        let (at_begin, at_end) = (until(self.window_began_us), until(now));
        let before = at_begin.saturating_sub(until(self.window_began_us - before_us));
        let mut report = Report {
            window: std::mem::replace(&mut self.window, next),
            duration_ms: duration_us / 1_000,
            total: Tally::default(),
            workloads: std::collections::BTreeMap::new(),
            http: self
                .plan
                .workloads
                .iter()
                .filter(|workload| workload.kind.is_http())
                .map(|workload| workload.name.clone())
                .collect(),
            retransmits: at_end.saturating_sub(at_begin),
            retransmits_before: before,
            before_ms: before_us / 1_000,
            mid_message_max: std::mem::take(&mut self.mid_message_max),
            failures: std::mem::take(&mut self.failures),
        };
        for (workload, tally) in self.plan.workloads.iter().zip(&mut self.tallies) {
            let tally = std::mem::take(tally);
            report.total += tally;
            *report.workloads.entry(workload.name.clone()).or_default() += tally;
        }
        // The connections that are open are those that the next window begins with.
        for (_, connection) in &self.connections {
            self.tallies[connection.workload].connections += 1;
        }
        self.window_began_us = now;
        report
    }

    fn sample(&mut self, now: u64) {
        let mut total = self.retransmits_gone;
        for (_, connection) in &mut self.connections {
            if let Ok(count) = hitless_net::tcp_retransmits(&connection.socket) {
                connection.retransmits = count;
            }
            total += u64::from(connection.retransmits);
        }
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, total));
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
