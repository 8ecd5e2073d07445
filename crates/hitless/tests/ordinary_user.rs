//! `hitless serve` needs no root: an upgrade, a reload and a worker's kill by a user who is nobody
//! special. Where the tests run as root, that is `nobody`.

#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod terminal;

use std::fs;

use terminal::{Echo, Http, Member, User, free_address, signal, site, wait_for};

/// Who a process is, and which of root's powers it has.
fn rights(pid: i64) -> (Vec<u32>, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().to_owned()
    };
    let users = of("Uid:");
    let users = users.split_whitespace().map(|uid| uid.parse().unwrap());
    let powers = u64::from_str_radix(&of("CapPrm:"), 16).unwrap();
    (users.collect(), powers)
}

#[test]
fn serve_upgrades_reloads_and_outlives_its_worker_without_root() {
    let user = User::ordinary();
    let (one, two) = (Member::start("one"), Member::start("two"));
    let (web, raw, more) = (free_address(), free_address(), free_address());
    let text = site(web, raw, &[one.address]);
    let served = user.serve(&text);
    let keeper = i64::from(served.child.id());
    let assert_no_root = || {
        for pid in [keeper, served.worker_pid()] {
            let (users, powers) = rights(pid);
            assert!(!users.contains(&0) && powers == 0, "{users:?} {powers:#x}");
        }
    };
    assert_no_root();
    let (mut http, mut echo) = (Http::connect(web), Echo::connect(raw));
    let mut go_on = |name: &str| {
        echo.round(50_000);
        assert_eq!(http.get(), Some((200, name.to_owned())));
    };
    go_on("one");

    let before = served.worker_pid();
    user.install_again();
    let answer = user.run(&["upgrade"]).expect(0);
    assert!(answer.stdout.contains("2 carried"), "{}", answer.stdout);
    assert_ne!(served.worker_pid(), before);
    assert_no_root();
    go_on("one");

    let after = site(web, raw, &[two.address])
        + &format!("  more: {{ listen: {more}, protocol: http, pool: web }}\n");
    user.write("site.yaml", &after);
    user.run(&["reload"]).expect(0);
    assert_eq!(Http::connect(more).get(), Some((200, "two".to_owned())));
    go_on("two");

    let before = served.worker_pid();
    signal(before, "-KILL");
    wait_for("another worker", || {
        (served.worker_pid() != before).then_some(())
    });
    assert_no_root();
    go_on("two");
}
