//! HTTP/1.1 between a client and a member, as a proxy speaks it.
#![doc = include_str!("http1/guide.md")]

mod body;
mod buffered;
mod connection;
mod date;
mod encode;
mod facts;
mod field;
mod head;
mod limits;
mod refusal;
mod snapshot;

#[cfg(test)]
mod tests;

pub use connection::{
    After, Connection, Context, Deadline, Event, ForwardedFor, Rewrite, Side, Step, Work,
};
pub use date::http_date;
pub use field::FieldId;
pub use head::{Field, Head, Method, Span};
pub use limits::{FIELDS_CAP, HEAD_BYTES_CAP, Limits};
pub use refusal::Refusal;
pub use snapshot::SNAPSHOT_LAYOUT;
