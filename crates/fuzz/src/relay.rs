//! Raw TCP: snapshots of relays.

use hitless_proto::http1::Side;
use hitless_proto::relay::{Relay, Waits};

const NOW_US: u64 = 1_000_000;

/// A snapshot is refused, or what it makes can be driven to its end and exported again.
pub(crate) fn snapshot(input: &[u8]) {
    let Ok(mut relay) = Relay::restore(input, NOW_US) else {
        return;
    };
    let again = relay.snapshot(NOW_US);
    let other = Relay::restore(&again, NOW_US).expect("just written");
    assert_eq!(other.snapshot(NOW_US), again, "a snapshot of a snapshot");
    let _ = relay.deadline(1_000);
    for from in [Side::Client, Side::Member] {
        if relay.waits(from) == Waits::Source {
            relay.read(from, 5, NOW_US);
        }
        if relay.waits(from) == Waits::Destination {
            relay.wrote(from, relay.under_way_bytes(from), NOW_US);
            assert_eq!(relay.piped_bytes(from), 0);
        }
        relay.end_of_stream(from, NOW_US);
        if relay.waits(from) == Waits::Finish {
            relay.finished(from);
        }
    }
    assert!(relay.is_done());
    assert!(Relay::restore(&relay.snapshot(NOW_US), NOW_US).is_ok());
}
