//! The decisions of hitless, pure: no clock, no IO, no hash-map order. Time is an argument.
//!
//! What is absent here is the invariant: nothing in this crate reads a clock, a file or a socket,
//! starts a thread, or depends on the order of a hash map. So the same machines run in production,
//! in the simulator and under the model checker.

#![forbid(unsafe_code)]

pub mod assign;
pub mod flow;
pub mod health;
pub mod ledger;
pub mod maglev;
pub mod row;
pub mod rules;
pub mod steer;
pub mod table;
pub mod time;
