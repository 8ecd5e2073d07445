//! The worker process: parses the configuration and the traffic, and has no privileges.
//!
//! The main thread talks to the keeper, holds the configuration and answers questions; one event
//! loop per lane does all else ([`event_loop`]). They exchange messages only when something
//! changes, never for a connection or a request.

use core::net::SocketAddr;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hitless_carry::slots::Slots;
use hitless_carry::vault::Vault;
use hitless_carry::{memory, message, process, twin};
use hitless_types::site::Site;
use rustix::event::{EventfdFlags, PollFd, PollFlags};

use self::change::Counts;
use self::core_of_lane::Core;
use self::event_loop::{Command, EventLoop, Inbox, Outbox, Report};
use self::removed::RemovedMember;
use crate::admin::AdminServer;
use crate::clock::now_us;
use crate::link::{
    self, KEEPER_STATE_LAYOUT, KeeperFacts, KeeperHello, Role, SNAPSHOT_LAYOUT,
    SNAPSHOT_LAYOUT_OLDEST, ToKeeper, ToWorker, WorkerHello,
};
use crate::monitor::{Board, Monitors};
use crate::status::VirtualServerStatus;
use crate::tls::Loaded;

mod accept;
mod adopt;
mod balance;
mod change;
mod config;
#[path = "core.rs"]
mod core_of_lane;
mod event_loop;
mod http;
mod http2;
mod record;
mod removed;
pub(crate) mod report;
pub(crate) mod stats;
mod tables;
mod takeover;
mod tcp;
mod tls;
mod trial;
mod wheel;

#[doc(hidden)]
pub use self::trial::{Fault, ONCE, POISON, Point, Trial};

/// The descriptor on which a worker finds the link to its keeper.
pub const LINK_FD: i32 = 3;

/// Why a worker ended other than by its keeper's word.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("this command is started by a keeper, not by hand")]
    NoKeeper,
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: io::Error,
    },
    #[error("keeper link: {0}")]
    Link(String),
}

/// Runs a worker on the link to its keeper, which it finds at [`LINK_FD`], until the keeper says
/// stop or is gone. Call it first in a process that has no other threads yet: it drops privileges.
pub fn run(build_id: &str) -> Result<(), WorkerError> {
    run_trial(build_id, Trial::default())
}

#[doc(hidden)]
pub fn run_trial(build_id: &str, trial: Trial) -> Result<(), WorkerError> {
    let io = |what| move |source| WorkerError::Io { what, source };
    let link = process::inherited_link(LINK_FD).ok_or(WorkerError::NoKeeper)?;
    process::set_name(c"hitless-worker");
    let descriptors_max = process::set_descriptor_limit(None).map_err(io("descriptor limit"))?;
    let mut buffer = vec![0u8; message::BYTES_MAX];
    let mut fds = Vec::new();
    let received =
        message::receive(&link, &mut buffer, &mut fds, true).map_err(io("keeper link"))?;
    let Ok(ToWorker::Hello(hello)) = ToWorker::decode(&buffer[..received.len]) else {
        return Err(WorkerError::Link(
            "the keeper's hello is of another version".into(),
        ));
    };
    if received.fds_lost || fds.len() != 2 + hello.lanes as usize {
        return Err(WorkerError::Link(
            "descriptors of the hello are missing".into(),
        ));
    }
    process::drop_privileges(hello.user, hello.group).map_err(io("dropping privileges"))?;
    let slots = Slots::map(fds.remove(0)).map_err(io("slot file"))?;
    // While there is one thread. Without a twin, a kill in the microseconds of an accept costs that
    // connection.
    let channel = fds.remove(0);
    let twin = twin::make(&channel)
        .inspect_err(|error| tracing::warn!(%error, "no twin"))
        .ok();
    // Closed here it would be closed for the twin, too.
    let _ = std::os::fd::IntoRawFd::into_raw_fd(channel);
    let mut layouts = (SNAPSHOT_LAYOUT_OLDEST, SNAPSHOT_LAYOUT);
    if let Some(Fault::ReadsLayout(only)) = trial.fault {
        layouts = (only, only);
    }
    let version = hello.version;
    let mut worker = Worker::new(link, hello, slots, fds, trial)?;
    let greeting = ToKeeper::Hello(WorkerHello {
        version,
        writes: SNAPSHOT_LAYOUT,
        reads: layouts,
        keeper_states: (KEEPER_STATE_LAYOUT, KEEPER_STATE_LAYOUT),
        descriptors_max,
        build: build_id.to_owned(),
    });
    worker.tell_with(&greeting, twin.as_ref())?;
    worker.work(&mut buffer)
}

