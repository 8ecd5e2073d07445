//! The keeper process: holds what must outlive a program, and has no parser.
//!
//! What it does, and when, is the pure machine [`course`]; [`drive`] performs what that decides,
//! [`packets`] reads what workers say, [`death`] deals with their ends. One job (start, reload,
//! upgrade, stop) at a time; further requests wait in order. One thread, one `poll`, no blocking
//! call but process creation and, after a death, a question to the dead worker's twin.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use hitless_carry::signals::Signals;
use hitless_carry::slots::{SLOTS_PER_LANE_MAX, Slots};
use hitless_carry::vault::Vault;
use hitless_carry::{message, process as carry_process};
use rustix::event::{PollFd, PollFlags, Timespec};

use self::clients::{Asked, ClientConnection};
use self::course::{Input, State, Which};
use self::hold::Held;
use self::listeners::Listener;
use self::process::Worker;
use crate::clock::now_us;
use crate::control::{Outcome, Request};
use crate::link::journal::Journal;
use crate::link::{ToKeeper, lane};

pub use self::options::{KeeperError, KeeperOptions};

mod clients;
mod course;
mod death;
mod drive;
mod hold;
mod listeners;
mod options;
mod packets;
mod process;
mod state;

/// Runs a keeper until it is stopped: `Ok` after a drain. Call it in a process that has no other
/// threads yet. SIGHUP reloads, SIGUSR2 upgrades, SIGTERM and SIGINT drain and stop (a second one
/// stops at once).
pub fn run(options: KeeperOptions) -> Result<(), KeeperError> {
    let limit = carry_process::set_descriptor_limit(options.descriptors_max).map_err(|source| {
        KeeperError::Io {
            what: "descriptor limit",
            source,
        }
    })?;
    if let Some((inheritance, bytes)) = state::inherited()? {
        let (mut keeper, who, text) = state::read(options, &inheritance, &bytes)?;
        keeper.descriptors_max = limit;
        keeper.upgraded(who, &text);
        return keeper.work();
    }
    let (lock, control) = clients::open_run_folder(&options.run_folder)?;
    let threads = options.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
        |count| count.get().into(),
    );
    let lanes = threads.clamp(1, hitless_carry::slots::LANES_MAX);
    // A connection costs the keeper at least one descriptor, so there are never more of them than
    // that.
    let per_lane = (limit.min(u64::from(SLOTS_PER_LANE_MAX)) as u32).max(64);
    let slots = Slots::create(lanes, per_lane).map_err(|source| KeeperError::Io {
        what: "slot file",
        source,
    })?;
    let mut keeper = Keeper::new(options, slots, lock, control)?;
    keeper.descriptors_max = limit;
    keeper.config = keeper.read_config()?;
    keeper.start_first()?;
    keeper.work()
}

/// SIGUSR1 stops some programs gently and lets others open their logs anew: here it is for nothing,
/// and must not end the program.
const SIGNALS: [i32; 5] = [
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTERM,
    libc::SIGINT,
];

/// The end of a stop that did not wait, or whose worker did not answer.
const CUT_ALL: &str = "stopped at once: whatever was open is cut\n";

/// Who asked for a job: a client of the control socket, or a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Who(Option<u32>);

