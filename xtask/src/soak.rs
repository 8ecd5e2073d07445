//! `cargo xtask soak`: the demo's changes, or those of another script, over and over.
//!
//! Each round is a whole lab: built, driven, judged, taken down. A round that does not hold ends the
//! soak; its document is kept and named. What a round leaves behind in the machine (namespaces,
//! processes' memory) would fail a later one.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::demo;
use crate::run::{program, target_dir};

/// How long without `--minutes`.
const MINUTES: u64 = 60;

/// `cargo xtask soak [--minutes NUMBER] [--rounds NUMBER] [SCRIPT]`
pub(crate) fn command(args: &[String]) -> Result<()> {
    let (mut minutes, mut rounds) = (MINUTES, u64::MAX);
    let mut script = demo::SCRIPT.to_owned();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().and_then(|value| value.parse().ok());
            value.with_context(|| format!("{arg} wants a number"))
        };
        match arg.as_str() {
            "--minutes" => minutes = number()?,
            "--rounds" => rounds = number()?,
            other if other.starts_with('-') => {
                bail!("soak knows --minutes, --rounds and a script, found {other:?}")
            }
            path => script = path.to_owned(),
        }
    }
    let (first, second) = demo::builds()?;
    let folder = target_dir().join("soak");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let began = Instant::now();
    let mut round = 0;
    while round < rounds && began.elapsed() < Duration::from_secs(minutes * 60) {
        round += 1;
        let mut lab = program(&first);
        lab.args(["lab", "run", "--json", &script])
            .env("HITLESS_SECOND_BUILD", &second);
        let output = lab.output().context("cannot start the lab")?;
        let document = folder.join(format!("round-{round}.json"));
        fs::write(&document, &output.stdout)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "round {round} did not hold: {}\n{}",
                document.display(),
                said.lines().rev().take(20).collect::<Vec<_>>().join("\n")
            );
        }
        eprintln!(
            "soak: round {round} held, {} s so far",
            began.elapsed().as_secs()
        );
        fs::remove_file(&document)?;
    }
    eprintln!("soak: {round} rounds held");
    Ok(())
}
