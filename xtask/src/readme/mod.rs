//! `cargo xtask readme`: every command that README, guide and reference show is run as it stands
//! there.
//!
//! Blocks that are fenced as `sh run` are run, those of one document one after the other in one
//! shell, in a private folder with the examples, and in namespaces of their own for processes and
//! network: ports are free, and nothing outlives the document. A command in a plain `sh` block has
//! to stand in [`NOT_RUN`], with the reason. What needs a program that the machine lacks is left
//! out, and counted.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::run::{self, cargo, check, program, root, target_dir};

/// Commands that are shown and not run here, by how they begin.
const NOT_RUN: &[(&str, &str)] = &[
    ("cargo xtask test", "this very run"),
    (
        "cargo xtask demo",
        "takes minutes and two release builds; hitless/tests/demo.rs runs a small one of every kind of step",
    ),
    (
        "cargo xtask setup",
        "changes the machine; `cargo xtask test` begins with it",
    ),
    (
        "cargo xtask ",
        "measures or searches for minutes; what they run has tests of its own",
    ),
    (
        "cargo build --release",
        "takes minutes; the build of this run stands in",
    ),
    (
        "export PATH=",
        "says where the release build is; here it is the debug build's folder",
    ),
    ("git clone ", "this tree was"),
    ("cd ", "where the clone is"),
    ("sudo ", "asks for a password"),
];

/// Programs that blocks use and a machine may lack, with their Debian packages. `ip` brings up the
/// loopback interface for each document.
const TOOLS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("nginx", "nginx-light"),
];

/// A document's commands end within this time; each is a matter of seconds.
const DEADLINE: Duration = Duration::from_secs(120);

/// What became of the blocks.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) ran: usize,
    /// Place and reason of each block that this machine cannot run.
    pub(crate) left_out: Vec<(String, String)>,
}

/// A fenced block, with the line of its first command.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    line: usize,
    text: String,
}

/// `cargo xtask readme`
pub(crate) fn command(args: &[String]) -> Result<()> {
    if let Some(arg) = args.first() {
        bail!("readme takes no argument, found {arg:?}");
    }
    check(cargo().args(["build", "--quiet", "--package", "hitless"]))?;
    let outcome = run_all()?;
    eprintln!(
        "readme: {} blocks did what they say, {} left out",
        outcome.ran,
        outcome.left_out.len()
    );
    Ok(())
}

/// Runs every document's blocks; the binary has to be built.
pub(crate) fn run_all() -> Result<Outcome> {
    let lacks = lacks();
    for reason in lacks.values() {
        eprintln!("readme: {reason}");
    }
    let mut documents = vec!["README.md".to_owned()];
    for folder in ["docs/guide", "docs/reference"] {
        let Ok(entries) = fs::read_dir(root().join(folder)) else {
            continue;
        };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".md") {
                documents.push(format!("{folder}/{name}"));
            }
        }
    }
    documents.sort();
    let mut outcome = Outcome::default();
    for document in &documents {
        let text = fs::read_to_string(root().join(document))
            .with_context(|| format!("cannot read {document}"))?;
        let blocks = blocks(document, &text)?;
        let (can_run, left_out) = split(&blocks, &lacks);
        if !can_run.is_empty() {
            run_document(document, can_run)?;
        }
        outcome.ran += can_run.len();
        for (block, reason) in left_out {
            let place = format!("{document}:{}", block.line);
            eprintln!("readme: left out: {place}: {reason}");
            outcome.left_out.push((place, reason));
        }
    }
    Ok(outcome)
}

/// What this machine lacks, by the word that a block has if it needs that, with the reason. The
/// empty word is in every block.
fn lacks() -> BTreeMap<&'static str, String> {
    let mut lacks = BTreeMap::new();
    for (tool, package) in TOOLS {
        if !run::is_installed(tool) {
            // Without `ip` no block runs.
            let word = if *tool == "ip" { "" } else { *tool };
            lacks.insert(word, format!("no {tool} (package {package})"));
        }
    }
    if lacks.is_empty() && !run::works(isolated().arg("true")) {
        let reason = "this machine gives users no namespaces, so this needs root";
        lacks.insert("", reason.to_owned());
    }
    lacks
}

