//! The ingress of a guest: its program, its tables, their pins, and what its kernel holds.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use hitless_core::flow::FlowKey;
use hitless_core::row::{Bucket, GuestSlot, Row};
use libbpf_rs::libbpf_sys;

use crate::abi::{self, hl_self};
use crate::address::{AddressKind, Owner};
use crate::cookies;
use crate::counters::Counters;
use crate::error::{Error, Result, checked};

use crate::held::{self, HeldSocket};
use crate::hop::Hop;
use crate::links::{AttachMode, Attached, Links};
use crate::mapped::{Mapped, Marks};
use crate::object::Adoption;
use crate::role::{self, Tables};
use crate::run::{Run, run};
use crate::vni::Vni;

/// Who a guest is. It does not change while its kernel lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub vni: Vni,
    pub key: FlowKey,
    pub slot: GuestSlot,
}

/// What the guest's kernel holds, by bucket, and what it may have promised beyond.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LiveCounts {
    /// Sockets per bucket: half-open, in an accept queue, established to last-ACK, orphans. Buckets
    /// with none are left out.
    pub buckets: BTreeMap<Bucket, u64>,
    /// SYN cookies that this namespace has sent since it was made. If the number rises between two
    /// counts, any bucket may hold a cookie for two minutes, which is as long as the kernel takes
    /// one.
    pub cookies_sent: u64,
}

impl LiveCounts {
    pub fn of(&self, bucket: Bucket) -> u64 {
        self.buckets.get(&bucket).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.buckets.values().sum()
    }
}

/// Program and tables of a guest's ingress. Used by a process in the guest's network namespace.
#[derive(Debug)]
pub struct Ingress {
    identity: Identity,
    me: Mapped,
    rows: Mapped,
    stampers: Mapped,
    stale_stamps: Mapped,
    /// Locked while the iterator fills it.
    live: Mutex<Mapped>,
    counter: OwnedFd,
    links: Links,
    tables: Tables,
}

const SELF_WORDS: usize = size_of::<hl_self>() / 8;
const SELF_LEASE: usize = 2;
const SELF_IDS: usize = 3;
const SELF_MARKS: usize = 4;

impl Ingress {
    /// Loads the program, with the tables that are pinned in `pins` or with new ones. `pins` is a
    /// folder in any mounted bpf file system; the ingress uses `pins/ingress`. Tables of another
    /// identity are refused.
    pub fn open(pins: &Path, identity: Identity) -> Result<Self> {
        let tables = Tables::open(pins, &role::INGRESS)?;
        let pinned = &tables.pinned;
        let me = tables.mapped("me", 1, size_of::<hl_self>())?;
        identify(&me, &identity)?;
        Ok(Self {
            identity,
            me,
            rows: tables.mapped("rows", abi::BUCKETS, 8)?,
            stampers: tables.mapped("stampers", abi::STAMPERS, 8)?,
            stale_stamps: tables.mapped("stale", abi::STAMPERS, 8)?,
            live: Mutex::new(tables.mapped("live", abi::BUCKETS, 8)?),
            counter: pinned.program("count_live")?,
            links: Links::new(&pinned.role, "ingress", pinned.program("ingress")?),
            tables,
        })
    }

