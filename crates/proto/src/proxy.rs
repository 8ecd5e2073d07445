//! The PROXY protocol, versions 1 and 2: who the client is, in front of what it sends
//! (HAProxy's proxy-protocol.txt).
//!
//! A header is found at the beginning of a stream or nowhere; it is read whole or not at all, so
//! there is no state but the bytes that have come. What is not a header is a fault: a stream whose
//! sender is configured to send one has no meaning without it.
//!
//! Not here: who may be believed, and what becomes of the rest of the stream.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, line end included.
pub const V1_BYTES_MAX: usize = 107;
/// The longest header of version 2 that is read: addresses and 1 KiB of further values. Ours has at
/// most 52 bytes.
pub const V2_BYTES_MAX: usize = 16 + 1_024;

const V2_START: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEADER: usize = 16;

/// Client and server of the connection that a header is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// What stands at the beginning of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// What there is may be the beginning of a header.
    Partial,
    /// A header of so many bytes. `None`: its sender speaks for itself (LOCAL, as in a health check),
    /// or does not know (UNKNOWN, or a family that is none of IP).
    Header {
        bytes: usize,
        addresses: Option<Addresses>,
    },
}

/// Why bytes are no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    #[error("the stream begins with no PROXY header")]
    Absent,
    #[error("a PROXY line is not one of its two forms, or too long")]
    Line,
    #[error("a PROXY header has another version, command or family than there are")]
    Kind,
    #[error("a PROXY header is too short for its addresses, or too long")]
    Length,
}

/// Looks for a header in the first bytes of a stream.
pub fn find(input: &[u8]) -> Result<Found, Malformed> {
    const V1: &[u8] = b"PROXY ";
    let begins = |start: &[u8]| {
        let shared = start.len().min(input.len());
        start[..shared] == input[..shared]
    };
    if begins(V1) {
        return find_v1(input);
    }
    if begins(&V2_START) {
        return find_v2(input);
    }
    Err(Malformed::Absent)
}

fn find_v1(input: &[u8]) -> Result<Found, Malformed> {
    let seen = &input[..input.len().min(V1_BYTES_MAX)];
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return match input.len() < V1_BYTES_MAX {
            true => Ok(Found::Partial),
            false => Err(Malformed::Line),
        };
    };
    let line = std::str::from_utf8(&seen[..end]).map_err(|_| Malformed::Line)?;
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().ok_or(Malformed::Line);
    let addresses = match word()? {
        // What stands behind it is to be ignored.
        "UNKNOWN" => None,
        family @ ("TCP4" | "TCP6") => {
            let (source, destination) = (word()?, word()?);
            let (source_port, destination_port) = (word()?, word()?);
            if words.next().is_some() {
                return Err(Malformed::Line);
            }
            let is_v4 = family == "TCP4";
            Some(Addresses {
                source: SocketAddr::new(address(source, is_v4)?, port(source_port)?),
                destination: SocketAddr::new(address(destination, is_v4)?, port(destination_port)?),
            })
        }
        _ => return Err(Malformed::Line),
    };
    Ok(Found::Header {
        bytes: end + 2,
        addresses,
    })
}

fn address(text: &str, is_v4: bool) -> Result<IpAddr, Malformed> {
    let address: IpAddr = text.parse().map_err(|_| Malformed::Line)?;
    match address.is_ipv4() == is_v4 {
        true => Ok(address),
        false => Err(Malformed::Line),
    }
}

/// Without leading zeros: others may read them otherwise.
fn port(text: &str) -> Result<u16, Malformed> {
    let is_canonical = text == "0" || !text.starts_with(['0', '+']);
    let port = text.parse().ok().filter(|_| is_canonical);
    port.ok_or(Malformed::Line)
}

fn find_v2(input: &[u8]) -> Result<Found, Malformed> {
    let Some([version_command, family, length_high, length_low]) = input
        .get(V2_START.len()..V2_HEADER)
        .and_then(|rest| <[u8; 4]>::try_from(rest).ok())
    else {
        return Ok(Found::Partial);
    };
    let is_local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed::Kind),
    };
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    let bytes = V2_HEADER + length;
    if bytes > V2_BYTES_MAX {
        return Err(Malformed::Length);
    }
    let needed = match family {
        // Unspecified, or Unix sockets: whoever it is has no address that we could use.
        0x00 | 0x31 | 0x32 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        _ => return Err(Malformed::Kind),
    };
    if !is_local && length < needed {
        return Err(Malformed::Length);
    }
    let Some(body) = input.get(V2_HEADER..bytes) else {
        return Ok(Found::Partial);
    };
    let addresses = match needed {
        _ if is_local => None,
        12 => Some(read_addresses::<4>(body)),
        36 => Some(read_addresses::<16>(body)),
        _ => None,
    };
    Ok(Found::Header { bytes, addresses })
}

/// Source, destination and both ports; `body` is long enough.
fn read_addresses<const BYTES: usize>(body: &[u8]) -> Addresses {
    let ip = |at: usize| match BYTES {
        4 => IpAddr::V4(Ipv4Addr::from(four(body, at))),
        _ => IpAddr::V6(Ipv6Addr::from(sixteen(body, at))),
    };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    Addresses {
        source: SocketAddr::new(ip(0), port(2 * BYTES)),
        destination: SocketAddr::new(ip(BYTES), port(2 * BYTES + 2)),
    }
}

fn four(body: &[u8], at: usize) -> [u8; 4] {
    body[at..at + 4].try_into().expect("four of four bytes")
}

fn sixteen(body: &[u8], at: usize) -> [u8; 16] {
    body[at..at + 16]
        .try_into()
        .expect("sixteen of sixteen bytes")
}

/// Appends a header of version 1. An address of either family beside one of the other goes as IPv6,
/// mapped.
pub fn write_v1(addresses: Addresses, out: &mut Vec<u8>) {
    let Addresses {
        source,
        destination,
    } = same_family(addresses);
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    write!(
        out,
        "PROXY {family} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    )
    .expect("a vector takes all writes");
}

/// Appends a header of version 2. `None`: we speak for ourselves, as in a health check.
pub fn write_v2(addresses: Option<Addresses>, out: &mut Vec<u8>) {
    out.extend(V2_START);
    let Some(addresses) = addresses else {
        return out.extend([0x20, 0, 0, 0]);
    };
    let Addresses {
        source,
        destination,
    } = same_family(addresses);
    let (family, length) = if source.is_ipv4() {
        (0x11, 12)
    } else {
        (0x21, 36)
    };
    out.extend([0x21, family, 0, length]);
    for address in [source, destination] {
        match address.ip() {
            IpAddr::V4(ip) => out.extend(ip.octets()),
            IpAddr::V6(ip) => out.extend(ip.octets()),
        }
    }
    for address in [source, destination] {
        out.extend(address.port().to_be_bytes());
    }
}

fn same_family(addresses: Addresses) -> Addresses {
    let Addresses {
        source,
        destination,
    } = addresses;
    if source.is_ipv4() == destination.is_ipv4() {
        return addresses;
    }
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    Addresses {
        source: mapped(source),
        destination: mapped(destination),
    }
}

#[cfg(test)]
mod tests;
