use super::*;

fn counted(lines: &[&str]) -> Counts {
    let mut counts = Counts::default();
    for line in lines {
        counts.add(line);
    }
    counts
}

#[test]
fn closing_lines_of_both_runners_are_summed() {
    let counts = counted(&[
        "test result: ok. 5 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        "     Summary [   0.034s] 9 tests run: 7 passed (1 slow), 1 failed, 1 timed out, 3 skipped",
    ]);
    assert_eq!(
        counts,
        Counts {
            passed: 12,
            failed: 3,
            skipped: 5
        }
    );
}

#[test]
fn a_test_that_is_left_out_has_not_passed() {
    let mut counts = counted(&["test result: ok. 5 passed; 0 failed; 2 ignored; 0 measured"]);
    counts.leave_out(3);
    assert_eq!((counts.passed, counts.failed, counts.skipped), (2, 0, 5));
}

#[test]
fn benchmarks_are_not_run_as_tests() {
    let line = shown(&test_runner(Runner::Plain, &["hitless-proto"]));
    assert!(line.contains("--lib --bins --tests"), "{line}");
    assert!(
        !line.contains("--all-targets") && !line.contains("--benches"),
        "{line}"
    );
}

/// The same packages as where nextest runs them one test at a time.
#[test]
fn both_runners_leave_the_same_packages_alone() {
    let text = std::fs::read_to_string(run::root().join(".config/nextest.toml")).unwrap();
    for package in ALONE {
        let part = package.strip_prefix("hitless-").unwrap_or("^hitless");
        assert!(
            text.contains(part),
            "{package} is not in .config/nextest.toml"
        );
    }
}

#[test]
fn other_lines_do_not_count() {
    assert_eq!(
        counted(&[
            "running 5 tests",
            "    test result: FAILED. 0 passed; 1 failed",
            "the 3 passed flows were 4 failed"
        ]),
        Counts::default()
    );
}

#[test]
fn an_output_is_counted_and_a_failure_is_an_error() {
    let mut counts = Counts::default();
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "echo 'test result: ok. 3 passed; 0 failed; 0 ignored' >&2; exit 3",
    ]);
    assert!(count(&mut command, &mut counts).is_err());
    assert_eq!(counts.passed, 3);
}
