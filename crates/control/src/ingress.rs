//! The driver of `hitless ingress`: a guest's part of the table.
//!
//! ```text
//!  agent ──(orders, rows)──> loop around `core::table::guest` ──> worker: store, count, set up, replace
//!  directors' agents <─(lease requests, grants over UDP)─┘    └──> plane: lease, beliefs, at once
//! ```
//!
//! One loop owns the machine. What takes its time is done by a worker thread that owns those calls,
//! so that a scan of many sockets delays no lease. After a kill it comes back by the orders that it
//! kept in a file and the rows that the plane kept, with or without its agent.
//!
//! Where a drain's deadline has come, the worker ends what the kernel still holds ([`ending`]).
//!
//! Not here: any decision about rows, and any knowledge of BPF.

mod ending;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use hitless_core::table::guest::{Action, Guest, Input, Ticket};
use hitless_core::table::message::{FromGuest, LeaseGrant, LeaseRequest};

use crate::lease::{DATAGRAM_BYTES_MAX, Seal};
use crate::link::hello::Hello;
use crate::link::{self, Address, LinkEvent};
use crate::message::{
    Ended, FromIngress, IngressOrders, IngressReport, Known, NODE_GUEST, Peer, ToIngress,
};
use crate::plane::{Count, IngressPlane, Result, Unstored};
use crate::{clock, file, priority};
use ending::Ending;

/// How often an ingress reports when nothing changes.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// Events that wait for the loop: a table in 16 messages, and datagrams of a second.
const EVENTS_MAX: usize = 1_024;

/// Events that are taken before the clock is looked at again: some milliseconds' worth.
const EVENTS_TOGETHER: usize = 32;
/// How often it looks for what is left to end, where a deadline has come.
const END_EVERY: Duration = Duration::from_millis(200);
/// A plane that could not be set up is set up again after this.
const SET_UP_AGAIN: Duration = Duration::from_secs(1);

/// What an ingress is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The guest's name.
    pub name: String,
    /// The boot of the kernel that it runs in.
    pub boot: u64,
    /// Where it keeps its orders.
    pub orders_file: PathBuf,
    /// Where its node's agent listens.
    pub agent: Address,
    pub release: String,
}

/// Opens the data plane of an identity.
pub type OpenPlane = Box<dyn Fn(&IngressOrders) -> Result<Arc<dyn IngressPlane>> + Send>;

/// Ends a running loop.
#[derive(Clone, Debug)]
pub struct Stop(SyncSender<Event>);

impl Stop {
    /// The loop returns soon. Programs, maps and links stay as they are.
    pub fn stop(&self) {
        let _ = self.0.send(Event::Stop);
    }
}

#[derive(Debug)]
enum Event {
    Link(LinkEvent<ToIngress, FromIngress>),
    Grant(LeaseGrant),
    Stored(Ticket, Result<()>),
    Counted(Ticket, Result<Count>),
    SetUp(Result<Known>),
    Replaced(u64, Result<()>),
    Ended(Result<Ended>),
    Stop,
}

enum Work {
    SetUp(Box<IngressOrders>),
    Store(
        Ticket,
        Vec<(hitless_core::row::Bucket, hitless_core::row::Row)>,
    ),
    Count(Ticket),
    Replace(u64),
    /// For this change.
    EndAll(u64),
}

/// An ingress that is ready to run.
pub struct Ingress {
    options: Options,
    open: OpenPlane,
    events: Receiver<Event>,
    stop: Stop,
    link: Option<link::Sender<FromIngress>>,
    running: Option<Running>,
    /// The orders in the file.
    kept: Option<IngressOrders>,
    fault: Option<String>,
    /// When to set up again what could not be set up. None: it is.
    set_up_again: Option<Instant>,
    report_due: Instant,
}

impl std::fmt::Debug for Ingress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingress")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What exists once the guest knows who it is.
struct Running {
    orders: IngressOrders,
    machine: Guest,
    plane: Arc<dyn IngressPlane>,
    worker: Sender<Work>,
    sockets: Vec<UdpSocket>,
    seal: Seal,
    /// Whom the plane knows by now.
    known: Known,
    bpf_generation: u64,
    replacing: bool,
    /// When to end again what is there, where it is told to. None: the worker is about it.
    end_due: Option<Instant>,
    ended: Option<Ended>,
}

