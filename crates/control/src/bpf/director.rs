//! A node's director by the BPF programs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use hitless_bpf::{AddressKind, Adoption, Director, GuestPort, Hop, Vni};
use hitless_core::row::{BUCKETS, Bucket, GuestSlot, Row};
use hitless_core::table::message::DirectorId;

use super::{attached, failed, ifindex};
use crate::message::{AttachedProgram, Cluster};
use crate::plane::{DirectorPlane, PlaneError, Result, Way};

/// See the module. Uplinks are attached by [`DirectorPlane::set_up`], once the tables are filled.
#[derive(Debug)]
pub struct BpfDirector {
    director: RwLock<Director>,
    pins: PathBuf,
    uplinks: Vec<String>,
    state: Mutex<State>,
}

/// What the tables were last told.
#[derive(Debug, Default)]
struct State {
    /// None: not set up in this process.
    vni: Option<Vni>,
    known_slots: BTreeSet<GuestSlot>,
    dead: BTreeSet<GuestSlot>,
    /// When the last packet was sent to guests that are no longer reachable.
    last_sent_ns: BTreeMap<GuestSlot, u64>,
}

impl BpfDirector {
    /// Loads the programs; adopts the tables and links that are pinned below `pins`.
    pub fn open(pins: PathBuf, uplinks: Vec<String>) -> Result<Self> {
        std::fs::create_dir_all(&pins).map_err(failed)?;
        let director = Director::open(&pins).map_err(failed)?;
        Ok(Self {
            director: RwLock::new(director),
            pins,
            uplinks,
            state: Mutex::new(State::default()),
        })
    }

    fn director(&self) -> RwLockReadGuard<'_, Director> {
        self.director.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vni(&self) -> Result<Vni> {
        let not_yet = || PlaneError("the director has no virtual cluster yet".into());
        self.state().vni.ok_or_else(not_yet)
    }
}

impl DirectorPlane for BpfDirector {
    fn set_up(&self, id: DirectorId, cluster: &Cluster) -> Result<()> {
        let vni = Vni::new(cluster.vni).map_err(failed)?;
        let number = NonZeroU16::new(id.0);
        let number = number.ok_or_else(|| PlaneError("a director's number is not 0".into()))?;
        let director = self.director();
        director
            .set_cluster(vni, cluster.key, number)
            .map_err(failed)?;
        for address in &cluster.vips {
            director
                .set_address(*address, vni, AddressKind::Vip)
                .map_err(failed)?;
        }
        for (address, of, _) in director.addresses().map_err(failed)? {
            if of == vni && !cluster.vips.contains(&address) {
                director.remove_address(address).map_err(failed)?;
            }
        }
        let mut state = self.state();
        if state.vni.is_none() {
            // What an earlier process set, so that it is taken back where it is no longer wanted.
            for number in 1..=GuestSlot::MAX {
                let Some(slot) = GuestSlot::new(number) else {
                    continue;
                };
                if director.guest(vni, slot).map_err(failed)?.is_some() {
                    state.known_slots.insert(slot);
                }
                if director.is_dead(vni, slot).map_err(failed)? {
                    state.dead.insert(slot);
                }
            }
        }
        state.vni = Some(vni);
        for uplink in &self.uplinks {
            director.attach(ifindex(uplink)?).map_err(failed)?;
        }
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        let Ok(vni) = self.vni() else {
            return Vec::new();
        };
        let director = self.director();
        let row = |number| {
            director
                .row(vni, Bucket(number as u16))
                .unwrap_or(Row::NONE)
        };
        (0..BUCKETS).map(row).collect()
    }

    fn store(&self, rows: &[(Bucket, Row)]) -> Result<()> {
        let vni = self.vni()?;
        let director = self.director();
        if !rows.is_empty() {
            director.set_rows(vni, rows).map_err(failed)?;
        }
        director.barrier().map_err(failed)
    }

    fn believe(&self, dead: &[GuestSlot]) -> Result<()> {
        let vni = self.vni()?;
        let dead: BTreeSet<GuestSlot> = dead.iter().copied().collect();
        let director = self.director();
        let mut state = self.state();
        for slot in state.dead.difference(&dead) {
            director.set_dead(vni, *slot, false).map_err(failed)?;
        }
        for slot in dead.difference(&state.dead) {
            director.set_dead(vni, *slot, true).map_err(failed)?;
        }
        state.dead = dead;
        Ok(())
    }

