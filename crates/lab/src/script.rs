//! A script: a topology, workloads, and steps that change the cluster under them.
//! docs/reference/lab.md lists all.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::client::{Plan, Workload, WorkloadKind};
use crate::machine::Size;
use crate::topology::{HTTP_PORT, STREAM_PORT, Topology, from_yaml, member_address};

/// A connection that is silent for so long although something is due is lost.
const SILENCE_MS_MAX: u64 = 10_000;

/// For so long the kernel keeps the port of a connection that is over.
const TIME_WAIT_S: u64 = 60;

/// A whole script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    pub topology: Topology,
    pub workloads: BTreeMap<String, Load>,
    /// Seconds of steady load before each step.
    #[serde(default = "Script::default_steady_s")]
    pub steady_s: u64,
    pub steps: Vec<Step>,
}

/// A workload as a script writes it; where it goes follows from its kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    pub kind: WorkloadKind,
    pub count: u32,
    #[serde(default)]
    pub interval_ms: u32,
    #[serde(default)]
    pub bytes: u32,
    #[serde(default)]
    pub lasts_s: Option<u64>,
}

/// One change under load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub name: String,
    /// What is judged, and which proofs are asked for.
    pub kind: StepKind,
    pub actions: Vec<Action>,
    /// Seconds of steady load before this step. None: as the script says.
    #[serde(default)]
    pub steady_s: Option<u64>,
    /// Endless streams last at most so long in this step, and new ones follow them.
    #[serde(default)]
    pub streams_last_s: Option<u64>,
    /// The step lasts at least so long.
    #[serde(default = "Step::default_seconds_min")]
    pub seconds_min: u64,
    /// It fails if it is not settled after so long.
    #[serde(default = "Step::default_seconds_max")]
    pub seconds_max: u64,
}

/// Kinds of steps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    AddGuest,
    DrainGuest,
    CallBack,
    AddNode,
    RemoveNode,
    RebootNode,
    UpgradeTrafficManagers,
    ReplacePrograms,
    KillControl,
    KillWorkers,
    KillGuest,
    /// Nothing is changed.
    Steady,
}

impl StepKind {
    /// Whether an operator would do it on purpose.
    pub const fn is_planned(self) -> bool {
        !matches!(
            self,
            Self::KillControl | Self::KillWorkers | Self::KillGuest
        )
    }

    /// A connection of a dead guest that waits for nothing but the server is noticed only by its
    /// silence.
    pub const fn lasts_at_least(self) -> Duration {
        match self {
            Self::KillGuest => Duration::from_millis(SILENCE_MS_MAX + 2_000),
            _ => Duration::ZERO,
        }
    }

    /// Whether clients may be told to close.
    pub const fn may_tell_to_close(self) -> bool {
        matches!(
            self,
            Self::DrainGuest | Self::CallBack | Self::RemoveNode | Self::RebootNode
        )
    }

    /// Whether flows must have changed their director.
    pub const fn changes_directors(self) -> bool {
        matches!(self, Self::AddNode | Self::RemoveNode | Self::RebootNode)
    }

    /// Whether guests must have passed packets along rows.
    pub const fn changes_rows(self) -> bool {
        matches!(
            self,
            Self::AddGuest
                | Self::DrainGuest
                | Self::CallBack
                | Self::AddNode
                | Self::RemoveNode
                | Self::RebootNode
        )
    }

    /// Whether programs must be others than before.
    pub const fn replaces_programs(self) -> bool {
        matches!(self, Self::UpgradeTrafficManagers | Self::ReplacePrograms)
    }

    /// Whether processes are killed that must come back.
    pub const fn kills_processes(self) -> bool {
        matches!(self, Self::KillControl | Self::KillWorkers)
    }

    /// Whether connections must have been in mid-message.
    pub const fn takes_over(self) -> bool {
        matches!(self, Self::UpgradeTrafficManagers | Self::KillWorkers)
    }
}