impl Ingress {
    /// Links to the agent; nothing is done before [`Self::run`].
    pub fn new(options: Options, open: OpenPlane) -> Self {
        let (sender, events) = sync_channel(EVENTS_MAX);
        let hello = Hello {
            name: options.name.clone(),
            kernel: options.boot,
            release: options.release.clone(),
            version: 0,
        };
        let deliver = sender.clone();
        let deliver = move |event| deliver.send(Event::Link(event)).is_ok();
        link::keep(
            options.agent.clone(),
            move || hello.clone(),
            NODE_GUEST,
            deliver,
        );
        Self {
            options,
            open,
            events,
            stop: Stop(sender),
            link: None,
            running: None,
            kept: None,
            fault: None,
            set_up_again: None,
            report_due: Instant::now(),
        }
    }

    /// What ends it.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Runs until it is told to stop.
    pub fn run(mut self) {
        priority::raise();
        if let Some(kept) = file::read_json::<IngressOrders>(&self.options.orders_file)
            && kept.boot == self.options.boot
        {
            self.obey(kept);
        }
        loop {
            let deadline = self
                .running
                .as_ref()
                .and_then(|running| running.machine.deadline());
            let patience = clock::until(deadline, REPORT_EVERY);
            let patience = patience.min(self.report_due.saturating_duration_since(Instant::now()));
            match self.events.recv_timeout(patience) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            // What has come meanwhile is known before the clock is looked at.
            for _ in 0..EVENTS_TOGETHER {
                match self.events.try_recv() {
                    Ok(Event::Stop) => return,
                    Ok(event) => self.handle(event),
                    Err(_) => break,
                }
            }
            self.tick();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Link(LinkEvent::Up { sender, peer, .. }) => {
                tracing::info!(
                    agent = peer.name,
                    version = peer.version,
                    "linked to the agent"
                );
                self.link = Some(sender);
                self.say_ready();
            }
            Event::Link(LinkEvent::Down { link, reason }) => {
                if self
                    .link
                    .as_ref()
                    .is_some_and(|sender| sender.link() == link)
                {
                    tracing::info!(reason, "the link to the agent ended");
                    self.link = None;
                }
            }
            Event::Link(LinkEvent::Message { message, .. }) => match message {
                ToIngress::Orders(orders) => self.obey(*orders),
                ToIngress::Table(message) => self.feed(Input::Message(message)),
            },
            Event::Grant(grant) => self.feed(Input::Grant(grant)),
            Event::Stored(ticket, Ok(())) => self.feed(Input::Stored { ticket }),
            Event::Counted(ticket, Ok(Count { live, connections })) => {
                self.feed(Input::Counted {
                    ticket,
                    live,
                    connections,
                });
            }
            Event::Stored(_, Err(error)) => self.failed(&error.to_string()),
            Event::Counted(ticket, Err(error)) => {
                self.failed(&error.to_string());
                self.feed(Input::CountFailed { ticket });
            }
            Event::SetUp(Err(error)) => {
                self.failed(&error.to_string());
                self.set_up_again = Some(Instant::now() + SET_UP_AGAIN);
            }
            Event::SetUp(Ok(known)) => {
                self.fault = None;
                if let Some(running) = &mut self.running {
                    running.known = known;
                }
                self.report_due = Instant::now();
            }
            Event::Replaced(generation, result) => {
                if let Some(running) = &mut self.running {
                    running.replacing = false;
                    // A program that could not be replaced is not tried again: the order is
                    // answered by the fault.
                    running.bpf_generation = generation;
                }
                match result {
                    Ok(()) => tracing::info!(generation, "replaced the program"),
                    Err(error) => self.failed(&error.to_string()),
                }
                self.report_due = Instant::now();
            }
            Event::Ended(result) => {
                if let Some(running) = &mut self.running {
                    running.end_due = Some(Instant::now() + END_EVERY);
                }
                match result {
                    Ok(ended) => self.ended(ended),
                    Err(error) => self.failed(&error.to_string()),
                }
            }
            Event::Stop => {}
        }
    }

    fn ended(&mut self, ended: Ended) {
        let Some(running) = &mut self.running else {
            return;
        };
        if running.ended.as_ref() != Some(&ended) {
            tracing::info!(total = ended.total, "ended connections at a deadline");
            self.report_due = Instant::now();
        }
        running.ended = Some(ended);
    }

