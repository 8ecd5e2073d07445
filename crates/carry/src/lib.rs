//! What connections need to outlive a program: descriptor passing, memory files, kernel byte
//! counters, processes.
//!
//! All unsafe descriptor code of the traffic manager is here, behind safe functions. Nothing here
//! knows a protocol, keeps a table or decides anything; keeper and worker do that.

pub mod memory;
pub mod message;
pub mod process;
pub mod signals;
pub mod slots;
pub mod socket;
pub mod twin;
pub mod vault;
