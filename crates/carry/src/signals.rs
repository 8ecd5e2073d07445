//! Signals as a descriptor: nothing runs in a handler.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// A set of blocked signals that are read from a descriptor.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks the signals in this thread (call it before others are made) and opens the descriptor.
    /// Signals that were sent while the program was replaced stay pending and are read here.
    pub fn open(signals: &[i32]) -> io::Result<Self> {
        // SAFETY: `set` is initialised by sigemptyset before use, and the calls only read it.
        let fd = unsafe {
            let mut set = core::mem::zeroed();
            libc::sigemptyset(&mut set);
            for &signal in signals {
                libc::sigaddset(&mut set, signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &set, core::ptr::null_mut()) < 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { fd })
    }

    /// The next signal that came, if any.
    pub fn next(&self) -> Option<i32> {
        let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut record) {
            Ok(read) if read == record.len() => {
                let number = u32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
                Some(number as i32)
            }
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
