//! The objects that the API shows. Plain values: whoever fills them in decides, nobody here does.
//!
//! Names of kinds and states are kebab-case words. A reader accepts fields that it does not know,
//! so that fields can be added; a number that is not known is absent (`null`), never 0. Times are
//! microseconds since 1970, UTC.

use std::collections::BTreeMap;

use hitless_core::ledger::Ledger;
use serde::{Deserialize, Serialize};

/// A list of objects, with the store's revision that it was read at.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct List<T> {
    pub revision: u64,
    pub items: Vec<T>,
}

/// What the operator wants of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminState {
    Ready,
    Drain,
    Maint,
}

/// Whether it works.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Health {
    Up,
    Down { reason: String, since_us: u64 },
    Unknown { reason: String },
}

/// Whether it has the newest configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum ConfigState {
    Synced,
    Pending { reason: String },
    Rejected { reason: String },
}

/// Where a node is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodePhase {
    /// Ordered, its agent has not joined yet (or the node was rebooted and is not back).
    Expected,
    /// Its agent is linked and its director has the table: it may be given traffic.
    Joined,
    /// Its guests are being drained.
    Draining,
    /// Its guests hold nothing: it may be stopped, or rebooted.
    Drained,
    /// It is being taken out; gone afterwards.
    Leaving,
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub phase: NodePhase,
    pub admin: AdminState,
    pub health: Health,
    pub config: ConfigState,
    /// Number of its director in packets that it stamps; none before it joined.
    pub director: Option<u16>,
    /// Whether its agent is linked to this controller now.
    pub linked: bool,
    /// Which kernel this is: another value after a reboot. None before it joined.
    pub kernel: Option<String>,
    /// Release of its agent; none before it joined.
    pub version: Option<String>,
    /// Digest of the director program that is attached; none while there is none.
    pub program: Option<String>,
    /// How it is attached: `native` or `generic`; none while it is not.
    pub xdp: Option<String>,
    pub guests: Vec<String>,
}

/// Where a guest is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestPhase {
    /// Ordered; its node is starting it.
    Starting,
    /// Its ingress has the table and its traffic manager listens; it serves its share or is being
    /// given it.
    Serving,
    /// New connections go elsewhere, it still holds some.
    Draining,
    /// It holds nothing and no row names it.
    Drained,
    /// Believed dead: last in its rows until that is confirmed.
    Suspect,
    /// Gone for good; its rows are being rid of it.
    Dead,
    /// Being stopped and forgotten.
    Removing,
}

/// A guest of the cluster.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Guest {
    pub name: String,
    pub node: String,
    pub phase: GuestPhase,
    pub admin: AdminState,
    pub health: Health,
    pub config: ConfigState,
    /// Its number in rows; none before its ingress reported, and after it has left.
    pub slot: Option<u16>,
    /// Address on the underlay that directors send to; none before it has one.
    pub address: Option<String>,
    /// Build id of the traffic manager that runs; none while none does.
    pub program: Option<String>,
    /// Digest of the ingress program that is attached; none while there is none.
    pub ingress_program: Option<String>,
    /// Process ids on the node, for operators and tests: ingress, keeper, workers. None where
    /// unknown.
    pub ingress_pid: Option<u32>,
    pub keeper_pid: Option<u32>,
    #[serde(default)]
    pub worker_pids: Vec<u32>,
    /// Entries that its kernel held at the last count; none before the first.
    pub live: Option<u64>,
    /// Buckets whose row it heads, and buckets whose row names it further behind.
    pub buckets_owned: u32,
    pub buckets_standby: u32,
}

/// A virtual cluster: guests that appear as one machine.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VirtualCluster {
    pub name: String,
    /// Its number on the wire (Geneve's VNI).
    pub vni: u32,
    /// Its virtual servers, `ADDRESS:PORT/PROTOCOL`.
    pub addresses: Vec<String>,
    pub guests: Vec<String>,
    /// Buckets whose row is not at rest.
    pub buckets_moving: u32,
    /// Highest number of buckets of a guest, over the mean: 1 is even. None without guests.
    pub imbalance: Option<f64>,
}

