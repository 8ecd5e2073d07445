//! Commands that need nothing running: `check`, and what the others say when they cannot do their
//! work.

mod terminal;

use terminal::{User, free_address, site};

const QUICKSTART: &str = include_str!("../../../examples/quickstart.yaml");

#[test]
fn check_says_what_a_good_file_holds() {
    let user = User::new();
    user.write("quickstart.yaml", QUICKSTART);
    let answer = user.run(&["check", "-f", "quickstart.yaml"]).expect(0);
    assert_eq!(
        answer.stdout,
        "quickstart.yaml: ok, 2 virtual servers, 1 pool, 2 members\n"
    );
    let answer = user
        .run(&["check", "-f", "quickstart.yaml", "--output", "json"])
        .expect(0);
    let json: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(json["valid"], true);
}

#[test]
fn check_looks_into_certificates_and_keys() {
    let user = User::new();
    let tls = "pool: web, tls: { certificates: [{ certificate: no.pem, key: text.pem }] } }";
    let site = QUICKSTART.replacen("pool: web }", tls, 1);
    user.write("site.yaml", &site);
    user.write("text.pem", "no key at all\n");
    let answer = user.run(&["check", "-f", "site.yaml"]).expect(1);
    for expected in [
        "error[unreadable-file]: it cannot be read: No such file",
        "site.yaml:7:98: virtual_servers.web.tls.certificates[0].certificate",
        "found: `no.pem`",
        "error[bad-key]: there is no private key in it",
        "site.yaml: 2 errors",
    ] {
        assert!(answer.stdout.contains(expected), "{}", answer.stdout);
    }
}

#[test]
fn check_prints_every_error_at_once_as_text_and_as_json() {
    let user = User::new();
    user.write(
        "site.yaml",
        &QUICKSTART
            .replace("pool: web", "pool: wbe")
            .replace("2s", "2"),
    );
    let answer = user.run(&["check", "-f", "site.yaml"]).expect(1);
    let expected = "\
error[duration]: the interval has no unit
 --> site.yaml:5:56: pools.web.monitor.http.interval
  |
5 |     monitor: { http: { path: /, expect: 200, interval: 2 } }
  |                                                        ^
  = found: `2`
  = allowed: 1ms to 1d, for example `500ms`, `2s`, `1m`
  = help: did you mean `2s`?

error[unknown-pool]: there is no pool `wbe`
 --> site.yaml:7:56: virtual_servers.web.pool
  |
7 |   web: { listen: 127.0.0.1:8080, protocol: http, pool: wbe }
  |                                                        ^^^
  = allowed: web
  = help: did you mean `web`?

error[unknown-pool]: there is no pool `wbe`
 --> site.yaml:8:55: virtual_servers.raw.pool
  |
8 |   raw: { listen: 127.0.0.1:8081, protocol: tcp, pool: wbe }
  |                                                       ^^^
  = allowed: web
  = help: did you mean `web`?

site.yaml: 3 errors
";
    assert_eq!(answer.stdout, expected);
    let answer = user
        .run(&["check", "-f", "site.yaml", "-o", "json"])
        .expect(1);
    let json: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    let problems = json["problems"].as_array().unwrap();
    assert_eq!((json["valid"].as_bool(), problems.len()), (Some(false), 3));
    assert_eq!(problems[0]["field"], "pools.web.monitor.http.interval");
    assert_eq!(problems[1]["hint"], "did you mean `web`?");
}

