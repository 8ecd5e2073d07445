//! The bounds of everything that can be written in a site file, each with its reason.

use core::ops::RangeInclusive;
use core::time::Duration;

/// Bytes of a site file: some 20,000 members at 50 bytes each.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// How deep lists and mappings may nest; the format itself needs five.
pub const DEPTH_MAX: usize = 32;
/// Scalars, lists and mappings of a file, aliases counted as what they stand for: twice what fits
/// without aliases.
pub const NODES_MAX: usize = 200_000;
/// Pools of a site.
pub const POOLS_MAX: usize = 10_000;
/// Members of one pool: a choice looks at each of them.
pub const MEMBERS_MAX: usize = 4_096;
/// Virtual servers of a site; each has a listening socket per thread.
pub const VIRTUAL_SERVERS_MAX: usize = 4_096;
/// Characters of a name, as in a DNS label, so that a name can become one.
pub const NAME_MAX: usize = 63;
/// Share of a member.
pub const WEIGHT: RangeInclusive<u64> = 1..=1_000;
/// Probes of one member are at least a millisecond and at most a day apart.
pub const INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(86_400);
/// Results in a row that change a member's health.
pub const RISE_FALL: RangeInclusive<u64> = 1..=100;
/// HTTP status codes (RFC 9110).
pub const STATUS: RangeInclusive<u64> = 100..=599;
/// Bytes of a monitor's path.
pub const PATH_MAX: usize = 2_048;
/// Every timeout.
pub const TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(7 * 86_400);
/// Client connections at a time: each has a slot of the memory file and four descriptors at most.
pub const CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;
/// Bytes of a head: a first line and a few headers at least, what fits in a slot's buffer at most.
pub const HEAD_BYTES: RangeInclusive<u64> = 1_024..=1_048_576;
/// Header lines of a head.
pub const HEADERS: RangeInclusive<u64> = 8..=1_024;
/// Certificates of one virtual server: each is read and checked with every reload.
pub const CERTIFICATES_MAX: usize = 1_024;
/// Bytes of a file with certificates or a key: the authorities of a whole system are some 300 KiB.
pub const TLS_FILE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of a file's name, as the kernel has it.
pub const FILE_NAME_MAX: usize = 4_095;
/// Names of protocols that a virtual server may offer by ALPN.
pub const ALPN_MAX: usize = 16;
/// Bytes of one of them (RFC 7301).
pub const ALPN_BYTES_MAX: usize = 255;
