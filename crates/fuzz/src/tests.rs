//! Every corpus holds, and a few thousand inputs made from it.

use hitless_control::lease::{Notice, Seal};
use hitless_control::link::wire;
use hitless_control::message::{FromIngress, ToIngress, ToNode};
use hitless_core::row::{Bucket, GuestSlot, Row, Sequence};
use hitless_core::table::message::{
    DirectorId, FromGuest, LeaseGrant, LeaseRequest, ToAgent, ToGuest,
};
use hitless_core::time::Time;
use hitless_proto::http1::Side;
use hitless_proto::proxy::{Addresses, write_v1, write_v2};
use hitless_proto::relay::Relay;
use hitless_proto::tls::{Event, Role};

use super::mutate::Mutator;
use super::target::TARGETS;
use super::{corpus, links, tls};

#[test]
fn every_corpus_holds() {
    for target in TARGETS {
        let inputs = corpus::inputs(target.corpus);
        assert!(inputs.len() >= 5, "{}", target.name);
        for input in inputs {
            (target.run)(&input);
        }
    }
}

#[test]
fn mutations_of_every_corpus_hold() {
    for target in TARGETS {
        let mut mutator = Mutator::new(7, corpus::inputs(target.corpus));
        for _ in 0..1_000 {
            (target.run)(&mutator.next_input());
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_inputs() {
    let corpus = || vec![b"abc".to_vec(), b"defgh".to_vec()];
    let (mut one, mut other) = (Mutator::new(3, corpus()), Mutator::new(3, corpus()));
    for _ in 0..100 {
        assert_eq!(one.next_input(), other.next_input());
    }
}

/// Inputs that are taken whole.
fn valid() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let now_us = 1_000_000;
    let mut relay = Relay::new(now_us - 10);
    let mut relays = vec![relay.snapshot(now_us)];
    relay.read(Side::Client, 300, now_us);
    relay.wrote(Side::Client, 100, now_us);
    relays.push(relay.snapshot(now_us));
    relay.hold(Side::Client, b"held bytes");
    relays.push(relay.snapshot(now_us));
    relay.end_of_stream(Side::Member, now_us);
    relays.push(relay.snapshot(now_us));
    relay.finished(Side::Member);
    relays.push(relay.snapshot(now_us));

    let (mut streams, mut ends) = (Vec::new(), Vec::new());
    for choice in 0..6 {
        let (mut client, mut server) = (
            tls::end(Role::Client, choice),
            tls::end(Role::Server, choice),
        );
        let mut out = vec![choice];
        client.seal(b"hello", &mut out).unwrap();
        if choice % 2 == 0 {
            client.update_keys(&mut out).unwrap();
        }
        client.seal(b"again", &mut out).unwrap();
        client.close(&mut out);
        server.feed(&out[1..10]);
        streams.push(out);
        assert_eq!(server.poll_event(&mut Vec::new()), Event::NeedMore);
        ends.push(server.snapshot().to_vec());
    }

    let mut headers = vec![Vec::new(); 5];
    for (at, [source, destination]) in [
        ["192.0.2.1:40000", "198.51.100.7:80"],
        ["[2001:db8::1]:40000", "[2001:db8::7]:80"],
    ]
    .into_iter()
    .enumerate()
    {
        let addresses = Addresses {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        write_v1(addresses, &mut headers[2 * at]);
        write_v2(Some(addresses), &mut headers[2 * at + 1]);
    }
    write_v2(None, &mut headers[4]);

    let seal = Seal::new(links::KEY);
    let slot = |number| GuestSlot::new(number).unwrap();
    let asked = Time(123_456_789);
    let grant = |is_renewed, dead: &[u16]| {
        let grant = LeaseGrant {
            asked,
            director: DirectorId(3),
            is_renewed,
            believed_dead: dead.iter().map(|number| slot(*number)).collect(),
        };
        seal.grant(links::me(), &grant)
    };
    let request = LeaseRequest {
        guest: slot(9),
        asked,
    };
    let notice = Notice {
        guest: slot(9),
        director: DirectorId(2),
        seen: asked,
    };
    let mut datagrams = vec![seal.request(&request), seal.notice(&notice)];
    datagrams.extend([
        grant(true, &[]),
        grant(false, &[1]),
        grant(true, &[1, 2, 4_095]),
    ]);
    for datagram in &mut datagrams {
        // The tag is the target's.
        datagram.truncate(datagram.len() - 16);
    }

    let row = Row::from_word(0);
    let rows = |count: u16| {
        (0..count)
            .filter_map(|at| Some((Bucket(at), row?)))
            .collect()
    };
    let holds = (0..3).map(|at| (Bucket(at), Sequence(at + 1))).collect();
    let mut frames = vec![Vec::new(); 6];
    wire::write(
        &mut frames[0],
        ToNode::Table(ToAgent::Rows { rows: rows(3) }),
    )
    .unwrap();
    let to_guest = ToGuest::Rows {
        rows: rows(2),
        leaving: Vec::new(),
    };
    wire::write(&mut frames[1], ToIngress::Table(to_guest)).unwrap();
    wire::write(
        &mut frames[2],
        FromIngress::Table(FromGuest::Applied { rows: holds }),
    )
    .unwrap();
    wire::write(&mut frames[3], ToIngress::Table(ToGuest::Report)).unwrap();
    frames[4] = frames[..4].concat();
    frames[5] = [&frames[3][..], &frames[3][..]].concat();
    vec![
        ("relay-snapshot", relays),
        ("tls-records", streams),
        ("tls-snapshot", ends),
        ("lease", datagrams),
        ("link", frames),
        ("proxy", headers),
    ]
}

/// A corpus whose inputs are all refused at once would find nothing.
#[test]
fn the_corpora_hold_what_is_taken() {
    for (name, inputs) in valid() {
        let target = TARGETS.iter().find(|target| target.name == name).unwrap();
        let known = corpus::inputs(target.corpus);
        for input in inputs {
            let line = corpus::hex(&input);
            assert!(known.contains(&input), "{name}: add {line}");
        }
    }
    let seal = Seal::new(links::KEY);
    let [request, notice, grant] = [0, 1, 2].map(|at| links::sealed(&valid()[3].1[at]));
    assert!(seal.open_request(&request).is_some());
    assert!(seal.open_notice(&notice).is_some());
    assert!(seal.open_grant(links::me(), &grant).is_some());
}
