//! Against rustls as the other end, and against itself where rustls would not misbehave.

mod faults;
mod law;
mod other_end;
mod peer;

use zeroize::Zeroizing;

use super::{Event, Material, Records, Role, Suite, Version};

const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

fn material(version: Version, suite: Suite, byte: u8) -> Material {
    match version {
        Version::Tls13 => Material::Secret(Zeroizing::new(vec![byte; suite.secret_bytes()])),
        Version::Tls12 => Material::Key {
            key: Zeroizing::new(vec![byte; suite.key_bytes()]),
            iv: [byte; 12],
        },
    }
}

/// A client and a server that share keys nobody made up in a handshake.
fn pair(version: Version, suite: Suite, sent: u64) -> (Records, Records) {
    let up = || (material(version, suite, 1), sent);
    let down = || (material(version, suite, 2), 0);
    let client = Records::new(Role::Client, suite, down(), up());
    let server = Records::new(Role::Server, suite, up(), down());
    (client.unwrap(), server.unwrap())
}

/// All events of `bytes`, and the data in them.
fn open(records: &mut Records, bytes: &[u8]) -> (Vec<Event>, Vec<u8>) {
    records.feed(bytes);
    let (mut events, mut plain) = (Vec::new(), Vec::new());
    loop {
        match records.poll_event(&mut plain) {
            Event::NeedMore => return (events, plain),
            event @ (Event::Ended | Event::Failed(_)) => {
                events.push(event);
                return (events, plain);
            }
            event => events.push(event),
        }
    }
}

/// What it has to send.
fn take_output(records: &mut Records) -> Vec<u8> {
    let bytes = records.poll_output().to_vec();
    records.sent(bytes.len());
    bytes
}

#[test]
fn material_of_another_length_or_version_is_refused() {
    let secret = |count| Material::Secret(Zeroizing::new(vec![1; count]));
    let key = |count| Material::Key {
        key: Zeroizing::new(vec![1; count]),
        iv: [0; 12],
    };
    let make = |suite, one, other| Records::new(Role::Server, suite, (one, 0), (other, 0));
    assert!(make(Suite::Aes128Gcm, secret(32), secret(32)).is_some());
    assert!(make(Suite::Aes128Gcm, secret(48), secret(32)).is_none());
    assert!(make(Suite::Aes256Gcm, secret(32), secret(48)).is_none());
    assert!(make(Suite::Aes128Gcm, key(16), secret(32)).is_none());
    assert!(make(Suite::Aes128Gcm, key(16), key(16)).is_some());
    assert!(make(Suite::Aes256Gcm, key(16), key(32)).is_none());
}

#[test]
fn long_data_goes_in_records_of_at_most_16_kib() {
    for version in [Version::Tls12, Version::Tls13] {
        for suite in SUITES {
            let (mut client, mut server) = pair(version, suite, 0);
            let data: Vec<u8> = (0..70_000_u32).map(|at| at as u8).collect();
            let mut sealed = Vec::new();
            client.seal(&data, &mut sealed).unwrap();
            let (events, plain) = open(&mut server, &sealed);
            assert_eq!(events, [Event::Data; 5]);
            assert_eq!(plain, data);
        }
    }
}

#[test]
fn keys_are_changed_before_they_are_used_up() {
    let almost = (1 << 24) - 1;
    let (mut client, mut server) = pair(Version::Tls13, Suite::Aes128Gcm, almost);
    let mut sealed = Vec::new();
    client.seal(b"the last", &mut sealed).unwrap();
    client.seal(b"the first", &mut sealed).unwrap();
    let (events, plain) = open(&mut server, &sealed);
    assert_eq!(events, [Event::Data, Event::Control, Event::Data]);
    assert_eq!(plain, b"the lastthe first");

    // TLS 1.2 cannot; what counts records has no limit.
    let (mut client, _) = pair(Version::Tls12, Suite::Aes128Gcm, almost);
    client.seal(b"the last", &mut sealed).unwrap();
    let refused = client.seal(b"one more", &mut sealed);
    assert_eq!(refused, Err(super::Fault::KeysUsedUp));
    let (mut client, _) = pair(Version::Tls12, Suite::ChaCha20Poly1305, almost + 1);
    client.seal(b"one more", &mut sealed).unwrap();
}

#[test]
fn each_side_says_when_it_is_done() {
    let (mut client, mut server) = pair(Version::Tls13, Suite::Aes256Gcm, 0);
    let mut sealed = Vec::new();
    client.close(&mut sealed);
    client.close(&mut sealed);
    assert_eq!(client.seal(b"more", &mut sealed), Err(super::Fault::Closed));
    assert_eq!(open(&mut server, &sealed).0, [Event::Ended]);
    assert!(server.has_ended());
    // The other direction goes on.
    sealed.clear();
    server.seal(b"still here", &mut sealed).unwrap();
    assert_eq!(open(&mut client, &sealed).1, b"still here");
}

#[test]
fn keys_are_not_shown() {
    let (client, _) = pair(Version::Tls13, Suite::Aes128Gcm, 0);
    let text = format!(
        "{client:?} {:?}",
        material(Version::Tls12, Suite::Aes128Gcm, 7)
    );
    assert!(!text.contains("7, 7") && !text.contains("1, 1"), "{text}");
}
