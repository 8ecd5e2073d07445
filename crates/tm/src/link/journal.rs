//! What was changed lately: kept by the keeper, told to the worker with each question, shown in
//! status.

use std::collections::VecDeque;

use hitless_core::ledger::{Carried, Ledger};

use crate::ledger::{Field, Shared};
use crate::status::{CHANGES_MAX, ChangeKind};
use crate::wire::{Malformed, Reader, Writer};

/// An entry's text: its first line, as far as this.
const TEXT_BYTES_MAX: usize = 512;

/// One change that is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) kind: ChangeKind,
    pub(crate) at_us: u64,
    /// Sequence in the ledger of its kind: takeovers for an upgrade, else crashes. 0 if it touched
    /// no connection.
    pub(crate) sequence: u64,
    pub(crate) text: String,
    /// What it cost, once its ledger serves the next change. `None` until then, and where it
    /// touched no connection.
    pub(crate) cost: Option<Cost>,
}

impl Entry {
    /// Its text with its cost, and its cost, if this is the ledger that it is still in.
    pub(crate) fn told_by(&self, ledger: Shared<'_>) -> Option<(String, Cost)> {
        // A quarantine has its own line; what it cost is in the crash's.
        let is_its = self.kind != ChangeKind::Quarantine
            && self.sequence != 0
            && self.sequence == ledger.read(Field::Sequence);
        let text = match self.kind {
            // Its answer has the ledger.
            ChangeKind::Upgrade => format!("{}; {}", self.text, ledger.losses()),
            _ => format!("{}: {}", self.text, ledger.after_a_crash()),
        };
        let cost = Cost {
            ledger: ledger.value(),
            bytes_in_pipes: ledger.read(Field::BytesInPipes),
        };
        is_its.then_some((text, cost))
    }
}

/// The ledger of a change that others followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cost {
    pub(crate) ledger: Ledger,
    pub(crate) bytes_in_pipes: u64,
}

/// The latest last; at most [`CHANGES_MAX`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Journal(pub(crate) VecDeque<Entry>);

impl Journal {
    pub(crate) fn add(&mut self, kind: ChangeKind, at_us: u64, sequence: u64, text: &str) {
        let line = text.lines().next().unwrap_or_default();
        let mut end = line.len().min(TEXT_BYTES_MAX);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        self.0.push_back(Entry {
            kind,
            at_us,
            sequence,
            text: line[..end].to_owned(),
            cost: None,
        });
        while self.0.len() > CHANGES_MAX {
            self.0.pop_front();
        }
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u32(self.0.len() as u32);
        for entry in &self.0 {
            w.u8(code(entry.kind)).u64(entry.at_us).u64(entry.sequence);
            w.text(&entry.text);
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = r.u32()?;
        let entries = (0..count).map(|_| {
            Ok(Entry {
                kind: kind(r.u8()?)?,
                at_us: r.u64()?,
                sequence: r.u64()?,
                text: r.text()?.to_owned(),
                cost: None,
            })
        });
        entries.collect::<Result<_, _>>().map(Self)
    }

    /// The ledger of upgrades, or that of crashes, is about to begin again: what it tells of an
    /// entry stays with that.
    pub(crate) fn keep_costs(&mut self, ledger: Shared<'_>, is_of_upgrades: bool) {
        for entry in &mut self.0 {
            let is_upgrade = entry.kind == ChangeKind::Upgrade;
            if is_upgrade == is_of_upgrades
                && let Some((text, cost)) = entry.told_by(ledger)
            {
                (entry.text, entry.cost) = (text, Some(cost));
            }
        }
    }

    /// What the entries cost: at the end of a message, so that a reader of an older release does
    /// not look.
    pub(crate) fn encode_costs(&self, w: &mut Writer) {
        for entry in &self.0 {
            w.u8(entry.cost.is_some().into());
            let Some(Cost {
                ledger,
                bytes_in_pipes,
            }) = &entry.cost
            else {
                continue;
            };
            w.u64(ledger.connections).u64(ledger.carried.takeover);
            w.u64(ledger.finished).u64(ledger.told_to_close);
            w.u64(ledger.reset).u64(ledger.stall_us_max);
            w.u64(*bytes_in_pipes);
        }
    }

    /// A writer of an older release has not written them.
    pub(crate) fn decode_costs(&mut self, r: &mut Reader<'_>) -> Result<(), Malformed> {
        if r.is_empty() {
            return Ok(());
        }
        for entry in &mut self.0 {
            if !r.flag()? {
                continue;
            }
            entry.cost = Some(Cost {
                ledger: Ledger {
                    connections: r.u64()?,
                    carried: Carried {
                        takeover: r.u64()?,
                        ..Carried::default()
                    },
                    finished: r.u64()?,
                    told_to_close: r.u64()?,
                    reset: r.u64()?,
                    stall_us_max: r.u64()?,
                },
                bytes_in_pipes: r.u64()?,
            });
        }
        Ok(())
    }
}

fn code(kind: ChangeKind) -> u8 {
    match kind {
        ChangeKind::Start => 1,
        ChangeKind::Reload => 2,
        ChangeKind::ReloadRefused => 3,
        ChangeKind::Upgrade => 4,
        ChangeKind::UpgradeFailed => 5,
        ChangeKind::WorkerCrash => 6,
        ChangeKind::Quarantine => 7,
    }
}

fn kind(code: u8) -> Result<ChangeKind, Malformed> {
    Ok(match code {
        1 => ChangeKind::Start,
        2 => ChangeKind::Reload,
        3 => ChangeKind::ReloadRefused,
        4 => ChangeKind::Upgrade,
        5 => ChangeKind::UpgradeFailed,
        6 => ChangeKind::WorkerCrash,
        7 => ChangeKind::Quarantine,
        _ => return Err(Malformed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_forgets_the_oldest_and_survives_the_wire() {
        let mut journal = Journal::default();
        for at in 0..40 {
            let kind = kind(1 + at as u8 % 6).unwrap();
            journal.add(kind, at, at * 2, &format!("{}\nsecond", "ö".repeat(400)));
        }
        assert_eq!((journal.0.len(), journal.0[0].at_us), (CHANGES_MAX, 24));
        assert_eq!(journal.0[0].text.len(), TEXT_BYTES_MAX);
        let mut w = Writer::new();
        journal.encode(&mut w);
        let mut r = Reader::new(&w.bytes);
        let mut read = Journal::decode(&mut r).unwrap();
        // As an older release writes it.
        read.decode_costs(&mut r).unwrap();
        assert_eq!(read, journal);
        journal.0[3].cost = Some(Cost {
            ledger: Ledger {
                connections: 9,
                carried: Carried {
                    takeover: 7,
                    ..Carried::default()
                },
                reset: 2,
                ..Ledger::default()
            },
            bytes_in_pipes: 5,
        });
        journal.encode_costs(&mut w);
        let mut r = Reader::new(&w.bytes);
        let mut read = Journal::decode(&mut r).unwrap();
        read.decode_costs(&mut r).unwrap();
        assert_eq!(read, journal);
    }
}
