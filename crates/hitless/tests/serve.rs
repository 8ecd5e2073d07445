//! `hitless serve` and the commands around it, as a user runs them: no root, on loopback.

mod terminal;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use terminal::{Echo, Http, Member, PATIENCE, User, free_address, signal, site, wait_for};

#[test]
fn balances_and_shows_what_runs() {
    let user = User::new();
    let (one, two) = (Member::start("one"), Member::start("two"));
    let (web, raw) = (free_address(), free_address());
    let served = user.serve(&site(web, raw, &[one.address, two.address]));
    let mut bodies: Vec<String> = (0..4)
        .map(|_| Http::connect(web).get().unwrap().1)
        .collect();
    bodies.sort();
    assert_eq!(bodies, ["one", "one", "two", "two"]);
    Echo::connect(raw).round(100_000);
    wait_for("both up", || {
        (served.health(one.address) == "up" && served.health(two.address) == "up").then_some(())
    });

    let table = user.run(&["status"]).expect(0).stdout;
    let pid = served.child.id();
    assert!(table.contains(&format!("keeper {pid}")), "{table}");
    assert!(table.contains("config       synced"), "{table}");
    assert!(
        table
            .lines()
            .any(|line| line.starts_with("web ") && line.contains(" up ")),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'), "no colour in a pipe");
    let metrics = user.run(&["metrics"]).expect(0).stdout;
    let requests = "hitless_virtual_server_requests_total{virtual_server=\"web\"} 4";
    assert!(metrics.lines().any(|line| line == requests), "{metrics}");
}

#[test]
fn a_member_that_fails_is_taken_out_and_comes_back() {
    let user = User::new();
    let one = Member::start("one");
    let two = Member::start("two");
    let address = two.address;
    let (web, raw) = (free_address(), free_address());
    let served = user.serve(&site(web, raw, &[one.address, address]));
    wait_for("up", || (served.health(address) == "up").then_some(()));
    drop(two);
    wait_for("down", || (served.health(address) == "down").then_some(()));
    for _ in 0..6 {
        assert_eq!(Http::connect(web).get(), Some((200, "one".to_owned())));
    }
    let table = user.run(&["status"]).expect(0).stdout;
    assert!(table.contains("connection refused"), "{table}");
    let _two = Member::start_at(address, "two");
    wait_for("back", || (served.health(address) == "up").then_some(()));
    wait_for("served by it", || {
        (Http::connect(web).get()?.1 == "two").then_some(())
    });
}

#[test]
fn a_monitor_that_is_never_answered_takes_the_member_out_and_piles_nothing_up() {
    let user = User::new();
    let one = Member::start("one");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let (web, raw) = (free_address(), free_address());
    let served = user.serve(&site(web, raw, &[one.address, address]));
    wait_for("down", || (served.health(address) == "down").then_some(()));
    // What waits to be accepted now is all that was opened to it, at most one probe of it still
    // open.
    silent.set_nonblocking(true).unwrap();
    let mut open = 0;
    while let Ok((mut stream, _)) = silent.accept() {
        stream.set_nonblocking(true).unwrap();
        let mut buffer = [0; 1024];
        let ended = loop {
            match stream.read(&mut buffer) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
            }
        };
        open += usize::from(!ended);
    }
    assert!(open <= 2, "{open} probes open");
    assert_eq!(Http::connect(web).get(), Some((200, "one".to_owned())));
}

