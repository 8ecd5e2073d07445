//! The director of a node: its programs, its tables, their pins.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::atomic::Ordering;

use hitless_core::flow::FlowKey;
use hitless_core::row::{BUCKETS, Bucket, GuestSlot, Row};

use crate::abi::{self, hl_cluster, hl_in6, hl_port, hl_rows};
use crate::address::{AddressKind, Owner};
use crate::counters::{CounterTable, Counters};
use crate::error::{Error, Result};
use crate::hop::{Hop, from_in6, in6};
use crate::links::{AttachMode, Attached, Links};
use crate::map::HashMap;
use crate::mapped::{Mapped, Marks};
use crate::object::Adoption;
use crate::role::{self, Tables};
use crate::run::{Run, run};
use crate::vni::Vni;

/// A guest's interface on its node: what may come out of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GuestPort {
    /// The guest's address on the underlay: the only source its encapsulated packets may have.
    pub address: IpAddr,
    pub vni: Vni,
}

/// Programs and tables of a node's director.
///
/// All methods but those that attach take effect for the next packet. One process changes a
/// director's tables.
#[derive(Debug)]
pub struct Director {
    clusters: Mapped,
    rows: Mapped,
    last_sent: Mapped,
    members: HashMap<hl_in6, u32>,
    ports: HashMap<u32, hl_port>,
    port_counters: CounterTable,
    uplinks: Links,
    guest_ports: Links,
    tables: Tables,
}

const CLUSTER_WORDS: usize = size_of::<hl_cluster>() / 8;
/// Word of a cluster that holds its number, the director's number and whether it is present.
const CLUSTER_IDS: usize = 2;
/// Word of a cluster at which its marks begin.
const CLUSTER_MARKS: usize = 3;

impl Director {
    /// Loads the programs, with the tables that are pinned in `pins` or with new ones. `pins` is a
    /// folder in any mounted bpf file system; the director uses `pins/director`.
    pub fn open(pins: &Path) -> Result<Self> {
        let tables = Tables::open(pins, &role::DIRECTOR)?;
        let pinned = &tables.pinned;
        let clusters = abi::VIRTUAL_CLUSTERS;
        Ok(Self {
            clusters: tables.mapped("clusters", clusters, size_of::<hl_cluster>())?,
            rows: tables.mapped("rows", clusters, size_of::<hl_rows>())?,
            last_sent: tables.mapped("last_sent", clusters * abi::SLOTS, 8)?,
            members: HashMap::new(pinned.map("members")?, "underlay member", abi::MEMBERS),
            ports: HashMap::new(pinned.map("ports")?, "guest port", abi::PORTS),
            port_counters: CounterTable::new(pinned.map("port_counters")?, abi::PORT_COUNTERS)?,
            uplinks: Links::new(&pinned.role, "uplink", pinned.program("director")?),
            guest_ports: Links::new(&pinned.role, "port", pinned.program("guest_port")?),
            tables,
        })
    }

    /// What was found when the director was opened.
    pub fn adoption(&self) -> Adoption {
        self.tables.pinned.adoption
    }

    /// Directs what comes in at an interface. A link that is there is kept, with its program.
    pub fn attach(&self, ifindex: u32) -> Result<AttachMode> {
        self.uplinks.attach(ifindex)
    }

    /// Whether the interface was attached.
    pub fn detach(&self, ifindex: u32) -> Result<bool> {
        self.uplinks.detach(ifindex)
    }

    pub fn attached(&self) -> Result<Vec<Attached>> {
        self.uplinks.attached()
    }

    /// Watches what a guest sends: the interface is the node's side of the guest's veth or tap.
    /// Other guests may forward to the guest's address from now on; nobody outside may use it as a
    /// source.
    pub fn attach_port(&self, ifindex: u32, port: &GuestPort) -> Result<AttachMode> {
        let entry = hl_port {
            address: in6(port.address),
            number: port.vni.number(),
            reserved: 0,
        };
        self.ports.set(ifindex, entry)?;
        self.members
            .set(in6(port.address), abi::MEMBER_HERE as u32)?;
        self.guest_ports.attach(ifindex)
    }

    /// Whether the port was attached.
    pub fn detach_port(&self, ifindex: u32) -> Result<bool> {
        let was_attached = self.guest_ports.detach(ifindex)?;
        let entries = self.ports.entries()?;
        if let Some((_, port)) = entries.iter().find(|(key, _)| *key == ifindex) {
            self.remove_member_here(port.address)?;
        }
        self.ports.remove(ifindex)?;
        Ok(was_attached)
    }

    /// The guest with this address is no longer behind this node. It stays a member if it is one
    /// elsewhere by now.
    fn remove_member_here(&self, address: hl_in6) -> Result<()> {
        let is_here = |(member, place): &(hl_in6, u32)| {
            from_in6(*member) == from_in6(address) && *place == abi::MEMBER_HERE as u32
        };
        if self.members.entries()?.iter().any(is_here) {
            self.members.remove(address)?;
        }
        Ok(())
    }