/// One thing that a step does. Orders are not waited for; `wait-settled` waits for all that were
/// given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    AddGuest {
        guest: String,
        node: String,
    },
    DrainGuest {
        guest: String,
        #[serde(default)]
        remove: bool,
        #[serde(default)]
        deadline_s: Option<u64>,
    },
    UndrainGuest {
        guest: String,
    },
    /// Calls the newest change of the step that is about this guest or node back.
    CallBack {
        object: String,
    },
    /// Builds the node, starts its agent, waits until it has joined, and announces it.
    AddNode {
        node: String,
    },
    /// Withdraws the node, drains it, and removes it.
    RemoveNode {
        node: String,
    },
    /// Withdraws the node, drains it, destroys its namespaces, builds it anew, lets it join and
    /// announces it.
    RebootNode {
        node: String,
    },
    Withdraw {
        node: String,
    },
    Announce {
        node: String,
    },
    /// `program` may name an environment variable as `${NAME}`.
    UpgradeTrafficManagers {
        program: String,
    },
    ReplacePrograms,
    /// Kill with SIGKILL and start again.
    KillNodeAgents,
    KillController,
    /// Kill with SIGKILL; the product has to start them again.
    KillIngresses,
    KillWorkers,
    /// Pulls the guest's cable and kills all that is in it, while no controller runs.
    KillGuest {
        guest: String,
        /// The controller goes on.
        #[serde(default)]
        with_controller: bool,
    },
    WaitSettled,
    /// Waits; nothing is expected.
    Pause {
        ms: u64,
    },
}

impl Script {
    const fn default_steady_s() -> u64 {
        3
    }

