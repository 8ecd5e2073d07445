//! The one binary of hitless: its subcommands are the roles. Wiring and command line only.

fn main() {}
