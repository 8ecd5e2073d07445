//! Monitors: what probes members, and the board on which the data path reads who may be used.
//!
//! [`Board`] is the meeting point: the monitor thread writes, workers read one atomic per member. It outlives
//! configurations, so that a reload forgets nothing of a member that stays.

mod board;

pub use board::{Board, MemberHealth, MemberKey, MemberState};
