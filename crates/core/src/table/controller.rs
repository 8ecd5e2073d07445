//! The table's controller: the machine that alone decides rows.
//!
//! ```text
//!            policy, boots, losses              acknowledgements, refusals, live connections, silence
//!                     │                                              │
//!                     v                                              v
//!   Loaded ──> decide: slots, trust, wishes ([`assign`]), next rows ([`step::next_row`]) ──> Write (compare-and-set)
//!     ^                                                                                        │        │
//!     └──────────────────────── Conflict: somebody else wrote; everything is read anew ────────┘        v Written
//!                                                              offers of rows and trust, stage by stage <┘
//! ```
//!
//! **State.** What has to survive is [`Header`] and the [`Page`]s, and lies in the store; nothing is sent before it is
//! written there. How far a row has come is not stored: it follows from acknowledgements, and a controller that has just
//! loaded offers every row again and hears them again. So a controller may die anywhere, and two may run at once: the
//! compare-and-set lets one of them go on, and what both send was written.
//!
//! **Driver.** `Load`: read header and pages, hand in [`Input::Loaded`]. `Write`: one transaction that compares the
//! header's generation with `parent` (absent for `None`) and puts header and pages; then [`Input::Written`], or
//! [`Input::Conflict`] if the comparison failed. `ToAgent`, `ToGuest`: send, or forget if there is no link; whenever a
//! link opens, [`Input::Connected`] has everything offered again. Actions are carried out in order.
//!
//! **Failure paths.** A lost message: offered again after [`OFFER_AGAIN_US`]. A guest from which no director's agent
//! hears: suspect, its trust withdrawn, and after every agent's acknowledgement of that and one lease more it is fenced,
//! and rows go on without it. A leaver that holds connections or turns suspect: its row is withdrawn. A director that is
//! silent: everything waits, by name, until it answers or the policy no longer lists it.
//!
//! [`assign`]: crate::assign::assign
//! [`step::next_row`]: crate::table::step::next_row

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::assign::Unit;
use crate::row::{Bucket, GuestSlot, Row};
use crate::table::message::{
    DirectorId, FromAgent, FromGuest, Generation, Party, ToAgent, ToGuest,
};
use crate::table::step::{Entry, Stage, Standing, Wait};
use crate::time::Time;

/// Schema of [`Header`] and [`Page`] that this release writes.
pub const SCHEMA: u16 = 1;
/// Buckets per page of the store: 64 pages, so that a change of few buckets writes few bytes.
pub const PAGE_BUCKETS: usize = 1_024;
/// Rows and trust that are not acknowledged are offered again after this.
pub const OFFER_AGAIN_US: u64 = 1_000_000;
/// From the last agent's acknowledgement that a suspect gets no lease any more to the end of that lease, with a tenth
/// for clocks of different speed.
pub const FENCE_AFTER_US: u64 = crate::table::guest::LEASE_US * 11 / 10;

/// What the operator wants of the table.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Policy {
    /// By name.
    pub guests: BTreeMap<String, GuestPolicy>,
    /// Directors whose acknowledgement counts. One that was *seen* gone, or was removed, is no longer listed.
    pub directors: BTreeSet<DirectorId>,
    pub unit: Unit,
}

/// What the operator wants of a guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuestPolicy {
    /// Share of the buckets, relative to the others'.
    pub weight: u32,
    pub node: String,
    pub wanted: Wanted,
    /// The change under which `wanted` was asked for, by which progress is shown. None: as configured.
    pub change: Option<String>,
}

/// Whether a guest is to serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    Serve,
    /// To leave all rows, and stay.
    Drain,
}

/// The stored head of a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    pub schema: u16,
    /// Rises with every write; what a write compares.
    pub generation: Generation,
    /// When trust last changed: the generation by which agents acknowledge it.
    pub trust: Generation,
    pub guests: BTreeMap<GuestSlot, GuestRecord>,
}

/// One kernel of one guest, by its slot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuestRecord {
    pub name: String,
    /// Which boot of the guest's kernel this is: a namespace or VM that is made anew has another.
    pub boot: u64,
    pub state: State,
}

