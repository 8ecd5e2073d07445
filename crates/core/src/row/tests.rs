use proptest::prelude::*;

use super::*;

fn slot(number: u16) -> GuestSlot {
    GuestSlot::new(number).unwrap()
}

#[test]
fn word_has_the_documented_layout() {
    let row = Row::new(&[slot(1), slot(0xabc), slot(4095)], Sequence(0x1234)).unwrap();
    assert_eq!(row.word(), 0x1234_000f_ffab_c001);
    assert_eq!(Row::from_word(row.word()), Some(row));
    assert_eq!(format!("{row:?}"), "[g1, g2748, g4095]#4660");
}

#[test]
fn words_that_are_no_rows_are_refused() {
    assert_eq!(
        Row::from_word(0x0000_0000_0000_1000),
        None,
        "a slot behind an empty one"
    );
    assert_eq!(Row::from_word(0x0000_0000_0000_1001), None, "a slot twice");
    assert_eq!(Row::new(&[slot(7), slot(7)], Sequence(0)), None);
}

#[test]
fn sequences_wrap() {
    assert!(Sequence(0).is_newer_than(Sequence(65_535)));
    assert!(!Sequence(65_535).is_newer_than(Sequence(0)));
    assert!(!Sequence(5).is_newer_than(Sequence(5)));
}

proptest! {
    #[test]
    fn any_word_is_refused_or_round_trips(word: u64) {
        if let Some(row) = Row::from_word(word) {
            let slots: Vec<_> = row.slots().collect();
            prop_assert_eq!(Row::new(&slots, row.sequence()), Some(row));
        }
    }

    #[test]
    fn of_two_sequences_at_most_one_is_newer(a: u16, b: u16) {
        prop_assert!(!(Sequence(a).is_newer_than(Sequence(b)) && Sequence(b).is_newer_than(Sequence(a))));
    }
}
