//! A whole cluster in virtual time: the product's machines, and a world that delays, loses, repeats
//! and cuts what they say, kills what they run on, and asks them for changes.
//!
//! One controller (that dies and comes back), two directors' agents, guests with kernels, a store,
//! 65,536 buckets. Everything follows from a seed. After each event [`lockstep`] compares chosen
//! buckets with the checker's single steps, [`packets`] sends packets through `core::steer` by the
//! maps as they lie there at that moment, and when the faults are over everything has to settle.
//!
//! Not here: bytes, links' encodings, the drivers' own tasks: those are tested where they are.

use std::collections::{BTreeMap, BTreeSet};

use hitless_core::row::{BUCKETS, Bucket, GuestSlot, Row, Sequence};
use hitless_core::rules::Rules;
use hitless_core::table::agent::{self, Agent, Trust};
use hitless_core::table::controller::{
    self, Controller, GuestPolicy, Header, PAGE_BUCKETS, Page, Policy, State, Status, Wanted,
};
use hitless_core::table::guest::{self, Guest, LEASE_US, Ticket};
use hitless_core::table::message::{DirectorId, Party};
use hitless_core::table::step::Entry;
use hitless_core::time::Time;

mod carry_out;
pub mod faults;
pub mod lockstep;
mod packets;
mod random;

pub use lockstep::Lockstep;
pub use random::Random;

/// Buckets that are compared with the model, and that connections are opened in.
const WATCHED: usize = 12;

/// Something that arrives or ends at its time.
#[derive(Clone, Debug)]
enum Event {
    ToController(controller::Input),
    ToAgent(DirectorId, agent::Input),
    ToGuest(GuestSlot, guest::Input),
    /// Rows are in a party's map, and no packet is judged by older ones.
    Stored(Party, Life, Ticket, Vec<(Bucket, Row)>),
    /// The scan of this ticket reads the kernel's sockets now.
    Scan(GuestSlot, Life, Ticket),
    /// The scan is over.
    Counted(GuestSlot, Life, guest::Input),
    /// A packet arrives at a guest.
    Packet(packets::Packet),
    /// A guest's SYN-ACK arrives at the client.
    SynAck(packets::Id, GuestSlot),
    /// A write reaches the store.
    Commit {
        life: Life,
        parent: Option<hitless_core::table::message::Generation>,
        header: Header,
        pages: Vec<(u16, Page)>,
    },
    Load(Life),
    Fault(faults::Fault),
}

/// Which process it is: what another one's driver began is nothing to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Life(u64);

/// A director's node: its agent, and what outlives that.
#[derive(Debug)]
pub(crate) struct Node {
    agent: Agent,
    /// The pinned map.
    map: Vec<Row>,
    kept: Trust,
    believed_dead: Vec<GuestSlot>,
    /// Of each bucket the newest row that it acknowledged.
    acknowledged: Vec<Sequence>,
    /// Until when the last action of its driver is done: they are carried out in order.
    busy: Time,
    life: Life,
}

/// A guest's kernel, with the machine of its ingress.
#[derive(Debug)]
pub(crate) struct Host {
    machine: Guest,
    map: Vec<Row>,
    believed_dead: Vec<GuestSlot>,
    lease_until: Time,
    acknowledged: Vec<Sequence>,
    flows: BTreeMap<packets::Id, packets::Flow>,
    busy: Time,
    life: Life,
}

/// What came of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    pub events: u64,
    pub writes: u64,
    pub messages_lost: u64,
    pub faults: u64,
    pub orders: u64,
    pub connections: u64,
    pub packets: u64,
    pub hops: u64,
}

/// The world.
#[derive(Debug)]
pub struct World {
    pub now: Time,
    pub tally: Tally,
    random: Random,
    queue: BTreeMap<(Time, u64), Event>,
    number: u64,
    store: Option<(Header, Vec<Page>)>,
    controller: Option<Controller>,
    /// Of the controller.
    life: Life,
    policy: Policy,
    boots: BTreeMap<String, u64>,
    nodes: BTreeMap<DirectorId, Node>,
    hosts: BTreeMap<GuestSlot, Host>,
    /// What the dead had acknowledged, by slot.
    dead: BTreeMap<GuestSlot, Vec<Sequence>>,
    /// Of 1,000 messages so many are lost, and so many come twice.
    loss: u64,
    /// Parties that cannot be reached, and do not reach anybody.
    cut: BTreeSet<Party>,
    /// The controller reaches nobody.
    is_controller_cut: bool,
    connections: BTreeMap<packets::Id, packets::Connection>,
    next_connection: u64,
    /// What must never happen, and did.
    broken: Option<String>,
}

