//! The only build tool of hitless: `cargo xtask COMMAND`.
//!
//! Every command works in a fresh clone with nothing but a Rust toolchain: what else a command
//! needs, `setup` installs or names. Nothing here reads standard input, and a command's result
//! alone goes to standard output where a program is meant to read it (`--json`).

mod demo;
mod dispatch;
mod kernel;
mod metadata;
mod phases;
mod properties;
mod readme;
mod run;
mod setup;
mod soak;
mod test;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask COMMAND

  setup                 install the Debian packages and cargo tools that the other commands need,
                        or say what is missing
  test [--plain]        everything that has to pass: format, lints, licences, tidy, all tests;
                        --plain: under `cargo test`, also where cargo-nextest is installed
  tidy [--wrap]         the rules of the source tree: layers, sizes, words, links; wrap long comments
  kernel                load every BPF program on Debian 12's own kernel, booted under QEMU
  readme                run every command that README and the guide show
  demo [--json]         build two builds of hitless and show every change under live traffic
  model [ARGS]          search the row protocol's states, and find each rule's counterexample
  sim [ARGS]            whole clusters in virtual time with faults, in lock-step with the model
  bench GROUP [--json]  measure a group beside its reference: director, codec,
                        http2, proxy
  soak [ARGS]           the demo's changes over and over, an hour long
  properties [ARGS]     the property tests with other cases in each round, five minutes long
  fuzz [ARGS]           throw damaged bytes at codecs, snapshots and datagrams; `fuzz --help` lists them
";

fn main() -> ExitCode {
    if kernel::init::is_first() {
        kernel::init::main();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest = args.get(1..).unwrap_or_default();
    let result = match args.first().map(String::as_str) {
        Some("setup") => setup::command(rest),
        Some("test") => test::command(rest),
        Some("tidy") => tidy::command(rest),
        Some("kernel") => kernel::command(rest),
        Some("readme") => readme::command(rest),
        Some("demo") => demo::command(rest),
        Some(name @ ("model" | "sim" | "bench" | "fuzz")) => dispatch::command(name, rest),
        Some("soak") => soak::command(rest),
        Some("properties") => properties::command(rest),
        Some("help" | "-h" | "--help") => {
            print!("{USAGE}");
            Ok(())
        }
        other => {
            if let Some(name) = other {
                eprintln!("cargo xtask: no command {name:?}\n");
            }
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
