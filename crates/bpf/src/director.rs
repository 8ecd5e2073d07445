//! The director of a node: its programs, its tables, their pins.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::atomic::Ordering;

use hitless_core::flow::FlowKey;
use hitless_core::row::{BUCKETS, Bucket, GuestSlot, Row};

use crate::abi::{self, hl_address, hl_cluster, hl_in6, hl_port};
use crate::address::Addresses4;
use crate::counters::{CounterTable, Counters};
use crate::error::{Error, Result};
use crate::grace::Grace;
use crate::hop::{Hop, HopTable, from_in6, in6};
use crate::links::{AttachMode, Attached, Links};
use crate::map::HashMap;
use crate::mapped::{Mapped, Marks};
use crate::object::{Adoption, Pinned};
use crate::run::{Run, run};

/// The number of a virtual cluster on the wire: Geneve's VNI, 24 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    /// The highest number.
    pub const MAX: u32 = 0xff_ffff;

    pub fn new(vni: u32) -> Result<Self> {
        if vni > Self::MAX {
            Err(Error::BadVni { vni })
        } else {
            Ok(Self(vni))
        }
    }

    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vni{}", self.0)
    }
}

/// What an address of a virtual cluster is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AddressKind {
    /// Clients connect to it; the bucket is the flow's hash.
    Vip,
    /// Its guests connect to members from it; the bucket is in the port.
    Egress,
}

