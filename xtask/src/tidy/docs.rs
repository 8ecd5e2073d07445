//! Documents: links lead somewhere, and decisions are numbered once.

use std::collections::{BTreeMap, BTreeSet};

use super::{File, Finding};

pub(super) fn check(tree: &[File]) -> Vec<Finding> {
    let mut findings = links(tree);
    findings.extend(decisions(tree));
    findings
}

fn links(tree: &[File]) -> Vec<Finding> {
    let paths: BTreeSet<&str> = tree.iter().map(|file| file.path.as_str()).collect();
    let is_there = |path: &str| {
        let folder = format!("{path}/");
        paths.contains(path) || paths.iter().any(|other| other.starts_with(&folder))
    };
    let mut findings = Vec::new();
    for file in tree.iter().filter(|file| file.has_extension(&["md"])) {
        for (at, target) in link_targets(file) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() {
                file.path.clone()
            } else {
                resolve(&file.path, path)
            };
            let place = format!("{}:{at}", file.path);
            if !is_there(&path) {
                findings.push(Finding::failure(
                    place,
                    format!("link to {target}, which is not there"),
                ));
            } else if !anchor.is_empty()
                && let Some(linked) = tree.iter().find(|other| other.path == path)
                && linked.has_extension(&["md"])
                && !anchors(linked).contains(anchor)
            {
                findings.push(Finding::failure(
                    place,
                    format!("link to {target}, which has no such heading"),
                ));
            }
        }
    }
    findings
}

/// Relative link targets outside fenced blocks, with their lines.
fn link_targets(file: &File) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut is_fenced = false;
    for (at, line) in file.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        }
        if is_fenced {
            continue;
        }
        for rest in line.split("](").skip(1) {
            let Some((target, _)) = rest.split_once(')') else {
                continue;
            };
            let is_remote = target.contains("://") || target.starts_with("mailto:");
            if !is_remote && !target.is_empty() {
                found.push((at, target));
            }
        }
    }
    found
}

/// A relative link's path from the workspace's folder.
fn resolve(from: &str, link: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Headings as links name them: lower case, words joined by hyphens, other signs left out.
fn anchors(file: &File) -> BTreeSet<String> {
    let headings = file.text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let kept = line.trim_start_matches('#').trim().to_lowercase();
            let kept = kept
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|letter| if letter == ' ' { '-' } else { letter })
                .collect()
        })
        .collect()
}

fn decisions(tree: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for file in tree {
        let Some(name) = file
            .path
            .strip_prefix("docs/adr/")
            .filter(|_| file.has_extension(&["md"]))
        else {
            continue;
        };
        let number = name.split('-').next().unwrap_or_default();
        if number.len() != 4 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            findings.push(Finding::failure(&file.path, "is not named NNNN-title.md"));
            continue;
        }
        if let Some(other) = seen.insert(number, &file.path) {
            findings.push(Finding::failure(
                &file.path,
                format!("has the number of {other}"),
            ));
        }
        if !file.text.starts_with(&format!("# {number}: ")) {
            findings.push(Finding::failure(
                &file.path,
                format!("does not begin with `# {number}: `"),
            ));
        }
    }
    findings
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
    fn links_that_lead_somewhere_pass() {
        let tree = [
            file(
                "README.md",
                "[a](docs/a.md#the-first-one) [b](docs) [c](https://example.org/x) [d](#top-part)\n# Top part\n",
            ),
            file(
                "docs/a.md",
                "# The first: one\n```\n[x](nowhere.md)\n```\n[up](../README.md)\n",
            ),
        ];
        assert_eq!(texts(&tree), Vec::<String>::new());
    }

    #[test]
    fn dead_links_and_headings_are_found() {
        let tree = [file("docs/b.md", "x\n[a](gone.md) [b](b.md#nope)\n# Yes\n")];
        let found = texts(&tree);
        assert_eq!(found[0], "docs/b.md:2: link to gone.md, which is not there");
        assert_eq!(
            found[1],
            "docs/b.md:2: link to b.md#nope, which has no such heading"
        );
    }

    #[test]
    fn decisions_have_their_own_numbers() {
        let tree = [
            file("docs/adr/0001-a.md", "# 0001: a\n"),
            file("docs/adr/0001-b.md", "# 0001: b\n"),
            file("docs/adr/0002-c.md", "# c\n"),
            file("docs/adr/d.md", "# d\n"),
        ];
        let found = texts(&tree);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("has the number of docs/adr/0001-a.md"));
    }
}
