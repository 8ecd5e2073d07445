//! Runs a script: builds the lab, drives traffic, makes the changes, judges each.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use hitless_api::Order;
use hitless_hypervisor::Process;

use crate::client::{Answer, Command, Flow, Report};
use crate::cluster::{self, Cluster};
use crate::judge::{Document, Evidence, StepResult, judge};
use crate::machine;
use crate::script::{Action, Script, Step, StepKind, expand};
use crate::show::Show;
use crate::world::{self, World};

/// An old worker that is still there after this counts as one that stays.
const ENDED_WITHIN: Duration = Duration::from_secs(2);
/// Changes by which somebody leaves, by the beginning of their names.
const LEAVING: [&str; 4] = [
    "drain-guest-",
    "remove-guest-",
    "drain-node-",
    "remove-node-",
];
/// What was killed runs again, and has been reported, within this.
const REPLACED_WITHIN: Duration = Duration::from_secs(10);

/// Runs the script in a lab of its own, takes the lab down, and says what came of it.
pub fn run(script: &Script, binary: &Path, show: &mut Show) -> Result<Document> {
    in_a_lab(script, binary, show, |world, show| {
        Runner::start(world, script, show).and_then(|mut runner| runner.run())
    })
}

/// Runs the script's steady steps without a cluster: clients go straight to the members. What is
/// lost then is lost by the lab.
pub fn run_direct(script: &Script, binary: &Path, show: &mut Show) -> Result<Document> {
    for step in &script.steps {
        let pauses = |action: &Action| matches!(action, Action::Pause { .. });
        if step.kind != StepKind::Steady || !step.actions.iter().all(pauses) {
            bail!(
                "step {:?}: without a cluster there is nothing to change",
                step.name
            );
        }
    }
    in_a_lab(script, binary, show, |world, show| {
        let mut clients = Clients::start(world)?;
        let open = clients.open(&Command::Start {
            plan: script.direct_plan(),
        })?;
        show.line(&format!("{open} connections are open"));
        let evidence = Evidence {
            is_native: true,
            ..Evidence::default()
        };
        let mut steps = Vec::with_capacity(script.steps.len());
        clients.report(&Command::Mark {
            name: "first".to_owned(),
        })?;
        for step in &script.steps {
            show.begin(&step.name);
            std::thread::sleep(Duration::from_secs(step.seconds_min));
            let report = clients.report(&Command::Mark {
                name: step.name.clone(),
            })?;
            let result = judge(&step.name, step.kind, &report, &evidence);
            show.step(&result);
            steps.push(result);
        }
        let report = clients.report(&Command::Finish)?;
        steps.push(judge("end", StepKind::Steady, &report, &evidence));
        let kept = steps.iter().all(|step| step.faults.is_empty());
        Ok(Document { kept, steps })
    })
}

/// Builds a lab, works in it, and takes it down whatever came of it.
fn in_a_lab(
    script: &Script,
    binary: &Path,
    show: &mut Show,
    work: impl FnOnce(&mut World, &mut Show) -> Result<Document>,
) -> Result<Document> {
    world::reap()?;
    machine::check(
        machine::need(&script.topology, script.connections()),
        machine::available()?,
    )?;
    let own = Process::find(std::process::id()).context("cannot read the own process")?;
    show.line("building the lab");
    let mut world = World::up(script.topology.clone(), binary, Some(own))?;
    world::start_guard(&world)?;
    let result = work(&mut world, show);
    if result.is_err() {
        show.line("the lab's logs:");
        show.logs(&world);
    }
    show.line("taking the lab down");
    world::down(&script.topology.id)?;
    result
}

struct Runner<'a> {
    world: &'a mut World,
    cluster: Cluster,
    clients: Clients,
    script: &'a Script,
    show: &'a mut Show,
    /// Changes that the step has ordered: their names, and whom they are about.
    changes: Vec<(String, String)>,
    /// Endless streams end in this step.
    streams_end: bool,
    /// The guest that the step killed: its slot, and when.
    killed: Option<(u16, u64)>,
}

/// What is known before a step.
struct Before {
    forwarded: u64,
    ledger_reset: u64,
    workers: BTreeSet<u32>,
    ingresses: BTreeSet<u32>,
    programs: BTreeMap<String, Option<String>>,
    pids: BTreeSet<u32>,
    directors: BTreeMap<Flow, u32>,
}

