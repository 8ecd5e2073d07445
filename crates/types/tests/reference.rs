//! `docs/reference/site.md` has each mapping of a site file as a heading, and below it each of its
//! fields and no other.

use hitless_types::site::fields;

const PAGE: &str = include_str!("../../../docs/reference/site.md");

#[test]
fn the_reference_has_every_field_and_no_other() {
    let headings: Vec<&str> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let names: Vec<&str> = fields::ALL.iter().map(|mapping| mapping.name).collect();
    assert_eq!(headings, names);
    for mapping in fields::ALL {
        let heading = format!("\n## {}\n", mapping.name);
        let (_, section) = PAGE.split_once(&heading).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let listed: Vec<&str> = section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        assert_eq!(listed, mapping.fields, "section {}", mapping.name);
    }
}

#[test]
fn the_reference_s_example_is_the_quickstart() {
    let quickstart = include_str!("../../../examples/quickstart.yaml");
    assert!(PAGE.contains(quickstart.trim_end()));
}
