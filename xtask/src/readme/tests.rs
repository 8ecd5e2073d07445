use hitless_harness::needs;

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
fn what_a_machine_lacks_takes_only_what_needs_it() {
    let block = |line, text: &str| Block {
        line,
        text: text.into(),
    };
    let all = [
        block(1, "hitless check -f examples/quickstart.yaml\n"),
        block(
            4,
            "/usr/sbin/nginx -p . -c examples/members.conf\nhitless serve &\n",
        ),
        block(9, "curl http://127.0.0.1:8080/\n"),
        block(12, "hitless stop\n"),
    ];
    let lacks = |words: &[&'static str]| -> BTreeMap<&'static str, String> {
        words
            .iter()
            .map(|word| (*word, format!("no {word}")))
            .collect()
    };
    let parts = |words| {
        let lacks = lacks(words);
        let (can_run, left_out) = split(&all, &lacks);
        let left_out: Vec<(usize, String)> = left_out
            .into_iter()
            .map(|(block, reason)| (block.line, reason))
            .collect();
        (can_run.len(), left_out)
    };
    assert_eq!(parts(&[]), (4, Vec::new()));
    let expected = [(9, "no curl".to_owned()), (12, "no curl".to_owned())];
    assert_eq!(parts(&["curl"]), (2, expected.to_vec()));
    let (can_run, left_out) = parts(&["curl", "nginx"]);
    assert_eq!(can_run, 1);
    let reasons: Vec<&str> = left_out.iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!(reasons, ["no nginx", "no curl", "no nginx"]);
    assert_eq!(parts(&[""]).0, 0);
    // A word is a whole word.
    assert_eq!(parts(&["ngin"]).0, 4);
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
            needs::left_out("this machine gives users no namespaces");
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
