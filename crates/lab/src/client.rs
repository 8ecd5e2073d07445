//! The clients: one process, one loop, all connections; and the tally of what they saw.
//!
//! The process is told what to do by lines of JSON on its standard input ([`Command`]) and answers
//! each with one line on its standard output ([`Answer`]). Time is cut into windows by
//! [`Command::Mark`]: every connection that was open when a window began, or was opened in it, has
//! exactly one outcome in it. Between two refills no connection that was lost is opened again.
//!
//! What it deliberately does not know: the cluster, its API and its ledger. It sees addresses and
//! bytes.

mod http;
mod plan;
mod run;
mod stream;
mod tally;
mod window;

pub(crate) use http::OBJECT_SEED;
pub use plan::{Answer, Command, Plan, Workload, WorkloadKind};
pub use run::run;
pub use tally::{Failure, Flow, Outcome, Report, Tally};

#[cfg(test)]
mod tests;
