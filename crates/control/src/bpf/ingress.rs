//! A guest's ingress by the BPF program.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use hitless_bpf::{AddressKind, Adoption, HeldSocket, Hop, Identity, Ingress, LiveCounts, Vni};
use hitless_core::row::{BUCKETS, Bucket, GuestSlot, Row};
use hitless_core::table::message::DirectorId;

use super::{attached, failed, ifindex};
use crate::clock;
use crate::message::{AttachedProgram, IngressOrders};
use crate::plane::{Connection, Count, IngressPlane, PlaneError, Result};

/// How long a SYN cookie that was sent may be answered: the kernel takes it as long.
const COOKIE_US: u64 = 120_000_000;

/// How often a guest's kernel repeats a SYN-ACK that its client does not answer, and where that is
/// said: it gives the entry up after 15 s. Another guest may have the client's connection, for which
/// this one was asked first; then nobody will ever answer, and a drain waits for the entry's end,
/// which would be 63 s by the kernel's default.
const SYNACK_RETRIES: (&str, &str) = ("/proc/sys/net/ipv4/tcp_synack_retries", "3");

/// See the module.
#[derive(Debug)]
pub struct BpfIngress {
    ingress: RwLock<Ingress>,
    pins: PathBuf,
    interface: String,
    me: GuestSlot,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    peers: BTreeSet<GuestSlot>,
    dead: BTreeSet<GuestSlot>,
    cookies_sent: Option<u64>,
    /// When the number of cookies was last seen to rise.
    cookies_rose_us: Option<u64>,
}

impl BpfIngress {
    /// Loads the program; adopts the tables and the link that are pinned below `pins`, a folder of
    /// this guest's boot.
    pub fn open(pins: PathBuf, orders: &IngressOrders) -> Result<Self> {
        std::fs::create_dir_all(&pins).map_err(failed)?;
        let identity = Identity {
            vni: Vni::new(orders.vni).map_err(failed)?,
            key: orders.key,
            slot: orders.slot,
        };
        let ingress = Ingress::open(&pins, identity).map_err(failed)?;
        let mut state = State::default();
        for slot in (1..=GuestSlot::MAX).filter_map(GuestSlot::new) {
            if ingress.peer(slot).is_some() {
                state.peers.insert(slot);
            }
            if ingress.is_dead(slot) {
                state.dead.insert(slot);
            }
        }
        Ok(Self {
            ingress: RwLock::new(ingress),
            pins,
            interface: orders.interface.clone(),
            me: orders.slot,
            state: Mutex::new(state),
        })
    }

