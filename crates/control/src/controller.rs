//! The driver of `hitless controller`: store, API, links to node agents, and the table's controller
//! machine.
//!
//! ```text
//!  API ──(questions)──┐                                  ┌──> store: records, table
//!  agents ──(reports, acknowledgements)──> one loop ─────┤
//!                                     ^     │   │        └──> agents: orders, rows, trust
//!                                     │     v   v
//!                             `core::table::controller`, [`cluster`] (orders and changes)
//! ```
//!
//! One loop owns everything. What is wanted is in the store before anybody is told of it; what is
//! seen is told anew by every agent that links. So it may be killed at any point, and comes back
//! from the store. If another controller wrote, it reads everything anew. Nobody but the machine
//! makes up a row.

mod acquaintance;
mod api;
mod buckets;
pub mod cluster;
mod events;
mod look;
mod nodes;
mod pace;
pub mod records;
mod show;
pub mod table_store;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use hitless_api::Call;
use hitless_core::flow::FlowKey;
use hitless_core::row::GuestSlot;
use hitless_core::table::controller::{
    Action, Controller as Table, GuestRecord, Input, Policy, Status,
};
use hitless_store::{Revision, Store};

use crate::clock;
use crate::link::hello::Hello;
use crate::link::table::{LinkTable, Linked};
use crate::link::{self, LinkEvent};
use crate::message::{CONTROLLER_NODE, FromNode, NodeReport, Orders, ToNode};
use acquaintance::Met;
use pace::Pace;
use records::{Records, RecordsError};

/// Where agents link, within the run folder.
pub const NODE_SOCKET: &str = "nodes.sock";
/// How often changes are looked at when nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After a look at least so many times its own time goes to everything else.
const LOOK_SHARE: u32 = 4;
/// Events that wait for the loop: a table's acknowledgements from some dozens of parties.
const EVENTS_MAX: usize = 4_096;
/// Events that are decided on together: a table's acknowledgements from all parties of a small
/// cluster.
const EVENTS_TOGETHER: usize = 256;
/// Calls of the API that wait for the loop.
const CALLS_MAX: usize = 64;

/// Reads a site configuration: addresses and servers, or everything that is wrong with it.
pub type ReadSite = Box<dyn Fn(&str) -> Result<cluster::SiteFacts, String> + Send>;

