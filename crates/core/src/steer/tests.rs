use proptest::prelude::*;

use super::*;
use crate::row::Sequence;

const RULES: &Rules = &Rules::ALL;

fn slot(number: u16) -> GuestSlot {
    GuestSlot::new(number).unwrap()
}

fn row(slots: &[u16], sequence: u16) -> Row {
    let slots: Vec<GuestSlot> = slots.iter().map(|number| slot(*number)).collect();
    Row::new(&slots, Sequence(sequence)).unwrap()
}

fn stamped(segment: Segment, word: Row, no_answer: bool) -> Packet {
    Packet {
        segment,
        stamp: Some(Stamp {
            word,
            no_answer,
            as_new: false,
            stamper: 1,
        }),
    }
}

fn hop(me: u16, row: Row, held: Held) -> Hop<'static> {
    Hop {
        me: slot(me),
        row,
        believed_dead: &[],
        has_lease: true,
        held,
    }
}

fn forwarded(verdict: Verdict) -> (u16, Row, bool, Forward) {
    match verdict {
        Verdict::Forward { to, stamp, why } => (to.number(), stamp.word, stamp.no_answer, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_director_puts_last_whom_it_believes_dead() {
    let all = row(&[1, 2, 3], 5);
    assert_eq!(
        forwarded(director(RULES, 7, all, &[slot(1)])),
        (2, row(&[2, 3, 1], 5), false, Forward::Directed)
    );
    let dead = [slot(1), slot(2), slot(3)];
    assert_eq!(
        forwarded(director(RULES, 7, all, &dead)).0,
        1,
        "all dead: the row as it is"
    );
    assert_eq!(
        director(RULES, 7, Row::NONE, &[]),
        Verdict::Drop(DropReason::NoRow)
    );
}

#[test]
fn what_the_kernel_knows_is_delivered_whatever_the_rows_say() {
    let packet = stamped(Segment::Ack, row(&[9], 8), true);
    for held in [
        Held::Established,
        Held::TimeWait { is_ours: true },
        Held::Cookie,
        Held::HalfOpen { is_ours: true },
    ] {
        assert_eq!(
            ingress(RULES, &hop(1, Row::NONE, held), &packet),
            Verdict::Deliver,
            "{held:?}"
        );
    }
}

/// The client used its port again, and its new connection is another guest's.
#[test]
fn what_was_ends_no_way_to_what_is() {
    let own = row(&[1, 2], 5);
    let was = Held::TimeWait { is_ours: false };
    for segment in [Segment::Ack, Segment::Bare] {
        let packet = stamped(segment, own, false);
        let verdict = ingress(RULES, &hop(1, own, was), &packet);
        assert_eq!(forwarded(verdict), (2, own, false, Forward::Along));
        let verdict = ingress(RULES, &hop(2, own, Held::Established), &packet);
        assert_eq!(verdict, Verdict::Deliver);
    }
    let mutant = Rules {
        check_initial_sequence: false,
        ..*RULES
    };
    let packet = stamped(Segment::Ack, own, false);
    let verdict = ingress(&mutant, &hop(1, own, was), &packet);
    assert_eq!(verdict, Verdict::Deliver, "swallowed");
}

#[test]
fn a_syn_is_accepted_by_the_first_that_listens_and_is_listed() {
    let own = row(&[1, 2], 5);
    let syn = |word| stamped(Segment::Syn, word, false);
    let verdict = ingress(RULES, &hop(1, own, Held::Listener), &syn(own));
    assert_eq!(verdict, Verdict::Accept);
    let verdict = ingress(RULES, &hop(1, own, Held::Nothing), &syn(own));
    assert_eq!(forwarded(verdict), (2, own, false, Forward::Along));
    // A joiner whose row does not name it yet passes it on, and nobody may answer any more.
    let new = row(&[3, 1, 2], 6);
    let verdict = ingress(RULES, &hop(3, own, Held::Listener), &syn(new));
    assert_eq!(forwarded(verdict), (1, new, true, Forward::Along));
}

#[test]
fn an_older_syn_goes_to_the_head_and_may_come_back() {
    let syn = stamped(Segment::Syn, row(&[1, 3], 5), false);
    let own = row(&[2, 1, 3], 6);
    let verdict = ingress(RULES, &hop(1, own, Held::Listener), &syn);
    assert_eq!(forwarded(verdict), (2, own, false, Forward::Restamped));
    let believes = Hop {
        believed_dead: &[slot(2)],
        ..hop(1, own, Held::Listener)
    };
    assert_eq!(
        ingress(RULES, &believes, &syn),
        Verdict::Accept,
        "it believes itself the head"
    );
    let head = hop(2, own, Held::Listener);
    assert_eq!(ingress(RULES, &head, &syn), Verdict::Accept);
}

#[test]
fn older_data_goes_along_the_new_row_without_the_hop() {
    let data = stamped(Segment::Ack, row(&[1, 3], 5), true);
    let verdict = ingress(RULES, &hop(1, row(&[2, 1, 3], 6), Held::Listener), &data);
    assert_eq!(
        forwarded(verdict),
        (2, row(&[2, 3], 6), false, Forward::Restamped)
    );
}

#[test]
fn the_last_hop_answers_only_if_it_may() {
    let own = row(&[1, 2], 5);
    let last = hop(2, own, Held::Listener);
    let data = |word, no_answer| stamped(Segment::Ack, word, no_answer);
    let drop = |reason| Verdict::Drop(reason);
    assert_eq!(ingress(RULES, &last, &data(own, false)), Verdict::Answer);
    assert_eq!(
        ingress(RULES, &last, &data(own, true)),
        drop(DropReason::NoAnswer)
    );
    let newer = row(&[1, 2], 6);
    assert_eq!(
        ingress(RULES, &last, &data(newer, false)),
        drop(DropReason::OlderRow)
    );
    let no_lease = Hop {
        has_lease: false,
        ..last
    };
    assert_eq!(
        ingress(RULES, &no_lease, &data(own, false)),
        drop(DropReason::NoLease)
    );
    let duplicate = hop(2, own, Held::HalfOpen { is_ours: false });
    assert_eq!(
        ingress(RULES, &duplicate, &data(own, false)),
        drop(DropReason::WrongNumber)
    );
    let foreign = data(row(&[1, 3], 5), false);
    assert_eq!(ingress(RULES, &last, &foreign), drop(DropReason::NotNamed));
}

#[test]
fn a_plain_packet_is_stamped_by_the_ingress() {
    let plain = Packet {
        segment: Segment::Syn,
        stamp: None,
    };
    let own = row(&[2, 1], 5);
    let verdict = ingress(RULES, &hop(1, own, Held::Listener), &plain);
    assert_eq!(forwarded(verdict), (2, own, false, Forward::Restamped));
    assert_eq!(
        ingress(RULES, &hop(2, own, Held::Listener), &plain),
        Verdict::Accept
    );
    let none = hop(1, Row::NONE, Held::Listener);
    assert_eq!(
        ingress(RULES, &none, &plain),
        Verdict::Drop(DropReason::NoRow)
    );
}

fn any_row() -> impl Strategy<Value = Row> {
    let slots = proptest::sample::subsequence(vec![1_u16, 2, 3, 4, 5], 0..=4).prop_shuffle();
    (slots, 0_u16..4).prop_map(|(slots, offset)| row(&slots, 65_534_u16.wrapping_add(offset)))
}

fn any_held() -> impl Strategy<Value = Held> {
    prop_oneof![
        Just(Held::Nothing),
        Just(Held::Listener),
        any::<bool>().prop_map(|is_ours| Held::HalfOpen { is_ours }),
        Just(Held::Established),
        any::<bool>().prop_map(|is_ours| Held::TimeWait { is_ours }),
        Just(Held::Cookie),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn forwarding_never_loops(
        own in any_row(),
        word in any_row(),
        me in 1_u16..=5,
        dead in proptest::sample::subsequence(vec![1_u16, 2, 3, 4, 5], 0..=5),
        held in any_held(),
        kind in 0..3,
        no_answer in any::<bool>(),
        has_lease in any::<bool>(),
    ) {
        let segment = [Segment::Syn, Segment::Ack, Segment::Bare][kind as usize];
        let believed_dead: Vec<GuestSlot> = dead.into_iter().map(slot).collect();
        let hop = Hop { me: slot(me), row: own, believed_dead: &believed_dead, has_lease, held };
        let verdict = ingress(RULES, &hop, &stamped(segment, word, no_answer));
        if let Verdict::Forward { to, stamp, why } = verdict {
            prop_assert_ne!(to, hop.me);
            let place = stamp.word.position(to);
            prop_assert!(place.is_some());
            match why {
                Forward::Along => {
                    prop_assert_eq!(stamp.word, word);
                    prop_assert!(place > word.position(hop.me));
                    prop_assert!(stamp.no_answer || !no_answer, "the bit is never cleared on the way");
                }
                Forward::Restamped => {
                    prop_assert!(stamp.word.sequence().is_newer_than(word.sequence()));
                    prop_assert_eq!(stamp.word.sequence(), own.sequence());
                    prop_assert!(stamp.word.slots().all(|slot| own.contains(slot)));
                    prop_assert!(!stamp.no_answer);
                }
                Forward::Directed => prop_assert!(false, "only directors direct"),
            }
        }
        if matches!(verdict, Verdict::Answer | Verdict::Refuse) {
            prop_assert!(has_lease && segment != Segment::Bare);
            prop_assert_eq!(verdict == Verdict::Refuse, segment == Segment::Syn);
        }
    }
}
