//! Words: the glossary's, and none that tie the tree to one machine.

use super::{File, Finding};

/// A word that has another one in the glossary.
struct Banned {
    word: &'static str,
    instead: &'static str,
}

const fn banned(word: &'static str, instead: &'static str) -> Banned {
    Banned { word, instead }
}

/// Names that say nothing, at the end of a type's name.
const TYPE_ENDINGS: &[Banned] = &[
    banned(
        "Manager",
        "the noun it really is: table, keeper, agent, planner",
    ),
    banned("Helper", "the noun it really is, or a function"),
    banned("Utils", "a module named after its concept"),
    banned("Util", "a module named after its concept"),
];

/// Modules and functions.
const ITEM_STARTS: &[Banned] = &[
    banned("mod utils", "a module named after its concept"),
    banned("mod util;", "a module named after its concept"),
    banned("mod helpers", "a module named after its concept"),
    banned("mod common;", "a module named after its concept"),
    banned("mod misc", "a module named after its concept"),
    banned("fn get_", "the bare noun: `fn pool()`"),
];

/// Words of the field that have one term here, in source and documents alike, whole and in any
/// case.
const SYNONYMS: &[Banned] = &[
    banned("whitelist", "allow"),
    banned("blacklist", "deny"),
    banned("slave", "standby"),
    banned("failback server", "standby"),
    banned("load-balancer vip", "virtual server"),
    banned("realserver", "member"),
    banned("real servers", "members"),
    banned("leader node", "command node"),
    banned("master node", "command node"),
    banned("healthcheck", "monitor"),
    banned("hot restart", "takeover"),
    banned("blue-green", "canary, wave"),
    banned("quarantined bucket", "suspect"),
    banned("chain of guests", "row"),
    banned("flow table", "bucket table"),
    banned("connection draining", "drain"),
    banned("scoreboard", "tally"),
];

/// What ties the tree to one machine or one mirror: paths, hosts, names of tools. Written in two
/// halves, so that this file does not hold them.
const FOREIGN: &[(&str, &str)] = &[
    ("/wo", "rk/"),
    ("/fa", "rm/"),
    ("fa", "rm-bench"),
    ("fa", "rm-studio"),
    ("sub", "agent"),
    ("static.", "crates"),
    ("index.", "crates"),
    ("deb.", "debian"),
    ("registry.", "npm"),
    ("pypi.", "org"),
];

/// Documents that may quote a synonym because they explain it.
const EXPLAINS: &[&str] = &["xtask/src/tidy/words.rs"];

pub(super) fn check(tree: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.iter().filter(|file| file.path != "Cargo.lock") {
        let is_source = file.has_extension(&["rs", "c", "h", "ts", "svelte"]);
        let is_document = file.has_extension(&["md"]);
        let explains = EXPLAINS.contains(&file.path.as_str());
        for (at, line) in file.lines() {
            let mut found = |banned: &Banned| {
                let text = format!("{:?}: write {}", banned.word, banned.instead);
                findings.push(Finding::failure(format!("{}:{at}", file.path), text));
            };
            if file.has_extension(&["rs"]) && !explains {
                TYPE_ENDINGS
                    .iter()
                    .filter(|banned| defines_type(line, banned.word))
                    .for_each(&mut found);
                ITEM_STARTS
                    .iter()
                    .filter(|banned| has_word(line, banned.word))
                    .filter(|banned| !shares_test_code(file, banned) && !is_idiom(line, banned))
                    .for_each(&mut found);
            }
            if (is_source || is_document) && !explains {
                let lower = line.to_lowercase();
                SYNONYMS
                    .iter()
                    .filter(|banned| has_word(&lower, banned.word))
                    .for_each(&mut found);
            }
            for (start, end) in FOREIGN {
                let word = format!("{start}{end}");
                if line.contains(&word) {
                    let text = format!("{word:?} ties the tree to one machine");
                    findings.push(Finding::failure(format!("{}:{at}", file.path), text));
                }
            }
        }
    }
    findings
}

/// Cargo's own place for what several integration tests share.
fn shares_test_code(file: &File, banned: &Banned) -> bool {
    banned.word == "mod common;" && file.path.contains("/tests/")
}

/// The name that the standard library's collections have made a term.
fn is_idiom(line: &str, banned: &Banned) -> bool {
    banned.word == "fn get_" && line.contains("fn get_mut(")
}

/// Whether the line defines a type whose name ends so.
fn defines_type(line: &str, ending: &str) -> bool {
    let mut words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    let is_definition = words.any(|word| matches!(word, "struct" | "enum" | "trait" | "type"));
    // A traffic manager is one.
    let is_term = |name: &str| name.ends_with("TrafficManager");
    is_definition
        && words
            .next()
            .is_some_and(|name| name.ends_with(ending) && !is_term(name))
}

/// Whether the text stands there and does not begin within another word.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at]
            .chars()
            .next_back()
            .is_some_and(|before| before.is_alphanumeric() || before == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn texts(path: &str, text: &str) -> Vec<String> {
        check(&[file(path, text)])
            .into_iter()
            .map(|finding| finding.text)
            .collect()
    }

    #[test]
    fn every_banned_name_is_found() {
        for banned in TYPE_ENDINGS {
            let found = texts(
                "crates/core/src/a.rs",
                &format!("pub struct Pool{} {{", banned.word),
            );
            assert!(!found.is_empty(), "{}", banned.word);
        }
        for banned in ITEM_STARTS {
            let found = texts("crates/core/src/a.rs", &format!("pub {}x", banned.word));
            assert!(!found.is_empty(), "{}", banned.word);
        }
        for banned in SYNONYMS {
            assert!(
                !texts("docs/a.md", &format!("The {}.", banned.word.to_uppercase())).is_empty()
            );
        }
    }

    #[test]
    fn using_another_crate_s_name_is_free() {
        assert!(
            texts(
                "crates/core/src/a.rs",
                "let x = other::TaskManager::get_x();"
            )
            .is_empty()
        );
        assert!(texts("crates/core/src/a.rs", "fn target_dir() {}").is_empty());
        assert!(texts("crates/core/src/a.rs", "fn get_mut(&mut self) {}").is_empty());
        assert!(!texts("crates/core/src/a.rs", "fn get_pool(&self) {}").is_empty());
    }

    #[test]
    fn paths_and_hosts_of_one_machine_are_found_everywhere() {
        for (start, end) in FOREIGN {
            assert!(
                !texts(".ci/run", &format!("x {start}{end}x")).is_empty(),
                "{start}{end}"
            );
        }
    }
}
