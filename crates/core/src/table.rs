//! The bucket table's protocol: three machines without IO, and the steps of one bucket that they
//! share.
//!
//! ```text
//!              store (state by compare-and-set)
//!                 ^ Write / Load
//!   policy ──>    │
//!   inventory ──> controller ── rows, trust ──> agent of each director's node
//!                  ^     │                          │ leases, beliefs
//!                  │     └────── rows ──────> guest <┘
//!                  └── acknowledgements, live connections, reports
//! ```
//!
//! Calling contract of all three: `handle(now, input)` takes what happened; then `poll_action()` is
//! called until it returns `None` and each action is carried out; at `deadline()` the machine is
//! handed `Input::Tick`; `status()` may be asked at any time. A machine never waits, reads no
//! clock, and may be dropped at any point: what has to survive is in the store (controller) or in
//! the maps and files that the driver keeps (agent, guest).
//!
//! [`step`] holds the rules for one bucket as functions on small values. The machines call them for
//! 65,536 buckets, the model checker for one: they are the same functions.

pub mod agent;
mod bits;
pub mod controller;
pub mod guest;
pub mod message;
pub mod step;
