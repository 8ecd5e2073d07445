//! What the kernel says about a TCP connection: its state and how many bytes it has seen.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// States of a connection that matter to who adopts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcpState {
    /// The handshake towards the other side is under way.
    Connecting,
    /// Data may flow in one direction at least.
    Open,
    /// Both directions are over, or it was reset.
    Closed,
}

/// How far a connection has come, from the kernel's own counters. They are relative to the end of
/// the handshake of an accepted connection, and independent of what any program remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    pub state: TcpState,
    /// Bytes that programs have read from it.
    pub read: u64,
    /// Bytes that programs have written to it.
    pub written: u64,
}

// Offsets in the kernel's struct tcp_info, which only ever grows at its end.
const STATE: usize = 0;
const BYTES_ACKED: usize = 120;
const BYTES_RECEIVED: usize = 128;
const INFO_BYTES: usize = 136;

const TCP_ESTABLISHED: u8 = 1;
const TCP_SYN_SENT: u8 = 2;
const TCP_SYN_RECV: u8 = 3;
const TCP_FIN_WAIT1: u8 = 4;
const TCP_FIN_WAIT2: u8 = 5;
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LAST_ACK: u8 = 9;
const TCP_CLOSING: u8 = 11;

/// Reads the counters until two readings around the queue lengths agree, so that they belong
/// together.
pub fn progress(socket: impl AsFd) -> io::Result<Progress> {
    let socket = socket.as_fd();
    let mut info = tcp_info(socket)?;
    loop {
        let unread = ioctl_int(socket, libc::FIONREAD)?;
        let unacknowledged = ioctl_int(socket, libc::TIOCOUTQ)?;
        let again = tcp_info(socket)?;
        if again != info {
            info = again;
            continue;
        }
        let (state, acked, received) = info;
        // A FIN counts as one byte received, but is never read; likewise our own, once
        // acknowledged.
        let received_fin = matches!(
            state,
            TCP_CLOSE_WAIT | TCP_LAST_ACK | TCP_CLOSING | TCP_TIME_WAIT | TCP_CLOSE
        );
        let received = received.saturating_sub(u64::from(received_fin));
        return Ok(Progress {
            state: match state {
                TCP_SYN_SENT | TCP_SYN_RECV => TcpState::Connecting,
                TCP_ESTABLISHED | TCP_FIN_WAIT1 | TCP_FIN_WAIT2 | TCP_CLOSE_WAIT => TcpState::Open,
                _ => TcpState::Closed,
            },
            read: received.saturating_sub(unread),
            written: acked + unacknowledged,
        });
    }
}

fn tcp_info(socket: std::os::fd::BorrowedFd<'_>) -> io::Result<(u8, u64, u64)> {
    let mut info = [0u8; INFO_BYTES];
    let mut length = INFO_BYTES as libc::socklen_t;
    // SAFETY: the buffer is as long as `length` says, and the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < INFO_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "kernel without byte counters",
        ));
    }
    let word = |at: usize| {
        u64::from_ne_bytes(
            info[at..at + 8]
                .try_into()
                .expect("the range is 8 bytes long"),
        )
    };
    Ok((info[STATE], word(BYTES_ACKED), word(BYTES_RECEIVED)))
}

fn ioctl_int(socket: std::os::fd::BorrowedFd<'_>, request: libc::c_ulong) -> io::Result<u64> {
    let mut value: libc::c_int = 0;
    // SAFETY: both requests write one int.
    if unsafe { libc::ioctl(socket.as_raw_fd(), request, &mut value) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value as u64)
}

/// Lets a connection's receive buffer hold a window of so many bytes, as far as the system's limit
/// goes, and grow further by itself: `SO_RCVBUF` would end that. For who leaves bytes in the socket
/// until more of them have come: a window that is closed while it waits never opens again. Best
/// effort.
pub fn hold_window(socket: impl AsFd, bytes: u32) {
    // A mark makes room for itself; without one the room stays.
    for mark in [bytes.min(i32::MAX as u32) as libc::c_int, 1] {
        let mark = core::ptr::from_ref(&mark);
        // SAFETY: the option is one int, which lives as long as the call.
        unsafe {
            libc::setsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                mark.cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            );
        }
    }
}

/// Bytes in a pipe, given one of its ends.
pub fn bytes_in_pipe(end: impl AsFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(end)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn counters_say_what_was_read_and_written() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let fresh = progress(&server).unwrap();
        assert_eq!(
            fresh,
            Progress {
                state: TcpState::Open,
                read: 0,
                written: 0
            }
        );

        client.write_all(b"0123456789").unwrap();
        let mut four = [0u8; 4];
        server.read_exact(&mut four).unwrap();
        server.write_all(b"abc").unwrap();
        let mut three = [0u8; 3];
        client.read_exact(&mut three).unwrap();
        let now = progress(&server).unwrap();
        assert_eq!((now.read, now.written), (4, 3));

        client.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).unwrap();
        let now = progress(&server).unwrap();
        assert_eq!((now.state, now.read, now.written), (TcpState::Open, 10, 3));
    }
}