    pub fn attached_ports(&self) -> Result<Vec<Attached>> {
        self.guest_ports.attached()
    }

    /// Puts this process's programs behind all links, each at once, and removes tables of other
    /// layouts. Fill the tables first if [`Self::adoption`] is not [`Adoption::Adopted`].
    pub fn replace_program(&mut self) -> Result<()> {
        self.uplinks.replace()?;
        self.guest_ports.replace()?;
        self.tables.pinned.remove_other_layouts()?;
        self.tables.pinned.adoption = Adoption::Adopted;
        Ok(())
    }

    /// Adds a virtual cluster, or changes its key or this director's number. A key changes never
    /// while flows live.
    pub fn set_cluster(&self, vni: Vni, key: FlowKey, director: NonZeroU16) -> Result<()> {
        let (index, is_new) = match self.index(vni) {
            Ok(index) => (index, false),
            Err(_) => (self.free_index()?, true),
        };
        let has_other_key = !is_new && self.key(index) != key;
        for (word, half) in key.0.chunks_exact(8).enumerate() {
            let half = u64::from_le_bytes(half.try_into().expect("eight bytes are eight bytes"));
            let word = self.clusters.word(index, word);
            word.store(half, Ordering::Release);
        }
        let director = director.get().to_be();
        let ids = u64::from(vni.on_the_wire()) | u64::from(director) << 32 | 1 << 48;
        let word = self.clusters.word(index, CLUSTER_IDS);
        word.store(ids, Ordering::Release);
        if has_other_key {
            for (address, other, kind) in self.addresses()? {
                if other == vni {
                    self.set_address(address, vni, kind)?;
                }
            }
        }
        Ok(())
    }

    /// Removes a virtual cluster with its addresses, guests and rows. Whether it was there.
    pub fn remove_cluster(&self, vni: Vni) -> Result<bool> {
        let Ok(index) = self.index(vni) else {
            return Ok(false);
        };
        for (address, other, _) in self.addresses()? {
            if other == vni {
                self.remove_address(address)?;
            }
        }
        self.barrier()?;
        for bucket in 0..BUCKETS {
            self.rows.word(index, bucket).store(0, Ordering::Relaxed);
        }
        for slot in 0..abi::SLOTS as usize {
            let entry = index * abi::SLOTS as usize + slot;
            self.tables.hops.remove(entry);
            self.last_sent.at(entry).store(0, Ordering::Relaxed);
        }
        self.clusters.write(index, [0; CLUSTER_WORDS]);
        Ok(true)
    }

    /// The virtual clusters that are set.
    pub fn clusters(&self) -> Vec<Vni> {
        let present = (0..self.clusters.len()).filter(|index| self.is_present(*index));
        present.map(|index| self.vni(index)).collect()
    }

    /// Directs packets to `address` to guests of a virtual cluster.
    pub fn set_address(&self, address: IpAddr, vni: Vni, kind: AddressKind) -> Result<()> {
        let index = self.index(vni)?;
        let owner = Owner {
            cluster: index as u32,
            vni,
            key: self.key(index),
            kind,
        };
        let Tables {
            addresses, grace, ..
        } = &self.tables;
        addresses.set(address, &owner, grace)
    }

    /// Whether the address was ours.
    pub fn remove_address(&self, address: IpAddr) -> Result<bool> {
        self.tables.addresses.remove(address)
    }

    /// All addresses and whose they are.
    pub fn addresses(&self) -> Result<Vec<(IpAddr, Vni, AddressKind)>> {
        let addresses = self.tables.addresses.all()?.into_iter();
        Ok(addresses
            .map(|(address, cluster, kind)| (address, self.vni(cluster as usize), kind))
            .collect())
    }

    /// Stores rows. Before they are acknowledged, wait for [`Self::barrier`].
    pub fn set_rows(&self, vni: Vni, rows: &[(Bucket, Row)]) -> Result<()> {
        let index = self.index(vni)?;
        for (bucket, row) in rows {
            self.rows
                .word(index, usize::from(bucket.0))
                .store(row.word(), Ordering::Release);
        }
        Ok(())
    }

    /// The row that packets of `bucket` follow; [`Row::NONE`] if none was set.
    pub fn row(&self, vni: Vni, bucket: Bucket) -> Result<Row> {
        let row = self.rows.word(self.index(vni)?, usize::from(bucket.0));
        let word = row.load(Ordering::Acquire);
        Ok(Row::from_word(word).unwrap_or(Row::NONE))
    }

    /// Returns when no packet is under way any more that may have read a row, a mark or a hop
    /// replaced before the call. Some milliseconds.
    pub fn barrier(&self) -> Result<()> {
        self.tables.grace.wait()
    }

    /// Says where packets to a guest go.
    pub fn set_guest(&self, vni: Vni, slot: GuestSlot, hop: &Hop) -> Result<()> {
        let entry = self.entry(vni, slot)?;
        let Tables { hops, grace, .. } = &self.tables;
        hops.set(entry, vni, hop, grace)
    }

