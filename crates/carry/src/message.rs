//! Packets with descriptors over Unix SEQPACKET sockets.
//!
//! A packet is delivered whole or not at all, and its descriptors belong to the kernel from the
//! moment `send` returns: they survive the sender's death. A packet that arrives with fewer
//! descriptors than were sent (the receiver is at its descriptor limit: MSG_CTRUNC) is marked,
//! since the kernel has closed the rest.

use core::mem::MaybeUninit;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};

/// Descriptors in one packet; the kernel's own limit is 253.
pub const FDS_MAX: usize = 240;

/// Bytes in one packet; fits the default socket buffer of 212,992 bytes.
pub const BYTES_MAX: usize = 128 * 1024;

/// What one receive brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Bytes; 0 means that the other side is gone (no packet of ours is empty).
    pub len: usize,
    /// Descriptors were lost: the receiver had no room for them.
    pub fds_lost: bool,
}

/// A connected pair of packet sockets, closed on exec, not blocking; senders choose to wait by
/// [`send`].
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (left, right) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    for socket in [&left, &right] {
        // More room lets a burst of packets go without a wait; the kernel may grant less.
        let _ = sockopt::set_socket_send_buffer_size(socket, 4 << 20);
        let _ = sockopt::set_socket_send_buffer_size_force(socket, 4 << 20);
    }
    Ok((left, right))
}

/// Sends one packet. With `wait`, blocks while the socket's buffer is full; without, fails with
/// `WouldBlock`.
pub fn send(
    socket: impl AsFd,
    parts: &[&[u8]],
    fds: &[BorrowedFd<'_>],
    wait: bool,
) -> io::Result<()> {
    assert!(
        fds.len() <= FDS_MAX,
        "a packet carries at most {FDS_MAX} descriptors"
    );
    let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        let pushed = control.push(SendAncillaryMessage::ScmRights(fds));
        assert!(pushed, "the space was made for FDS_MAX descriptors");
    }
    let mut flags = SendFlags::NOSIGNAL;
    if !wait {
        flags |= SendFlags::DONTWAIT;
    }
    loop {
        match rustix::net::sendmsg(&socket, &slices, &mut control, flags) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether the other side has not yet received all that was sent.
pub fn has_unread(socket: impl AsFd) -> io::Result<bool> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request (unix(7)) writes one integer, there.
    let result = unsafe {
        libc::ioctl(
            socket.as_fd().as_raw_fd(),
            libc::TIOCOUTQ,
            core::ptr::from_mut(&mut bytes),
        )
    };
    match result {
        0 => Ok(bytes > 0),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Receives one packet into `buffer`, appending its descriptors (closed on exec) to `fds`. A packet
/// longer than the buffer is an error: no packet of ours is.
pub fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    wait: bool,
) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    if !wait {
        flags |= RecvFlags::DONTWAIT;
    }
    let message = loop {
        let mut slices = [IoSliceMut::new(buffer)];
        match rustix::net::recvmsg(&socket, &mut slices, &mut control, flags) {
            Ok(message) => break message,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "packet longer than its buffer",
        ));
    }
    Ok(Received {
        len: message.bytes,
        fds_lost: message.flags.contains(ReturnFlags::CTRUNC),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_survive_their_sender() {
        let (left, right) = pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send(&left, &[b"a pipe"], &[reader.as_fd()], true).unwrap();
        drop((left, reader));
        rustix::io::write(&writer, b"bytes").unwrap();

        let mut buffer = [0u8; 64];
        let mut fds = Vec::new();
        let received = receive(&right, &mut buffer, &mut fds, true).unwrap();
        assert_eq!(
            received,
            Received {
                len: 6,
                fds_lost: false
            }
        );
        let mut bytes = [0u8; 8];
        assert_eq!(rustix::io::read(&fds[0], &mut bytes).unwrap(), 5);
        assert_eq!(
            receive(&right, &mut buffer, &mut fds, true).unwrap().len,
            0,
            "sender gone"
        );
    }

    #[test]
    fn a_full_socket_does_not_block_who_does_not_wait() {
        let (left, right) = pair().unwrap();
        let packet = vec![7u8; 8000];
        let mut sent = 0;
        let error = loop {
            match send(&left, &[&packet], &[], false) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let mut buffer = vec![0u8; BYTES_MAX];
        for _ in 0..sent {
            assert_eq!(
                receive(&right, &mut buffer, &mut Vec::new(), false)
                    .unwrap()
                    .len,
                8000
            );
        }
    }
}
