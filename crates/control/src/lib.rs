//! The drivers of controller, node agent and ingress: dumb loops around the machines of
//! `hitless-core`.
//!
//! Each role has one loop that owns its state. It takes an event from a bounded channel, hands it
//! to a machine, carries out the machine's actions, and sleeps until the machine's deadline.
//! Sockets, programs and disks are read by threads that do nothing else than turn what they see
//! into events.
//!
//! What is absent is the invariant: nothing in this crate makes up a row. Rows come from
//! `core::table::controller`, are written where the machines say, and nowhere else.

#![forbid(unsafe_code)]

pub mod bpf;
pub mod clock;
pub mod controller;
pub mod file;
pub mod ingress;
pub mod kernel;
pub mod lease;
pub mod link;
pub mod message;
pub mod netns;
pub mod node;
pub mod plane;
mod priority;
