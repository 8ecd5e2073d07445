//! The driver of `hitless node`: a node's director and its guests.
//!
//! ```text
//!  controller ──(orders, rows, trust)──> loop around `core::table::agent` ──> worker: the director's plane
//!      ^                                    │    ^    │    ^
//!      └──(reports, acknowledgements)───────┘    │    │    └── keeper of guests ([`guests`]): create, start, destroy
//!   guests' ingresses ──(lease requests, UDP)────┘    └──────> managers ([`managers`]): reload, upgrade, look
//!                     <─(rows, orders)── links ──(acknowledgements, counts)──> passed on to the controller
//! ```
//!
//! One loop owns the state. It comes back after a kill by the orders and the trust that it kept in
//! files, the rows that the plane kept, and the guests that it finds running; nothing of that needs
//! a controller, so leases are granted and the dead are put last without one.
//!
//! Failure paths: an ingress that dies is started again, in the same kernel, with the same slot. A
//! guest whose place is gone or whose link is down is destroyed for good, and made anew with
//! another boot, which gets another slot. A controller that is away is waited for; what it wanted
//! last is kept up.

mod death;
pub mod guests;
pub mod managers;
mod report;
mod spread;
pub mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use hitless_core::row::{Bucket, GuestSlot, Row};
use hitless_core::table::agent::{Action, Agent, Input, Trust};
use hitless_core::table::guest::Ticket;
use hitless_core::table::message::{DirectorId, FromGuest};
use hitless_core::time::Time;
use rustix::net::RecvFlags;

use crate::lease::{DATAGRAM_BYTES_MAX, Seal};
use crate::link::hello::Hello;
use crate::link::table::{LinkTable, Linked};
use crate::link::{self, Address, LinkEvent};
use crate::message::{
    CONTROLLER_NODE, FromIngress, FromNode, IngressReport, NODE_GUEST, Orders, ToIngress, ToNode,
};
use crate::plane::{DirectorPlane, Unstored, Way};
use crate::{clock, file, priority};
use guests::{GuestPlan, GuestRunner, Running};
use managers::{ManagerControl, ManagerPlan, ManagerState};
use ways::Underlay;

/// How often a node reports when nothing changes.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// Events that wait for the loop: a table's messages for some guests, and datagrams of a second.
const EVENTS_MAX: usize = 4_096;
/// Events that are taken before the clock is looked at again: some milliseconds' worth.
const EVENTS_TOGETHER: usize = 32;
/// Datagrams that are read at a time: those of 100 ms from some dozens of guests.
const DATAGRAMS_TOGETHER: usize = 256;
/// Where guests' ingresses find their agent, within the run folder.
pub const GUEST_SOCKET: &str = "guests.sock";

/// What a node agent is started with.
#[derive(Clone, Debug)]
pub struct Options {
    pub name: String,
    pub run: PathBuf,
    pub controller: Address,
    /// Its address on the underlay: what its director sends from, and where it grants leases.
    pub address: IpAddr,
    pub lease_port: u16,
    /// The boot of its kernel.
    pub kernel: u64,
    pub release: String,
}

/// What an agent drives.
pub struct Parts {
    pub plane: Arc<dyn DirectorPlane>,
    pub guests: Box<dyn GuestRunner>,
    pub managers: Arc<dyn ManagerControl>,
    pub underlay: Box<dyn Underlay>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// How an agent ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was told to stop; everything goes on without it.
    Stopped,
    /// The controller ordered the node to leave; nothing of it directs any more.
    Left,
}

/// Ends a running loop.
#[derive(Clone, Debug)]
pub struct Stop(SyncSender<Event>);

impl Stop {
    /// The loop returns soon. Guests, programs, maps and links stay as they are.
    pub fn stop(&self) {
        let _ = self.0.send(Event::Stop);
    }
}

#[derive(Debug)]
pub(crate) enum Event {
    Controller(LinkEvent<ToNode, FromNode>),
    Guest(LinkEvent<FromIngress, ToIngress>),
    Datagram(SocketAddr, Vec<u8>),
    Plane(Done),
    Guests {
        /// None: what runs could not be found out.
        running: Option<Vec<Running>>,
        faults: BTreeMap<String, String>,
    },
    Managers(BTreeMap<String, ManagerState>),
    Ways(BTreeMap<IpAddr, Way>),
    Network(ways::Change),
    Stop,
}

#[derive(Debug)]
pub(crate) enum Done {
    SetUp(DirectorId, crate::plane::Result<Vec<Row>>),
    Stored(Ticket, crate::plane::Result<()>),
    Ways(crate::plane::Result<BTreeSet<GuestSlot>>),
    Members(crate::plane::Result<BTreeSet<IpAddr>>),
    Ports(crate::plane::Result<()>),
    Replaced(u64, crate::plane::Result<()>),
    Left(crate::plane::Result<()>),
}

