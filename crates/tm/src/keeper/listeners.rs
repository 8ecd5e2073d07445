//! Listening sockets: per address a fixed set, one for each event loop, open for as long as the
//! keeper lives.
//!
//! All sockets of a set share the address by SO_REUSEPORT. Since that would also let a second
//! program of the same user join in unnoticed, an address is first tried without it: whoever has it
//! already makes that fail.

use core::net::SocketAddr;
use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Connections that may wait to be accepted; the kernel's own limit may be lower.
const BACKLOG: i32 = 4096;

#[derive(Debug)]
pub(super) struct Listener {
    /// As the configuration says, maybe with port 0.
    pub(super) requested: SocketAddr,
    /// As the kernel says.
    pub(super) bound: SocketAddr,
    /// One per lane.
    pub(super) sockets: Vec<OwnedFd>,
}

/// Binds and listens; all or nothing. With `cuts`, what is accepted here is reset when it is closed
/// by a death, since the kernel's clean end would make a stream that was cut look complete; whoever
/// ends one as it should be says so before.
pub(super) fn bind(requested: SocketAddr, lanes: u32, cuts: bool) -> io::Result<Listener> {
    let probe = socket(requested, false)?;
    rustix::net::bind(&probe, &requested)?;
    // A listener elsewhere that set SO_REUSEADDR only shows itself here.
    rustix::net::listen(&probe, 0)?;
    let bound = local_address(&probe)?;
    drop(probe);
    let mut sockets = Vec::with_capacity(lanes as usize);
    for _ in 0..lanes {
        let socket = socket(bound, true)?;
        rustix::net::bind(&socket, &bound)?;
        sockets.push(socket);
    }
    for socket in &sockets {
        if cuts {
            // Accepted sockets inherit it, so it costs nothing for each.
            sockopt::set_socket_linger(socket, Some(core::time::Duration::ZERO))?;
        }
        rustix::net::listen(socket, BACKLOG)?;
    }
    Ok(Listener {
        requested,
        bound,
        sockets,
    })
}

fn socket(address: SocketAddr, is_shared: bool) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if is_shared {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

fn local_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let address = rustix::net::getsockname(socket)?;
    SocketAddr::try_from(address)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not an internet address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_shares_its_port_and_nobody_else_joins() {
        let set = bind("127.0.0.1:0".parse().unwrap(), 3, true).unwrap();
        assert_eq!(set.sockets.len(), 3);
        assert_ne!(set.bound.port(), 0);
        let error = bind(set.bound, 2, true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn what_is_accepted_and_dropped_is_a_reset() {
        use std::io::Read;

        for (cuts, is_reset) in [(true, true), (false, false)] {
            let set = bind("127.0.0.1:0".parse().unwrap(), 1, cuts).unwrap();
            let mut client = std::net::TcpStream::connect(set.bound).unwrap();
            rustix::net::accept(&set.sockets[0]).map(drop).unwrap();
            assert_eq!(client.read(&mut [0]).is_err(), is_reset);
        }
    }
}
