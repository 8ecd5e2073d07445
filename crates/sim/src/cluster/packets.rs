//! Connections and their packets, judged by `core::steer` from the maps as they lie there.
//!
//! As in the checker: a SYN may come twice or late, each hop goes by its own row, belief and lease,
//! a kernel holds half-open and established flows. Held here: no stack answers a packet of a live
//! connection (I1), and no connection has two homes (I2).

use hitless_core::row::{Bucket, GuestSlot};
use hitless_core::rules::Rules;
use hitless_core::steer::{self, Held, Hop, Segment, Stamp, Verdict};
use hitless_core::table::message::DirectorId;

use super::{Event, World};

/// A connection's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Id(u64);

/// A connection as its client sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    bucket: Bucket,
    /// Whose SYN-ACK came first. None: it is still connecting.
    pub(super) home: Option<GuestSlot>,
}

/// A connection as a kernel has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flow {
    pub(super) bucket: Bucket,
    is_established: bool,
}

/// A packet on its way to a guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    of: Id,
    is_syn: bool,
    to: GuestSlot,
    stamp: Stamp,
}

/// A hop takes so long at most, beside a microsecond; a packet in a hundred so much longer.
const HOP_US: [u64; 2] = [300, 1_000_000];

impl World {
    /// A client connects to an address whose flows hash to this bucket.
    pub(super) fn connect(&mut self, bucket: Bucket) {
        let id = Id(self.next_connection);
        self.next_connection += 1;
        self.tally.connections += 1;
        self.connections
            .insert(id, Connection { bucket, home: None });
        self.send_packet(id);
        if self.random.happens(200) {
            self.send_packet(id);
        }
    }

