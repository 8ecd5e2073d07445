//! Half-open entries and SYN cookies: what the kernel tells only over netlink and `/proc`.

use std::fs;

use hitless_core::flow::Flow;

use crate::error::{Error, Result};

/// See [`crate::Ingress::remove_half_open`].
pub(crate) fn remove(flows: &[Flow]) -> Result<usize> {
    let _ = flows;
    Ok(0)
}

/// SYN cookies sent by this thread's network namespace since it was made.
pub(crate) fn cookies_sent() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/netstat")
        .map_err(|source| Error::Count { source })?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return Ok(0);
    };
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let sent = pairs.find(|(name, _)| *name == "SyncookiesSent");
    Ok(sent.and_then(|(_, value)| value.parse().ok()).unwrap_or(0))
}
