//! The model checker of the bucket protocol.
//!
//! One bucket, one connection, three guests and a slot for a kernel that comes back, two directors
//! whose beliefs are chosen freely for every packet. Every interleaving of packets (repeated, lost,
//! overtaken), rows, acknowledgements, one voluntary change, false suspicion, crashes of programs
//! and kernels is tried within the bounds of a [`state::Budget`]. Rows are chosen by
//! `core::table::step`, packets judged by `core::steer`: a changed line there changes the number of
//! states.
//!
//! Abstracted: a row that a guest takes is written and in force at once; acknowledgements arrive at
//! once (the controller may be slow); a lease ends at any time after all directors withdrew it;
//! time does not pass otherwise. Not covered: moves between hosts, mirroring, UDP, more than one
//! connection.

pub mod check;
pub mod mutants;
pub mod search;
pub mod state;
pub mod step;
pub mod trace;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use hitless_core::rules::Rules;

use mutants::{MUTANTS, WIDE, wide_budget};
use search::search;
use state::State;

/// States of one search at most: some 100 bytes each.
const LIMIT: usize = 40_000_000;

const USAGE: &str = "usage: model [find [RULE] | wide [LIMIT]]
  find    look for a counterexample of each mutant (or of one) and record it under crates/sim/traces
  wide    search with all rules, widest bounds last
  (none)  both";

/// The command line of `cargo xtask model`: prints bounds, states and steps.
pub fn main(args: impl Iterator<Item = String>) -> ExitCode {
    let args: Vec<String> = args.collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let limit = |text: &str| text.parse().unwrap_or(LIMIT);
    let is_good = match args.as_slice() {
        [] => find(None, LIMIT) & wide(LIMIT),
        ["find"] => find(None, LIMIT),
        ["find", rule] => find(Some(rule), LIMIT),
        ["find", rule, most] => find(Some(rule), limit(most)),
        ["wide"] => wide(LIMIT),
        ["wide", most] => wide(limit(most)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Finds and records counterexamples; rules that are known to be redundant need none.
fn find(only: Option<&str>, limit: usize) -> bool {
    let mut is_good = true;
    for mutant in MUTANTS
        .iter()
        .filter(|mutant| only.is_none_or(|only| only == mutant.name))
    {
        let began = Instant::now();
        let rules = mutant.rules();
        let Some(start) = mutant.begin(&rules) else {
            println!("{:28} its prefix is not possible", mutant.name);
            is_good = false;
            continue;
        };
        let found = search(&rules, start, limit);
        let ms = began.elapsed().as_millis();
        match found.counterexample {
            Some((violation, actions)) => {
                println!(
                    "{:28} {violation:?} in {} steps, {} states, {ms} ms",
                    mutant.name,
                    mutant.prefix.len() + actions.len(),
                    found.states
                );
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
                let path = folder.join(format!("{}.trace", mutant.name));
                if let Err(error) = std::fs::write(&path, trace::write(mutant, violation, &actions))
                {
                    eprintln!("cannot write {}: {error}", path.display());
                    is_good = false;
                }
            }
            None => {
                println!(
                    "{:28} nothing found: {} states, depth {}, complete: {}, {ms} ms",
                    mutant.name, found.states, found.depth, found.is_complete
                );
                is_good &= mutants::REDUNDANT.contains(&mutant.name);
            }
        }
    }
    is_good
}

/// Searches with all rules.
fn wide(limit: usize) -> bool {
    let mut is_good = true;
    println!(
        "bounds: rows, wishes, program crashes, kernel crashes, suspicions, rebirths, packets in \
         flight, cuts, rows for other connections"
    );
    let begins = WIDE
        .iter()
        .map(|of| ("at rest", Some(State::new(wide_budget(*of)))));
    let deep = MUTANTS
        .iter()
        .filter(|mutant| !mutant.prefix.is_empty())
        .map(|mutant| (mutant.name, mutant.begin(&Rules::ALL)));
    for (name, start) in begins.chain(deep) {
        let began = Instant::now();
        let Some(start) = start else {
            println!("{name}: its prefix is not possible");
            is_good = false;
            continue;
        };
        let found = search(&Rules::ALL, start, limit);
        println!(
            "{name} {:?} {} states, depth {}, complete: {}, {} ms",
            start.budget.numbers(),
            found.states,
            found.depth,
            found.is_complete,
            began.elapsed().as_millis()
        );
        if let Some((violation, actions)) = found.counterexample {
            is_good = false;
            println!("VIOLATION {violation:?}");
            for action in actions {
                println!("  {action}");
            }
        }
    }
    is_good
}
