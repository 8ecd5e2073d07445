//! An address with the length of its network: `192.0.2.1/24`, `2001:db8::1/64`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address and the number of leading bits that name its network. The bits behind them are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// `None` if `length` is more than the address has bits.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        (length <= bits(address)).then_some(Self { address, length })
    }

    /// The one address alone: /32 or /128.
    pub fn host(address: IpAddr) -> Self {
        Self {
            address,
            length: bits(address),
        }
    }

    /// The address, host bits included.
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// Leading bits that name the network.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether it is an IPv6 prefix.
    pub const fn is_ipv6(self) -> bool {
        self.address.is_ipv6()
    }

    /// The same network with all host bits 0.
    #[must_use]
    pub fn network(self) -> Self {
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(self.length))
                    .unwrap_or(0);
                IpAddr::V4((u32::from(address) & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.length))
                    .unwrap_or(0);
                IpAddr::V6((u128::from(address) & mask).into())
            }
        };
        Self { address, ..self }
    }

    /// The `index`-th address of the network, 0 being the network's own. `None` behind the last
    /// one.
    pub fn nth(self, index: u32) -> Option<IpAddr> {
        let host_bits = bits(self.address) - self.length;
        if host_bits < 32 && u64::from(index) >= 1_u64 << host_bits {
            return None;
        }
        Some(match self.network().address {
            IpAddr::V4(address) => IpAddr::V4((u32::from(address) | index).into()),
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) | u128::from(index)).into()),
        })
    }

    /// Whether `address` lies in the network.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_ipv6()
            && Self { address, ..self }.network().address == self.network().address
    }
}

const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A text that is no `address/length`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no prefix: expected ADDRESS/LENGTH, such as 192.0.2.0/24 or 2001:db8::/64")]
pub struct ParsePrefixError(String);

impl FromStr for Prefix {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (address, length) = text.split_once('/')?;
            Self::new(address.parse().ok()?, length.parse().ok()?)
        };
        parse().ok_or_else(|| ParsePrefixError(text.to_owned()))
    }
}

impl TryFrom<String> for Prefix {
    type Error = ParsePrefixError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}
