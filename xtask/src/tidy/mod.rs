//! `cargo xtask tidy`: rules of the source tree that no compiler holds.
//!
//! Each rule is a pure function from the tree, read once, to its findings; its unit tests show that
//! it fires. A finding that fails the run names file, line and what to do; one that only warns is
//! shown and counted.

mod docs;
mod files;
mod layers;
mod mission;
mod rows;
mod unsafe_code;
mod words;
mod wrap;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::metadata::Graph;
use crate::run::{self, program, root};

/// A text file of the tree, path relative to the workspace.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// Lines with their numbers, from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line))
    }

    fn has_extension(&self, extensions: &[&str]) -> bool {
        let extension = Path::new(&self.path)
            .extension()
            .and_then(|name| name.to_str());
        extension.is_some_and(|extension| extensions.contains(&extension))
    }
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) place: String,
    pub(crate) text: String,
    pub(crate) is_failure: bool,
}

impl Finding {
    fn failure(place: impl fmt::Display, text: impl fmt::Display) -> Self {
        Self {
            place: place.to_string(),
            text: text.to_string(),
            is_failure: true,
        }
    }

    fn warning(place: impl fmt::Display, text: impl fmt::Display) -> Self {
        Self {
            is_failure: false,
            ..Self::failure(place, text)
        }
    }
}

/// `cargo xtask tidy [--wrap]`
pub(crate) fn command(args: &[String]) -> Result<()> {
    let root = root();
    match args {
        [] => {}
        [arg] if arg == "--wrap" => {
            for file in &read_tree(&root)? {
                if let Some(text) = wrap::wrapped(file) {
                    eprintln!("tidy: wrapped {}", file.path);
                    fs::write(root.join(&file.path), text)?;
                }
            }
        }
        _ => bail!("tidy takes --wrap, found {args:?}"),
    }
    let tree = read_tree(&root)?;
    let mut findings = layers::check(&Graph::read()?);
    findings.extend(files::check(&tree));
    findings.extend(words::check(&tree));
    findings.extend(docs::check(&tree));
    findings.extend(mission::check(&tree));
    findings.extend(rows::check(&tree));
    findings.extend(unsafe_code::check(&tree));
    let (failures, warnings): (Vec<_>, Vec<_>) =
        findings.iter().partition(|finding| finding.is_failure);
    for finding in warnings.iter().chain(&failures) {
        let level = if finding.is_failure {
            "error"
        } else {
            "warning"
        };
        eprintln!("tidy: {level}: {}: {}", finding.place, finding.text);
    }
    eprintln!(
        "tidy: {} files, {} warnings, {} errors",
        tree.len(),
        warnings.len(),
        failures.len()
    );
    if !failures.is_empty() {
        bail!("tidy found {} errors", failures.len());
    }
    Ok(())
}

/// Every text file that git has or would take.
fn read_tree(root: &Path) -> Result<Vec<File>> {
    let mut git = program("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let listed = run::output(git.current_dir(root)).context("tidy reads the tree through git")?;
    let mut files = Vec::new();
    for path in listed.split_terminator('\0') {
        // A file that is deleted but not yet committed is listed and not there; one that is no text
        // has no rules.
        let Ok(bytes) = fs::read(root.join(path)) else {
            continue;
        };
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        files.push(File {
            path: path.to_owned(),
            text,
        });
    }
    Ok(files)
}

#[cfg(test)]
fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}
