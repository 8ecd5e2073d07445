use super::*;
use crate::row::{Row, Sequence};
use crate::table::agent::{self, Agent, Trust};
use crate::table::guest::{self, Guest, LEASE_US};
use crate::table::step::Why;

/// A cluster in memory: a store, a controller, agents, guests with kernels, perfect links. Time
/// jumps from deadline to deadline.
struct Cluster {
    now: Time,
    store: Option<(Header, Vec<Page>)>,
    controller: Option<Controller>,
    policy: Policy,
    agents: BTreeMap<DirectorId, Agent>,
    guests: BTreeMap<GuestSlot, Guest>,
    /// Live connections per guest and bucket.
    kernels: BTreeMap<GuestSlot, BTreeMap<Bucket, u32>>,
    leases: BTreeMap<GuestSlot, Time>,
    boots: BTreeMap<String, u64>,
    writes: usize,
    /// Of 1,000 messages so many are lost, by this generator.
    loss: u64,
    random: u64,
}

impl Cluster {
    fn new(directors: u16) -> Self {
        let ids: BTreeSet<DirectorId> = (1..=directors).map(DirectorId).collect();
        let agents = ids
            .iter()
            .map(|id| (*id, Agent::new(*id, &[], Trust::default())))
            .collect();
        Self {
            now: Time(1_000_000),
            store: None,
            controller: Some(Controller::new()),
            policy: Policy {
                directors: ids,
                ..Policy::default()
            },
            agents,
            guests: BTreeMap::new(),
            kernels: BTreeMap::new(),
            leases: BTreeMap::new(),
            boots: BTreeMap::new(),
            writes: 0,
            loss: 0,
            random: 42,
        }
    }

    fn add(&mut self, name: &str, node: &str) {
        let policy = GuestPolicy {
            weight: 1,
            node: node.to_owned(),
            wanted: Wanted::Serve,
            change: Some(format!("add-{name}")),
        };
        self.policy.guests.insert(name.to_owned(), policy);
        self.boots.insert(name.to_owned(), 1);
        self.tell(Input::Policy(self.policy.clone()));
        self.tell(Input::Booted {
            name: name.to_owned(),
            boot: 1,
        });
        self.all_reachable();
    }

    /// Everybody knows how to reach everybody.
    fn all_reachable(&mut self) {
        let guests = self.store.iter().flat_map(|(header, _)| &header.guests);
        let slots = guests.map(|(slot, _)| *slot).collect();
        self.tell(Input::Reachable { slots });
    }

    fn drain(&mut self, name: &str) {
        let guest = self.policy.guests.get_mut(name).unwrap();
        guest.wanted = Wanted::Drain;
        guest.change = Some(format!("drain-{name}"));
        self.tell(Input::Policy(self.policy.clone()));
    }

    fn slot(&self, name: &str) -> GuestSlot {
        self.controller.as_ref().unwrap().slot_of(name).unwrap()
    }

    fn kill(&mut self, slot: GuestSlot) {
        self.guests.remove(&slot);
        self.kernels.remove(&slot);
    }

    fn restart_controller(&mut self) {
        self.controller = Some(Controller::new());
        self.tell(Input::Policy(self.policy.clone()));
        for (name, boot) in self.boots.clone() {
            self.tell(Input::Booted { name, boot });
        }
        self.all_reachable();
    }

    fn tell(&mut self, input: Input) {
        let now = self.now;
        if let Some(controller) = &mut self.controller {
            controller.handle(now, input);
        }
        self.pump();
    }