/// The main thread.
struct Worker {
    link: OwnedFd,
    hello: KeeperHello,
    slots: Arc<Slots>,
    board: Board,
    /// `None` until there is a site, and in a successor until it knows what its predecessor knew of
    /// members.
    monitors: Option<Monitors>,
    admin: Option<(SocketAddr, AdminServer)>,
    scrapes: Arc<Scrapes>,
    lanes: Vec<Arc<Inbox>>,
    reports: Receiver<(u32, Report)>,
    wake: Arc<OwnedFd>,
    /// In force.
    site: Option<Arc<Site>>,
    /// Valid, and its addresses are awaited.
    candidate: Option<(Arc<Site>, Arc<Loaded>)>,
    /// `None`: the keeper is of a program that has none.
    vault: Option<Arc<Vault>>,
    /// Valid but for the files that it names, which are awaited; with its text.
    awaiting_files: Option<(Site, Vec<u8>)>,
    /// Virtual servers that a reload has removed.
    earlier: Vec<VirtualServerStatus>,
    /// Members likewise.
    removed_members: Vec<RemovedMember>,
    sockets: Vec<Listening>,
    bound: HashMap<SocketAddr, SocketAddr>,
    /// What is known of members goes to the successor, or comes from the predecessor, on this
    /// socket.
    knowledge: Option<OwnedFd>,
    successor: u32,
    counts: Counts,
    /// Connections that a drain cut, a line each.
    cut: Vec<String>,
}

struct Listening {
    requested: SocketAddr,
    bound: SocketAddr,
    sockets: Vec<OwnedFd>,
}

/// Scrapers that wait in the admin server's threads. The keeper's part of the metrics is asked for
/// each.
struct Scrapes {
    waiting: Mutex<Vec<Scrape>>,
    wake: Arc<OwnedFd>,
}

struct Scrape {
    is_asked: bool,
    text: Sender<String>,
}

/// A scraper waits for at most this long.
const SCRAPE_TIME_MAX: Duration = Duration::from_secs(2);

impl Scrapes {
    fn lock(&self) -> MutexGuard<'_, Vec<Scrape>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scrape(&self) -> String {
        let (text, answer) = channel();
        self.lock().push(Scrape {
            is_asked: false,
            text,
        });
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        answer.recv_timeout(SCRAPE_TIME_MAX).unwrap_or_default()
    }
}

/// The number of a question that a scraper asked; the keeper's own are below it for billions of
/// questions.
const SCRAPE_ID: u32 = u32::MAX;

/// Ends the process if its thread ends: an event loop that panicked leaves connections that only a
/// new worker can serve.
struct EndProcess {
    slots: Arc<Slots>,
    lane: u32,
}

impl Drop for EndProcess {
    fn drop(&mut self) {
        let guilty = &self.slots.lane(self.lane).guilty;
        guilty.store(1, Ordering::Release);
        std::process::abort();
    }
}

