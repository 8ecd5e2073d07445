use super::*;

fn balance(method: Method, weights: &[u16]) -> Balance {
    let mut balance = Balance::new(0);
    balance.apply(method, choices(weights));
    balance
}

fn choices(weights: &[u16]) -> Vec<Choice> {
    let choice = |(member, weight): (usize, &u16)| Choice {
        member,
        weight: *weight,
        name: mix(member as u64),
    };
    weights.iter().enumerate().map(choice).collect()
}

const fn all(_: usize) -> bool {
    true
}

const fn idle(_: usize) -> u32 {
    0
}

/// How often each of these members is chosen in so many rounds, where nobody's clients stay.
fn shares(balance: &mut Balance, rounds: u64) -> Vec<u64> {
    let mut shares = vec![0; balance.choices().len()];
    for round in 0..rounds {
        shares[balance.choose(mix(round), all, idle).unwrap()] += 1;
    }
    shares
}

#[test]
fn round_robin_takes_turns_by_weight_and_spreads_them() {
    let mut balance = balance(Method::RoundRobin, &[5, 1, 1]);
    let turns: Vec<_> = (0..14).map(|_| balance.choose(0, all, idle)).collect();
    let expected = [0, 0, 1, 0, 2, 0, 0];
    assert_eq!(
        turns,
        expected.repeat(2).into_iter().map(Some).collect::<Vec<_>>()
    );
}

#[test]
fn round_robin_does_not_look_at_load() {
    let mut balance = balance(Method::RoundRobin, &[1, 1]);
    let busy = |member| if member == 0 { 100 } else { 0 };
    let turns: Vec<_> = (0..4)
        .map(|_| balance.choose(0, all, busy).unwrap())
        .collect();
    assert_eq!(turns.iter().filter(|member| **member == 0).count(), 2);
}

#[test]
fn least_connections_looks_at_load_for_weight() {
    let mut balance = balance(Method::LeastConnections, &[1, 3]);
    // One more makes 3 for a weight of 1, or 8 for one of 3.
    let open = |member: usize| [2, 7][member];
    assert_eq!(balance.choose(0, all, open), Some(1));
    let open = |member: usize| [2, 9][member];
    assert_eq!(balance.choose(0, all, open), Some(0));
}

#[test]
fn an_idle_pool_is_used_evenly() {
    let mut least = balance(Method::LeastConnections, &[1, 1, 1]);
    assert_eq!(shares(&mut least, 30), [10, 10, 10]);
}

#[test]
fn random_draws_by_weight_and_prefers_the_less_loaded() {
    let mut random = balance(Method::Random, &[1, 1, 2]);
    let shares = shares(&mut random, 40_000);
    assert!((19_000..21_000).contains(&shares[2]), "{shares:?}");
    assert!((9_000..11_000).contains(&shares[0]), "{shares:?}");
    let busy = |member| if member == 2 { 0 } else { 1_000 };
    let chosen = (0..1_000).filter(|_| random.choose(0, all, busy) == Some(2));
    // Not drawn in one of six.
    assert!(chosen.count() > 700);
}

#[test]
fn a_key_stays_with_its_member() {
    let mut a = balance(Method::Hash, &[1, 1, 1, 1]);
    let mut b = Balance::new(7);
    b.apply(Method::Hash, choices(&[1, 1, 1, 1]));
    for number in 0..200_u64 {
        let key = key(&number.to_be_bytes());
        let home = a.choose(key, all, idle).unwrap();
        assert_eq!(b.choose(key, all, |member| member as u32 * 9), Some(home));
        let without = a.choose(key, |member| member != home, idle).unwrap();
        assert_ne!(without, home);
        assert_eq!(a.choose(key, all, idle), Some(home), "it comes back");
    }
    let shares = shares(&mut a, 4_000);
    assert!(
        shares.iter().all(|share| (800..1_200).contains(share)),
        "{shares:?}"
    );
}

#[test]
fn only_usable_ones_are_chosen() {
    for method in Method::ALL {
        let mut balance = balance(method, &[3, 1, 2]);
        for round in 0..50 {
            assert_eq!(
                balance.choose(mix(round), |member| member == 1, idle),
                Some(1)
            );
            let two = balance.choose(mix(round), |member| member != 1, idle);
            assert!(matches!(two, Some(0 | 2)), "{method:?}: {two:?}");
        }
        assert_eq!(balance.choose(5, |_| false, idle), None);
        assert_eq!(Balance::new(1).choose(5, all, idle), None);
    }
}

#[test]
fn turns_go_on_when_nothing_has_changed() {
    let mut balance = balance(Method::RoundRobin, &[1, 1]);
    let first = balance.choose(0, all, idle);
    balance.apply(Method::RoundRobin, choices(&[1, 1]));
    assert_ne!(balance.choose(0, all, idle), first);
}