    fn is_lost(&mut self) -> bool {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.random >> 33) % 1_000 < self.loss
    }

    /// Carries out all actions of all machines until none has any.
    fn pump(&mut self) {
        loop {
            let mut is_idle = true;
            while let Some(action) = self.controller.as_mut().and_then(Controller::poll_action) {
                is_idle = false;
                self.carry_out(action);
            }
            for id in self.agents.keys().copied().collect::<Vec<_>>() {
                while let Some(action) = self.agents.get_mut(&id).unwrap().poll_action() {
                    is_idle = false;
                    self.carry_out_agent(id, action);
                }
            }
            for slot in self.guests.keys().copied().collect::<Vec<_>>() {
                while let Some(action) = self.guests.get_mut(&slot).unwrap().poll_action() {
                    is_idle = false;
                    self.carry_out_guest(slot, action);
                }
            }
            if is_idle {
                return;
            }
        }
    }

    fn carry_out(&mut self, action: Action) {
        let now = self.now;
        let is_message = matches!(action, Action::ToAgent { .. } | Action::ToGuest { .. });
        if is_message && self.is_lost() {
            return;
        }
        match action {
            Action::Load => {
                let content = self.store.clone();
                self.controller
                    .as_mut()
                    .unwrap()
                    .handle(now, Input::Loaded(content));
            }
            Action::Write {
                parent,
                header,
                pages,
            } => {
                let stored = self.store.as_ref().map(|(header, _)| header.generation);
                let input = if stored == parent {
                    self.writes += 1;
                    let (_, mut all) = self.store.take().unwrap_or((header.clone(), Vec::new()));
                    for (number, page) in pages {
                        check_pages(&all, number, &page);
                        if all.len() <= usize::from(number) {
                            all.push(page);
                        } else {
                            all[usize::from(number)] = page;
                        }
                    }
                    self.store = Some((header, all));
                    Input::Written
                } else {
                    Input::Conflict
                };
                self.controller.as_mut().unwrap().handle(now, input);
            }
            Action::ToAgent { to, message } => {
                if let Some(agent) = self.agents.get_mut(&to) {
                    agent.handle(now, agent::Input::Message(message));
                }
            }
            Action::ToGuest { to, message } => {
                let name = self.store.as_ref().unwrap().0.guests[&to].name.clone();
                let is_alive = self.boots.contains_key(&name);
                if is_alive && !self.kernels.contains_key(&to) && !self.leases.contains_key(&to) {
                    self.guests.insert(to, Guest::new(to, &[]));
                    self.kernels.insert(to, BTreeMap::new());
                    self.leases.insert(to, Time(0));
                }
                if let Some(guest) = self.guests.get_mut(&to) {
                    guest.handle(now, guest::Input::Message(message));
                }
            }
        }
    }

    fn carry_out_agent(&mut self, id: DirectorId, action: agent::Action) {
        let now = self.now;
        if matches!(action, agent::Action::Send(_)) && self.is_lost() {
            return;
        }
        match action {
            agent::Action::Store { ticket, .. } => {
                self.agents
                    .get_mut(&id)
                    .unwrap()
                    .handle(now, agent::Input::Stored { ticket });
            }
            agent::Action::Send(message) => {
                if let Some(controller) = &mut self.controller {
                    controller.handle(now, Input::FromAgent { from: id, message });
                }
            }
            agent::Action::Grant { to, grant } => {
                if let Some(guest) = self.guests.get_mut(&to) {
                    guest.handle(now, guest::Input::Grant(grant));
                }
            }
            agent::Action::Believe { .. } | agent::Action::Keep(_) => {}
        }
    }

    fn carry_out_guest(&mut self, slot: GuestSlot, action: guest::Action) {
        let now = self.now;
        if matches!(action, guest::Action::Send(_)) && self.is_lost() {
            return;
        }
        match action {
            guest::Action::Store { ticket, .. } => {
                self.guests
                    .get_mut(&slot)
                    .unwrap()
                    .handle(now, guest::Input::Stored { ticket });
            }
            guest::Action::Count { ticket } => {
                let live: Vec<_> = self.kernels[&slot].iter().map(|(b, n)| (*b, *n)).collect();
                let connections = live.iter().map(|(_, held)| u64::from(*held)).sum();
                let input = guest::Input::Counted {
                    ticket,
                    live,
                    connections,
                };
                self.guests.get_mut(&slot).unwrap().handle(now, input);
            }
            guest::Action::Send(message) => {
                if let Some(controller) = &mut self.controller {
                    controller.handle(
                        now,
                        Input::FromGuest {
                            from: slot,
                            message,
                        },
                    );
                }
            }
            guest::Action::Ask(request) => {
                for agent in self.agents.values_mut() {
                    agent.handle(now, agent::Input::Request(request));
                }
            }
            guest::Action::Lease { until } => {
                assert!(until <= now.after_us(LEASE_US));
                self.leases.insert(slot, until);
            }
            guest::Action::Believe { .. } => {}
        }
    }

    /// Lets `us` pass, deadline by deadline.
    fn run(&mut self, us: u64) {
        let end = self.now.after_us(us);
        self.pump();
        loop {
            let deadlines = self
                .agents
                .values()
                .filter_map(Agent::deadline)
                .chain(self.guests.values().filter_map(Guest::deadline))
                .chain(self.controller.iter().filter_map(Controller::deadline));
            let next = deadlines.min().unwrap_or(end);
            if next >= end {
                self.now = end;
                return;
            }
            self.now = next.max(self.now.after_us(1));
            let now = self.now;
            for guest in self.guests.values_mut() {
                guest.handle(now, guest::Input::Tick);
            }
            for agent in self.agents.values_mut() {
                agent.handle(now, agent::Input::Tick);
            }
            self.tell(Input::Tick);
        }
    }

    fn status(&self) -> Status {
        self.controller.as_ref().unwrap().status()
    }

    /// Runs until nothing is unsettled.
    fn settle(&mut self) {
        for _ in 0..100 {
            self.run(100_000);
            let status = self.status();
            if status.unsettled == 0 && status.generation.is_some() && !self.entries().is_empty() {
                return;
            }
        }
        panic!("not settled: {:?}", self.status().waits);
    }

    fn entries(&self) -> Vec<Entry> {
        let pages = self.store.iter().flat_map(|(_, pages)| pages);
        pages.flat_map(|page| page.entries.clone()).collect()
    }

    fn leads(&self, slot: GuestSlot) -> usize {
        self.entries()
            .iter()
            .filter(|entry| entry.row.head() == Some(slot))
            .count()
    }

    /// All living parties have the rows that the store has.
    fn assert_agreed(&self) {
        for (index, entry) in self.entries().into_iter().enumerate() {
            let bucket = Bucket(u16::try_from(index).unwrap());
            assert!(
                self.agents
                    .values()
                    .all(|agent| agent.row(bucket) == entry.row)
            );
            assert!(
                self.guests
                    .values()
                    .all(|guest| guest.row(bucket) == entry.row)
            );
        }
    }
}

