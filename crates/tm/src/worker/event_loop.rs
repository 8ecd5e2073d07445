//! One event loop: a thread that owns its connections from accept to end, and shares nothing on
//! their path.
//!
//! ```text
//! Waiting ─ the keeper's End, or a predecessor's ─► Serving ─ Give ─► Giving ─ Commit ─► Given
//!                                                          ▲ │                └─ successor gone ──┐
//!                                                          │ └ Drain ─► Draining ─► Drained       │
//!                                                          └──────────────────────────────────────┘
//! ```

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use hitless_carry::message;
use hitless_carry::vault::Vault;
use hitless_types::site::Site;
use mio::{Events, Poll, Token, Waker};
use slab::Slab;

use super::core_of_lane::{Core, Source};
use super::http::{self, Http, Room};
use super::http2;
use super::takeover::{Giving, Taking};
use super::tcp::{self, CLIENT, MEMBER, Pair};
use super::tls::{self, Greeting};
use crate::clock::now_us;
use crate::monitor::Board;
use crate::tls::Loaded;

/// What the worker's main thread tells an event loop.
pub(super) enum Command {
    Apply {
        site: Arc<Site>,
        tls: Arc<Loaded>,
        listeners: Vec<(SocketAddr, OwnedFd)>,
    },
    Vault(Arc<Vault>),
    Give {
        peer: OwnedFd,
    },
    Take {
        peer: OwnedFd,
    },
    /// Every lane is prepared.
    Commit,
    SuccessorGone {
        successor: u32,
    },
    Drain {
        until_us: u64,
    },
}

/// What an event loop tells the main thread.
#[derive(Debug)]
pub(super) enum Report {
    Applied,
    /// The successor has acknowledged all of this lane.
    Prepared,
    Given,
    Taken,
    /// The takeover cannot go on.
    Failed(String),
    /// Everything unacknowledged was taken back.
    TookBack,
    /// The predecessor died while it gave: what it still owned is wanted from the keeper.
    PredecessorGone,
    /// What a dead worker left was looked at, and goes on or is lost.
    Adopted,
    /// What had to be cut, a line each.
    Drained {
        cut: Vec<String>,
    },
    /// A connection was cut since workers die on it; what is known of it, as JSON.
    Quarantined {
        text: String,
        known: String,
    },
}

/// The way into an event loop.
pub(super) struct Inbox {
    queue: Mutex<VecDeque<Command>>,
    waker: Waker,
}

impl Inbox {
    pub(super) fn send(&self, command: Command) {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(command);
        let _ = self.waker.wake();
    }

