//! Which kernel this is: another value after a reboot, and for a network namespace that was made
//! anew.

use std::hash::Hasher;
use std::io;

use hitless_net::Namespace;
use siphasher::sip::SipHasher13;

/// The boot of the kernel that this network namespace belongs to. Never 0.
pub fn boot_of(namespace: &Namespace) -> io::Result<u64> {
    let boot_id = std::fs::read("/proc/sys/kernel/random/boot_id")?;
    let inode = namespace.inode().map_err(io::Error::other)?;
    let mut hasher = SipHasher13::new();
    hasher.write(&boot_id);
    hasher.write_u64(inode);
    Ok(hasher.finish().max(1))
}