enum Work {
    SetUp(DirectorId, crate::message::Cluster),
    Store(Ticket, Vec<(Bucket, Row)>),
    Ways(BTreeMap<GuestSlot, Way>),
    Members(BTreeSet<IpAddr>),
    Ports(BTreeMap<u32, IpAddr>),
    Replace(u64),
    Leave,
}

/// An ingress that is linked.
struct GuestLink {
    name: String,
    boot: u64,
    sender: link::Sender<ToIngress>,
    /// The slot that it runs as; none before it said so.
    ready: Option<GuestSlot>,
    report: IngressReport,
}

impl Linked for GuestLink {
    /// By boot: the link of an earlier boot ends by itself, and says nothing of this one.
    fn is_same_peer(&self, other: &Self) -> bool {
        self.name == other.name && self.boot == other.boot
    }
}

/// A node agent that is ready to run.
pub struct Node {
    options: Options,
    events: Receiver<Event>,
    stop: Stop,
    plane: Arc<dyn DirectorPlane>,
    worker: Sender<Work>,
    guests: Sender<Vec<GuestPlan>>,
    managers: Sender<BTreeMap<String, ManagerPlan>>,
    ways: Sender<ways::Wish>,
    socket: UdpSocket,
    controller: Option<link::Sender<FromNode>>,
    orders: Option<Orders>,
    seal: Option<Seal>,
    machine: Option<Agent>,
    guest_links: LinkTable<GuestLink>,
    running: Option<BTreeMap<String, Running>>,
    manager_states: BTreeMap<String, ManagerState>,
    known_ways: BTreeMap<IpAddr, Way>,
    /// What the plane was last told, so that it is told only of changes.
    told: Told,
    /// What the plane has taken.
    taken: Taken,
    /// Where each guest asks from, and when it last asked, by its own clock.
    askers: BTreeMap<GuestSlot, (SocketAddr, Time)>,
    deaths: death::Deaths,
    bpf_generation: u64,
    replacing: bool,
    has_left: bool,
    faults: BTreeMap<String, String>,
    guest_faults: BTreeMap<String, String>,
    report_due: Instant,
}

#[derive(Default)]
struct Told {
    ways: BTreeMap<GuestSlot, Way>,
    members: BTreeSet<IpAddr>,
    ports: BTreeMap<u32, IpAddr>,
    cluster: Option<(DirectorId, crate::message::Cluster)>,
}

#[derive(Default)]
struct Taken {
    /// Guests that the director has a way to.
    ways: BTreeSet<GuestSlot>,
    /// Who may send encapsulated packets to this node.
    members: BTreeSet<IpAddr>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Opens sockets and starts the threads; nothing is done before [`Self::run`].
    pub fn new(options: Options, parts: Parts) -> std::io::Result<Self> {
        let (sender, events) = sync_channel(EVENTS_MAX);
        let socket = UdpSocket::bind(SocketAddr::new(options.address, options.lease_port))?;
        let listener = link::listen(&options.run.join(GUEST_SOCKET))?;
        let hello = Hello {
            name: options.name.clone(),
            kernel: options.kernel,
            release: options.release.clone(),
            version: 0,
        };
        let deliver = sender.clone();
        link::accept(listener, hello.clone(), NODE_GUEST, move |event| {
            deliver.send(Event::Guest(event)).is_ok()
        });
        let deliver = sender.clone();
        let deliver = move |event| deliver.send(Event::Controller(event)).is_ok();
        link::keep(
            options.controller.clone(),
            move || hello.clone(),
            CONTROLLER_NODE,
            deliver,
        );
        receive(socket.try_clone()?, sender.clone());
        let (worker, work) = channel();
        let (plane, deliver) = (Arc::clone(&parts.plane), sender.clone());
        std::thread::spawn(move || do_work(&*plane, &work, &deliver));
        Ok(Self {
            guests: guests::keep(parts.guests, sender.clone()),
            managers: managers::keep(
                parts.managers,
                options.run.join("managers.json"),
                sender.clone(),
            ),
            ways: ways::keep(parts.underlay, sender.clone()),
            plane: parts.plane,
            options,
            events,
            stop: Stop(sender),
            worker,
            socket,
            controller: None,
            orders: None,
            seal: None,
            machine: None,
            guest_links: LinkTable::default(),
            running: None,
            manager_states: BTreeMap::new(),
            known_ways: BTreeMap::new(),
            told: Told::default(),
            taken: Taken::default(),
            askers: BTreeMap::new(),
            deaths: death::Deaths::default(),
            bpf_generation: 0,
            replacing: false,
            has_left: false,
            faults: BTreeMap::new(),
            guest_faults: BTreeMap::new(),
            report_due: Instant::now(),
        })
    }

