//! The first process of the booted kernel: mounts what a BPF loader needs, runs the verifier, says
//! how it ended on the console, and stops the machine. It never returns: a kernel without its first
//! process panics.

use std::fs;
use std::process::Command;

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};

/// Stands before the verifier's exit code on the console.
pub(super) const EXIT_MARK: &str = "HITLESS-VERIFY-EXIT ";

/// Whether this process is the kernel's first.
pub(crate) fn is_first() -> bool {
    std::process::id() == 1 && fs::exists("/verify").unwrap_or(false)
}

/// What the first process does.
pub(crate) fn main() -> ! {
    for (kind, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("bpf", "/sys/fs/bpf"),
        ("tmpfs", "/tmp"),
    ] {
        if let Err(error) = mount(kind, place, kind, MountFlags::empty(), None) {
            println!("init: cannot mount {kind} on {place}: {error}");
        }
    }
    let code = match Command::new("/verify").status() {
        Ok(status) => status.code().unwrap_or(-1),
        Err(error) => {
            println!("init: cannot start the verifier: {error}");
            -1
        }
    };
    println!("{EXIT_MARK}{code}");
    // QEMU was told not to boot again, so this ends it.
    let stopped = reboot(RebootCommand::Restart);
    panic!("the machine goes on: {stopped:?}");
}
