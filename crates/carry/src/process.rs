//! Processes: a child with one inherited socket, replacing oneself by another program, giving up
//! privileges.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, WaitIdOptions};

/// A process that is watched by a descriptor, so that its number cannot be mistaken for a later
/// one's.
#[derive(Debug)]
pub struct Watched {
    pub pid: u32,
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    Exit(i32),
    Signal(i32),
}

impl core::fmt::Display for Ended {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

impl Watched {
    /// The process of a descriptor that another process has opened; `None` if it is none, or has
    /// ended and was collected.
    pub fn of(pidfd: OwnedFd) -> Option<Self> {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()));
        let info = info.ok()?;
        let line = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
        let pid = line.trim().parse().ok()?;
        Some(Self { pid, pidfd })
    }

    /// Kills it at once. No error if it has ended already.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// How it ended, collecting it; `None` while it runs (never with `wait`).
    pub fn collect(&self, wait: bool) -> io::Result<Option<Ended>> {
        let mut options = WaitIdOptions::EXITED;
        if !wait {
            options |= WaitIdOptions::NOHANG;
        }
        loop {
            let id = rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&self.pidfd));
            match rustix::process::waitid(id, options) {
                Ok(None) => return Ok(None),
                Ok(Some(status)) => {
                    return Ok(Some(match status.terminating_signal() {
                        Some(signal) => Ended::Signal(signal),
                        None => Ended::Exit(status.exit_status().unwrap_or(0)),
                    }));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// The signals by which people and service managers speak to a program. They often go to a whole
/// process group (Ctrl-C) or control group, but what they mean is for one process to decide: the
/// one that has started the others.
const FOR_THE_PARENT: [libc::c_int; 5] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// Starts a program, under the name `shown` where processes are listed, with `link` as its
/// descriptor `link_fd`; standard output and error are inherited, standard input is empty, and signals that this process blocks are open again, but
/// those that are meant for this process alone (`FOR_THE_PARENT`) are ignored by the new one.
pub fn spawn(
    program: &Path,
    shown: &OsStr,
    args: &[OsString],
    link: OwnedFd,
    link_fd: RawFd,
) -> io::Result<Watched> {
    let mut command = Command::new(program);
    command.arg0(shown).args(args).stdin(Stdio::null());
    let raw = link.as_raw_fd();
    // SAFETY: the closure runs in the child between fork and exec and makes only async-signal-safe
    // system calls.
    unsafe {
        command.pre_exec(move || {
            if raw == link_fd {
                if libc::fcntl(raw, libc::F_SETFD, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
            } else if libc::dup2(raw, link_fd) < 0 {
                return Err(io::Error::last_os_error());
            }
            let mut none = core::mem::zeroed();
            libc::sigemptyset(&mut none);
            // Before the mask opens: one that waits would end the child otherwise.
            for signal in FOR_THE_PARENT {
                if libc::signal(signal, libc::SIG_IGN) == libc::SIG_ERR {
                    return Err(io::Error::last_os_error());
                }
            }
            if libc::sigprocmask(libc::SIG_SETMASK, &none, core::ptr::null_mut()) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    let pid = child.id();
    let number = Pid::from_raw(pid as i32).expect("a child's number is not 0");
    // The child is not collected before this, so its number is still its own.
    let pidfd = rustix::process::pidfd_open(number, PidfdFlags::empty())?;
    Ok(Watched { pid, pidfd })
}

/// Replaces this process by another program, which inherits exactly the descriptors in `keep`
/// (besides 0, 1 and 2) and one more environment variable. Returns only if that failed; then `keep`
/// is closed on exec again.
pub fn replace(
    program: &Path,
    args: &[OsString],
    variable: (&str, &OsStr),
    keep: &[RawFd],
) -> io::Error {
    if let Err(error) = set_inherited(keep, true) {
        let _ = set_inherited(keep, false);
        return error;
    }
    let error = Command::new(program)
        .args(args)
        .env(variable.0, variable.1)
        .exec();
    let _ = set_inherited(keep, false);
    error
}

fn set_inherited(fds: &[RawFd], inherited: bool) -> io::Result<()> {
    let flags = if inherited { 0 } else { libc::FD_CLOEXEC };
    for &fd in fds {
        // SAFETY: F_SETFD on a descriptor number has no memory effects.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, flags) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Takes ownership of an inherited descriptor by its number, and sets it to close on exec. `None`
/// if no such descriptor is open.
///
/// # Safety
/// Nothing else in this process owns that descriptor.
pub unsafe fn inherit(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: as above; a closed number gives an error.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return None;
    }
    // SAFETY: the descriptor is open and, as the caller promises, owned by nobody else.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The link that [`spawn`] gave this process, once: a second call, or a process started otherwise,
/// gets `None`.
pub fn inherited_link(link_fd: RawFd) -> Option<OwnedFd> {
    use std::sync::atomic::{AtomicBool, Ordering};
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return None;
    }
    // SAFETY: the caller does this first in the process, and the flag above keeps a second owner
    // out.
    let link = unsafe { inherit(link_fd) }?;
    let kind = rustix::net::sockopt::socket_type(&link).ok();
    if kind == Some(rustix::net::SocketType::SEQPACKET) {
        return Some(link);
    }
    // Not ours: leave it open to whoever it belongs to.
    let _ = std::os::fd::IntoRawFd::into_raw_fd(link);
    None
}

/// The descriptors that [`replace`] kept, by their numbers as the program before wrote them down.
#[derive(Debug)]
pub struct Inheritance(());

impl Inheritance {
    /// Once per process; `None` after that.
    pub fn claim() -> Option<Self> {
        use std::sync::atomic::{AtomicBool, Ordering};
        static CLAIMED: AtomicBool = AtomicBool::new(false);
        (!CLAIMED.swap(true, Ordering::SeqCst)).then_some(Self(()))
    }

    /// Takes one of them. Each number may be taken once, and only numbers above 2 are given.
    pub fn take(&self, fd: RawFd) -> Option<OwnedFd> {
        if fd <= 2 {
            return None;
        }
        // SAFETY: the program before kept these for us alone, and the reader of its state asks for
        // each once, before this process opens descriptors of its own.
        unsafe { inherit(fd) }
    }
}

/// Gives up everything that a worker does not need: supplementary groups, user, group, new
/// privileges by exec, core dumps and tracing by others. A process that is not root only gives up
/// the last two.
pub fn drop_privileges(user: u32, group: u32) -> io::Result<()> {
    if rustix::process::geteuid().is_root() && user != 0 {
        // SAFETY: plain calls with values; the C library applies them to every thread.
        let failed = unsafe {
            libc::setgroups(0, core::ptr::null()) != 0
                || libc::setresgid(group, group, group) != 0
                || libc::setresuid(user, user, user) != 0
        };
        if failed {
            return Err(io::Error::last_os_error());
        }
    }
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Sets the limit on descriptors: to `limit`, or to the hard limit if none is given or it is above
/// that. Returns it.
pub fn set_descriptor_limit(limit: Option<u64>) -> io::Result<u64> {
    let now = rustix::process::getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(u64::MAX);
    let wanted = limit.unwrap_or(hard).min(hard).min(1 << 30);
    let new = Rlimit {
        current: Some(wanted),
        maximum: now.maximum,
    };
    rustix::process::setrlimit(Resource::Nofile, new)?;
    Ok(wanted)
}

/// The name of this process where processes are listed by their short names: at most 15 bytes.
pub fn set_name(name: &std::ffi::CStr) {
    let _ = rustix::thread::set_name(name);
}

/// The path of a program as a C string would need it, checked early for a clear error.
pub fn is_usable_path(path: &Path) -> bool {
    CString::new(path.as_os_str().as_bytes()).is_ok()
}
