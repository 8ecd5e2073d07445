//! `hitless worker`: the process that parses and balances. Its keeper starts it.

use anyhow::Result;
use clap::Args;
use hitless_tm::worker::WorkerError;

use crate::exit::{Exit, Failure};
use crate::{logging, version};

#[derive(Args, Debug)]
pub(crate) struct Options {}

pub(crate) fn run(_options: &Options) -> Result<Exit> {
    logging::start();
    match hitless_tm::worker::run(version::build()) {
        Ok(()) => Ok(Exit::Done),
        Err(error @ WorkerError::NoKeeper) => {
            let failure = Failure::new(Exit::Usage, error.to_string());
            Err(failure
                .hint("`hitless serve -f FILE` starts a keeper, and that its worker")
                .into())
        }
        Err(error) => Err(error.into()),
    }
}
