//! docs/http1.md names tests and rows that exist.

use super::{requests, responses};

const PAGE: &str = include_str!("../../../../../docs/http1.md");
const SOURCES: [&str; 3] = [
    include_str!("exchange.rs"),
    include_str!("requests.rs"),
    include_str!("responses.rs"),
];

#[test]
fn every_test_and_row_of_the_page_exists() {
    let (mut tests, mut rows) = (0, 0);
    for line in PAGE.lines().filter(|line| line.starts_with("| ")) {
        let cell = line.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for name in cell.split('`').skip(1).step_by(2) {
            let is_there = SOURCES
                .iter()
                .any(|source| source.contains(&format!("fn {name}()")));
            assert!(is_there, "no test `{name}`");
            tests += 1;
        }
        for name in cell.split('"').skip(1).step_by(2) {
            let is_there = requests::names()
                .chain(responses::names())
                .any(|row| row == name);
            assert!(is_there, "no row \"{name}\"");
            rows += 1;
        }
    }
    assert!(tests >= 20 && rows >= 40, "{tests} tests, {rows} rows");
    let counts = format!(
        "{} rows of requests, {} of responses",
        requests::names().count(),
        responses::names().count()
    );
    assert!(PAGE.contains(&counts), "the page should say: {counts}");
}