#[test]
fn check_takes_a_file_by_its_name_alone_and_from_a_pipe() {
    let user = User::new();
    user.write("site.yaml", QUICKSTART);
    let ok = "ok, 2 virtual servers, 1 pool, 2 members\n";
    let answer = user.run(&["check", "site.yaml"]).expect(0);
    assert_eq!(answer.stdout, format!("site.yaml: {ok}"));
    let fifo = user.path("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let writer = std::thread::spawn(move || std::fs::write(fifo, QUICKSTART).unwrap());
    let answer = user.run(&["check", "-f", "fifo"]).expect(0);
    assert_eq!(answer.stdout, format!("fifo: {ok}"));
    writer.join().unwrap();
    user.run(&["check"]).expect(2);
    user.run(&["check", "-f", "site.yaml", "site.yaml"])
        .expect(2);
    let answer = user.run(&["serve", "-f", "-"]).expect(2);
    assert!(
        answer.stderr.contains("read again at each reload"),
        "{}",
        answer.stderr
    );
}

#[test]
fn check_warns_of_pools_that_nobody_uses() {
    let user = User::new();
    let text = QUICKSTART.replace("pools:\n", "pools:\n  old: { members: [127.0.0.1:9009] }\n");
    user.write("site.yaml", &text);
    let answer = user.run(&["check", "site.yaml"]).expect(0);
    let end = "site.yaml: ok, 2 virtual servers, 2 pools, 3 members\n";
    assert!(
        answer.stdout.starts_with("warning[unused-pool]: "),
        "{}",
        answer.stdout
    );
    assert!(answer.stdout.ends_with(end), "{}", answer.stdout);
    let answer = user.run(&["check", "site.yaml", "-o", "json"]).expect(0);
    let json: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(
        (json["valid"].as_bool(), &json["problems"]),
        (Some(true), &serde_json::json!([]))
    );
    assert_eq!(json["warnings"][0]["field"], "pools.old");
}

#[test]
fn a_file_that_is_not_there_is_json_where_json_is_asked_for() {
    let user = User::new();
    let answer = user
        .run(&["check", "-f", "nothing.yaml", "-o", "json"])
        .expect(1);
    let json: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(json["valid"], false);
    let error = json["error"].as_str().unwrap();
    assert!(error.contains("cannot read nothing.yaml"), "{error}");
}

#[test]
fn check_refuses_addresses_that_cannot_be_meant() {
    let user = User::new();
    let text = "\
pools:
  web: { members: [224.0.0.1:80, 127.0.0.1:080, 127.0.0.1:8080] }
virtual_servers:
  web: { listen: '0.0.0.0:8080', protocol: http, pool: web }
  raw: { listen: 127.0.0.1:8080, protocol: tcp, pool: web }
";
    user.write("site.yaml", text);
    let answer = user
        .run(&["check", "-f", "site.yaml", "-o", "json"])
        .expect(1);
    let json: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    let mut codes: Vec<_> = json["problems"].as_array().unwrap().iter().collect();
    codes.sort_by_key(|problem| problem["line"].as_u64());
    let found: Vec<_> = codes
        .iter()
        .map(|problem| (problem["code"].as_str().unwrap(), problem["found"].as_str()))
        .collect();
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(
        found.contains(&("loop", Some("`127.0.0.1:8080`"))),
        "{found:?}"
    );
    assert!(
        found.contains(&("address-twice", Some("`127.0.0.1:8080`"))),
        "{found:?}"
    );
}

#[test]
fn every_port_in_use_is_named_at_once() {
    let user = User::new();
    let held: Vec<_> = (0..2)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let at = |index: usize| held[index].local_addr().unwrap();
    user.write("site.yaml", &site(at(0), at(1), &[free_address()]));
    let answer = user.run(&["serve", "-f", "site.yaml"]).expect(1);
    for listener in &held {
        let address = listener.local_addr().unwrap();
        let line = format!("error: cannot listen on {address}: another program uses that address");
        assert!(
            answer.stderr.lines().any(|one| one == line),
            "{}",
            answer.stderr
        );
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let user = User::new();
    for command in ["check", "serve"] {
        let answer = user.run(&[command, "-f", "nothing.yaml"]).expect(1);
        assert!(
            answer.stderr.starts_with("error: cannot read "),
            "{}",
            answer.stderr
        );
        assert!(
            answer.stderr.contains("nothing.yaml: No such file"),
            "{}",
            answer.stderr
        );
    }
}

#[test]
fn serve_refuses_a_bad_file_with_every_error_and_serves_nothing() {
    let user = User::new();
    let web = free_address();
    let text = site(web, free_address(), &[free_address()]).replace("expect: 200", "expect: 999");
    user.write("site.yaml", &text);
    let answer = user.run(&["serve", "-f", "site.yaml"]).expect(1);
    assert!(
        answer
            .stderr
            .contains("error[out-of-range]: the expected status"),
        "{}",
        answer.stderr
    );
    assert!(std::net::TcpStream::connect(web).is_err());
}

#[test]
fn a_port_in_use_is_named_with_who_holds_it() {
    let user = User::new();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    user.write(
        "site.yaml",
        &site(address, free_address(), &[free_address()]),
    );
    let answer = user.run(&["serve", "-f", "site.yaml"]).expect(1);
    assert!(
        answer.stderr.contains(&address.to_string()),
        "{}",
        answer.stderr
    );
    let me = format!("(process {}) holds port", std::process::id());
    assert!(answer.stderr.contains(&me), "{}", answer.stderr);
}

#[test]
fn nothing_that_runs_is_said_with_what_to_do() {
    let user = User::new();
    for command in ["status", "reload", "upgrade", "stop", "metrics"] {
        let answer = user.run(&[command]).expect(5);
        assert!(
            answer.stderr.contains("error: no hitless runs here"),
            "{}",
            answer.stderr
        );
        assert!(
            answer
                .stderr
                .contains("help: start one with `hitless serve -f FILE`")
        );
        let answer = user.run(&[command, "--run-dir", "elsewhere"]).expect(5);
        assert!(
            answer
                .stderr
                .contains("no traffic manager runs with the run folder elsewhere")
        );
    }
}

#[test]
fn usage_errors_have_their_own_code() {
    let user = User::new();
    for arguments in [
        &["serve"][..],
        &["fly"],
        &["check", "-f", "x", "-o", "xml"],
        &["stop", "--timeout", "5"],
    ] {
        user.run(arguments).expect(2);
    }
    let answer = user.run(&["nonsense"]).expect(2);
    assert!(!answer.stderr.contains("tip:"), "{}", answer.stderr);
    let answer = user.run(&["chekc"]).expect(2);
    assert!(answer.stderr.contains("'check'"), "{}", answer.stderr);
    let answer = user.run(&["worker"]).expect(2);
    assert!(
        answer.stderr.contains("started by a keeper, not by hand"),
        "{}",
        answer.stderr
    );
    let answer = user.run(&["--version"]).expect(0);
    assert!(answer.stdout.starts_with("hitless 0."), "{}", answer.stdout);
    assert!(answer.stdout.contains("(build "), "{}", answer.stdout);
}
