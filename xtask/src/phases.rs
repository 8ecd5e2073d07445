//! The phases of a long command: each is announced, timed, and ends in a line of the closing table.
//!
//! A phase that fails does not stop the others, unless they say that they need it, so that one run
//! tells everything that is wrong.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How a phase ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// The phases so far, in order.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    done: Vec<(String, Outcome, Duration)>,
}

impl Phases {
    /// Runs one phase. Returns whether it passed.
    pub(crate) fn run(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> bool {
        eprintln!("\n=== {name}");
        let start = Instant::now();
        let outcome = match work() {
            Ok(()) => Outcome::Passed,
            Err(error) => {
                eprintln!("{name}: {error:#}");
                Outcome::Failed
            }
        };
        self.done.push((name.to_owned(), outcome, start.elapsed()));
        outcome == Outcome::Passed
    }

    /// Leaves a phase out, for a reason that is shown.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        eprintln!("\n=== {name}: skipped: {reason}");
        self.done
            .push((name.to_owned(), Outcome::Skipped, Duration::ZERO));
    }

    /// The table, and an error that names what failed.
    pub(crate) fn finish(self) -> Result<()> {
        let total: Duration = self.done.iter().map(|(_, _, took)| *took).sum();
        eprintln!("\n{:<24} {:<8} {:>8}", "phase", "outcome", "seconds");
        for (name, outcome, took) in &self.done {
            let outcome = match outcome {
                Outcome::Passed => "passed",
                Outcome::Failed => "FAILED",
                Outcome::Skipped => "skipped",
            };
            eprintln!("{name:<24} {outcome:<8} {:>8.1}", took.as_secs_f64());
        }
        eprintln!("{:<24} {:<8} {:>8.1}", "total", "", total.as_secs_f64());
        let failed: Vec<&str> = self
            .done
            .iter()
            .filter(|(_, outcome, _)| *outcome == Outcome::Failed)
            .map(|(name, _, _)| name.as_str())
            .collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}
