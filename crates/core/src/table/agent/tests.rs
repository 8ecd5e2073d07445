use super::*;

fn slot(number: u16) -> GuestSlot {
    GuestSlot::new(number).unwrap()
}

fn trust(generation: u64, trusted: &[u16], suspects: &[u16]) -> Input {
    let slots = |numbers: &[u16]| numbers.iter().map(|number| slot(*number)).collect();
    Input::Message(ToAgent::Trust {
        generation: Generation(generation),
        trusted: slots(trusted),
        suspects: slots(suspects),
    })
}

fn is_renewed(agent: &mut Agent, now: Time, guest: u16) -> bool {
    agent.handle(
        now,
        Input::Request(LeaseRequest {
            guest: slot(guest),
            asked: now,
        }),
    );
    let mut renewed = None;
    while let Some(action) = agent.poll_action() {
        if let Action::Grant { grant, .. } = action {
            renewed = Some(grant.is_renewed);
        }
    }
    renewed.unwrap()
}

#[test]
fn only_the_trusted_get_leases_and_an_older_trust_is_not_taken() {
    let mut agent = Agent::new(DirectorId(1), &[], Trust::default());
    assert!(!is_renewed(&mut agent, Time(0), 1));
    agent.handle(Time(1), trust(4, &[1], &[2]));
    assert!(is_renewed(&mut agent, Time(2), 1));
    assert!(!is_renewed(&mut agent, Time(2), 2));
    agent.handle(Time(3), trust(3, &[1, 2], &[]));
    assert!(!is_renewed(&mut agent, Time(4), 2));
    assert_eq!(agent.status().trust.generation, Generation(4));
}

#[test]
fn who_is_silent_is_believed_dead_until_it_is_heard() {
    let mut agent = Agent::new(DirectorId(1), &[], Trust::default());
    agent.handle(Time(0), trust(1, &[1, 2], &[]));
    for ms in (0..2_000).step_by(20) {
        is_renewed(&mut agent, Time(ms * 1_000), 1);
        agent.handle(Time(ms * 1_000), Input::Tick);
    }
    assert_eq!(agent.status().believed_dead, [slot(2)]);
    is_renewed(&mut agent, Time(2_000_000), 2);
    assert!(agent.status().believed_dead.is_empty());
    is_renewed(&mut agent, Time(2_000_000), 1);
    agent.handle(Time(2_000_000), Input::Tick);
    let end = 2_000_000 + BELIEVE_DEAD_AFTER_US;
    agent.handle(Time(end), Input::Tick);
    assert_eq!(agent.status().believed_dead, [slot(1), slot(2)]);
}

#[test]
fn an_agent_that_was_starved_calls_nobody_silent_for_that() {
    let mut agent = Agent::new(DirectorId(1), &[], Trust::default());
    agent.handle(Time(0), trust(1, &[1, 2], &[]));
    is_renewed(&mut agent, Time(1_000), 1);
    is_renewed(&mut agent, Time(1_000), 2);
    // It is run a second late, by a tick, while requests wait to be read.
    agent.handle(Time(SILENT_EVERY_US), Input::Tick);
    let late = 1_001_000;
    agent.handle(Time(late), Input::Tick);
    assert!(agent.status().believed_dead.is_empty());
    is_renewed(&mut agent, Time(late), 1);
    for us in (0..=BELIEVE_DEAD_AFTER_US).step_by(10_000) {
        is_renewed(&mut agent, Time(late + us), 1);
        agent.handle(Time(late + us), Input::Tick);
    }
    assert_eq!(agent.status().believed_dead, [slot(2)], "one was silent");
}

#[test]
fn the_destroyed_stay_believed_dead_until_no_row_names_them() {
    let row = |slots: &[GuestSlot], sequence| Row::new(slots, Sequence(sequence)).unwrap();
    let with = row(&[slot(2), slot(1)], 1);
    let mut rows = vec![Row::NONE; BUCKETS];
    rows[7] = with;
    let mut agent = Agent::new(DirectorId(1), &rows, Trust::default());
    agent.handle(Time(0), trust(1, &[1, 2], &[]));
    is_renewed(&mut agent, Time(0), 1);
    is_renewed(&mut agent, Time(0), 2);
    let guests = vec![slot(2)];
    agent.handle(Time(1), Input::SeenDead { guests });
    agent.handle(Time(2), trust(2, &[1], &[]));
    assert_eq!(agent.status().believed_dead, [slot(2)]);
    let rows = vec![(Bucket(7), row(&[slot(1)], 2))];
    agent.handle(Time(3), Input::Message(ToAgent::Rows { rows }));
    assert_eq!(
        agent.status().believed_dead,
        [slot(2)],
        "the map has the old row until the new one is stored"
    );
    let store = std::iter::from_fn(|| agent.poll_action()).find_map(|action| match action {
        Action::Store { ticket, .. } => Some(ticket),
        _ => None,
    });
    let ticket = store.unwrap();
    agent.handle(Time(4), Input::Stored { ticket });
    assert!(agent.status().believed_dead.is_empty());
}

#[test]
fn who_was_seen_to_end_is_believed_dead_at_once_until_it_asks() {
    let mut agent = Agent::new(DirectorId(1), &[], Trust::default());
    let second = 1_000_000;
    agent.handle(Time(second), trust(1, &[1, 2], &[]));
    is_renewed(&mut agent, Time(second), 1);
    is_renewed(&mut agent, Time(second), 2);
    // Somebody that this agent does not watch is nobody that it has a belief about.
    let guests = vec![slot(2), slot(9)];
    agent.handle(Time(second + 1), Input::SeenDead { guests });
    let actions: Vec<_> = std::iter::from_fn(|| agent.poll_action()).collect();
    let dead = vec![slot(2)];
    assert!(actions.contains(&Action::Believe { dead }));
    let guests = vec![(slot(2), BELIEVE_DEAD_AFTER_US)];
    assert!(actions.contains(&Action::Send(FromAgent::Silent { guests })));
    // It was a false alarm.
    assert!(is_renewed(&mut agent, Time(second + 2), 2));
    assert!(agent.status().believed_dead.is_empty());
}

#[test]
fn whom_a_row_names_and_the_trust_does_not_is_believed_dead() {
    let row = |slots: &[GuestSlot], sequence| Row::new(slots, Sequence(sequence)).unwrap();
    let rows = |row| {
        let rows = vec![(Bucket(7), row)];
        Input::Message(ToAgent::Rows { rows })
    };
    let mut agent = Agent::new(DirectorId(1), &[], Trust::default());
    agent.handle(Time(0), rows(row(&[slot(1), slot(2)], 1)));
    assert!(
        agent.status().believed_dead.is_empty(),
        "it knows of no trust yet"
    );
    agent.handle(Time(1), trust(2, &[1], &[]));
    agent.handle(Time(2), rows(row(&[slot(1), slot(2)], 2)));
    assert_eq!(agent.status().believed_dead, [slot(2)]);
    // A trust that was overtaken by the row: it was no stranger.
    agent.handle(Time(3), trust(3, &[1, 2], &[]));
    assert!(agent.status().believed_dead.is_empty());
}
