//! `cargo xtask test`: everything that has to pass, in phases, with what each took.
//!
//! Tests run under cargo-nextest where it is installed, which gives each its own process, and under
//! `cargo test` otherwise, or with `--plain`; tests that take the machine for themselves run one at
//! a time under both. What the machine lacks is left out, shown with its reason, and counted.

mod left_out;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::metadata::Graph;
use crate::phases::Phases;
use crate::run::{self, cargo, check, shown};
use crate::{kernel, readme, setup, tidy};
use left_out::LeftOut;

/// Packages whose tests build namespaces, load programs or need a quiet machine: one test at a
/// time. The same list stands in `.config/nextest.toml`.
const ALONE: &[&str] = &[
    "hitless",
    "hitless-lab",
    "hitless-bpf",
    "hitless-net",
    "hitless-hypervisor",
    "hitless-control",
    "hitless-carry",
    "hitless-tm",
];

/// What runs the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runner {
    Nextest,
    Plain,
}

/// `cargo xtask test [--plain]`
pub(crate) fn command(args: &[String]) -> Result<()> {
    let runner = match args {
        [] if run::works(cargo().args(["nextest", "--version"])) => Runner::Nextest,
        [] => Runner::Plain,
        [arg] if arg == "--plain" => Runner::Plain,
        _ => bail!("test knows --plain, found {args:?}: for a part, use cargo test"),
    };
    let mut phases = Phases::default();
    let mut counts = Counts::default();
    let mut left_out = LeftOut::new()?;
    let mut can_build = false;
    let mut has_deny = Ok(());
    phases.run("setup", || {
        can_build = setup::ensure().can_build();
        has_deny = setup::cargo_tools();
        if !can_build {
            bail!("the workspace cannot be built without the packages named above");
        }
        Ok(())
    });
    phases.run("fmt", || check(cargo().args(["fmt", "--all", "--check"])));
    phases.run("tidy", || tidy::command(&[]));
    if let Err(error) = has_deny {
        let reason = format!("cargo-deny cannot be installed: {error:#}");
        phases.skip("deny", &reason);
        left_out.phase("deny", &reason);
        counts.skipped += 1;
    } else {
        phases.run("deny", || {
            let mut deny = cargo();
            deny.args(["deny", "--log-level", "error", "check"]);
            check(deny.args(["bans", "licenses", "sources"]))
        });
    }
    if can_build {
        phases.run("clippy", || {
            let mut clippy = cargo();
            clippy.args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--quiet",
            ]);
            check(clippy.args(["--", "--deny", "warnings"]))
        });
        // The binary comes first: tests start it by its path.
        let built = phases.run("build", || {
            check(cargo().args(["build", "--workspace", "--bins", "--locked", "--quiet"]))?;
            check(test_runner(runner, &[]).arg("--no-run"))
        });
        if built {
            phases.run("kernel", || match kernel::verify()? {
                kernel::Outcome::Passed => {
                    counts.passed += 1;
                    Ok(())
                }
                kernel::Outcome::Skipped(reason) => {
                    eprintln!("skipped: {reason}");
                    left_out.phase("kernel", &reason);
                    counts.skipped += 1;
                    Ok(())
                }
            });
            phases.run("readme", || {
                let outcome = readme::run_all()?;
                counts.passed += u64::try_from(outcome.ran)?;
                for (place, reason) in &outcome.left_out {
                    left_out.phase(place, reason);
                    counts.skipped += 1;
                }
                Ok(())
            });
            phases.run("tests", || run_tests(runner, &left_out, &mut counts));
            phases.run("doc tests", || {
                count(
                    cargo().args(["test", "--workspace", "--doc", "--quiet"]),
                    &mut counts,
                )
            });
        } else {
            phases.skip("tests", "the build failed");
        }
    } else {
        phases.skip("tests", "a package of the build is missing");
    }
    counts.leave_out(left_out.read()?);
    eprint!("{}", left_out.shown());
    let result = phases.finish();
    println!(
        "{} passed, {} failed, {} skipped",
        counts.passed, counts.failed, counts.skipped
    );
    if result.is_ok() && counts.passed == 0 {
        bail!("no test ran");
    }
    result
}

/// The runner over the whole workspace, or over some packages of it. Benchmarks are no tests.
fn test_runner(runner: Runner, packages: &[&str]) -> Command {
    let mut command = cargo();
    match runner {
        Runner::Nextest => command.args(["nextest", "run", "--locked", "--cargo-quiet"]),
        Runner::Plain => {
            command.args(["test", "--locked", "--quiet", "--no-fail-fast"]);
            command.args(["--lib", "--bins", "--tests"])
        }
    };
    if packages.is_empty() {
        command.arg("--workspace");
    }
    for package in packages {
        command.args(["--package", package]);
    }
    command
}

fn run_tests(runner: Runner, left_out: &LeftOut, counts: &mut Counts) -> Result<()> {
    let test_runner = |packages: &[&str]| {
        let mut command = test_runner(runner, packages);
        left_out.collect_from(&mut command);
        command
    };
    if runner == Runner::Nextest {
        return count(&mut test_runner(&[]), counts);
    }
    let members = Graph::read()?.members;
    let (alone, together): (Vec<&str>, Vec<&str>) = members
        .iter()
        .map(String::as_str)
        .partition(|name| ALONE.contains(name));
    let first = count(&mut test_runner(&together), counts);
    let second = count(test_runner(&alone).args(["--", "--test-threads=1"]), counts);
    first.and(second)
}

/// How many tests ended how, summed over the runners' own closing lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Counts {
    /// Tests that found out while they ran that they cannot: the runner calls them passed.
    fn leave_out(&mut self, tests: u64) {
        self.passed = self.passed.saturating_sub(tests);
        self.skipped += tests;
    }

    /// Adds a runner's closing line; other lines are left alone.
    ///
    /// `cargo test`: `test result: ok. 5 passed; 0 failed; 1 ignored; ...`. cargo-nextest: `Summary
    /// [ 1.2s] 6 tests run: 5 passed (1 slow), 1 failed, 1 timed out, 2 skipped`.
    fn add(&mut self, line: &str) {
        let is_summary = line.trim_start().starts_with("Summary [");
        // Indented, it is what a failed test had said, which nextest shows again.
        let rest = if let Some(rest) = line.strip_prefix("test result: ") {
            rest
        } else if let Some((_, rest)) = line.split_once(" run: ").filter(|_| is_summary) {
            rest
        } else {
            return;
        };
        let words: Vec<&str> = rest
            .split([' ', ',', ';'])
            .filter(|word| !word.is_empty())
            .collect();
        for pair in words.windows(2) {
            let Ok(number) = pair[0].trim_start_matches('(').parse::<u64>() else {
                continue;
            };
            match pair[1] {
                "passed" => self.passed += number,
                "failed" | "timed" => self.failed += number,
                "skipped" | "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// Runs a test runner, shows what it says and counts its tests. Both runners' words go to standard
/// output, in the order in which they come.
fn count(command: &mut Command, counts: &mut Counts) -> Result<()> {
    let line = shown(command);
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let also = writer.try_clone().context("cannot share a pipe")?;
    let mut child = command
        .stdout(Stdio::from(writer))
        .stderr(Stdio::from(also))
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    // The command keeps the pipe's writing ends; only when these are gone does reading end with the
    // child.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    for text in BufReader::new(reader).split(b'\n') {
        let text = text.context("cannot read what the tests say")?;
        let text = String::from_utf8_lossy(&text);
        println!("{text}");
        counts.add(&text);
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