impl Worker {
    fn new(
        link: OwnedFd,
        hello: KeeperHello,
        slots: Slots,
        lane_sockets: Vec<OwnedFd>,
        trial: Trial,
    ) -> Result<Self, WorkerError> {
        let io = |what| move |source| WorkerError::Io { what, source };
        let slots = Arc::new(slots);
        let board = Board::in_memory(Arc::clone(&slots));
        let (sender, reports) = channel();
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = rustix::event::eventfd(0, flags).map_err(|errno| errno.into());
        let wake = Arc::new(wake.map_err(io("event descriptor"))?);
        let blamed = match hello.role {
            Role::AfterCrash => adopt::blame(&slots, hello.blames),
            Role::First | Role::Successor => vec![None; hello.lanes as usize],
        };
        let mut lanes = Vec::new();
        for (lane, keeper) in (0u32..).zip(lane_sockets) {
            let outbox = Outbox {
                lane,
                sender: sender.clone(),
                wake: Arc::clone(&wake),
            };
            let shared = Arc::clone(&slots);
            let incarnation = hello.incarnation;
            let make = |registry| {
                let now_us = now_us();
                Core::new(lane, incarnation, shared, registry, keeper, trial, now_us)
            };
            let made = EventLoop::new(make, outbox, board.clone());
            let (mut event_loop, inbox) = made.map_err(io("event loop"))?;
            event_loop.core.blamed = blamed[lane as usize];
            let all = Arc::clone(&slots);
            if hello.role != Role::Successor {
                adopt::reset_gauges(&event_loop.core);
            }
            lanes.push(inbox);
            std::thread::Builder::new()
                .name(format!("lane-{lane}"))
                .spawn(move || {
                    let _end = EndProcess { slots: all, lane };
                    event_loop.run();
                })
                .map_err(io("thread"))?;
        }
        Ok(Self {
            link,
            hello,
            slots,
            board,
            monitors: None,
            admin: None,
            scrapes: Arc::new(Scrapes {
                waiting: Mutex::default(),
                wake: Arc::clone(&wake),
            }),
            lanes,
            reports,
            wake,
            site: None,
            candidate: None,
            vault: None,
            awaiting_files: None,
            earlier: Vec::new(),
            removed_members: Vec::new(),
            sockets: Vec::new(),
            bound: HashMap::new(),
            knowledge: None,
            successor: 0,
            counts: Counts::default(),
            cut: Vec::new(),
        })
    }