impl<'a> Runner<'a> {
    fn start(world: &'a mut World, script: &'a Script, show: &'a mut Show) -> Result<Self> {
        let cluster = Cluster::of(world);
        show.line("starting the cluster");
        cluster.start(world)?;
        show.line("starting the clients");
        let mut clients = Clients::start(world)?;
        let open = clients.open(&Command::Start {
            plan: script.plan(),
        })?;
        show.line(&format!("{open} connections are open"));
        Ok(Self {
            world,
            cluster,
            clients,
            script,
            show,
            changes: Vec::new(),
            streams_end: false,
            killed: None,
        })
    }

    fn run(&mut self) -> Result<Document> {
        let mut steps = Vec::with_capacity(self.script.steps.len());
        let script = self.script;
        for step in &script.steps {
            let result = self.step(step)?;
            self.show.step(&result);
            steps.push(result);
        }
        let last = self.clients.report(&Command::Finish)?;
        let end = judge(
            "the end",
            StepKind::Steady,
            &last,
            &Evidence {
                is_native: true,
                ..Evidence::default()
            },
        );
        // Whatever the last step left must end byte-exact too.
        if let Some(step) = steps.last_mut() {
            step.faults.extend(
                end.faults
                    .iter()
                    .map(|fault| format!("at the end: {fault}")),
            );
        }
        let kept = steps.iter().all(|step| step.faults.is_empty());
        Ok(Document { kept, steps })
    }

    fn step(&mut self, step: &Step) -> Result<StepResult> {
        self.show.begin(&step.name);
        self.clients.open(&Command::Refill)?;
        self.clients.open(&Command::Last {
            seconds: step.streams_last_s,
        })?;
        self.clients.report(&Command::Mark {
            name: format!("steady before {}", step.name),
        })?;
        std::thread::sleep(Duration::from_secs(self.script.steady_s));
        let before = self.before()?;
        let steady = self.clients.report(&Command::Mark {
            name: step.name.clone(),
        })?;
        let began = Instant::now();
        self.changes.clear();
        self.killed = None;
        self.streams_end = step.streams_last_s.is_some();
        let mut evidence = Evidence::default();
        let done = self.act(step, &before, &mut evidence);
        if let Err(error) = done {
            evidence.failure = Some(format!("{error:#}"));
        }
        let min = Duration::from_secs(step.seconds_min).max(step.kind.lasts_at_least());
        std::thread::sleep(min.saturating_sub(began.elapsed()));
        if let Err(error) = self.after(step, &before, &mut evidence) {
            // The step does not hold, but the clients' word on it is still worth having.
            evidence.failure.get_or_insert(format!("{error:#}"));
        }
        let report = self.clients.report(&Command::Mark {
            name: "steady".to_owned(),
        })?;
        let mut result = judge(&step.name, step.kind, &report, &evidence);
        if steady.total.lost() > 0 {
            result.faults.push(format!(
                "{} connections were lost under steady load before the step",
                steady.total.lost()
            ));
        }
        Ok(result)
    }

    fn before(&mut self) -> Result<Before> {
        let guests = self.cluster.guests()?;
        let flows = self.clients.flows()?;
        let directors = self.world.directors_of(&flows)?;
        Ok(Before {
            forwarded: self.forwarded()?,
            ledger_reset: self.cluster.api().ledger()?.reset,
            workers: self.workers()?,
            ingresses: guests
                .iter()
                .filter_map(|guest| guest.ingress_pid)
                .collect(),
            programs: self.programs()?,
            pids: self.control_pids()?,
            directors: flows.into_iter().zip(directors).collect(),
        })
    }

    /// Packets passed along rows so far, by all guests that report.
    fn forwarded(&self) -> Result<u64> {
        let counters = self.cluster.api().counters()?;
        let of = |guest: &hitless_api::IngressCounters| {
            guest.counters.get("forwarded").copied().unwrap_or(0)
        };
        Ok(counters.ingresses.iter().map(of).sum())
    }

    fn programs(&self) -> Result<BTreeMap<String, Option<String>>> {
        let mut programs = BTreeMap::new();
        for node in self.cluster.api().nodes()?.items {
            programs.insert(format!("director of {}", node.name), node.program);
        }
        for guest in self.cluster.guests()? {
            programs.insert(format!("traffic manager of {}", guest.name), guest.program);
            programs.insert(format!("ingress of {}", guest.name), guest.ingress_program);
        }
        Ok(programs)
    }

