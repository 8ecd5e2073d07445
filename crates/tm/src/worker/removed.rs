//! Members that a reload has removed, or moved to another pool: their connections go on, and are
//! shown under their pool until none is left.
//!
//! Invariants: one that a later configuration has again is not removed any more; at most
//! [`REMOVED_MAX`] are remembered, the latest. A worker's death ends what is remembered here; the
//! connections themselves go on.

use core::net::SocketAddr;
use std::collections::HashSet;

use hitless_carry::slots::{KEYED_COUNTERS, Slots};
use hitless_types::site::Site;
use serde::{Deserialize, Serialize};

use super::stats::{member_key, sum_keyed};

/// Far more than are taken out while connections to them live.
const REMOVED_MAX: usize = 4096;

/// As the last configuration that had it described it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct RemovedMember {
    pub(super) pool: String,
    pub(super) method: String,
    pub(super) address: SocketAddr,
    pub(super) weight: u16,
}

impl RemovedMember {
    pub(super) fn sums(&self, slots: &Slots) -> [u64; KEYED_COUNTERS] {
        sum_keyed(slots, member_key(&self.pool, self.address))
    }
}

/// `next` follows `last`: what it has not is removed, what it has is not.
pub(super) fn remember(removed: &mut Vec<RemovedMember>, last: &Site, next: &Site) {
    let mut kept = HashSet::new();
    for pool in &next.pools {
        let members = pool.members.iter();
        kept.extend(members.map(|member| (pool.name.as_str(), member.address)));
    }
    removed.retain(|one| !kept.contains(&(one.pool.as_str(), one.address)));
    for pool in &last.pools {
        let name = pool.name.as_str();
        let members = pool.members.iter();
        for member in members.filter(|one| !kept.contains(&(name, one.address))) {
            removed.push(RemovedMember {
                pool: name.to_owned(),
                method: pool.method.name().to_owned(),
                address: member.address,
                weight: member.weight,
            });
        }
    }
    let count = removed.len();
    removed.drain(..count.saturating_sub(REMOVED_MAX));
}
