//! The last events, and who watches them.
//!
//! Kept in memory by every implementation: a watch from before the store was opened is answered by
//! [`WatchError::Compacted`], and the watcher reads the range anew, as with etcd after a
//! compaction.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{Event, Revision};

/// Events kept: a controller writes some ten per change.
const EVENTS_MAX: usize = 4_096;
/// Bytes of values kept: 32 tables of 512 KiB.
const BYTES_MAX: usize = 16 << 20;

/// Why a watch cannot go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WatchError {
    /// Read the range and watch from its revision.
    #[error("events after revision {asked} are no longer kept, the oldest is of {oldest}", asked = asked.0, oldest = oldest.0)]
    Compacted { asked: Revision, oldest: Revision },
    /// A revision that does not exist yet: the watcher knows another store.
    #[error("revision {asked} is ahead of the store's {current}", asked = asked.0, current = current.0)]
    Future { asked: Revision, current: Revision },
    /// The store was closed.
    #[error("the store was closed")]
    Closed,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    bytes: usize,
    /// Events after this revision are kept.
    complete_after: Revision,
    current: Revision,
    closed: bool,
}

/// The store's side.
#[derive(Debug)]
pub(crate) struct History {
    shared: Arc<(Mutex<Kept>, Condvar)>,
}

/// A watcher's side: outlives the store, and then says [`WatchError::Closed`].
#[derive(Debug)]
pub struct Watch {
    shared: Arc<(Mutex<Kept>, Condvar)>,
    prefix: String,
    after: Revision,
}

impl History {
    pub(crate) fn new(current: Revision) -> Self {
        let kept = Kept {
            complete_after: current,
            current,
            ..Kept::default()
        };
        Self {
            shared: Arc::new((Mutex::new(kept), Condvar::new())),
        }
    }

    /// All events of one revision.
    pub(crate) fn record(&self, revision: Revision, events: Vec<Event>) {
        let mut kept = lock(&self.shared.0);
        kept.current = revision;
        for event in events {
            kept.bytes += size(&event);
            kept.events.push_back(event);
        }
        while kept.events.len() > EVENTS_MAX || kept.bytes > BYTES_MAX {
            // A revision goes as a whole, so that nobody sees half of one.
            let Some(oldest) = kept.events.front().map(Event::at) else {
                break;
            };
            while let Some(event) = kept.events.pop_front_if(|event| event.at() == oldest) {
                kept.bytes -= size(&event);
            }
            kept.complete_after = oldest;
        }
        self.shared.1.notify_all();
    }

    pub(crate) fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
        let watch = Watch {
            shared: Arc::clone(&self.shared),
            prefix: prefix.to_owned(),
            after,
        };
        check(&lock(&self.shared.0), after)?;
        Ok(watch)
    }
}

impl Drop for History {
    fn drop(&mut self) {
        lock(&self.shared.0).closed = true;
        self.shared.1.notify_all();
    }
}

impl Watch {
    /// Events since the last call, without waiting.
    pub fn poll(&mut self) -> Result<Vec<Event>, WatchError> {
        let kept = lock(&self.shared.0);
        let found = events(&kept, &self.prefix, self.after)?;
        self.after = kept.current;
        Ok(found)
    }

    /// As [`Self::poll`], but waits up to `patience` for the first one; empty if none came.
    pub fn wait(&mut self, patience: Duration) -> Result<Vec<Event>, WatchError> {
        let kept = lock(&self.shared.0);
        let nothing = |kept: &mut Kept| matches!(events(kept, &self.prefix, self.after), Ok(found) if found.is_empty());
        let waited = self.shared.1.wait_timeout_while(kept, patience, nothing);
        let (kept, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let found = events(&kept, &self.prefix, self.after)?;
        self.after = kept.current;
        Ok(found)
    }
}

fn events(kept: &Kept, prefix: &str, after: Revision) -> Result<Vec<Event>, WatchError> {
    check(kept, after)?;
    let new = kept
        .events
        .iter()
        .rev()
        .take_while(|event| event.at() > after);
    let mut found: Vec<_> = new
        .filter(|event| event.key().starts_with(prefix))
        .cloned()
        .collect();
    found.reverse();
    if found.is_empty() && kept.closed {
        Err(WatchError::Closed)
    } else {
        Ok(found)
    }
}

fn check(kept: &Kept, after: Revision) -> Result<(), WatchError> {
    if after > kept.current {
        Err(WatchError::Future {
            asked: after,
            current: kept.current,
        })
    } else if after < kept.complete_after {
        Err(WatchError::Compacted {
            asked: after,
            oldest: kept.complete_after,
        })
    } else {
        Ok(())
    }
}

fn size(event: &Event) -> usize {
    match event {
        Event::Put(entry) => entry.value.len() + entry.key.len(),
        Event::Deleted { key, .. } => key.len(),
    }
}

/// Nothing panics while it holds the lock, and the content is whole at any time.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
