//! `cargo xtask demo`: two builds of hitless, then the lab's demo script over them.
//!
//! Standard output belongs to the lab: its table, or with `--json` one document. Everything else
//! goes to standard error. What keeps the lab from starting is a document of the same form.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Error, Result, bail};
use serde_json::json;

use crate::run::{cargo, check, program, root, shown, target_dir};
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
    let started = builds().and_then(|(first, second)| {
        let mut lab = program(&first);
        lab.args(["lab", "run", SCRIPT])
            .env("HITLESS_SECOND_BUILD", &second);
        if json {
            lab.arg("--json");
        }
        let line = shown(&lab);
        let status = lab.status();
        Ok((
            status.with_context(|| format!("cannot start `{line}`"))?,
            line,
        ))
    });
    let (status, line) = started.inspect_err(|error| {
        if json {
            println!("{}", not_begun(error));
        }
    })?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// The document of a run without steps.
fn not_begun(error: &Error) -> String {
    json!({ "kept": false, "steps": [], "error": format!("{error:#}") }).to_string()
}

/// Two builds of the release binary that differ in their build id, where a lab can run.
pub(crate) fn builds() -> Result<(PathBuf, PathBuf)> {
    let report = setup::ensure();
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
    if report.lacks(setup::OF_LAB) {
        bail!("the lab needs {}, see above", setup::OF_LAB.join(" and "));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_documents_gets_one_also_where_the_lab_never_began() {
        let error = Error::msg("no such file").context("cannot build");
        let document: serde_json::Value = serde_json::from_str(&not_begun(&error)).unwrap();
        let expected = json!({ "kept": false, "steps": [], "error": "cannot build: no such file" });
        assert_eq!(document, expected);
    }
}
