//! What was changed lately: kept by the keeper, told to the worker with each question, shown in
//! status.

use std::collections::VecDeque;

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
            })
        });
        entries.collect::<Result<_, _>>().map(Self)
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
        assert_eq!(Journal::decode(&mut r), Ok(journal));
    }
}
