//! The store: one trait with etcd's semantics, in memory and in redb.
//!
//! Every successful write transaction has a revision of its own, one above the last; all its
//! operations happen at that revision or none does. A transaction may compare several keys first. A
//! watch delivers every event since a revision, in order and once, or says that they are no longer
//! kept. A lease that is not kept alive takes its keys along.
//!
//! Time is an argument, as microseconds of a clock that only rises; leases start anew when an
//! implementation is opened, since that clock may have begun anew. Values are bytes; [`document`]
//! gives them a schema version.
//!
//! What this crate deliberately has not: consensus, and a notion of who may write. One conformance
//! suite (`tests/conformance.rs`) is run on every implementation.

#![forbid(unsafe_code)]

pub mod document;
mod embedded;
mod history;
mod memory;

use serde::{Deserialize, Serialize};

pub use embedded::Embedded;
pub use history::{Watch, WatchError};
pub use memory::Memory;

/// A value is at most this long: a table of 65,536 rows is 512 KiB, and a site configuration 4 MiB.
pub const VALUE_BYTES_MAX: usize = 8 << 20;
/// A key is at most this long.
pub const KEY_BYTES_MAX: usize = 512;
/// Operations of one transaction.
pub const OPERATIONS_MAX: usize = 4_096;

/// Which write of the store; 0 is before the first.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

/// A lease's number, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

/// A key with its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    /// The revision that made it.
    pub created: Revision,
    /// The revision that wrote it last.
    pub modified: Revision,
    /// Writes since it was made, that one included.
    pub version: u64,
    /// None: it stays until it is deleted.
    pub lease: Option<LeaseId>,
}

/// What a range held, all at one revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    pub revision: Revision,
    /// By key.
    pub entries: Vec<Entry>,
}

/// A condition of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compare {
    /// The key was written last by this revision.
    Modified(String, Revision),
    /// There is no such key.
    Absent(String),
    /// There is such a key.
    Present(String),
    /// The key has this value.
    Value(String, Vec<u8>),
}

/// What a transaction does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    Put {
        key: String,
        value: Vec<u8>,
        lease: Option<LeaseId>,
    },
    /// Deletes the key; nothing if there is none.
    Delete { key: String },
    /// Deletes all keys that begin so.
    DeletePrefix { prefix: String },
}

/// If all of `compare` holds, all of `then` is done at one revision.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transaction {
    pub compare: Vec<Compare>,
    pub then: Vec<Operation>,
}

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Committed {
    /// Done, at this revision: a new one if anything changed.
    Yes(Revision),
    /// A condition did not hold; nothing was changed.
    No(Revision),
}

/// What happened to a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Put(Entry),
    Deleted { key: String, at: Revision },
}

impl Event {
    /// The key that it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Deleted { key, .. } => key,
        }
    }

    /// The revision that it happened at.
    pub const fn at(&self) -> Revision {
        match self {
            Self::Put(entry) => entry.modified,
            Self::Deleted { at, .. } => *at,
        }
    }
}

/// Why the store cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Empty, too long, or too many.
    #[error("{what} of {found} is not allowed: 1 to {allowed}")]
    Limit {
        what: &'static str,
        found: usize,
        allowed: usize,
    },
    /// One transaction writes a key twice; etcd refuses that too.
    #[error("the transaction writes the key {0:?} twice")]
    Twice(String),
    #[error("there is no lease {0:?}, or it has run out")]
    NoLease(LeaseId),
    /// The file is not a store of ours, or of a release that this one cannot read.
    #[error("the store has format {found}, this release reads {known}")]
    Format { found: u64, known: u64 },
    /// The disk, or a file that is damaged.
    #[error("the store's file failed")]
    Backend(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A store. Calls do not wait for anything but a disk.
pub trait Store: Send {
    /// The revision of the last write.
    fn revision(&self) -> Revision;

    /// One key.
    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// All keys that begin with `prefix` (all keys, if it is empty).
    fn range(&self, prefix: &str) -> Result<Range, StoreError>;

    /// Compares and writes, or does nothing.
    fn commit(&mut self, transaction: Transaction) -> Result<Committed, StoreError>;

    /// Every event after `after` of keys that begin with `prefix`.
    fn watch(&mut self, prefix: &str, after: Revision) -> Result<Watch, WatchError>;

    /// A new lease that runs out `ttl_us` after `now_us` unless it is kept alive.
    fn grant(&mut self, now_us: u64, ttl_us: u64) -> Result<LeaseId, StoreError>;

    /// Lets a lease run for its whole time again.
    fn keep_alive(&mut self, now_us: u64, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends a lease and deletes its keys, in one revision.
    fn revoke(&mut self, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends all leases that have run out; to be called now and then.
    fn expire(&mut self, now_us: u64) -> Result<(), StoreError>;
}

/// Checks limits and that no key is written twice.
fn check(transaction: &Transaction) -> Result<(), StoreError> {
    let limit = |what, found, allowed| {
        Err(StoreError::Limit {
            what,
            found,
            allowed,
        })
    };
    if transaction.then.len() > OPERATIONS_MAX {
        return limit(
            "a number of operations",
            transaction.then.len(),
            OPERATIONS_MAX,
        );
    }
    let mut written = std::collections::BTreeSet::new();
    let mut prefixes = Vec::new();
    for operation in &transaction.then {
        let key = match operation {
            Operation::Put { key, value, .. } => {
                if value.len() > VALUE_BYTES_MAX {
                    return limit("a value's length", value.len(), VALUE_BYTES_MAX);
                }
                key
            }
            Operation::Delete { key } => key,
            Operation::DeletePrefix { prefix } => {
                prefixes.push(prefix);
                continue;
            }
        };
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return limit("a key's length", key.len(), KEY_BYTES_MAX);
        }
        if !written.insert(key) {
            return Err(StoreError::Twice(key.clone()));
        }
    }
    match written.iter().find(|key| {
        prefixes
            .iter()
            .any(|prefix| key.starts_with(prefix.as_str()))
    }) {
        Some(key) => Err(StoreError::Twice((*key).clone())),
        None => Ok(()),
    }
}

/// Whether a condition holds for the entry that its key has.
fn holds(compare: &Compare, entry: Option<&Entry>) -> bool {
    match compare {
        Compare::Modified(_, revision) => entry.is_some_and(|entry| entry.modified == *revision),
        Compare::Absent(_) => entry.is_none(),
        Compare::Present(_) => entry.is_some(),
        Compare::Value(_, value) => entry.is_some_and(|entry| entry.value == *value),
    }
}

impl Compare {
    fn key(&self) -> &str {
        match self {
            Self::Modified(key, _)
            | Self::Absent(key)
            | Self::Present(key)
            | Self::Value(key, _) => key,
        }
    }
}