impl World {
    /// Two directors and no guest yet.
    pub fn new(seed: u64) -> Self {
        let ids: BTreeSet<DirectorId> = [1, 2].map(DirectorId).into();
        let node = |id: &DirectorId| {
            let node = Node {
                agent: Agent::new(*id, &[], Trust::default()),
                map: vec![Row::NONE; BUCKETS],
                kept: Trust::default(),
                believed_dead: Vec::new(),
                acknowledged: vec![Sequence(0); BUCKETS],
                busy: Time(0),
                life: Life(0),
            };
            (*id, node)
        };
        let mut world = Self {
            now: Time(1_000_000),
            tally: Tally::default(),
            random: Random::new(seed),
            queue: BTreeMap::new(),
            number: 0,
            store: None,
            controller: Some(Controller::new()),
            nodes: ids.iter().map(node).collect(),
            policy: Policy {
                directors: ids,
                ..Policy::default()
            },
            boots: BTreeMap::new(),
            life: Life(0),
            hosts: BTreeMap::new(),
            dead: BTreeMap::new(),
            loss: 0,
            cut: BTreeSet::new(),
            is_controller_cut: false,
            connections: BTreeMap::new(),
            next_connection: 0,
            broken: None,
        };
        world.tell_policy();
        world
    }

    /// A guest of this name on this node, from its first boot on.
    pub fn add_guest(&mut self, name: &str, node: &str) {
        let guest = GuestPolicy {
            weight: 1,
            node: node.to_owned(),
            wanted: Wanted::Serve,
            change: Some(format!("add-{name}")),
        };
        self.policy.guests.insert(name.to_owned(), guest);
        self.tell_policy();
        self.boot(name);
    }

    /// What the operator wants of a guest.
    pub fn want(&mut self, name: &str, wanted: Wanted) {
        let guest = self.policy.guests.get_mut(name).expect("a guest's name");
        guest.wanted = wanted;
        self.tell_policy();
    }

    /// The directors whose acknowledgements count from now on.
    pub fn list_directors(&mut self, directors: &[u16]) {
        self.policy.directors = directors.iter().copied().map(DirectorId).collect();
        self.tell_policy();
    }

    /// Somebody says that a guest is dead, or that it is not.
    pub fn suspect(&mut self, slot: GuestSlot, is_suspect: bool) {
        self.tell(controller::Input::Suspected { slot, is_suspect });
    }

    /// Stamps of this director arrive at a guest.
    pub fn stamp(&mut self, slot: GuestSlot, director: u16) {
        let directors = vec![DirectorId(director)];
        let input = guest::Input::Stamps { directors };
        self.schedule(self.now, Event::ToGuest(slot, input));
    }

    /// The slot of a guest's newest kernel.
    pub fn slot(&self, name: &str) -> Option<GuestSlot> {
        self.controller.as_ref()?.slot_of(name)
    }

    /// What the controller says of the table.
    pub fn status(&self) -> Option<Status> {
        Some(self.controller.as_ref()?.status())
    }

