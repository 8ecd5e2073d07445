//! The model checker's command: see [`hitless_sim::model::main`].

use std::process::ExitCode;

fn main() -> ExitCode {
    hitless_sim::model::main(std::env::args().skip(1))
}
