//! The one clock of keeper and worker.

/// Microseconds of the machine's monotonic clock: the same for every process, not moved by setting
/// the time.
pub(crate) fn now_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}