    fn take(&self) -> VecDeque<Command> {
        core::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The way out of it.
#[derive(Clone)]
pub(super) struct Outbox {
    pub(super) lane: u32,
    pub(super) sender: Sender<(u32, Report)>,
    pub(super) wake: Arc<OwnedFd>,
}

impl Outbox {
    pub(super) fn send(&self, report: Report) {
        let _ = self.sender.send((self.lane, report));
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

pub(super) struct EventLoop {
    pub(super) core: Core,
    pub(super) room: Room,
    pub(super) pairs: Slab<Pair>,
    pub(super) http: Http,
    /// TLS handshakes of clients.
    pub(super) greetings: Slab<Greeting>,
    pub(super) outbox: Outbox,
    pub(super) board: Board,
    pub(super) giving: Option<Giving>,
    pub(super) taking: Option<Taking>,
    pub(super) is_accepting: bool,
    /// Clients that a worker before had accepted, and nothing else.
    pub(super) fresh: Vec<OwnedFd>,
    /// Pipes that came from the keeper and whose connection follows.
    pub(super) orphan_pipes: HashMap<u32, (OwnedFd, OwnedFd)>,
    /// When a reason for not accepting is looked at again.
    pub(super) accept_again_us: Option<u64>,
    drain_until_us: Option<u64>,
    has_drained: bool,
    /// Connections that a drain cut.
    cut: Vec<String>,
    poll: Poll,
    inbox: Arc<Inbox>,
}

impl EventLoop {
    pub(super) fn new(
        make_core: impl FnOnce(mio::Registry) -> Core,
        outbox: Outbox,
        board: Board,
    ) -> std::io::Result<(Self, Arc<Inbox>)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), Source::Inbox.token())?;
        let inbox = Arc::new(Inbox {
            queue: Mutex::default(),
            waker,
        });
        let core = make_core(poll.registry().try_clone()?);
        core.watch_keeper()?;
        let this = Self {
            core,
            room: Room {
                scratch: vec![0; http::SCRATCH_BYTES],
                work: Default::default(),
                http2: Default::default(),
            },
            pairs: Slab::new(),
            http: Http::default(),
            greetings: Slab::new(),
            outbox,
            board,
            giving: None,
            taking: None,
            is_accepting: false,
            fresh: Vec::new(),
            orphan_pipes: HashMap::new(),
            accept_again_us: None,
            drain_until_us: None,
            has_drained: false,
            cut: Vec::new(),
            poll,
            inbox: Arc::clone(&inbox),
        };
        Ok((this, inbox))
    }

    /// Runs until the process ends.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut due = Vec::new();
        loop {
            let timeout = self.sleep_us().map(Duration::from_micros);
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => panic!("the event loop cannot wait: {error}"),
            }
            self.core.now_us = now_us();
            http::refresh_date(&mut self.core);
            for event in &events {
                self.on_event(event);
            }
            for token in core::mem::take(&mut self.core.again) {
                self.on_again(token);
            }
            self.core.wheel.due(self.core.now_us, &mut due);
            for token in due.drain(..) {
                self.on_timer(token);
            }
            http2::flush_trunks(&mut self.core, &mut self.http);
            for switched in core::mem::take(&mut self.http.switched) {
                tcp::take_switched(&mut self.core, &mut self.pairs, switched);
            }
            self.on_turn();
            self.core.flush_entries();
        }
    }

    fn sleep_us(&self) -> Option<u64> {
        if !self.core.again.is_empty() || self.giving.as_ref().is_some_and(Giving::has_room) {
            return Some(0);
        }
        let now_us = now_us();
        let until = |at: u64| at.saturating_sub(now_us);
        [
            self.core.wheel.sleep_us(now_us),
            self.accept_again_us.map(until),
            self.drain_until_us.map(until),
            self.giving
                .as_ref()
                .and_then(Giving::deadline_us)
                .map(until),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn on_event(&mut self, event: &mio::event::Event) {
        let Self {
            core,
            room,
            pairs,
            http,
            ..
        } = self;
        match Source::of(event.token()) {
            Source::TcpClient(index) => tcp::on_event(core, pairs, index, CLIENT, event),
            Source::TcpMember(index) => tcp::on_event(core, pairs, index, MEMBER, event),
            Source::HttpClient(index) => http::on_client(core, room, http, index, event),
            Source::HttpMember(index) => http::on_member(core, room, http, index, event),
            Source::Front(index) => http2::on_front(core, room, http, index, event),
            Source::Trunk(index) => http2::on_trunk(core, room, http, index, event),
            Source::Greeting(index) => tls::on_greeting(self, index, event),
            Source::Listener(server) => self.accept(server),
            Source::Inbox => self.on_commands(),
            Source::Keeper => self.on_keeper(),
            Source::Takeover => self.on_takeover(),
        }
    }

    fn on_again(&mut self, token: Token) {
        let Self {
            core,
            room,
            pairs,
            http,
            ..
        } = self;
        match Source::of(token) {
            Source::TcpClient(index) | Source::TcpMember(index) => tcp::work(core, pairs, index),
            Source::HttpClient(index) => http::work(core, room, http, index),
            Source::HttpMember(index) => http::on_member_again(core, room, http, index),
            Source::Front(index) => http2::work(core, room, http, index),
            Source::Trunk(index) => http2::work_trunk(core, room, http, index),
            Source::Greeting(index) => tls::work_greeting(self, index),
            Source::Listener(server) => self.accept(server),
            Source::Inbox | Source::Keeper | Source::Takeover => {}
        }
    }

    fn on_timer(&mut self, token: Token) {
        let Self {
            core,
            room,
            pairs,
            http,
            ..
        } = self;
        match Source::of(token) {
            Source::TcpClient(index) => tcp::on_timer(core, pairs, index),
            Source::HttpClient(index) => http::on_client_timer(core, room, http, index),
            Source::HttpMember(index) => http::on_member_timer(core, http, index),
            Source::Front(index) => http2::on_front_timer(core, room, http, index),
            Source::Trunk(index) => http2::on_trunk_timer(core, room, http, index),
            Source::Greeting(index) => tls::on_greeting_timer(self, index),
            _ => {}
        }
    }

    fn on_turn(&mut self) {
        if self
            .accept_again_us
            .is_some_and(|at| self.core.now_us >= at)
        {
            self.accept_again_us = None;
            self.accept_all();
        }
        self.give_more();
        let Some(until_us) = self.drain_until_us else {
            return;
        };
        if self.core.now_us >= until_us {
            self.cut_all();
        }
        if self.core.open == 0 && !self.has_drained {
            self.has_drained = true;
            self.drain_until_us = None;
            self.core.flush_entries();
            let cut = core::mem::take(&mut self.cut);
            self.outbox.send(Report::Drained { cut });
        }
    }

    fn on_commands(&mut self) {
        for command in self.inbox.take() {
            match command {
                Command::Apply {
                    site,
                    tls,
                    listeners,
                } => self.apply((&site, &tls), listeners),
                Command::Vault(vault) => self.core.vault = Some(vault),
                Command::Give { peer } => self.begin_giving(peer),
                Command::Take { peer } => self.begin_taking(peer),
                Command::Commit => self.commit(),
                Command::SuccessorGone { successor } => self.take_back(successor),
                Command::Drain { until_us } => self.drain(until_us),
            }
        }
    }

    fn apply(&mut self, site: (&Site, &Loaded), listeners: Vec<(SocketAddr, OwnedFd)>) {
        let core = &mut self.core;
        let slots = Arc::clone(&core.slots);
        let unused = core
            .tables
            .apply(site, &self.board, &slots, core.lane, listeners);
        for (server, listener) in unused {
            self.core.unwatch(&listener);
            if self.is_accepting {
                self.accept_rest(server, &listener);
            }
        }
        if self.is_accepting {
            self.watch_listeners();
        }
        self.core.flush_entries();
        self.outbox.send(Report::Applied);
    }

    fn drain(&mut self, until_us: u64) {
        self.stop_accepting();
        for server in &mut self.core.tables.servers {
            server.listener = None;
        }
        self.core.is_draining = true;
        self.drain_until_us = Some(until_us);
        // HTTP/2 can be told at once.
        let fronts: Vec<usize> = self.http.fronts.iter().map(|(index, _)| index).collect();
        for index in fronts {
            http2::work(&mut self.core, &mut self.room, &mut self.http, index);
        }
    }

    fn cut_all(&mut self) {
        let greetings: Vec<usize> = self.greetings.iter().map(|(index, _)| index).collect();
        for index in greetings {
            // Nobody has asked for anything on it.
            tls::end_greeting(self, index);
        }
        let pairs: Vec<usize> = self.pairs.iter().map(|(index, _)| index).collect();
        for index in pairs {
            let pair = &self.pairs[index];
            let line = self.describe_cut(pair.server, &pair.sockets[CLIENT]);
            self.cut.push(line);
            tcp::cut(&mut self.core, &mut self.pairs, index);
        }
        let clients: Vec<usize> = self.http.clients.iter().map(|(index, _)| index).collect();
        for index in clients {
            let is_idle = !self.http.clients[index].is_mid_message();
            // One that waits for a request loses nothing.
            let how = if is_idle {
                http::End::Closed
            } else {
                let client = &self.http.clients[index];
                let line = self.describe_cut(client.server, &client.socket);
                self.cut.push(line);
                http::End::Reset
            };
            http::end(&mut self.core, &mut self.http, index, how);
        }
        let fronts: Vec<usize> = self.http.fronts.iter().map(|(index, _)| index).collect();
        for index in fronts {
            let is_idle = !self.http.fronts[index].is_mid_message();
            let how = if is_idle {
                http::End::Closed
            } else {
                let front = &self.http.fronts[index];
                let line = self.describe_cut(front.server, &front.socket);
                self.cut.push(line);
                http::End::Reset
            };
            http2::end(&mut self.core, &mut self.http, index, how);
        }
    }

    fn describe_cut(&self, server: usize, client: &OwnedFd) -> String {
        let peer = rustix::net::getpeername(client).ok().flatten();
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        let peer = peer.map_or_else(|| "?".to_owned(), |peer| peer.to_string());
        format!("{}  {peer}", self.core.tables.servers[server].name)
    }

    /// Packets from the keeper: what a dead worker owned.
    pub(super) fn on_keeper(&mut self) {
        let mut buffer = vec![0u8; message::BYTES_MAX];
        loop {
            let mut fds = Vec::new();
            let received = match message::receive(self.core.keeper(), &mut buffer, &mut fds, false)
            {
                Ok(received) if received.len > 0 => received,
                _ => return,
            };
            self.adopt_packet(&buffer[..received.len], fds);
        }
    }
}
