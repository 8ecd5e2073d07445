use proptest::prelude::*;

use super::*;

fn addresses(source: &str, destination: &str) -> Option<Addresses> {
    Some(Addresses {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    })
}

/// The table of headers: bytes, and what is found in them.
#[test]
fn headers() {
    let v4 = addresses("192.0.2.1:56324", "192.0.2.2:443");
    let v6 = addresses("[2001:db8::1]:1", "[2001:db8::2]:65535");
    let found = |bytes, addresses| Ok(Found::Header { bytes, addresses });
    let line = Err(Malformed::Line);
    let rows: &[(&[u8], Result<Found, Malformed>)] = &[
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET",
            found(42, v4),
        ),
        (
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
            found(44, v6),
        ),
        (b"PROXY UNKNOWN\r\n", found(15, None)),
        (
            b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
            found(43, None),
        ),
        (b"PRO", Ok(Found::Partial)),
        (b"", Ok(Found::Partial)),
        (b"\r\n\r\n\0\r\nQU", Ok(Found::Partial)),
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r",
            Ok(Found::Partial),
        ),
        (b"GET / HTTP/1.1\r\n", Err(Malformed::Absent)),
        (b"\x16\x03\x01", Err(Malformed::Absent)),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 056324 443\r\n", line),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 443\r\n", line),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n", line),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", line),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", line),
        (b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", line),
        (b"PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n", line),
        (b"PROXY TCP6 192.0.2.1 2001:db8::2 1 2\r\n", line),
        (b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", line),
        (b"PROXY \r\n", line),
        (&[b'P'; 200], Err(Malformed::Absent)),
    ];
    for (input, expected) in rows {
        assert_eq!(find(input), *expected, "{}", input.escape_ascii());
    }
    let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; 100]].concat();
    assert_eq!(find(&endless), line);
}

#[test]
fn binary_headers() {
    let start = |rest: &[u8]| [&V2_START[..], rest].concat();
    let bytes = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 4, 1, 0xbb];
    let v4 = addresses("192.0.2.1:56324", "192.0.2.2:443");
    let found = |bytes, addresses| Ok(Found::Header { bytes, addresses });
    let proxied = start(&[&[0x21, 0x11, 0, 12][..], &bytes, b"GET"].concat());
    assert_eq!(find(&proxied), found(28, v4));
    // Further values, such as the name that a client asked for, are skipped.
    let more = start(&[&[0x21, 0x11, 0, 16][..], &bytes, &[4, 0, 1, 9]].concat());
    assert_eq!(find(&more), found(32, v4));
    assert_eq!(find(&start(&[0x20, 0, 0, 0])), found(16, None));
    assert_eq!(find(&start(&[0x20, 0x11, 0, 0])), found(16, None));
    assert_eq!(find(&start(&[0x21, 0, 0, 0])), found(16, None));
    let unix = start(&[&[0x21, 0x31, 0, 216][..], &[0; 216]].concat());
    assert_eq!(find(&unix), found(232, None));
    assert_eq!(find(&start(&[0x11, 0x11, 0, 12])), Err(Malformed::Kind));
    assert_eq!(find(&start(&[0x22, 0x11, 0, 12])), Err(Malformed::Kind));
    assert_eq!(find(&start(&[0x21, 0x41, 0, 12])), Err(Malformed::Kind));
    assert_eq!(find(&start(&[0x21, 0x11, 0, 11])), Err(Malformed::Length));
    assert_eq!(find(&start(&[0x21, 0x21, 0, 35])), Err(Malformed::Length));
    assert_eq!(
        find(&start(&[0x21, 0x11, 0xff, 0xff])),
        Err(Malformed::Length)
    );
}

#[test]
fn families_are_not_mixed() {
    let mixed = addresses("192.0.2.1:1", "[2001:db8::2]:2").unwrap();
    let mut line = Vec::new();
    write_v1(mixed, &mut line);
    assert_eq!(line, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n");
}

fn address() -> impl Strategy<Value = SocketAddr> {
    any::<(IpAddr, u16)>().prop_map(SocketAddr::from)
}

proptest! {
    /// What is written is read back, and every beginning of it is only partial.
    #[test]
    fn what_is_written_is_found(source in address(), destination in address(), rest: Vec<u8>) {
        let written = Addresses { source, destination };
        let (mut v1, mut v2) = (Vec::new(), Vec::new());
        write_v1(written, &mut v1);
        write_v2(Some(written), &mut v2);
        for header in [v1, v2] {
            prop_assert!(header.len() <= V1_BYTES_MAX);
            let expected = Found::Header {
                bytes: header.len(),
                addresses: Some(same_family(written)),
            };
            for length in 0..header.len() {
                prop_assert_eq!(find(&header[..length]), Ok(Found::Partial));
            }
            let stream = [&header[..], &rest].concat();
            prop_assert_eq!(find(&stream), Ok(expected));
        }
    }

    #[test]
    fn random_bytes_do_no_harm(mut input: Vec<u8>, is_v2: bool) {
        let start: &[u8] = if is_v2 { &V2_START } else { b"PROXY TCP4 " };
        input.splice(0..0, start.iter().copied());
        if let Ok(Found::Header { bytes, .. }) = find(&input) {
            prop_assert!(bytes <= input.len());
        }
    }
}
