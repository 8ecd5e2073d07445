//! Named network namespaces, kept as bind mounts below `/run/netns`, where `ip netns` sees them
//! too.
//!
//! A namespace is entered by a thread made for it, or by a child between fork and exec; the
//! caller's own thread never changes. Only the network namespace changes: mounts, and so pinned BPF
//! objects, stay the same.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::{Error, Result};

/// Where named namespaces lie.
pub const NAMESPACES: &str = "/run/netns";

/// Longest name: a file's, with room to spare for the tools that put something before it.
const NAME_BYTES_MAX: usize = 200;

/// An open network namespace. It lives on while this is open, or a process is in it, or its name
/// exists.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<OwnedFd>,
    /// None for one that was not opened by its name.
    name: Option<String>,
}

/// The cookie of the namespace that the calling thread is in.
fn cookie_here() -> io::Result<u64> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, which is as long, and the
    // length to `length`; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

impl Namespace {
    /// Makes a new, empty namespace and gives it `name`; its loopback interface is up.
    pub fn create(name: &str) -> Result<Self> {
        let path = path_of(name)?;
        prepare_folder()?;
        let refused = |error: io::Error| Error::refused(format!("make namespace {name}"), error);
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(refused)?;
        let made = on_a_thread(|| -> io::Result<()> {
            // SAFETY: this thread was made for this and ends here; nothing else runs on it that
            // could rely on the namespace that it had.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
            let own = format!(
                "/proc/self/task/{}/ns/net",
                rustix::thread::gettid().as_raw_nonzero()
            );
            rustix::mount::mount(own, &path, c"none", MountFlags::BIND, None)?;
            Ok(())
        });
        if let Err(error) = made {
            let _ = fs::remove_file(&path);
            return Err(refused(error));
        }
        let namespace = Self::open(name)?;
        crate::Netlink::open(&namespace)?.set_up("lo")?;
        Ok(namespace)
    }

    /// The one with this name.
    pub fn open(name: &str) -> Result<Self> {
        let path = path_of(name)?;
        let file = fs::File::open(path)
            .map_err(|error| Error::refused(format!("open namespace {name}"), error))?;
        Ok(Self {
            file: Arc::new(file.into()),
            name: Some(name.to_owned()),
        })
    }

    /// The one that the calling thread is in.
    pub fn current() -> Result<Self> {
        let file = fs::File::open("/proc/thread-self/ns/net")
            .map_err(|error| Error::refused("open the current namespace", error))?;
        Ok(Self {
            file: Arc::new(file.into()),
            name: None,
        })
    }

    /// The one that process `pid` is in.
    pub fn of_process(pid: u32) -> Result<Self> {
        let file = fs::File::open(format!("/proc/{pid}/ns/net"))
            .map_err(|error| Error::refused(format!("open the namespace of {pid}"), error))?;
        Ok(Self {
            file: Arc::new(file.into()),
            name: None,
        })
    }

    /// Takes the name away. The namespace itself goes with its last process and the last open
    /// [`Namespace`]; veth pairs into it go with it. No error if there is no such name.
    pub fn delete(name: &str) -> Result<()> {
        let path = path_of(name)?;
        let refused = |error: io::Error| Error::refused(format!("delete namespace {name}"), error);
        match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(refused(error.into())),
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refused(error)),
            _ => Ok(()),
        }
    }

    /// All names that begin with `prefix`, sorted.
    pub fn list(prefix: &str) -> Result<Vec<String>> {
        let entries = match fs::read_dir(NAMESPACES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| Error::refused("list namespaces", error))?,
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort();
        Ok(names)
    }

    /// The name it was opened by.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The number by which the kernel tells the namespaces apart that exist now. One that is made
    /// later may get the number of one that is gone: see [`Self::cookie`].
    pub fn inode(&self) -> Result<u64> {
        let stat = rustix::fs::fstat(&self.file)
            .map_err(|error| Error::refused("read the namespace's number", error))?;
        Ok(stat.st_ino)
    }

    /// A number that no other namespace has had, or will have, until the machine boots again.
    pub fn cookie(&self) -> Result<u64> {
        self.run(cookie_here)?
            .map_err(|error| Error::refused("read the namespace's cookie", error))
    }

    /// Runs `work` on a thread in this namespace and waits for it.
    ///
    /// # Panics
    /// If `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_a_thread(|| {
            self.enter_this_thread()?;
            Ok(work())
        })
    }

    /// Moves the calling thread into this namespace for the rest of its life. For threads and
    /// processes that do nothing else; see [`Self::run`] for all others.
    pub fn enter_this_thread(&self) -> Result<()> {
        rustix::thread::move_into_link_name_space(
            self.file.as_fd(),
            Some(LinkNameSpaceType::Network),
        )
        .map_err(|error| Error::refused(format!("enter namespace {}", self.shown()), error))
    }

    /// Makes `command` start in this namespace.
    pub fn place<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let file = Arc::clone(&self.file);
        let enter = move || {
            // SAFETY: a plain system call on a descriptor that the closure keeps open; allowed
            // after fork.
            match unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: the closure only makes a system call; it takes no lock and no memory.
        unsafe { command.pre_exec(enter) }
    }

    /// The processes that are in this namespace now, by number.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let inode = self.inode()?;
        let entries =
            fs::read_dir("/proc").map_err(|error| Error::refused("list processes", error))?;
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid: &u32| {
                // It may be gone by now: then it is in no namespace.
                fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| meta.ino() == inode)
            })
            .collect())
    }

    /// Sets a value below `/proc/sys/net`, named as in `ipv4/ip_forward`.
    pub fn set(&self, setting: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(setting);
        self.run(|| fs::write(path, value))?
            .map_err(|error| Error::refused(format!("set net/{setting} to {value}"), error))
    }

    /// Reads a value below `/proc/sys/net`.
    pub fn setting(&self, setting: &str) -> Result<String> {
        let path = Path::new("/proc/sys/net").join(setting);
        self.run(|| fs::read_to_string(path))?
            .map(|text| text.trim().to_owned())
            .map_err(|error| Error::refused(format!("read net/{setting}"), error))
    }

    fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or("without a name")
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn path_of(name: &str) -> Result<PathBuf> {
    let reason = if name.is_empty() || name.len() > NAME_BYTES_MAX {
        "it must have 1 to 200 characters"
    } else if name.starts_with(['.', '-']) {
        "it must not begin with a dot or a hyphen"
    } else if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    {
        "only letters, digits, '-', '_' and '.' are allowed"
    } else {
        return Ok(Path::new(NAMESPACES).join(name));
    };
    Err(Error::BadName {
        object: "a namespace",
        name: name.to_owned(),
        reason,
    })
}

/// Makes the folder a shared mount of its own, so that a name deleted here is gone in every mount
/// namespace.
fn prepare_folder() -> Result<()> {
    let refused = |error: io::Error| Error::refused(format!("prepare {NAMESPACES}"), error);
    fs::create_dir_all(NAMESPACES).map_err(refused)?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    if rustix::mount::mount_change(NAMESPACES, shared).is_ok() {
        return Ok(());
    }
    rustix::mount::mount(
        NAMESPACES,
        NAMESPACES,
        c"none",
        MountFlags::BIND | MountFlags::REC,
        None,
    )
    .and_then(|()| rustix::mount::mount_change(NAMESPACES, shared))
    .map_err(|error| refused(error.into()))
}
