//! What controller, director agents and guests say to each other about a table.
//!
//! Values of links `controller.node` and `node.guest`: versioned by the hello of the link, batched,
//! since 65,536 buckets may move together. Every message may be lost, repeated or overtaken: rows
//! and acknowledgements carry sequences, trust carries a generation, and the controller offers
//! again what is not acknowledged.

use serde::{Deserialize, Serialize};

use crate::row::{Bucket, GuestSlot, Row, Sequence};
use crate::time::Time;

/// Version of these messages that this release speaks.
pub const VERSION: u16 = 1;
/// Buckets per message at most: 8,192 rows are some 100 KiB of JSON or more, well below any frame's
/// limit.
pub const BATCH: usize = 8_192;

/// A director's number, as it stamps: 1 to 65,535.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DirectorId(pub u16);

/// Which plan of trust a message speaks of; rises with every write of the controller.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Generation(pub u64);

/// Who obeys a table: acknowledges its rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    Guest(GuestSlot),
    Director(DirectorId),
}

/// Controller to a director's agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToAgent {
    /// Store these rows where they are newer, then acknowledge.
    Rows { rows: Vec<(Bucket, Row)> },
    /// Renew leases of `trusted` only. The newest generation counts; the agent acknowledges it as
    /// soon as it will renew for nobody else. `suspects` are watched, so that they are believed
    /// dead while they are silent.
    Trust {
        generation: Generation,
        trusted: Vec<GuestSlot>,
        suspects: Vec<GuestSlot>,
    },
}

/// A director's agent to the controller.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromAgent {
    /// These rows are in the director's map, and an RCU grace period has passed.
    Applied { rows: Vec<(Bucket, Sequence)> },
    /// Since now no lease is renewed but by trust of this generation.
    Trusting { generation: Generation },
    /// Whom this agent heard no lease request from lately, and for how many microseconds, by its
    /// own clock; sent regularly, though it be nobody.
    Silent { guests: Vec<(GuestSlot, u64)> },
}

/// Controller to a guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToGuest {
    /// Store these rows where they are newer. `rows` are acknowledged then; `leaving` only when a
    /// count that began afterwards found nothing of the bucket, otherwise refused by
    /// [`FromGuest::Holds`].
    Rows {
        rows: Vec<(Bucket, Row)>,
        leaving: Vec<(Bucket, Row)>,
    },
    /// Count now and send a report with `is_full`: the controller lost what it knew.
    Report,
}

/// A guest to the controller.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromGuest {
    /// The ingress has these rows, and, where the guest leaves by them, its kernel holds nothing of
    /// the bucket.
    Applied { rows: Vec<(Bucket, Sequence)> },
    /// The ingress has these rows, by which it leaves, but its kernel holds so many: the row is to
    /// be withdrawn.
    Holds { rows: Vec<(Bucket, Sequence, u32)> },
    /// Live connections of buckets that this guest does not lead, as far as they changed since the
    /// last report (0 included); `is_full` if buckets not named hold nothing.
    Live {
        is_full: bool,
        buckets: Vec<(Bucket, u32)>,
        connections: u64,
    },
    /// Numbers of directors whose stamps arrived since the last report.
    StampedBy { directors: Vec<DirectorId> },
}

/// A guest to every director's agent, every
/// [`guest::LEASE_REQUEST_EVERY_US`](super::guest::LEASE_REQUEST_EVERY_US).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseRequest {
    pub guest: GuestSlot,
    /// The guest's own clock when it asked. The lease runs from here, so a late answer gives no
    /// longer lease.
    pub asked: Time,
}

/// A director's agent to a guest, in answer to a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseGrant {
    /// As in the request.
    pub asked: Time,
    pub director: DirectorId,
    /// Whether the lease is renewed. A suspect is still told who is believed dead.
    pub is_renewed: bool,
    /// Whom this agent believes dead.
    pub believed_dead: Vec<GuestSlot>,
}