#[test]
fn reload_keeps_connections_and_refuses_a_bad_file_whole() {
    let user = User::new();
    let (one, two) = (Member::start("one"), Member::start("two"));
    let (web, raw, more) = (free_address(), free_address(), free_address());
    let before = site(web, raw, &[one.address]);
    let served = user.serve(&before);
    let (mut http, mut echo) = (Http::connect(web), Echo::connect(raw));
    assert_eq!(http.get(), Some((200, "one".to_owned())));
    echo.round(10_000);

    // Refused: one good change and one bad; neither is applied.
    let bad = site(web, raw, &[two.address]).replace("protocol: tcp", "protocol: tpc");
    user.write("site.yaml", &bad);
    let answer = user.run(&["reload"]).expect(1);
    assert!(
        answer
            .stderr
            .contains("error[unknown-word]: this is no protocol"),
        "{}",
        answer.stderr
    );
    assert!(
        answer.stderr.contains("did you mean `tcp`?"),
        "{}",
        answer.stderr
    );
    assert_eq!(http.get(), Some((200, "one".to_owned())));
    let status = served.status();
    assert_eq!(status["config"], "rejected", "{status}");
    let members = status["pools"][0]["members"].as_array().unwrap();
    assert_eq!(members[0]["address"], one.address.to_string().as_str());

    // Refused: an address that somebody has.
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    user.write(
        "site.yaml",
        &site(web, holder.local_addr().unwrap(), &[two.address]),
    );
    let answer = user.run(&["reload"]).expect(1);
    assert!(
        answer
            .stderr
            .contains(&holder.local_addr().unwrap().to_string()),
        "{}",
        answer.stderr
    );
    echo.round(10_000);

    // Applied: another member, one listener more.
    let after = site(web, raw, &[two.address])
        + &format!("  more: {{ listen: {more}, protocol: http, pool: web }}\n");
    user.write("site.yaml", &after);
    user.run(&["reload"]).expect(0);
    assert_eq!(Http::connect(web).get(), Some((200, "two".to_owned())));
    assert_eq!(Http::connect(more).get(), Some((200, "two".to_owned())));
    echo.round(10_000);
    assert_eq!(
        http.get(),
        Some((200, "two".to_owned())),
        "a member is chosen for each request"
    );
    assert_eq!(served.status()["config"], "synced");

    // Back again, by the signal.
    user.write("site.yaml", &before);
    served.signal("-HUP");
    wait_for("the reload", || {
        TcpStream::connect(more).is_err().then_some(())
    });
    assert_eq!(http.get(), Some((200, "one".to_owned())));
    echo.round(10_000);
}

