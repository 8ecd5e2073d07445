//! Who listens on a port: what to name when an address is in use.
//!
//! Read from `/proc`; without root only one's own processes can be named, so the answer may be
//! empty. It is a guess for a message, never an input to a decision.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// Names that are given at most.
const HOLDERS_MAX: usize = 4;
/// State of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// The processes that listen on the address's port, as `nginx (process 123)`.
pub fn of(address: &SocketAddr) -> Vec<String> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(
            text.lines()
                .filter_map(|line| listening_inode(line, address.port())),
        );
    }
    if inodes.is_empty() {
        return Vec::new();
    }
    let mut holders = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = entry.path();
        let Some(pid) = path
            .file_name()
            .and_then(|name| name.to_str()?.parse::<u32>().ok())
        else {
            continue;
        };
        if holders.len() < HOLDERS_MAX && has_one_of(&path, &inodes) {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            holders.push(format!("{} (process {pid})", name.trim()));
        }
    }
    holders
}

/// The inode of a line of `/proc/net/tcp`, if it listens on `port`.
fn listening_inode(line: &str, port: u16) -> Option<String> {
    let mut words = line.split_whitespace();
    let (_, local_port) = words.nth(1)?.rsplit_once(':')?;
    let state = words.nth(1)?;
    let inode = words.nth(5)?;
    let is_it = u16::from_str_radix(local_port, 16).ok()? == port && state == LISTENING;
    is_it.then(|| inode.to_owned())
}

fn has_one_of(process: &Path, inodes: &[String]) -> bool {
    let links = fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    links
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| {
            let target = target.to_string_lossy();
            let inode = target
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.iter().any(|one| one == inode))
        })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    #[test]
    fn a_listener_of_our_own_is_found_and_none_where_nobody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let me = format!("(process {})", std::process::id());
        assert!(super::of(&address).iter().any(|name| name.ends_with(&me)));
        drop(listener);
        assert!(!super::of(&address).iter().any(|name| name.ends_with(&me)));
    }
}