    fn failed(&mut self, error: &str) {
        tracing::error!(error, "the data plane failed");
        self.fault = Some(error.to_owned());
        self.report_due = Instant::now();
    }

    /// Becomes, or stays, what the orders say.
    fn obey(&mut self, orders: IngressOrders) {
        if orders.boot != self.options.boot {
            return;
        }
        let is_same = |running: &Running| running.orders.slot == orders.slot;
        if !self.running.as_ref().is_some_and(is_same) {
            match self.begin(orders.clone()) {
                Ok(running) => self.running = Some(running),
                Err(error) => return self.failed(&error.to_string()),
            }
            self.say_ready();
        }
        let Some(running) = &mut self.running else {
            return;
        };
        if running.orders != orders || self.fault.is_some() {
            let _ = running.worker.send(Work::SetUp(Box::new(orders.clone())));
        }
        if orders.bpf_generation > running.bpf_generation && !running.replacing {
            running.replacing = true;
            let _ = running.worker.send(Work::Replace(orders.bpf_generation));
        }
        if orders.ends_for.is_none() {
            running.ended = None;
        }
        running.orders = orders;
        if self.kept.as_ref() != Some(&running.orders) {
            self.kept = Some(running.orders.clone());
            if let Err(error) = file::write_json(&self.options.orders_file, &running.orders) {
                tracing::warn!(%error, "cannot keep the orders in a file");
            }
        }
    }

    /// Loads or adopts the plane, and makes the machine with the rows that it has.
    fn begin(&self, orders: IngressOrders) -> Result<Running> {
        let plane = (self.open)(&orders)?;
        let machine = Guest::new(orders.slot, &plane.rows());
        let seal = Seal::new(orders.key);
        let (worker, work) = channel();
        let (its_plane, events) = (Arc::clone(&plane), self.stop.0.clone());
        let ending = Ending::new(self.options.orders_file.with_extension("ended.json"));
        std::thread::spawn(move || do_work(&*its_plane, ending, &work, &events));
        let _ = worker.send(Work::SetUp(Box::new(orders.clone())));
        let mut sockets = Vec::new();
        for address in &orders.addresses {
            match self.listen(*address, &orders, seal.clone()) {
                Ok(socket) => sockets.push(socket),
                Err(error) => {
                    tracing::error!(%address, %error, "cannot ask for leases from this address")
                }
            }
        }
        tracing::info!(slot = %orders.slot, "running");
        let bpf_generation = orders.bpf_generation;
        Ok(Running {
            orders,
            machine,
            plane,
            worker,
            sockets,
            seal,
            known: Known::default(),
            bpf_generation,
            replacing: false,
            end_due: Some(Instant::now()),
            ended: None,
        })
    }