/// What a write may do to a row: one more in sequence, and at most one living guest leaves.
fn check_pages(all: &[Page], number: u16, page: &Page) {
    assert_eq!(page.entries.len(), PAGE_BUCKETS);
    let Some(old) = all.get(usize::from(number)) else {
        return;
    };
    for (old, new) in old.entries.iter().zip(&page.entries) {
        if old.row != new.row {
            assert_eq!(new.row.sequence(), old.row.sequence().next());
            assert_eq!(new.before, old.row);
            let left = old
                .row
                .slots()
                .filter(|slot| !new.row.contains(*slot))
                .count();
            assert!(left <= 1 || new.why == Why::Destroyed, "{old:?} to {new:?}");
        } else {
            assert_eq!(old.before, new.before);
        }
    }
}

#[test]
fn from_empty_to_settled_then_add_drain_and_kill() {
    let mut cluster = Cluster::new(2);
    cluster.tell(Input::Policy(cluster.policy.clone()));
    for (name, node) in [("a", "n1"), ("b", "n2"), ("c", "n3")] {
        cluster.add(name, node);
    }
    cluster.settle();
    cluster.assert_agreed();
    let (a, b, c) = (cluster.slot("a"), cluster.slot("b"), cluster.slot("c"));
    assert_eq!(
        [a, b, c].map(|slot| cluster.leads(slot).div_ceil(100)),
        [219; 3]
    );

    // A guest joins while connections live: they hold their guest in the row until they end.
    let held = Bucket(7);
    let owner = cluster.entries()[7].row.head().unwrap();
    for slot in [a, b, c] {
        let bucket = cluster
            .entries()
            .iter()
            .position(|entry| entry.row.head() == Some(slot));
        let bucket = Bucket(u16::try_from(bucket.unwrap()).unwrap());
        cluster.kernels.get_mut(&slot).unwrap().insert(bucket, 3);
    }
    cluster.kernels.get_mut(&owner).unwrap().insert(held, 1);
    cluster.add("d", "n1");
    cluster.run(3_000_000);
    let d = cluster.slot("d");
    assert_eq!(cluster.leads(d), BUCKETS / 4);
    let done = cluster
        .status()
        .changes
        .iter()
        .all(|change| change.is_done || change.left < 5);
    assert!(done, "{:?}", cluster.status().changes);

    // A drain waits for the connections, by name, and ends when they end.
    cluster.drain("b");
    cluster.run(3_000_000);
    assert_eq!(cluster.leads(b), 0, "{:?}", cluster.status());
    let holding = cluster.kernels[&b].len();
    let status = cluster.status();
    let wait = status
        .waits
        .iter()
        .find(|wait| wait.wait == Wait::Connections(b))
        .unwrap();
    assert_eq!(wait.buckets, holding);
    assert_eq!(status.guests[&b].named, holding);
    for kernel in cluster.kernels.values_mut() {
        kernel.clear();
    }
    cluster.settle();
    cluster.assert_agreed();
    assert_eq!(cluster.status().guests[&b].named, 0);
    assert!(cluster.status().changes.iter().all(|change| change.is_done));

    // A guest dies: it is put last everywhere, then leaves when its end is confirmed.
    let writes = cluster.writes;
    cluster.kill(c);
    cluster.run(2_000_000);
    assert_eq!(cluster.leads(c), 0);
    assert_eq!(cluster.status().guests[&c].standing, Standing::Fenced);
    assert!(
        cluster
            .entries()
            .iter()
            .all(|entry| { !entry.row.contains(c) || entry.row.last() == Some(c) })
    );
    cluster.tell(Input::Destroyed { slot: c });
    cluster.settle();
    cluster.assert_agreed();
    assert!(cluster.entries().iter().all(|entry| !entry.row.contains(c)));
    cluster.run(500_000);
    assert!(
        !cluster.status().guests.contains_key(&c),
        "its slot is retired"
    );
    assert!(
        cluster
            .status()
            .guests
            .values()
            .all(|guest| guest.name != "c"),
        "a kernel that is gone gets no other slot"
    );
    assert!(cluster.writes - writes < 60, "{}", cluster.writes - writes);
}

