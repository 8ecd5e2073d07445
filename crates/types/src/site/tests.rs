use core::time::Duration;

use proptest::prelude::*;

use super::*;

const QUICKSTART: &str = include_str!("../../../../examples/quickstart.yaml");

#[test]
fn the_quickstart_is_read_as_meant() {
    let site = Site::parse("quickstart.yaml", QUICKSTART.as_bytes()).unwrap();
    let [raw, web] = &site.virtual_servers[..] else {
        panic!("{site:?}")
    };
    assert_eq!((raw.name.as_str(), raw.protocol), ("raw", Protocol::Tcp));
    assert_eq!((web.name.as_str(), web.protocol), ("web", Protocol::Http));
    assert_eq!(web.listen, "127.0.0.1:8080".parse().unwrap());
    let pool = site.pool_of(web);
    assert_eq!(
        (pool.name.as_str(), pool.method),
        ("web", Method::LeastConnections)
    );
    assert_eq!(pool.members.len(), 2);
    let monitor = pool.monitor.as_ref().unwrap();
    assert_eq!(monitor.interval, Duration::from_secs(2));
    assert_eq!(monitor.timeout, Duration::from_secs(1));
    assert_eq!((monitor.rise, monitor.fall), (2, 3));
    let probe = Probe::Http {
        path: "/".to_owned(),
        host: None,
        expect: 200,
    };
    assert_eq!(monitor.probe, probe);
    assert_eq!((&site.timeouts, site.admin), (&Timeouts::default(), None));
}

#[test]
fn defaults_lie_within_their_bounds() {
    let text = format!(
        "{QUICKSTART}timeouts: {{ connect: 5s, request_head: 10s, keep_alive: 1m, response: 1m, \
         idle: 1h }}\nlimits: {{ connections: 10000, head_bytes: 64KiB, headers: 128 }}\n"
    );
    let written = Site::parse("site", text.as_bytes()).unwrap();
    assert_eq!(written, Site::parse("site", QUICKSTART.as_bytes()).unwrap());
}

#[test]
fn a_file_above_the_bound_is_refused_unread() {
    let problems = Site::parse("big", &vec![b'['; bounds::FILE_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(problems.problems[0].code, "too-large");
}

#[test]
fn a_file_of_another_kind_gives_a_bounded_answer() {
    let text: String = (0..5_000).map(|n| format!("field{n}: 1\n")).collect();
    let problems = Site::parse("other", text.as_bytes()).unwrap_err();
    assert_eq!(problems.problems.len(), 100);
    assert!(
        problems
            .to_string()
            .ends_with("other: 5002 errors, the first 100 shown")
    );
}

#[test]
fn json_of_problems_has_every_part() {
    let problems = Site::parse("f", b"pools: {}\nvirtual_servers: { a: 1 }\n").unwrap_err();
    let json = serde_json::to_value(&problems).unwrap();
    let expected = serde_json::json!({
        "file": "f",
        "left_out": 0,
        "problems": [{
            "code": "wrong-type", "line": 2, "column": 23, "field": "virtual_servers.a",
            "message": "a virtual server must be a mapping", "found": "`1`",
            "allowed": "listen, protocol, pool, tls", "hint": null
        }]
    });
    assert_eq!(json, expected);
}

proptest! {
    /// Whatever bytes come, there is an answer, and a refusal can be shown.
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Err(problems) = Site::parse("f", &bytes) {
            prop_assert!(!problems.to_string().is_empty());
        }
    }

    /// A good file with a few bytes changed: what nearly works finds more of the reader.
    #[test]
    fn a_damaged_file_is_answered(
        edits in proptest::collection::vec((0..QUICKSTART.len(), prop_oneof![
            any::<u8>(), Just(b' '), Just(b':'), Just(b'['), Just(b'{'), Just(b'\n'), Just(b'"'), Just(b'*'), Just(b'&'),
        ]), 1..6),
        cut in 0..QUICKSTART.len(),
    ) {
        let mut bytes = QUICKSTART.as_bytes().to_vec();
        for (position, byte) in edits {
            bytes[position] = byte;
        }
        for bytes in [&bytes[..], &bytes[..cut], &bytes[cut..]] {
            if let Err(problems) = Site::parse("f", bytes) {
                prop_assert!(!problems.to_string().is_empty());
            }
        }
    }
}