    /// What ends it.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Runs until it is told to stop, or has left.
    pub fn run(mut self) -> Ended {
        priority::raise();
        if let Some(kept) = file::read_json::<Kept>(&self.file("orders.json"))
            && kept.kernel == self.options.kernel
        {
            self.bpf_generation = kept.orders.programs.bpf_generation;
            self.obey(kept.orders);
        }
        loop {
            let deadline = self.machine.as_ref().and_then(Agent::deadline);
            let deadline = deadline.into_iter().chain(self.deaths.deadline()).min();
            let patience = clock::until(deadline, REPORT_EVERY);
            let patience = patience.min(self.report_due.saturating_duration_since(Instant::now()));
            match self.events.recv_timeout(patience) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ended::Stopped,
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            // What has come meanwhile is known before the clock is looked at.
            for _ in 0..EVENTS_TOGETHER {
                match self.events.try_recv() {
                    Ok(Event::Stop) => return Ended::Stopped,
                    Ok(event) => self.handle(event),
                    Err(_) => break,
                }
            }
            self.tick();
            if self.has_left && self.controller.is_some() {
                self.report();
                // The last report is on its way when the socket is empty; a second one costs
                // nothing.
                std::thread::sleep(Duration::from_millis(50));
                return Ended::Left;
            }
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.options.run.join(name)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Controller(event) => self.controller_event(event),
            Event::Guest(event) => self.guest_event(event),
            Event::Datagram(from, bytes) => self.datagram(from, &bytes),
            Event::Plane(done) => self.plane_done(done),
            Event::Guests { running, faults } => {
                if let Some(running) = running {
                    let ifindexes = running.iter().map(|guest| guest.ifindex).collect();
                    self.deaths.keep_only(&ifindexes);
                    let by_name = running.into_iter().map(|guest| (guest.name.clone(), guest));
                    self.running = Some(by_name.collect());
                }
                self.guest_faults = faults;
                self.spread();
                self.report_due = Instant::now();
            }
            Event::Managers(states) => {
                if self.manager_states != states {
                    self.manager_states = states;
                    self.report_due = Instant::now();
                }
            }
            Event::Ways(ways) => {
                self.known_ways = ways;
                self.spread();
            }
            Event::Network(change) => self.network_changed(change),
            Event::Stop => {}
        }
    }

    fn controller_event(&mut self, event: LinkEvent<ToNode, FromNode>) {
        match event {
            LinkEvent::Up { sender, peer, .. } => {
                tracing::info!(
                    release = peer.release,
                    version = peer.version,
                    "linked to the controller"
                );
                self.controller = Some(sender);
                self.report();
                for slot in self.guest_links.values().filter_map(|guest| guest.ready) {
                    self.say(FromNode::GuestLinked { slot });
                }
            }
            LinkEvent::Down { link, reason } => {
                if self
                    .controller
                    .as_ref()
                    .is_some_and(|sender| sender.link() == link)
                {
                    tracing::info!(reason, "the link to the controller ended");
                    self.controller = None;
                }
            }
            LinkEvent::Message { message, .. } => match message {
                ToNode::Orders(orders) => self.obey(*orders),
                ToNode::Table(message) => self.feed(Input::Message(message)),
                ToNode::Guest { slot, message } => {
                    if let Some(guest) = self
                        .guest_links
                        .values()
                        .find(|guest| guest.ready == Some(slot))
                    {
                        guest.sender.send(ToIngress::Table(message));
                    }
                }
            },
        }
    }

    fn guest_event(&mut self, event: LinkEvent<FromIngress, ToIngress>) {
        match event {
            LinkEvent::Up { link, peer, sender } => {
                let (name, boot) = (peer.name, peer.kernel);
                let report = IngressReport::default();
                let guest = GuestLink {
                    name,
                    boot,
                    sender,
                    ready: None,
                    report,
                };
                if self.guest_links.up(link, guest) {
                    self.spread();
                }
            }
            LinkEvent::Down { link, .. } => {
                self.guest_links.down(link);
                self.report_due = Instant::now();
            }
            LinkEvent::Message { link, message } => {
                let Some(guest) = self.guest_links.get_mut(link) else {
                    return;
                };
                match message {
                    FromIngress::Ready { slot } => {
                        guest.ready = Some(slot);
                        self.say(FromNode::GuestLinked { slot });
                        self.report_due = Instant::now();
                    }
                    FromIngress::Table(message) => {
                        if let Some(slot) = guest.ready {
                            if let FromGuest::Live { connections, .. } = &message {
                                self.deaths.note_count(slot, *connections);
                            }
                            self.say(FromNode::Guest { slot, message });
                        }
                    }
                    FromIngress::Report(report) => {
                        let is_news = guest.report.known != report.known
                            || guest.report.bpf_generation != report.bpf_generation
                            || guest.report.program != report.program
                            || guest.report.fault != report.fault
                            || guest.report.ended != report.ended;
                        guest.report = report;
                        if is_news {
                            self.report_due = Instant::now();
                        }
                    }
                }
            }
        }
    }

