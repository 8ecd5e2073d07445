use super::*;

const RULES: Rules = Rules {
    interval_us: 1_000,
    timeout_us: 400,
    rise: 2,
    fall: 3,
};
/// The jitter that moves nothing.
const MIDDLE: u64 = 50;

fn run(prober: &mut Prober, now: &mut u64, good: bool) {
    *now = prober.deadline();
    prober.tick(*now, MIDDLE);
    let Some(Action::Start(id)) = prober.poll_action() else {
        panic!("no probe started");
    };
    *now += 10;
    let outcome = if good {
        Outcome::Good { latency_us: 10 }
    } else {
        Outcome::Bad(Failure::Refused)
    };
    prober.ended(*now, id, outcome, MIDDLE);
}

#[test]
fn the_first_good_result_settles_and_bad_ones_are_counted() {
    let mut prober = Prober::new(RULES, 0, 0);
    assert_eq!(prober.health(), Health::Unknown);
    run(&mut prober, &mut 0, true);
    assert_eq!(prober.health(), Health::Up);

    let mut prober = Prober::new(RULES, 0, 0);
    let mut now = 0;
    let mut after = || {
        run(&mut prober, &mut now, false);
        prober.health()
    };
    assert_eq!(
        [after(), after(), after()],
        [Health::Unknown, Health::Unknown, Health::Down]
    );
    assert!(
        now < RULES.interval_us,
        "what is not known yet is found out fast, by {now} us"
    );
}

/// The race of a start: the member refuses at first, and is called down.
#[test]
fn until_the_first_good_result_probes_are_fast_and_one_is_enough() {
    let mut prober = Prober::new(RULES, 0, 0);
    let mut now = 0;
    for _ in 0..20 {
        run(&mut prober, &mut now, false);
    }
    assert_eq!(prober.health(), Health::Down);
    assert!(now < 3 * RULES.interval_us, "20 fast probes take {now} us");
    run(&mut prober, &mut now, true);
    assert_eq!(prober.health(), Health::Up);

    // From then on the rules say how fast and how many.
    let start = now;
    for _ in 0..3 {
        run(&mut prober, &mut now, false);
    }
    assert_eq!(prober.health(), Health::Down);
    assert!(now - start > 2 * RULES.interval_us);
    run(&mut prober, &mut now, true);
    assert_eq!(prober.health(), Health::Down);
    run(&mut prober, &mut now, true);
    assert_eq!(prober.health(), Health::Up);
}

#[test]
fn a_member_that_never_was_good_is_probed_slowly_after_a_minute() {
    const SECOND: u64 = 1_000_000;
    let rules = Rules {
        interval_us: 5 * SECOND,
        ..RULES
    };
    let mut prober = Prober::new(rules, 0, 0);
    let (mut now, mut probes) = (0, 0);
    while now < 60 * SECOND {
        run(&mut prober, &mut now, false);
        probes += 1;
    }
    assert!((110..=130).contains(&probes), "{probes} in a minute");
    assert!(prober.deadline() - now > 4 * SECOND);
    // One good result is enough all the same.
    run(&mut prober, &mut now, false);
    run(&mut prober, &mut now, true);
    assert_eq!(prober.health(), Health::Up);
}

#[test]
fn a_member_known_to_be_down_comes_back_by_the_rules() {
    let reason = HealthReason::NotProbedYet;
    let mut prober = Prober::with_health(RULES, Health::Down, reason, 0, 0, 0);
    let mut now = 0;
    run(&mut prober, &mut now, true);
    assert_eq!(prober.health(), Health::Down);
    assert!(prober.deadline() > RULES.interval_us / 2);
    run(&mut prober, &mut now, true);
    assert_eq!(prober.health(), Health::Up);
}

#[test]
fn rise_and_fall_count_results_in_a_row() {
    let mut prober = Prober::new(RULES, 0, 0);
    let mut now = 0;
    let mut after = |good| {
        run(&mut prober, &mut now, good);
        prober.health()
    };
    assert_eq!(after(true), Health::Up);
    assert_eq!([after(false), after(false), after(true)], [Health::Up; 3]);
    assert_eq!(
        [after(false), after(false), after(false)],
        [Health::Up, Health::Up, Health::Down]
    );
    assert_eq!([after(true), after(false), after(true)], [Health::Down; 3]);
    assert_eq!(after(true), Health::Up);
}

#[test]
fn a_member_that_never_answers_has_one_probe_at_a_time() {
    let rules = Rules {
        timeout_us: 1_000,
        ..RULES
    };
    let mut prober = Prober::new(rules, 0, 0);
    let (mut open, mut open_max, mut started) = (0, 0, 0);
    let mut now = 0;
    while started < 100 {
        now = prober.deadline().max(now);
        prober.tick(now, now * 7_919);
        while let Some(action) = prober.poll_action() {
            match action {
                Action::Start(_) => (open, started) = (open + 1, started + 1),
                Action::GiveUp(_) => open -= 1,
            }
        }
        open_max = open_max.max(open);
    }
    assert_eq!(open_max, 1);
    assert_eq!(prober.health(), Health::Down);
    assert_eq!(
        *prober.reason(),
        HealthReason::Failed {
            failure: Failure::TimedOut
        }
    );
}

#[test]
fn a_result_after_the_timeout_is_ignored() {
    let mut prober = Prober::new(RULES, 0, 0);
    prober.tick(0, MIDDLE);
    let Some(Action::Start(id)) = prober.poll_action() else {
        panic!("no probe started")
    };
    prober.tick(400, MIDDLE);
    assert_eq!(prober.poll_action(), Some(Action::GiveUp(id)));
    prober.ended(410, id, Outcome::Good { latency_us: 410 }, MIDDLE);
    assert_eq!(prober.health(), Health::Unknown);
}

#[test]
fn what_this_machine_cannot_do_says_nothing_of_the_member() {
    let mut prober = Prober::new(RULES, 0, 0);
    let mut now = 0;
    run(&mut prober, &mut now, true);
    for _ in 0..10 {
        now = prober.deadline();
        prober.tick(now, MIDDLE);
        let Some(Action::Start(id)) = prober.poll_action() else {
            panic!("no probe started")
        };
        let failure = Failure::Local {
            error: "too many open files".into(),
        };
        prober.ended(now, id, Outcome::Bad(failure), MIDDLE);
    }
    assert_eq!(prober.health(), Health::Up);
    assert_eq!(
        prober.reason().to_string(),
        "could not probe: too many open files"
    );
}

#[test]
fn jitter_spreads_probes_within_a_tenth_and_never_drifts_off() {
    for jitter in [0, 99, u64::MAX, 12_345] {
        let mut prober = Prober::new(RULES, 0, jitter);
        assert!(prober.deadline() < 100);
        let start = prober.deadline();
        prober.tick(start, jitter);
        prober.ended(
            start + 10,
            ProbeId(1),
            Outcome::Good { latency_us: 10 },
            jitter,
        );
        let gap = prober.deadline() - start;
        assert!((950..1_050).contains(&gap), "gap {gap}");
    }
}

#[test]
fn changed_rules_keep_the_health() {
    let mut prober = Prober::new(RULES, 0, 0);
    let mut now = 0;
    for _ in 0..3 {
        run(&mut prober, &mut now, false);
    }
    prober.set_rules(
        Rules {
            interval_us: 10,
            ..RULES
        },
        now,
    );
    assert_eq!(prober.health(), Health::Down);
    assert!(prober.deadline() <= now + 10);
}