    /// What was found when the ingress was opened.
    pub fn adoption(&self) -> Adoption {
        self.tables.pinned.adoption
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Steers what comes in at the guest's interface. A link that is there is kept, with its
    /// program.
    pub fn attach(&self, ifindex: u32) -> Result<AttachMode> {
        self.links.attach(ifindex)
    }

    /// Whether the interface was attached.
    pub fn detach(&self, ifindex: u32) -> Result<bool> {
        self.links.detach(ifindex)
    }

    pub fn attached(&self) -> Result<Vec<Attached>> {
        self.links.attached()
    }

    /// Puts this process's program behind the link at once, and removes tables of other layouts.
    /// Fill the tables first if [`Self::adoption`] is not [`Adoption::Adopted`].
    pub fn replace_program(&mut self) -> Result<()> {
        self.links.replace()?;
        self.tables.pinned.remove_other_layouts()?;
        self.tables.pinned.adoption = Adoption::Adopted;
        Ok(())
    }

    /// Steers packets to `address`, a VIP or egress address of the virtual cluster.
    pub fn set_address(&self, address: IpAddr, kind: AddressKind) -> Result<()> {
        let owner = Owner {
            cluster: 0,
            vni: self.identity.vni,
            key: self.identity.key,
            kind,
        };
        let Tables {
            addresses, grace, ..
        } = &self.tables;
        addresses.set(address, &owner, grace)
    }

    /// Whether the address was one of the virtual cluster's.
    pub fn remove_address(&self, address: IpAddr) -> Result<bool> {
        self.tables.addresses.remove(address)
    }

    pub fn addresses(&self) -> Result<Vec<(IpAddr, AddressKind)>> {
        let addresses = self.tables.addresses.all()?.into_iter();
        Ok(addresses
            .map(|(address, _, kind)| (address, kind))
            .collect())
    }

    /// Stores rows. Before they are acknowledged, wait for [`Self::barrier`], then count.
    pub fn set_rows(&self, rows: &[(Bucket, Row)]) {
        for (bucket, row) in rows {
            self.rows
                .at(usize::from(bucket.0))
                .store(row.word(), Ordering::Release);
        }
    }

    /// This guest's own copy of a row; [`Row::NONE`] if none was set.
    pub fn row(&self, bucket: Bucket) -> Row {
        let word = self.rows.at(usize::from(bucket.0)).load(Ordering::Acquire);
        Row::from_word(word).unwrap_or(Row::NONE)
    }

    /// Returns when no packet is under way any more that may have read a row, a mark or a hop
    /// replaced before the call. Some milliseconds.
    pub fn barrier(&self) -> Result<()> {
        self.tables.grace.wait()
    }

    /// Says where packets that are passed on to another guest go. They leave where they came in.
    pub fn set_peer(&self, slot: GuestSlot, hop: &Hop) -> Result<()> {
        let (entry, vni) = (usize::from(slot.number()), self.identity.vni);
        let Tables { hops, grace, .. } = &self.tables;
        hops.set(entry, vni, hop, grace)
    }

    pub fn remove_peer(&self, slot: GuestSlot) {
        self.tables.hops.remove(usize::from(slot.number()));
    }

    pub fn peer(&self, slot: GuestSlot) -> Option<Hop> {
        self.tables.hops.hop(usize::from(slot.number()))
    }

    /// Marks a guest as believed dead: a new stamp puts it last. A guest never believes that of
    /// itself.
    pub fn set_dead(&self, slot: GuestSlot, is_dead: bool) {
        Marks::new(&self.me, 0, SELF_MARKS).set(slot.number(), is_dead);
    }

    pub fn is_dead(&self, slot: GuestSlot) -> bool {
        Marks::new(&self.me, 0, SELF_MARKS).is_set(slot.number())
    }

    /// Lets the stack answer unknown packets until then: nanoseconds of `CLOCK_BOOTTIME`; 0 takes
    /// the right away.
    pub fn set_lease(&self, until_ns: u64) {
        self.me
            .word(0, SELF_LEASE)
            .store(until_ns, Ordering::Release);
    }

    pub fn lease_until_ns(&self) -> u64 {
        self.me.word(0, SELF_LEASE).load(Ordering::Acquire)
    }

    /// Counts what the kernel of the calling thread's network namespace holds of this virtual
    /// cluster's addresses.
    pub fn live_counts(&self) -> Result<LiveCounts> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        for bucket in 0..live.len() {
            live.at(bucket).store(0, Ordering::Relaxed);
        }
        iterate(&self.counter)?;
        let buckets = (0..live.len()).filter_map(|bucket| {
            let count = live.at(bucket).load(Ordering::Acquire);
            (count != 0).then_some((Bucket(bucket as u16), count))
        });
        Ok(LiveCounts {
            buckets: buckets.collect(),
            cookies_sent: cookies::cookies_sent()?,
        })
    }

