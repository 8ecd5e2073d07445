//! The store in memory: for the lab and for tests. Gone with its process.

use std::collections::BTreeMap;

use crate::history::{History, Watch, WatchError};
use crate::{
    Committed, Entry, Event, LeaseId, Operation, Range, Revision, Store, StoreError, Transaction,
    check, holds,
};

/// See the module.
#[derive(Debug)]
pub struct Memory {
    entries: BTreeMap<String, Entry>,
    revision: Revision,
    history: History,
    leases: BTreeMap<LeaseId, Lease>,
    next_lease: u64,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl_us: u64,
    until_us: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            revision: Revision(0),
            history: History::new(Revision(0)),
            leases: BTreeMap::new(),
            next_lease: 1,
        }
    }
}

impl Memory {
    fn apply(&mut self, operations: Vec<Operation>) {
        let at = Revision(self.revision.0 + 1);
        let mut events = Vec::new();
        for operation in operations {
            match operation {
                Operation::Put { key, value, lease } => {
                    let before = self.entries.get(&key);
                    let entry = Entry {
                        created: before.map_or(at, |entry| entry.created),
                        version: before.map_or(0, |entry| entry.version) + 1,
                        modified: at,
                        key: key.clone(),
                        value,
                        lease,
                    };
                    events.push(Event::Put(entry.clone()));
                    self.entries.insert(key, entry);
                }
                Operation::Delete { key } => {
                    if self.entries.remove(&key).is_some() {
                        events.push(Event::Deleted { key, at });
                    }
                }
                Operation::DeletePrefix { prefix } => {
                    let gone = self
                        .entries
                        .extract_if(prefix.clone().., |key, _| key.starts_with(&prefix));
                    events.extend(gone.map(|(key, _)| Event::Deleted { key, at }));
                }
            }
        }
        if !events.is_empty() {
            self.revision = at;
            self.history.record(at, events);
        }
    }
}

impl Store for Memory {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.entries.get(key).cloned())
    }

    fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        let entries = self.entries.range(prefix.to_owned()..);
        let entries = entries.take_while(|(key, _)| key.starts_with(prefix));
        Ok(Range {
            revision: self.revision,
            entries: entries.map(|(_, entry)| entry.clone()).collect(),
        })
    }

    fn commit(&mut self, transaction: Transaction) -> Result<Committed, StoreError> {
        check(&transaction)?;
        for operation in &transaction.then {
            if let Operation::Put {
                lease: Some(lease), ..
            } = operation
                && !self.leases.contains_key(lease)
            {
                return Err(StoreError::NoLease(*lease));
            }
        }
        if !transaction
            .compare
            .iter()
            .all(|compare| holds(compare, self.entries.get(compare.key())))
        {
            return Ok(Committed::No(self.revision));
        }
        self.apply(transaction.then);
        Ok(Committed::Yes(self.revision))
    }

    fn watch(&mut self, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
        self.history.watch(prefix, after)
    }

    fn grant(&mut self, now_us: u64, ttl_us: u64) -> Result<LeaseId, StoreError> {
        let id = LeaseId(self.next_lease);
        self.next_lease += 1;
        self.leases.insert(
            id,
            Lease {
                ttl_us,
                until_us: now_us.saturating_add(ttl_us),
            },
        );
        Ok(id)
    }

    fn keep_alive(&mut self, now_us: u64, lease: LeaseId) -> Result<(), StoreError> {
        match self.leases.get_mut(&lease) {
            Some(running) if now_us < running.until_us => {
                running.until_us = now_us.saturating_add(running.ttl_us);
                Ok(())
            }
            Some(_) | None => Err(StoreError::NoLease(lease)),
        }
    }

    fn revoke(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        self.leases
            .remove(&lease)
            .ok_or(StoreError::NoLease(lease))?;
        let keys = self
            .entries
            .values()
            .filter(|entry| entry.lease == Some(lease));
        let gone = keys
            .map(|entry| Operation::Delete {
                key: entry.key.clone(),
            })
            .collect();
        self.apply(gone);
        Ok(())
    }

    fn expire(&mut self, now_us: u64) -> Result<(), StoreError> {
        let over = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.until_us <= now_us);
        let over: Vec<LeaseId> = over.map(|(id, _)| *id).collect();
        over.into_iter().try_for_each(|lease| self.revoke(lease))
    }
}