    fn ingress(&self) -> RwLockReadGuard<'_, Ingress> {
        self.ingress.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IngressPlane for BpfIngress {
    fn set_up(&self, orders: &IngressOrders) -> Result<()> {
        let ingress = self.ingress();
        for address in &orders.vips {
            ingress
                .set_address(*address, AddressKind::Vip)
                .map_err(failed)?;
        }
        for (address, _) in ingress.addresses().map_err(failed)? {
            if !orders.vips.contains(&address) {
                ingress.remove_address(address).map_err(failed)?;
            }
        }
        let mut peers = BTreeSet::new();
        for peer in orders.peers.iter().filter(|peer| peer.slot != self.me) {
            let Some((source, destination)) = pair(&orders.addresses, &peer.addresses) else {
                continue;
            };
            let hop = Hop {
                source,
                destination,
                mac: orders.gateway_mac,
                source_mac: orders.mac,
                ifindex: None,
                mtu: Some(orders.mtu),
            };
            ingress.set_peer(peer.slot, &hop).map_err(failed)?;
            peers.insert(peer.slot);
        }
        let mut state = self.state();
        for slot in state.peers.difference(&peers) {
            ingress.remove_peer(*slot);
        }
        state.peers = peers;
        let (file, retries) = SYNACK_RETRIES;
        if let Err(error) = std::fs::write(file, retries) {
            tracing::warn!(%error, file, "half-open entries may hold drains up for a minute");
        }
        ingress
            .attach(ifindex(&self.interface)?)
            .map_err(failed)
            .map(|_| ())
    }

    fn rows(&self) -> Vec<Row> {
        let ingress = self.ingress();
        let row = |number| ingress.row(Bucket(number as u16));
        (0..BUCKETS).map(row).collect()
    }

    fn store(&self, rows: &[(Bucket, Row)]) -> Result<()> {
        let ingress = self.ingress();
        if !rows.is_empty() {
            ingress.set_rows(rows);
        }
        ingress.barrier().map_err(failed)
    }

    fn count(&self) -> Result<Count> {
        let counts = self.ingress().live_counts().map_err(failed)?;
        let connections = counts.total();
        let live = match self.cookies_may_be_out(&counts) {
            false => counts
                .buckets
                .iter()
                .map(|(bucket, held)| (*bucket, *held as u32))
                .collect(),
            true => {
                let held = |number| (Bucket(number), counts.of(Bucket(number)) as u32 + 1);
                (0..=u16::MAX).map(held).collect()
            }
        };
        Ok(Count { live, connections })
    }

    fn held(&self) -> Result<Vec<Connection>> {
        let held = self.ingress().held().map_err(failed)?;
        Ok(held.iter().filter_map(connection).collect())
    }

    fn end_all(&self) -> Result<Vec<Connection>> {
        let ingress = self.ingress();
        let ended = ingress.abort(&ingress.held().map_err(failed)?);
        Ok(ended
            .map_err(failed)?
            .iter()
            .filter_map(connection)
            .collect())
    }

    fn lease(&self, until_us: u64) {
        self.ingress().set_lease(until_us.saturating_mul(1_000));
    }

    fn believe(&self, dead: &[GuestSlot]) -> Result<()> {
        let dead: BTreeSet<GuestSlot> = dead.iter().copied().collect();
        let ingress = self.ingress();
        let mut state = self.state();
        for slot in state.dead.difference(&dead) {
            ingress.set_dead(*slot, false);
        }
        for slot in dead.difference(&state.dead) {
            ingress.set_dead(*slot, true);
        }
        state.dead = dead;
        Ok(())
    }

    fn stampers(&self) -> Vec<DirectorId> {
        let directors = self.ingress().take_stampers();
        directors
            .into_iter()
            .map(|number| DirectorId(number.get()))
            .collect()
    }

    fn replace(&self) -> Result<()> {
        let identity = self.ingress().identity();
        let mut new = Ingress::open(&self.pins, identity).map_err(failed)?;
        if new.adoption() != Adoption::Adopted {
            return Err(PlaneError(
                "the ingress's tables are not those that it left".into(),
            ));
        }
        new.replace_program().map_err(failed)?;
        *self.ingress.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn program(&self) -> Option<AttachedProgram> {
        let index = ifindex(&self.interface).ok()?;
        let links = self.ingress().attached().ok()?;
        let link = links.into_iter().find(|link| link.ifindex == index)?;
        attached(&self.interface, link.mode)
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        let counters = self.ingress().counters().unwrap_or_default();
        counters
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

impl BpfIngress {
    /// Whether a cookie that was sent may still be answered: then any bucket may hold a connection
    /// to come.
    fn cookies_may_be_out(&self, counts: &LiveCounts) -> bool {
        let now_us = clock::now().0;
        let mut state = self.state();
        // What was sent before this process began may be out as well.
        let before = state.cookies_sent.replace(counts.cookies_sent).unwrap_or(0);
        if counts.cookies_sent > before {
            state.cookies_rose_us = Some(now_us);
        }
        state
            .cookies_rose_us
            .is_some_and(|rose| now_us < rose.saturating_add(COOKIE_US))
    }
}

/// None: it is not a connection yet, or not any more.
fn connection(held: &HeldSocket) -> Option<Connection> {
    let flow = held.flow;
    let is_one = !held.is_half_open && !held.is_over;
    is_one.then(|| Connection {
        client: SocketAddr::new(flow.source, flow.source_port),
        server: SocketAddr::new(flow.destination, flow.destination_port),
    })
}

/// An address of ours and one of theirs of the same family.
fn pair(ours: &[IpAddr], theirs: &[IpAddr]) -> Option<(IpAddr, IpAddr)> {
    ours.iter().find_map(|own| {
        let other = theirs
            .iter()
            .find(|other| other.is_ipv4() == own.is_ipv4())?;
        Some((*own, *other))
    })
}