    /// A lease request, if it is one.
    fn asked(&mut self, from: SocketAddr, bytes: &[u8]) {
        let Some(request) = self.seal.as_ref().and_then(|seal| seal.open_request(bytes)) else {
            return;
        };
        let last = self.askers.get(&request.guest).map(|(_, asked)| *asked);
        if last.is_some_and(|last| request.asked <= last) {
            return;
        }
        self.askers.insert(request.guest, (from, request.asked));
        self.feed(Input::Request(request));
    }

    /// Takes datagrams that have arrived, and that the thread which reads them has not come to.
    fn read_waiting(&mut self) {
        let mut bytes = [0; DATAGRAM_BYTES_MAX];
        for _ in 0..DATAGRAMS_TOGETHER {
            let Ok((length, _, Some(from))) =
                rustix::net::recvfrom(&self.socket, &mut bytes, RecvFlags::DONTWAIT)
            else {
                return;
            };
            if let Ok(from) = SocketAddr::try_from(from) {
                self.datagram(from, &bytes[..length]);
            }
        }
    }

    fn datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.asked(from, bytes);
        self.noticed(from, bytes);
    }

    fn plane_done(&mut self, done: Done) {
        match done {
            Done::SetUp(director, Ok(rows)) => {
                self.faults.remove("director");
                if self.machine.is_none() {
                    let trust =
                        file::read_json::<Trust>(&self.file("trust.json")).unwrap_or_default();
                    self.machine = Some(Agent::new(director, &rows, trust));
                    tracing::info!(director = director.0, "directing");
                }
                self.report_due = Instant::now();
            }
            Done::Stored(ticket, Ok(())) => self.feed(Input::Stored { ticket }),
            Done::Ways(Ok(ways)) => {
                self.taken.ways = ways;
                self.report_due = Instant::now();
            }
            Done::Members(Ok(members)) => {
                self.taken.members = members;
                self.report_due = Instant::now();
            }
            Done::Ports(Ok(())) => {}
            Done::Replaced(generation, result) => {
                self.replacing = false;
                self.bpf_generation = generation;
                self.report_due = Instant::now();
                match result {
                    Ok(()) => tracing::info!(generation, "replaced the director's programs"),
                    Err(error) => self.failed("replace", &error.to_string()),
                }
            }
            Done::Left(result) => {
                if let Err(error) = result {
                    self.failed("leave", &error.to_string());
                }
                self.has_left = true;
            }
            Done::SetUp(_, Err(error)) => {
                self.told.cluster = None;
                self.failed("director", &error.to_string());
            }
            Done::Stored(_, Err(error)) => self.failed("rows", &error.to_string()),
            Done::Ways(Err(error)) => self.tell_again("ways", &error),
            Done::Members(Err(error)) => self.tell_again("members", &error),
            Done::Ports(Err(error)) => self.tell_again("ports", &error),
        }
    }

    /// The plane did not take what it was told: it is told again with the next look at guests.
    fn tell_again(&mut self, what: &str, error: &crate::plane::PlaneError) {
        self.failed(what, &error.to_string());
        self.told = Told {
            cluster: self.told.cluster.take(),
            ..Told::default()
        };
    }

    fn failed(&mut self, what: &str, error: &str) {
        tracing::error!(what, error, "the data plane failed");
        self.faults.insert(what.to_owned(), error.to_owned());
        self.report_due = Instant::now();
    }

    /// Takes orders that are not older than those it has.
    fn obey(&mut self, orders: Orders) {
        if self.orders.as_ref().is_some_and(|own| {
            own.generation > orders.generation && own.director == orders.director
        }) {
            return;
        }
        self.seal = Some(Seal::new(orders.cluster.key));
        let kept = Kept {
            kernel: self.options.kernel,
            orders: orders.clone(),
        };
        self.orders = Some(orders);
        if let Err(error) = file::write_json(&self.file("orders.json"), &kept) {
            tracing::warn!(%error, "cannot keep the orders in a file");
        }
        self.spread();
        self.report_due = Instant::now();
    }

    fn feed(&mut self, input: Input) {
        if let Some(machine) = &mut self.machine {
            machine.handle(clock::now(), input);
        }
        self.act();
    }

    fn tick(&mut self) {
        let now = clock::now();
        let is_due = |machine: &Agent| machine.deadline().is_some_and(|due| due <= now);
        if self.machine.as_ref().is_some_and(is_due) {
            // Whoever is called silent must not be waiting in our own socket.
            self.read_waiting();
        }
        if let Some(machine) = &mut self.machine
            && is_due(machine)
        {
            machine.handle(now, Input::Tick);
        }
        self.act();
        self.tell_of_deaths(now);
        if self.report_due <= Instant::now() {
            self.report();
        }
    }

    /// Carries out what the machine wants.
    fn act(&mut self) {
        let Some(machine) = &mut self.machine else {
            return;
        };
        let Some(director) = self.orders.as_ref().map(|orders| orders.director) else {
            return;
        };
        let mut said = Vec::new();
        while let Some(action) = machine.poll_action() {
            match action {
                Action::Store { ticket, rows } => {
                    let _ = self.worker.send(Work::Store(ticket, rows));
                }
                Action::Send(message) => said.push(FromNode::Table { director, message }),
                Action::Grant { to, grant } => {
                    if let (Some((address, _)), Some(seal)) = (self.askers.get(&to), &self.seal) {
                        // What is lost is asked for again in 20 ms.
                        let _ = self.socket.send_to(&seal.grant(to, &grant), address);
                    }
                }
                Action::Believe { dead } => {
                    tracing::info!(?dead, "believes dead");
                    self.deaths.note_believed(&dead);
                    if let Err(error) = self.plane.believe(&dead) {
                        tracing::error!(%error, "cannot mark the dead");
                    }
                }
                Action::Keep(trust) => {
                    if let Err(error) =
                        file::write_json(&self.options.run.join("trust.json"), &trust)
                    {
                        tracing::warn!(%error, "cannot keep the trust in a file");
                    }
                }
            }
        }
        said.into_iter().for_each(|message| self.say(message));
    }

    fn say(&self, message: FromNode) {
        if let Some(controller) = &self.controller {
            controller.send(message);
        }
    }
}

