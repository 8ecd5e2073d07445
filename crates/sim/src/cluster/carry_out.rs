//! The drivers' part: what machines ask for is done, late, twice or not at all.

use std::collections::{BTreeMap, BTreeSet};

use hitless_core::row::{BUCKETS, Bucket, GuestSlot, Row, Sequence};
use hitless_core::table::agent;
use hitless_core::table::controller::{self, Controller};
use hitless_core::table::guest::{self, Guest, LEASE_US};
use hitless_core::table::message::{DirectorId, FromAgent, FromGuest, Party};
use hitless_core::time::Time;

use super::{Event, Host, Life, World};

/// A message within the cluster takes so long at most, beside 0.1 ms: 3 ms, rarely 150 ms.
const SLOW_US: [u64; 2] = [3_000, 150_000];
/// A write of the store takes so long at most.
const WRITE_US: u64 = 4_000;
/// A row in the map and the grace period behind it.
const STORE_US: u64 = 5_000;
/// A scan of all sockets.
const SCAN_US: u64 = 20_000;

impl World {
    /// What happens at its time.
    pub(super) fn take(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::ToController(input) => {
                if let Some(controller) = &mut self.controller {
                    controller.handle(now, input);
                }
            }
            Event::ToAgent(id, input) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.agent.handle(now, input);
                }
            }
            Event::ToGuest(slot, input) => {
                self.begin(slot);
                if let Some(host) = self.hosts.get_mut(&slot) {
                    host.machine.handle(now, input);
                }
            }
            Event::Stored(party, life, ticket, rows) => self.stored(party, life, ticket, &rows),
            Event::Scan(slot, life, ticket) => {
                let Some(host) = self.hosts.get(&slot).filter(|host| host.life == life) else {
                    return;
                };
                let mut live: BTreeMap<Bucket, u32> = BTreeMap::new();
                for flow in host.flows.values() {
                    *live.entry(flow.bucket).or_default() += 1;
                }
                let input = guest::Input::Counted {
                    ticket,
                    live: live.into_iter().collect(),
                    connections: host.flows.len() as u64,
                };
                let late = self.random.below(SCAN_US);
                self.schedule(now.after_us(late), Event::Counted(slot, life, input));
            }
            Event::Counted(slot, life, input) => {
                if let Some(host) = self.hosts.get_mut(&slot)
                    && host.life == life
                {
                    host.machine.handle(now, input);
                }
            }
            Event::Packet(packet) => self.arrive(packet),
            Event::SynAck(id, from) => self.syn_ack(id, from),
            Event::Fault(fault) => self.happen(fault),
            Event::Commit {
                life,
                parent,
                header,
                pages,
            } => {
                let stored = self.store.as_ref().map(|(header, _)| header.generation);
                let input = if stored == parent {
                    self.tally.writes += 1;
                    let (_, mut all) = self.store.take().unwrap_or((header.clone(), Vec::new()));
                    for (number, page) in pages {
                        match all.get_mut(usize::from(number)) {
                            Some(old) => *old = page,
                            None => all.push(page),
                        }
                    }
                    self.store = Some((header, all));
                    controller::Input::Written
                } else {
                    controller::Input::Conflict
                };
                if life == self.life {
                    self.take(Event::ToController(input));
                    self.all_reachable();
                }
            }
            Event::Load(life) => {
                if life == self.life {
                    let input = controller::Input::Loaded(self.store.clone());
                    self.take(Event::ToController(input));
                    self.all_reachable();
                }
            }
        }
    }

    /// In this world everybody knows at once how to reach everybody who has a slot.
    fn all_reachable(&mut self) {
        let guests = self.store.iter().flat_map(|(header, _)| &header.guests);
        let slots: BTreeSet<GuestSlot> = guests
            .filter(|(_, guest)| !guest.is_known)
            .map(|(slot, _)| *slot)
            .collect();
        if !slots.is_empty() {
            self.take(Event::ToController(controller::Input::Reachable { slots }));
        }
    }

    /// The machine of a kernel that has a slot and no machine yet.
    fn begin(&mut self, slot: GuestSlot) {
        if self.state_of(slot).is_none() || self.is_alive(slot) || self.dead.contains_key(&slot) {
            return;
        }
        let host = Host {
            machine: Guest::new(slot, &[]),
            map: vec![Row::NONE; BUCKETS],
            believed_dead: Vec::new(),
            lease_until: Time(0),
            acknowledged: vec![Sequence(0); BUCKETS],
            flows: BTreeMap::new(),
            busy: Time(0),
            life: Life(0),
        };
        self.hosts.insert(slot, host);
    }

    fn stored(&mut self, party: Party, life: Life, ticket: guest::Ticket, rows: &[(Bucket, Row)]) {
        let now = self.now;
        let put = |map: &mut Vec<Row>| {
            for (bucket, row) in rows {
                map[usize::from(bucket.0)] = *row;
            }
        };
        match party {
            Party::Director(id) => {
                let Some(node) = self.nodes.get_mut(&id).filter(|node| node.life == life) else {
                    return;
                };
                put(&mut node.map);
                node.agent.handle(now, agent::Input::Stored { ticket });
            }
            Party::Guest(slot) => {
                let Some(host) = self.hosts.get_mut(&slot).filter(|host| host.life == life) else {
                    return;
                };
                put(&mut host.map);
                host.machine.handle(now, guest::Input::Stored { ticket });
            }
        }
    }

    /// Carries out what all machines ask for.
    pub(super) fn pump(&mut self) {
        while let Some(action) = self.controller.as_mut().and_then(Controller::poll_action) {
            self.controller_asks(action);
        }
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            while let Some(action) = self
                .nodes
                .get_mut(&id)
                .and_then(|node| node.agent.poll_action())
            {
                self.agent_asks(id, action);
            }
        }
        for slot in self.hosts.keys().copied().collect::<Vec<_>>() {
            while let Some(action) = self
                .hosts
                .get_mut(&slot)
                .and_then(|host| host.machine.poll_action())
            {
                self.guest_asks(slot, action);
            }
        }
    }

    fn controller_asks(&mut self, action: controller::Action) {
        match action {
            controller::Action::Load => {
                self.schedule(self.now.after_us(500), Event::Load(self.life));
            }
            controller::Action::Write {
                parent,
                header,
                pages,
            } => {
                let at = self.now.after_us(self.random.below(WRITE_US));
                let event = Event::Commit {
                    life: self.life,
                    parent,
                    header,
                    pages,
                };
                self.schedule(at, event);
            }
            controller::Action::ToAgent { to, message } => {
                let event = Event::ToAgent(to, agent::Input::Message(message));
                self.send(None, Some(Party::Director(to)), event);
            }
            controller::Action::ToGuest { to, message } => {
                let event = Event::ToGuest(to, guest::Input::Message(message));
                self.send(None, Some(Party::Guest(to)), event);
            }
        }
    }

    fn agent_asks(&mut self, id: DirectorId, action: agent::Action) {
        let party = Party::Director(id);
        match action {
            agent::Action::Store { ticket, rows } => {
                let (at, life) = self.done_at(party, STORE_US);
                self.schedule(at, Event::Stored(party, life, ticket, rows));
            }
            agent::Action::Send(message) => {
                if let FromAgent::Applied { rows } = &message {
                    let node = self.nodes.get_mut(&id).expect("it asks");
                    note(&mut node.acknowledged, rows);
                }
                let input = controller::Input::FromAgent { from: id, message };
                self.send(Some(party), None, Event::ToController(input));
            }
            agent::Action::Grant { to, grant } => {
                let event = Event::ToGuest(to, guest::Input::Grant(grant));
                self.send(Some(party), Some(Party::Guest(to)), event);
            }
            agent::Action::Believe { dead } => {
                self.nodes.get_mut(&id).expect("it asks").believed_dead = dead;
            }
            agent::Action::Keep(trust) => {
                self.nodes.get_mut(&id).expect("it asks").kept = trust;
            }
        }
    }

    fn guest_asks(&mut self, slot: GuestSlot, action: guest::Action) {
        let party = Party::Guest(slot);
        match action {
            guest::Action::Store { ticket, rows } => {
                let (at, life) = self.done_at(party, STORE_US);
                self.schedule(at, Event::Stored(party, life, ticket, rows));
            }
            guest::Action::Count { ticket } => {
                let at = self.now.after_us(self.random.below(SCAN_US));
                let life = self.hosts.get(&slot).expect("it asks").life;
                self.schedule(at, Event::Scan(slot, life, ticket));
            }
            guest::Action::Send(message) => {
                if let FromGuest::Applied { rows } = &message {
                    let host = self.hosts.get_mut(&slot).expect("it asks");
                    note(&mut host.acknowledged, rows);
                }
                let from = slot;
                let input = controller::Input::FromGuest { from, message };
                self.send(Some(party), None, Event::ToController(input));
            }
            guest::Action::Ask(request) => {
                for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                    let event = Event::ToAgent(id, agent::Input::Request(request));
                    self.send(Some(party), Some(Party::Director(id)), event);
                }
            }
            guest::Action::Lease { until } => {
                assert!(until <= self.now.after_us(LEASE_US), "no lease is longer");
                self.hosts.get_mut(&slot).expect("it asks").lease_until = until;
            }
            guest::Action::Believe { dead } => {
                self.hosts.get_mut(&slot).expect("it asks").believed_dead = dead;
            }
        }
    }

    /// When a party's driver has done this and all before it, and which driver that is.
    fn done_at(&mut self, party: Party, most_us: u64) -> (Time, Life) {
        let took = self.random.below(most_us);
        let now = self.now;
        let (busy, life) = match party {
            Party::Director(id) => {
                let node = self.nodes.get_mut(&id).expect("it asks");
                (&mut node.busy, node.life)
            }
            Party::Guest(slot) => {
                let host = self.hosts.get_mut(&slot).expect("it asks");
                (&mut host.busy, host.life)
            }
        };
        *busy = now.max(*busy).after_us(took);
        (*busy, life)
    }

    /// A message on its way; `None` is the controller.
    fn send(&mut self, from: Option<Party>, to: Option<Party>, event: Event) {
        let is_cut = [from, to]
            .into_iter()
            .any(|end| end.map_or(self.is_controller_cut, |party| self.cut.contains(&party)));
        if is_cut || self.random.happens(self.loss) {
            self.tally.messages_lost += 1;
            return;
        }
        let is_slow = self.loss > 0 && self.random.happens(20);
        let slow = SLOW_US[usize::from(is_slow)];
        let at = self.now.after_us(100 + self.random.below(slow));
        if self.random.happens(self.loss) {
            let again = at.after_us(self.random.below(slow));
            self.schedule(again, event.clone());
        }
        self.schedule(at, event);
    }
}

fn note(acknowledged: &mut [Sequence], rows: &[(Bucket, Sequence)]) {
    for (bucket, sequence) in rows {
        acknowledged[usize::from(bucket.0)] = *sequence;
    }
}