/// What is stored of a guest's standing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Serving,
    Suspect,
    /// Destroyed; the record stays until no row names the slot and all have acknowledged that.
    Gone,
}

/// The stored entries of [`PAGE_BUCKETS`] buckets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Page {
    pub schema: u16,
    pub entries: Vec<Entry>,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// The store's content. `None`: there is no table yet.
    Loaded(Option<(Header, Vec<Page>)>),
    /// The last write is in the store.
    Written,
    /// The last write was refused, because the header has another generation.
    Conflict,
    /// What the operator wants now.
    Policy(Policy),
    /// A guest's kernel runs. It gets the slot of this boot, a new one if the boot is new.
    Booted {
        name: String,
        boot: u64,
    },
    /// This kernel is known to be destroyed.
    Destroyed {
        slot: GuestSlot,
    },
    /// Somebody else than the agents has reason to think this guest dead; taken back with `false`.
    Suspected {
        slot: GuestSlot,
        is_suspect: bool,
    },
    /// A link to this party opened: it may have missed anything.
    Connected(Party),
    FromAgent {
        from: DirectorId,
        message: FromAgent,
    },
    FromGuest {
        from: GuestSlot,
        message: FromGuest,
    },
    /// `deadline()` has come.
    Tick,
}

/// What the driver is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    Load,
    Write {
        parent: Option<Generation>,
        header: Header,
        pages: Vec<(u16, Page)>,
    },
    ToAgent {
        to: DirectorId,
        message: ToAgent,
    },
    ToGuest {
        to: GuestSlot,
        message: ToGuest,
    },
}

/// How a table is doing, for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// None: nothing loaded yet.
    pub generation: Option<Generation>,
    pub guests: BTreeMap<GuestSlot, GuestStatus>,
    /// Buckets that are not where they are wished, or whose row not all have acknowledged.
    pub unsettled: usize,
    /// Why, at most one line per reason.
    pub waits: Vec<WaitReason>,
    pub changes: Vec<ChangeStatus>,
}

/// How a guest is doing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuestStatus {
    pub name: String,
    pub standing: Standing,
    /// Buckets that it leads.
    pub leads: usize,
    /// Buckets whose row names it.
    pub named: usize,
    /// Live connections, by its last report. None: no report yet.
    pub connections: Option<u64>,
}

/// What is waited for, since when.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WaitReason {
    /// Stable word for the reason: `stage_guests`, `connections`, ...
    pub code: String,
    pub wait: Wait,
    /// Who does not answer, where that is the reason.
    pub object: Option<Party>,
    pub buckets: usize,
    pub since: Time,
}

/// How far a change has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeStatus {
    pub name: String,
    pub guest: String,
    pub wanted: Wanted,
    /// Buckets still to come or to go.
    pub left: usize,
    pub is_done: bool,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Controller {
    actions: VecDeque<Action>,
    stages: Vec<Stage>,
    rows: Vec<Row>,
    policy: Option<Policy>,
}

impl Controller {
    /// A machine that knows nothing yet; its first action is `Load`.
    pub fn new() -> Self {
        Self {
            actions: VecDeque::from([Action::Load]),
            ..Self::default()
        }
    }

    /// Takes what happened.
    pub fn handle(&mut self, now: Time, input: Input) {
        let _ = now;
        if let Input::Policy(policy) = input {
            self.policy = Some(policy);
        }
    }

    /// What the driver is to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Time> {
        None
    }

    /// The slot of this guest's newest kernel, once that is in the store.
    pub fn slot_of(&self, name: &str) -> Option<GuestSlot> {
        let _ = (name, &self.policy);
        None
    }

    /// The newest row of a bucket and how far it has come.
    pub fn row(&self, bucket: Bucket) -> (Row, Stage) {
        let index = usize::from(bucket.0);
        let row = self.rows.get(index).copied().unwrap_or(Row::NONE);
        (row, self.stages.get(index).copied().unwrap_or(Stage::Done))
    }

    /// How the table is doing.
    pub fn status(&self) -> Status {
        Status {
            generation: None,
            guests: BTreeMap::new(),
            unsettled: 0,
            waits: Vec::new(),
            changes: Vec::new(),
        }
    }
}
