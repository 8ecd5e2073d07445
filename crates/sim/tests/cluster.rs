//! Whole clusters in virtual time: the batched machines against the checker's single steps, and the
//! waits that need time to pass.

use std::collections::BTreeSet;

use hitless_core::row::GuestSlot;
use hitless_core::rules::Rules;
use hitless_core::table::controller::{STRAY_FOR_US, SUSPECT_REPLAN_AFTER_US, Wanted};
use hitless_core::table::guest::COUNT_EVERY_US;
use hitless_core::table::message::{DirectorId, Party};
use hitless_core::table::step::{Standing, Wait};
use hitless_sim::cluster::{World, run_seed};

fn unchecked(_: &mut World) -> Result<(), String> {
    Ok(())
}

/// Three guests on three nodes, at rest.
fn at_rest() -> World {
    let mut world = World::new(1);
    for (name, node) in [("a", "n1"), ("b", "n2"), ("c", "n3")] {
        world.add_guest(name, node);
    }
    let settled = world.settle(10_000_000, &mut unchecked);
    settled.expect("three guests find their places");
    world
}

fn wishes_of(world: &World, slot: GuestSlot) -> usize {
    world
        .entries()
        .filter(|entry| entry.wish.owner == Some(slot))
        .count()
}

/// Everything that the machines do in batches of 65,536 buckets, under faults, is a few of the
/// model's steps for each bucket; no packet of a live connection is answered, and all settles.
#[test]
fn batched_machines_do_what_single_steps_of_the_model_do() {
    let mut kinds = BTreeSet::new();
    for seed in 1..=4 {
        let ended = run_seed(Rules::ALL, seed, 6_000_000);
        if let Err(error) = ended.result {
            panic!("seed {seed}: {error}");
        }
        assert!(ended.tally.packets > 200, "{:?}", ended.tally);
        assert!(
            ended.lockstep.taken.values().sum::<u64>() > 300,
            "{ended:?}"
        );
        kinds.extend(ended.lockstep.taken.into_keys());
    }
    for kind in ["controller writes", "takes row", "counts zero", "is fenced"] {
        assert!(kinds.contains(kind), "no step {kind:?}: {kinds:?}");
    }
}

/// A model with a rule left out is another model: the machines are caught in what it cannot do.
#[test]
fn lock_step_notices_machines_of_another_model() {
    let mutants: [fn(&mut Rules); 3] = [
        |rules| rules.leaver_first = false,
        |rules| rules.suspect_to_tail = false,
        |rules| rules.lease_wait = false,
    ];
    let mut noticed = 0;
    for clear in mutants {
        let mut rules = Rules::ALL;
        clear(&mut rules);
        let ended = run_seed(rules, 1, 6_000_000);
        noticed += usize::from(
            ended
                .result
                .is_err_and(|error| error.contains("no step of the model")),
        );
    }
    assert!(noticed >= 2, "{noticed} of 3");
}

/// A director that is no longer listed but stamps on blocks what it could undo: that a guest leaves.
#[test]
fn a_stray_director_holds_settling_up_until_it_is_silent() {
    let mut world = at_rest();
    let a = world.slot("a").unwrap();
    world.list_directors(&[1]);
    world.settle(10_000_000, &mut unchecked).unwrap();
    world.stamp(a, 2);
    // A guest reports stamps with its next count.
    world.run(COUNT_EVERY_US + 100_000, &mut unchecked).unwrap();
    world.stamp(a, 2);
    world.want("a", Wanted::Drain);
    let named = |world: &World| {
        world
            .entries()
            .filter(|entry| entry.row.contains(a))
            .count()
    };
    let before = named(&world);
    for _ in 0..6 {
        world.run(500_000, &mut unchecked).unwrap();
        world.stamp(a, 2);
    }
    let status = world.status().unwrap();
    let stray = DirectorId(2);
    let wait = status
        .waits
        .iter()
        .find(|wait| wait.wait == Wait::Stray(stray));
    let wait = wait.unwrap_or_else(|| panic!("{:?}", status.waits));
    assert_eq!(wait.code, "director-stray");
    assert_eq!(wait.object, Some(Party::Director(stray)));
    assert_eq!(named(&world), before, "nobody leaves a row meanwhile");
    assert_eq!(status.guests[&a].leads, 0, "the other steps are taken");
    // Two seconds after its last stamp the drain goes on by itself.
    world.run(STRAY_FOR_US, &mut unchecked).unwrap();
    world.settle(10_000_000, &mut unchecked).unwrap();
    assert_eq!(named(&world), 0);
}

/// A short false alarm moves nothing but places in rows; a long one gives the buckets to others.
#[test]
fn a_suspect_keeps_its_wishes_for_ten_seconds() {
    let mut world = at_rest();
    let a = world.slot("a").unwrap();
    let before = wishes_of(&world, a);
    assert!(before > 20_000, "{before}");
    world.suspect(a, true);
    world
        .run(SUSPECT_REPLAN_AFTER_US - 500_000, &mut unchecked)
        .unwrap();
    let status = world.status().unwrap();
    assert_eq!(status.guests[&a].standing, Standing::Fenced);
    assert_eq!(status.guests[&a].leads, 0, "it is asked last meanwhile");
    assert_eq!(wishes_of(&world, a), before);
    world.run(1_000_000, &mut unchecked).unwrap();
    assert_eq!(wishes_of(&world, a), 0);
    world.suspect(a, false);
    world.settle(60_000_000, &mut unchecked).unwrap();
    assert_eq!(wishes_of(&world, a).div_ceil(100), before.div_ceil(100));
}
