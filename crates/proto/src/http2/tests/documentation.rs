//! docs/http2.md names tests and rows that exist.

use super::{frames, heads};

const PAGE: &str = include_str!("../../../../../docs/http2.md");
const SOURCES: [&str; 7] = [
    include_str!("bridge.rs"),
    include_str!("ends.rs"),
    include_str!("exchange.rs"),
    include_str!("frames.rs"),
    include_str!("heads.rs"),
    include_str!("windows.rs"),
    include_str!("../hpack/tests.rs"),
];

#[test]
fn every_test_and_row_of_the_page_exists() {
    let (mut tests, mut rows) = (0, 0);
    for line in PAGE.lines().filter(|line| line.starts_with("| ")) {
        let cell = line.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for name in cell.split('`').skip(1).step_by(2) {
            let is_there = SOURCES
                .iter()
                .any(|source| source.contains(&format!("fn {name}(")));
            assert!(is_there, "no test `{name}`");
            tests += 1;
        }
        for name in cell.split('"').skip(1).step_by(2) {
            let is_there = frames::names().chain(heads::names()).any(|row| row == name);
            assert!(is_there, "no row \"{name}\"");
            rows += 1;
        }
    }
    assert!(tests >= 30 && rows >= 60, "{tests} tests, {rows} rows");
    let counts = format!(
        "{} rows of frames, {} of heads",
        frames::names().count(),
        heads::names().count()
    );
    assert!(PAGE.contains(&counts), "the page should say: {counts}");
}
