//! What the links `controller.node` and `node.guest` carry, version 1.
//!
//! Two kinds of messages: those of the table's machines, passed through untouched, and orders with
//! reports. Orders are the whole of what is wanted, sent again whenever it changes and whenever a
//! link opens, so none is ever waited for; reports are the whole of what is so. A node obeys an
//! order of a newer or equal generation only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use hitless_core::flow::FlowKey;
use hitless_core::ledger::Ledger;
use hitless_core::row::GuestSlot;
use hitless_core::table::message::{DirectorId, FromAgent, FromGuest, ToAgent, ToGuest};
use serde::{Deserialize, Serialize};

use crate::link::hello::Protocol;
use crate::link::wire::{Message, Tail, pack};
use crate::plane::Connection;

/// Controller and node agent.
pub const CONTROLLER_NODE: Protocol = Protocol {
    name: "controller.node",
    oldest: 1,
    newest: 1,
};
/// Node agent and a guest's ingress.
pub const NODE_GUEST: Protocol = Protocol {
    name: "node.guest",
    oldest: 1,
    newest: 1,
};

/// All that a node has to know of its virtual cluster and of what it is to run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Orders {
    /// Rises with every change of what is wanted.
    pub generation: u64,
    /// Number of the node's director.
    pub director: DirectorId,
    pub cluster: Cluster,
    /// Guests that this node runs, by name.
    pub guests: BTreeMap<String, GuestOrder>,
    /// Every guest of the virtual cluster that has a slot and an address, on whatever node.
    pub peers: Vec<Peer>,
    /// Every node's address on the underlay.
    pub directors: BTreeMap<DirectorId, IpAddr>,
    pub programs: Programs,
    pub site: SiteFile,
    /// The node is no longer a member: it takes its director away and leaves.
    pub is_leaving: bool,
}

/// A virtual cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cluster {
    pub name: String,
    pub vni: u32,
    pub key: FlowKey,
    pub vips: Vec<IpAddr>,
}

/// What a node is to do with a guest. A guest that is not ordered is destroyed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GuestOrder {
    /// Slot of the boot that the node reported; none before the controller gave one.
    pub slot: Option<(u64, GuestSlot)>,
    /// It is being drained: its clients are told to close, where their protocol can say so.
    #[serde(default)]
    pub is_draining: bool,
    /// The deadline of this change has come: whatever it still holds is ended, and named.
    #[serde(default)]
    pub ends_for: Option<u64>,
}

/// A guest that others forward to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Peer {
    pub slot: GuestSlot,
    pub node: String,
    pub guest: String,
    /// Its addresses on the underlay.
    pub addresses: Vec<IpAddr>,
}

/// Which programs run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Programs {
    /// Rises with every order to replace director and ingress programs.
    pub bpf_generation: u64,
    /// Rises with every order to upgrade traffic managers.
    pub manager_generation: u64,
    /// The program of traffic managers; none: the agent's own.
    pub manager: Option<String>,
}

/// The site configuration; generation 0 is none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SiteFile {
    pub generation: u64,
    pub text: String,
}

/// Controller to node agent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToNode {
    Orders(Box<Orders>),
    Table(ToAgent),
    /// For the ingress of a guest on this node.
    Guest {
        slot: GuestSlot,
        message: ToGuest,
    },
}

/// Node agent to controller.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromNode {
    Report(Box<NodeReport>),
    Table {
        director: DirectorId,
        message: FromAgent,
    },
    Guest {
        slot: GuestSlot,
        message: FromGuest,
    },
    /// The ingress of this slot is linked to the agent: it may have missed anything.
    GuestLinked {
        slot: GuestSlot,
    },
}

/// Whom a data plane knows: guests that it can send to, and directors that it takes packets from.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Known {
    pub guests: BTreeSet<GuestSlot>,
    pub directors: BTreeSet<DirectorId>,
}

