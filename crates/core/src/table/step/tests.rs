use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Guests by number: standing and live connections.
struct Guests(BTreeMap<u16, (Standing, u32)>);

impl View for Guests {
    fn standing(&self, slot: GuestSlot) -> Standing {
        self.0
            .get(&slot.number())
            .map_or(Standing::Gone, |(standing, _)| *standing)
    }

    fn live(&self, slot: GuestSlot) -> Live {
        match self.0.get(&slot.number()) {
            None => Live::Unknown,
            Some((_, 0)) => Live::Zero,
            Some((_, held)) => Live::Some(*held),
        }
    }

    fn has_refused(&self, slot: GuestSlot) -> bool {
        matches!(self.live(slot), Live::Some(_))
    }

    fn holder(&self) -> Option<GuestSlot> {
        None
    }
}

fn slot(number: u16) -> GuestSlot {
    GuestSlot::new(number).unwrap()
}

fn row(slots: &[u16]) -> Row {
    Row::from_slots(slots.iter().map(|number| slot(*number)), Sequence(1)).unwrap()
}

fn serving(live: &[u32]) -> Guests {
    Guests(
        (1..)
            .zip(live.iter().map(|live| (Standing::Serving, *live)))
            .collect(),
    )
}

fn entry(slots: &[u16], owner: u16, standby: Option<u16>) -> Entry {
    let wish = Wish {
        owner: Some(slot(owner)),
        standby: standby.map(slot),
    };
    Entry {
        row: row(slots),
        before: row(slots),
        wish,
        why: Why::First,
    }
}

/// The rows of a course, each taken by all, until it waits or is settled.
fn course(mut entry: Entry, view: &Guests) -> (Vec<(Vec<u16>, Why)>, Next) {
    let mut rows = Vec::new();
    loop {
        match next_row(&Rules::ALL, &entry, Stage::Done, view) {
            Next::Row { row, why } => {
                rows.push((row.slots().map(GuestSlot::number).collect(), why));
                entry = advanced(&entry, row, why);
            }
            end => return (rows, end),
        }
        assert!(rows.len() < 12, "{rows:?}");
    }
}

#[test]
fn a_move_warms_shifts_and_settles() {
    let (rows, end) = course(entry(&[1, 3], 2, Some(3)), &serving(&[0, 0, 0]));
    let expected = [
        (vec![1, 2, 3], Why::Warm),
        (vec![2, 1, 3], Why::Shift),
        (vec![2, 3], Why::Settle),
    ];
    assert_eq!(rows, expected);
    assert_eq!(end, Next::Settled);
}

#[test]
fn who_holds_connections_stays() {
    let (rows, end) = course(entry(&[1, 3], 2, Some(3)), &serving(&[4, 0, 0]));
    assert_eq!(rows.last().unwrap().0, [2, 1, 3]);
    assert_eq!(end, Next::Wait(Wait::Connections(slot(1))));
}

#[test]
fn a_suspect_goes_to_the_tail_and_leaves_when_destroyed() {
    let mut guests = serving(&[3, 0, 0]);
    guests.0.get_mut(&1).unwrap().0 = Standing::Fenced;
    let (rows, end) = course(entry(&[1, 3], 1, Some(3)), &guests);
    assert_eq!(rows, [(vec![3, 1], Why::SuspectToTail)]);
    assert_eq!(end, Next::Wait(Wait::Owner(slot(1))));
    guests.0.get_mut(&1).unwrap().0 = Standing::Gone;
    let (rows, end) = course(entry(&[3, 1], 3, Some(2)), &guests);
    assert_eq!(
        rows,
        [(vec![3], Why::Destroyed), (vec![3, 2], Why::Standby)]
    );
    assert_eq!(end, Next::Settled);
}

#[test]
fn a_leaver_that_holds_something_or_is_suspect_gets_its_row_back() {
    let mut entry = entry(&[1, 3], 1, None);
    entry.row = Row::from_slots([slot(1)], Sequence(2)).unwrap();
    let mut guests = serving(&[0, 0, 0]);
    let next = |guests: &Guests| next_row(&Rules::ALL, &entry, Stage::Leaver, guests);
    assert_eq!(next(&guests), Next::Wait(Wait::Stage(Stage::Leaver)));
    let again = Next::Row {
        row: row(&[1, 3]).with_sequence(Sequence(3)),
        why: Why::Withdrawn,
    };
    guests.0.get_mut(&3).unwrap().1 = 1;
    assert_eq!(next(&guests), again);
    guests.0.insert(3, (Standing::Fenced, 0));
    assert_eq!(next(&guests), again);
}

#[test]
fn a_fifth_guest_waits() {
    let (rows, end) = course(entry(&[1, 2, 3, 4], 5, None), &serving(&[1, 1, 1, 1, 0]));
    assert_eq!(rows, []);
    assert_eq!(end, Next::Wait(Wait::RowFull));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_course_ends_and_no_living_guest_leaves_unasked(
        slots in proptest::sample::subsequence(vec![1_u16, 2, 3, 4, 5], 0..=4).prop_shuffle(),
        owner in 1_u16..=5,
        standby in proptest::option::of(1_u16..=5),
        standings in proptest::collection::vec(0..4, 5),
        live in proptest::collection::vec(0_u32..2, 5),
    ) {
        let standings = standings.into_iter().map(|number: i32| match number {
            0 => Standing::Gone,
            1 => Standing::Fenced,
            _ => Standing::Serving,
        });
        let guests = Guests((1..).zip(standings.zip(live)).collect());
        let mut entry = entry(&slots, owner, standby.filter(|standby| *standby != owner));
        for _ in 0..12 {
            let next = next_row(&Rules::ALL, &entry, Stage::Done, &guests);
            let Next::Row { row, why } = next else { return Ok(()) };
            let left: Vec<GuestSlot> =
                entry.row.slots().filter(|slot| !row.contains(*slot)).collect();
            let living = left.iter().filter(|slot| guests.standing(**slot) != Standing::Gone);
            prop_assert!(living.clone().count() <= 1);
            for slot in living {
                prop_assert_eq!(guests.standing(*slot), Standing::Serving);
                prop_assert_eq!(guests.live(*slot), Live::Zero);
            }
            let joined = row.slots().filter(|slot| !entry.row.contains(*slot)).count();
            prop_assert!(joined <= 1);
            entry = advanced(&entry, row, why);
        }
        prop_assert!(false, "does not end: {:?}", entry);
    }
}