    /// The clients of some connections send; others, that are over, leave their kernels.
    pub(super) fn talk(&mut self) {
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            match self.random.below(100) {
                0..20 => self.send_packet(id),
                20..24 => self.close(id),
                _ => {}
            }
        }
        // Half-open entries of clients that are elsewhere, or gone, end some time.
        for host in self.hosts.values_mut() {
            let slot = host.machine.status().slot;
            let connections = &self.connections;
            let random = &mut self.random;
            host.flows.retain(|id, flow| {
                let home = connections.get(id).and_then(|connection| connection.home);
                flow.is_established || home == Some(slot) || !random.happens(100)
            });
        }
    }

    /// Ends all connections.
    pub(super) fn close_all(&mut self) {
        self.connections.clear();
        for host in self.hosts.values_mut() {
            host.flows.clear();
        }
    }

    /// Connections whose guest died with its kernel.
    pub(super) fn lose(&mut self, slot: GuestSlot) {
        self.connections
            .retain(|_, connection| connection.home != Some(slot));
    }

    fn close(&mut self, id: Id) {
        self.connections.remove(&id);
        for host in self.hosts.values_mut() {
            host.flows.remove(&id);
        }
    }

    /// The client's next packet, by one of the directors.
    fn send_packet(&mut self, id: Id) {
        let Some(connection) = self.connections.get(&id).copied() else {
            return;
        };
        let ids: Vec<DirectorId> = self.nodes.keys().copied().collect();
        let Some(by) = self.random.choose(&ids) else {
            return;
        };
        let node = &self.nodes[&by];
        let row = node.map[usize::from(connection.bucket.0)];
        let verdict = steer::director(&Rules::ALL, by.0, row, &node.believed_dead);
        self.tally.packets += 1;
        if let Verdict::Forward { to, stamp, .. } = verdict {
            let is_syn = connection.home.is_none();
            self.forward(Packet {
                of: id,
                is_syn,
                to,
                stamp,
            });
        }
    }

    fn forward(&mut self, packet: Packet) {
        let is_late = self.random.happens(10);
        let after = 1 + self.random.below(HOP_US[usize::from(is_late)]);
        self.schedule(self.now.after_us(after), Event::Packet(packet));
    }

    pub(super) fn arrive(&mut self, packet: Packet) {
        self.tally.hops += 1;
        let at = packet.to;
        let connection = self.connections.get(&packet.of).copied();
        let Some(host) = self.hosts.get(&at) else {
            return;
        };
        // Packets of a connection that is over find no flow anywhere; what becomes of them is
        // nobody's loss.
        let Some(connection) = connection else { return };
        let flow = host.flows.get(&packet.of).copied();
        let held = match flow {
            Some(flow) if flow.is_established => Held::Established,
            Some(_) => Held::HalfOpen {
                is_ours: !packet.is_syn && connection.home == Some(at),
            },
            None => Held::Listener,
        };
        let hop = Hop {
            me: at,
            row: host.map[usize::from(connection.bucket.0)],
            believed_dead: &host.believed_dead,
            has_lease: host.lease_until > self.now,
            held,
        };
        let segment = if packet.is_syn {
            Segment::Syn
        } else {
            Segment::Ack
        };
        let stamp = Some(packet.stamp);
        match steer::ingress(&Rules::ALL, &hop, &steer::Packet { segment, stamp }) {
            Verdict::Forward { to, stamp, .. } => self.forward(Packet {
                to,
                stamp,
                ..packet
            }),
            Verdict::Drop(_) => {}
            Verdict::Accept => {
                let flow = Flow {
                    bucket: connection.bucket,
                    is_established: false,
                };
                let host = self.hosts.get_mut(&at).expect("it was there");
                host.flows.insert(packet.of, flow);
                let after = 1 + self.random.below(HOP_US[0]);
                self.schedule(self.now.after_us(after), Event::SynAck(packet.of, at));
            }
            Verdict::Deliver if !packet.is_syn => self.establish(packet.of, at),
            Verdict::Deliver => {}
            Verdict::Answer | Verdict::Refuse => self.answered(packet, connection, at),
        }
    }

    /// The client hears a SYN-ACK; a second guest's is nothing to it.
    pub(super) fn syn_ack(&mut self, id: Id, from: GuestSlot) {
        let has_flow = |world: &Self| {
            let host = world.hosts.get(&from);
            host.is_some_and(|host| host.flows.contains_key(&id))
        };
        if has_flow(self)
            && let Some(connection) = self.connections.get_mut(&id)
            && connection.home.is_none()
        {
            connection.home = Some(from);
            self.send_packet(id);
        }
    }

    fn establish(&mut self, id: Id, at: GuestSlot) {
        let host = self.hosts.get_mut(&at).expect("it delivered");
        if let Some(flow) = host.flows.get_mut(&id) {
            flow.is_established = true;
        }
        let is_home = |host: &&super::Host| {
            let flow = host.flows.get(&id);
            flow.is_some_and(|flow| flow.is_established)
        };
        if self.hosts.values().filter(is_home).count() > 1 {
            self.broken = Some(format!("I2: {id:?} has two homes, one at {at:?}"));
        }
    }

    /// A stack answered that it knows nothing: was that wrong?
    fn answered(&mut self, packet: Packet, connection: Connection, at: GuestSlot) {
        let is_wrong = match connection.home {
            _ if packet.is_syn => self.hosts.iter().any(|(slot, host)| {
                host.map[usize::from(connection.bucket.0)].contains(*slot)
                    || host.flows.contains_key(&packet.of)
            }),
            Some(home) => self.hosts.contains_key(&home),
            None => false,
        };
        if is_wrong {
            self.broken = Some(format!(
                "I1: a packet of a live connection was answered: {packet:?} at {at:?}, {connection:?}"
            ));
        }
    }

    /// At rest, and with nobody dead, each director's packets reach every connection at its home.
    pub(super) fn check_reach(&self) -> Result<(), String> {
        for (id, connection) in &self.connections {
            let Some(home) = connection.home else {
                continue;
            };
            for (by, node) in &self.nodes {
                let row = node.map[usize::from(connection.bucket.0)];
                let mut verdict = steer::director(&Rules::ALL, by.0, row, &[]);
                let mut arrived = None;
                while let Verdict::Forward { to, stamp, .. } = verdict {
                    let Some(host) = self.hosts.get(&to) else {
                        break;
                    };
                    let is_there = host.flows.contains_key(id);
                    let hop = Hop {
                        me: to,
                        row: host.map[usize::from(connection.bucket.0)],
                        believed_dead: &[],
                        has_lease: true,
                        held: if is_there && to == home {
                            Held::Established
                        } else {
                            Held::Listener
                        },
                    };
                    let packet = steer::Packet {
                        segment: Segment::Ack,
                        stamp: Some(stamp),
                    };
                    verdict = steer::ingress(&Rules::ALL, &hop, &packet);
                    if verdict == Verdict::Deliver {
                        arrived = Some(to);
                    }
                }
                if arrived != Some(home) {
                    return Err(format!(
                        "reach: {connection:?} by {by:?} ends in {verdict:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}