struct Keeper {
    options: KeeperOptions,
    signals: Signals,
    lock: OwnedFd,
    control: OwnedFd,
    clients: Vec<ClientConnection>,
    client_ids: u32,
    /// Status and metrics under way: number of the question, client, what it asked.
    asked: HashMap<u32, (u32, Request)>,
    questions: u32,
    queue: VecDeque<(Request, Who)>,
    course: State,
    /// When the course's state has lasted long enough.
    deadline_us: Option<u64>,
    /// Who asked for what is under way; `None`: nobody, or it was answered.
    who: Option<Who>,
    /// What was asked for last, and the number of crashes then.
    request: Option<(Request, u64)>,
    /// What will be answered: the first that was noted.
    verdict: Option<(Outcome, String)>,
    /// Why the first worker cannot serve.
    failure: Option<KeeperError>,
    slots: Slots,
    vault: Vault,
    held: Held,
    listeners: Vec<Listener>,
    /// The configuration that is in force, as bytes.
    config: Vec<u8>,
    /// The one of a reload under way.
    candidate: Vec<u8>,
    /// The files that the configuration in force names, as they were read with it. `None`: it
    /// names none, or they were not read yet.
    files: Option<Rc<OwnedFd>>,
    /// Those of a reload under way.
    candidate_files: Option<Rc<OwnedFd>>,
    /// The worker that serves, or is starting to.
    current: Option<Worker>,
    /// The successor of an upgrade.
    next: Option<Worker>,
    /// The predecessor of an upgrade, told to exit.
    leaving: Option<Worker>,
    /// When workers died lately, for the pause between restarts.
    deaths_us: VecDeque<u64>,
    /// Incarnation of the last worker that died and whose connections wait for a worker.
    dead: u32,
    /// Whether its worker's end was its own doing.
    blames: bool,
    /// Clients that it had accepted and nobody has read a byte of; whether they were looked for.
    fresh: Vec<Rc<OwnedFd>>,
    has_searched: bool,
    /// Connections cut since workers died on them.
    quarantined: u64,
    /// Incarnation of the last successor that died.
    lost_successor: u32,
    is_draining: bool,
    /// Who wants to hear of the end, and what a stop had to cut, once that is known.
    awaiting_end: Vec<Who>,
    farewell: Option<String>,
    descriptors_max: u64,
    started_us: u64,
    restarts: u64,
    upgrades: u64,
    reloads: u64,
    /// Of the last reload; empty if it was applied.
    last_refusal: String,
    journal: Journal,
    /// Set when the keeper shall end.
    end: Option<Result<(), KeeperError>>,
}

impl Keeper {
    fn new(
        options: KeeperOptions,
        slots: Slots,
        lock: OwnedFd,
        control: OwnedFd,
    ) -> Result<Self, KeeperError> {
        let signals = Signals::open(&SIGNALS).map_err(|source| KeeperError::Io {
            what: "signals",
            source,
        })?;
        let vault = Vault::create(slots.lanes(), slots.slots_per_lane());
        let vault = vault.map_err(|source| KeeperError::Io {
            what: "vault",
            source,
        })?;
        Ok(Self {
            options,
            signals,
            lock,
            control,
            clients: Vec::new(),
            client_ids: 0,
            asked: HashMap::new(),
            questions: 0,
            queue: VecDeque::new(),
            course: State::Starting,
            deadline_us: None,
            who: None,
            request: None,
            verdict: None,
            failure: None,
            held: Held::new(slots.lanes()),
            vault,
            slots,
            listeners: Vec::new(),
            config: Vec::new(),
            candidate: Vec::new(),
            files: None,
            candidate_files: None,
            current: None,
            next: None,
            leaving: None,
            deaths_us: VecDeque::new(),
            dead: 0,
            blames: false,
            fresh: Vec::new(),
            has_searched: false,
            quarantined: 0,
            lost_successor: 0,
            is_draining: false,
            awaiting_end: Vec::new(),
            farewell: None,
            descriptors_max: 0,
            started_us: now_us(),
            restarts: 0,
            upgrades: 0,
            reloads: 0,
            last_refusal: String::new(),
            journal: Journal::default(),
            end: None,
        })
    }

