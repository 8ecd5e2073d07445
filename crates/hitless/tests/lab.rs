//! The lab without the product: what it builds works, loses nothing by itself, and goes again, also
//! when killed.
//!
//! Needs root and nginx; says so and passes where one is missing.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows tests by their attribute, and these serve tests"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hitless_harness::needs;
use rustix::process::Signal;

const HITLESS: &str = env!("CARGO_BIN_EXE_hitless");

#[track_caller]
fn can_run() -> bool {
    needs::root() && needs::program("nginx", "nginx-light")
}

/// A lab's id and files, gone when the test ends.
struct Lab {
    id: String,
    folder: tempfile::TempDir,
}

impl Lab {
    fn new(letter: char) -> Self {
        let id = format!("{letter}{}", std::process::id() % 1_000_000);
        Self {
            id,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn script(&self, seconds: u64) -> PathBuf {
        let path = self.folder.path().join("script.yaml");
        let text = format!(
            "topology: {{ id: {}, nodes: [n1, n2], guests: {{}} }}\n\
             workloads:\n\
             \x20 streams: {{ kind: stream, count: 40, interval_ms: 50, bytes: 200 }}\n\
             \x20 slow: {{ kind: slow, count: 4, interval_ms: 50, bytes: 4000 }}\n\
             \x20 half: {{ kind: half-closed, count: 4, interval_ms: 50, bytes: 200, lasts_s: 2 }}\n\
             \x20 large: {{ kind: large, count: 2, interval_ms: 100, bytes: 200000 }}\n\
             \x20 idle: {{ kind: idle, count: 10 }}\n\
             \x20 kept: {{ kind: http-keep-alive, count: 20, interval_ms: 50, bytes: 1024 }}\n\
             \x20 new: {{ kind: http-new, count: 30, bytes: 65536 }}\n\
             steps:\n\
             \x20 - {{ name: nothing, kind: steady, actions: [], seconds_min: {seconds}, seconds_max: 600 }}\n",
            self.id
        );
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, seconds: u64) -> Child {
        Command::new(HITLESS)
            .args(["lab", "run", "--direct", "--json"])
            .arg(self.script(seconds))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn has(&self, namespace: &str) -> bool {
        Path::new("/run/netns")
            .join(format!("hl-{}-{namespace}", self.id))
            .exists()
    }

    /// What of the lab is on the machine: namespaces, its folder, its guard's files.
    fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = fs::read_dir("/run/netns")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(&format!("hl-{}-", self.id)))
            .collect();
        let folder = PathBuf::from("/run/hitless-lab").join(&self.id);
        left.extend(folder.exists().then(|| folder.display().to_string()));
        let guards = format!("hitless-lab-guard-{}-", self.id);
        let run = fs::read_dir("/run").into_iter().flatten();
        left.extend(
            run.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .filter(|name| name.starts_with(&guards)),
        );
        left
    }

    fn await_that(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds(self) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.left());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new(HITLESS)
            .args(["lab", "down", &self.id])
            .output();
    }
}

#[test]
fn root_a_lab_loses_nothing_by_itself_and_goes_again() {
    if !can_run() {
        return;
    }
    let lab = Lab::new('a');
    let output = lab.run(4).wait_with_output().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{document:#}");
    assert_eq!(document["kept"], true, "{document:#}");
    let step = &document["steps"][0];
    for key in [
        "told_to_close",
        "reset",
        "closed_early",
        "refused",
        "corrupted",
    ] {
        assert_eq!(step[key], 0, "{document:#}");
    }
    assert!(step["connections"].as_u64().unwrap() >= 80, "{document:#}");
    assert!(step["carried"].as_u64().unwrap() >= 76, "{document:#}");
    assert!(step["finished"].as_u64().unwrap() >= 60, "{document:#}");
    lab.await_that("all is gone", |lab| lab.left().is_empty());
}

#[test]
fn root_a_killed_lab_is_taken_down_by_its_guard() {
    if !can_run() {
        return;
    }
    let lab = Lab::new('b');
    // Early, while it is being built, and late, with clients at work.
    for namespace in ["router", "node-n2"] {
        let mut child = lab.run(600);
        lab.await_that("it is being built", |lab| lab.has(namespace));
        child.kill().unwrap();
        child.wait().unwrap();
        lab.await_that("all is gone", |lab| lab.left().is_empty());
    }
}

#[test]
fn root_an_interrupted_lab_is_gone_before_its_program() {
    if !can_run() {
        return;
    }
    let lab = Lab::new('c');
    for signal in [Signal::INT, Signal::TERM] {
        let mut child = lab.run(600);
        lab.await_that("it is built", |lab| lab.has("node-n2"));
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        // The guard's own files go when it has seen that.
        lab.await_that("all is gone", |lab| lab.left().is_empty());
    }
}

/// An example's text, as a lab of the test's own.
fn example(name: &str, lab: &Lab) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let text = fs::read_to_string(folder.join(name)).unwrap();
    assert!(text.contains("id: try\n"), "{text}");
    let path = lab.folder.path().join(name);
    fs::write(
        &path,
        text.replace("id: try\n", &format!("id: {}\n", lab.id)),
    )
    .unwrap();
    path
}

