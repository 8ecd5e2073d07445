//! What a guest shall be.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use hitless_net::Prefix;
use serde::{Deserialize, Serialize};

/// A guest's name, unique on its node: 1 to 40 of `a-z`, `0-9` and `-`, not at the ends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GuestName(String);

impl GuestName {
    /// Longest name in bytes: with a prefix it still fits every place that shows it.
    pub const BYTES_MAX: usize = 40;

    /// The name, if it is one.
    pub fn new(name: impl Into<String>) -> Result<Self, String> {
        let name = name.into();
        let is_good = (1..=Self::BYTES_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        if is_good {
            Ok(Self(name))
        } else {
            Err(format!(
                "{name:?} is no guest's name: 1 to 40 of a-z, 0-9 and '-', '-' not at the ends"
            ))
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for GuestName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::new(name)
    }
}

impl From<GuestName> for String {
    fn from(name: GuestName) -> Self {
        name.0
    }
}

impl fmt::Display for GuestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All that a driver needs to know of a guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestSpec {
    pub name: GuestName,
    /// The guest's own addresses, one of each family that it uses, as /32 and /128.
    pub addresses: Vec<Prefix>,
    /// Addresses that it serves; they lie on its loopback interface.
    pub vips: Vec<IpAddr>,
    pub gateways: Gateways,
    /// MTU of its link.
    pub mtu: u32,
    /// Largest segment that it offers to IPv4 clients: the MTU less headers and encapsulation.
    /// None: no offer of its own.
    pub advertised_mss_v4: Option<u32>,
    /// The same for IPv6.
    pub advertised_mss_v6: Option<u32>,
    pub limits: Limits,
    /// What runs in it, in the order of starting.
    pub programs: Vec<Program>,
}

/// Addresses of the node's end of the guest's link. All guests of a node can use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateways {
    /// None: the guest has no IPv4 route.
    pub v4: Option<Ipv4Addr>,
    /// A link-local address. None: the guest has no IPv6 route.
    pub v6: Option<Ipv6Addr>,
}

/// What a guest may use. None is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub processes_max: Option<u64>,
    pub memory_bytes_max: Option<u64>,
    /// 100 is one processor.
    pub cpu_percent_max: Option<u32>,
}

/// A program of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Unique in the guest, such as `ingress`; its pid file and log are called so.
    pub name: String,
    /// Absolute path.
    pub binary: PathBuf,
    pub arguments: Vec<String>,
    /// Added to the caller's own environment.
    pub environment: Vec<(String, String)>,
    /// Whether the guest's [`Limits`] count it. What the cluster's leases hang on is not counted: a
    /// guest whose other programs take all that it may take must not fall silent.
    #[serde(default = "yes")]
    pub is_limited: bool,
}

const fn yes() -> bool {
    true
}