impl AddressKind {
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Vip => abi::VIP as u32,
            Self::Egress => abi::EGRESS as u32,
        }
    }
}

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
    guests: HopTable,
    last_sent: Mapped,
    addresses4: Addresses4,
    addresses6: HashMap<hl_in6, hl_address>,
    members: HashMap<hl_in6, u32>,
    ports: HashMap<u32, hl_port>,
    counters: CounterTable,
    port_counters: CounterTable,
    uplinks: Links,
    guest_ports: Links,
    grace: Grace,
    pinned: Pinned,
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
        let pinned = Pinned::open(pins, "director", abi::DIRECTOR_LAYOUT, abi::DIRECTOR_OBJECT)?;
        pinned.pin_programs()?;
        let clusters = abi::VIRTUAL_CLUSTERS;
        let guests = clusters * abi::SLOTS;
        Ok(Self {
            clusters: Mapped::new(
                pinned.map("clusters")?,
                "clusters",
                clusters,
                size_of::<hl_cluster>(),
            )?,
            rows: Mapped::new(pinned.map("rows")?, "rows", clusters * abi::BUCKETS, 8)?,
            guests: HopTable::new(
                pinned.map("guests")?,
                guests,
                pinned.map("hops")?,
                abi::HOPS,
            )?,
            last_sent: Mapped::new(pinned.map("last_sent")?, "last_sent", guests, 8)?,
            addresses4: Addresses4::new(pinned.map("addresses4")?, pinned.map("near4")?)?,
            addresses6: HashMap::new(pinned.map("addresses6")?, "address", abi::ADDRESSES),
            members: HashMap::new(pinned.map("members")?, "underlay member", abi::MEMBERS),
            ports: HashMap::new(pinned.map("ports")?, "guest port", abi::PORTS),
            counters: CounterTable::new(pinned.map("counters")?, abi::DIRECTOR_COUNTERS)?,
            port_counters: CounterTable::new(pinned.map("port_counters")?, abi::PORT_COUNTERS)?,
            uplinks: Links::new(&pinned.role, "uplink", pinned.program("director")?),
            guest_ports: Links::new(&pinned.role, "port", pinned.program("guest_port")?),
            grace: Grace::new()?,
            pinned,
        })
    }

    /// What was found when the director was opened.
    pub fn adoption(&self) -> Adoption {
        self.pinned.adoption
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
            self.members.remove(port.address)?;
        }
        self.ports.remove(ifindex)?;
        Ok(was_attached)
    }

    pub fn attached_ports(&self) -> Result<Vec<Attached>> {
        self.guest_ports.attached()
    }

    /// Puts this process's programs behind all links, each at once, and removes tables of other
    /// layouts. Fill the tables first if [`Self::adoption`] is not [`Adoption::Adopted`].
    pub fn replace_program(&mut self) -> Result<()> {
        self.uplinks.replace()?;
        self.guest_ports.replace()?;
        self.pinned.remove_other_layouts()?;
        self.pinned.adoption = Adoption::Adopted;
        Ok(())
    }

    /// Adds a virtual cluster, or changes its key or this director's number. A key changes never
    /// while flows live.
    pub fn set_cluster(&self, vni: Vni, key: FlowKey, director: NonZeroU16) -> Result<()> {
        let index = match self.index(vni) {
            Ok(index) => index,
            Err(_) => {
                let free = (0..self.clusters.len()).find(|index| !self.is_present(*index));
                let limit = self.clusters.len();
                let index = free.ok_or(Error::Full {
                    what: "virtual cluster",
                    limit,
                })?;
                self.clusters.write(index, [0; CLUSTER_WORDS]);
                index
            }
        };
        for (word, half) in key.0.chunks_exact(8).enumerate() {
            let half = u64::from_le_bytes(half.try_into().expect("eight bytes are eight bytes"));
            self.clusters
                .word(index, word)
                .store(half, Ordering::Release);
        }
        let ids = u64::from(vni.number()) | u64::from(director.get()) << 32 | 1 << 48;
        self.clusters
            .word(index, CLUSTER_IDS)
            .store(ids, Ordering::Release);
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
            self.rows
                .at(index * BUCKETS + bucket)
                .store(0, Ordering::Relaxed);
        }
        for slot in 0..abi::SLOTS as usize {
            let entry = index * abi::SLOTS as usize + slot;
            self.guests.remove(entry);
            self.last_sent.at(entry).store(0, Ordering::Relaxed);
        }
        self.clusters.write(index, [0; CLUSTER_WORDS]);
        Ok(true)
    }

    /// The virtual clusters that are set.
    pub fn clusters(&self) -> Vec<Vni> {
        let present = (0..self.clusters.len()).filter(|index| self.is_present(*index));
        present.map(|index| Vni(self.ids(index) as u32)).collect()
    }

    /// Directs packets to `address` to guests of a virtual cluster.
    pub fn set_address(&self, address: IpAddr, vni: Vni, kind: AddressKind) -> Result<()> {
        let value = hl_address {
            cluster: self.index(vni)? as u32,
            kind: kind.number(),
        };
        match address {
            IpAddr::V4(address) => {
                let key = u32::from_ne_bytes(address.octets());
                self.addresses4.set(key, value)
            }
            IpAddr::V6(_) => self.addresses6.set(in6(address), value),
        }
    }

    /// Whether the address was ours.
    pub fn remove_address(&self, address: IpAddr) -> Result<bool> {
        match address {
            IpAddr::V4(address) => {
                let key = u32::from_ne_bytes(address.octets());
                self.addresses4.remove(key)
            }
            IpAddr::V6(_) => self.addresses6.remove(in6(address)),
        }
    }

    /// All addresses and whose they are.
    pub fn addresses(&self) -> Result<Vec<(IpAddr, Vni, AddressKind)>> {
        let v4 = self
            .addresses4
            .entries()?
            .into_iter()
            .map(|(key, value)| (IpAddr::from(key.to_ne_bytes()), value));
        let v6 = self
            .addresses6
            .entries()?
            .into_iter()
            .map(|(key, value)| (from_in6(key), value));
        let addresses = v4.chain(v6).map(|(address, value)| {
            let kind = if value.kind == AddressKind::Egress.number() {
                AddressKind::Egress
            } else {
                AddressKind::Vip
            };
            (address, Vni(self.ids(value.cluster as usize) as u32), kind)
        });
        Ok(addresses.collect())
    }

    /// Stores rows. Before they are acknowledged, wait for [`Self::barrier`].
    pub fn set_rows(&self, vni: Vni, rows: &[(Bucket, Row)]) -> Result<()> {
        let index = self.index(vni)?;
        for (bucket, row) in rows {
            self.rows
                .at(index * BUCKETS + usize::from(bucket.0))
                .store(row.word(), Ordering::Release);
        }
        Ok(())
    }

    /// The row that packets of `bucket` follow; [`Row::NONE`] if none was set.
    pub fn row(&self, vni: Vni, bucket: Bucket) -> Result<Row> {
        let entry = self.index(vni)? * BUCKETS + usize::from(bucket.0);
        let word = self.rows.at(entry).load(Ordering::Acquire);
        Ok(Row::from_word(word).unwrap_or(Row::NONE))
    }

    /// Returns when no packet is under way any more that may have read a row, a mark or a hop
    /// replaced before the call. Some milliseconds.
    pub fn barrier(&self) -> Result<()> {
        self.grace.wait()
    }

    /// Says where packets to a guest go.
    pub fn set_guest(&self, vni: Vni, slot: GuestSlot, hop: &Hop) -> Result<()> {
        self.guests
            .set(self.entry(vni, slot)?, vni, hop, &self.grace)
    }

    pub fn remove_guest(&self, vni: Vni, slot: GuestSlot) -> Result<()> {
        self.guests.remove(self.entry(vni, slot)?);
        Ok(())
    }

    /// Where packets to a guest go; `None`: nowhere.
    pub fn guest(&self, vni: Vni, slot: GuestSlot) -> Result<Option<Hop>> {
        Ok(self.guests.hop(self.entry(vni, slot)?))
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
        self.guests.set_watched(self.entry(vni, slot)?, is_watched);
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
        self.counters.read()
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

    fn ids(&self, index: usize) -> u64 {
        self.clusters
            .word(index, CLUSTER_IDS)
            .load(Ordering::Acquire)
    }

    fn is_present(&self, index: usize) -> bool {
        self.ids(index) >> 48 != 0
    }

    fn index(&self, vni: Vni) -> Result<usize> {
        (0..self.clusters.len())
            .find(|index| self.is_present(*index) && self.ids(*index) as u32 == vni.number())
            .ok_or(Error::UnknownCluster { vni: vni.number() })
    }

    fn entry(&self, vni: Vni, slot: GuestSlot) -> Result<usize> {
        Ok(self.index(vni)? * abi::SLOTS as usize + usize::from(slot.number()))
    }
}
