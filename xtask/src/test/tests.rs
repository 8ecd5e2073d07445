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