#[test]
fn a_controller_that_dies_anywhere_is_resumed_by_another() {
    let mut cluster = Cluster::new(2);
    cluster.tell(Input::Policy(cluster.policy.clone()));
    cluster.add("a", "n1");
    cluster.add("b", "n2");
    cluster.settle();
    cluster.add("c", "n3");
    for _ in 0..40 {
        cluster.run(7_000);
        cluster.restart_controller();
    }
    cluster.settle();
    cluster.assert_agreed();
    assert_eq!(cluster.leads(cluster.slot("c")), BUCKETS / 3);
}

#[test]
fn a_change_is_called_back_half_way() {
    let mut cluster = Cluster::new(1);
    cluster.tell(Input::Policy(cluster.policy.clone()));
    cluster.add("a", "n1");
    cluster.add("b", "n2");
    cluster.settle();
    let b = cluster.slot("b");
    for (index, entry) in cluster.entries().into_iter().enumerate() {
        if entry.row.head() == Some(b) && cluster.kernels[&b].len() < 50 {
            let bucket = Bucket(u16::try_from(index).unwrap());
            cluster.kernels.get_mut(&b).unwrap().insert(bucket, 2);
        }
    }
    cluster.drain("b");
    cluster.run(2_000_000);
    assert_eq!(cluster.leads(b), 0);
    assert_eq!(cluster.status().guests[&b].named, 50);
    cluster.policy.guests.get_mut("b").unwrap().wanted = Wanted::Serve;
    cluster.tell(Input::Policy(cluster.policy.clone()));
    cluster.settle();
    cluster.assert_agreed();
    assert_eq!(cluster.leads(b), BUCKETS / 2);
}