    /// Reads and checks a script.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{}", path.display()))
    }

    /// Reads and checks a script's text.
    pub fn parse(text: &str) -> Result<Self> {
        let script: Self = from_yaml(text)?;
        script.topology.check()?;
        script.topology.check_site(text)?;
        script.check()?;
        Ok(script)
    }

    fn check(&self) -> Result<()> {
        ensure!(
            !self.workloads.is_empty(),
            "workloads: a script needs at least one"
        );
        ensure!(
            !self.steps.is_empty(),
            "steps: a script without any shows nothing; one of `kind: steady` changes nothing"
        );
        for (name, load) in &self.workloads {
            ensure!(
                load.count > 0,
                "workloads: {name}: count must be at least 1"
            );
            ensure!(
                !load.kind.is_http() || self.topology.objects.contains(&load.bytes),
                "workloads: {name}: bytes: found {}, and the web servers have objects of {:?}",
                load.bytes,
                self.topology.objects
            );
            ensure!(
                load.interval_ms > 0
                    || matches!(
                        load.kind,
                        WorkloadKind::HttpNew | WorkloadKind::Idle | WorkloadKind::Large
                    ),
                "workloads: {name}: interval_ms must be at least 1 for this kind"
            );
        }
        // Names that an action needs exist at its time.
        let mut nodes: Vec<&String> = self.topology.nodes.iter().collect();
        let mut guests: Vec<&String> = self.topology.guests.keys().collect();
        for step in &self.steps {
            let name = &step.name;
            ensure!(
                !step.actions.is_empty() || step.kind == StepKind::Steady,
                "step {name:?}: it has no actions"
            );
            ensure!(
                step.seconds_min <= step.seconds_max,
                "step {name:?}: seconds_min is more than seconds_max"
            );
            let known = |what: &str, object: &String, list: &[&String]| {
                if list.contains(&object) {
                    return Ok(());
                }
                bail!("step {name:?}: there is no {what} {object}; there are {list:?}")
            };
            for action in &step.actions {
                match action {
                    Action::AddGuest { guest, node } => {
                        known("node", node, &nodes)?;
                        ensure!(
                            !guests.contains(&guest),
                            "step {name:?}: there is a guest {guest} already"
                        );
                        guests.push(guest);
                    }
                    Action::DrainGuest { guest, .. }
                    | Action::UndrainGuest { guest }
                    | Action::KillGuest { guest, .. } => known("guest", guest, &guests)?,
                    Action::AddNode { node } => {
                        ensure!(
                            !nodes.contains(&node),
                            "step {name:?}: there is a node {node} already"
                        );
                        nodes.push(node);
                    }
                    Action::RemoveNode { node }
                    | Action::RebootNode { node }
                    | Action::Withdraw { node }
                    | Action::Announce { node } => known("node", node, &nodes)?,
                    Action::UpgradeTrafficManagers { program } => {
                        expand(program).with_context(|| format!("step {name:?}"))?;
                    }
                    Action::CallBack { .. }
                    | Action::ReplacePrograms
                    | Action::KillNodeAgents
                    | Action::KillController
                    | Action::KillIngresses
                    | Action::KillWorkers
                    | Action::WaitSettled
                    | Action::Pause { .. } => {}
                }
            }
        }
        Ok(())
    }

    /// How large the lab gets, with all that its steps add.
    pub fn size(&self) -> Size {
        let actions = || self.steps.iter().flat_map(|step| &step.actions);
        let count =
            |is_one: fn(&Action) -> bool| actions().filter(|one| is_one(one)).count() as u64;
        let size = Size::of(&self.topology);
        // Half of each goes to IPv4, half to IPv6, and all of a kind to one virtual server. A port
        // of a connection that is over is used again only when the kernel has forgotten it.
        let ports = |is_http| -> u64 {
            let loads = self.workloads.values();
            loads
                .filter(|load| load.kind.is_http() == is_http)
                .map(|load| match load.kind {
                    WorkloadKind::HttpNew => u64::from(load.count) * TIME_WAIT_S,
                    _ => u64::from(load.count),
                })
                .sum::<u64>()
                .div_ceil(2)
        };
        Size {
            nodes: size.nodes + count(|action| matches!(action, Action::AddNode { .. })),
            guests: size.guests + count(|action| matches!(action, Action::AddGuest { .. })),
            connections: self
                .workloads
                .values()
                .map(|load| u64::from(load.count))
                .sum(),
            ports: ports(true).max(ports(false)),
            ..size
        }
    }

    /// What the clients are told: to use the virtual servers.
    pub fn plan(&self) -> Plan {
        let vips = self.topology.vips();
        self.plan_to(|_| vips)
    }

    /// The same, straight to the members.
    pub fn direct_plan(&self) -> Plan {
        self.plan_to(|kind| {
            let member = u16::from(kind.is_http());
            [member_address(member, false), member_address(member, true)]
        })
    }

    fn plan_to(&self, addresses: impl Fn(WorkloadKind) -> [IpAddr; 2]) -> Plan {
        let workloads = self.workloads.iter().map(|(name, load)| {
            let port = if load.kind.is_http() {
                HTTP_PORT
            } else {
                STREAM_PORT
            };
            Workload {
                name: name.clone(),
                kind: load.kind,
                count: load.count,
                to: addresses(load.kind)
                    .map(|to| SocketAddr::new(to, port))
                    .to_vec(),
                interval_ms: load.interval_ms,
                bytes: load.bytes,
                lasts_s: load.lasts_s,
            }
        });
        Plan {
            workloads: workloads.collect(),
            silence_ms_max: SILENCE_MS_MAX,
            connect_ms_max: 5_000,
        }
    }
}

impl Step {
    const fn default_seconds_min() -> u64 {
        3
    }

    const fn default_seconds_max() -> u64 {
        60
    }
}

/// A path in which `${NAME}` stands for an environment variable; the result is absolute and exists.
pub fn expand(program: &str) -> Result<String> {
    let expanded = match program
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
    {
        Some(name) => std::env::var(name).with_context(|| {
            format!("program: the environment has no {name}, the path of the second build")
        })?,
        None => program.to_owned(),
    };
    let path = std::fs::canonicalize(&expanded)
        .with_context(|| format!("program: there is no {expanded}"))?;
    Ok(path.display().to_string())
}

#[cfg(test)]
mod tests;
