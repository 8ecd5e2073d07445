//! What a test needs of the machine. A test that lacks it leaves itself out and says so.
//!
//! Test runners know no test that finds out while it runs that it cannot, and count it as passed.
//! So each is also written to the file that [`FILE`] names, a line each: the place in the source,
//! a tabulator, the reason. `cargo xtask test` gives the file, shows what is in it at its end, and
//! counts these tests as skipped.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::panic::Location;
use std::path::Path;

/// The environment variable with the file's path. Unset: nobody collects, standard error has it.
pub const FILE: &str = "HITLESS_LEFT_OUT";

/// Where Debian keeps programs for administrators, which users have not in their path.
const ADMIN_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Whether the test runs as root; left out if not.
#[track_caller]
pub fn root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        left_out("it needs root");
    }
    is_root
}

/// Whether a program of a Debian package is installed; left out if not.
#[track_caller]
pub fn program(name: &str, package: &str) -> bool {
    let is_there = is_installed(name);
    if !is_there {
        left_out(format_args!("no {name} (package {package})"));
    }
    is_there
}

/// Says that the calling test, or a part of it, is left out.
#[track_caller]
pub fn left_out(reason: impl Display) {
    let place = Location::caller();
    eprintln!("left out: {reason}");
    let Some(path) = std::env::var_os(FILE) else {
        return;
    };
    note(Path::new(&path), place, &reason.to_string());
}

/// One write of one line, since tests of many processes share the file.
fn note(path: &Path, place: &Location<'_>, reason: &str) {
    let line = format!("{}:{}\t{reason}\n", place.file(), place.line());
    let file = OpenOptions::new().append(true).create(true).open(path);
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        eprintln!("cannot write to {}: {error}", path.display());
    }
}

fn is_installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    in_path
        || ADMIN_FOLDERS
            .iter()
            .any(|folder| Path::new(folder).join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_noted_with_its_place() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let path = folder.path().join("left-out");
        let place = Location::caller();
        note(&path, place, "it needs root");
        note(&path, place, "no h2load");
        let text = std::fs::read_to_string(&path).expect("it was written");
        let place = format!("{}:{}", place.file(), place.line());
        let expected = format!("{place}\tit needs root\n{place}\tno h2load\n");
        assert_eq!(text, expected);
        assert!(text.starts_with("crates/harness/src/needs.rs:"), "{text}");
    }

    #[test]
    fn programs_are_looked_for_where_they_are() {
        assert!(is_installed("sh"));
        assert!(!is_installed("hitless-no-such-program"));
    }
}
