//! The deadline of a drain: what the guest's kernel still holds is ended, and named.
//!
//! Names are on file before anything is ended, so that an ingress that is killed between the two
//! comes back and still tells them. A connection is told once, however often it is found: a kernel
//! before 6.12 leaves a socket that has no program to end by itself.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::file;
use crate::message::{ENDED_NAMED_MAX, Ended};
use crate::plane::{Connection, IngressPlane, PlaneError, Result};

/// What was ended for one change.
#[derive(Debug)]
pub(super) struct Ending {
    path: PathBuf,
    ended: Ended,
    told: BTreeSet<Connection>,
}

impl Ending {
    /// Keeps its names in this file.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            ended: Ended::default(),
            told: BTreeSet::new(),
        }
    }

    /// Ends all that is held now. Answers all that was ended for this change, by any call.
    pub(super) fn end_all(&mut self, plane: &dyn IngressPlane, change: u64) -> Result<Ended> {
        if self.ended.change != change {
            let kept = file::read_json::<Ended>(&self.path).filter(|kept| kept.change == change);
            self.ended = kept.unwrap_or(Ended {
                change,
                ..Ended::default()
            });
            self.told = self.ended.named.iter().copied().collect();
        }
        let held = plane.held()?;
        if !held.is_empty() {
            let mut foreseen = self.ended.clone();
            add(&mut foreseen, &mut self.told.clone(), &held);
            self.keep(&foreseen)?;
        }
        let ended = plane.end_all()?;
        self.ended.is_all = held.is_empty() && ended.is_empty();
        add(&mut self.ended, &mut self.told, &ended);
        if !held.is_empty() || !ended.is_empty() {
            self.keep(&self.ended)?;
        }
        Ok(self.ended.clone())
    }

    fn keep(&self, ended: &Ended) -> Result<()> {
        file::write_json(&self.path, ended)
            .map_err(|error| PlaneError(format!("cannot keep whom it ended in a file: {error}")))
    }
}

fn add(ended: &mut Ended, told: &mut BTreeSet<Connection>, more: &[Connection]) {
    for connection in more {
        if told.insert(*connection) {
            ended.total += 1;
            if ended.named.len() < ENDED_NAMED_MAX {
                ended.named.push(*connection);
            }
        }
    }
}

#[cfg(test)]
mod tests;
