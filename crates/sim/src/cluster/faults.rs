//! What goes wrong and what is asked for, by chance.

use hitless_core::row::{Bucket, GuestSlot};
use hitless_core::table::agent::Agent;
use hitless_core::table::controller::{self, Controller, Wanted};
use hitless_core::table::guest::Guest;
use hitless_core::table::message::{DirectorId, Party};

use super::{Event, Life, World};

/// One thing that happens to a cluster.
#[derive(Clone, Debug)]
pub enum Fault {
    KillController,
    /// An agent's process is killed and started again; what is pinned stays.
    RestartAgent(DirectorId),
    /// The same with a guest's ingress.
    RestartIngress(GuestSlot),
    /// A party hears nobody and is heard by nobody.
    Cut(Party),
    Heal(Party),
    CutController,
    HealController,
    /// A guest's kernel ends, with all that it held.
    KillKernel(GuestSlot),
    /// That is confirmed, and another kernel of the same guest boots.
    Replace(GuestSlot),
    Suspect(GuestSlot),
    Unsuspect(GuestSlot),
    Drain(String),
    Serve(String),
}

/// Something goes wrong every so often, on average.
const EVERY_US: u64 = 400_000;

impl World {
    /// Faults, orders and connections for so long, then quiet: everything has to settle, and to be
    /// reached.
    pub fn live_through(
        &mut self,
        us: u64,
        buckets: &[Bucket],
        check: &mut impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.loss = [0, 10, 100][self.random.below(3) as usize];
        let end = self.now.after_us(us);
        while self.now < end {
            let step = 1 + self.random.below(EVERY_US / 4);
            self.run(step, check)?;
            if let Some(bucket) = self.random.choose(buckets) {
                self.connect(bucket);
            }
            self.talk();
            if self.random.happens(250) {
                self.go_wrong();
            }
        }
        self.heal();
        self.settle_but_for_connections(check)?;
        self.check_reach()?;
        self.close_all();
        self.settle(60_000_000, check)
    }

    /// Runs until the longest fault is over and rows stand still.
    fn settle_but_for_connections(
        &mut self,
        check: &mut impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut writes = u64::MAX;
        for _ in 0..30 {
            self.run(2_000_000, check)?;
            if writes == self.tally.writes {
                return Ok(());
            }
            writes = self.tally.writes;
        }
        Err("rows change for a minute without a fault".to_owned())
    }

    fn go_wrong(&mut self) {
        let slots: Vec<GuestSlot> = self.hosts.keys().copied().collect();
        let names: Vec<String> = self.policy.guests.keys().cloned().collect();
        let (Some(slot), true) = (self.random.choose(&slots), !names.is_empty()) else {
            return;
        };
        let name = &names[self.random.below(names.len() as u64) as usize];
        let director = DirectorId(1 + u16::try_from(self.random.below(2)).expect("0 or 1"));
        let later = self.now.after_us(self.random.below(3_000_000));
        let party = if self.random.happens(500) {
            Party::Director(director)
        } else {
            Party::Guest(slot)
        };
        // One kernel at a time: what is tested is a failure, not the end of everything.
        let may_kill = self.dead.keys().all(|slot| self.state_of(*slot).is_none());
        let fault = match self.random.below(12) {
            0 => Fault::KillController,
            1 => Fault::RestartAgent(director),
            2 => Fault::RestartIngress(slot),
            3 => {
                self.schedule(later, Event::Fault(Fault::Heal(party)));
                Fault::Cut(party)
            }
            4 => {
                self.schedule(later, Event::Fault(Fault::HealController));
                Fault::CutController
            }
            5 if may_kill && slots.len() > 1 => {
                let later = later.after_us(300_000);
                self.schedule(later, Event::Fault(Fault::Replace(slot)));
                Fault::KillKernel(slot)
            }
            6 | 7 => {
                self.schedule(later, Event::Fault(Fault::Unsuspect(slot)));
                Fault::Suspect(slot)
            }
            8 | 9 => Fault::Drain(name.clone()),
            _ => Fault::Serve(name.clone()),
        };
        self.happen(fault);
    }

    /// Ends all faults.
    fn heal(&mut self) {
        self.loss = 0;
        for party in self.cut.clone() {
            self.happen(Fault::Heal(party));
        }
        self.happen(Fault::HealController);
        for slot in self.dead.keys().copied().collect::<Vec<_>>() {
            self.happen(Fault::Replace(slot));
        }
        for slot in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.happen(Fault::Unsuspect(slot));
        }
        for name in self.policy.guests.keys().cloned().collect::<Vec<_>>() {
            self.happen(Fault::Serve(name));
        }
    }

    /// It happens.
    pub fn happen(&mut self, fault: Fault) {
        match fault {
            Fault::Drain(_) | Fault::Serve(_) => self.tally.orders += 1,
            _ => self.tally.faults += 1,
        }
        match fault {
            Fault::KillController => {
                self.life = Life(self.life.0 + 1);
                self.controller = Some(Controller::new());
                self.tell_policy();
                for (name, boot) in self.boots.clone() {
                    self.tell(controller::Input::Booted { name, boot });
                }
                self.reconnect_all();
            }
            Fault::RestartAgent(id) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.life = Life(node.life.0 + 1);
                    node.agent = Agent::new(id, &node.map, node.kept.clone());
                    node.believed_dead.clear();
                    self.reconnect(Party::Director(id));
                }
            }
            Fault::RestartIngress(slot) => {
                if let Some(host) = self.hosts.get_mut(&slot) {
                    host.life = Life(host.life.0 + 1);
                    host.machine = Guest::new(slot, &host.map);
                    host.believed_dead.clear();
                    self.reconnect(Party::Guest(slot));
                }
            }
            Fault::Cut(party) => {
                self.cut.insert(party);
            }
            Fault::Heal(party) => {
                if self.cut.remove(&party) {
                    self.reconnect(party);
                }
            }
            Fault::CutController => self.is_controller_cut = true,
            Fault::HealController => {
                if core::mem::take(&mut self.is_controller_cut) {
                    self.reconnect_all();
                }
            }
            Fault::KillKernel(slot) => {
                if let Some(host) = self.hosts.remove(&slot) {
                    self.dead.insert(slot, host.acknowledged);
                    self.lose(slot);
                }
            }
            Fault::Replace(slot) => self.replace(slot),
            Fault::Suspect(slot) => self.suspect(slot, true),
            Fault::Unsuspect(slot) => self.suspect(slot, false),
            Fault::Drain(name) => self.want(&name, Wanted::Drain),
            Fault::Serve(name) => self.want(&name, Wanted::Serve),
        }
    }

    fn replace(&mut self, slot: GuestSlot) {
        let record = self.store.as_ref();
        let record = record.and_then(|(header, _)| header.guests.get(&slot));
        // A controller that has just begun knows of no slots: the boots tell whose kernel is newest.
        if let Some((name, boot)) = record.map(|record| (record.name.clone(), record.boot))
            && self.dead.contains_key(&slot)
            && self.boots.get(&name) == Some(&boot)
        {
            self.tell(controller::Input::Destroyed { slot });
            self.boot(&name);
        }
    }

    fn reconnect(&mut self, party: Party) {
        self.tell(controller::Input::Connected(party));
    }

    fn reconnect_all(&mut self) {
        let nodes = self.nodes.keys().map(|id| Party::Director(*id));
        let hosts = self.hosts.keys().map(|slot| Party::Guest(*slot));
        for party in nodes.chain(hosts).collect::<Vec<_>>() {
            self.reconnect(party);
        }
    }
}
