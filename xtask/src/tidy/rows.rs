//! Rows are made by the table's machines and written by the planes, and by nobody else.

use super::{File, Finding};

/// A call, and the folders whose sources may make it. Tests and benches may make any.
const CALLS: [(&str, &[&str]); 2] = [
    ("Row::new(", &["crates/core/", "crates/sim/"]),
    (".set_rows(", &["crates/control/src/bpf/"]),
];

pub(super) fn check(tree: &[File]) -> Vec<Finding> {
    tree.iter().flat_map(calls).collect()
}

fn calls(file: &File) -> Vec<Finding> {
    let is_source = file.path.starts_with("crates/")
        && file.path.contains("/src/")
        && file.has_extension(&["rs"])
        && !file.path.ends_with("tests.rs");
    if !is_source {
        return Vec::new();
    }
    let product = file.lines().take_while(|(_, line)| *line != "#[cfg(test)]");
    let mut findings = Vec::new();
    for (number, line) in product {
        let is_comment = line.trim_start().starts_with("//");
        for (call, folders) in CALLS {
            let may = folders.iter().any(|folder| file.path.starts_with(folder));
            if line.contains(call) && !may && !is_comment {
                let text = format!("`{call}`: only {} may", folders.join(" and "));
                findings.push(Finding::failure(format!("{}:{number}", file.path), text));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file;

    #[test]
    fn only_the_table_makes_rows() {
        let text = "fn a() {\n    Row::new(&slots, next);\n    ingress.set_rows(&rows);\n}\n";
        let found = |path: &str| calls(&file(path, text)).len();
        assert_eq!(found("crates/control/src/controller.rs"), 2);
        assert_eq!(found("crates/core/src/row.rs"), 1);
        assert_eq!(found("crates/control/src/bpf/ingress.rs"), 1);
        assert_eq!(found("crates/control/tests/cluster.rs"), 0);
        assert_eq!(found("crates/control/src/controller/tests.rs"), 0);
        let inline = format!("#[cfg(test)]\nmod tests {{\n{text}}}\n");
        assert_eq!(calls(&file("crates/control/src/a.rs", &inline)), []);
    }
}
