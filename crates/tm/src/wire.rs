//! Fixed-layout little-endian fields of the links between our own processes.
//!
//! A reader checks every length before it reads: the other side may be of another release. Strings
//! and lists have a 32-bit length in front.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Appends fields.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u32(u32::try_from(value.len()).expect("our messages are below 4 GiB"));
        self.bytes.extend_from_slice(value);
        self
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// 23 bytes: family, port, scope, 16 bytes of address.
    pub(crate) fn address(&mut self, value: SocketAddr) -> &mut Self {
        match value {
            SocketAddr::V4(v4) => {
                self.u8(4).u16(v4.port()).u32(0);
                self.bytes.extend_from_slice(&v4.ip().octets());
                self.bytes.extend_from_slice(&[0; 12]);
            }
            SocketAddr::V6(v6) => {
                self.u8(6).u16(v6.port()).u32(v6.scope_id());
                self.bytes.extend_from_slice(&v6.ip().octets());
            }
        }
        self
    }
}

/// A message that ends too early, or says what cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed message")]
pub(crate) struct Malformed;

/// Takes fields off the front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take::<1>()?[0])
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()? as usize;
        if length > self.rest.len() {
            return Err(Malformed);
        }
        let (head, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        core::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    pub(crate) fn address(&mut self) -> Result<SocketAddr, Malformed> {
        let family = self.u8()?;
        let port = self.u16()?;
        let scope = self.u32()?;
        let octets = self.take::<16>()?;
        match family {
            4 => {
                let v4 = [octets[0], octets[1], octets[2], octets[3]];
                Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(v4)), port))
            }
            6 => Ok(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, scope).into()),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_survive_and_cut_messages_are_refused() {
        let addresses: [SocketAddr; 2] = [
            "127.0.0.1:80".parse().unwrap(),
            "[fe80::1%3]:443".parse().unwrap(),
        ];
        let mut writer = Writer::new();
        writer
            .u8(1)
            .u16(2)
            .u32(3)
            .u64(4)
            .text("five")
            .address(addresses[0])
            .address(addresses[1]);
        let bytes = writer.bytes;
        let read = |bytes: &[u8]| -> Result<_, Malformed> {
            let mut r = Reader::new(bytes);
            let numbers = (r.flag()?, r.u16()?, r.u32()?, r.u64()?);
            let text = r.text()?.to_owned();
            Ok((numbers, text, [r.address()?, r.address()?], r.is_empty()))
        };
        assert_eq!(
            read(&bytes),
            Ok(((true, 2, 3, 4), "five".to_owned(), addresses, true))
        );
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Err(Malformed));
        }
    }
}