/// All that a node says of itself.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct NodeReport {
    /// The newest orders that it has.
    pub generation: u64,
    /// The director that it is, once it has taken its orders; none before.
    pub director_id: Option<DirectorId>,
    /// Its address on the underlay.
    pub address: Option<IpAddr>,
    /// Whether `guests` is known: a boot that is not in it is then gone for good.
    pub is_complete: bool,
    /// Digest of the director's program and how it is attached; none: not attached.
    pub director: Option<AttachedProgram>,
    /// Whom its director's plane knows.
    pub known: Known,
    pub guests: BTreeMap<String, GuestReport>,
    pub counters: BTreeMap<String, u64>,
    /// When the counters were read, microseconds since 1970.
    pub at_us: u64,
    /// The newest order to replace programs that is done on this node, its guests included.
    pub bpf_generation: u64,
    /// It has left: nothing of it directs any more.
    pub has_left: bool,
    /// What this agent has seen of guests' deaths, the last [`DEATHS_KEPT`].
    #[serde(default)]
    pub deaths: Vec<DeathSeen>,
    /// What does not work, by object.
    pub faults: BTreeMap<String, String>,
}

/// Deaths that an agent remembers: those of a node with all its guests, for a controller that was
/// away.
pub const DEATHS_KEPT: usize = 64;

/// What an agent has seen of a guest's death. Times are microseconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeathSeen {
    pub slot: GuestSlot,
    /// When this node's director believed it dead.
    pub believed_us: Option<u64>,
    /// When its link was cut. None: it ran on another node, or nobody saw that.
    pub cut_us: Option<u64>,
    /// The last packet that this node's director sent to it.
    pub last_packet_us: Option<u64>,
    /// What it held by its last count. None: it ran on another node, or never counted.
    pub held: Option<Held>,
}

/// What a guest held, and when it counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Held {
    pub connections: u64,
    pub counted_us: u64,
}

/// A BPF program behind a link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttachedProgram {
    pub digest: String,
    /// `native` or `generic`.
    pub mode: String,
}

/// Name of a guest's counter: connections whose clients its traffic manager has told to close.
pub const TOLD_TO_CLOSE: &str = "told_to_close";

/// What a node says of a guest.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct GuestReport {
    /// Which boot of its kernel runs.
    pub boot: u64,
    pub addresses: Vec<IpAddr>,
    /// Its ingress is linked to the agent.
    pub is_linked: bool,
    /// Its ingress's program.
    pub ingress: Option<AttachedProgram>,
    /// Whom its ingress's plane knows.
    pub known: Known,
    /// Its traffic manager answers.
    pub is_ready: bool,
    pub ingress_pid: Option<u32>,
    pub keeper_pid: Option<u32>,
    pub worker_pids: Vec<u32>,
    /// Build of its traffic manager; none: it does not answer.
    pub program: Option<String>,
    pub counters: BTreeMap<String, u64>,
    pub at_us: u64,
    pub site_generation: u64,
    /// Why the newest site configuration is not applied; none: it is, or is on its way.
    pub site_refused: Option<String>,
    pub manager_generation: u64,
    /// Why the last upgrade failed.
    pub upgrade_failed: Option<String>,
    /// What the last upgrade cost.
    pub upgrade_ledger: Option<Ledger>,
    pub bpf_generation: u64,
    /// What it ended at a deadline. None: it was not told to.
    #[serde(default)]
    pub ended: Option<Ended>,
}

/// Connections that a guest ended because a change's deadline had come.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ended {
    /// The change's number.
    pub change: u64,
    pub total: u64,
    /// The first of them, at most [`ENDED_NAMED_MAX`].
    pub named: Vec<Connection>,
    /// At the last look there was nothing left to end.
    pub is_all: bool,
}

/// Connections that are named: 256 of some 60 bytes are 15 KiB in each report until the guest is
/// drained.
pub const ENDED_NAMED_MAX: usize = 256;

/// Node agent to a guest's ingress.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToIngress {
    Orders(Box<IngressOrders>),
    Table(ToGuest),
}

/// All that an ingress has to know. It keeps them in a file, so that it comes back without its
/// agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IngressOrders {
    pub slot: GuestSlot,
    pub boot: u64,
    pub vni: u32,
    pub key: FlowKey,
    pub vips: Vec<IpAddr>,
    /// The guest's own addresses on the underlay.
    pub addresses: Vec<IpAddr>,
    /// Its interface, and Ethernet addresses of both ends of its link.
    pub interface: String,
    pub mac: [u8; 6],
    pub gateway_mac: [u8; 6],
    pub mtu: u16,
    pub peers: Vec<Peer>,
    /// Whom it asks for its lease.
    pub directors: BTreeMap<DirectorId, IpAddr>,
    pub lease_port: u16,
    pub bpf_generation: u64,
    /// As of [`GuestOrder::ends_for`].
    #[serde(default)]
    pub ends_for: Option<u64>,
}

