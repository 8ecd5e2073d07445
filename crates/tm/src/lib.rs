//! The traffic manager: a *keeper* that holds what must outlive a program, and a *worker* that
//! parses and balances.
//!
//! The keeper ([`keeper::run`]) has no parser: it reads the configuration file's bytes and hands
//! them on, binds the addresses that the worker asks for, and holds listening sockets, duplicates
//! of live sockets and pipes, and the memory file with the connection slots. The worker
//! ([`worker::run`]) validates, accepts, balances, and owns no privilege. Operators reach both
//! through the keeper's control socket ([`control::Client`]).

pub mod admin;
pub mod control;
pub mod holder;
pub mod keeper;
pub mod monitor;
pub mod site_file;
pub mod status;
pub mod tls;
pub mod worker;

pub mod egress;

mod clock;
mod ledger;
mod link;
mod wire;
