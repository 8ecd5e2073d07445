use proptest::prelude::*;

use super::*;

fn slot(number: u16) -> GuestSlot {
    GuestSlot::new(number).unwrap()
}

fn candidates(weights: &[u32]) -> BTreeMap<GuestSlot, Candidate> {
    (1..)
        .zip(weights)
        .map(|(number, weight)| {
            (
                slot(number),
                Candidate {
                    weight: *weight,
                    node: format!("n{}", number % 3),
                },
            )
        })
        .collect()
}

fn owned(wishes: &[Wish]) -> BTreeMap<GuestSlot, usize> {
    let mut owned = BTreeMap::new();
    for owner in wishes.iter().filter_map(|wish| wish.owner) {
        *owned.entry(owner).or_default() += 1;
    }
    owned
}

fn moves(before: &[Wish], after: &[Wish]) -> usize {
    before
        .iter()
        .zip(after)
        .filter(|(before, after)| before.owner != after.owner)
        .count()
}

#[test]
fn nobody_to_assign_leaves_all_without_owner() {
    let wishes = assign(&BTreeMap::new(), &[], Unit::Bucket);
    assert_eq!(wishes, vec![Wish::default(); BUCKETS]);
}

#[test]
fn a_new_guest_takes_exactly_its_share() {
    let before = assign(&candidates(&[1, 1, 1]), &[], Unit::Bucket);
    let after = assign(&candidates(&[1, 1, 1, 1]), &before, Unit::Bucket);
    assert_eq!(moves(&before, &after), BUCKETS / 4);
    assert_eq!(owned(&after)[&slot(4)], BUCKETS / 4);
}

#[test]
fn a_drained_guest_gives_only_its_own() {
    let before = assign(&candidates(&[1, 1, 1, 1]), &[], Unit::Bucket);
    let after = assign(&candidates(&[1, 0, 1, 1]), &before, Unit::Bucket);
    assert_eq!(moves(&before, &after), BUCKETS / 4);
    assert!(
        after
            .iter()
            .all(|wish| wish.owner != Some(slot(2)) && wish.standby != Some(slot(2)))
    );
}

#[test]
fn groups_move_together() {
    let before = assign(&candidates(&[1, 1]), &[], Unit::Group);
    let after = assign(&candidates(&[1, 1, 1]), &before, Unit::Group);
    for group in after.chunks(GROUP_BUCKETS) {
        assert!(group.iter().all(|wish| wish == &group[0]));
    }
    assert!(moves(&before, &after) <= BUCKETS / 3 + GROUP_BUCKETS);
}

/// Two small nodes stand by for a large one: both are above twice the mean, and nobody else fits.
#[test]
fn standbys_above_their_share_stay_where_nobody_else_fits() {
    for unit in [Unit::Bucket, Unit::Group] {
        for first in [1_u32, 2, 3, 4] {
            let before = assign(&candidates(&[first, 1, 0, 4, 3, 0, 2]), &[], unit);
            let weights = [4, 1, 0, 4, 1, 0, 4];
            let after = assign(&candidates(&weights), &before, unit);
            assert!(after == assign(&candidates(&weights), &after, unit));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn shares_are_kept_with_the_fewest_moves(
        first in proptest::collection::vec(0_u32..5, 1..8),
        second in proptest::collection::vec(0_u32..5, 1..8),
        by_group in any::<bool>(),
    ) {
        let unit = if by_group { Unit::Group } else { Unit::Bucket };
        let size = if by_group { GROUP_BUCKETS } else { 1 };
        let before = assign(&candidates(&first), &[], unit);
        let after = assign(&candidates(&second), &before, unit);
        let total: u32 = second.iter().sum();
        let owned_before = owned(&before);
        let owned_after = owned(&after);
        let mut least = 0;
        for (slot, candidate) in candidates(&second) {
            let has = owned_after.get(&slot).copied().unwrap_or(0);
            let had = owned_before.get(&slot).copied().unwrap_or(0);
            if total > 0 {
                let exact = BUCKETS as f64 * f64::from(candidate.weight) / f64::from(total);
                prop_assert!((has as f64 - exact).abs() < size as f64, "{slot} has {has} of {exact}");
            }
            least += has.saturating_sub(had);
        }
        if total > 0 {
            prop_assert_eq!(moves(&before, &after), least);
        }
        let nodes: std::collections::BTreeSet<_> = candidates(&second)
            .into_values()
            .filter(|candidate| candidate.weight > 0)
            .map(|candidate| candidate.node)
            .collect();
        for wish in &after {
            prop_assert!(wish.owner.is_none() || wish.owner != wish.standby);
            if let (Some(owner), Some(standby)) = (wish.owner, wish.standby)
                && nodes.len() > 1
            {
                prop_assert_ne!(owner.number() % 3, standby.number() % 3);
            }
        }
        prop_assert_eq!(&after, &assign(&candidates(&second), &before, unit));
        prop_assert_eq!(&after, &assign(&candidates(&second), &after, unit), "stable");
    }
}
