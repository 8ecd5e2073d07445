//! What a peer must not do.

use super::super::Fault;
use super::super::half::Half;
use super::{Event, Records, Suite, Version, material, open, pair, take_output};

/// The connection, and a hand that seals whatever it likes for it.
fn client(version: Version) -> (Records, Half) {
    let suite = Suite::Aes128Gcm;
    let (client, _) = pair(version, suite, 0);
    let hand = Half::new(suite, material(version, suite, 2), 0).unwrap();
    (client, hand)
}

fn server(version: Version) -> (Records, Half) {
    let suite = Suite::Aes128Gcm;
    let (_, server) = pair(version, suite, 0);
    let hand = Half::new(suite, material(version, suite, 1), 0).unwrap();
    (server, hand)
}

fn fault_of(records: &mut Records, bytes: &[u8]) -> Fault {
    match open(records, bytes).0.last() {
        Some(Event::Failed(fault)) => *fault,
        other => panic!("no fault but {other:?}"),
    }
}

#[test]
fn records_that_are_not_sealed_are_refused() {
    for version in [Version::Tls12, Version::Tls13] {
        // Change of cipher, and types that do not exist.
        for kind in [0, 20, 24, 80] {
            let (mut client, _) = client(version);
            let fault = fault_of(&mut client, &[kind, 3, 3, 0, 1, 1]);
            assert_eq!(fault, Fault::UnexpectedRecord { kind });
        }
        let (mut client, _) = client(version);
        assert_eq!(
            fault_of(
                &mut client,
                &[
                    23, 3, 3, 0, 30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                    0, 0, 0, 0, 0, 0, 0, 0, 0
                ]
            ),
            Fault::BadRecord
        );
    }
    // In TLS 1.3 an alert from outside looks like data, or it is none.
    let (mut client, _) = client(Version::Tls13);
    let fault = fault_of(&mut client, &[21, 3, 3, 0, 2, 1, 0]);
    assert_eq!(fault, Fault::UnexpectedRecord { kind: 21 });
}

#[test]
fn records_shorter_than_their_seal_are_refused() {
    for version in [Version::Tls12, Version::Tls13] {
        for length in 0..24_u8 {
            let (mut client, _) = client(version);
            let mut record = vec![23, 3, 3, 0, length];
            record.resize(5 + usize::from(length), 7);
            assert_eq!(fault_of(&mut client, &record), Fault::BadRecord, "{length}");
        }
    }
}

#[test]
fn records_of_another_version_or_length_are_refused_from_their_header() {
    let (mut client, _) = client(Version::Tls13);
    let fault = fault_of(&mut client, &[23, 3, 1, 0, 40]);
    assert_eq!(fault, Fault::UnexpectedRecord { kind: 23 });
    for (version, most) in [(Version::Tls13, 16_640_u16), (Version::Tls12, 18_432)] {
        let header = |length: u16| {
            let [high, low] = length.to_be_bytes();
            [23, 3, 3, high, low]
        };
        let (mut client, _) = self::client(version);
        assert_eq!(open(&mut client, &header(most)).0, []);
        let (mut client, _) = self::client(version);
        assert_eq!(
            fault_of(&mut client, &header(most + 1)),
            Fault::RecordTooLong
        );
    }
}

#[test]
fn data_of_more_than_16_kib_in_a_record_is_refused() {
    for version in [Version::Tls12, Version::Tls13] {
        let (mut client, mut hand) = client(version);
        let mut sealed = Vec::new();
        hand.seal(23, &[0; 16_385], &mut sealed);
        assert_eq!(fault_of(&mut client, &sealed), Fault::RecordTooLong);
        assert_eq!(
            client.seal(b"more", &mut sealed),
            Err(Fault::Closed),
            "a fault is the end"
        );
        let snapshot = client.snapshot();
        let mut moved = Records::restore(&snapshot).unwrap();
        assert_eq!(fault_of(&mut moved, b"anything"), Fault::RecordTooLong);
    }
}

#[test]
fn padding_is_taken_off_and_nothing_but_padding_is_refused() {
    let (mut client, mut hand) = client(Version::Tls13);
    let mut sealed = Vec::new();
    // The hand's own type of 0 is padding behind the real one.
    hand.seal(0, b"padded\x17\0\0\0", &mut sealed);
    assert_eq!(open(&mut client, &sealed).1, b"padded");
    sealed.clear();
    hand.seal(0, &[0; 50], &mut sealed);
    let fault = fault_of(&mut client, &sealed);
    assert_eq!(fault, Fault::UnexpectedRecord { kind: 0 });
}

