//! PROXY protocol: what may be the header of a stream.

use hitless_proto::proxy::{Found, find, write_v1, write_v2};

/// A header is found at its last byte and not before, whatever follows it, and what it says is
/// written and found again.
pub(crate) fn header(input: &[u8]) {
    let Ok(Found::Header { bytes, addresses }) = find(input) else {
        return;
    };
    let whole = Ok(Found::Header { bytes, addresses });
    assert_eq!(find(&input[..bytes]), whole, "what follows matters");
    for len in 0..bytes {
        assert_eq!(find(&input[..len]), Ok(Found::Partial), "{len} of {bytes}");
    }
    let mut second = Vec::new();
    write_v2(addresses, &mut second);
    let bytes = second.len();
    assert_eq!(find(&second), Ok(Found::Header { bytes, addresses }));
    if let Some(known) = addresses {
        let mut first = Vec::new();
        write_v1(known, &mut first);
        let bytes = first.len();
        assert_eq!(find(&first), Ok(Found::Header { bytes, addresses }));
    }
}
