//! Commands whose work lies in another crate: each is a binary or a benchmark that is built in
//! release mode and gets the arguments.

use anyhow::{Result, bail};

use crate::metadata::Graph;
use crate::run::{cargo, check};
use crate::setup;

/// Where a command's work lies.
struct Target {
    command: &'static str,
    /// First argument, for a command with groups.
    group: Option<&'static str>,
    package: &'static str,
    program: Program,
}

/// What kind of cargo's targets a command is.
#[derive(Clone, Copy)]
enum Program {
    Binary(&'static str),
    Bench(&'static str),
}

const TARGETS: &[Target] = &[
    Target {
        command: "model",
        group: None,
        package: "hitless-sim",
        program: Program::Binary("model"),
    },
    Target {
        command: "sim",
        group: None,
        package: "hitless-sim",
        program: Program::Binary("hitless-sim"),
    },
    Target {
        command: "bench",
        group: Some("director"),
        package: "hitless-bpf",
        program: Program::Bench("director"),
    },
    Target {
        command: "bench",
        group: Some("codec"),
        package: "hitless-proto",
        program: Program::Bench("http1"),
    },
    Target {
        command: "bench",
        group: Some("http2"),
        package: "hitless-proto",
        program: Program::Bench("http2"),
    },
    Target {
        command: "bench",
        group: Some("proxy"),
        package: "hitless-tm",
        program: Program::Bench("proxy"),
    },
    Target {
        command: "fuzz",
        group: None,
        package: "hitless-fuzz",
        program: Program::Binary("hitless-fuzz"),
    },
];

/// Runs `cargo xtask NAME ARGS`.
pub(crate) fn command(name: &str, args: &[String]) -> Result<()> {
    let group = args.first().map(String::as_str);
    let known: Vec<&Target> = TARGETS
        .iter()
        .filter(|target| target.command == name)
        .collect();
    let found = known
        .iter()
        .find(|target| target.group.is_none() || target.group == group);
    let Some(target) = found else {
        let groups: Vec<&str> = known.iter().filter_map(|target| target.group).collect();
        let groups = groups.join(", ");
        match group {
            Some(group) => bail!("{name} has no group {group:?}: there is {groups}"),
            None => bail!("{name} needs a group: {groups}"),
        }
    };
    let graph = Graph::read()?;
    let (programs, name_there) = match target.program {
        Program::Binary(binary) => (&graph.binaries, binary),
        Program::Bench(bench) => (&graph.benches, bench),
    };
    if !programs.contains(&(target.package.to_owned(), name_there.to_owned())) {
        bail!(
            "`cargo xtask {name}` is not there yet: {} has no {name_there}",
            target.package
        );
    }
    setup::ensure();
    let mut command = cargo();
    match target.program {
        Program::Binary(binary) => {
            command.args(["run", "--release", "--quiet", "--package", target.package]);
            command.args(["--bin", binary, "--"]).args(args);
        }
        // A benchmark knows its group.
        Program::Bench(bench) => {
            command.args(["bench", "--quiet", "--package", target.package]);
            command.args(["--bench", bench, "--"]).args(&args[1..]);
        }
    }
    check(&mut command)
}

/// Whether the tree has the binary, so that a part that is not written yet is told from one that
/// does not build.
pub(crate) fn has_binary(package: &str, binary: &str) -> Result<bool> {
    Ok(Graph::read()?
        .binaries
        .contains(&(package.to_owned(), binary.to_owned())))
}