    /// The directors whose stamps came in since the last call.
    pub fn take_stampers(&self) -> Vec<NonZeroU16> {
        let numbers = (1..=u16::MAX).filter(|number| {
            let seen = self.stampers.at(usize::from(number.to_be()));
            seen.load(Ordering::Relaxed) != 0 && seen.swap(0, Ordering::AcqRel) != 0
        });
        numbers.filter_map(NonZeroU16::new).collect()
    }

    /// Per director, how many packets came with a stamp of it older than this guest's row, since
    /// the tables were made.
    pub fn stale_stamps(&self) -> BTreeMap<NonZeroU16, u64> {
        let numbers = (1..=u16::MAX).filter_map(|number| {
            let count = self
                .stale_stamps
                .at(usize::from(number.to_be()))
                .load(Ordering::Relaxed);
            (count != 0).then(|| NonZeroU16::new(number).map(|number| (number, count)))?
        });
        numbers.collect()
    }

    /// What the kernel of the calling thread's network namespace holds of this virtual cluster's
    /// addresses, connection by connection.
    pub fn held(&self) -> Result<Vec<HeldSocket>> {
        let addresses = self.addresses()?;
        let is_ours = |held: &HeldSocket| {
            addresses
                .iter()
                .any(|(address, _)| *address == held.flow.destination)
        };
        let mut held = held::all()?;
        held.retain(is_ours);
        Ok(held)
    }

    /// Aborts these, with a reset to their clients. Answers those that were still there.
    pub fn abort(&self, held: &[HeldSocket]) -> Result<Vec<HeldSocket>> {
        held::abort(held)
    }

    pub fn counters(&self) -> Result<Counters> {
        self.tables.counters()
    }

    /// Runs the ingress on a packet, without an interface, in the calling thread's network
    /// namespace.
    pub fn run(&self, packet: &[u8]) -> Result<Run> {
        run(self.links.program(), packet, 1)
    }
}

/// Writes who we are into new tables, or checks that adopted ones are ours.
fn identify(me: &Mapped, identity: &Identity) -> Result<()> {
    let half = |at: usize| {
        let bytes = identity.key.0[at..at + 8]
            .try_into()
            .expect("eight bytes are eight bytes");
        u64::from_le_bytes(bytes)
    };
    let ids = u64::from(identity.vni.on_the_wire()) | u64::from(identity.slot.number()) << 32;
    let old = me.read::<SELF_WORDS>(0);
    if old[SELF_IDS] != 0 {
        if old[SELF_IDS] != ids {
            return Err(Error::OtherIdentity {
                what: "virtual cluster or slot",
            });
        }
        if old[..2] != [half(0), half(8)] {
            return Err(Error::OtherIdentity { what: "key" });
        }
        return Ok(());
    }
    let mut new = [0; SELF_WORDS];
    new[..2].copy_from_slice(&[half(0), half(8)]);
    new[SELF_IDS] = ids;
    me.write(0, new);
    Ok(())
}

/// Runs an iterator program over all sockets.
fn iterate(program: &OwnedFd) -> Result<()> {
    let error = |source| Error::Count { source };
    // SAFETY: the descriptor lives until the call returns; no options are given.
    let link = unsafe {
        libbpf_sys::bpf_link_create(
            program.as_raw_fd(),
            0,
            libbpf_sys::BPF_TRACE_ITER,
            std::ptr::null(),
        )
    };
    // SAFETY: the call has made this descriptor for us.
    let link = checked(link)
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .map_err(error)?;
    // SAFETY: a call with a descriptor that lives until it returns.
    let iterator = unsafe { libbpf_sys::bpf_iter_create(link.as_raw_fd()) };
    // SAFETY: the call has made this descriptor for us.
    let iterator = checked(iterator).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let mut file = std::fs::File::from(iterator.map_err(error)?);
    let mut nothing = [0; 64];
    while file.read(&mut nothing).map_err(error)? != 0 {}
    Ok(())
}
