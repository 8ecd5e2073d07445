//! Skew of versions, cut and lying frames, a peer that reads nothing.

use std::io::Write;
use std::sync::mpsc::{Receiver, channel};

use serde::{Deserialize, Serialize};

use super::*;
use hitless_core::row::{BUCKETS, Bucket, GuestSlot, Row, Sequence};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    text: String,
    rows: Vec<(Bucket, Row)>,
}

impl Message for Note {
    fn pack(&mut self, tail: &mut Vec<u8>) {
        wire::pack(&mut self.rows, tail);
    }

    fn unpack(&mut self, tail: &mut wire::Tail<'_>) -> io::Result<()> {
        tail.unpack(&mut self.rows)
    }
}

fn hello(name: &str) -> Hello {
    Hello {
        name: name.into(),
        kernel: 7,
        release: "0.1.0".into(),
        version: 0,
    }
}

const fn speaks(oldest: u16, newest: u16) -> Protocol {
    Protocol {
        name: "test.link",
        oldest,
        newest,
    }
}

type Events = Receiver<LinkEvent<Note, Note>>;

fn start(
    stream: UnixStream,
    name: &str,
    protocol: Protocol,
) -> (Events, Receiver<Result<bool, String>>) {
    let (events, heard) = channel();
    let (ended, end) = channel();
    let own = hello(name);
    spawn("test", move || {
        let result = run(stream, LinkId::next(), &own, &protocol, &|event| {
            events.send(event).is_ok()
        });
        let _ = ended.send(result.map_err(|error| error.to_string()));
    });
    (heard, end)
}

/// A sender of a link of this number, and the far end of its socket.
pub(crate) fn sender(link: LinkId) -> (Sender<Note>, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (open(link, &near).unwrap(), far)
}

fn up(events: &Events) -> (Hello, Sender<Note>) {
    match events.recv_timeout(Duration::from_secs(5)).unwrap() {
        LinkEvent::Up { peer, sender, .. } => (peer, sender),
        other => panic!("not up: {other:?}"),
    }
}

#[test]
fn both_sides_take_the_highest_common_version() {
    for (one, other, common) in [
        ((1, 3), (2, 5), 3),
        ((1, 1), (1, 1), 1),
        ((2, 9), (1, 2), 2),
    ] {
        let (left, right) = UnixStream::pair().unwrap();
        let (left, _end) = start(left, "left", speaks(one.0, one.1));
        let (right, _end) = start(right, "right", speaks(other.0, other.1));
        let ((peer, _keep), (its, _keep_too)) = (up(&left), up(&right));
        assert_eq!((peer.name.as_str(), peer.version), ("right", common));
        assert_eq!((its.name.as_str(), its.version), ("left", common));
    }
}

#[test]
fn without_a_common_version_both_sides_name_both_ranges() {
    let (left, right) = UnixStream::pair().unwrap();
    let (_, left) = start(left, "left", speaks(1, 2));
    let (_, right) = start(right, "right", speaks(4, 5));
    let left = left
        .recv_timeout(Duration::from_secs(5))
        .unwrap()
        .unwrap_err();
    let right = right
        .recv_timeout(Duration::from_secs(5))
        .unwrap()
        .unwrap_err();
    assert_eq!(
        left,
        "no common version of test.link: this side speaks 1 to 2, the other 4 to 5"
    );
    assert_eq!(
        right,
        "no common version of test.link: this side speaks 4 to 5, the other 1 to 2"
    );
}

#[test]
fn another_link_is_refused() {
    let (left, right) = UnixStream::pair().unwrap();
    let (_, left) = start(left, "left", speaks(1, 1));
    let _right = start(
        right,
        "right",
        Protocol {
            name: "other.link",
            oldest: 1,
            newest: 1,
        },
    );
    let left = left
        .recv_timeout(Duration::from_secs(5))
        .unwrap()
        .unwrap_err();
    assert_eq!(
        left,
        "this is the link test.link, the other side speaks other.link"
    );
}

#[test]
fn a_whole_table_passes_in_one_frame() {
    let slots = [GuestSlot::new(1).unwrap(), GuestSlot::new(4_095).unwrap()];
    let rows = (0..BUCKETS).map(|number| {
        (
            Bucket(number as u16),
            Row::new(&slots, Sequence(number as u16)).unwrap(),
        )
    });
    let note = Note {
        text: "all".into(),
        rows: rows.collect(),
    };
    let (left, right) = UnixStream::pair().unwrap();
    let (left, _end) = start(left, "left", speaks(1, 1));
    let (right, _end) = start(right, "right", speaks(1, 1));
    let ((_, sender), _keep) = (up(&left), up(&right));
    sender.send(note.clone());
    match right.recv_timeout(Duration::from_secs(10)).unwrap() {
        LinkEvent::Message { message, .. } => assert!(message == note),
        other => panic!("no message: {other:?}"),
    }
    sender.close();
    assert!(matches!(
        right.recv_timeout(Duration::from_secs(5)),
        Ok(LinkEvent::Down { .. })
    ));
}

#[test]
fn what_is_no_frame_ends_the_link_with_a_reason() {
    let (left, mut right) = UnixStream::pair().unwrap();
    let (events, _end) = start(left, "left", speaks(1, 1));
    let protocol = speaks(1, 1);
    hello::exchange(&right, &hello("right"), &protocol).unwrap();
    let _keep = up(&events);
    right.write_all(&[0xff; 64]).unwrap();
    match events.recv_timeout(Duration::from_secs(5)).unwrap() {
        LinkEvent::Down { reason, .. } => assert_eq!(reason, "this is no frame of ours"),
        other => panic!("still up: {other:?}"),
    }
}

#[test]
fn a_peer_that_reads_nothing_loses_the_link() {
    let (left, right) = UnixStream::pair().unwrap();
    let (events, _end) = start(left, "left", speaks(1, 1));
    hello::exchange(&right, &hello("right"), &speaks(1, 1)).unwrap();
    let (_, sender) = up(&events);
    for _ in 0..QUEUE_MAX + 300 {
        sender.send(Note {
            text: "x".repeat(10_000),
            rows: Vec::new(),
        });
    }
    assert!(matches!(
        events.recv_timeout(Duration::from_secs(5)),
        Ok(LinkEvent::Down { .. })
    ));
}

#[test]
fn addresses_are_paths_for_now() {
    assert_eq!(
        "/run/x.sock".parse(),
        Ok(Address::Unix("/run/x.sock".into()))
    );
    assert_eq!("unix:x.sock".parse(), Ok(Address::Unix("x.sock".into())));
    assert!(
        "tcp:192.0.2.1:7000"
            .parse::<Address>()
            .unwrap_err()
            .contains("TLS")
    );
    assert!("".parse::<Address>().is_err());
}
