//! The only place where connections to members are opened.
//!
//! With an egress address, the source port's low 10 bits are the high 10 bits of the client's
//! bucket, so that a member's answers find a director and the same row as the client's packets: 63
//! ports per group and address (the 64th, below 1024, is never used). Without one, the kernel
//! chooses both, and the connection cannot move to another host.

use core::net::SocketAddr;
use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Where a connection to a member comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// As the kernel's routes say.
    Any,
    /// An egress address of the virtual cluster (its port is ignored), and the client's bucket.
    Group { address: SocketAddr, bucket: u16 },
}

/// A socket that does not block, and whether its connection stands already.
#[derive(Debug)]
pub struct Opened {
    pub socket: OwnedFd,
    pub is_connected: bool,
}

/// Opens a connection. An error here is as good as a refused connection: another member may do.
pub fn connect(member: SocketAddr, source: Source) -> io::Result<Opened> {
    let socket = match source {
        Source::Any => open(member)?,
        Source::Group { address, bucket } => open_in_group(member, address, bucket)?,
    };
    match rustix::net::connect(&socket, &member) {
        Ok(()) => Ok(Opened {
            socket,
            is_connected: true,
        }),
        Err(rustix::io::Errno::INPROGRESS) => Ok(Opened {
            socket,
            is_connected: false,
        }),
        Err(errno) => Err(errno.into()),
    }
}

fn open(member: SocketAddr) -> io::Result<OwnedFd> {
    let family = match member {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

/// The ports of a group, a different one first for each call, so that calls rarely collide.
fn open_in_group(member: SocketAddr, address: SocketAddr, bucket: u16) -> io::Result<OwnedFd> {
    use core::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const PORTS: u16 = 63;
    let first = NEXT.fetch_add(1, Ordering::Relaxed);
    let socket = open(member)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    for step in 0..PORTS {
        let high = 1 + (first.wrapping_add(step)) % PORTS;
        let mut from = address;
        from.set_port(high << 10 | bucket >> 6);
        match rustix::net::bind(&socket, &from) {
            Ok(()) => return Ok(socket),
            Err(rustix::io::Errno::ADDRINUSE) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        "all ports of the client's group are in use",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_decides_the_low_bits_of_the_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let member = listener.local_addr().unwrap();
        for bucket in [0x0000, 0x1234, 0xffff] {
            let source = Source::Group {
                address: "127.0.0.1:0".parse().unwrap(),
                bucket,
            };
            let opened = connect(member, source).unwrap();
            let (_, from) = listener.accept().unwrap();
            assert_eq!(from.port() & 0x3ff, bucket >> 6);
            assert!(from.port() >= 1024);
            drop(opened);
        }
    }
}
