//! rustls is the other end: every suite, both roles, key updates, tickets, and an end.

use super::peer::{CIPHERS, handshake, input, output, send};
use super::{Event, Records, Role, Version, open, take_output};

/// Every so many bytes a snapshot takes the place of the connection.
const MOVE_EVERY: usize = 1_777;

/// Opens `bytes` in pieces, moving between them.
fn open_in_pieces(ours: &mut Records, bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    for piece in bytes.chunks(MOVE_EVERY) {
        let (events, data) = open(ours, piece);
        let is_fine = |event: &Event| matches!(event, Event::Data | Event::Control);
        assert!(events.iter().all(is_fine), "{events:?}");
        plain.extend(data);
        *ours = Records::restore(&ours.snapshot()).unwrap();
    }
    plain
}

#[test]
fn all_suites_talk_both_ways_and_move_in_between() {
    for role in [Role::Server, Role::Client] {
        for cipher in CIPHERS {
            let (mut ours, mut peer) = handshake(role, cipher);
            let early = open(&mut ours, &[]).0;
            assert!(early.iter().all(|event| *event == Event::Control));
            for round in 1..6_usize {
                let data: Vec<u8> = (0..round * 9_001).map(|at| (at * round) as u8).collect();
                let sealed = send(&mut peer, &data);
                assert_eq!(open_in_pieces(&mut ours, &sealed), data, "{cipher:?}");
                let mut sealed = Vec::new();
                ours.seal(&data, &mut sealed).unwrap();
                ours = Records::restore(&ours.snapshot()).unwrap();
                assert_eq!(input(&mut peer, &sealed).unwrap(), data, "{cipher:?}");
            }
        }
    }
}

#[test]
fn keys_change_on_both_sides() {
    for role in [Role::Server, Role::Client] {
        for cipher in &CIPHERS[..3] {
            let (mut ours, mut peer) = handshake(role, *cipher);
            assert_eq!(ours.version(), Version::Tls13);
            for round in 0..40_u8 {
                // rustls asks for one in return.
                peer.refresh_traffic_keys().unwrap();
                let mut sealed = output(&mut peer);
                sealed.extend(send(&mut peer, &[round; 100]));
                assert_eq!(open_in_pieces(&mut ours, &sealed), [round; 100]);
                let mut answer = take_output(&mut ours);
                assert!(!answer.is_empty(), "it asked for an update in return");
                ours.update_keys(&mut answer).unwrap();
                ours.seal(&[round; 200], &mut answer).unwrap();
                assert_eq!(input(&mut peer, &answer).unwrap(), [round; 200]);
            }
        }
    }
}

#[test]
fn an_end_is_understood_both_ways() {
    for role in [Role::Server, Role::Client] {
        for cipher in CIPHERS {
            let (mut ours, mut peer) = handshake(role, cipher);
            open(&mut ours, &[]);
            peer.send_close_notify();
            let sealed = output(&mut peer);
            assert_eq!(open(&mut ours, &sealed).0, [Event::Ended], "{cipher:?}");
            let mut sealed = Vec::new();
            ours.seal(b"the last words", &mut sealed).unwrap();
            ours.close(&mut sealed);
            assert_eq!(input(&mut peer, &sealed).unwrap(), b"the last words");
            assert!(peer.process_new_packets().unwrap().peer_has_closed());
        }
    }
}

#[test]
fn a_changed_byte_is_noticed_by_both() {
    for cipher in CIPHERS {
        let (mut ours, mut peer) = handshake(Role::Server, cipher);
        open(&mut ours, &[]);
        let mut sealed = send(&mut peer, b"hello");
        *sealed.last_mut().unwrap() ^= 1;
        let (events, plain) = open(&mut ours, &sealed);
        assert_eq!(events, [Event::Failed(super::super::Fault::BadRecord)]);
        assert!(plain.is_empty());
        // The alert says what was wrong.
        let alert = take_output(&mut ours);
        let told = input(&mut peer, &alert).unwrap_err();
        let expected = rustls::AlertDescription::BadRecordMac;
        assert_eq!(told, rustls::Error::AlertReceived(expected));
    }
}
