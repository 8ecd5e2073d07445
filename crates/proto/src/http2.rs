//! HTTP/2, either end of a connection, as a proxy speaks it.
#![doc = include_str!("http2/guide.md")]

pub mod bridge;
mod budget;
mod buffered;
mod buffers;
mod connection;
mod control;
mod data;
mod ending;
mod fault;
mod fields;
pub mod frame;
mod head;
pub mod hpack;
mod interface;
mod judge;
mod limits;
mod opening;
mod receive;
mod send;
mod settings;
mod snapshot;
mod step;
mod stream;

#[cfg(test)]
mod tests;

pub use budget::{Flow, Rates};
pub use connection::Connection;
pub use fault::{ErrorCode, Fault, Refusal};
pub use fields::{Field, Fields};
pub use head::Head;
pub use interface::{Cause, Context, Deadline, Event, Overdue, Role, SendError, Step, Work};
pub use limits::Limits;
pub use settings::{Setting, Settings};
pub use snapshot::SNAPSHOT_LAYOUT;
