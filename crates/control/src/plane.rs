//! What the drivers need of a data plane, so that they can be tested without one.
//!
//! The real one is [`crate::bpf`]; what a test uses instead lies with the test. Calls of `store`,
//! `count`, `held`, `end_all`, `set_up` and `replace` may block for the milliseconds of a grace
//! period or a scan, and are made by one thread; all others return at once, and may be made
//! meanwhile.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hitless_core::row::{Bucket, GuestSlot, Row};
use hitless_core::table::message::DirectorId;
use serde::{Deserialize, Serialize};

use crate::message::{AttachedProgram, Cluster, IngressOrders};

/// Why a data plane did not do what it was told; shown to operators.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PlaneError(pub String);

/// What a plane call returns.
pub type Result<T> = std::result::Result<T, PlaneError>;

/// Rows that a plane failed to store: they go into it with the next ones, since whoever offers them
/// again offers nothing new.
#[derive(Debug, Default)]
pub(crate) struct Unstored(Vec<(Bucket, Row)>);

impl Unstored {
    /// Stores rows, and before them what could not be stored until now.
    pub(crate) fn store(
        &mut self,
        rows: Vec<(Bucket, Row)>,
        store: impl FnOnce(&[(Bucket, Row)]) -> Result<()>,
    ) -> Result<()> {
        let mut all = std::mem::take(&mut self.0);
        all.extend(rows);
        let result = store(&all);
        if result.is_err() {
            self.0 = all;
        }
        result
    }
}

/// How a director reaches a guest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Way {
    /// The director's own address.
    pub source: IpAddr,
    /// The guest's address.
    pub destination: IpAddr,
    /// Ethernet address of the next hop, and of the interface that leads there.
    pub mac: [u8; 6],
    pub source_mac: [u8; 6],
    pub ifindex: u32,
    pub mtu: u16,
}

/// A node's director.
pub trait DirectorPlane: Send + Sync {
    /// Takes the identity and the virtual cluster; attaches the uplinks. May be repeated with
    /// changed VIPs.
    fn set_up(&self, director: DirectorId, cluster: &Cluster) -> Result<()>;

    /// All rows that it directs by: 65,536, or none before [`Self::set_up`].
    fn rows(&self) -> Vec<Row>;

    /// Stores rows, and returns when no packet is judged by an older one any more.
    fn store(&self, rows: &[(Bucket, Row)]) -> Result<()>;

    /// Exactly these are believed dead.
    fn believe(&self, dead: &[GuestSlot]) -> Result<()>;

    /// Exactly these guests are reachable, by these ways.
    fn set_ways(&self, ways: &BTreeMap<GuestSlot, Way>) -> Result<()>;

    /// Exactly these may send encapsulated packets to this node.
    fn set_members(&self, members: &[IpAddr]) -> Result<()>;

    /// Exactly these interfaces lead to guests of this node, with the guests' addresses.
    fn set_ports(&self, ports: &BTreeMap<u32, IpAddr>) -> Result<()>;

    /// Puts the program of this process behind all links.
    fn replace(&self) -> Result<()>;

    /// None: not attached.
    fn program(&self) -> Option<AttachedProgram>;

    fn counters(&self) -> BTreeMap<String, u64>;

    /// Takes everything away: packets pass as if there had been no director.
    fn leave(&self) -> Result<()>;
}

/// What a guest's kernel holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// By bucket; buckets that hold nothing are left out.
    pub live: Vec<(Bucket, u32)>,
    pub connections: u64,
}

/// A connection of a guest, by its two addresses as its client sees them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Connection {
    pub client: SocketAddr,
    pub server: SocketAddr,
}

/// A guest's ingress.
pub trait IngressPlane: Send + Sync {
    /// Takes VIPs and peers, attaches the interface. May be repeated with changed ones.
    fn set_up(&self, orders: &IngressOrders) -> Result<()>;

    fn rows(&self) -> Vec<Row>;

    /// Stores rows, and returns when no packet is judged by an older one any more.
    fn store(&self, rows: &[(Bucket, Row)]) -> Result<()>;

    /// Counts what the kernel holds now.
    fn count(&self) -> Result<Count>;

    /// The connections that the kernel holds now, without entries that are none yet, or none any
    /// more.
    fn held(&self) -> Result<Vec<Connection>>;

    /// Ends all that the kernel holds now, with a reset to each client. Answers the connections
    /// among them, as [`Self::held`] has them.
    fn end_all(&self) -> Result<Vec<Connection>>;

    /// The stack may answer until then, by `CLOCK_BOOTTIME`.
    fn lease(&self, until_us: u64);

    /// Exactly these are believed dead.
    fn believe(&self, dead: &[GuestSlot]) -> Result<()>;

    /// Directors whose stamps came since the last call.
    fn stampers(&self) -> Vec<DirectorId>;

    fn replace(&self) -> Result<()>;

    fn program(&self) -> Option<AttachedProgram>;

    fn counters(&self) -> BTreeMap<String, u64>;
}