#[test]
fn a_false_suspect_comes_back_with_the_newest_rows() {
    let mut cluster = Cluster::new(2);
    cluster.tell(Input::Policy(cluster.policy.clone()));
    cluster.add("a", "n1");
    cluster.add("b", "n2");
    cluster.settle();
    let a = cluster.slot("a");
    cluster.tell(Input::Suspected {
        slot: a,
        is_suspect: true,
    });
    cluster.run(1_000_000);
    assert_eq!(cluster.status().guests[&a].standing, Standing::Fenced);
    assert_eq!(cluster.leads(a), 0);
    assert!(
        cluster.leases[&a] < cluster.now,
        "no agent renews a suspect's lease"
    );
    cluster.tell(Input::Suspected {
        slot: a,
        is_suspect: false,
    });
    cluster.settle();
    assert_eq!(cluster.status().guests[&a].standing, Standing::Serving);
    assert_eq!(cluster.leads(a), BUCKETS / 2);
    cluster.run(100_000);
    assert!(cluster.leases[&a] >= cluster.now);
}

#[test]
fn a_silent_director_holds_everything_up_by_name() {
    let mut cluster = Cluster::new(2);
    cluster.tell(Input::Policy(cluster.policy.clone()));
    cluster.add("a", "n1");
    cluster.add("b", "n2");
    cluster.settle();
    cluster.agents.remove(&DirectorId(2));
    cluster.drain("a");
    cluster.run(3_000_000);
    let status = cluster.status();
    let object = Some(Party::Director(DirectorId(2)));
    assert!(
        status.waits.iter().any(|wait| wait.object == object),
        "{:?}",
        status.waits
    );
    cluster.policy.directors.remove(&DirectorId(2));
    cluster.tell(Input::Policy(cluster.policy.clone()));
    cluster.settle();
    assert_eq!(cluster.status().guests[&cluster.slot("a")].named, 0);
}

#[test]
fn a_reborn_kernel_gets_a_new_slot() {
    let mut cluster = Cluster::new(1);
    cluster.tell(Input::Policy(cluster.policy.clone()));
    cluster.add("a", "n1");
    cluster.add("b", "n2");
    cluster.settle();
    let old = cluster.slot("a");
    cluster.kill(old);
    cluster.boots.insert("a".to_owned(), 2);
    cluster.tell(Input::Booted {
        name: "a".to_owned(),
        boot: 2,
    });
    cluster.all_reachable();
    cluster.settle();
    let new = cluster.slot("a");
    assert_ne!(old, new);
    assert_eq!(cluster.leads(new), BUCKETS / 2);
    assert!(
        cluster
            .entries()
            .iter()
            .all(|entry| !entry.row.contains(old))
    );
    assert_eq!(Row::NONE.sequence(), Sequence(0));
}

#[test]
fn the_last_guest_cannot_be_drained_and_that_is_said() {
    let mut cluster = Cluster::new(1);
    cluster.tell(Input::Policy(cluster.policy.clone()));
    cluster.add("a", "n1");
    cluster.settle();
    cluster.drain("a");
    cluster.run(1_000_000);
    let status = cluster.status();
    assert_eq!(
        cluster.leads(cluster.slot("a")),
        BUCKETS,
        "it goes on serving"
    );
    assert!(status.waits.iter().any(|wait| wait.code == "no-guest"));
    assert!(!status.changes[0].is_done);
    // Another guest comes, and the drain goes on by itself.
    cluster.add("b", "n2");
    cluster.settle();
    assert!(cluster.status().waits.is_empty());
    assert_eq!(cluster.leads(cluster.slot("b")), BUCKETS);
}

#[test]
fn lost_messages_only_delay() {
    let mut cluster = Cluster::new(2);
    cluster.tell(Input::Policy(cluster.policy.clone()));
    cluster.add("a", "n1");
    cluster.add("b", "n2");
    cluster.loss = 300;
    cluster.add("c", "n3");
    let settles = |cluster: &mut Cluster| {
        for _ in 0..600 {
            cluster.run(100_000);
            if cluster.status().unsettled == 0 && cluster.entries().len() == BUCKETS {
                return;
            }
        }
        panic!("not settled: {:?}", cluster.status().waits);
    };
    settles(&mut cluster);
    cluster.drain("a");
    settles(&mut cluster);
    cluster.assert_agreed();
    assert_eq!(cluster.status().guests[&cluster.slot("a")].named, 0);
}

