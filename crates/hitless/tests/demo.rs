//! A small demo with the product: every kind of change that `cargo xtask demo` shows, on a smaller
//! cluster and with fewer connections, under traffic whose every byte is checked.
//!
//! Needs root and nginx; says so and passes where one is missing.

#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hitless_harness::needs;

const HITLESS: &str = env!("CARGO_BIN_EXE_hitless");

const STEPS: &str = "
workloads:
  streams: { kind: stream, count: 40, interval_ms: 250, bytes: 300 }
  slow: { kind: slow, count: 4, interval_ms: 100, bytes: 16000 }
  large: { kind: large, count: 2, interval_ms: 100, bytes: 100000 }
  idle: { kind: idle, count: 8 }
  kept-alive: { kind: http-keep-alive, count: 12, interval_ms: 200, bytes: 1024 }
  per-request: { kind: http-new, count: 8, bytes: 65536 }
steady_s: 2
steps:
  - { name: add, kind: add-guest, actions: [{ add-guest: { guest: tm3, node: n2 } }] }
  - name: drain
    kind: drain-guest
    streams_last_s: 6
    actions: [{ drain-guest: { guest: tm1, remove: true } }]
  - name: two, one called back
    kind: call-back
    streams_last_s: 6
    actions:
      - add-guest: { guest: tm4, node: n1 }
      - drain-guest: { guest: tm3 }
      - pause: { ms: 1000 }
      - call-back: { object: tm3 }
      - wait-settled
  - name: add a node
    kind: add-node
    actions: [{ add-node: { node: n3 } }, { add-guest: { guest: tm5, node: n3 } }]
  - name: reboot a node
    kind: reboot-node
    streams_last_s: 6
    seconds_max: 120
    actions: [{ reboot-node: { node: n3 } }]
  - { name: replace programs, kind: replace-programs, actions: [replace-programs] }
  - name: upgrade
    kind: upgrade-traffic-managers
    actions: [{ upgrade-traffic-managers: { program: \"${HITLESS_DEMO_PROGRAM}\" } }]
  - name: kill control
    kind: kill-control
    actions: [kill-node-agents, kill-ingresses, kill-controller, wait-settled]
  - name: kill workers
    kind: kill-workers
    actions: [kill-workers, wait-settled]
  - name: kill a guest
    kind: kill-guest
    actions: [{ kill-guest: { guest: tm2 } }]
";

/// Takes the lab down when the test ends.
struct Lab(String);

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new(HITLESS)
            .args(["lab", "down", &self.0])
            .output();
    }
}

/// A copy of the program with another build id: what a second build with nothing else changed is.
fn second_build(folder: &Path) -> PathBuf {
    const PREFIX: &[u8] = b"hitless-build=";
    let mut bytes = fs::read(HITLESS).unwrap();
    let marks: Vec<usize> = bytes
        .windows(PREFIX.len())
        .enumerate()
        .filter(|(_, window)| *window == PREFIX)
        .map(|(at, _)| at + PREFIX.len())
        .filter(|at| bytes[*at].is_ascii_alphanumeric())
        .collect();
    let [at] = marks[..] else {
        panic!("the build id is there {} times", marks.len());
    };
    let id = &mut bytes[at..at + 32];
    id.fill(0);
    id[..6].copy_from_slice(b"second");
    let path = folder.join("hitless-second");
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn root_nothing_is_lost_while_guests_come_and_go_and_parts_die() {
    if !needs::root() || !needs::program("nginx", "nginx-light") {
        return;
    }
    let lab = Lab(format!("d{}", std::process::id() % 1_000_000));
    let folder = tempfile::tempdir().unwrap();
    let second = second_build(folder.path());
    let (one, other) = (version(Path::new(HITLESS)), version(&second));
    assert!(other.contains("(build second)") && one != other, "{other}");
    let script = folder.path().join("demo.yaml");
    let topology = format!(
        "topology: {{ id: {}, nodes: [n1, n2], guests: {{ tm1: n1, tm2: n2 }} }}",
        lab.0
    );
    fs::write(&script, topology + STEPS).unwrap();
    let output = Command::new(HITLESS)
        .args(["lab", "run", "--json"])
        .arg(&script)
        .env("HITLESS_DEMO_PROGRAM", &second)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{document:#}");
    let steps = document["steps"].as_array().unwrap();
    let kinds: BTreeSet<&str> = steps
        .iter()
        .filter_map(|step| step["kind"].as_str())
        .collect();
    assert_eq!(kinds, kinds_of_the_demo(), "{document:#}");
    for step in steps {
        assert!(step["connections"].as_u64().unwrap() >= 66, "{document:#}");
        let may_lose: &[&str] = match step["kind"].as_str().unwrap() {
            // Its own connections, and the requests that were in the workers' memory.
            "kill-guest" | "kill-workers" => &["reset", "closed_early"],
            _ => &[],
        };
        for key in ["reset", "closed_early", "refused", "corrupted"] {
            let is_lost = step[key] != 0;
            assert!(!is_lost || may_lose.contains(&key), "{document:#}");
        }
    }
    let proof = |kind: &str, name: &str| {
        let step = steps.iter().find(|step| step["kind"] == kind).unwrap();
        step["proofs"][name].clone()
    };
    for kind in ["upgrade-traffic-managers", "replace-programs"] {
        assert_eq!(proof(kind, "programs_replaced"), true, "{document:#}");
    }
    for kind in ["add-node", "reboot-node"] {
        let percent = proof(kind, "flows_changed_director_percent");
        assert!(percent.as_f64().unwrap() >= 20.0, "{document:#}");
    }
}

/// The kinds of `cargo xtask demo`'s steps.
fn kinds_of_the_demo() -> BTreeSet<&'static str> {
    let script = include_str!("../../lab/demo.yaml");
    let kinds = script
        .lines()
        .filter_map(|line| line.strip_prefix("    kind: "));
    kinds.collect()
}
