//! The law of snapshots: one after any byte changes no event and no output.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::half::Half;
use super::{Event, Records, Role, SUITES, Suite, Version, material, pair, take_output};

/// What one end does.
#[derive(Clone, Debug)]
enum Deed {
    Data(usize),
    Update { asks: bool },
    Ticket(usize),
    Warning,
    Empty,
    Close,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (1..3_000_usize).prop_map(Deed::Data),
        2 => any::<bool>().prop_map(|asks| Deed::Update { asks }),
        2 => (0..700_usize).prop_map(Deed::Ticket),
        1 => Just(Deed::Warning),
        1 => Just(Deed::Empty),
        1 => Just(Deed::Close),
    ]
}

/// What a server sends that does these.
fn sealed(version: Version, suite: Suite, deeds: &[Deed]) -> Vec<u8> {
    let mut half = Half::new(suite, material(version, suite, 2), 0).unwrap();
    let mut out = Vec::new();
    let message = |half: &mut Half, out: &mut Vec<u8>, bytes: &[u8], cut: usize| {
        for piece in bytes.chunks(cut) {
            half.seal(22, piece, out);
        }
    };
    for deed in deeds {
        match (deed, version) {
            (Deed::Data(count), _) => half.seal(23, &vec![*count as u8; *count], &mut out),
            (Deed::Update { asks }, Version::Tls13) => {
                let asks = u8::from(*asks);
                message(
                    &mut half,
                    &mut out,
                    &[24, 0, 0, 1, asks],
                    1 + usize::from(asks) * 4,
                );
                half.update();
            }
            (Deed::Ticket(count), Version::Tls13) => {
                let length = *count as u32;
                let mut bytes = (u32::from_be_bytes([4, 0, 0, 0]) | length)
                    .to_be_bytes()
                    .to_vec();
                bytes.resize(4 + count, 9);
                message(&mut half, &mut out, &bytes, 1 + count % 200);
            }
            // A wish to renegotiate.
            (Deed::Update { .. } | Deed::Ticket(_), Version::Tls12) => {
                message(&mut half, &mut out, &[0, 0, 0, 0], 3);
            }
            (Deed::Warning, _) => half.seal(21, &[1, 90], &mut out),
            (Deed::Empty, _) => half.seal(23, &[], &mut out),
            (Deed::Close, _) => half.seal(21, &[1, 0], &mut out),
        }
    }
    out
}

/// Everything that can be seen of it.
fn live(ours: &mut Records, piece: &[u8], seen: &mut Vec<(Event, Vec<u8>, Vec<u8>)>) {
    ours.feed(piece);
    loop {
        let mut plain = Vec::new();
        let event = ours.poll_event(&mut plain);
        if event == Event::NeedMore {
            return;
        }
        let mut out = take_output(ours);
        let _ = ours.seal(b"in between", &mut out);
        let is_over = matches!(event, Event::Ended | Event::Failed(_));
        seen.push((event, plain, out));
        if is_over {
            return;
        }
    }
}

proptest! {
    #[test]
    fn a_snapshot_after_any_piece_changes_nothing(
        deeds in vec(deed(), 1..12),
        pieces in vec(1..900_usize, 1..60),
        is_13 in any::<bool>(),
        suite in 0..3_usize,
        damage in proptest::option::weighted(0.2, any::<proptest::sample::Index>()),
    ) {
        let version = if is_13 { Version::Tls13 } else { Version::Tls12 };
        let suite = SUITES[suite];
        let mut bytes = sealed(version, suite, &deeds);
        if let Some(damage) = damage && !bytes.is_empty() {
            let at = damage.index(bytes.len());
            bytes[at] ^= 0x10;
        }
        let (mut steady, _) = pair(version, suite, 0);
        let (mut moved, _) = pair(version, suite, 0);
        let (mut of_steady, mut of_moved) = (Vec::new(), Vec::new());
        let mut rest = bytes.as_slice();
        let mut pieces = pieces.iter().cycle();
        while !rest.is_empty() {
            let piece;
            let count = pieces.next().copied().unwrap_or(1).min(rest.len());
            (piece, rest) = rest.split_at(count);
            live(&mut steady, piece, &mut of_steady);
            live(&mut moved, piece, &mut of_moved);
            let snapshot = moved.snapshot();
            let held = moved.stuck().len() + moved.unsent().len();
            prop_assert!(snapshot.len() <= 300 + held, "{} bytes", snapshot.len());
            moved = Records::restore(&snapshot).unwrap();
            prop_assert_eq!(&moved.snapshot(), &snapshot);
        }
        prop_assert_eq!(of_steady, of_moved);
    }

    #[test]
    fn a_snapshot_that_is_cut_or_changed_is_refused_or_whole(
        cut in any::<proptest::sample::Index>(),
        bit in any::<proptest::sample::Index>(),
    ) {
        let (mut client, _) = pair(Version::Tls12, Suite::Aes256Gcm, 5);
        client.feed(&[23, 3, 3, 0, 40, 1, 2, 3]);
        let snapshot = client.snapshot();
        prop_assert!(Records::restore(&snapshot[..cut.index(snapshot.len())]).is_err());
        let mut changed = snapshot.to_vec();
        let bit = bit.index(changed.len() * 8);
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(restored) = Records::restore(&changed) {
            prop_assert_eq!(&*restored.snapshot(), &changed);
        }
        changed.clone_from(&snapshot);
        changed.push(0);
        prop_assert!(Records::restore(&changed).is_err());
    }
}

/// What a release wrote, every later one reads.
#[test]
fn the_layout_is_the_committed_one() {
    let (_, mut server) = pair(Version::Tls13, Suite::Aes128Gcm, 3);
    let first = [23, 3, 3];
    server.feed(&first);
    let mut written: String = server
        .snapshot()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    written.push('\n');
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tls/tests/snapshot-1.hex");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(committed, written, "the snapshot's layout has changed");
    assert_eq!(server.role(), Role::Server);
}
