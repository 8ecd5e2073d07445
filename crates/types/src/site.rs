//! A site: the pools, virtual servers and settings of one traffic manager, as the workers consume
//! them.
//!
//! Invariants of every [`Site`]: names are unique; a virtual server's pool exists; a pool has at
//! least one member and no address twice; no two virtual servers listen on one address; every
//! duration, size and count lies within the bounds named in [`bounds`]. A site is made from a file,
//! so the file's text is what processes hand to each other; reading it again gives the same site.
//!
//! What this deliberately does not do: resolve host names, look at the network, or know what is
//! running.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use serde::Serialize;

pub mod bounds;
pub mod fields;
mod read;
mod settings;
mod tls;

pub use settings::{Admin, Limits, Timeouts};
pub use tls::{Certificate, ClientCertificates, FileName, MembersTls, Tls, TlsVersion, Verify};

/// The validated configuration. Pools and virtual servers are in the order of their names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Site {
    pub pools: Vec<Pool>,
    pub virtual_servers: Vec<VirtualServer>,
    pub timeouts: Timeouts,
    pub limits: Limits,
    /// Where metrics are served over HTTP. `None`: nowhere, only through the control socket.
    pub admin: Option<Admin>,
}

impl Site {
    /// The pool that a virtual server sends to.
    pub fn pool_of(&self, server: &VirtualServer) -> &Pool {
        &self.pools[server.pool.0]
    }

    /// Every file that it names, in the order of the file.
    pub fn files(&self) -> impl Iterator<Item = &FileName> {
        let of_pools = self.pools.iter().filter_map(|pool| pool.tls.as_ref());
        let of_servers = self
            .virtual_servers
            .iter()
            .filter_map(|one| one.tls.as_ref());
        of_pools
            .flat_map(MembersTls::files)
            .chain(of_servers.flat_map(Tls::files))
    }
}

/// The name of a pool or of a virtual server: 1 to 63 letters, digits, `-`, `_`, `.`; the first a
/// letter or a digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct Name(pub(crate) String);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The position of a pool in [`Site::pools`] of the same site. It means nothing in another site:
/// use the name there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct PoolIndex(pub usize);

/// Upstream servers of which one serves a connection or a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Pool {
    pub name: Name,
    pub method: Method,
    /// For [`Method::Hash`].
    pub hash_by: HashBy,
    pub members_protocol: MembersProtocol,
    /// In the order in which they were written; at least one; no address twice.
    pub members: Vec<Member>,
    /// `None`: members are not probed and are always used.
    pub monitor: Option<Monitor>,
    /// `None`: members are spoken to in cleartext.
    pub tls: Option<MembersTls>,
}

/// How a pool chooses a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// One after another, each as often as its weight says.
    RoundRobin,
    /// The one with the fewest connections for its weight.
    LeastConnections,
    /// Of two that are drawn by their weights the one with fewer connections for its weight.
    Random,
    /// The one that a hash says of what [`Pool::hash_by`] names, as long as it is usable.
    Hash,
}

impl Method {
    pub const ALL: [Self; 4] = [
        Self::RoundRobin,
        Self::LeastConnections,
        Self::Random,
        Self::Hash,
    ];

    /// As it is written in a file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::Random => "random",
            Self::Hash => "hash",
        }
    }
}

/// What a pool that chooses by a hash looks at. What lacks it is chosen by the client's address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HashBy {
    /// The client's address.
    Source,
    /// The host that a request is for.
    Host,
    /// A request's path, with its query.
    Path,
    /// The first field of this name, in lower case.
    Header(String),
    /// The cookie of this name.
    Cookie(String),
}

/// What the members of a pool are spoken to in, where a virtual server understands HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MembersProtocol {
    /// HTTP/1.1: a connection carries one request at a time.
    Http1,
    /// HTTP/2 in cleartext by prior knowledge: connections are shared by many requests.
    Http2,
}

impl MembersProtocol {
    pub const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    /// As it is written in a file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
}

/// One server of a pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Member {
    pub address: SocketAddr,
    /// Its share relative to the others of the pool, [`bounds::WEIGHT`].
    pub weight: u16,
}

/// What probes the members of a pool, and how often.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Monitor {
    pub probe: Probe,
    pub interval: Duration,
    /// How long one probe may take; never above the interval.
    pub timeout: Duration,
    /// Successes in a row that bring a member up.
    pub rise: u16,
    /// Failures in a row that take it down.
    pub fall: u16,
}

/// What one probe does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// The connection is accepted.
    Tcp,
    /// `GET path` is answered with the status.
    Http {
        /// Begins with `/`; visible ASCII only.
        path: String,
        /// The `Host` header. `None`: the member's address.
        host: Option<String>,
        /// 100 to 599.
        expect: u16,
    },
}

/// Where clients connect.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct VirtualServer {
    pub name: Name,
    pub listen: SocketAddr,
    pub protocol: Protocol,
    pub pool: PoolIndex,
    /// `None`: clients speak in cleartext.
    pub tls: Option<Tls>,
}

/// What a virtual server understands of the bytes that it carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2, a member chosen for each request.
    Http,
    /// Nothing: a member is chosen for each connection.
    Tcp,
}

impl Protocol {
    pub const ALL: [Self; 2] = [Self::Http, Self::Tcp];

    /// As it is written in a file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

#[cfg(test)]
mod tests;
