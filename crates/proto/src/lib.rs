//! Pure codecs with snapshots: bytes in, events and bytes out, exportable after any byte.
//!
//! - [`http1`]: one client connection of an HTTP/1.1 proxy, both directions of it.
//! - [`http2`]: one end of an HTTP/2 connection, with its streams and tables.
//! - [`proxy`]: the PROXY protocol's headers, which need no state.
//! - [`relay`]: one raw TCP pair, half-close and back-pressure.
//! - [`tls`]: one end of a TLS connection after its handshake.
//!
//! **Law** (property-tested for each): `restore(snapshot())` after any byte changes no later event
//! and no later output. A snapshot opens with its layout version, and is below 300 bytes plus the
//! bytes that are buffered (and HTTP/2's tables and streams, and TLS's secrets); an unknown version is a typed error,
//! so that a worker of another release never guesses.
//!
//! What this crate does not do: no sockets, no clock (time is an argument, in microseconds of any
//! monotonic clock), no threads, no logging, no hash maps, no unsafe code.
#![forbid(unsafe_code)]

pub mod http1;
pub mod http2;
pub mod proxy;
pub mod relay;
pub mod tls;

mod layout;
mod semantics;
mod stuck;

pub use layout::RestoreError;
