//! SYN cookies: what the kernel tells only in `/proc`.

use std::fs;

use crate::error::{Error, Result};

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
