//! TLS records: what an established connection's peer sends.

use hitless_proto::tls::{Event, Material, Records, Role, Suite};

/// Everything that can be seen of a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    events: Vec<Event>,
    plain: Vec<u8>,
    out: Vec<u8>,
}

/// The first byte chooses version and suite, the others are what comes. Whole or in pieces, with or
/// without a snapshot after each: it is the same.
pub(crate) fn records(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else {
        return;
    };
    let whole = run(*choice, bytes, usize::MAX, false);
    for (len, is_moved) in [(usize::MAX, true), (7, false), (1, true)] {
        assert_eq!(whole, run(*choice, bytes, len, is_moved), "pieces of {len}");
    }
}

/// Both ends of a connection whose keys everybody here knows.
pub(crate) fn end(role: Role, choice: u8) -> Records {
    let suite = match choice % 3 {
        0 => Suite::Aes128Gcm,
        1 => Suite::Aes256Gcm,
        _ => Suite::ChaCha20Poly1305,
    };
    let is_tls13 = choice.is_multiple_of(2);
    let material = |byte: u8| match is_tls13 {
        true => Material::Secret(vec![byte; suite.secret_bytes()].into()),
        false => Material::Key {
            key: vec![byte; suite.key_bytes()].into(),
            iv: [byte; 12],
        },
    };
    let (received, sent) = match role {
        Role::Server => (material(1), material(2)),
        Role::Client => (material(2), material(1)),
    };
    Records::new(role, suite, (received, 0), (sent, 0)).expect("the suite's own lengths")
}

fn run(choice: u8, bytes: &[u8], len: usize, is_moved: bool) -> Seen {
    let mut records = end(Role::Server, choice);
    let mut seen = Seen::default();
    for piece in bytes.chunks(len) {
        records.feed(piece);
        loop {
            let event = records.poll_event(&mut seen.plain);
            let out = records.poll_output().to_vec();
            records.sent(out.len());
            seen.out.extend(out);
            if event == Event::NeedMore {
                break;
            }
            seen.events.push(event);
            if matches!(event, Event::Ended | Event::Failed(_)) {
                return seen;
            }
        }
        if is_moved {
            records = Records::restore(&records.snapshot()).expect("just written");
        }
    }
    seen
}

/// A snapshot is refused, or what it makes can be used and exported again.
pub(crate) fn snapshot(input: &[u8]) {
    let Ok(mut records) = Records::restore(input) else {
        return;
    };
    let again = records.snapshot();
    let other = Records::restore(&again).expect("just written");
    assert_eq!(*other.snapshot(), *again, "a snapshot of a snapshot");
    let mut out = Vec::new();
    let _ = records.seal(b"data", &mut out);
    records.close(&mut out);
    records.feed(&[23, 3, 3, 0, 17]);
    records.feed(&[0; 17]);
    let mut plain = Vec::new();
    // A record takes one step; what is stuck may hold many.
    for _ in 0..=input.len() {
        if let Event::NeedMore | Event::Ended | Event::Failed(_) = records.poll_event(&mut plain) {
            break;
        }
    }
    assert!(Records::restore(&records.snapshot()).is_ok());
}
