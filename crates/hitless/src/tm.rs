//! `hitless tm`: the traffic manager of a guest. The same keeper and worker as `hitless serve`;
//! whoever runs the guest chooses its run folder, so that it is found there.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::exit::Exit;
use crate::{find, serve};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The site file
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// The folder for the control socket
    #[arg(long, value_name = "DIR")]
    run_dir: PathBuf,
    #[command(flatten)]
    engine: serve::Engine,
}

pub(crate) fn run(options: Options) -> Result<Exit> {
    let run_folder = find::folder_to_start_in(Some(options.run_dir))?;
    serve::keep(&options.file, &run_folder, &options.engine)
}
