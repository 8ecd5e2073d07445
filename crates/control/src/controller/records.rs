//! What a controller keeps in the store, beside the table: what is wanted, and the little of what
//! was seen that others have to be told before it is seen again.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hitless_api::{AtDeadline, Order};
use hitless_core::flow::FlowKey;
use hitless_core::ledger::Ledger;
use hitless_core::row::GuestSlot;
use hitless_core::table::message::DirectorId;
use hitless_store::document::{self, Document};
use hitless_store::{Compare, Operation, Revision, Store, StoreError, Transaction};
use serde::{Deserialize, Serialize};

use crate::message::{Held, Programs};
use crate::plane::Connection;

const CLUSTER: &str = "v1/cluster";
const SITE: &str = "v1/site";
const NODES: &str = "v1/node/";
const GUESTS: &str = "v1/guest/";
const CHANGES: &str = "v1/change/";
/// Changes that are over and still shown.
const CHANGES_KEPT: usize = 200;

/// The virtual cluster `default`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterRecord {
    pub vni: u32,
    pub key: FlowKey,
    /// Number of the next change.
    pub next_change: u64,
    /// Number of the next director: every kernel of a node gets its own.
    pub next_director: u16,
    pub programs: Programs,
}

/// The site configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SiteRecord {
    pub generation: u64,
    pub text: String,
    pub vips: Vec<IpAddr>,
    /// `ADDRESS:PORT/PROTOCOL` of each virtual server.
    pub servers: Vec<String>,
    /// Names of virtual servers by where they listen.
    #[serde(default)]
    pub names: BTreeMap<SocketAddr, String>,
}

/// What is wanted of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeWanted {
    Member,
    Drain,
    /// Its guests are drained and removed, then it leaves.
    Leave,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeRecord {
    pub wanted: NodeWanted,
    /// The change under which that was asked for; none: when it was added.
    pub change: Option<String>,
    /// The director of its present kernel.
    pub director: DirectorId,
    /// None: it has not joined yet.
    pub kernel: Option<u64>,
    pub address: Option<IpAddr>,
    /// Whether its director has taken up its work: its acknowledgements count then.
    pub is_directing: bool,
    /// Whether its director has had a row of every bucket, and all who may have to take packets from
    /// it or send to it know it: it may be given traffic.
    pub is_joined: bool,
    pub release: Option<String>,
}

/// What is wanted of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestWanted {
    Serve,
    Drain,
    /// To be destroyed: it is drained, dead, or past its deadline.
    Remove,
}

/// A guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuestRecord {
    pub node: String,
    pub wanted: GuestWanted,
    /// The change under which that was asked for.
    pub change: Option<String>,
    /// The boot that was last seen to run, and its addresses.
    pub boot: Option<u64>,
    pub addresses: Vec<IpAddr>,
    /// The number of the change whose deadline has come: what the guest still holds is ended for
    /// it. None: none has.
    #[serde(default)]
    pub ends_for: Option<u64>,
}

/// What a change is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    Order(Order),
    /// A site configuration of this generation.
    Site(u64),
    /// A guest's death, which nobody ordered.
    Died(Box<DeathRecord>),
}

/// A guest's death, as far as it was seen. Times are microseconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeathRecord {
    pub guest: String,
    pub node: String,
    pub slot: GuestSlot,
    /// When its link was cut. None: nobody saw that.
    pub cut_us: Option<u64>,
    /// When each node's director believed it dead.
    pub believed_us: BTreeMap<String, u64>,
    /// The last packet that any director sent to it.
    pub last_packet_us: Option<u64>,
    /// When a controller was told.
    pub seen_us: u64,
    /// When no row named it any more, and all had those rows.
    pub rows_us: Option<u64>,
    /// What it held by its last count. None: its agent does not know.
    pub held: Option<Held>,
}

/// How a change stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeOutcome {
    Open,
    Done,
    CalledBack,
    Failed(String),
}