/// Orders as they are kept: of one boot of the node's kernel.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    kernel: u64,
    orders: Orders,
}

/// Whether a folder has been left by an earlier kernel: then nothing that its files say still runs.
pub fn forget_other_kernel(run: &Path, kernel: u64) {
    let orders = run.join("orders.json");
    if file::read_json::<Kept>(&orders).is_some_and(|kept| kept.kernel != kernel) {
        for name in ["orders.json", "trust.json"] {
            let _ = std::fs::remove_file(run.join(name));
        }
    }
}

/// Turns datagrams into events. A flood fills the queue and is dropped; requests come again in 20
/// ms.
fn receive(socket: UdpSocket, events: SyncSender<Event>) {
    std::thread::spawn(move || {
        priority::raise();
        let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            match socket.recv_from(&mut bytes) {
                Ok((length, from)) => {
                    let event = Event::Datagram(from, bytes[..length].to_vec());
                    if let Err(std::sync::mpsc::TrySendError::Disconnected(_)) =
                        events.try_send(event)
                    {
                        return;
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    });
}

/// The worker: what may block, in order.
fn do_work(plane: &dyn DirectorPlane, work: &Receiver<Work>, events: &SyncSender<Event>) {
    let mut unstored = Unstored::default();
    while let Ok(work) = work.recv() {
        let done = match work {
            Work::SetUp(director, cluster) => Done::SetUp(
                director,
                plane.set_up(director, &cluster).map(|()| plane.rows()),
            ),
            Work::Store(ticket, rows) => {
                Done::Stored(ticket, unstored.store(rows, |rows| plane.store(rows)))
            }
            Work::Ways(ways) => {
                let slots = ways.keys().copied().collect();
                Done::Ways(plane.set_ways(&ways).map(|()| slots))
            }
            Work::Members(members) => {
                let list: Vec<IpAddr> = members.iter().copied().collect();
                Done::Members(plane.set_members(&list).map(|()| members))
            }
            Work::Ports(ports) => Done::Ports(plane.set_ports(&ports)),
            Work::Replace(generation) => Done::Replaced(generation, plane.replace()),
            Work::Leave => Done::Left(plane.leave()),
        };
        if events.send(Event::Plane(done)).is_err() {
            return;
        }
    }
}