/// Neighbouring buckets whose rows name the same guests for the same reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketRun {
    pub first: u16,
    pub last: u16,
    /// Guests in order, by name (`slot N` where the guest is gone).
    pub row: Vec<String>,
    /// Guest slots, as the row's word has them.
    pub slots: Vec<u16>,
    /// Sequence of the first bucket's row.
    pub sequence: u16,
    /// Why the row is as it is: what the last step was.
    pub reason: String,
    /// What these buckets wait for; none: they are settled, where they are wished and with all
    /// directors and guests on that row.
    #[serde(default)]
    pub wait: Option<BucketWait>,
}

/// What a bucket waits for before its next step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketWait {
    pub code: WaitCode,
    /// Whom it is waited for: names of guests, or of nodes for their directors.
    pub objects: Vec<String>,
    /// Connections of the bucket that have to end; none: it does not wait for any.
    pub connections: Option<u32>,
    /// The change for which it moves; none: for no order, as after a failure.
    pub change: Option<String>,
    /// A sentence for a person: what would end it.
    pub ends_when: String,
}

/// Where a change is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeState {
    /// Nothing of it goes on; `waits` says for what.
    Waiting,
    /// Steps are being made.
    Doing,
    Done,
    /// Ended by an order that undoes it.
    CalledBack,
    /// It cannot be done; `failure` says why.
    Failed,
}

impl ChangeState {
    /// Whether nothing more happens.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::CalledBack | Self::Failed)
    }
}

/// How far a change is, in buckets, guests or nodes as `unit` says.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
    pub unit: String,
}

/// A change: an order on its way, or one that is over.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Its name, unique for ever: kind and number, as `drain-guest-7`.
    pub name: String,
    /// Which order, as [`crate::Order::kind`] says, or `apply-site`.
    pub kind: String,
    /// Guest or node that it is about; none if about all.
    pub object: Option<String>,
    pub state: ChangeState,
    pub progress: Progress,
    pub waits: Vec<Wait>,
    pub started_us: u64,
    /// None while it is under way.
    pub ended_us: Option<u64>,
    /// None unless it failed.
    pub failure: Option<String>,
    /// What it cost so far.
    pub ledger: Ledger,
    /// The ledger is an estimate: carried and finished follow from how many connections there were
    /// when it began and when it ended, so one that came meanwhile stands for another that went.
    /// What was closed at a deadline is exact. Otherwise each connection was followed by itself, as
    /// a takeover does.
    #[serde(default)]
    pub ledger_by_counts: bool,
    /// Clients that were told to close while it ran, exactly; connections that came meanwhile are
    /// among them.
    #[serde(default)]
    pub told_to_close: u64,
    /// Packets that met no connection on any guest while it ran, each answered by a reset. An alarm:
    /// a stray of a connection long over is one, and so is each packet of a connection that was
    /// lost. Never counted in the ledger.
    #[serde(default)]
    pub unknown_reset: u64,
    /// What it closed at its deadline; none: nothing.
    #[serde(default)]
    pub closed: Option<Closed>,
    /// How a drain gets on; none: it is none, or it is over.
    #[serde(default)]
    pub drain: Option<Drain>,
    /// Of a change of kind `guest-died`; none: of any other.
    #[serde(default)]
    pub death: Option<Death>,
}

/// A guest's death, as agents saw it, whether a controller ran or not. Its change's ledger calls
/// reset what the guest held by its last count.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Death {
    /// The node that it ran on.
    pub node: String,
    /// Its number in rows.
    pub slot: u16,
    /// When its link was cut, as its node's kernel said; none: its agent did not run then.
    pub cut_us: Option<u64>,
    /// When each node's director believed it dead, by node; those that have not told are absent.
    pub believed_us: BTreeMap<String, u64>,
    /// When the last packet was sent to it by any director, from the programs' own timestamps.
    pub last_packet_us: Option<u64>,
    /// When a controller was told of it.
    pub seen_us: u64,
    /// When no row named it any more, and all had those rows; none: not yet.
    pub rows_us: Option<u64>,
    /// What it held by its last count, and when that was; none: not known.
    pub connections: Option<u64>,
    pub counted_us: Option<u64>,
}