/// A guest's ingress to its node agent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromIngress {
    /// The ingress runs as this slot, with rows that it had or none.
    Ready {
        slot: GuestSlot,
    },
    Table(FromGuest),
    Report(IngressReport),
}

/// What an ingress says of itself, once a second and after every change.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct IngressReport {
    pub program: Option<AttachedProgram>,
    pub known: Known,
    pub pid: u32,
    pub counters: BTreeMap<String, u64>,
    pub at_us: u64,
    pub bpf_generation: u64,
    /// What does not work.
    pub fault: Option<String>,
    #[serde(default)]
    pub ended: Option<Ended>,
}

fn pack_to_guest(message: &mut ToGuest, tail: &mut Vec<u8>) {
    match message {
        ToGuest::Rows { rows, leaving } => {
            pack(rows, tail);
            pack(leaving, tail);
        }
        ToGuest::Report => {}
    }
}

fn unpack_to_guest(message: &mut ToGuest, tail: &mut Tail<'_>) -> io::Result<()> {
    match message {
        ToGuest::Rows { rows, leaving } => {
            tail.unpack(rows)?;
            tail.unpack(leaving)
        }
        ToGuest::Report => Ok(()),
    }
}

fn pack_from_guest(message: &mut FromGuest, tail: &mut Vec<u8>) {
    match message {
        FromGuest::Applied { rows } => pack(rows, tail),
        FromGuest::Holds { rows } => pack(rows, tail),
        FromGuest::Live { buckets, .. } => pack(buckets, tail),
        FromGuest::StampedBy { .. } => {}
    }
}

fn unpack_from_guest(message: &mut FromGuest, tail: &mut Tail<'_>) -> io::Result<()> {
    match message {
        FromGuest::Applied { rows } => tail.unpack(rows),
        FromGuest::Holds { rows } => tail.unpack(rows),
        FromGuest::Live { buckets, .. } => tail.unpack(buckets),
        FromGuest::StampedBy { .. } => Ok(()),
    }
}

impl Message for ToNode {
    fn pack(&mut self, tail: &mut Vec<u8>) {
        match self {
            Self::Table(ToAgent::Rows { rows }) => pack(rows, tail),
            Self::Guest { message, .. } => pack_to_guest(message, tail),
            Self::Orders(_) | Self::Table(ToAgent::Trust { .. }) => {}
        }
    }

    fn unpack(&mut self, tail: &mut Tail<'_>) -> io::Result<()> {
        match self {
            Self::Table(ToAgent::Rows { rows }) => tail.unpack(rows),
            Self::Guest { message, .. } => unpack_to_guest(message, tail),
            Self::Orders(_) | Self::Table(ToAgent::Trust { .. }) => Ok(()),
        }
    }
}

impl Message for FromNode {
    fn pack(&mut self, tail: &mut Vec<u8>) {
        match self {
            Self::Table {
                message: FromAgent::Applied { rows },
                ..
            } => pack(rows, tail),
            Self::Guest { message, .. } => pack_from_guest(message, tail),
            Self::Table { .. } | Self::Report(_) | Self::GuestLinked { .. } => {}
        }
    }

    fn unpack(&mut self, tail: &mut Tail<'_>) -> io::Result<()> {
        match self {
            Self::Table {
                message: FromAgent::Applied { rows },
                ..
            } => tail.unpack(rows),
            Self::Guest { message, .. } => unpack_from_guest(message, tail),
            Self::Table { .. } | Self::Report(_) | Self::GuestLinked { .. } => Ok(()),
        }
    }
}

impl Message for ToIngress {
    fn pack(&mut self, tail: &mut Vec<u8>) {
        if let Self::Table(message) = self {
            pack_to_guest(message, tail);
        }
    }

    fn unpack(&mut self, tail: &mut Tail<'_>) -> io::Result<()> {
        match self {
            Self::Table(message) => unpack_to_guest(message, tail),
            Self::Orders(_) => Ok(()),
        }
    }
}

impl Message for FromIngress {
    fn pack(&mut self, tail: &mut Vec<u8>) {
        if let Self::Table(message) = self {
            pack_from_guest(message, tail);
        }
    }

    fn unpack(&mut self, tail: &mut Tail<'_>) -> io::Result<()> {
        match self {
            Self::Table(message) => unpack_from_guest(message, tail),
            Self::Ready { .. } | Self::Report(_) => Ok(()),
        }
    }
}
