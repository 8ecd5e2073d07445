//! A process that shares another one's descriptors, and nothing else, so that they outlive a
//! `SIGKILL` of that one.
//!
//! A descriptor that `accept` has just returned is in its program's table alone: a kill in the next
//! microseconds closes it before anybody else has a duplicate. The table itself is not the
//! program's alone, though: a *twin* has it too. It sleeps until its keeper asks it, after the
//! program's death, for the connections of which no byte was read or written, passes them on, and
//! ends. It never touches a descriptor before, and never runs while its program lives.
//!
//! The table is closed when the last process that has it ends. So whoever holds the other end of
//! the twin's channel has to drop it as soon as the program is gone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::net::SocketType;

use crate::message;
use crate::socket::{TcpState, progress};

/// Descriptors in one packet of an answer.
const BATCH: usize = message::FDS_MAX;
/// The byte of a packet that is followed by others, and of the last one.
const MORE: u8 = 1;
const LAST: u8 = 2;

/// Makes the twin of this process, which must not have other threads yet. Its parent is this
/// process's parent, who collects it by the descriptor that is returned. It ends when the other end
/// of `channel` is closed.
pub fn make(channel: &OwnedFd) -> io::Result<OwnedFd> {
    let mut pidfd: libc::c_int = -1;
    let flags = libc::CLONE_FILES | libc::CLONE_PARENT | libc::CLONE_PIDFD;
    // SAFETY: without CLONE_VM and with no stack of its own, the new process goes on here with a
    // copy of this one's memory, as after fork; there is no other thread that could hold a lock.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            flags as libc::c_ulong,
            core::ptr::null_mut::<libc::c_void>(),
            &raw mut pidfd,
            core::ptr::null_mut::<libc::c_void>(),
            core::ptr::null_mut::<libc::c_void>(),
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => sleep_and_serve(channel.as_fd()),
        // SAFETY: the kernel has just opened it for us.
        _ => Ok(unsafe { OwnedFd::from_raw_fd(pidfd) }),
    }
}

/// Asks a twin whose program is dead for its untouched connections. Waits for as long as it takes
/// to look at every descriptor: some microseconds for each, at most `patience_ms` between packets.
pub fn ask(channel: &OwnedFd, patience_ms: i32) -> io::Result<Vec<OwnedFd>> {
    message::send(channel, &[&[MORE]], &[], false)?;
    let mut fds = Vec::new();
    loop {
        let mut polled = [rustix::event::PollFd::new(
            channel,
            rustix::event::PollFlags::IN,
        )];
        let timeout = rustix::event::Timespec {
            tv_sec: i64::from(patience_ms / 1000),
            tv_nsec: i64::from(patience_ms % 1000) * 1_000_000,
        };
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let mut byte = [0u8; 8];
        let received = message::receive(channel, &mut byte, &mut fds, false)?;
        match byte[..received.len].first() {
            Some(&LAST) => return Ok(fds),
            Some(_) => {}
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The twin's life. It leaves by `_exit`: nothing that it would drop is its own.
fn sleep_and_serve(channel: BorrowedFd<'_>) -> ! {
    let name = c"hitless-twin";
    let _ = rustix::thread::set_name(name);
    let mut byte = [0u8; 8];
    let mut none = Vec::new();
    while let Ok(received) = message::receive(channel, &mut byte, &mut none, true)
        && received.len > 0
    {
        if tell(channel).is_err() {
            break;
        }
    }
    // SAFETY: ends this process alone, and runs nothing.
    unsafe { libc::_exit(0) }
}

fn tell(channel: BorrowedFd<'_>) -> io::Result<()> {
    let mut batch: Vec<BorrowedFd<'_>> = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        // SAFETY: open when it was listed, and the program that could close it is dead. The one of
        // the listing itself is no socket; a number that is closed gives errors.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        if !is_untouched(fd) {
            continue;
        }
        batch.push(fd);
        if batch.len() == BATCH {
            message::send(channel, &[&[MORE]], &batch, true)?;
            batch.clear();
        }
    }
    message::send(channel, &[&[LAST]], &batch, true)
}

/// A TCP connection of which no program has read or written a byte.
fn is_untouched(fd: BorrowedFd<'_>) -> bool {
    rustix::net::sockopt::socket_type(fd) == Ok(SocketType::STREAM)
        && rustix::net::sockopt::socket_acceptconn(fd) == Ok(false)
        && progress(fd).is_ok_and(|now| now.state == TcpState::Open && now.read + now.written == 0)
}