    /// The stored table; empty if there is none.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let pages = self.store.iter().flat_map(|(_, pages)| pages);
        pages.flat_map(|page| &page.entries)
    }

    /// Runs for so long; `check` sees the world after each event.
    pub fn run(
        &mut self,
        us: u64,
        check: &mut impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let end = self.now.after_us(us);
        loop {
            let event = self.queue.first_key_value().map(|((due, _), _)| *due);
            let due = self.deadline().into_iter().chain(event).min();
            let Some(due) = due.filter(|due| *due <= end) else {
                self.now = end;
                return Ok(());
            };
            self.now = self.now.max(due);
            if event.is_some_and(|event| event <= self.now) {
                let (_, event) = self.queue.pop_first().expect("it was looked at");
                self.take(event);
            } else {
                self.tick();
            }
            self.tally.events += 1;
            self.pump();
            if let Some(broken) = self.broken.take() {
                return Err(broken);
            }
            check(self)?;
        }
    }

    /// Runs until the table is where it is wished, all faults being over.
    pub fn settle(
        &mut self,
        within_us: u64,
        check: &mut impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let end = self.now.after_us(within_us);
        while self.now < end {
            self.run(100_000, check)?;
            let is_settled = |status: &Status| status.unsettled == 0 && status.waits.is_empty();
            if self.status().as_ref().is_some_and(is_settled) && self.store.is_some() {
                return self.agreed();
            }
        }
        let status = self
            .status()
            .map(|status| (status.waits, status.guests, status.unsettled));
        let dead: Vec<&GuestSlot> = self.dead.keys().collect();
        Err(format!(
            "not settled after {} s, dead {dead:?}: {status:?}",
            within_us / 1_000_000
        ))
    }

    /// All living parties that count have the rows of the store.
    fn agreed(&self) -> Result<(), String> {
        let is_listed = |(id, _): &(&DirectorId, &Node)| self.policy.directors.contains(id);
        let maps = self
            .nodes
            .iter()
            .filter(is_listed)
            .map(|(_, node)| &node.map);
        let maps = maps.chain(self.hosts.values().map(|host| &host.map));
        for map in maps {
            for (index, (entry, row)) in self.entries().zip(map).enumerate() {
                if entry.row != *row {
                    return Err(format!(
                        "bucket {index}: {row:?} in a map, {:?} stored",
                        entry.row
                    ));
                }
            }
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Time> {
        let agents = self.nodes.values().filter_map(|node| node.agent.deadline());
        let guests = self
            .hosts
            .values()
            .filter_map(|host| host.machine.deadline());
        let controller = self.controller.iter().filter_map(Controller::deadline);
        agents.chain(guests).chain(controller).min()
    }

    /// Ticks of all machines whose deadline has come; at least a microsecond passes.
    fn tick(&mut self) {
        let now = self.now;
        for node in self.nodes.values_mut() {
            if node.agent.deadline().is_some_and(|due| due <= now) {
                node.agent.handle(now, agent::Input::Tick);
            }
        }
        for host in self.hosts.values_mut() {
            if host.machine.deadline().is_some_and(|due| due <= now) {
                host.machine.handle(now, guest::Input::Tick);
            }
        }
        if let Some(controller) = &mut self.controller
            && controller.deadline().is_some_and(|due| due <= now)
        {
            controller.handle(now, controller::Input::Tick);
        }
        self.now = now.after_us(1);
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.number += 1;
        self.queue.insert((at, self.number), event);
    }

    fn tell(&mut self, input: controller::Input) {
        self.schedule(self.now, Event::ToController(input));
    }

    fn tell_policy(&mut self) {
        self.tell(controller::Input::Policy(self.policy.clone()));
    }

    fn boot(&mut self, name: &str) {
        let boot = self.boots.entry(name.to_owned()).or_insert(0);
        *boot += 1;
        let (name, boot) = (name.to_owned(), *boot);
        self.tell(controller::Input::Booted { name, boot });
    }

    /// Whose kernel a slot is, while it lives.
    fn is_alive(&self, slot: GuestSlot) -> bool {
        self.hosts.contains_key(&slot)
    }

    /// Whether a kernel's ingress has its lease, or will when a grant arrives that was given already.
    fn may_have_lease(&self, slot: GuestSlot) -> bool {
        let Some(host) = self.hosts.get(&slot) else {
            return false;
        };
        let is_in_flight = |event: &Event| {
            matches!(event, Event::ToGuest(to, guest::Input::Grant(grant))
                if *to == slot
                    && grant.is_renewed
                    && grant.asked.after_us(LEASE_US) > self.now)
        };
        host.lease_until > self.now || self.queue.values().any(is_in_flight)
    }

    fn entry(&self, index: usize) -> Option<&Entry> {
        let (_, pages) = self.store.as_ref()?;
        pages
            .get(index / PAGE_BUCKETS)?
            .entries
            .get(index % PAGE_BUCKETS)
    }

    fn state_of(&self, slot: GuestSlot) -> Option<State> {
        let (header, _) = self.store.as_ref()?;
        Some(header.guests.get(&slot)?.state)
    }
}

/// One cluster's life: three guests, faults for so long, then rest; and what it was.
pub fn run_seed(rules: Rules, seed: u64, us: u64) -> Ended {
    let mut random = Random::new(seed);
    let mut number = || u16::try_from(random.below(BUCKETS as u64)).expect("a bucket's number");
    let buckets: Vec<Bucket> = (0..WATCHED).map(|_| Bucket(number())).collect();
    let mut lockstep = Lockstep::new(rules, &buckets);
    let mut world = World::new(seed);
    let mut check = |world: &mut World| lockstep.check(world);
    let result = (|| {
        world.add_guest("a", "n1");
        world.add_guest("b", "n2");
        world.settle(10_000_000, &mut check)?;
        world.add_guest("c", "n1");
        world.live_through(us, &buckets, &mut check)
    })();
    Ended {
        result,
        tally: world.tally,
        lockstep,
    }
}

/// What came of one seed.
#[derive(Debug)]
pub struct Ended {
    /// `Err` says what broke.
    pub result: Result<(), String>,
    pub tally: Tally,
    pub lockstep: Lockstep,
}