/// A change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeRecord {
    pub name: String,
    pub subject: Subject,
    pub outcome: ChangeOutcome,
    /// Microseconds since 1970.
    pub started_us: u64,
    pub ended_us: Option<u64>,
    /// When the rest is closed; none: never.
    pub deadline_us: Option<u64>,
    pub ledger: Ledger,
    /// What there was to do at most, and what of it was done at the last look.
    pub total: u64,
    #[serde(default)]
    pub done: u64,
    /// Of each guest that it drains, how many clients it had told to close when this began, and by
    /// now.
    #[serde(default)]
    pub told_to_close: BTreeMap<String, (u64, u64)>,
    /// Of each guest, how many packets of connections that nobody knew its ingress had let be reset
    /// when this began, and by now.
    #[serde(default)]
    pub unknown_reset: BTreeMap<String, (u64, u64)>,
    /// Whether its ledger was kept connection by connection, and not made of counts.
    #[serde(default)]
    pub is_exact: bool,
    /// What guests closed at its deadline, by name.
    #[serde(default)]
    pub closed: BTreeMap<String, ClosedRecord>,
}

/// What a guest closed at a change's deadline.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClosedRecord {
    pub total: u64,
    /// The first of them.
    pub named: Vec<Connection>,
}

impl ChangeRecord {
    /// What its deadline means.
    pub const fn at_deadline(&self) -> AtDeadline {
        match &self.subject {
            Subject::Order(
                Order::DrainGuest { at_deadline, .. }
                | Order::DrainNode { at_deadline, .. }
                | Order::RemoveNode { at_deadline, .. },
            ) => *at_deadline,
            Subject::Order(_) | Subject::Site(_) | Subject::Died(_) => AtDeadline::Close,
        }
    }

    /// How many clients were told to close.
    pub fn told_to_close_total(&self) -> u64 {
        grown(&self.told_to_close)
    }

    /// How many packets of connections that nobody knew were reset.
    pub fn unknown_reset_total(&self) -> u64 {
        grown(&self.unknown_reset)
    }

    /// How many connections it closed.
    pub fn closed_total(&self) -> u64 {
        self.closed.values().map(|closed| closed.total).sum()
    }
}

fn grown(counts: &BTreeMap<String, (u64, u64)>) -> u64 {
    let counts = counts.values();
    counts
        .map(|(before, now)| now.saturating_sub(*before))
        .sum()
}

macro_rules! documents {
    ($($kind:ty),*) => { $(impl Document for $kind { const SCHEMA: u16 = 1; })* };
}
documents!(
    ClusterRecord,
    SiteRecord,
    NodeRecord,
    GuestRecord,
    ChangeRecord
);

/// All that is kept, in memory.
#[derive(Clone, PartialEq, Debug)]
pub struct Records {
    pub cluster: ClusterRecord,
    pub site: SiteRecord,
    pub nodes: BTreeMap<String, NodeRecord>,
    pub guests: BTreeMap<String, GuestRecord>,
    /// By number.
    pub changes: BTreeMap<u64, ChangeRecord>,
}

/// Why records cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("the record {key} cannot be read")]
    Document {
        key: String,
        #[source]
        source: document::DocumentError,
    },
    /// Another controller wrote: this one has to read everything anew.
    #[error("another controller wrote to the store")]
    Conflict,
}

