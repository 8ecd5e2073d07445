//! The store in a file, by redb: the default of a controller.
//!
//! A transaction is on disk when `commit` returns, and is there whole or not at all after a kill or
//! a power cut. Only one process has the file open. Leases survive, and run for their whole time
//! again from the first call that tells the time after the file was opened.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::history::{History, Watch, WatchError};
use crate::{
    Committed, Entry, Event, LeaseId, Operation, Range, Revision, Store, StoreError, Transaction,
    check, holds,
};

/// Layout of the file. A release reads its own and the previous one.
const FORMAT: u64 = 1;

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const REVISION: &str = "revision";
const NEXT_LEASE: &str = "next_lease";
const FORMAT_KEY: &str = "format";

/// See the module.
pub struct Embedded {
    database: Database,
    revision: Revision,
    history: History,
    /// When each lease ends; none: not before the time is known.
    leases: BTreeMap<LeaseId, Option<u64>>,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded")
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// What stands before a value: created, modified, version, lease (0: none), little-endian.
const HEAD_BYTES: usize = 32;

impl Embedded {
    /// Opens the store at `path`, or makes it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::create(path).map_err(backend)?;
        let write = database.begin_write().map_err(backend)?;
        let (revision, leases) = {
            let mut numbers = write.open_table(NUMBERS).map_err(backend)?;
            let found = number(&numbers, FORMAT_KEY)?;
            match found {
                None => {
                    numbers.insert(FORMAT_KEY, FORMAT).map_err(backend)?;
                }
                Some(FORMAT) => {}
                Some(found) => {
                    return Err(StoreError::Format {
                        found,
                        known: FORMAT,
                    });
                }
            }
            write.open_table(ENTRIES).map_err(backend)?;
            let leases = write.open_table(LEASES).map_err(backend)?;
            let mut running = BTreeMap::new();
            for lease in leases.iter().map_err(backend)? {
                running.insert(LeaseId(lease.map_err(backend)?.0.value()), None);
            }
            (Revision(number(&numbers, REVISION)?.unwrap_or(0)), running)
        };
        write.commit().map_err(backend)?;
        Ok(Self {
            database,
            revision,
            history: History::new(revision),
            leases,
        })
    }

    /// Writes `operations`; the transaction is not committed yet.
    fn apply(
        &self,
        write: &WriteTransaction,
        operations: &[Operation],
    ) -> Result<Vec<Event>, StoreError> {
        let at = Revision(self.revision.0 + 1);
        let mut entries = write.open_table(ENTRIES).map_err(backend)?;
        let mut events = Vec::new();
        for operation in operations {
            match operation {
                Operation::Put { key, value, lease } => {
                    let before = read(&entries, key)?;
                    let entry = Entry {
                        key: key.clone(),
                        value: value.clone(),
                        created: before.as_ref().map_or(at, |entry| entry.created),
                        modified: at,
                        version: before.map_or(0, |entry| entry.version) + 1,
                        lease: *lease,
                    };
                    entries
                        .insert(key.as_str(), encode(&entry).as_slice())
                        .map_err(backend)?;
                    events.push(Event::Put(entry));
                }
                Operation::Delete { key } => {
                    if entries.remove(key.as_str()).map_err(backend)?.is_some() {
                        events.push(Event::Deleted {
                            key: key.clone(),
                            at,
                        });
                    }
                }
                Operation::DeletePrefix { prefix } => {
                    for entry in scan(&entries, prefix)? {
                        entries.remove(entry.key.as_str()).map_err(backend)?;
                        events.push(Event::Deleted { key: entry.key, at });
                    }
                }
            }
        }
        if !events.is_empty() {
            let mut numbers = write.open_table(NUMBERS).map_err(backend)?;
            numbers.insert(REVISION, at.0).map_err(backend)?;
        }
        Ok(events)
    }

    fn finish(&mut self, write: WriteTransaction, events: Vec<Event>) -> Result<(), StoreError> {
        write.commit().map_err(backend)?;
        if !events.is_empty() {
            self.revision = Revision(self.revision.0 + 1);
            self.history.record(self.revision, events);
        }
        Ok(())
    }
}

