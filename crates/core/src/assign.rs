//! Which guest owns which bucket, and who is its standby: a pure planner with the fewest moves.
//!
//! [`assign`] takes weights and the present owners and standbys, and returns the wished ones.
//! Invariants (I5): nobody with weight 0 owns or stands by; everybody owns its share by weight,
//! rounded up or down to a whole unit (unit: a bucket, or a group of 64 where egress addresses are
//! configured); a unit moves only if its owner has too many, or cannot own, so the moves are the
//! least possible; the same input gives the same output. A standby is never the owner, is on
//! another node where there is one, and stays who it was while its share allows.
//!
//! It deliberately looks at weights only: loads become weights elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::row::{BUCKETS, GROUP_BUCKETS, GuestSlot};

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

/// The wishes for all buckets, given those of before (empty or of full length; missing ones are
/// `Wish::default()`).
///
/// The first bucket of a group speaks for the group.
pub fn assign(
    candidates: &BTreeMap<GuestSlot, Candidate>,
    before: &[Wish],
    unit: Unit,
) -> Vec<Wish> {
    let size = match unit {
        Unit::Bucket => 1,
        Unit::Group => GROUP_BUCKETS,
    };
    let units = BUCKETS / size;
    let before: Vec<Wish> = (0..units)
        .map(|unit| before.get(unit * size).copied().unwrap_or_default())
        .collect();
    let members: Vec<(GuestSlot, &Candidate)> = candidates
        .iter()
        .filter(|(_, candidate)| candidate.weight > 0)
        .map(|(slot, candidate)| (*slot, candidate))
        .collect();
    let index_of = |slot: Option<GuestSlot>| {
        slot.and_then(|slot| members.binary_search_by_key(&slot, |(slot, _)| *slot).ok())
    };
    let owners = owners(
        &members,
        before.iter().map(|wish| index_of(wish.owner)).collect(),
    );
    let standbys = standbys(&members, &owners, &before, index_of);
    let slot = |index: Option<usize>| index.map(|index| members[index].0);
    (0..BUCKETS)
        .map(|bucket| bucket / size)
        .map(|unit| Wish {
            owner: slot(owners[unit]),
            standby: slot(standbys[unit]),
        })
        .collect()
}

/// Moves owners until everybody has its share.
fn owners(
    members: &[(GuestSlot, &Candidate)],
    mut owners: Vec<Option<usize>>,
) -> Vec<Option<usize>> {
    if members.is_empty() {
        return vec![None; owners.len()];
    }
    let mut owned = vec![0_usize; members.len()];
    for owner in owners.iter().flatten() {
        owned[*owner] += 1;
    }
    let shares = shares(members, &owned, owners.len());
    // Who has too few, each once per missing unit, in turn: a new guest's buckets are spread over
    // the table.
    let mut takers: Vec<(usize, usize)> = (0..members.len())
        .filter(|member| owned[*member] < shares[*member])
        .map(|member| (member, shares[member] - owned[member]))
        .collect();
    let mut turn = 0;
    let mut take = || {
        turn %= takers.len();
        let (member, missing) = &mut takers[turn];
        let taker = *member;
        *missing -= 1;
        if *missing == 0 {
            takers.remove(turn);
        } else {
            turn += 1;
        }
        taker
    };
    for owner in &mut owners {
        match owner {
            Some(member) if owned[*member] <= shares[*member] => {}
            Some(member) => {
                owned[*member] -= 1;
                *owner = Some(take());
            }
            None => *owner = Some(take()),
        }
    }
    owners
}

/// How many units each shall own: the exact share rounded down, and the units left over to those
/// with the largest remainder; of equal ones, to those that own more than that already, so that
/// they need not move.
fn shares(members: &[(GuestSlot, &Candidate)], owned: &[usize], units: usize) -> Vec<usize> {
    let total: u64 = members
        .iter()
        .map(|(_, member)| u64::from(member.weight))
        .sum();
    let product = |member: usize| u64::from(members[member].1.weight) * units as u64;
    let mut shares: Vec<usize> = (0..members.len())
        .map(|member| (product(member) / total) as usize)
        .collect();
    let left = units - shares.iter().sum::<usize>();
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|member| {
        let remainder = product(*member) % total;
        let has_more = owned[*member] > shares[*member];
        (
            core::cmp::Reverse(remainder),
            core::cmp::Reverse(has_more),
            *member,
        )
    });
    for member in order.into_iter().take(left) {
        shares[member] += 1;
    }
    shares
}

/// A standby per unit: the old one while it can, else the fittest with the fewest units to stand by
/// for.
fn standbys(
    members: &[(GuestSlot, &Candidate)],
    owners: &[Option<usize>],
    before: &[Wish],
    index_of: impl Fn(Option<GuestSlot>) -> Option<usize>,
) -> Vec<Option<usize>> {
    if members.len() < 2 {
        return vec![None; owners.len()];
    }
    let other_node = |owner: usize, member: usize| members[owner].1.node != members[member].1.node;
    let has_choice: Vec<bool> = (0..members.len())
        .map(|owner| (0..members.len()).any(|member| other_node(owner, member)))
        .collect();
    let fits = |owner: usize, member: usize| {
        owner != member && (other_node(owner, member) || !has_choice[owner])
    };
    let mut stands_by = vec![0_usize; members.len()];
    let mut standbys: Vec<Option<usize>> = Vec::with_capacity(owners.len());
    for (owner, before) in owners.iter().zip(before) {
        let kept =
            index_of(before.standby).filter(|kept| owner.is_some_and(|owner| fits(owner, *kept)));
        if let Some(kept) = kept {
            stands_by[kept] += 1;
        }
        standbys.push(kept);
    }
    for (standby, owner) in standbys.iter_mut().zip(owners) {
        if let (None, Some(owner)) = (*standby, *owner) {
            let fittest = (0..members.len())
                .filter(|member| fits(owner, *member))
                .min_by_key(|member| (stands_by[*member], *member));
            if let Some(fittest) = fittest {
                stands_by[fittest] += 1;
            }
            *standby = fittest;
        }
    }
    // Who stands by for more than twice the mean (nodes may be uneven) gives units to those below
    // it. Nobody falls below it by that, nobody rises above it: a second run finds nothing to do.
    let most = 2 * owners.len().div_ceil(members.len());
    for (standby, owner) in standbys.iter_mut().zip(owners) {
        let (Some(from), Some(owner)) = (*standby, *owner) else {
            continue;
        };
        if stands_by[from] <= most {
            continue;
        }
        let fittest = (0..members.len())
            .filter(|member| fits(owner, *member) && stands_by[*member] < most)
            .min_by_key(|member| (stands_by[*member], *member));
        if let Some(to) = fittest {
            stands_by[from] -= 1;
            stands_by[to] += 1;
            *standby = Some(to);
        }
    }
    standbys
}

#[cfg(test)]
mod tests;
