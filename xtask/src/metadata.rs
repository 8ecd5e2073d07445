//! The workspace's dependency graph, as cargo tells it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::{self, cargo};

/// How one package depends on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Normal,
    Build,
    Dev,
}

/// Packages by name, with what each depends on.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// Packages of the workspace.
    pub(crate) members: BTreeSet<String>,
    /// Binaries of the workspace: package and name.
    pub(crate) binaries: BTreeSet<(String, String)>,
    /// Benchmarks of the workspace, likewise.
    pub(crate) benches: BTreeSet<(String, String)>,
    /// Package to the packages that it names, of all kinds.
    pub(crate) edges: BTreeMap<String, BTreeSet<(String, Kind)>>,
}

impl Graph {
    /// Asks cargo.
    pub(crate) fn read() -> Result<Self> {
        let mut command = cargo();
        command.args(["metadata", "--format-version", "1", "--quiet"]);
        command.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
        Self::parse(&run::output(&mut command)?).context("cannot read what `cargo metadata` says")
    }

    fn parse(text: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(text)?;
        let mut graph = Self::default();
        let mut names = BTreeMap::new();
        for package in array(&metadata["packages"]) {
            let name = string(&package["name"])?;
            for target in array(&package["targets"]) {
                // Only packages of the workspace have no source.
                if !package["source"].is_null() {
                    continue;
                }
                for kind in array(&target["kind"]) {
                    let programs = match kind.as_str() {
                        Some("bin") => &mut graph.binaries,
                        Some("bench") => &mut graph.benches,
                        _ => continue,
                    };
                    programs.insert((name.clone(), string(&target["name"])?));
                }
            }
            names.insert(string(&package["id"])?, name);
        }
        let named = |id: &Value| -> Result<String> {
            let id = string(id)?;
            names
                .get(&id)
                .cloned()
                .with_context(|| format!("no package {id}"))
        };
        for id in array(&metadata["workspace_members"]) {
            graph.members.insert(named(id)?);
        }
        for node in array(&metadata["resolve"]["nodes"]) {
            let edges = graph.edges.entry(named(&node["id"])?).or_default();
            for dependency in array(&node["deps"]) {
                let name = named(&dependency["pkg"])?;
                for kind in array(&dependency["dep_kinds"]) {
                    let kind = match kind["kind"].as_str() {
                        Some("build") => Kind::Build,
                        Some("dev") => Kind::Dev,
                        _ => Kind::Normal,
                    };
                    edges.insert((name.clone(), kind));
                }
            }
        }
        Ok(graph)
    }

    /// Everything that is linked into the package, itself left out.
    pub(crate) fn linked(&self, package: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open = vec![package.to_owned()];
        while let Some(name) = open.pop() {
            for (dependency, kind) in self.edges.get(&name).into_iter().flatten() {
                if *kind == Kind::Normal && found.insert(dependency.clone()) {
                    open.push(dependency.clone());
                }
            }
        }
        found
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn string(value: &Value) -> Result<String> {
    value
        .as_str()
        .map(str::to_owned)
        .context("a text is missing")
}
