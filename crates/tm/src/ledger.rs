//! The ledgers of the last takeover and the last crash, as they lie in the slot file: added to by
//! every event loop and by the keeper, read for status and metrics, and there after every death.

use core::sync::atomic::{AtomicU64, Ordering};

use hitless_carry::slots::{Head, LEDGER_FIELDS};
use hitless_core::ledger::{Carried, Ledger};

/// Places of the fields; never changed within a layout of the slot file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Field {
    /// How many changes of this kind there were.
    Sequence = 0,
    BeganUs = 1,
    /// Alive at the beginning.
    Connections = 2,
    Carried = 3,
    Finished = 4,
    ToldToClose = 5,
    Reset = 6,
    StallUsMax = 7,
    EndedUs = 8,
    /// Requests that were under way and are lost.
    InFlightLost = 9,
    /// Bytes that were in pipes and went on.
    BytesInPipes = 10,
    /// Connections carried inside a message.
    MidMessage = 11,
    /// Bytes that were in the worker's own memory and went on.
    BytesBuffered = 12,
    /// Of all changes of this kind together, so that nobody has to look after each.
    ResetTotal = 13,
    InFlightLostTotal = 14,
}

/// What a new change of the kind does not begin again with.
const KEPT: [Field; 3] = [Field::Sequence, Field::ResetTotal, Field::InFlightLostTotal];

/// A number of things, for people.
pub(crate) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Which ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Which(fn(&Head) -> &[AtomicU64; LEDGER_FIELDS]);

pub(crate) const TAKEOVER: Which = Which(|head| &head.takeover);
pub(crate) const CRASH: Which = Which(|head| &head.crash);

impl Which {
    pub(crate) fn of(self, head: &Head) -> Shared<'_> {
        Shared(self.0(head))
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared<'a>(&'a [AtomicU64; LEDGER_FIELDS]);

impl Shared<'_> {
    /// A change of this kind begins: all but the sequence and the totals start again.
    pub(crate) fn begin(self, now_us: u64, connections: u64) {
        let sequence = self.read(Field::Sequence) + 1;
        for (at, field) in self.0.iter().enumerate() {
            if !KEPT.iter().any(|kept| *kept as usize == at) {
                field.store(0, Ordering::Relaxed);
            }
        }
        self.0[Field::BeganUs as usize].store(now_us, Ordering::Relaxed);
        self.0[Field::EndedUs as usize].store(now_us, Ordering::Relaxed);
        self.0[Field::Connections as usize].store(connections, Ordering::Relaxed);
        self.0[Field::Sequence as usize].store(sequence, Ordering::Release);
    }

    pub(crate) fn add(self, field: Field, count: u64) {
        self.0[field as usize].fetch_add(count, Ordering::Relaxed);
        let total = match field {
            Field::Reset => Field::ResetTotal,
            Field::InFlightLost => Field::InFlightLostTotal,
            _ => return,
        };
        self.0[total as usize].fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn max(self, field: Field, value: u64) {
        self.0[field as usize].fetch_max(value, Ordering::Relaxed);
    }

    pub(crate) fn read(self, field: Field) -> u64 {
        self.0[field as usize].load(Ordering::Relaxed)
    }

    /// As a value.
    pub(crate) fn value(self) -> Ledger {
        Ledger {
            connections: self.read(Field::Connections),
            carried: Carried {
                takeover: self.read(Field::Carried),
                ..Carried::default()
            },
            finished: self.read(Field::Finished),
            told_to_close: self.read(Field::ToldToClose),
            reset: self.read(Field::Reset),
            stall_us_max: self.read(Field::StallUsMax),
        }
    }

    /// What a crash cost. It carries nothing over: what lives on does so by itself.
    pub(crate) fn after_a_crash(self) -> String {
        let stall_us = self.read(Field::StallUsMax);
        format!(
            "{}: {} live on, {} reset; longest stall {}.{} ms; {}",
            count(self.read(Field::Connections), "connection"),
            self.read(Field::Carried),
            self.read(Field::Reset),
            stall_us / 1000,
            stall_us % 1000 / 100,
            self.losses()
        )
    }

    /// What a ledger has that is no connection.
    pub(crate) fn losses(self) -> String {
        let began = self.read(Field::BeganUs);
        format!(
            "{} in flight lost, {} in pipes, {} in mid-message; took {} ms",
            count(self.read(Field::InFlightLost), "request"),
            count(self.read(Field::BytesInPipes), "byte"),
            self.read(Field::MidMessage),
            self.read(Field::EndedUs).saturating_sub(began) / 1000
        )
    }

    /// One line.
    pub(crate) fn summary(self) -> String {
        format!("{}", self.value())
    }
}
