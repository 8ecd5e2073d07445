//! What a run of the tests left out, and why.
//!
//! A test that lacks something of the machine says so in a file (`crates/harness/src/needs.rs`), a
//! line each: its place in the source, a tabulator, the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

/// The environment variable with the file's path, as the tests know it.
const FILE: &str = "HITLESS_LEFT_OUT";

/// The file, and what is known so far: reason to places.
#[derive(Debug)]
pub(super) struct LeftOut {
    folder: tempfile::TempDir,
    places: BTreeMap<String, BTreeSet<String>>,
}

impl LeftOut {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            folder: tempfile::tempdir().context("cannot make a folder for temporary files")?,
            places: BTreeMap::new(),
        })
    }

    /// The tests that the command runs write to the file.
    pub(super) fn collect_from(&self, command: &mut Command) {
        command.env(FILE, self.folder.path().join("tests"));
    }

    /// A phase knows by itself what it leaves out.
    pub(super) fn phase(&mut self, place: &str, reason: &str) {
        let places = self.places.entry(reason.to_owned()).or_default();
        places.insert(place.to_owned());
    }

    /// Takes over what tests have written. Returns how many tests that are.
    pub(super) fn read(&mut self) -> Result<u64> {
        let path = self.folder.path().join("tests");
        if !path.exists() {
            return Ok(0);
        }
        let text = fs::read_to_string(&path).context("cannot read what tests left out")?;
        Ok(self.add(&text))
    }

    /// A test that says more than one thing is one test.
    fn add(&mut self, text: &str) -> u64 {
        let mut tests = BTreeSet::new();
        for line in text.lines() {
            let (place, reason) = line.split_once('\t').unwrap_or(("?", line));
            tests.insert(place);
            self.phase(place, reason);
        }
        tests.len() as u64
    }

    /// For people. Empty if nothing was left out.
    pub(super) fn shown(&self) -> String {
        let mut text = String::new();
        for (reason, places) in &self.places {
            text += &format!("\nleft out, {reason}:\n");
            for place in places {
                text += &format!("  {place}\n");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_know_the_same_variable() {
        assert_eq!(FILE, hitless_harness::needs::FILE);
    }

    #[test]
    fn what_tests_and_phases_leave_out_is_shown_by_reason() {
        let mut left_out = LeftOut::new().unwrap();
        assert_eq!(left_out.shown(), "");
        left_out.phase("kernel", "no qemu");
        let tests =
            left_out.add("b.rs:5\tit needs root\na.rs:7\tit needs root\nb.rs:5\tno nginx\n");
        assert_eq!(tests, 2);
        assert_eq!(
            left_out.shown(),
            "\nleft out, it needs root:\n  a.rs:7\n  b.rs:5\n\
             \nleft out, no nginx:\n  b.rs:5\n\
             \nleft out, no qemu:\n  kernel\n"
        );
    }

    #[test]
    fn a_test_that_is_left_out_is_told_to_xtask() {
        let mut left_out = LeftOut::new().unwrap();
        assert_eq!(left_out.read().unwrap(), 0);
        let mut test = Command::new("sh");
        test.args([
            "-c",
            "printf 'a.rs:7\\tit needs root\\n' >>\"$HITLESS_LEFT_OUT\"",
        ]);
        left_out.collect_from(&mut test);
        assert!(test.status().unwrap().success());
        assert_eq!(left_out.read().unwrap(), 1);
    }
}
