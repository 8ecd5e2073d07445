//! Which kernel this is: another value after a reboot, and for a network namespace that was made
//! anew.

use std::hash::Hasher;
use std::io;

use hitless_net::Namespace;
use siphasher::sip::SipHasher13;

/// The boot of the kernel that this network namespace belongs to. Never 0.
pub fn boot_of(namespace: &Namespace) -> io::Result<u64> {
    let boot_id = std::fs::read("/proc/sys/kernel/random/boot_id")?;
    // Not the inode: the next namespace gets that of one that is gone, and would be taken for it.
    let cookie = namespace.cookie().map_err(io::Error::other)?;
    let mut hasher = SipHasher13::new();
    hasher.write(&boot_id);
    hasher.write_u64(cookie);
    Ok(hasher.finish().max(1))
}

#[cfg(test)]
mod tests {
    use hitless_harness::needs;

    use super::*;

    struct Gone<'n>(&'n str);

    impl Drop for Gone<'_> {
        fn drop(&mut self) {
            let _ = Namespace::delete(self.0);
        }
    }

    /// As root only: a namespace is made.
    #[test]
    fn a_namespace_that_is_made_anew_is_another_kernel() {
        if !needs::root() {
            return;
        }
        let name = format!("hl-boot-{}", std::process::id());
        let mut boots = Vec::new();
        for _ in 0..8 {
            let namespace = Namespace::create(&name).unwrap();
            let gone = Gone(&name);
            boots.push(boot_of(&namespace).unwrap());
            assert_eq!(
                boots.last(),
                Some(&boot_of(&namespace).unwrap()),
                "it stays"
            );
            drop((namespace, gone));
            let is_new = !boots[..boots.len() - 1].contains(boots.last().unwrap());
            assert!(is_new, "{boots:?}");
        }
    }
}
