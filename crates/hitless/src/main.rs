//! The one binary of hitless: its subcommands are the roles. Wiring and command line only.
//!
//! One module per command or role, each with its options (`Options`) and `run`. A command answers
//! with an [`exit::Exit`] or an error; an [`exit::Failure`] in it chooses the exit code and says
//! what to do next.

mod check;
mod cli;
mod cluster;
mod controller;
mod exit;
mod find;
mod ingress;
mod lab;
mod logging;
mod node;
mod order;
mod output;
mod serve;
mod status;
mod table;
mod tm;
mod version;
mod worker;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => cli::without_wild_guess(error).exit(),
    };
    match cli.run() {
        Ok(exit) => exit.into(),
        Err(error) => exit::report(&error).into(),
    }
}