#[test]
fn upgrade_carries_every_connection_over() {
    let user = User::new();
    let one = Member::start("one");
    let (web, raw) = (free_address(), free_address());
    let served = user.serve(&site(web, raw, &[one.address]));
    wait_for("up", || (served.health(one.address) == "up").then_some(()));
    let is_over = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicU64::new(0));
    let streams: Vec<_> = (0..8)
        .map(|_| {
            let (over, rounds) = (Arc::clone(&is_over), Arc::clone(&rounds));
            std::thread::spawn(move || {
                let (mut echo, mut http) = (Echo::connect(raw), Http::connect(web));
                while !over.load(Ordering::SeqCst) {
                    echo.round(4_000);
                    assert_eq!(http.get(), Some((200, "one".to_owned())));
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let go_on = || {
        let target = rounds.load(Ordering::SeqCst) + 100;
        wait_for("traffic", || {
            (rounds.load(Ordering::SeqCst) >= target).then_some(())
        });
    };
    go_on();
    let mut worker = served.worker_pid();
    for by_signal in [false, true, false] {
        user.install_again();
        if by_signal {
            served.signal("-USR2");
        } else {
            let answer = user.run(&["upgrade"]).expect(0);
            assert!(answer.stdout.contains("16 carried"), "{}", answer.stdout);
            assert!(answer.stdout.contains(" 0 reset"), "{}", answer.stdout);
        }
        worker = wait_for("another worker", || {
            let pid = served.status()["program"]["worker_pid"].as_i64()?;
            (pid != worker).then_some(pid)
        });
        go_on();
    }
    assert_eq!(
        served.health(one.address),
        "up",
        "health is carried as well"
    );
    is_over.store(true, Ordering::SeqCst);
    for stream in streams {
        stream.join().expect("a stream broke");
    }
    let table = user.run(&["status"]).expect(0).stdout;
    assert!(table.contains("\nupgrade "), "{table}");
}

#[test]
fn an_upgrade_to_something_that_is_no_program_changes_nothing() {
    let user = User::new();
    let one = Member::start("one");
    let (web, raw) = (free_address(), free_address());
    let served = user.serve(&site(web, raw, &[one.address]));
    let mut echo = Echo::connect(raw);
    echo.round(10_000);
    let worker = served.worker_pid();
    // With this text as the program; what the command says.
    let refused_upgrade = |program: &str| {
        std::fs::remove_file(user.path("hitless")).unwrap();
        user.write("hitless", program);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(user.path("hitless"), mode).unwrap();
        // The command itself is run from where it was built.
        let answer = std::process::Command::new(env!("CARGO_BIN_EXE_hitless"))
            .args(["upgrade", "--run-dir"])
            .arg(&served.run_folder)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert_eq!(answer.status.code(), Some(1), "{stderr}");
        stderr
    };
    let stderr = refused_upgrade("#!/bin/sh\nexit 7\n");
    assert!(
        stderr.contains("no upgrade; the program that ran before goes on"),
        "{stderr}"
    );
    echo.round(10_000);
    // A text that a shell would run, whatever it says, is no program either.
    let stderr = refused_upgrade("echo owned >&2; exit 7\n");
    assert!(stderr.contains("is no program"), "{stderr}");
    assert!(!served.log().contains("owned"), "{}", served.log());
    echo.round(10_000);
    user.install_again();
    assert_eq!(served.worker_pid(), worker);
}

#[test]
fn a_killed_worker_loses_no_stream_and_refuses_nobody() {
    let user = User::new();
    let one = Member::start("one");
    let (web, raw) = (free_address(), free_address());
    let served = user.serve(&site(web, raw, &[one.address]));
    let (mut echo, mut idle) = (Echo::connect(raw), Http::connect(web));
    assert_eq!(idle.get(), Some((200, "one".to_owned())));
    for _ in 0..3 {
        echo.round(100_000);
        let worker = served.worker_pid();
        signal(worker, "-KILL");
        assert_eq!(Http::connect(web).get(), Some((200, "one".to_owned())));
        echo.round(100_000);
        assert_eq!(
            idle.get(),
            Some((200, "one".to_owned())),
            "an idle connection lives on"
        );
        assert_ne!(served.worker_pid(), worker);
    }
    let table = user.run(&["status"]).expect(0).stdout;
    assert!(table.contains("\nworker crash "), "{table}");
}

#[test]
fn stop_lets_connections_finish_and_takes_no_new_ones() {
    let user = User::new();
    let one = Member::start("one");
    let (web, raw) = (free_address(), free_address());
    let mut served = user.serve(&site(web, raw, &[one.address]));
    let mut echo = Echo::connect(raw);
    echo.round(10_000);
    user.run(&["stop", "--detach"]).expect(0);
    wait_for("no new connections", || {
        TcpStream::connect(raw).is_err().then_some(())
    });
    echo.round(10_000);
    let answer = user.run(&["stop", "--timeout", "50ms"]);
    assert_eq!(answer.code, 4, "{}{}", answer.stdout, answer.stderr);
    for order in ["reload", "upgrade"] {
        let answer = user.run(&[order]).expect(1);
        let expected = "error: the traffic manager is stopping: it takes no further orders\n";
        assert_eq!(answer.stderr, expected);
    }
    let left_ms = served.status()["program"]["drain_left_ms"].as_u64();
    assert!(left_ms.is_some_and(|left| left <= 10_000), "{left_ms:?}");
    let table = user.run(&["status"]).expect(0).stdout;
    assert!(
        table.starts_with("stopping     connections may go on for "),
        "{table}"
    );
    echo.round(10_000);
    drop(echo);
    assert_eq!(served.ended(), 0, "{}", served.log());
    assert!(
        !terminal::exists(&served.run_folder),
        "the run folder is gone"
    );
    user.run(&["status"]).expect(5);
}

#[test]
fn stop_waits_until_the_program_has_ended() {
    let user = User::new();
    let one = Member::start("one");
    let mut served = user.serve(&site(free_address(), free_address(), &[one.address]));
    let answer = user.run(&["stop"]).expect(0);
    assert!(answer.stderr.ends_with("stopped\n"), "{}", answer.stderr);
    assert_eq!(served.ended(), 0);
}

#[test]
fn stop_lists_what_outlasts_the_drain() {
    let user = User::new();
    let one = Member::start("one");
    let (web, raw) = (free_address(), free_address());
    user.write("site.yaml", &site(web, raw, &[one.address]));
    let mut served = user.serve_with(&["serve", "-f", "site.yaml", "--drain", "200ms"]);
    let mut echo = Echo::connect(raw);
    echo.round(10_000);
    let client = echo.local_address();
    let answer = user.run(&["stop"]).expect(1);
    let expected = format!("cut 1 connection that outlasted the drain:\n  raw  {client}\n");
    assert!(answer.stdout.ends_with(&expected), "{}", answer.stdout);
    assert!(echo.is_reset(), "never an end that looks complete");
    assert_eq!(served.ended(), 0);
    let log = served.log();
    assert!(log.contains("stop: stopping"), "{log}");
}

#[test]
fn status_tells_a_changed_file_from_one_that_is_in_force() {
    let user = User::new();
    let one = Member::start("one");
    let (web, raw) = (free_address(), free_address());
    let good = site(web, raw, &[one.address]);
    let served = user.serve(&good);
    let config = || {
        let status = served.status();
        let reason = status["config_reason"].as_str().map(str::to_owned);
        (status["config"].as_str().unwrap().to_owned(), reason)
    };
    assert_eq!(config(), ("synced".into(), Some("as_written".into())));
    user.write("site.yaml", &good.replace("protocol: tcp", "protocol: udp"));
    assert_eq!(config(), ("pending".into(), Some("changed_since".into())));
    user.run(&["reload"]).expect(1);
    assert_eq!(config(), ("rejected".into(), None));
    user.write("site.yaml", &good);
    assert_eq!(config(), ("synced".into(), Some("as_written".into())));
    let log = served.log();
    let refusals: Vec<_> = log
        .lines()
        .filter(|line| line.contains("reload: error["))
        .collect();
    assert!(
        refusals.len() == 1 && refusals[0].contains(": 1 error by="),
        "{log}"
    );
    let blanks = log.lines().find(|line| line.contains("health changed"));
    assert!(
        blanks.is_none_or(|line| line.contains("reason=\"")),
        "{log}"
    );
}

#[test]
fn a_removed_virtual_server_is_shown_while_its_connections_live() {
    let user = User::new();
    let one = Member::start("one");
    let (web, raw) = (free_address(), free_address());
    let served = user.serve(&site(web, raw, &[one.address]));
    let mut echo = Echo::connect(raw);
    echo.round(10_000);
    let all = site(web, raw, &[one.address]);
    let kept: String = all
        .lines()
        .filter(|line| !line.trim_start().starts_with("raw:"))
        .map(|line| format!("{line}\n"))
        .collect();
    user.write("site.yaml", &kept);
    user.run(&["reload"]).expect(0);
    let admin = |name: &str| {
        let status = served.status();
        let servers = status["virtual_servers"].as_array().unwrap();
        let server = servers.iter().find(|server| server["name"] == name)?;
        Some(server["admin"].as_str().unwrap().to_owned())
    };
    assert_eq!(admin("web").as_deref(), Some("ready"));
    assert_eq!(admin("raw").as_deref(), Some("drain"));
    echo.round(10_000);
    // Its metrics stay as long, so that sums add up.
    let metric = |name: &str| {
        let metrics = user.run(&["metrics"]).expect(0).stdout;
        let line = format!("{name}{{virtual_server=\"raw\"}} ");
        let mut lines = metrics.lines();
        lines.find_map(|one| one.strip_prefix(&line)?.parse::<u64>().ok())
    };
    assert_eq!(metric("hitless_virtual_server_connections"), Some(1));
    // Their names go over with their connections.
    user.install_again();
    user.run(&["upgrade"]).expect(0);
    echo.round(10_000);
    assert_eq!(metric("hitless_virtual_server_connections"), Some(1));
    assert_eq!(admin("raw").as_deref(), Some("drain"));
    wait_for("its bytes", || {
        (metric("hitless_virtual_server_bytes_in_total") >= Some(20_000)).then_some(())
    });
    drop(echo);
    wait_for("its end", || admin("raw").is_none().then_some(()));
    assert_eq!(metric("hitless_virtual_server_connections"), None);
}

#[test]
fn a_pool_that_loses_its_last_member_is_logged_and_so_is_its_return() {
    let user = User::new();
    let one = Member::start("one");
    let address = one.address;
    let served = user.serve(&site(free_address(), free_address(), &[address]));
    wait_for("up", || (served.health(address) == "up").then_some(()));
    let lines = |what: &str| {
        served
            .log()
            .lines()
            .filter(|line| line.contains(what))
            .count()
    };
    assert_eq!(lines("no member left"), 0);
    drop(one);
    wait_for("the line", || (lines("no member left") == 1).then_some(()));
    assert!(served.log().contains("pool=web"), "{}", served.log());
    let _one = Member::start_at(address, "one");
    wait_for("the other line", || {
        (lines("has a member again") == 1).then_some(())
    });
    assert_eq!(lines("no member left"), 1);
}

#[test]
fn the_limit_of_connections_is_logged_once() {
    let user = User::new();
    let one = Member::start("one");
    let raw = free_address();
    let limited = site(free_address(), raw, &[one.address]) + "limits: { connections: 2 }\n";
    user.write("site.yaml", &limited);
    let served = user.serve_with(&["serve", "-f", "site.yaml", "--threads", "1"]);
    let mut two: Vec<Echo> = (0..2).map(|_| Echo::connect(raw)).collect();
    two.iter_mut().for_each(|echo| echo.round(1000));
    let waiting: Vec<_> = (0..3).map(|_| TcpStream::connect(raw).unwrap()).collect();
    wait_for("the line", || {
        let log = served.log();
        log.contains("limits.connections is reached").then_some(())
    });
    assert!(served.log().contains("limit=2"), "{}", served.log());
    drop((two, waiting));
    Echo::connect(raw).round(1000);
    let said = served
        .log()
        .matches("limits.connections is reached")
        .count();
    assert_eq!(said, 1);
}

#[test]
fn each_crash_keeps_its_cost_and_is_logged_with_it() {
    let user = User::new();
    let one = Member::start("one");
    let raw = free_address();
    let served = user.serve(&site(free_address(), raw, &[one.address]));
    let mut echo = Echo::connect(raw);
    echo.round(10_000);
    let costs = "1 connection: 1 live on, 0 reset";
    for crash in 1..=2 {
        let pid = served.worker_pid();
        signal(pid, "-KILL");
        wait_for("another worker", || {
            (served.worker_pid() != pid).then_some(())
        });
        echo.round(10_000);
        wait_for("its line", || {
            let log = served.log();
            let lines = log
                .lines()
                .filter(|line| line.contains("goes on for the one that ended"));
            (lines.filter(|line| line.contains(costs)).count() == crash).then_some(())
        });
        if crash == 1 {
            // What it cost goes over with an upgrade.
            user.install_again();
            user.run(&["upgrade"]).expect(0);
        }
    }
    let status = served.status();
    let changes = status["changes"].as_array().unwrap();
    let crashes: Vec<_> = changes
        .iter()
        .filter(|change| change["kind"] == "worker_crash")
        .collect();
    assert_eq!(crashes.len(), 2);
    for crash in crashes {
        let text = crash["text"].as_str().unwrap();
        assert!(text.contains(costs), "{text}");
        assert_eq!(crash["ledger"]["carried"]["takeover"], 1, "{crash}");
    }
}

#[test]
fn orders_answer_in_json() {
    let user = User::new();
    let one = Member::start("one");
    let raw = free_address();
    let good = site(free_address(), raw, &[one.address]);
    user.write("site.yaml", &good);
    let mut served = user.serve_with(&["serve", "-f", "site.yaml", "--drain", "200ms"]);
    let mut echo = Echo::connect(raw);
    echo.round(1000);
    let ask = |order: &str, code: i32| -> serde_json::Value {
        let answer = user.run(&[order, "-o", "json"]).expect(code);
        serde_json::from_str(&answer.stdout).unwrap()
    };
    let reload = ask("reload", 0);
    assert_eq!(reload["outcome"], "done");
    assert_eq!(reload["text"], "applied: 2 virtual servers, 1 pool");
    assert_eq!(reload["change"]["kind"], "reload");
    user.write("site.yaml", &good.replace("protocol: tcp", "protocol: udp"));
    let refused = ask("reload", 1);
    assert_eq!(refused["outcome"], "refused");
    assert_eq!(refused["change"]["kind"], "reload_refused");
    user.install_again();
    let upgrade = ask("upgrade", 0);
    assert_eq!(upgrade["change"]["kind"], "upgrade");
    assert_eq!(upgrade["change"]["ledger"]["carried"]["takeover"], 1);
    let stop = ask("stop", 1);
    assert_eq!(
        (&stop["outcome"], &stop["cut"]["total"]),
        (&"done".into(), &1.into())
    );
    let client = echo.local_address().to_string();
    let cut = &stop["cut"]["connections"][0];
    assert_eq!(
        (&cut["virtual_server"], &cut["client"]),
        (&"raw".into(), &client.into())
    );
    assert_eq!(served.ended(), 0);
}

#[test]
fn processes_have_names() {
    let user = User::new();
    let one = Member::start("one");
    let served = user.serve(&site(free_address(), free_address(), &[one.address]));
    let pid = served.worker_pid();
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name.trim(), "hitless-worker");
    let args = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(args.contains("hitless\0worker"), "{args}");
}

#[test]
fn several_programs_are_listed_and_one_is_named() {
    let user = User::new();
    let one = Member::start("one");
    let first = user.serve(&site(free_address(), free_address(), &[one.address]));
    user.write(
        "other.yaml",
        &site(free_address(), free_address(), &[one.address]),
    );
    let second = user.serve_with(&["serve", "-f", "other.yaml"]);
    let answer = user.run(&["status"]).expect(2);
    assert!(
        answer.stderr.contains("2 programs run here:"),
        "{}",
        answer.stderr
    );
    for (served, file) in [(&first, "site.yaml"), (&second, "other.yaml")] {
        let folder = served.run_folder.display().to_string();
        let line = answer
            .stderr
            .lines()
            .find(|line| line.contains(&folder))
            .unwrap();
        assert!(line.ends_with(file), "{line}");
        let table = user.run(&["status", "--run-dir", &folder]).expect(0).stdout;
        assert!(table.contains(file), "{table}");
    }
    // A killed program's folder is no program, and is cleaned up.
    signal(i64::from(second.child.id()), "-KILL");
    wait_for("one left", || {
        (user.run(&["status"]).code == 0).then_some(())
    });
}

#[test]
fn a_guest_s_traffic_manager_runs_in_the_folder_that_is_named() {
    let user = User::new();
    let one = Member::start("one");
    let web = free_address();
    user.write("site.yaml", &site(web, free_address(), &[one.address]));
    let mut served = user.serve_with(&["tm", "-f", "site.yaml", "--run-dir", "guest-run"]);
    assert_eq!(Http::connect(web).get(), Some((200, "one".to_owned())));
    let again = user
        .run(&["tm", "-f", "site.yaml", "--run-dir", "guest-run"])
        .expect(1);
    assert!(
        again.stderr.contains("already runs with the run folder"),
        "{}",
        again.stderr
    );
    served.signal("-TERM");
    assert_eq!(served.ended(), 0);
}

#[test]
fn a_slow_reader_holds_nobody_up() {
    let user = User::new();
    let one = Member::start("one");
    let (web, raw) = (free_address(), free_address());
    let _served = user.serve(&site(web, raw, &[one.address]));
    let mut slow = TcpStream::connect(raw).unwrap();
    slow.set_write_timeout(Some(PATIENCE)).unwrap();
    slow.set_nonblocking(true).unwrap();
    // Fill every buffer on the way and read nothing.
    let mut stuck = 0;
    wait_for("full buffers", || {
        match slow.write(&[0x80; 64 * 1024]) {
            Ok(_) => stuck = 0,
            Err(_) => stuck += 1,
        }
        (stuck > 20).then_some(())
    });
    Echo::connect(raw).round(1_000_000);
    assert_eq!(Http::connect(web).get(), Some((200, "one".to_owned())));
}
