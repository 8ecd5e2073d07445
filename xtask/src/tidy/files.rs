//! Files: one concept each, so they stay small; lines fit a screen; each says what it is.

use super::{File, Finding};

const SOURCE: &[&str] = &["rs", "c", "h", "ts", "svelte"];
/// Above this a file probably holds two concepts.
const LINES_WARN: usize = 300;
/// Above this it does.
const BYTES_MAX: usize = 30 * 1024;
/// Columns of a line of source or comment.
pub(super) const COLUMNS_MAX: usize = 100;
/// Files above [`BYTES_MAX`] that have a reason, one a line: path, then the reason.
const LARGE_FILES: &str = "xtask/tidy/large-files.txt";
const SPDX: &str = "SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause";

pub(super) fn check(tree: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let exceptions = tree
        .iter()
        .find(|file| file.path == LARGE_FILES)
        .map_or("", |file| &file.text);
    for file in tree.iter().filter(|file| file.has_extension(SOURCE)) {
        findings.extend(size(file, exceptions));
        findings.extend(module_doc(file));
        findings.extend(spdx(file));
        findings.extend(waiting_work(file));
    }
    findings.extend(columns(tree));
    findings.extend(stale_exceptions(tree, exceptions));
    findings
}

fn excepted(exceptions: &str) -> impl Iterator<Item = (&str, &str)> {
    exceptions
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| {
            line.split_once(' ')
                .map_or((line, ""), |(path, reason)| (path, reason.trim()))
        })
}

fn size(file: &File, exceptions: &str) -> Option<Finding> {
    let (bytes, lines) = (file.text.len(), file.text.lines().count());
    if bytes > BYTES_MAX && !excepted(exceptions).any(|(path, _)| path == file.path) {
        let text = format!("{bytes} bytes: split it, or give the reason in {LARGE_FILES}");
        return Some(Finding::failure(&file.path, text));
    }
    let is_test = file.path.contains("tests");
    (lines > LINES_WARN && bytes <= BYTES_MAX && !is_test)
        .then(|| Finding::warning(&file.path, format!("{lines} lines: one concept?")))
}

fn stale_exceptions(tree: &[File], exceptions: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, reason) in excepted(exceptions) {
        let is_large = tree
            .iter()
            .any(|file| file.path == path && file.text.len() > BYTES_MAX);
        if !is_large {
            findings.push(Finding::failure(
                LARGE_FILES,
                format!("{path} needs no exception any more"),
            ));
        }
        if reason.is_empty() {
            findings.push(Finding::failure(
                LARGE_FILES,
                format!("{path} has no reason"),
            ));
        }
    }
    findings
}

/// A line with an address in it may be longer: an address cannot be broken.
fn columns(tree: &[File]) -> Option<Finding> {
    let is_long = |line: &str| line.chars().count() > COLUMNS_MAX && !line.contains("://");
    let sources = tree.iter().filter(|file| file.has_extension(SOURCE));
    let mut long = sources.filter_map(|file| {
        let (at, _) = file.lines().find(|(_, line)| is_long(line))?;
        Some(format!("{}:{at}", file.path))
    });
    let first = long.next()?;
    let files = long.count() + 1;
    let text = format!(
        "{files} files with lines above {COLUMNS_MAX} columns, this is the first: `cargo xtask tidy --wrap` helps"
    );
    Some(Finding::warning(first, text))
}

/// Tests beside their module need none: the module's says it.
fn module_doc(file: &File) -> Option<Finding> {
    let beside = file.path.ends_with("/tests.rs")
        || file.path.contains("/src/") && file.path.contains("/tests/");
    let is_documented = file
        .text
        .lines()
        .find(|line| !line.trim().is_empty())
        .is_some_and(|line| line.starts_with("//!"));
    (file.has_extension(&["rs"]) && !beside && !is_documented)
        .then(|| Finding::failure(&file.path, "does not begin with what it is (`//!`)"))
}

