//! From orders and what runs to what plane, guests and threads are told, where it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::guests::{GuestPlan, Running};
use super::managers::ManagerPlan;
use super::ways::Wish;
use super::{GuestLink, Node, Told, Work};
use crate::message::{IngressOrders, Orders, ToIngress};

impl Node {
    /// Tells plane, guests and threads what follows from orders and from what runs, where it
    /// changed.
    pub(super) fn spread(&mut self) {
        let Some(orders) = self.orders.clone() else {
            return;
        };
        self.spread_director(&orders);
        let nothing = BTreeMap::new();
        let running = self.running.as_ref().unwrap_or(&nothing);
        let _ = self.guests.send(GuestPlan::all(&orders));
        let _ = self.managers.send(ManagerPlan::all(&orders, running));
        let local: BTreeMap<IpAddr, &Running> = running
            .values()
            .flat_map(|guest| guest.addresses.iter().map(move |address| (*address, guest)))
            .collect();
        let far = orders.peers.iter().flat_map(|peer| &peer.addresses);
        let far: BTreeSet<IpAddr> = far
            .filter(|address| !local.contains_key(address))
            .copied()
            .collect();
        let mut ways = BTreeMap::new();
        for peer in &orders.peers {
            let fits = |address: &&IpAddr| address.is_ipv4() == self.options.address.is_ipv4();
            let Some(address) = peer.addresses.iter().find(fits) else {
                continue;
            };
            let way = match local.get(address) {
                Some(guest) => Some(guest.way(self.options.address, *address)),
                None => self.known_ways.get(address).copied(),
            };
            ways.extend(way.map(|way| (peer.slot, way)));
        }
        let own =
            |address: &IpAddr| local.contains_key(address) || *address == self.options.address;
        let members = orders.directors.values().chain(&far).copied();
        let members: BTreeSet<IpAddr> = members.filter(|address| !own(address)).collect();
        let ports = running
            .values()
            .filter_map(|guest| Some((guest.ifindex, *guest.addresses.first()?)));
        let ports: BTreeMap<u32, IpAddr> = ports.collect();
        let _ = self.ways.send(Wish::To(far));
        if self.told.cluster.is_some() {
            if self.told.ways != ways {
                let _ = self.worker.send(Work::Ways(ways.clone()));
                self.told.ways = ways;
            }
            if self.told.members != members {
                let _ = self.worker.send(Work::Members(members.clone()));
                self.told.members = members;
            }
            if self.told.ports != ports {
                let _ = self.worker.send(Work::Ports(ports.clone()));
                self.told.ports = ports;
            }
        }
        for guest in self.guest_links.values() {
            if let Some(orders) = self.ingress_orders(&orders, guest) {
                guest.sender.send(ToIngress::Orders(Box::new(orders)));
            }
        }
    }

    fn spread_director(&mut self, orders: &Orders) {
        if orders.is_leaving {
            // Guests first: what they would send is still directed until they are gone.
            if self.running.as_ref().is_some_and(BTreeMap::is_empty) && !self.has_left {
                let _ = self.worker.send(Work::Leave);
                // A director that has left is told nothing more.
                self.told = Told::default();
            }
            return;
        }
        let cluster = (orders.director, orders.cluster.clone());
        if self.told.cluster.as_ref() != Some(&cluster) {
            if self
                .told
                .cluster
                .as_ref()
                .is_some_and(|(director, _)| *director != orders.director)
            {
                self.machine = None;
            }
            let _ = self.worker.send(Work::SetUp(cluster.0, cluster.1.clone()));
            self.told.cluster = Some(cluster);
        }
        if orders.programs.bpf_generation > self.bpf_generation && !self.replacing {
            self.replacing = true;
            let _ = self
                .worker
                .send(Work::Replace(orders.programs.bpf_generation));
        }
    }

    /// None: the guest has no slot for its boot yet, or does not run any more.
    fn ingress_orders(&self, orders: &Orders, guest: &GuestLink) -> Option<IngressOrders> {
        let order = orders.guests.get(&guest.name)?;
        let (boot, slot) = order.slot?;
        let running = self.running.as_ref()?.get(&guest.name)?;
        (boot == guest.boot && boot == running.boot).then(|| IngressOrders {
            slot,
            boot,
            vni: orders.cluster.vni,
            key: orders.cluster.key,
            vips: orders.cluster.vips.clone(),
            addresses: running.addresses.clone(),
            interface: running.interface.clone(),
            mac: running.mac,
            gateway_mac: running.node_mac,
            mtu: running.mtu,
            peers: orders
                .peers
                .iter()
                .filter(|peer| peer.slot != slot)
                .cloned()
                .collect(),
            directors: orders.directors.clone(),
            lease_port: self.options.lease_port,
            bpf_generation: orders.programs.bpf_generation,
            ends_for: order.ends_for,
        })
    }
}