    fn listen(&self, address: IpAddr, orders: &IngressOrders, seal: Seal) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(SocketAddr::new(address, 0))?;
        let (receiving, events, me) = (socket.try_clone()?, self.stop.0.clone(), orders.slot);
        std::thread::spawn(move || {
            let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
            loop {
                match receiving.recv(&mut bytes) {
                    Ok(length) => {
                        if let Some(grant) = seal.open_grant(me, &bytes[..length])
                            && events.send(Event::Grant(grant)).is_err()
                        {
                            return;
                        }
                    }
                    // An ICMP error about an agent that is away; the next answer may come any time.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Ok(socket)
    }

    fn feed(&mut self, input: Input) {
        if let Some(running) = &mut self.running {
            running.machine.handle(clock::now(), input);
        }
        self.act();
    }

    fn tick(&mut self) {
        let now = clock::now();
        if let Some(running) = &mut self.running
            && running.machine.deadline().is_some_and(|due| due <= now)
        {
            running.machine.handle(now, Input::Tick);
        }
        self.act();
        if self.set_up_again.is_some_and(|due| due <= Instant::now()) {
            self.set_up_again = None;
            if let Some(running) = &self.running {
                let orders = Box::new(running.orders.clone());
                let _ = running.worker.send(Work::SetUp(orders));
            }
        }
        if let Some(running) = &mut self.running
            && let Some(change) = running.orders.ends_for
            && running.end_due.is_some_and(|due| due <= Instant::now())
        {
            running.end_due = None;
            let _ = running.worker.send(Work::EndAll(change));
        }
        if self.report_due <= Instant::now() {
            self.report_due = Instant::now() + REPORT_EVERY;
            self.report();
        }
    }

    /// Carries out what the machine wants.
    fn act(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        while let Some(action) = running.machine.poll_action() {
            match action {
                Action::Store { ticket, rows } => {
                    let _ = running.worker.send(Work::Store(ticket, rows));
                }
                Action::Count { ticket } => {
                    let _ = running.worker.send(Work::Count(ticket));
                }
                Action::Send(message) => send(self.link.as_ref(), message),
                Action::Ask(request) => running.ask(&request),
                Action::Lease { until } => running.plane.lease(until.0),
                Action::Believe { dead } => {
                    let dead: Vec<_> = dead
                        .into_iter()
                        .filter(|slot| *slot != running.orders.slot)
                        .collect();
                    if let Err(error) = running.plane.believe(&dead) {
                        tracing::error!(%error, "cannot mark the dead");
                    }
                }
            }
        }
    }

    fn say_ready(&self) {
        if let (Some(link), Some(running)) = (&self.link, &self.running) {
            link.send(FromIngress::Ready {
                slot: running.orders.slot,
            });
        }
    }

    fn report(&mut self) {
        let mut report = IngressReport {
            pid: std::process::id(),
            at_us: clock::wall_us(),
            fault: self.fault.clone(),
            ..IngressReport::default()
        };
        if let Some(running) = &mut self.running {
            let directors = running.plane.stampers();
            if !directors.is_empty() {
                running
                    .machine
                    .handle(clock::now(), Input::Stamps { directors });
            }
            report.program = running.plane.program();
            report.known = running.known.clone();
            report.counters = running.plane.counters();
            report.bpf_generation = running.bpf_generation;
            report.ended.clone_from(&running.ended);
        }
        if let Some(link) = &self.link {
            link.send(FromIngress::Report(report));
        }
    }
}

impl Running {
    /// Asks every director's agent, from an address of its family.
    fn ask(&self, request: &LeaseRequest) {
        let datagram = self.seal.request(request);
        for address in self.orders.directors.values() {
            let to = SocketAddr::new(*address, self.orders.lease_port);
            let fits = |socket: &&UdpSocket| {
                socket
                    .local_addr()
                    .is_ok_and(|from| from.is_ipv4() == address.is_ipv4())
            };
            if let Some(socket) = self.sockets.iter().find(fits) {
                // What is lost is asked again in 20 ms.
                let _ = socket.send_to(&datagram, to);
            }
        }
    }
}

/// Whom a plane knows that was set up by these orders.
fn known_by(orders: &IngressOrders) -> Known {
    let is_reached = |peer: &&Peer| {
        peer.addresses.iter().any(|its| {
            orders
                .addresses
                .iter()
                .any(|own| own.is_ipv4() == its.is_ipv4())
        })
    };
    let peers = orders.peers.iter().filter(is_reached);
    Known {
        guests: peers.map(|peer| peer.slot).collect(),
        directors: orders.directors.keys().copied().collect(),
    }
}

fn send(link: Option<&link::Sender<FromIngress>>, message: FromGuest) {
    if let Some(link) = link {
        link.send(FromIngress::Table(message));
    }
}

/// The worker: what may block, in order.
fn do_work(
    plane: &dyn IngressPlane,
    mut ending: Ending,
    work: &Receiver<Work>,
    events: &SyncSender<Event>,
) {
    priority::ordinary();
    let mut unstored = Unstored::default();
    while let Ok(work) = work.recv() {
        let event = match work {
            Work::SetUp(orders) => Event::SetUp(plane.set_up(&orders).map(|()| known_by(&orders))),
            Work::Store(ticket, rows) => {
                Event::Stored(ticket, unstored.store(rows, |rows| plane.store(rows)))
            }
            Work::Count(ticket) => Event::Counted(ticket, plane.count()),
            Work::Replace(generation) => Event::Replaced(generation, plane.replace()),
            Work::EndAll(change) => Event::Ended(ending.end_all(plane, change)),
        };
        if events.send(event).is_err() {
            return;
        }
    }
}