/// What a controller is started with.
pub struct Options {
    pub run: PathBuf,
    pub release: String,
    pub store: Box<dyn Store>,
    /// The key of a cluster that is made now.
    pub new_key: Box<dyn Fn() -> FlowKey + Send>,
    pub read_site: ReadSite,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

/// Why a controller ends.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    #[error("cannot listen in the run folder: {0}")]
    Listen(#[from] std::io::Error),
    #[error("cannot read or write the records")]
    Records(#[from] RecordsError),
    #[error("cannot read or write the table")]
    Table(#[from] table_store::TableStoreError),
}

#[derive(Debug)]
enum Event {
    Node(LinkEvent<FromNode, ToNode>),
    Call(Call),
    Stop,
}

/// Ends a running loop.
#[derive(Clone, Debug)]
pub struct Stop(SyncSender<Event>);

impl Stop {
    /// The loop returns soon.
    pub fn stop(&self) {
        let _ = self.0.send(Event::Stop);
    }
}

/// A node as it is seen.
struct Seen {
    link: link::Sender<ToNode>,
    name: String,
    kernel: u64,
    release: String,
    /// None: nothing reported on this link yet.
    report: Option<NodeReport>,
    /// What it was last told.
    told: Option<Orders>,
    /// Whether the machine was told that its director is linked.
    is_connected: bool,
}

impl Linked for Seen {
    /// By name: an older link is of a process that is gone.
    fn is_same_peer(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// A controller that is ready to run.
pub struct Controller {
    options: Options,
    events: Receiver<Event>,
    stop: Stop,
    records: Records,
    at: Revision,
    table: Table,
    /// The machine was told something that it has not decided on yet.
    has_news: bool,
    /// The stored header's guests, by slot.
    slots: BTreeMap<GuestSlot, GuestRecord>,
    policy: Option<Policy>,
    /// Guests of which the machine was told that everybody knows them.
    reachable: BTreeSet<GuestSlot>,
    seen: LinkTable<Seen>,
    /// The table's status at the last look: it takes a walk over 65,536 buckets.
    status: Status,
    /// How fast connections end, by drain's name.
    paces: BTreeMap<String, Pace>,
    /// Who did not know whom at the last look.
    met: Met,
    look_due: Instant,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Controller {
    /// Reads the store, opens the sockets; nothing is done before [`Self::run`].
    pub fn new(mut options: Options) -> Result<Self, ControllerError> {
        let (records, at) = Records::load(&mut *options.store, || (options.new_key)())?;
        let (sender, events) = sync_channel(EVENTS_MAX);
        let listener = link::listen(&options.run.join(NODE_SOCKET))?;
        let hello = Hello {
            name: "controller".into(),
            kernel: 0,
            release: options.release.clone(),
            version: 0,
        };
        let deliver = sender.clone();
        link::accept(listener, hello, CONTROLLER_NODE, move |event| {
            deliver.send(Event::Node(event)).is_ok()
        });
        let api = link::listen(&options.run.join(hitless_api::SOCKET_NAME))?;
        api::serve(api, sender.clone())?;
        let table = Table::new();
        let status = table.status();
        Ok(Self {
            options,
            events,
            stop: Stop(sender),
            records,
            at,
            table,
            has_news: false,
            slots: BTreeMap::new(),
            policy: None,
            reachable: BTreeSet::new(),
            seen: LinkTable::default(),
            status,
            paces: BTreeMap::new(),
            met: Met::default(),
            look_due: Instant::now(),
        })
    }

    /// What ends it.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Runs until it is told to stop, or its store fails.
    pub fn run(mut self) -> Result<(), ControllerError> {
        self.act()?;
        self.look()?;
        loop {
            let patience = clock::until(self.table.deadline(), LOOK_EVERY);
            let patience = patience.min(self.look_due.saturating_duration_since(Instant::now()));
            match self.events.recv_timeout(patience) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Ok(event) => self.handle(event)?,
                Err(RecvTimeoutError::Timeout) => {}
            }
            // What has come meanwhile is decided on together: a decision may be a write.
            for _ in 0..EVENTS_TOGETHER {
                match self.events.try_recv() {
                    Ok(Event::Stop) => return Ok(()),
                    Ok(event) => self.handle(event)?,
                    Err(_) => break,
                }
            }
            let due = self.table.deadline();
            if self.has_news || due.is_some_and(|due| due <= clock::now()) {
                self.conclude()?;
            }
            if self.look_due <= Instant::now() {
                self.look()?;
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), ControllerError> {
        match event {
            Event::Node(event) => {
                self.node_event(event);
                Ok(())
            }
            Event::Call(call) => self.call(call),
            Event::Stop => Ok(()),
        }
    }

    /// Tells the machine; what follows is decided by the next [`Self::conclude`].
    fn feed(&mut self, input: Input) {
        self.table.hear(clock::now(), input);
        self.has_news = true;
    }

    fn conclude(&mut self) -> Result<(), ControllerError> {
        self.has_news = false;
        self.table.conclude(clock::now());
        self.act()
    }

    /// Carries out what the machine wants.
    fn act(&mut self) -> Result<(), ControllerError> {
        while let Some(action) = self.table.poll_action() {
            match action {
                Action::Load => {
                    let loaded = table_store::load(&*self.options.store)?;
                    self.slots = loaded
                        .as_ref()
                        .map(|(header, _)| header.guests.clone())
                        .unwrap_or_default();
                    self.table.handle(clock::now(), Input::Loaded(loaded));
                }
                Action::Write {
                    parent,
                    header,
                    pages,
                } => {
                    let written =
                        table_store::write(&mut *self.options.store, parent, &header, &pages)?;
                    if written {
                        // A guest that has a slot now is told so at once. Other writes come by the
                        // thousand in a change, and a look takes longer than any of them.
                        if self.slots != header.guests {
                            self.look_due = Instant::now();
                        }
                        self.slots = header.guests;
                    }
                    let input = if written {
                        Input::Written
                    } else {
                        Input::Conflict
                    };
                    self.table.handle(clock::now(), input);
                }
                Action::ToAgent { to, message } => {
                    if let Some(node) = self.node_of_director(to) {
                        node.link.send(ToNode::Table(message));
                    }
                }
                Action::ToGuest { to, message } => {
                    if let Some(node) = self.node_of_guest(to) {
                        node.link.send(ToNode::Guest { slot: to, message });
                    }
                }
            }
        }
        Ok(())
    }
}
