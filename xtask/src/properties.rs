//! `cargo xtask properties`: the property tests of everything that reads bytes or decides, with other
//! cases in each round.
//!
//! The tests' own cases are fixed by a seed (`.cargo/config.toml`), so that a failure is a change.
//! Here each round has a seed of its own; one that fails is named, with the command that repeats it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::run::{cargo, check};

/// Crates whose parsers, codecs and decisions have property tests.
const PACKAGES: &[&str] = &["hitless-types", "hitless-core", "hitless-proto"];
/// How long without `--minutes`: some twenty rounds.
const MINUTES: u64 = 5;

struct Options {
    minutes: u64,
    rounds: Option<u64>,
    seed: u64,
}

/// `cargo xtask properties [--minutes NUMBER] [--rounds NUMBER] [--seed NUMBER]`
pub(crate) fn command(args: &[String]) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let Options {
        minutes,
        rounds,
        seed,
    } = options(args, now)?;
    check(tests(0).arg("--no-run"))?;
    let began = Instant::now();
    let mut done = 0;
    while done < rounds.unwrap_or(u64::MAX) && began.elapsed() < Duration::from_secs(minutes * 60) {
        let seed = seed + done;
        check(&mut tests(seed))
            .with_context(|| format!("again: cargo xtask properties --rounds 1 --seed {seed}"))?;
        done += 1;
        eprintln!("properties: seed {seed} found nothing");
    }
    eprintln!(
        "properties: {done} rounds in {} s found nothing",
        began.elapsed().as_secs()
    );
    Ok(())
}

fn options(args: &[String], now: u64) -> Result<Options> {
    let mut options = Options {
        minutes: MINUTES,
        rounds: None,
        seed: now,
    };
    let mut args = args.iter();
    while let Some(name) = args.next() {
        let mut number = || {
            let value = args.next().and_then(|value| value.parse().ok());
            value.with_context(|| format!("{name} wants a number"))
        };
        match name.as_str() {
            "--minutes" => options.minutes = number()?,
            "--rounds" => options.rounds = Some(number()?),
            "--seed" => options.seed = number()?,
            other => bail!("properties knows --minutes, --rounds and --seed, found {other:?}"),
        }
    }
    Ok(options)
}

fn tests(seed: u64) -> std::process::Command {
    let mut command = cargo();
    command.args(["test", "--quiet", "--lib"]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    command.env("PROPTEST_RNG_SEED", seed.to_string());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_defaults_and_numbers() {
        let read = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            options(&args, 7)
        };
        let none = read(&[]).unwrap();
        assert_eq!((none.minutes, none.rounds, none.seed), (MINUTES, None, 7));
        let all = read(&["--rounds", "1", "--seed", "9"]).unwrap();
        assert_eq!((all.rounds, all.seed), (Some(1), 9));
        assert!(read(&["--seed"]).is_err() && read(&["--hours", "2"]).is_err());
    }
}
