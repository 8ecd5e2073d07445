use proptest::prelude::*;

use super::*;

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        (0..Rung::ALL.len()).prop_map(|rung| Outcome::Carried(Rung::ALL[rung])),
        Just(Outcome::Finished),
        Just(Outcome::ToldToClose),
        Just(Outcome::Reset),
    ]
}

proptest! {
    /// However a change is split into parts, the sum is the same and adds up.
    #[test]
    fn parts_add_up(events in proptest::collection::vec((outcome(), 0..10_000_u64), 0..50), cut in 0..50_usize) {
        let cut = cut.min(events.len());
        let ledger_of = |events: &[(Outcome, u64)]| {
            let mut ledger = Ledger::begin(events.len() as u64);
            for (position, (outcome, stall_us)) in events.iter().enumerate() {
                prop_assert_eq!(ledger.open(), (events.len() - position) as u64);
                ledger.record(*outcome, *stall_us);
            }
            prop_assert_eq!(ledger.check(), Ok(()));
            Ok(ledger)
        };
        let whole = ledger_of(&events)?;
        let mut sum = ledger_of(&events[..cut])?;
        sum.merge(&ledger_of(&events[cut..])?);
        prop_assert_eq!(whole, sum);
    }
}

#[test]
fn a_missing_or_double_outcome_is_found() {
    let mut ledger = Ledger::begin(1);
    assert_eq!(
        ledger.check(),
        Err(Mismatch {
            connections: 1,
            outcomes: 0
        })
    );
    ledger.record(Outcome::Finished, 0);
    ledger.record(Outcome::Reset, 0);
    let mismatch = ledger.check().unwrap_err();
    assert_eq!(mismatch.to_string(), "1 connections have 2 outcomes");
}

#[test]
fn reads_as_one_line() {
    let mut ledger = Ledger::begin(4);
    assert_eq!(
        ledger.to_string(),
        "4 connections: 0 carried, 0 finished, 0 reset, 4 open"
    );
    ledger.record(Outcome::Carried(Rung::Takeover), 1_250);
    ledger.record(Outcome::Carried(Rung::Move), 1_000);
    ledger.record(Outcome::Finished, 0);
    ledger.record(Outcome::ToldToClose, 0);
    assert_eq!(
        ledger.to_string(),
        "4 connections: 2 carried (1 by takeover, 1 by move), 1 finished, 1 told to close, 0 reset; \
         longest stall 1.2 ms"
    );
}

#[test]
fn what_came_since_is_what_makes_the_later_ledger() {
    let mut before = Ledger::begin(3);
    before.record(Outcome::Reset, 700);
    before.record(Outcome::Carried(Rung::Takeover), 0);
    let mut part = Ledger::begin(4);
    part.record(Outcome::Carried(Rung::SecondChance), 0);
    part.record(Outcome::Carried(Rung::Takeover), 0);
    part.record(Outcome::ToldToClose, 0);
    part.record(Outcome::Finished, 700);
    let mut after = before;
    after.merge(&part);
    assert_eq!(after.since(&before), part);
}
