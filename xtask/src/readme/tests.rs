use super::*;

#[test]
fn marked_blocks_are_found_with_their_lines() {
    let text =
        "# A\n```sh run\nhitless status\n```\n```yaml\na: b\n```\n```sh\ncargo xtask test\n```\n";
    let found = blocks("README.md", text).unwrap();
    assert_eq!(
        found,
        [Block {
            line: 3,
            text: "hitless status\n".into()
        }]
    );
}

#[test]
fn a_command_that_is_shown_and_not_run_is_refused() {
    let error = blocks("README.md", "```sh\n# first\nhitless stop # now\n```\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "README.md:3: \"hitless stop\" is shown and not run: fence it as `sh run`"
    );
}

#[test]
fn blocks_share_a_shell_and_nothing_outlives_it() {
    let block = |line, text: &str| Block {
        line,
        text: text.into(),
    };
    let result = run_document(
        "a.md",
        &[
            block(1, "sleep 600 &\nx=5\n"),
            block(4, "test \"$x\" = 5\n"),
        ],
    );
    match result {
        Ok(()) => {}
        // Without root, a machine may refuse namespaces to users.
        Err(error) if error.to_string().contains("unshare failed") => {
            eprintln!("skipped: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    }
    let error =
        run_document("a.md", &[block(7, "echo so far\nfalse\necho too far\n")]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("--- a.md:7\nso far\n") && !text.contains("too far"),
        "{text}"
    );
}