/// How a drain gets on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Drain {
    /// Connections that its guests hold, by their last counts, half a second old at most; none: not
    /// counted yet.
    pub left: Option<u64>,
    /// How many ended per second, within the last `seen_s` seconds; none: too early to tell.
    pub ends_per_s: Option<f64>,
    pub seen_s: u64,
    /// When the last ends; none: that cannot be estimated. `estimate` says on what ground, or why
    /// not.
    pub ends_us: Option<u64>,
    pub estimate: String,
}

/// Connections that a drain closed at its deadline.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Closed {
    pub total: u64,
    /// The first of each guest's, at most 256.
    pub named: Vec<ClosedConnection>,
    /// How many more there were, in `total` only.
    pub left_out: u64,
}

/// A connection that was closed at a deadline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClosedConnection {
    pub guest: String,
    /// `ADDRESS:PORT`
    pub client: String,
    /// `ADDRESS:PORT`
    pub server: String,
    /// The virtual server's name; none: no virtual server has this address any more.
    pub virtual_server: Option<String>,
}

/// Why something waits. The set is bounded: it is a label of metrics too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitCode {
    /// A node's agent has not joined, or its link is down.
    NodeNotLinked,
    /// A guest is not running yet.
    GuestNotReady,
    /// Not everybody who may have to send to a guest, or to take from a node's director, knows it.
    NotKnown,
    /// A guest has not acknowledged a row.
    GuestNotAcknowledged,
    /// A director has not acknowledged a row.
    DirectorNotAcknowledged,
    /// A guest's kernel holds connections that have to end first.
    ConnectionsLive,
    /// A dead guest's lease may still run.
    LeaseRuns,
    /// The rows that it needs are full, or another change's.
    RowBusy,
    /// Nobody is left to serve.
    NoGuest,
    /// A traffic manager has not confirmed a program or a configuration.
    TrafficManagerNotReady,
    /// A node has not replaced a program.
    ProgramNotReplaced,
    /// Something else; the text says what.
    Other,
}

impl WaitCode {
    /// All of them, in this order.
    pub const ALL: [Self; 12] = [
        Self::NodeNotLinked,
        Self::GuestNotReady,
        Self::NotKnown,
        Self::GuestNotAcknowledged,
        Self::DirectorNotAcknowledged,
        Self::ConnectionsLive,
        Self::LeaseRuns,
        Self::RowBusy,
        Self::NoGuest,
        Self::TrafficManagerNotReady,
        Self::ProgramNotReplaced,
        Self::Other,
    ];
}

/// One thing that is waited for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Wait {
    pub code: WaitCode,
    /// Whom it is waited for: a guest's or node's name, or a change's.
    pub object: String,
    pub since_us: u64,
    /// When it ends by itself; none if it does not.
    pub until_us: Option<u64>,
    /// A sentence for a person: what would end it.
    pub ends_when: String,
}

/// The whole cluster in one line, and what a client polls to wait.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    pub api: String,
    /// Release of the controller.
    pub version: String,
    /// The controller's process, for tests that kill it.
    pub controller_pid: u32,
    pub revision: u64,
    /// Whether no change is under way, all rows are at rest and everybody has acknowledged them.
    pub settled: bool,
    /// Why it is not settled. Empty if it is.
    pub waits: Vec<Wait>,
    pub nodes: u32,
    pub nodes_linked: u32,
    pub guests: u32,
    pub guests_serving: u32,
    pub changes_under_way: u32,
}

/// Counters of a director.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DirectorCounters {
    pub node: String,
    /// When they were read.
    pub at_us: u64,
    pub counters: BTreeMap<String, u64>,
}

/// Counters of an ingress.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IngressCounters {
    pub guest: String,
    pub node: String,
    /// When they were read.
    pub at_us: u64,
    pub counters: BTreeMap<String, u64>,
}

/// All counters, as the agents last reported them (at least once a second).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    pub directors: Vec<DirectorCounters>,
    pub ingresses: Vec<IngressCounters>,
}

/// The site configuration as a user wrote it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Site {
    /// Counts up with each one; 0: none was ever given.
    pub generation: u64,
    /// The YAML, byte for byte.
    pub text: String,
}