fn spdx(file: &File) -> Option<Finding> {
    let is_bpf = file.path.starts_with("crates/bpf/") && file.has_extension(&["c", "h"]);
    let is_licensed = file
        .text
        .lines()
        .next()
        .is_some_and(|line| line.contains(SPDX));
    (is_bpf && !is_licensed)
        .then(|| Finding::failure(&file.path, format!("does not begin with // {SPDX}")))
}

/// Work left for later says why it waits.
fn waiting_work(file: &File) -> Vec<Finding> {
    const MARK: &str = concat!("TO", "DO");
    file.lines()
        .filter(|(_, line)| {
            line.split(MARK)
                .skip(1)
                .any(|rest| !matches!(reason(rest), Some(reason) if reason.len() >= 8))
        })
        .filter(|(_, line)| line.contains("//"))
        .map(|(at, _)| {
            let text = format!("write `{MARK}(why it waits): what is to be done`");
            Finding::failure(format!("{}:{at}", file.path), text)
        })
        .collect()
}

fn reason(rest: &str) -> Option<&str> {
    rest.strip_prefix('(')?
        .split_once("):")
        .map(|(reason, _)| reason)
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn texts(tree: &[File]) -> Vec<String> {
        check(tree)
            .into_iter()
            .map(|finding| format!("{}: {}", finding.place, finding.text))
            .collect()
    }

    #[test]
    fn a_good_file_passes() {
        assert_eq!(
            texts(&[file("crates/core/src/a.rs", "//! A.\n\nfn a() {}\n")]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_large_file_needs_a_reason_and_a_reason_needs_a_large_file() {
        let large = format!("//! A.\n{}", "// line\n".repeat(4_000));
        let tree = [file("crates/core/src/a.rs", &large)];
        assert!(texts(&tree)[0].contains("split it"), "{:?}", texts(&tree));
        let tree = [
            tree[0].clone(),
            file(LARGE_FILES, "# head\ncrates/core/src/a.rs one table\n"),
        ];
        assert_eq!(texts(&tree), Vec::<String>::new());
        let found = texts(&[file(LARGE_FILES, "gone.rs\n")]);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn many_lines_warn() {
        let long = format!("//! A.\n{}", "// x\n".repeat(301));
        let found = check(&[file("crates/core/src/a.rs", &long)]);
        assert!(
            !found[0].is_failure && found[0].text.contains("one concept?"),
            "{found:?}"
        );
    }

    #[test]
    fn long_lines_are_found_with_the_first_ones_number() {
        let text = format!("//! A.\n// {}\n", "x".repeat(COLUMNS_MAX));
        assert!(texts(&[file("a/src/a.rs", &text)])[0].starts_with("a/src/a.rs:2: "));
    }

    #[test]
    fn a_file_says_what_it_is() {
        assert!(
            texts(&[file("crates/core/src/a.rs", "fn a() {}\n")])[0]
                .contains("begin with what it is")
        );
        assert!(texts(&[file("crates/core/src/a/tests.rs", "use super::*;\n")]).is_empty());
        assert!(
            texts(&[file("crates/core/tests/a.rs", "use core::fmt;\n")])[0].contains("what it is")
        );
    }

    #[test]
    fn bpf_sources_carry_their_licence() {
        assert!(texts(&[file("crates/bpf/src/bpf/a.bpf.c", "int x;\n")])[0].contains("SPDX"));
        let licensed = format!("// {SPDX}\nint x;\n");
        assert!(texts(&[file("crates/bpf/src/bpf/a.bpf.c", &licensed)]).is_empty());
    }

    #[test]
    fn work_left_for_later_says_why() {
        let mark = concat!("TO", "DO");
        let bare = format!("//! A.\n// {mark}: later\n");
        assert!(texts(&[file("a/src/a.rs", &bare)])[0].contains("why it waits"));
        let reasoned = format!("//! A.\n// {mark}(the store has no watch yet): follow it\n");
        assert!(texts(&[file("a/src/a.rs", &reasoned)]).is_empty());
    }
}
