//! Programs that outlive who started them.
//!
//! A daemon is forked twice, so that it is nobody's child, leads a session of its own, and is found
//! again by its pid file. A pid file holds the process number and the time of its start, in ticks
//! since boot: numbers are used again, the two together are not. `execve` changes neither, so a
//! program that replaces itself is still the same daemon.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hitless_net::Namespace;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

/// A process that runs, told apart from any later one with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// Ticks from boot to its start.
    pub started_ticks: u64,
}

impl Process {
    /// The process that has number `pid` now. None if there is none, or only its remains.
    pub fn find(pid: u32) -> Option<Self> {
        Stat::read(pid).map(|stat| stat.process)
    }

    /// This very process.
    pub fn own() -> Option<Self> {
        Self::find(std::process::id())
    }

    /// The process that a pid file names, if it still runs.
    pub fn from_file(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let written = Self {
            pid: pid.parse().ok()?,
            started_ticks: started.parse().ok()?,
        };
        written.is_alive().then_some(written)
    }

    /// Writes the pid file, in one step.
    pub fn write_file(self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("pid-new");
        fs::write(&new, format!("{} {}\n", self.pid, self.started_ticks))?;
        fs::rename(new, path)
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// Whether it leads its session, as daemons of this module do and their children do not.
    ///
    /// A session that began outside our process namespace, as a container's first does, has number
    /// 0, which nobody leads; getsid(2) wrappers that take its result for a process number break.
    pub fn leads_session(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.process == self && stat.session == self.pid)
    }

    /// Sends a signal. No error if it is gone.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        let Some(handle) = self.open()? else {
            return Ok(());
        };
        match rustix::process::pidfd_send_signal(handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it is gone. False if it is still there after `limit`.
    pub fn wait_gone(self, limit: Duration) -> io::Result<bool> {
        let Some(handle) = self.open()? else {
            return Ok(true);
        };
        let deadline = Instant::now() + limit;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let rest = Timespec::try_from(rest).unwrap_or(Timespec {
                tv_sec: 60,
                tv_nsec: 0,
            });
            match rustix::event::poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&rest)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A handle on it, which cannot come to mean another process. None if it is gone.
    fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = pid_of(self.pid) else {
            return Ok(None);
        };
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            // Checked after opening: from here on the handle's process and the number's are the
            // same.
            Ok(handle) => Ok(self.is_alive().then_some(handle)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// What the kernel says of a live process, proc_pid_stat(5).
struct Stat {
    process: Process,
    session: u32,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name in parentheses, which may hold anything, parentheses
        // included.
        let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
        let state = fields.next()?;
        if matches!(state, "Z" | "X") {
            return None;
        }
        // State was field 3, the session is field 6, the start field 22.
        let session = fields.nth(2)?.parse().ok()?;
        let started_ticks = fields.nth(15)?.parse().ok()?;
        Some(Self {
            process: Process { pid, started_ticks },
            session,
        })
    }
}

fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// What to start, and where.
#[derive(Debug)]
pub struct Daemon<'a> {
    pub binary: &'a Path,
    pub arguments: &'a [String],
    pub environment: &'a [(String, String)],
    pub namespace: &'a Namespace,
    /// Files that a process joins a control group by.
    pub cgroups: &'a [PathBuf],
    pub log: &'a Path,
    pub pid_file: &'a Path,
}

impl Daemon<'_> {
    /// Starts it. When this returns, the program runs (its file has been executed) and the pid file
    /// is written.
    pub fn spawn(&self) -> io::Result<Process> {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.log)?;
        let (mut pid_reader, pid_writer) = io::pipe()?;
        let cgroups: Vec<File> = self
            .cgroups
            .iter()
            .map(|path| OpenOptions::new().write(true).open(path))
            .collect::<io::Result<_>>()?;

        let mut command = Command::new(self.binary);
        command
            .args(self.arguments)
            .envs(
                self.environment
                    .iter()
                    .map(|(name, value)| (name, OsStr::new(value))),
            )
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.namespace.place(&mut command);
        let fork_again = move || {
            for cgroup in &cgroups {
                // SAFETY: a system call on an open file with a constant buffer. "0" means the
                // writer itself.
                if unsafe { libc::write(cgroup.as_raw_fd(), c"0".as_ptr().cast(), 1) } != 1 {
                    return Err(io::Error::last_os_error());
                }
            }
            // SAFETY: this process has one thread and is about to execute a program; the parent
            // half ends at once by `_exit`, which runs no destructors, and the child half goes on
            // just as this half would have.
            match unsafe { libc::fork() } {
                -1 => Err(io::Error::last_os_error()),
                0 => {
                    // SAFETY: a system call without arguments.
                    match unsafe { libc::setsid() } {
                        -1 => Err(io::Error::last_os_error()),
                        _ => Ok(()),
                    }
                }
                child => {
                    let bytes = child.to_ne_bytes();
                    // SAFETY: a system call on an open pipe with a buffer of the given size, then
                    // the end of this process. A pid that could not be written is noticed by the
                    // reader.
                    unsafe {
                        libc::write(pid_writer.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
                        libc::_exit(0);
                    }
                }
            }
        };
        // SAFETY: the closure makes only system calls that are allowed between fork and exec, and
        // takes no lock and no memory.
        unsafe { command.pre_exec(fork_again) };
        // Returns when the program has been executed, or with the reason why it could not be, from
        // whichever half.
        let mut half = command.spawn()?;
        // The command holds the closure and with it our copy of the pipe's end.
        drop(command);
        half.wait()?;
        let mut bytes = [0; 4];
        pid_reader.read_exact(&mut bytes)?;
        let pid = u32::from_ne_bytes(bytes);
        let process = Process::find(pid)
            .ok_or_else(|| io::Error::other("it ended at once; its log says why"))?;
        process.write_file(self.pid_file)?;
        Ok(process)
    }
}
