//! Unsafe code lies where the list says, and where CONTRIBUTING.md and SECURITY.md say it does.

use super::{File, Finding};

/// Crates, each with a slash at its end, and single files.
const ALLOWED: &[&str] = &[
    "crates/bpf/",
    "crates/carry/",
    "crates/net/",
    "crates/hypervisor/src/daemon.rs",
    "crates/tm/src/bin/tm-test.rs",
];
/// They tell people the same.
const PAGES: &[&str] = &["CONTRIBUTING.md", "SECURITY.md"];

pub(super) fn check(tree: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let with_unsafe: Vec<(&File, usize)> = tree
        .iter()
        .filter(|file| file.has_extension(&["rs"]))
        .filter_map(|file| Some((file, first_line(file)?)))
        .collect();
    for (file, line) in &with_unsafe {
        if !ALLOWED.iter().any(|place| file.path.starts_with(place)) {
            findings.push(Finding::failure(
                format!("{}:{line}", file.path),
                "unsafe code lies elsewhere: see ALLOWED of xtask/src/tidy/unsafe_code.rs",
            ));
        }
    }
    for place in ALLOWED {
        if !with_unsafe
            .iter()
            .any(|(file, _)| file.path.starts_with(place))
        {
            findings.push(Finding::failure(
                place,
                "has no unsafe code any more: take it from the list",
            ));
        }
        let crate_name = place.split('/').nth(1).unwrap_or_default();
        for page in tree.iter().filter(|file| PAGES.contains(&&*file.path)) {
            let names_it = page.text.contains(&format!("`{crate_name}`"));
            if !names_it {
                let text = format!("says where unsafe code lies and leaves {place} out");
                findings.push(Finding::failure(&page.path, text));
            }
        }
    }
    findings
}

/// The first line with the keyword. What stands in a comment is no code.
fn first_line(file: &File) -> Option<usize> {
    const WORD: &str = concat!("un", "safe");
    let has_it = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        let mut rest = code;
        while let Some((before, behind)) = rest.split_once(WORD) {
            let is_begun = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '"');
            // A block, a function, an implementation, an attribute.
            let is_used = [" {", " fn ", " impl", " extern", "("]
                .iter()
                .any(|next| behind.starts_with(next));
            if !is_begun && is_used {
                return true;
            }
            rest = behind;
        }
        false
    };
    file.lines()
        .find_map(|(at, line)| has_it(line).then_some(at))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    /// A tree in which all places of the list have such code and both pages tell of them.
    fn tree(more: &[(&str, &str)]) -> Vec<File> {
        let code = concat!("fn f() { un", "safe { g() } }\n");
        let mut tree: Vec<File> = ALLOWED
            .iter()
            .map(|place| match place.strip_suffix('/') {
                Some(_) => file(&format!("{place}src/lib.rs"), code),
                None => file(place, code),
            })
            .collect();
        for page in PAGES {
            tree.push(file(page, "`bpf`, `carry`, `net`, `hypervisor`, `tm`\n"));
        }
        for (path, text) in more {
            tree.retain(|file| file.path != *path);
            tree.push(file(path, text));
        }
        tree
    }

    fn found(more: &[(&str, &str)]) -> Vec<String> {
        check(&tree(more))
            .into_iter()
            .map(|finding| format!("{} {}", finding.place, finding.text))
            .collect()
    }

    #[test]
    fn what_is_on_the_list_is_allowed_and_words_are_no_code() {
        let words = concat!("// un", "safe { }\n#![forbid(un", "safe_code)]\n");
        assert!(found(&[("crates/core/src/lib.rs", words)]).is_empty());
    }

    #[test]
    fn any_other_place_is_refused() {
        for code in [
            "safe { g() }",
            "safe fn f() {}",
            "safe impl Send for A {}",
            "safe(no_mangle)",
        ] {
            let text = format!("struct A;\n    un{code}\n");
            let found = found(&[("crates/core/src/lib.rs", &text)]);
            assert_eq!(found.len(), 1, "{code}");
            assert!(found[0].starts_with("crates/core/src/lib.rs:2 unsafe code"));
        }
    }

    #[test]
    fn the_list_and_the_pages_are_held_to_the_tree() {
        let gone = found(&[("crates/net/src/lib.rs", "fn f() {}\n")]);
        assert_eq!(gone.len(), 1, "{gone:?}");
        assert!(gone[0].starts_with("crates/net/ has no"), "{gone:?}");
        let left_out = found(&[("SECURITY.md", "`bpf`, `carry`, `net`, `tm`\n")]);
        assert_eq!(left_out.len(), 1, "{left_out:?}");
        assert!(
            left_out[0].contains("crates/hypervisor/src/daemon.rs"),
            "{left_out:?}"
        );
    }
}