#[test]
fn no_row_names_a_guest_before_everybody_can_reach_it() {
    let mut cluster = Cluster::new(1);
    let controller = |cluster: &Cluster| {
        let controller = cluster.controller.as_ref().unwrap();
        controller.directs_all(DirectorId(1))
    };
    cluster.tell(Input::Policy(cluster.policy.clone()));
    assert!(controller(&cluster), "there is nothing to know");
    cluster.add("a", "n1");
    cluster.settle();
    assert!(controller(&cluster));
    let policy = cluster.policy.guests["a"].clone();
    cluster.policy.guests.insert("b".to_owned(), policy);
    cluster.boots.insert("b".to_owned(), 1);
    cluster.tell(Input::Policy(cluster.policy.clone()));
    let (name, boot) = ("b".to_owned(), 1);
    cluster.tell(Input::Booted { name, boot });
    cluster.run(2_000_000);
    let b = cluster.slot("b");
    assert_eq!(cluster.status().guests[&b].named, 0);
    assert!(!cluster.status().guests[&b].is_known);
    // A guest that nobody knows holds nothing up, though it never answered.
    cluster.guests.remove(&b);
    cluster.tell(Input::Connected(Party::Guest(b)));
    cluster.run(200_000);
    assert_eq!(
        cluster.status().unsettled,
        0,
        "{:?}",
        cluster.status().waits
    );
    cluster.guests.insert(b, Guest::new(b, &[]));
    assert!(
        !cluster
            .status()
            .changes
            .iter()
            .any(|change| change.guest == "b" && change.is_done)
    );
    cluster.all_reachable();
    // It stays known, whatever is reported later, by this controller and by the next.
    cluster.tell(Input::Reachable {
        slots: BTreeSet::new(),
    });
    cluster.restart_controller();
    cluster.settle();
    assert_eq!(cluster.leads(b), BUCKETS / 2);
    cluster.tell(Input::Connected(Party::Director(DirectorId(1))));
    assert!(
        controller(&cluster),
        "it is offered all rows, and takes them"
    );
}

#[test]
fn a_guest_that_is_heard_now_and_then_does_not_go_back_and_forth() {
    let mut cluster = Cluster::new(1);
    cluster.tell(Input::Policy(cluster.policy.clone()));
    cluster.add("a", "n1");
    cluster.add("b", "n2");
    cluster.settle();
    let a = cluster.slot("a");
    let wishes = |cluster: &Cluster| -> Vec<_> {
        let entries = cluster.entries();
        entries.iter().map(|entry| entry.wish).collect()
    };
    let before = wishes(&cluster);
    let mut turns = 0;
    let mut was = Standing::Serving;
    // Silent for 500 ms of every 3 s.
    for ms in (0..12_000).step_by(100) {
        let silent = ms % 3_000 < 500;
        let guests = vec![(a, if silent { SUSPECT_AFTER_US } else { 0 })];
        cluster.tell(Input::FromAgent {
            from: DirectorId(1),
            message: FromAgent::Silent { guests },
        });
        cluster.now = cluster.now.after_us(100_000);
        cluster.tell(Input::Tick);
        let standing = cluster.status().guests[&a].standing;
        let is_suspect = standing != Standing::Serving;
        turns += u32::from(is_suspect != (was != Standing::Serving));
        was = standing;
        assert!(
            wishes(&cluster) == before,
            "a suspicion moves no wish at first"
        );
    }
    assert!((3..=7).contains(&turns), "{turns} turns");
    cluster.run(10_000_000);
    cluster.settle();
    assert_eq!(cluster.status().guests[&a].standing, Standing::Serving);
    assert!(wishes(&cluster) == before);
}

#[test]
fn what_comes_together_is_decided_together() {
    let mut cluster = Cluster::new(1);
    cluster.tell(Input::Policy(cluster.policy.clone()));
    cluster.add("a", "n1");
    cluster.settle();
    let (writes, now) = (cluster.writes, cluster.now);
    let controller = cluster.controller.as_mut().unwrap();
    for number in 0..50 {
        let name = format!("g{number}");
        let policy = GuestPolicy {
            weight: 1,
            node: "n1".to_owned(),
            wanted: Wanted::Serve,
            change: None,
        };
        cluster.policy.guests.insert(name.clone(), policy);
        controller.hear(now, Input::Policy(cluster.policy.clone()));
        controller.hear(now, Input::Booted { name, boot: 1 });
    }
    controller.conclude(now);
    cluster.pump();
    assert_eq!(cluster.writes - writes, 1);
}