    fn workers(&self) -> Result<BTreeSet<u32>> {
        let guests = self.cluster.guests()?;
        Ok(guests
            .iter()
            .flat_map(|guest| guest.worker_pids.clone())
            .collect())
    }

    /// Bytes that were in the pipes of workers when these were killed, by the traffic managers that
    /// found them.
    fn bytes_in_pipes(&self) -> Result<u64> {
        let counters = self.cluster.api().counters()?;
        let of = |guest: &hitless_api::IngressCounters| {
            guest.counters.get("last_crash_bytes_in_pipes").copied()
        };
        Ok(counters.ingresses.iter().filter_map(of).sum())
    }

    fn control_pids(&self) -> Result<BTreeSet<u32>> {
        let mut pids: BTreeSet<u32> = self
            .cluster
            .guests()?
            .iter()
            .filter_map(|guest| guest.ingress_pid)
            .collect();
        pids.insert(self.cluster.status()?.controller_pid);
        let agents = self.world.state().numbers.keys();
        pids.extend(
            agents.filter_map(|node| Some(self.world.process(&cluster::agent_name(node))?.pid)),
        );
        Ok(pids)
    }

    fn act(&mut self, step: &Step, before: &Before, evidence: &mut Evidence) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(step.seconds_max);
        for action in &step.actions {
            self.show.action(action);
            self.action(action, deadline, before, evidence)?;
        }
        self.settle(deadline)
    }

    fn settle(&self, deadline: Instant) -> Result<()> {
        let left = || deadline.saturating_duration_since(Instant::now());
        // Where streams are made to end, whoever leaves has to be rid of them. Kept-alive
        // connections may go on at guests that stay.
        if self.streams_end {
            for (change, _) in &self.changes {
                if LEAVING.iter().any(|kind| change.starts_with(kind)) {
                    self.cluster.await_change(change, left())?;
                }
            }
        }
        self.cluster.await_rest(left())
    }

    fn order(&mut self, order: &Order, object: &str) -> Result<String> {
        let change = self.cluster.order(order)?;
        self.changes.push((change.clone(), object.to_owned()));
        Ok(change)
    }

    fn action(
        &mut self,
        action: &Action,
        deadline: Instant,
        before: &Before,
        evidence: &mut Evidence,
    ) -> Result<()> {
        match action {
            Action::AddGuest { guest, node } => {
                let order = Order::AddGuest {
                    guest: guest.clone(),
                    node: node.clone(),
                };
                self.order(&order, guest)?;
            }
            Action::DrainGuest {
                guest,
                remove,
                deadline_s,
            } => {
                let order = Order::DrainGuest {
                    guest: guest.clone(),
                    deadline_s: *deadline_s,
                    remove: *remove,
                };
                self.order(&order, guest)?;
            }
            Action::UndrainGuest { guest } => {
                self.order(
                    &Order::UndrainGuest {
                        guest: guest.clone(),
                    },
                    guest,
                )?;
            }
            Action::CallBack { object } => {
                let (change, _) = self
                    .changes
                    .iter()
                    .rev()
                    .find(|(_, about)| about == object)
                    .with_context(|| format!("the step has ordered nothing about {object}"))?;
                let back = self.cluster.api().call_back(change)?.change;
                self.changes.push((back, object.clone()));
            }
            Action::AddNode { node } => self.add_node(node, evidence, before)?,
            Action::RemoveNode { node } => {
                self.world.withdraw(node)?;
                self.note_flows(before, evidence)?;
                let order = Order::RemoveNode {
                    node: node.clone(),
                    deadline_s: None,
                };
                self.order(&order, node)?;
                self.settle(deadline)?;
                self.world.destroy_node(node)?;
            }
            Action::RebootNode { node } => self.reboot(node, deadline, before, evidence)?,
            Action::Withdraw { node } => {
                self.world.withdraw(node)?;
                self.note_flows(before, evidence)?;
            }
            Action::Announce { node } => {
                self.world.announce(node)?;
                self.note_flows(before, evidence)?;
            }
            Action::UpgradeTrafficManagers { program } => {
                let order = Order::UpgradeTrafficManagers {
                    program: expand(program)?,
                };
                let change = self.order(&order, "traffic managers")?;
                self.cluster
                    .await_change(&change, deadline.saturating_duration_since(Instant::now()))?;
                evidence.old_workers_gone_ms = Some(self.await_gone(&before.workers)?);
            }
            Action::ReplacePrograms => {
                self.order(&Order::ReplacePrograms {}, "programs")?;
            }
            Action::KillNodeAgents => {
                let nodes: Vec<String> = self.world.state().numbers.keys().cloned().collect();
                for node in &nodes {
                    if let Some(process) = self.world.process(&cluster::agent_name(node)) {
                        cluster::kill(process.pid)?;
                    }
                }
                for node in &nodes {
                    cluster::start_node(self.world, node)?;
                }
            }
            Action::KillController => {
                cluster::kill(self.cluster.status()?.controller_pid)?;
                cluster::start_controller(self.world)?;
                self.cluster.await_controller()?;
            }
            // As known before the step: agents that were just killed too have not reported them
            // again yet.
            Action::KillIngresses => {
                for pid in &before.ingresses {
                    cluster::kill(*pid)?;
                }
            }
            Action::KillWorkers => {
                for pid in &before.workers {
                    cluster::kill(*pid)?;
                }
                evidence.old_workers_gone_ms = Some(self.await_gone(&before.workers)?);
            }
            Action::KillGuest { guest } => {
                let found = self.cluster.guest(guest)?;
                let pid = found
                    .keeper_pid
                    .or(found.ingress_pid)
                    .with_context(|| format!("no process of guest {guest} is known"))?;
                let slot = found
                    .slot
                    .with_context(|| format!("guest {guest} has no slot"))?;
                let killed = world::kill_guest(pid)?;
                evidence.victim_connections = Some(killed.held);
                self.killed = Some((slot, killed.at_ns));
                self.settle(deadline)?;
            }
            Action::WaitSettled => self.settle(deadline)?,
            Action::Pause { ms } => std::thread::sleep(Duration::from_millis(*ms)),
        }
        Ok(())
    }

    fn add_node(&mut self, node: &str, evidence: &mut Evidence, before: &Before) -> Result<()> {
        self.world.build_node(node)?;
        self.order(
            &Order::AddNode {
                node: node.to_owned(),
            },
            node,
        )?;
        cluster::start_node(self.world, node)?;
        self.cluster.await_joined(node)?;
        self.world.announce(node)?;
        self.note_flows(before, evidence)
    }

    fn reboot(
        &mut self,
        node: &str,
        deadline: Instant,
        before: &Before,
        evidence: &mut Evidence,
    ) -> Result<()> {
        let left = || deadline.saturating_duration_since(Instant::now());
        self.world.withdraw(node)?;
        self.note_flows(before, evidence)?;
        let order = Order::DrainNode {
            node: node.to_owned(),
            deadline_s: None,
        };
        self.order(&order, node)?;
        self.cluster.await_drained(node, left())?;
        self.world.destroy_node(node)?;
        self.world.build_node(node)?;
        cluster::start_node(self.world, node)?;
        self.cluster.await_joined_again(node, left())?;
        self.order(
            &Order::UndrainNode {
                node: node.to_owned(),
            },
            node,
        )?;
        self.settle(deadline)?;
        self.cluster.await_joined(node)?;
        self.world.announce(node)
    }

    /// How many of the flows that are still open go to another director now; the most of a step
    /// counts.
    fn note_flows(&self, before: &Before, evidence: &mut Evidence) -> Result<()> {
        let flows: Vec<Flow> = before.directors.keys().copied().collect();
        let now = self.world.directors_of(&flows)?;
        let moved = before
            .directors
            .values()
            .zip(now)
            .filter(|(was, is)| *was != is)
            .count() as u64;
        let (_, most) = evidence.flows.unwrap_or_default();
        evidence.flows = Some((flows.len() as u64, moved.max(most)));
        Ok(())
    }

    /// How long it took until the last of `pids` was gone. None if one is still there.
    fn await_gone(&self, pids: &BTreeSet<u32>) -> Result<Option<u64>> {
        let began = Instant::now();
        let deadline = began + ENDED_WITHIN;
        for process in pids.iter().filter_map(|pid| Process::find(*pid)) {
            let rest = deadline.saturating_duration_since(Instant::now());
            if !process.wait_gone(rest)? {
                return Ok(None);
            }
        }
        Ok(Some(
            u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        ))
    }

    /// From the death of a guest to the last packet that a director sent to it, by the programs'
    /// own times.
    fn last_packet_ms(&self, slot: u16, died_ns: u64) -> Result<Option<u64>> {
        let name = format!("last_sent_ns_{slot}");
        let counters = self.cluster.api().counters()?;
        let last = counters
            .directors
            .iter()
            .filter_map(|node| node.counters.get(&name))
            .max();
        Ok(last.map(|last| last.saturating_sub(died_ns) / 1_000_000))
    }

    fn after(&self, step: &Step, before: &Before, evidence: &mut Evidence) -> Result<()> {
        let announced = self.world.state().announced.clone();
        evidence.is_native = !announced.is_empty();
        for node in &announced {
            evidence.is_native &= self.world.has_native_xdp(node)?;
        }
        // Guests that left take their counters along: what they passed on before is not counted
        // twice.
        evidence.forwarded = Some(self.forwarded()?.saturating_sub(before.forwarded));
        let reset = self.cluster.api().ledger()?.reset;
        evidence.ledger_reset = Some(reset.saturating_sub(before.ledger_reset));
        if let Some((slot, at_ns)) = self.killed {
            evidence.last_packet_ms = Some(self.last_packet_ms(slot, at_ns)?);
        }
        match step.kind {
            StepKind::UpgradeTrafficManagers | StepKind::ReplacePrograms => {
                let wanted: &[&str] = match step.kind {
                    StepKind::ReplacePrograms => &["director of", "ingress of"],
                    _ => &["traffic manager of"],
                };
                let now = self.programs()?;
                let replaced = now
                    .iter()
                    .filter(|(name, _)| wanted.iter().any(|wanted| name.starts_with(wanted)))
                    .all(|(name, program)| {
                        program.is_some() && before.programs.get(name) != Some(program)
                    });
                evidence.programs_replaced = Some(replaced);
            }
            StepKind::KillControl => {
                evidence.processes_replaced =
                    Some(await_others(&before.pids, || self.control_pids())?);
            }
            StepKind::KillWorkers => {
                evidence.processes_replaced =
                    Some(await_others(&before.workers, || self.workers())?);
                evidence.bytes_in_pipes = Some(self.bytes_in_pipes()?);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether as many processes run as there were, and none of those.
fn await_others(before: &BTreeSet<u32>, now: impl Fn() -> Result<BTreeSet<u32>>) -> Result<bool> {
    let deadline = Instant::now() + REPLACED_WITHIN;
    loop {
        let now = now()?;
        let are_others = now.is_disjoint(before) && now.len() >= before.len();
        if are_others || Instant::now() >= deadline {
            return Ok(are_others);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The clients' process.
struct Clients {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Clients {
    fn start(world: &World) -> Result<Self> {
        let mut child = world
            .client_command()?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the clients")?;
        let commands = child.stdin.take().context("the clients have no input")?;
        let answers = child.stdout.take().context("the clients have no output")?;
        Ok(Self {
            child,
            commands,
            answers: BufReader::new(answers),
        })
    }

    fn ask(&mut self, command: &Command) -> Result<Answer> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        let sent = self.commands.write_all(line.as_bytes());
        let mut answer = String::new();
        if sent.is_err() || self.answers.read_line(&mut answer)? == 0 {
            bail!("the clients are gone: {}", self.child.wait()?);
        }
        Ok(serde_json::from_str(&answer)?)
    }

    fn open(&mut self, command: &Command) -> Result<u64> {
        match self.ask(command)? {
            Answer::Open { connections } => Ok(connections),
            other => Err(anyhow!("the clients answered {other:?}")),
        }
    }

    fn report(&mut self, command: &Command) -> Result<Report> {
        match self.ask(command)? {
            Answer::Report { report } => Ok(report),
            other => Err(anyhow!("the clients answered {other:?}")),
        }
    }

    fn flows(&mut self) -> Result<Vec<Flow>> {
        match self.ask(&Command::Flows)? {
            Answer::Flows { flows } => Ok(flows),
            other => Err(anyhow!("the clients answered {other:?}")),
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