impl Records {
    /// Reads all records, or makes those of a new cluster with `key`.
    pub fn load(
        store: &mut dyn Store,
        key: impl FnOnce() -> FlowKey,
    ) -> Result<(Self, Revision), RecordsError> {
        if store.get(CLUSTER)?.is_none() {
            let cluster = ClusterRecord {
                vni: 1,
                key: key(),
                next_change: 1,
                next_director: 1,
                programs: Programs::default(),
            };
            let put = Operation::Put {
                key: CLUSTER.into(),
                value: document::encode(&cluster),
                lease: None,
            };
            store.commit(Transaction {
                compare: vec![Compare::Absent(CLUSTER.into())],
                then: vec![put],
            })?;
        }
        let cluster = store.get(CLUSTER)?.ok_or(RecordsError::Conflict)?;
        let site = store
            .get(SITE)?
            .map(|entry| read(SITE, &entry.value))
            .transpose()?;
        let records = Self {
            cluster: read(CLUSTER, &cluster.value)?,
            site: site.unwrap_or_default(),
            nodes: read_all(store, NODES, |name| Some(name.to_owned()))?,
            guests: read_all(store, GUESTS, |name| Some(name.to_owned()))?,
            changes: read_all(store, CHANGES, |number| number.parse().ok())?,
        };
        Ok((records, cluster.modified))
    }

    /// Writes what differs from `self` in `new` as one transaction, if nobody else wrote since
    /// `at`.
    pub fn write(
        &mut self,
        store: &mut dyn Store,
        at: &mut Revision,
        mut new: Self,
    ) -> Result<(), RecordsError> {
        new.forget_old_changes();
        if *self == new {
            return Ok(());
        }
        // The cluster's record is always written: it is what other writers compare.
        let mut then = vec![put(CLUSTER.to_owned(), &new.cluster)];
        if self.site != new.site {
            then.push(put(SITE.to_owned(), &new.site));
        }
        differences(NODES, &self.nodes, &new.nodes, Clone::clone, &mut then);
        differences(GUESTS, &self.guests, &new.guests, Clone::clone, &mut then);
        differences(
            CHANGES,
            &self.changes,
            &new.changes,
            |number| format!("{number:012}"),
            &mut then,
        );
        let compare = vec![Compare::Modified(CLUSTER.into(), *at)];
        match store.commit(Transaction { compare, then })? {
            hitless_store::Committed::Yes(revision) => {
                *at = revision;
                *self = new;
                Ok(())
            }
            hitless_store::Committed::No(_) => Err(RecordsError::Conflict),
        }
    }

    fn forget_old_changes(&mut self) {
        let over = self
            .changes
            .iter()
            .filter(|(_, change)| change.outcome != ChangeOutcome::Open);
        let over: Vec<u64> = over.map(|(number, _)| *number).collect();
        for number in over.iter().take(over.len().saturating_sub(CHANGES_KEPT)) {
            self.changes.remove(number);
        }
    }

    /// The change of this name.
    pub fn change_mut(&mut self, name: &str) -> Option<&mut ChangeRecord> {
        self.changes.values_mut().find(|change| change.name == name)
    }
}

fn read<T: Document>(key: &str, bytes: &[u8]) -> Result<T, RecordsError> {
    document::decode(bytes).map_err(|source| RecordsError::Document {
        key: key.to_owned(),
        source,
    })
}

fn read_all<K: Ord, T: Document>(
    store: &dyn Store,
    prefix: &str,
    name: impl Fn(&str) -> Option<K>,
) -> Result<BTreeMap<K, T>, RecordsError> {
    let mut found = BTreeMap::new();
    for entry in store.range(prefix)?.entries {
        if let Some(name) = name(&entry.key[prefix.len()..]) {
            found.insert(name, read(&entry.key, &entry.value)?);
        }
    }
    Ok(found)
}

fn put<T: Document>(key: String, value: &T) -> Operation {
    Operation::Put {
        key,
        value: document::encode(value),
        lease: None,
    }
}

fn differences<K: Ord, T: Document + PartialEq>(
    prefix: &str,
    old: &BTreeMap<K, T>,
    new: &BTreeMap<K, T>,
    name: impl Fn(&K) -> String,
    then: &mut Vec<Operation>,
) {
    let key = |of: &K| format!("{prefix}{}", name(of));
    for (of, value) in new {
        if old.get(of) != Some(value) {
            then.push(put(key(of), value));
        }
    }
    then.extend(
        old.keys()
            .filter(|of| !new.contains_key(*of))
            .map(|of| Operation::Delete { key: key(of) }),
    );
}
