//! One end of a TLS connection after its handshake: records in, data out, and exportable keys.
#![doc = include_str!("tls/guide.md")]

mod buffers;
mod connection;
mod fault;
mod half;
mod message;
mod snapshot;
mod suite;

pub use connection::{Event, Records, Role, Step};
pub use fault::Fault;
pub use half::Material;
pub use snapshot::SNAPSHOT_LAYOUT;
pub use suite::{Suite, Version};

#[cfg(test)]
mod tests;