impl Store for Embedded {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let reading = self.database.begin_read().map_err(backend)?;
        read(&reading.open_table(ENTRIES).map_err(backend)?, key)
    }

    fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        let reading = self.database.begin_read().map_err(backend)?;
        let entries = scan(&reading.open_table(ENTRIES).map_err(backend)?, prefix)?;
        Ok(Range {
            revision: self.revision,
            entries,
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
        for compare in &transaction.compare {
            if !holds(compare, self.get(compare.key())?.as_ref()) {
                return Ok(Committed::No(self.revision));
            }
        }
        let write = self.database.begin_write().map_err(backend)?;
        let events = self.apply(&write, &transaction.then)?;
        self.finish(write, events)?;
        Ok(Committed::Yes(self.revision))
    }

    fn watch(&mut self, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
        self.history.watch(prefix, after)
    }

    fn grant(&mut self, now_us: u64, ttl_us: u64) -> Result<LeaseId, StoreError> {
        let write = self.database.begin_write().map_err(backend)?;
        let id = {
            let mut numbers = write.open_table(NUMBERS).map_err(backend)?;
            let id = number(&numbers, NEXT_LEASE)?.unwrap_or(1);
            numbers.insert(NEXT_LEASE, id + 1).map_err(backend)?;
            write
                .open_table(LEASES)
                .map_err(backend)?
                .insert(id, ttl_us)
                .map_err(backend)?;
            LeaseId(id)
        };
        write.commit().map_err(backend)?;
        self.leases.insert(id, Some(now_us.saturating_add(ttl_us)));
        Ok(id)
    }

    fn keep_alive(&mut self, now_us: u64, lease: LeaseId) -> Result<(), StoreError> {
        let until = self
            .leases
            .get_mut(&lease)
            .ok_or(StoreError::NoLease(lease))?;
        if until.is_some_and(|until| until <= now_us) {
            return Err(StoreError::NoLease(lease));
        }
        let ttl_us = {
            let reading = self.database.begin_read().map_err(backend)?;
            let leases = reading.open_table(LEASES).map_err(backend)?;
            leases
                .get(lease.0)
                .map_err(backend)?
                .map_or(0, |ttl| ttl.value())
        };
        *until = Some(now_us.saturating_add(ttl_us));
        Ok(())
    }

    fn revoke(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        if !self.leases.contains_key(&lease) {
            return Err(StoreError::NoLease(lease));
        }
        let entries = self.range("")?.entries;
        let gone = entries
            .into_iter()
            .filter(|entry| entry.lease == Some(lease));
        let gone: Vec<_> = gone
            .map(|entry| Operation::Delete { key: entry.key })
            .collect();
        let write = self.database.begin_write().map_err(backend)?;
        write
            .open_table(LEASES)
            .map_err(backend)?
            .remove(lease.0)
            .map_err(backend)?;
        let events = self.apply(&write, &gone)?;
        self.finish(write, events)?;
        self.leases.remove(&lease);
        Ok(())
    }

    fn expire(&mut self, now_us: u64) -> Result<(), StoreError> {
        let unknown: Vec<LeaseId> = self
            .leases
            .iter()
            .filter(|(_, until)| until.is_none())
            .map(|(id, _)| *id)
            .collect();
        for lease in unknown {
            self.keep_alive(now_us, lease)?;
        }
        let over = self
            .leases
            .iter()
            .filter(|(_, until)| until.is_some_and(|until| until <= now_us));
        let over: Vec<LeaseId> = over.map(|(id, _)| *id).collect();
        over.into_iter().try_for_each(|lease| self.revoke(lease))
    }
}

fn backend(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Backend(Box::new(error.into()))
}

fn damaged(key: &str) -> StoreError {
    StoreError::Backend(format!("the entry {key:?} is damaged").into())
}

fn number(numbers: &Table<'_, &str, u64>, key: &str) -> Result<Option<u64>, StoreError> {
    Ok(numbers
        .get(key)
        .map_err(backend)?
        .map(|value| value.value()))
}

fn read(
    entries: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<Entry>, StoreError> {
    match entries.get(key).map_err(backend)? {
        Some(bytes) => decode(key, bytes.value()).map(Some),
        None => Ok(None),
    }
}

fn scan(
    entries: &impl ReadableTable<&'static str, &'static [u8]>,
    prefix: &str,
) -> Result<Vec<Entry>, StoreError> {
    let mut found = Vec::new();
    for entry in entries.range(prefix..).map_err(backend)? {
        let (key, bytes) = entry.map_err(backend)?;
        if !key.value().starts_with(prefix) {
            break;
        }
        found.push(decode(key.value(), bytes.value())?);
    }
    Ok(found)
}

fn encode(entry: &Entry) -> Vec<u8> {
    let lease = entry.lease.map_or(0, |lease| lease.0);
    let mut bytes = Vec::with_capacity(HEAD_BYTES + entry.value.len());
    for number in [entry.created.0, entry.modified.0, entry.version, lease] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&entry.value);
    bytes
}

fn decode(key: &str, bytes: &[u8]) -> Result<Entry, StoreError> {
    let (head, value) = bytes
        .split_first_chunk::<HEAD_BYTES>()
        .ok_or_else(|| damaged(key))?;
    let mut numbers = head
        .as_chunks::<8>()
        .0
        .iter()
        .map(|bytes| u64::from_le_bytes(*bytes));
    let mut next = || numbers.next().expect("a head is four numbers");
    let (created, modified, version, lease) = (next(), next(), next(), next());
    Ok(Entry {
        key: key.to_owned(),
        value: value.to_vec(),
        created: Revision(created),
        modified: Revision(modified),
        version,
        lease: (lease != 0).then_some(LeaseId(lease)),
    })
}