    fn read_config(&self) -> Result<Vec<u8>, KeeperError> {
        let path = &self.options.config;
        let fail = |source| KeeperError::Config {
            path: path.clone(),
            source,
        };
        let bytes = crate::site_file::read(path).map_err(fail)?;
        let limit = hitless_types::site::bounds::FILE_BYTES_MAX;
        if bytes.len() > limit {
            let text = format!("larger than {limit} bytes");
            return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, text)));
        }
        Ok(bytes)
    }

    /// The loop of the process.
    fn work(&mut self) -> Result<(), KeeperError> {
        loop {
            if let Some(end) = self.end.take() {
                self.finish();
                return end;
            }
            self.next_request();
            self.wait()?;
            while let Some(signal) = self.signals.next() {
                self.on_signal(signal);
            }
            self.serve_clients();
            self.drain_lanes();
            self.read_links();
            self.collect();
            self.on_time(now_us());
            self.watch_descriptors();
        }
    }

    /// Sleeps until something happens.
    fn wait(&self) -> Result<(), KeeperError> {
        let timeout = self.deadline_us.map(|deadline| {
            let left = deadline.saturating_sub(now_us());
            Timespec {
                tv_sec: (left / 1_000_000) as i64,
                tv_nsec: (left % 1_000_000 * 1000) as i64,
            }
        });
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.control, PollFlags::IN),
        ];
        for client in &self.clients {
            fds.push(PollFd::new(
                &client.socket,
                interest(client.waiting.is_empty()),
            ));
        }
        for worker in [&self.current, &self.next, &self.leaving]
            .into_iter()
            .flatten()
        {
            fds.push(PollFd::new(&worker.process.pidfd, PollFlags::IN));
            if let Some(twin) = &worker.twin.process {
                fds.push(PollFd::new(&twin.pidfd, PollFlags::IN));
            }
            for queue in core::iter::once(&worker.link).chain(&worker.lanes) {
                fds.push(PollFd::new(
                    &queue.socket,
                    interest(queue.waiting.is_empty()),
                ));
            }
        }
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(KeeperError::Io {
                what: "poll",
                source: errno.into(),
            }),
        }
    }

    fn on_signal(&mut self, signal: i32) {
        match signal {
            libc::SIGHUP => self.queue.push_back((Request::Reload, Who(None))),
            libc::SIGUSR2 => self.queue.push_back((Request::Upgrade, Who(None))),
            libc::SIGUSR1 => tracing::warn!(
                "SIGUSR1 means nothing here: SIGTERM drains and stops, SIGHUP reloads, SIGUSR2 upgrades"
            ),
            // A second one does not wait for connections.
            _ if self.course == State::Stopping => self.feed(Input::Late),
            _ => self.queue.push_back((Request::Stop, Who(None))),
        }
    }

    fn serve_clients(&mut self) {
        while self.clients.len() < clients::CLIENTS_MAX {
            match clients::accept(&self.control, self.client_ids) {
                Ok(Some(client)) => {
                    self.client_ids = self.client_ids.wrapping_add(1);
                    self.clients.push(client);
                }
                Ok(None) | Err(_) => break,
            }
        }
        let mut gone = Vec::new();
        let mut requests = Vec::new();
        for client in &mut self.clients {
            client.flush();
            match client.read() {
                Asked::Nothing => {}
                Asked::Gone => gone.push(client.id),
                Asked::Request(request) => requests.push((request, Who(Some(client.id)))),
            }
        }
        self.clients.retain(|client| !gone.contains(&client.id));
        for (request, who) in requests {
            match request {
                Request::Status | Request::Metrics => self.ask(request, who),
                Request::TellToClose | Request::KeepOpen => self.tell_to_close(request, who),
                Request::AwaitEnd if self.is_draining => self.awaiting_end.push(who),
                Request::AwaitEnd => self.reply(who, Outcome::Refused, "it does not stop\n"),
                Request::Reload | Request::Upgrade | Request::Stop => {
                    self.queue.push_back((request, who));
                }
            }
        }
    }

    /// Takes in what event loops registered. A predecessor's lanes come first: what it registered
    /// before it handed a connection over must be known before its successor can release it.
    fn drain_lanes(&mut self) {
        let mut buffer = vec![0u8; message::BYTES_MAX];
        let workers = [&self.leaving, &self.current, &self.next];
        for worker in workers.into_iter().flatten() {
            drain_worker(worker, &mut self.held, &mut buffer);
        }
    }

    fn read_links(&mut self) {
        let mut buffer = vec![0u8; message::BYTES_MAX];
        for which in [Which::Leaving, Which::Current, Which::Next] {
            loop {
                let mut fds = Vec::new();
                let Some(worker) = self.worker(which) else {
                    break;
                };
                worker.flush();
                let received = message::receive(&worker.link.socket, &mut buffer, &mut fds, false);
                let length = match received {
                    Ok(received) if received.len > 0 => received.len,
                    // Its end shows by its pidfd.
                    _ => break,
                };
                match ToKeeper::decode(&buffer[..length]) {
                    Ok(packet) => self.on_packet(which, packet, fds),
                    Err(_) => {
                        tracing::error!("a worker sent what is no packet; it is ended");
                        worker.process.kill();
                        break;
                    }
                }
            }
        }
    }

    /// Notices workers that ended, and twins that ended before them.
    fn collect(&mut self) {
        for which in [Which::Leaving, Which::Next, Which::Current] {
            let Some(worker) = self.worker(which) else {
                continue;
            };
            if let Some(twin) = &worker.twin.process
                && let Ok(Some(ended)) = twin.collect(false)
            {
                let pid = twin.pid;
                worker.twin.process = None;
                tracing::warn!(
                    pid,
                    "the worker's twin ended with {ended}: until `hitless upgrade` brings another, a \
                     client that is just being accepted when the worker dies is lost with it"
                );
            }
            if let Ok(Some(ended)) = worker.process.collect(false) {
                self.on_end(which, ended);
            }
        }
    }

    fn worker(&mut self, which: Which) -> Option<&mut Worker> {
        match which {
            Which::Current => self.current.as_mut(),
            Which::Next => self.next.as_mut(),
            Which::Leaving => self.leaving.as_mut(),
        }
    }

    /// Descriptors in use, as far as they grow with traffic or configuration.
    fn descriptors(&self) -> u64 {
        let workers = [&self.current, &self.next, &self.leaving]
            .into_iter()
            .flatten();
        let of_workers: usize = workers.map(|worker| 2 + worker.lanes.len()).sum();
        let listening: usize = self
            .listeners
            .iter()
            .map(|listener| listener.sockets.len())
            .sum();
        (16 + self.clients.len() + of_workers + listening + self.held.count) as u64
    }

    /// Pauses accepting before the keeper could lose descriptors that event loops send it
    /// meanwhile.
    fn watch_descriptors(&mut self) {
        use core::sync::atomic::Ordering;
        let reserve = 64 + 96 * u64::from(self.slots.lanes());
        let used = self.descriptors();
        let head = self.slots.head();
        // Beyond it there is room for all that event loops can send while the keeper does not run.
        let near = (4 * reserve).max(self.descriptors_max / 8);
        let is_scarce = used + near > self.descriptors_max;
        head.is_scarce.store(is_scarce.into(), Ordering::Relaxed);
        let is_paused = head.paused.load(Ordering::Relaxed) != 0;
        let packet = if !is_paused && used + reserve > self.descriptors_max {
            head.paused.store(1, Ordering::Relaxed);
            head.pauses.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                used,
                limit = self.descriptors_max,
                "near the descriptor limit: accepting pauses"
            );
            crate::link::ToWorker::Pause
        } else if is_paused && used + reserve + reserve / 4 <= self.descriptors_max {
            head.paused.store(0, Ordering::Relaxed);
            tracing::info!(used, "accepting resumes");
            crate::link::ToWorker::Resume
        } else {
            return;
        };
        for worker in [&mut self.current, &mut self.next].into_iter().flatten() {
            if worker.hello.is_some() {
                worker.send(&packet);
            }
        }
    }

    fn reply(&mut self, who: Who, outcome: Outcome, text: &str) {
        let Some(id) = who.0 else { return };
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            client.answer(outcome, text);
        }
    }

    fn finish(&mut self) {
        let farewell = self.farewell.take();
        let text = farewell.as_deref().unwrap_or(CUT_ALL).to_owned();
        if self.is_draining && !text.is_empty() {
            for line in text.lines() {
                tracing::warn!("stop: {}", line.trim());
            }
        }
        for who in core::mem::take(&mut self.awaiting_end) {
            self.reply(who, Outcome::Done, &text);
        }
        for worker in [&mut self.current, &mut self.next, &mut self.leaving]
            .into_iter()
            .flatten()
        {
            worker.process.kill();
            let _ = worker.process.collect(true);
        }
        let _ = std::fs::remove_file(self.options.run_folder.join(crate::control::SOCKET_NAME));
    }
}

fn interest(is_flushed: bool) -> PollFlags {
    if is_flushed {
        PollFlags::IN
    } else {
        PollFlags::IN | PollFlags::OUT
    }
}

/// Takes in all that waits in a worker's lanes, dead or alive.
fn drain_worker(worker: &Worker, held: &mut Held, buffer: &mut [u8]) {
    for (index, lane) in worker.lanes.iter().enumerate() {
        loop {
            let mut fds = Vec::new();
            let received = match message::receive(lane.socket.as_fd(), buffer, &mut fds, false) {
                Ok(received) if received.len > 0 => received,
                _ => break,
            };
            match lane::decode(&buffer[..received.len]) {
                Ok(entries) => held.apply(index, worker.incarnation, &entries, fds),
                Err(_) => {
                    worker.process.kill();
                    break;
                }
            }
        }
    }
}