    fn set_ways(&self, ways: &BTreeMap<GuestSlot, Way>) -> Result<()> {
        let vni = self.vni()?;
        let director = self.director();
        let mut state = self.state();
        for (slot, way) in ways {
            let hop = Hop {
                source: way.source,
                destination: way.destination,
                mac: way.mac,
                source_mac: way.source_mac,
                ifindex: Some(way.ifindex),
                mtu: Some(way.mtu),
            };
            director.set_guest(vni, *slot, &hop).map_err(failed)?;
            director.set_watched(vni, *slot, true).map_err(failed)?;
        }
        let now: BTreeSet<GuestSlot> = ways.keys().copied().collect();
        let mut gone = BTreeMap::new();
        for slot in state.known_slots.difference(&now) {
            gone.extend(Some(*slot).zip(director.last_sent_ns(vni, *slot).map_err(failed)?));
            director.remove_guest(vni, *slot).map_err(failed)?;
        }
        state.last_sent_ns.extend(gone);
        state.last_sent_ns.retain(|slot, _| !now.contains(slot));
        state.known_slots = now;
        Ok(())
    }

    fn set_members(&self, members: &[IpAddr]) -> Result<()> {
        let director = self.director();
        for member in members {
            director.add_member(*member).map_err(failed)?;
        }
        for member in director.members().map_err(failed)? {
            if !members.contains(&member) {
                director.remove_member(member).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn set_ports(&self, ports: &BTreeMap<u32, IpAddr>) -> Result<()> {
        let vni = self.vni()?;
        let director = self.director();
        for attached in director.attached_ports().map_err(failed)? {
            if !ports.contains_key(&attached.ifindex) {
                director.detach_port(attached.ifindex).map_err(failed)?;
            }
        }
        for (ifindex, address) in ports {
            let port = GuestPort {
                address: *address,
                vni,
            };
            director.attach_port(*ifindex, &port).map_err(failed)?;
        }
        Ok(())
    }

    fn replace(&self) -> Result<()> {
        // Loaded beside the one in use, which goes on until the links are switched.
        let mut new = Director::open(&self.pins).map_err(failed)?;
        if new.adoption() != Adoption::Adopted {
            return Err(PlaneError(
                "the director's tables are not those that it left".into(),
            ));
        }
        new.replace_program().map_err(failed)?;
        *self
            .director
            .write()
            .unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn program(&self) -> Option<AttachedProgram> {
        let uplink = self.uplinks.first()?;
        let index = ifindex(uplink).ok()?;
        let links = self.director().attached().ok()?;
        let link = links.into_iter().find(|link| link.ifindex == index)?;
        attached(uplink, link.mode)
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        let director = self.director();
        let mut counters = BTreeMap::new();
        for (name, value) in director.counters().unwrap_or_default() {
            counters.insert(name.to_owned(), value);
        }
        for (name, value) in director.port_counters().unwrap_or_default() {
            counters.insert(format!("port_{name}"), value);
        }
        // When the last packet was sent to each guest, by CLOCK_BOOTTIME.
        if let Ok(vni) = self.vni() {
            let state = self.state();
            let mut last = state.last_sent_ns.clone();
            for slot in &state.known_slots {
                last.extend(Some(*slot).zip(director.last_sent_ns(vni, *slot).ok().flatten()));
            }
            for (slot, at) in last {
                counters.insert(format!("last_sent_ns_{}", slot.number()), at);
            }
        }
        counters
    }

    fn leave(&self) -> Result<()> {
        let director = self.director();
        for link in director.attached().map_err(failed)? {
            director.detach(link.ifindex).map_err(failed)?;
        }
        for port in director.attached_ports().map_err(failed)? {
            director.detach_port(port.ifindex).map_err(failed)?;
        }
        if let Ok(vni) = self.vni() {
            director.remove_cluster(vni).map_err(failed)?;
        }
        Ok(())
    }
}
