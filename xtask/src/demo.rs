//! `cargo xtask demo`: two builds of hitless, then the lab's demo script over them.
//!
//! Standard output belongs to the lab: its table, or with `--json` one document. Everything else
//! goes to standard error.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::run::{cargo, check, program, root, target_dir};
use crate::setup;

pub(crate) const SCRIPT: &str = "crates/lab/demo.yaml";

/// `cargo xtask demo [--json]`
pub(crate) fn command(args: &[String]) -> Result<()> {
    let mut json = false;
    for arg in args {
        match arg.as_str() {
            "--json" => json = true,
            other => bail!("demo knows --json, found {other:?}"),
        }
    }
    let (first, second) = builds()?;
    let mut lab = program(&first);
    lab.args(["lab", "run", SCRIPT])
        .env("HITLESS_SECOND_BUILD", &second);
    if json {
        lab.arg("--json");
    }
    check(&mut lab)
}

/// Two builds of the release binary that differ in their build id, where a lab can run.
pub(crate) fn builds() -> Result<(PathBuf, PathBuf)> {
    let report = setup::ensure()?;
    if !report.can_build() {
        bail!("hitless cannot be built without the packages named above");
    }
    if !root().join(SCRIPT).exists() {
        bail!("no {SCRIPT}: is this a whole clone?");
    }
    if !crate::run::is_root() {
        bail!(
            "the lab builds network namespaces and needs root: run cargo with `sudo -E`; \
             `hitless serve` works without"
        );
    }
    if !report.missing.is_empty() {
        bail!("the lab needs the packages named above");
    }
    Ok((build("1")?, build("2")?))
}

/// Builds the release binary with a build id of its own and puts a copy aside. Only the binary's
/// own crate is compiled again and linked for the second one.
fn build(id: &str) -> Result<PathBuf> {
    let mut command = cargo();
    command
        .args(["build", "--release", "--package", "hitless"])
        .env("HITLESS_BUILD", id);
    check(&mut command)?;
    let folder = target_dir().join("demo");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let copy = folder.join(format!("hitless-{id}"));
    // A copy that a lab still runs cannot be written to; a new file in its place can.
    let fresh = folder.join(format!("hitless-{id}.new"));
    fs::copy(target_dir().join("release/hitless"), &fresh).context("cannot copy the binary")?;
    fs::rename(&fresh, &copy).context("cannot put the binary in place")?;
    Ok(copy)
}
