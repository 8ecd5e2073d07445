//! The mission's table is complete, and a row that says *done* names a test that exists.

use std::collections::BTreeMap;

use super::{File, Finding};

const PATH: &str = "docs/mission.md";

/// The chapters and how many rows each has, numbered from 1.
const CHAPTERS: &[(&str, &[(u32, u32)])] = &[
    ("VCA", &[(1, 22)]),
    ("TM", &[(1, 18), (20, 31)]),
    ("ISU", &[(1, 27)]),
    ("PAIR", &[(1, 18)]),
    ("MNT", &[(1, 25)]),
    ("OFF", &[(1, 28)]),
    ("RUN", &[(1, 20)]),
    ("REL", &[(1, 8)]),
    ("VER", &[(1, 10)]),
];

/// A row: `| id | what | state | proof |`.
struct Row<'a> {
    line: usize,
    what: &'a str,
    state: &'a str,
    proof: &'a str,
}

pub(super) fn check(tree: &[File]) -> Vec<Finding> {
    let Some(file) = tree.iter().find(|file| file.path == PATH) else {
        return vec![Finding::failure(PATH, "is not there")];
    };
    let mut findings = Vec::new();
    let mut rows: BTreeMap<&str, Row<'_>> = BTreeMap::new();
    for (line, text) in file.lines() {
        let cells: Vec<&str> = text
            .trim()
            .trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        let [id, what, state, proof] = cells[..] else {
            continue;
        };
        if !is_id(id) {
            continue;
        }
        if rows
            .insert(
                id,
                Row {
                    line,
                    what,
                    state,
                    proof,
                },
            )
            .is_some()
        {
            findings.push(Finding::failure(
                format!("{PATH}:{line}"),
                format!("{id} stands there twice"),
            ));
        }
    }
    let wanted: Vec<String> = CHAPTERS
        .iter()
        .flat_map(|(chapter, ranges)| ranges.iter().map(move |range| (chapter, range)))
        .flat_map(|(chapter, (first, last))| {
            (*first..=*last).map(move |n| format!("{chapter}-{n}"))
        })
        .collect();
    for id in wanted.iter().filter(|id| !rows.contains_key(id.as_str())) {
        findings.push(Finding::failure(PATH, format!("{id} is missing")));
    }
    for (id, row) in &rows {
        let place = format!("{PATH}:{}", row.line);
        if !wanted.iter().any(|wanted| wanted == id) {
            findings.push(Finding::failure(&place, format!("{id} is in no chapter")));
        }
        if row.what.is_empty() {
            findings.push(Finding::failure(
                &place,
                format!("{id} does not say what it is"),
            ));
        }
        findings.extend(state(tree, id, row, &place));
    }
    findings
}

fn is_id(text: &str) -> bool {
    text.split_once('-').is_some_and(|(chapter, number)| {
        chapter.bytes().all(|byte| byte.is_ascii_uppercase()) && number.parse::<u32>().is_ok()
    })
}

fn state(tree: &[File], id: &str, row: &Row<'_>, place: &str) -> Vec<Finding> {
    if !matches!(row.state, "done" | "begun" | "open") {
        return vec![Finding::failure(
            place,
            format!("{id}: a state is done, begun or open"),
        )];
    }
    let proofs: Vec<&str> = row.proof.split('`').skip(1).step_by(2).collect();
    let mut findings = Vec::new();
    if row.state == "done" && proofs.is_empty() {
        findings.push(Finding::failure(
            place,
            format!("{id} is done by which test?"),
        ));
    }
    for proof in proofs.iter().filter(|proof| !proves(tree, proof)) {
        let text = format!("{id}: no test {proof}: write path or path::function");
        findings.push(Finding::failure(place, text));
    }
    findings
}

/// Whether a proof, `path` or `path::function`, is there.
fn proves(tree: &[File], proof: &str) -> bool {
    let (path, function) = proof
        .split_once("::")
        .map_or((proof, None), |(path, name)| (path, Some(name)));
    tree.iter().any(|file| {
        file.path == path && function.is_none_or(|name| file.text.contains(&format!("fn {name}(")))
    })
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn mission(change: impl Fn(&str) -> Option<String>) -> String {
        let mut text =
            String::from("| id | what it does | state | proof |\n| --- | --- | --- | --- |\n");
        for (chapter, ranges) in CHAPTERS {
            for (first, last) in *ranges {
                for number in *first..=*last {
                    let id = format!("{chapter}-{number}");
                    text += &change(&id).unwrap_or_else(|| format!("| {id} | x | open | - |\n"));
                }
            }
        }
        text
    }

    fn texts(mission: &str) -> Vec<String> {
        let tree = [
            file(PATH, mission),
            file("crates/a/src/tests.rs", "#[test]\nfn it_holds() {}\n"),
        ];
        check(&tree)
            .into_iter()
            .map(|finding| finding.text)
            .collect()
    }

    #[test]
    fn a_complete_table_passes() {
        assert_eq!(texts(&mission(|_| None)), Vec::<String>::new());
    }

    #[test]
    fn missing_double_and_unknown_rows_are_found() {
        assert_eq!(
            texts(&mission(|id| (id == "TM-11").then(String::new))),
            ["TM-11 is missing"]
        );
        let twice = mission(|_| None) + "| TM-11 | x | open | - |\n";
        assert_eq!(texts(&twice), ["TM-11 stands there twice"]);
        let unknown = mission(|_| None) + "| TM-19 | x | open | - |\n";
        assert_eq!(texts(&unknown), ["TM-19 is in no chapter"]);
    }

    #[test]
    fn done_needs_a_test_that_exists() {
        let with = |row: &str| {
            texts(&mission(|id| {
                (id == "VCA-2").then(|| format!("| VCA-2 | {row} |\n"))
            }))
        };
        assert_eq!(with("x | done | -"), ["VCA-2 is done by which test?"]);
        assert_eq!(
            with("x | done | `crates/a/src/tests.rs::it_holds`"),
            Vec::<String>::new()
        );
        assert!(
            with("x | done | `crates/a/src/tests.rs::it_does_not`")[0]
                .starts_with("VCA-2: no test")
        );
        assert!(with("x | perhaps | -")[0].contains("a state is"));
        assert_eq!(with(" | open | -"), ["VCA-2 does not say what it is"]);
    }
}