#[test]
fn alerts_end_it_and_warnings_do_not() {
    for version in [Version::Tls12, Version::Tls13] {
        let (mut client, mut hand) = client(version);
        let mut sealed = Vec::new();
        hand.seal(21, &[1, 90], &mut sealed);
        assert_eq!(open(&mut client, &sealed).0, [Event::Control]);
        sealed.clear();
        hand.seal(21, &[2, 40], &mut sealed);
        let fault = fault_of(&mut client, &sealed);
        assert_eq!(fault, Fault::Alert { description: 40 });
        assert!(take_output(&mut client).is_empty(), "the peer knows");
        for alert in [&[1][..], &[1, 0, 0], &[]] {
            let (mut client, mut hand) = self::client(version);
            let mut sealed = Vec::new();
            hand.seal(21, alert, &mut sealed);
            assert_eq!(fault_of(&mut client, &sealed), Fault::Malformed);
        }
    }
}

#[test]
fn key_updates_have_one_form_and_one_place() {
    for message in [
        &[24, 0, 0, 1, 2][..],
        &[24, 0, 0, 0],
        &[24, 0, 0, 2, 0, 0],
        &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0],
        &[],
    ] {
        let (mut server, mut hand) = server(Version::Tls13);
        let mut sealed = Vec::new();
        hand.seal(22, message, &mut sealed);
        assert_eq!(fault_of(&mut server, &sealed), Fault::Malformed);
    }
    // Data in the middle of a message.
    let (mut server, mut hand) = server(Version::Tls13);
    let mut sealed = Vec::new();
    hand.seal(22, &[24, 0], &mut sealed);
    hand.seal(23, b"data", &mut sealed);
    let fault = fault_of(&mut server, &sealed);
    assert_eq!(fault, Fault::UnexpectedRecord { kind: 23 });
}

#[test]
fn messages_of_the_other_role_or_version_are_refused() {
    let ticket: &[u8] = &[4, 0, 0, 2, 0, 0];
    let hello: &[u8] = &[1, 0, 0, 1, 0];
    let update: &[u8] = &[24, 0, 0, 1, 0];
    let request: &[u8] = &[13, 0, 0, 1, 0];
    for (version, is_server, message) in [
        (Version::Tls13, true, ticket),
        (Version::Tls13, true, hello),
        (Version::Tls13, false, request),
        (Version::Tls12, false, update),
        (Version::Tls12, true, update),
        (Version::Tls12, false, hello),
    ] {
        let (mut ours, mut hand) = if is_server {
            server(version)
        } else {
            client(version)
        };
        let mut sealed = Vec::new();
        hand.seal(22, message, &mut sealed);
        let kind = message[0];
        assert_eq!(
            fault_of(&mut ours, &sealed),
            Fault::UnexpectedMessage { kind },
            "{version:?} {is_server}"
        );
    }
}

#[test]
fn renegotiation_is_declined_and_the_connection_goes_on() {
    for (is_server, message) in [(true, &[1, 0, 0, 2, 3, 3][..]), (false, &[0, 0, 0, 0])] {
        let version = Version::Tls12;
        let (mut ours, mut hand) = if is_server {
            server(version)
        } else {
            client(version)
        };
        let mut sealed = Vec::new();
        hand.seal(22, message, &mut sealed);
        hand.seal(23, b"data", &mut sealed);
        let (events, plain) = open(&mut ours, &sealed);
        assert_eq!(events, [Event::Control, Event::Data]);
        assert_eq!(plain, b"data");
        let answer = take_output(&mut ours);
        let mut other = if is_server {
            client(version).0
        } else {
            server(version).0
        };
        assert_eq!(open(&mut other, &answer).0, [Event::Control], "a warning");
    }
}

#[test]
fn long_messages_and_work_for_nothing_are_bounded() {
    let (mut client, mut hand) = client(Version::Tls13);
    let mut sealed = Vec::new();
    hand.seal(22, &[4, 2, 0, 0], &mut sealed);
    let bytes = 0x2_0000;
    assert_eq!(
        fault_of(&mut client, &sealed),
        Fault::MessageTooLong { bytes }
    );

    type Record = (u8, &'static [u8]);
    let kinds: [Record; 3] = [(23, &[]), (21, &[1, 90]), (22, &[24, 0, 0, 1, 1])];
    for (kind, inside) in kinds {
        let (mut client, mut hand) = self::client(Version::Tls13);
        let mut sealed = Vec::new();
        for count in 1..=33 {
            sealed.clear();
            hand.seal(kind, inside, &mut sealed);
            if kind == 22 {
                hand.update();
            }
            let events = open(&mut client, &sealed).0;
            let expected = match count {
                33 => Event::Failed(Fault::Flood),
                _ => Event::Control,
            };
            assert_eq!(events, [expected], "{kind} {count}");
        }
    }
}
