//! The clock of all machines: `CLOCK_BOOTTIME` in microseconds, the one that the ingress program
//! compares leases with.

use std::time::{Duration, SystemTime};

use hitless_core::time::Time;
use rustix::time::{ClockId, clock_gettime};

/// Now, by the clock that only rises and goes on during suspension.
pub fn now() -> Time {
    let time = clock_gettime(ClockId::Boottime);
    Time(time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000)
}

/// Now, for people: microseconds since 1970.
pub fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

/// How long to wait for a deadline; `longest` if there is none.
pub fn until(deadline: Option<Time>, longest: Duration) -> Duration {
    deadline.map_or(longest, |deadline| {
        Duration::from_micros(deadline.since_us(now())).min(longest)
    })
}
