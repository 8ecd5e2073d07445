use super::*;

fn slot(number: u16) -> GuestSlot {
    GuestSlot::new(number).unwrap()
}

fn row(slots: &[u16], sequence: u16) -> Row {
    Row::from_slots(slots.iter().map(|number| slot(*number)), Sequence(sequence)).unwrap()
}

fn actions(guest: &mut Guest) -> Vec<Action> {
    core::iter::from_fn(|| guest.poll_action()).collect()
}

fn sent(actions: Vec<Action>) -> Vec<FromGuest> {
    let message = |action| {
        if let Action::Send(message) = action {
            Some(message)
        } else {
            None
        }
    };
    actions.into_iter().filter_map(message).collect()
}

#[test]
fn a_leaver_acknowledges_only_by_a_count_that_began_after_its_row_was_stored() {
    let bucket = Bucket(9);
    let mut guest = Guest::new(slot(1), &[]);
    guest.handle(Time(0), Input::Tick);
    let Some(Action::Count { ticket: early }) = actions(&mut guest).pop() else {
        panic!("it counts at once");
    };
    let leaving = vec![(bucket, row(&[2], 4))];
    guest.handle(
        Time(1),
        Input::Message(ToGuest::Rows {
            rows: Vec::new(),
            leaving,
        }),
    );
    let store = actions(&mut guest).pop();
    let Some(Action::Store { ticket, .. }) = store else {
        panic!("{store:?}")
    };
    guest.handle(Time(2), Input::Stored { ticket });
    // The count under way began before: it says nothing, though it found nothing.
    let counted = Input::Counted {
        ticket: early,
        live: Vec::new(),
        connections: 0,
    };
    guest.handle(Time(3), counted);
    let mut after = actions(&mut guest);
    let Some(Action::Count { ticket }) = after.pop() else {
        panic!("{after:?}")
    };
    assert!(
        !sent(after)
            .iter()
            .any(|message| matches!(message, FromGuest::Applied { .. }))
    );
    let counted = Input::Counted {
        ticket,
        live: vec![(bucket, 2)],
        connections: 2,
    };
    guest.handle(Time(4), counted);
    let holds = FromGuest::Holds {
        rows: vec![(bucket, Sequence(4), 2)],
    };
    assert!(sent(actions(&mut guest)).contains(&holds));
}

#[test]
fn a_late_grant_gives_no_longer_lease_and_an_old_row_is_not_taken() {
    let mut guest = Guest::new(slot(1), &[]);
    let grant = |asked, is_renewed| {
        let believed_dead = vec![slot(3)];
        Input::Grant(LeaseGrant {
            asked,
            director: DirectorId(1),
            is_renewed,
            believed_dead,
        })
    };
    guest.handle(Time(500_000), grant(Time(450_000), true));
    assert_eq!(guest.status().lease_until, Time(550_000));
    assert_eq!(guest.status().believed_dead, [slot(3)]);
    guest.handle(Time(500_001), grant(Time(480_000), false));
    assert_eq!(guest.status().lease_until, Time(550_000));
    for (slots, sequence) in [([2, 1], 8), ([1, 2], 7)] {
        let rows = vec![(Bucket(0), row(&slots, sequence))];
        let leaving = Vec::new();
        guest.handle(
            Time(500_002),
            Input::Message(ToGuest::Rows { rows, leaving }),
        );
    }
    assert_eq!(guest.row(Bucket(0)), row(&[2, 1], 8));
}

#[test]
fn a_count_that_failed_is_not_the_last() {
    let mut guest = Guest::new(slot(1), &[]);
    guest.handle(Time(0), Input::Tick);
    let Some(Action::Count { ticket }) = actions(&mut guest).pop() else {
        panic!("it counts at once");
    };
    let leaving = vec![(Bucket(9), row(&[2], 4))];
    let rows = Vec::new();
    guest.handle(Time(1), Input::Message(ToGuest::Rows { rows, leaving }));
    let Some(Action::Store { ticket: store, .. }) = actions(&mut guest).pop() else {
        panic!("the row is stored");
    };
    guest.handle(Time(2), Input::Stored { ticket: store });
    guest.handle(Time(3), Input::CountFailed { ticket });
    assert_eq!(actions(&mut guest), [], "not at once: it would fail again");
    guest.handle(Time(3 + COUNT_AGAIN_US), Input::Tick);
    let again = actions(&mut guest);
    let counts = |action: &Action| matches!(action, Action::Count { .. });
    assert!(again.iter().any(counts), "{again:?}");
}
