use std::path::Path;

use super::*;

#[test]
fn dates_are_those_of_the_calendar() {
    for (seconds, text) in [
        (0, "1970-01-01"),
        (951_782_400, "2000-02-29"),
        (1_767_225_599, "2025-12-31"),
        (4_107_542_400, "2100-03-01"),
    ] {
        assert_eq!(date(seconds), text);
    }
}

/// A folder with a certificate for `a.test` and `*.b.test`, its key, and another key.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let names = vec!["a.test".to_owned(), "*.b.test".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    write("a.pem", &made.cert.pem());
    write("a.key", &made.signing_key.serialize_pem());
    let other = rcgen::generate_simple_self_signed(["c.test".to_owned()]).unwrap();
    write("c.pem", &other.cert.pem());
    write("c.key", &other.signing_key.serialize_pem());
    write("text", "no PEM at all\n");
    let locked =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    write("locked.key", locked);
    folder
}

fn site(tls: &str) -> String {
    format!(
        "pools:\n  web: {{ members: [127.0.0.1:9001] }}\nvirtual_servers:\n  web:\n    listen: \
         127.0.0.1:8443\n    protocol: http\n    pool: web\n    tls:\n{tls}\n"
    )
}

type Loading = Result<(Loaded, Option<Problems>), Problems>;

fn load_text(text: &str, folder: &Path, now_s: u64) -> Loading {
    let site = Site::parse("site.yaml", text.as_bytes()).unwrap();
    let files = Files::of(&site, &folder.join("site.yaml"));
    let files = Files::decode(&files.encode()).unwrap();
    load(&site, &files, None, now_s, ("site.yaml", text.as_bytes()))
}

const NOW_S: u64 = 1_800_000_000;

#[test]
fn everything_wrong_with_the_files_is_told_at_once_and_with_its_place() {
    let folder = folder();
    let text = site(
        "      certificates:\n        - { certificate: a.pem, key: c.key }\n        - { certificate: \
         nowhere.pem, key: locked.key }\n        - { certificate: text, key: a.pem }\n      \
         client_certificates: { ca: /proc/self }",
    );
    let problems = load_text(&text, folder.path(), NOW_S).unwrap_err();
    let found: Vec<_> = problems
        .problems
        .iter()
        .map(|one| (one.code, one.line, one.field.as_str()))
        .collect();
    let certificates = "virtual_servers.web.tls.certificates";
    let expected = [
        ("key-mismatch", 10, format!("{certificates}[0].key")),
        (
            "unreadable-file",
            11,
            format!("{certificates}[1].certificate"),
        ),
        ("bad-key", 11, format!("{certificates}[1].key")),
        (
            "bad-certificate",
            12,
            format!("{certificates}[2].certificate"),
        ),
        ("bad-key", 12, format!("{certificates}[2].key")),
        (
            "unreadable-file",
            13,
            "virtual_servers.web.tls.client_certificates.ca".to_owned(),
        ),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(code, line, field)| (*code, *line, field.as_str()))
        .collect();
    assert_eq!(found, expected, "{problems}");
    let text = problems.to_string();
    assert!(
        text.contains("found: `locked.key`") && text.contains("password"),
        "{text}"
    );
}

#[test]
fn an_expired_certificate_is_a_warning() {
    let folder = folder();
    let text = site("      certificates: [{ certificate: a.pem, key: a.key }]");
    assert_eq!(load_text(&text, folder.path(), NOW_S).unwrap().1, None);
    // rcgen's certificates are valid from 1975 to 4096.
    for (now_s, code) in [(67_200_000_000, "expired"), (1_000, "not-yet-valid")] {
        let (_, warnings) = load_text(&text, folder.path(), now_s).unwrap();
        let warnings = warnings.unwrap();
        let [warning] = &warnings.problems[..] else {
            panic!("{warnings}")
        };
        assert_eq!((warning.code, warning.line), (code, 9));
    }
}
