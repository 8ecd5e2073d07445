//! Orders and changes: what is wanted of nodes and guests, and how far that has come. Pure: records
//! in, records out.
//!
//! ```text
//!  order ──> change open ──(advance: what is seen fits what is wanted)──> done
//!                  │ undone by a later order, or called back ───────────> called back
//!                  └ cannot be done ────────────────────────────────────> failed
//! ```
//!
//! A change has no steps of its own that were to be remembered: [`advance`] looks at what is wanted
//! and what is seen, and does what is next, any number of times. Rows are none of its business; it
//! reads the table's status.

mod advance;
pub(super) mod death;
mod drain;
mod orders;
mod progress;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hitless_core::table::controller::{GuestStatus, Status};
use hitless_core::table::step::Standing;

use super::records::Records;
use crate::message::{GuestReport, NodeReport, TOLD_TO_CLOSE};

pub use advance::advance;
pub use drain::left;
pub use orders::{apply, call_back, order};
pub use progress::{is_of_rows, progress, waits};

/// The virtual cluster's name: there is one.
pub const NAME: &str = "default";

/// What a site configuration says to a controller.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SiteFacts {
    pub vips: Vec<IpAddr>,
    /// `ADDRESS:PORT/PROTOCOL` of each virtual server.
    pub servers: Vec<String>,
    /// Names of virtual servers by where they listen.
    pub names: BTreeMap<SocketAddr, String>,
}

/// What is seen.
#[derive(Debug)]
pub struct View<'a> {
    /// Microseconds since 1970.
    pub now_us: u64,
    pub table: &'a Status,
    /// By node; only of nodes that are linked.
    pub reports: BTreeMap<&'a str, &'a NodeReport>,
    pub strangers: &'a Strangers,
}

/// Guests and nodes that others do not know yet, with one of these.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Strangers {
    pub guests: BTreeMap<String, String>,
    pub nodes: BTreeMap<String, String>,
}

impl View<'_> {
    /// What the table says of the guest's newest kernel.
    pub fn guest(&self, name: &str) -> Option<&GuestStatus> {
        let of_name = self
            .table
            .guests
            .values()
            .filter(|guest| guest.name == name);
        of_name.max_by_key(|guest| guest.standing != Standing::Gone)
    }

    pub(super) fn report(&self, records: &Records, guest: &str) -> Option<&GuestReport> {
        let node = &records.guests.get(guest)?.node;
        self.reports.get(node.as_str())?.guests.get(guest)
    }

    pub(super) fn live(&self) -> u64 {
        self.table
            .guests
            .values()
            .filter_map(|guest| guest.connections)
            .sum()
    }

    /// How many packets of connections that nobody knew each guest's ingress let its stack reset.
    pub(super) fn unknown_reset(&self) -> impl Iterator<Item = (String, u64)> {
        self.counted("answered")
    }

    /// How many clients each guest's traffic manager has told to close since it first started.
    pub(super) fn told_to_close(&self) -> impl Iterator<Item = (String, u64)> {
        self.counted(TOLD_TO_CLOSE)
    }

    fn counted(&self, counter: &str) -> impl Iterator<Item = (String, u64)> {
        let guests = self.reports.values().flat_map(|report| &report.guests);
        guests.filter_map(move |(name, guest)| Some((name.clone(), *guest.counters.get(counter)?)))
    }

    /// Whether no row names the guest.
    pub(super) fn is_out_of_rows(&self, guest: &str) -> bool {
        self.table
            .guests
            .values()
            .filter(|known| known.name == guest)
            .all(|known| known.named == 0)
    }

    pub(super) fn is_settled(&self, change: &str) -> bool {
        self.table
            .changes
            .iter()
            .filter(|known| known.name == change)
            .all(|known| known.is_done)
    }
}

#[cfg(test)]
mod tests;
