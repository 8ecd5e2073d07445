//! Network namespaces, links, addresses, routes, neighbours, offload switches and per-namespace
//! settings.
//!
//! Everything is a blocking call on a socket of its own, so it can be used from plain threads and
//! from `spawn_blocking`; no external program is run. A [`Netlink`] socket belongs to the namespace
//! it was opened in, for ever, wherever its owner's threads go.
//!
//! Not here: which namespaces, addresses and routes a cluster has (node agent, lab), and BPF
//! programs other than the two-instruction one that veth needs ([`attach_pass`]).

mod error;
mod ethtool;
mod link;
mod lookup;
mod namespace;
mod neighbour;
mod netlink;
mod prefix;
mod route;
mod tcp;
mod watch;
mod xdp;

pub use error::{Error, Result};
pub use ethtool::{Offload, set_offload};
pub use link::{Link, VethEnd};
pub use lookup::Way;
pub use namespace::{NAMESPACES, Namespace};
pub use neighbour::Neighbour;
pub use netlink::Netlink;
pub use prefix::{ParsePrefixError, Prefix};
pub use route::{NextHop, Route};
pub use tcp::tcp_retransmits;
pub use watch::{Change, Watch};
pub use xdp::attach_pass;

#[cfg(test)]
mod tests;
