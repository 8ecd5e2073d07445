//! How many frames of a kind a peer may send per second.
//!
//! Each kind has a debt that a frame adds to and time pays off: a second's worth may come at once,
//! then as many as are paid off. Debts are below 2^32 ns and survive a snapshot.

use std::fmt;

use crate::layout::{Reader, RestoreError, Writer};

/// Kinds of frames that cost us more than they cost their sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flow {
    /// SETTINGS, each of which is to be acknowledged.
    Settings,
    /// PING, likewise.
    Ping,
    /// RST_STREAM: opening and resetting makes work for members.
    Reset,
    /// Streams that we reset because of what the peer sent: makes the same work.
    Refused,
    /// DATA without data.
    EmptyData,
    /// WINDOW_UPDATE beyond what the data that we sent calls for.
    WindowUpdate,
    /// PRIORITY, which means nothing.
    Priority,
    /// Frames of kinds that nobody knows, and late frames on closed streams.
    Ignored,
}

pub(super) const FLOWS: usize = 8;
const SECOND_NS: u64 = 1_000_000_000;
/// WINDOW_UPDATE frames that one DATA frame of ours calls for, at most.
const UPDATES_PER_DATA: u32 = 8;
const UPDATES_CREDIT_MAX: u32 = 8_192;

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flow::Settings => "SETTINGS frames",
            Flow::Ping => "PING frames",
            Flow::Reset => "streams reset by the peer",
            Flow::Refused => "streams reset because of the peer",
            Flow::EmptyData => "DATA frames without data",
            Flow::WindowUpdate => "WINDOW_UPDATE frames",
            Flow::Priority => "PRIORITY frames",
            Flow::Ignored => "frames to ignore",
        })
    }
}

/// Frames per second, each at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    pub settings: u32,
    pub ping: u32,
    pub reset: u32,
    pub refused: u32,
    pub empty_data: u32,
    pub window_update: u32,
    pub priority: u32,
    pub ignored: u32,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates {
            settings: 50,
            // Some peers measure with them, once a round trip.
            ping: 2_000,
            // A page of 200 things is left now and then.
            reset: 500,
            refused: 500,
            empty_data: 100,
            window_update: 1_000,
            priority: 1_000,
            ignored: 2_000,
        }
    }
}

impl Rates {
    fn of(&self, flow: Flow) -> u32 {
        match flow {
            Flow::Settings => self.settings,
            Flow::Ping => self.ping,
            Flow::Reset => self.reset,
            Flow::Refused => self.refused,
            Flow::EmptyData => self.empty_data,
            Flow::WindowUpdate => self.window_update,
            Flow::Priority => self.priority,
            Flow::Ignored => self.ignored,
        }
    }
}

/// The debts of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Budgets {
    debts_ns: [u32; FLOWS],
    /// When they were last paid off.
    paid_us: u64,
    /// WINDOW_UPDATE frames that are no debt.
    updates_credit: u32,
}

impl Budgets {
    pub(super) fn new(now_us: u64) -> Budgets {
        Budgets {
            debts_ns: [0; FLOWS],
            paid_us: now_us,
            updates_credit: 0,
        }
    }

    /// Whether one more is allowed; if so, it is booked.
    pub(super) fn spend(&mut self, flow: Flow, rates: &Rates, now_us: u64) -> bool {
        if flow == Flow::WindowUpdate && self.updates_credit > 0 {
            self.updates_credit -= 1;
            return true;
        }
        let passed_ns = now_us.saturating_sub(self.paid_us).saturating_mul(1_000);
        if passed_ns > 0 {
            let paid = u32::try_from(passed_ns).unwrap_or(u32::MAX);
            for debt in &mut self.debts_ns {
                *debt = debt.saturating_sub(paid);
            }
            self.paid_us = now_us;
        }
        let cost = SECOND_NS / u64::from(rates.of(flow).max(1));
        let debt = u64::from(self.debts_ns[flow as usize]) + cost;
        if debt > SECOND_NS {
            return false;
        }
        self.debts_ns[flow as usize] = debt as u32;
        true
    }

    /// A DATA frame was sent.
    pub(super) fn earn(&mut self) {
        self.updates_credit = (self.updates_credit + UPDATES_PER_DATA).min(UPDATES_CREDIT_MAX);
    }

    pub(super) fn write(&self, now_us: u64, writer: &mut Writer) {
        for debt in self.debts_ns {
            writer.u32(debt);
        }
        writer.u64(now_us.saturating_sub(self.paid_us));
        writer.u32(self.updates_credit);
    }

    pub(super) fn read(reader: &mut Reader<'_>, now_us: u64) -> Result<Budgets, RestoreError> {
        let mut budgets = Budgets::new(now_us);
        for debt in &mut budgets.debts_ns {
            *debt = reader.u32()?;
        }
        budgets.paid_us = now_us.saturating_sub(reader.u64()?);
        budgets.updates_credit = reader.u32()?;
        if budgets.updates_credit > UPDATES_CREDIT_MAX {
            return Err(reader.impossible());
        }
        Ok(budgets)
    }
}