    fn work(&mut self, buffer: &mut [u8]) -> Result<(), WorkerError> {
        loop {
            let mut fds = vec![
                PollFd::new(&self.link, PollFlags::IN),
                PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
            ];
            let knows = self.hello.role == Role::Successor && self.successor == 0;
            if let Some(socket) = self.knowledge.as_ref().filter(|_| knows) {
                fds.push(PollFd::new(socket, PollFlags::IN));
            }
            match rustix::event::poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    return Err(WorkerError::Io {
                        what: "poll",
                        source: errno.into(),
                    });
                }
            }
            drop(fds);
            if knows {
                self.learn(buffer);
            }
            let mut count = [0u8; 8];
            let _ = rustix::io::read(&self.wake, &mut count);
            self.ask_for_scrapes()?;
            while let Ok((lane, report)) = self.reports.try_recv() {
                self.on_report(lane, report)?;
            }
            loop {
                let mut fds = Vec::new();
                let received = match message::receive(&self.link, buffer, &mut fds, false) {
                    Ok(received) => received,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(source) => {
                        return Err(WorkerError::Io {
                            what: "keeper link",
                            source,
                        });
                    }
                };
                if received.len == 0 {
                    return Err(WorkerError::Link("the keeper is gone".into()));
                }
                let packet = ToWorker::decode(&buffer[..received.len])
                    .map_err(|error| WorkerError::Link(error.to_string()))?;
                if matches!(packet, ToWorker::Exit) {
                    return Ok(());
                }
                self.on_packet(packet, fds)?;
            }
        }
    }

    fn tell(&self, packet: &ToKeeper) -> Result<(), WorkerError> {
        self.tell_with(packet, None)
    }

    fn tell_with(&self, packet: &ToKeeper, fd: Option<&OwnedFd>) -> Result<(), WorkerError> {
        let fds: Vec<BorrowedFd<'_>> = fd.iter().map(|fd| fd.as_fd()).collect();
        message::send(&self.link, &[&packet.encode()], &fds, true).map_err(|source| {
            WorkerError::Io {
                what: "keeper link",
                source,
            }
        })
    }

    fn on_packet(&mut self, packet: ToWorker, fds: Vec<OwnedFd>) -> Result<(), WorkerError> {
        match packet {
            ToWorker::Config => self.on_config(&fds),
            ToWorker::Files => self.on_files(&fds),
            ToWorker::Vault => {
                self.on_vault(fds);
                Ok(())
            }
            ToWorker::Listen { requested, bound } => {
                self.sockets.push(Listening {
                    requested,
                    bound,
                    sockets: fds,
                });
                Ok(())
            }
            ToWorker::Apply => {
                self.on_apply();
                Ok(())
            }
            ToWorker::Cancel => {
                self.candidate = None;
                self.sockets.clear();
                Ok(())
            }
            ToWorker::TakeFrom | ToWorker::GiveTo { .. } => {
                self.on_takeover(&packet, fds);
                Ok(())
            }
            ToWorker::SuccessorGone { successor } => {
                self.successor = 0;
                self.knowledge = None;
                self.counts = Counts {
                    drained: self.counts.drained,
                    ..Counts::default()
                };
                for lane in &self.lanes {
                    lane.send(Command::SuccessorGone { successor });
                }
                self.hello.predecessor = successor;
                Ok(())
            }
            ToWorker::Drain { within_ms } => {
                let until_us = now_us() + within_ms * 1000;
                for lane in &self.lanes {
                    lane.send(Command::Drain { until_us });
                }
                Ok(())
            }
            ToWorker::Status { id, facts } => self.answer(id, &report::status(self, &facts)),
            ToWorker::Metrics {
                id: SCRAPE_ID,
                facts,
            } => {
                let text = report::metrics(self, &facts);
                for scrape in self.scrapes.lock().extract_if(.., |scrape| scrape.is_asked) {
                    let _ = scrape.text.send(text.clone());
                }
                Ok(())
            }
            ToWorker::Metrics { id, facts } => self.answer(id, &report::metrics(self, &facts)),
            // The flag in the slot file says it; event loops look at it before each accept.
            ToWorker::Pause | ToWorker::Resume => Ok(()),
            ToWorker::Hello(_) | ToWorker::Exit => Ok(()),
        }
    }

    fn on_vault(&mut self, fds: Vec<OwnedFd>) {
        let vault = fds.into_iter().next().map(Vault::map);
        let Some(Ok(vault)) = vault else {
            return tracing::error!("no vault: a crash will cost connections with TLS");
        };
        let vault = Arc::new(vault);
        for lane in &self.lanes {
            lane.send(Command::Vault(Arc::clone(&vault)));
        }
        self.vault = Some(vault);
    }

    fn answer(&self, id: u32, text: &str) -> Result<(), WorkerError> {
        let failed = |source| WorkerError::Io {
            what: "answer",
            source,
        };
        let is_short = text.len() <= link::TEXT_BYTES_MAX;
        // Without a descriptor, an answer arrives at the descriptor limit too. A long one that finds
        // none is lost, which the keeper says.
        let file = match is_short {
            true => None,
            false => memory::from_bytes("hitless-text", text.as_bytes()).ok(),
        };
        let packet = ToKeeper::Text {
            id,
            text: is_short.then(|| text.to_owned()),
        };
        let fds: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        message::send(&self.link, &[&packet.encode()], &fds, true).map_err(failed)
    }

    fn ask_for_scrapes(&self) -> Result<(), WorkerError> {
        let mut has_new = false;
        for scrape in self.scrapes.lock().iter_mut() {
            has_new |= !core::mem::replace(&mut scrape.is_asked, true);
        }
        if has_new {
            self.tell(&ToKeeper::MetricsPlease { id: SCRAPE_ID })
        } else {
            Ok(())
        }
    }
}

/// What a status or metrics document is made of.
struct Sources<'a> {
    site: Option<&'a Site>,
    earlier: &'a [VirtualServerStatus],
    removed_members: &'a [RemovedMember],
    slots: &'a Slots,
    board: &'a Board,
    bound: &'a HashMap<SocketAddr, SocketAddr>,
    hello: &'a KeeperHello,
    facts: &'a KeeperFacts,
}

impl Worker {
    fn sources<'a>(&'a self, facts: &'a KeeperFacts) -> Sources<'a> {
        Sources {
            site: self.site.as_deref(),
            earlier: &self.earlier,
            removed_members: &self.removed_members,
            slots: &self.slots,
            board: &self.board,
            bound: &self.bound,
            hello: &self.hello,
            facts,
        }
    }
}