/// What a command prints that has to succeed.
fn said(words: &[&str]) -> String {
    let output = Command::new(HITLESS)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {stdout}{stderr}");
    stdout
}

#[test]
fn root_a_lab_that_is_left_up_takes_orders_and_goes_whole() {
    if !can_run() {
        return;
    }
    let lab = Lab::new('u');
    let topology = example("lab-topology.yaml", &lab);
    let up = said(&["lab", "up", topology.to_str().unwrap()]);
    assert!(up.contains("2 of 2 guests serving, settled"), "{up}");
    let status = said(&["lab", "status", &lab.id]);
    assert_eq!(status, up, "up and status say the same");
    assert!(said(&["lab", "status"]).contains(&status));

    // The command for orders, as it is printed.
    let orders = status
        .lines()
        .find_map(|line| line.trim().strip_prefix("orders:"));
    let words: Vec<&str> = orders.unwrap().split_whitespace().collect();
    assert_eq!(words[..3], ["hitless", "get", "guests"], "{status}");
    let guests = said(&words[1..]);
    assert!(guests.contains("tm1") && guests.contains("tm2"), "{guests}");
    let at = ["--controller", words[4], "--watch"];
    assert_eq!(words[3], at[0]);
    let order = [&["add", "guest", "tm3", "--node", "n1"], &at[..]].concat();
    assert!(said(&order).contains(": done; "));
    assert!(said(&["lab", "status", &lab.id]).contains("3 of 3 guests serving"));

    // And the one for traffic.
    if needs::program("curl", "curl") {
        let traffic = status
            .lines()
            .find_map(|line| line.trim().strip_prefix("traffic:"));
        let command = traffic.unwrap().split(" (or ").next().unwrap();
        let output = Command::new("sh")
            .args([
                "-c",
                &format!("{command} --silent --show-error --fail --max-time 20"),
            ])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.stdout.len(), 1024, "{command}: {stderr}");
    }
    let down = said(&["lab", "down", &lab.id]);
    assert_eq!(down, format!("took down lab {}\n", lab.id));
    lab.await_that("all is gone", |lab| lab.left().is_empty());
    assert!(!said(&["lab", "status"]).contains(&lab.id));
}

#[test]
fn root_the_example_of_a_script_holds() {
    if !can_run() {
        return;
    }
    let lab = Lab::new('x');
    let script = example("lab.yaml", &lab);
    let text = said(&["lab", "run", "--json", script.to_str().unwrap()]);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["kept"], true, "{document:#}");
    assert_eq!(
        document["steps"].as_array().unwrap().len(),
        3,
        "{document:#}"
    );
}

#[test]
fn ids_that_name_no_lab_are_refused() {
    for (id, expected) in [
        ("..", "a-z and 0-9"),
        ("", "a-z and 0-9"),
        ("nobody", "no lab nobody"),
    ] {
        for verb in ["down", "status"] {
            let output = Command::new(HITLESS)
                .args(["lab", verb, id])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let is_root = rustix::process::geteuid().is_root();
            let expected = match verb == "down" && id == "nobody" && !is_root {
                true => "needs root",
                false => expected,
            };
            assert!(!output.status.success(), "{verb} {id:?}");
            assert!(text.contains(expected), "{verb} {id:?}: {text}");
        }
    }
}

#[test]
fn bad_scripts_are_refused_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script.yaml");
    let good = "topology: { id: x, nodes: [n1], guests: { g1: n1 } }\n\
                workloads: { s: { kind: stream, count: 1, interval_ms: 10, bytes: 10 } }\n\
                steps: [{ name: one, kind: drain-guest, actions: [{ drain-guest: { guest: g1 } }] }]\n";
    for (from, to, expected) in [
        ("id: x", "id: X-Y", "1 to 8 of a-z and 0-9"),
        ("g1: n1", "g1: n9", "n9"),
        ("guest: g1", "guest: g7", "there is no guest g7"),
        ("kind: stream", "kind: strem", "strem"),
        ("interval_ms: 10", "interval_ms: 0", "interval_ms"),
        ("interval_ms: 10", "intervall: 10", "intervall"),
        ("count: 1", "count: 99999999", "file descriptors"),
        (
            "steps: [{ name: one",
            "steps: [] #",
            "steps: a script without any",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&path, good.replace(from, to)).unwrap();
        let output = Command::new(HITLESS)
            .args(["lab", "run"])
            .arg(&path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{to}");
        assert!(text.contains(expected), "{to}: {text}");
        // The file, unless the machine is at fault, and nothing twice.
        let is_files = expected != "file descriptors";
        assert!(!is_files || text.contains("script.yaml"), "{to}: {text}");
        assert_eq!(text.matches("error:").count(), 1, "{to}: {text}");
    }
    // Who reads documents gets one.
    let output = Command::new(HITLESS)
        .args(["lab", "run", "--json"])
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["kept"], false);
    assert_eq!(document["steps"], serde_json::json!([]));
    let error = document["error"].as_str().unwrap();
    assert!(error.contains("script.yaml"), "{error}");
    assert_eq!(output.status.code(), Some(1));
}
