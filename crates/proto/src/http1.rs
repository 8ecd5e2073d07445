//! HTTP/1.1 between a client and a member, as a proxy speaks it.
#![doc = include_str!("http1/guide.md")]

mod body;
mod buffered;
mod buffers;
mod chunk;
mod connection;
mod date;
mod encode;
mod ending;
mod facts;
mod field;
mod head;
mod interface;
mod limits;
mod pass;
mod refusal;
mod snapshot;
mod splice;
mod step;

#[cfg(test)]
mod tests;

pub use connection::Connection;
pub use date::{civil, http_date};
pub(crate) use facts::is_nominated;
pub use field::FieldId;
pub use head::{Field, Head, Method, Span};
pub use interface::{After, Context, Deadline, Event, ForwardedFor, Rewrite, Side, Step, Work};
pub use limits::{FIELDS_CAP, HEAD_BYTES_CAP, Limits};
pub use refusal::Refusal;
pub use snapshot::SNAPSHOT_LAYOUT;