    pub fn remove_guest(&self, vni: Vni, slot: GuestSlot) -> Result<()> {
        self.tables.hops.remove(self.entry(vni, slot)?);
        Ok(())
    }

    /// Where packets to a guest go; `None`: nowhere.
    pub fn guest(&self, vni: Vni, slot: GuestSlot) -> Result<Option<Hop>> {
        Ok(self.tables.hops.hop(self.entry(vni, slot)?))
    }

    /// Marks a guest as believed dead: it is asked last.
    pub fn set_dead(&self, vni: Vni, slot: GuestSlot, is_dead: bool) -> Result<()> {
        Marks::new(&self.clusters, self.index(vni)?, CLUSTER_MARKS).set(slot.number(), is_dead);
        Ok(())
    }

    pub fn is_dead(&self, vni: Vni, slot: GuestSlot) -> Result<bool> {
        let marks = Marks::new(&self.clusters, self.index(vni)?, CLUSTER_MARKS);
        Ok(marks.is_set(slot.number()))
    }

    /// Makes the time of the last packet to a guest be kept. Costs a clock reading per packet to
    /// it.
    pub fn set_watched(&self, vni: Vni, slot: GuestSlot, is_watched: bool) -> Result<()> {
        self.tables
            .hops
            .set_watched(self.entry(vni, slot)?, is_watched);
        Ok(())
    }

    /// When the last packet was sent to a watched guest: nanoseconds of `CLOCK_BOOTTIME`; `None`:
    /// none yet.
    pub fn last_sent_ns(&self, vni: Vni, slot: GuestSlot) -> Result<Option<u64>> {
        let time = self
            .last_sent
            .at(self.entry(vni, slot)?)
            .load(Ordering::Acquire);
        Ok((time != 0).then_some(time))
    }

    /// Lets a node or guest elsewhere send Geneve through the uplinks, and guests here forward to
    /// it. All others' is dropped.
    pub fn add_member(&self, address: IpAddr) -> Result<()> {
        self.members.set(in6(address), abi::MEMBER_ELSEWHERE as u32)
    }

    /// Whether the address was a member.
    pub fn remove_member(&self, address: IpAddr) -> Result<bool> {
        self.members.remove(in6(address))
    }

    /// Members elsewhere: guests of this node, which are members by their ports, are not among
    /// them.
    pub fn members(&self) -> Result<Vec<IpAddr>> {
        let entries = self.members.entries()?.into_iter();
        Ok(entries
            .filter(|(_, place)| *place == abi::MEMBER_ELSEWHERE as u32)
            .map(|(key, _)| from_in6(key))
            .collect())
    }

    /// The director's counters.
    pub fn counters(&self) -> Result<Counters> {
        self.tables.counters()
    }

    /// The guests' ports' counters.
    pub fn port_counters(&self) -> Result<Counters> {
        self.port_counters.read()
    }

    /// Runs the director on a packet, without an interface.
    pub fn run(&self, packet: &[u8]) -> Result<Run> {
        run(self.uplinks.program(), packet, 1)
    }

    /// Runs the ports' program on a packet. It comes from the loopback interface of this namespace,
    /// index 1.
    pub fn run_port(&self, packet: &[u8]) -> Result<Run> {
        run(self.guest_ports.program(), packet, 1)
    }

    /// An entry for another virtual cluster, emptied.
    fn free_index(&self) -> Result<usize> {
        let limit = self.clusters.len();
        let free = (0..limit).find(|index| !self.is_present(*index));
        let index = free.ok_or(Error::Full {
            what: "virtual cluster",
            limit,
        })?;
        self.clusters.write(index, [0; CLUSTER_WORDS]);
        Ok(index)
    }

    fn key(&self, index: usize) -> FlowKey {
        let half = |word: usize| self.clusters.word(index, word).load(Ordering::Acquire);
        let mut key = [0; 16];
        key[..8].copy_from_slice(&half(0).to_le_bytes());
        key[8..].copy_from_slice(&half(1).to_le_bytes());
        FlowKey(key)
    }

    fn ids(&self, index: usize) -> u64 {
        self.clusters
            .word(index, CLUSTER_IDS)
            .load(Ordering::Acquire)
    }

    fn vni(&self, index: usize) -> Vni {
        Vni::from_the_wire(self.ids(index) as u32)
    }

    fn is_present(&self, index: usize) -> bool {
        self.ids(index) >> 48 != 0
    }

    fn index(&self, vni: Vni) -> Result<usize> {
        (0..self.clusters.len())
            .find(|index| self.is_present(*index) && self.vni(*index) == vni)
            .ok_or(Error::UnknownCluster { vni: vni.number() })
    }

    fn entry(&self, vni: Vni, slot: GuestSlot) -> Result<usize> {
        Ok(self.index(vni)? * abi::SLOTS as usize + usize::from(slot.number()))
    }
}