/// The blocks that can run, and the others. What follows a block that cannot may build on it.
fn split<'b>(
    blocks: &'b [Block],
    lacks: &BTreeMap<&'static str, String>,
) -> (&'b [Block], Vec<(&'b Block, String)>) {
    let missing = |block: &Block| {
        let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-';
        let words: Vec<&str> = block.text.split(is_end).collect();
        let found = lacks
            .iter()
            .find(|(word, _)| word.is_empty() || words.contains(*word));
        found.map(|(_, reason)| reason.clone())
    };
    let first = blocks
        .iter()
        .enumerate()
        .find_map(|(at, block)| Some((at, missing(block)?)));
    let Some((at, reason)) = first else {
        return (blocks, Vec::new());
    };
    let left_out = blocks[at..]
        .iter()
        .map(|block| (block, missing(block).unwrap_or_else(|| reason.clone())))
        .collect();
    (&blocks[..at], left_out)
}

/// The blocks to run. An unmarked command that nothing excuses is an error.
fn blocks(document: &str, text: &str) -> Result<Vec<Block>> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let inside: Vec<(usize, &str)> = lines
            .by_ref()
            .take_while(|(_, line)| !line.trim_start().starts_with("```"))
            .collect();
        match info.trim() {
            "sh run" => {
                let text: String = inside.iter().map(|(_, line)| format!("{line}\n")).collect();
                found.push(Block { line: at + 2, text });
            }
            "sh" => {
                for (at, line) in inside {
                    let command = line.split(" #").next().unwrap_or_default().trim();
                    let is_excused = command.is_empty()
                        || command.starts_with('#')
                        || NOT_RUN.iter().any(|(start, _)| command.starts_with(start));
                    if !is_excused {
                        bail!(
                            "{document}:{}: {command:?} is shown and not run: fence it as `sh run`",
                            at + 1
                        );
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// A program is started behind this one in namespaces of its own. A user stays who he is there, as
/// the only one, and gets what it takes to bring an interface up: where he were root, servers would
/// try to become others, whom his namespace does not have.
fn isolated() -> Command {
    let mut unshare = program("unshare");
    if !run::is_root() {
        unshare.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    unshare.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    unshare
}

/// Brings the loopback interface up; what is shown then has a user's rights, if this is one.
const BEGIN: &str =
    "ip link set lo up && exec setpriv --inh-caps=-all --ambient-caps=-all bash -c \"$0\"";

fn run_document(document: &str, blocks: &[Block]) -> Result<()> {
    // Short, for the sockets in it.
    let folder = tempfile::Builder::new()
        .prefix("hitless-readme-")
        .tempdir()?;
    let examples = root().join("examples");
    if examples.exists() {
        copy_folder(&examples, &folder.path().join("examples"))?;
    }
    let mut script = String::from("set -euo pipefail\n");
    for block in blocks {
        script += &format!("echo '--- {document}:{}'\n{}", block.line, block.text);
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!(
        "{}:{path}:/usr/sbin:/sbin",
        target_dir().join("debug").display()
    );
    let mut shell = isolated();
    shell
        .args(["bash", "-c", BEGIN, &script])
        .current_dir(folder.path())
        .process_group(0);
    shell
        .env("PATH", path)
        .env("HITLESS_RUN", folder.path().join("run"))
        .env("NO_COLOR", "1");
    let (mut reader, writer) = std::io::pipe()?;
    shell
        .stdout(Stdio::from(writer.try_clone()?))
        .stderr(Stdio::from(writer));
    let mut child = shell
        .spawn()
        .context("cannot start unshare (package util-linux)")?;
    // The command holds the pipe's writing ends; reading has to end with the child.
    shell.stdout(Stdio::null()).stderr(Stdio::null());
    let (ended, wait) = mpsc::channel();
    let output = thread::spawn(move || {
        let mut text = Vec::new();
        let read = reader.read_to_end(&mut text);
        // Nobody waits any more after the deadline.
        let _ = ended.send(());
        read.map(|_| text)
    });
    let is_late = wait.recv_timeout(DEADLINE).is_err();
    if is_late {
        child.kill().context("cannot end the shell")?;
    }
    let status = child.wait()?;
    let text = output.join().expect("the reader does not panic")?;
    let text = String::from_utf8_lossy(&text);
    if is_late || !status.success() {
        let end = if is_late {
            format!("went on for {} s", DEADLINE.as_secs())
        } else {
            status.to_string()
        };
        bail!("{document}: {end}\n{text}");
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
