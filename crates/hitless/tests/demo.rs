//! A small demo with the product: a guest comes, another goes, all traffic managers are upgraded,
//! all workers killed, under traffic whose every byte is checked.
//!
//! Needs root and nginx; says so and passes where one is missing.

use std::path::Path;
use std::process::{Command, Stdio};

const HITLESS: &str = env!("CARGO_BIN_EXE_hitless");

/// The upgrade is to this very build, so that step asks for no other program, only that nothing is
/// lost.
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
  - name: upgrade
    kind: steady
    actions: [{ upgrade-traffic-managers: { program: \"${HITLESS_DEMO_PROGRAM}\" } }]
  - name: kill
    kind: kill-workers
    actions: [kill-workers, wait-settled]
";

/// Takes the lab down when the test ends.
struct Lab(String);

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new(HITLESS)
            .args(["lab", "down", &self.0])
            .status();
    }
}

#[test]
fn root_nothing_is_lost_while_guests_come_and_go_and_workers_die() {
    if !rustix::process::geteuid().is_root() || !Path::new("/usr/sbin/nginx").exists() {
        eprintln!("demo skipped: it needs root and nginx (`cargo xtask setup`)");
        return;
    }
    let lab = Lab(format!("d{}", std::process::id() % 1_000_000));
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("demo.yaml");
    let topology = format!(
        "topology: {{ id: {}, nodes: [n1, n2], guests: {{ tm1: n1, tm2: n2 }} }}",
        lab.0
    );
    std::fs::write(&script, topology + STEPS).unwrap();
    let output = Command::new(HITLESS)
        .args(["lab", "run", "--json"])
        .arg(&script)
        .env("HITLESS_DEMO_PROGRAM", HITLESS)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{document:#}");
    let steps = document["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 4, "{document:#}");
    for step in steps {
        for key in ["reset", "closed_early", "refused", "corrupted"] {
            assert_eq!(step[key], 0, "{document:#}");
        }
        assert!(step["connections"].as_u64().unwrap() >= 66, "{document:#}");
    }
}
