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
pub mod cluster;
pub mod records;
mod show;
pub mod table_store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use hitless_api::{Accepted, Answer, ApiError, Call, ErrorCode, Question};
use hitless_core::assign::Unit;
use hitless_core::flow::FlowKey;
use hitless_core::row::GuestSlot;
use hitless_core::table::controller::{
    Action, Controller as Table, GuestPolicy, GuestRecord, Input, Policy, State, Status, Wanted,
};
use hitless_core::table::message::{DirectorId, Party};
use hitless_store::{Revision, Store};

use crate::clock;
use crate::link::hello::Hello;
use crate::link::table::{LinkTable, Linked};
use crate::link::{self, LinkEvent, LinkId};
use crate::message::{
    CONTROLLER_NODE, Cluster, FromNode, GuestOrder, NodeReport, Orders, Peer, SiteFile, ToNode,
};
use acquaintance::Acquaintance;
use cluster::View;
use records::{GuestWanted, NodeWanted, Records, RecordsError};

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
    /// The table's status, and when it was asked for: it takes a walk over 65,536 buckets.
    status: Status,
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
        serve_api(api, sender.clone())?;
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

    fn node_event(&mut self, event: LinkEvent<FromNode, ToNode>) {
        match event {
            LinkEvent::Up { link, peer, sender } => {
                if !self.records.nodes.contains_key(&peer.name) {
                    tracing::warn!(
                        node = peer.name,
                        "a node links that was not added; it is told nothing"
                    );
                }
                let seen = Seen {
                    link: sender,
                    name: peer.name.clone(),
                    kernel: peer.kernel,
                    release: peer.release.clone(),
                    report: None,
                    told: None,
                    is_connected: false,
                };
                if !self.seen.up(link, seen) {
                    tracing::info!(
                        node = peer.name,
                        "an older link of a node that has a newer one"
                    );
                    return;
                }
                tracing::info!(
                    node = peer.name,
                    release = peer.release,
                    version = peer.version,
                    "a node linked"
                );
                self.look_due = Instant::now();
            }
            LinkEvent::Down { link, reason } => {
                if let Some(seen) = self.seen.down(link) {
                    tracing::info!(node = seen.name, reason, "a node's link ended");
                }
            }
            LinkEvent::Message { link, message } => match message {
                FromNode::Report(report) => {
                    let Some(seen) = self.seen.get_mut(link) else {
                        return;
                    };
                    // Counters change all the time; only what somebody waits for is looked at once.
                    let is_news = seen.report.as_ref().is_none_or(|old| is_news(old, &report));
                    seen.report = Some(*report);
                    if is_news {
                        self.look_due = Instant::now();
                    }
                }
                FromNode::Table { director, message } => {
                    let is_its = self.seen.get(link).is_some_and(|seen| {
                        self.records
                            .nodes
                            .get(&seen.name)
                            .is_some_and(|node| node.director == director)
                    });
                    if is_its {
                        self.feed(Input::FromAgent {
                            from: director,
                            message,
                        });
                    }
                }
                FromNode::Guest { slot, message } => {
                    if self.is_guest_of(link, slot) {
                        self.feed(Input::FromGuest {
                            from: slot,
                            message,
                        });
                    }
                }
                FromNode::GuestLinked { slot } => {
                    if self.is_guest_of(link, slot) {
                        self.feed(Input::Connected(Party::Guest(slot)));
                    }
                }
            },
        }
    }

    /// A node speaks for its own guests only.
    fn is_guest_of(&self, link: LinkId, slot: GuestSlot) -> bool {
        let guest = self
            .slots
            .get(&slot)
            .and_then(|guest| self.records.guests.get(&guest.name));
        let node = self.seen.get(link).map(|seen| seen.name.as_str());
        guest.is_some_and(|guest| Some(guest.node.as_str()) == node)
    }

    fn node_of_director(&self, director: DirectorId) -> Option<&Seen> {
        let is_it = |seen: &&Seen| {
            self.records
                .nodes
                .get(&seen.name)
                .is_some_and(|node| node.director == director)
        };
        self.seen.values().find(is_it)
    }

    fn node_of_guest(&self, slot: GuestSlot) -> Option<&Seen> {
        let name = &self.slots.get(&slot)?.name;
        let node = &self.records.guests.get(name)?.node;
        self.seen.values().find(|seen| seen.name == *node)
    }

    /// Takes in what is seen, moves changes on, and tells everybody what follows.
    fn look(&mut self) -> Result<(), ControllerError> {
        let began = Instant::now();
        self.status = self.table.status();
        let mut new = self.records.clone();
        self.take_in(&mut new);
        cluster::advance(&mut new, &self.view());
        self.write(new)?;
        if self.tell_table()? {
            self.status = self.table.status();
        }
        self.tell_nodes();
        // On a busy machine looking must not be what keeps it busy.
        self.look_due = Instant::now() + LOOK_EVERY.max(began.elapsed() * LOOK_SHARE);
        Ok(())
    }

    fn view(&self) -> View<'_> {
        let reports = self.reports();
        View {
            now_us: clock::wall_us(),
            table: &self.status,
            strangers: self.acquaintance(&reports).strangers(),
            reports,
        }
    }

    fn acquaintance<'a>(
        &'a self,
        reports: &'a BTreeMap<&'a str, &'a NodeReport>,
    ) -> Acquaintance<'a> {
        Acquaintance {
            records: &self.records,
            slots: &self.slots,
            reports,
        }
    }

    /// Reports by node's name, of nodes that are linked with the kernel that is on record.
    fn reports(&self) -> BTreeMap<&str, &NodeReport> {
        let is_known = |seen: &&Seen| {
            self.records
                .nodes
                .get(&seen.name)
                .is_some_and(|node| node.kernel == Some(seen.kernel))
        };
        let reported = self.seen.values().filter(is_known);
        reported
            .filter_map(|seen| Some((seen.name.as_str(), seen.report.as_ref()?)))
            .collect()
    }

    /// What others have to be told of what was seen goes into the records.
    fn take_in(&self, new: &mut Records) {
        let reports = self.reports();
        for seen in self.seen.values() {
            let Some(node) = new.nodes.get_mut(&seen.name) else {
                continue;
            };
            if node.kernel != Some(seen.kernel) {
                // Another kernel has another director, with none of what the old one acknowledged.
                if node.kernel.is_some() {
                    node.director = DirectorId(new.cluster.next_director);
                    new.cluster.next_director = new.cluster.next_director.wrapping_add(1).max(1);
                }
                node.kernel = Some(seen.kernel);
                node.is_directing = false;
                node.is_joined = false;
            }
            node.release = Some(seen.release.clone());
            let Some(report) = &seen.report else { continue };
            node.address = report.address;
            if report.director_id == Some(node.director) && !report.has_left {
                node.is_directing = true;
            }
            node.is_joined |= node.is_directing
                && self.table.directs_all(node.director)
                && self
                    .acquaintance(&reports)
                    .missing_for_node(&seen.name)
                    .is_none();
            if !report.is_complete {
                continue;
            }
            for (name, guest) in new
                .guests
                .iter_mut()
                .filter(|(_, guest)| guest.node == seen.name)
            {
                match report.guests.get(name) {
                    Some(running) => {
                        guest.boot = Some(running.boot);
                        guest.addresses.clone_from(&running.addresses);
                    }
                    None => guest.boot = None,
                }
            }
        }
    }

    fn write(&mut self, new: Records) -> Result<(), ControllerError> {
        match self
            .records
            .write(&mut *self.options.store, &mut self.at, new)
        {
            Err(RecordsError::Conflict) => {
                tracing::warn!("another controller wrote; reading everything anew");
                (self.records, self.at) =
                    Records::load(&mut *self.options.store, || (self.options.new_key)())?;
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Policy, boots and losses for the machine; whether there was anything.
    fn tell_table(&mut self) -> Result<bool, ControllerError> {
        let mut has_told = false;
        let mut policy = policy(&self.records);
        self.hold_absent(&mut policy);
        if self.policy.as_ref() != Some(&policy) {
            has_told = true;
            self.policy = Some(policy.clone());
            self.feed(Input::Policy(policy));
        }
        let mut inputs = Vec::new();
        for (slot, guest) in &self.slots {
            // Kernels of which a whole report no longer speaks are gone.
            let record = self.records.guests.get(&guest.name);
            let is_reported = record.is_none_or(|record| {
                !self.records.nodes.contains_key(&record.node)
                    || self
                        .reports()
                        .get(record.node.as_str())
                        .is_some_and(|report| report.is_complete)
            });
            let is_gone = record.and_then(|record| record.boot) != Some(guest.boot);
            if is_gone && is_reported && guest.state != State::Gone {
                inputs.push(Input::Destroyed { slot: *slot });
            }
        }
        for (node, report) in self.reports() {
            for (name, guest) in &report.guests {
                let is_ours = self
                    .records
                    .guests
                    .get(name)
                    .is_some_and(|record| record.node == node);
                let has_slot = self
                    .slots
                    .values()
                    .any(|known| known.name == *name && known.boot == guest.boot);
                if is_ours && guest.is_ready && !has_slot {
                    inputs.push(Input::Booted {
                        name: name.clone(),
                        boot: guest.boot,
                    });
                }
            }
        }
        let reachable = self.acquaintance(&self.reports()).reachable();
        if self.reachable != reachable {
            self.reachable.clone_from(&reachable);
            inputs.push(Input::Reachable { slots: reachable });
        }
        for seen in self.seen.values_mut().filter(|seen| !seen.is_connected) {
            let Some(node) = self.records.nodes.get(&seen.name) else {
                continue;
            };
            let reported = seen.report.as_ref().and_then(|report| report.director_id);
            if node.is_directing
                && reported == Some(node.director)
                && node.kernel == Some(seen.kernel)
            {
                seen.is_connected = true;
                inputs.push(Input::Connected(Party::Director(node.director)));
            }
        }
        has_told |= !inputs.is_empty();
        inputs.into_iter().for_each(|input| self.feed(input));
        if has_told {
            self.conclude()?;
        }
        Ok(has_told)
    }

    /// A guest that was drained serves again only when it is there: the kernel that was drained may
    /// have been destroyed since, as at a reboot of its node, without anybody having said so yet.
    fn hold_absent(&self, policy: &mut Policy) {
        let Some(old) = &self.policy else { return };
        let reports = self.reports();
        for (name, guest) in &mut policy.guests {
            let was_drained = old
                .guests
                .get(name)
                .is_some_and(|old| old.wanted == Wanted::Drain);
            let Some(record) = self.records.guests.get(name) else {
                continue;
            };
            let report = reports
                .get(record.node.as_str())
                .and_then(|report| report.guests.get(name));
            let is_there = report.is_some_and(|report| {
                report.is_linked && report.is_ready && Some(report.boot) == record.boot
            });
            if was_drained && !is_there {
                guest.wanted = Wanted::Drain;
            }
        }
    }

    /// Orders for every node that is linked, where they changed.
    fn tell_nodes(&mut self) {
        let peers = self.peers();
        let directors = self.records.nodes.values();
        let directors = directors.filter(|node| node.is_directing || node.kernel.is_some());
        let directors: BTreeMap<_, _> = directors
            .filter_map(|node| Some((node.director, node.address?)))
            .collect();
        for seen in self.seen.values_mut() {
            let Some(node) = self.records.nodes.get(&seen.name) else {
                continue;
            };
            if node.kernel != Some(seen.kernel) {
                continue;
            }
            let own = self
                .records
                .guests
                .iter()
                .filter(|(_, guest)| guest.node == seen.name);
            let own = own.filter(|(_, guest)| guest.wanted != GuestWanted::Remove);
            let guests = own.map(|(name, record)| {
                let known = self.slots.iter().find(|(_, known)| {
                    known.name == *name
                        && Some(known.boot) == record.boot
                        && known.state != State::Gone
                });
                (
                    name.clone(),
                    GuestOrder {
                        slot: known.map(|(slot, known)| (known.boot, *slot)),
                        is_draining: !(record.wanted == GuestWanted::Serve
                            && node.wanted == NodeWanted::Member),
                    },
                )
            });
            let has_guests = self
                .records
                .guests
                .values()
                .any(|guest| guest.node == seen.name);
            let orders = Orders {
                generation: 0,
                director: node.director,
                cluster: Cluster {
                    name: cluster::NAME.into(),
                    vni: self.records.cluster.vni,
                    key: self.records.cluster.key,
                    vips: self.records.site.vips.clone(),
                },
                guests: guests.collect(),
                peers: peers.clone(),
                directors: directors.clone(),
                programs: self.records.cluster.programs.clone(),
                site: SiteFile {
                    generation: self.records.site.generation,
                    text: self.records.site.text.clone(),
                },
                is_leaving: node.wanted == NodeWanted::Leave && !has_guests,
            };
            let same = |told: &Orders| {
                Orders {
                    generation: told.generation,
                    ..orders.clone()
                } == *told
            };
            if !seen.told.as_ref().is_some_and(same) {
                // The store's revision rises with everything that orders are made of.
                let before = seen.told.as_ref().map_or(0, |told| told.generation);
                let generation = self.options.store.revision().0.max(before);
                let orders = Orders {
                    generation,
                    ..orders
                };
                seen.told = Some(orders.clone());
                seen.link.send(ToNode::Orders(Box::new(orders)));
            }
        }
    }

    fn peers(&self) -> Vec<Peer> {
        let peer = |(slot, known): (&GuestSlot, &GuestRecord)| {
            let record = self.records.guests.get(&known.name)?;
            let is_there = record.boot == Some(known.boot) && known.state != State::Gone;
            is_there.then(|| Peer {
                slot: *slot,
                node: record.node.clone(),
                guest: known.name.clone(),
                addresses: record.addresses.clone(),
            })
        };
        self.slots.iter().filter_map(peer).collect()
    }

    fn call(&mut self, call: Call) -> Result<(), ControllerError> {
        let answer = match call.question {
            Question::Order(order) => {
                self.ordered(|records, view| cluster::order(records, view, order))?
            }
            Question::CallBack(name) => {
                self.ordered(|records, view| cluster::call_back(records, view, &name))?
            }
            Question::PutSite(text) => match (self.options.read_site)(&text) {
                Ok(facts) => {
                    self.ordered(|records, view| cluster::apply(records, view, text, facts))?
                }
                Err(problems) => Err(ApiError::new(ErrorCode::Invalid, problems)),
            },
            question => Ok(self.show(&question)),
        };
        // Whoever asked may have gone.
        let _ = call.reply.send(answer);
        Ok(())
    }

    fn ordered(
        &mut self,
        order: impl FnOnce(&mut Records, &View<'_>) -> Result<String, ApiError>,
    ) -> Result<Result<Answer, ApiError>, ControllerError> {
        let mut new = self.records.clone();
        let change = match order(&mut new, &self.view()) {
            Ok(change) => change,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.write(new)?;
        if !self
            .records
            .changes
            .values()
            .any(|known| known.name == change)
        {
            let text = "another controller wrote at the same time; ask again";
            return Ok(Err(ApiError::new(ErrorCode::Unavailable, text)));
        }
        tracing::info!(change, "accepted");
        self.look()?;
        Ok(Ok(Answer::Accepted(Accepted { change })))
    }
}

/// Whether a report says something that orders or changes depend on.
fn is_news(old: &NodeReport, new: &NodeReport) -> bool {
    let bare = |report: &NodeReport| {
        let mut bare = NodeReport {
            counters: BTreeMap::new(),
            at_us: 0,
            ..report.clone()
        };
        for guest in bare.guests.values_mut() {
            guest.counters = BTreeMap::new();
            guest.at_us = 0;
        }
        bare
    };
    bare(old) != bare(new)
}

/// What the operator wants of the table, as the machine wants to know it.
fn policy(records: &Records) -> Policy {
    let guest = |(name, guest): (&String, &records::GuestRecord)| {
        let node = records.nodes.get(&guest.node);
        let node_serves = node.is_some_and(|node| node.wanted == NodeWanted::Member);
        let serves = guest.wanted == GuestWanted::Serve && node_serves;
        let change = match (guest.wanted, node) {
            (GuestWanted::Serve, Some(node)) if !node_serves => node.change.clone(),
            _ => guest.change.clone(),
        };
        let wanted = if serves { Wanted::Serve } else { Wanted::Drain };
        (
            name.clone(),
            GuestPolicy {
                weight: 1,
                node: guest.node.clone(),
                wanted,
                change,
            },
        )
    };
    let directing = records.nodes.values().filter(|node| node.is_directing);
    Policy {
        guests: records.guests.iter().map(guest).collect(),
        directors: directing.map(|node| node.director).collect(),
        unit: Unit::Bucket,
    }
}

/// Serves the API in a thread of its own; calls become events.
fn serve_api(
    listener: std::os::unix::net::UnixListener,
    events: SyncSender<Event>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = match tokio::net::UnixListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return tracing::error!(%error, "the API cannot listen"),
            };
            let (owner, mut calls) = tokio::sync::mpsc::channel(CALLS_MAX);
            tokio::spawn(async move {
                while let Some(call) = calls.recv().await {
                    let events = events.clone();
                    // The loop's queue may be full for the time of a disk's write.
                    let sent =
                        tokio::task::spawn_blocking(move || events.send(Event::Call(call)).is_ok())
                            .await;
                    if !sent.unwrap_or(false) {
                        return;
                    }
                }
            });
            if let Err(error) = hitless_api::serve(listener, owner, std::future::pending()).await {
                tracing::error!(%error, "the API ended");
            }
        });
    });
    Ok(())
}
