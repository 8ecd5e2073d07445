//! Runs a script: builds the lab, drives traffic, makes the changes, judges each.
//!
//! A step is a window of the clients' time. It begins when load has been steady for a while, ends
//! when the change has, and what is lost between two steps is a fault of the next one: no
//! connection can get lost where nobody looks.

mod act;
mod clients;
mod gather;
mod takeover;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};

use self::clients::Clients;
use crate::client::{Command, Report};
use crate::cluster::Cluster;
use crate::judge::{Document, Evidence, StepResult, judge, judge_quiet};
use crate::kill::KilledGuest;
use crate::life;
use crate::machine;
use crate::script::{Action, Script, Step, StepKind};
use crate::show::Show;
use crate::world::World;

/// What came of a run: the steps that were judged, and what ended it before its time.
#[derive(Debug, Default)]
pub struct Outcome {
    pub document: Document,
    pub error: Option<Error>,
}

/// Runs the script in a lab of its own, takes the lab down, and says what came of it.
pub fn run(script: &Script, binary: &Path, show: &mut Show) -> Outcome {
    in_a_lab(script, binary, show, |world, show, steps| {
        Runner::start(world, script, show)?.run(steps)
    })
}

/// Runs the script's steady steps without a cluster: clients go straight to the members. What is
/// lost then is lost by the lab.
pub fn run_direct(script: &Script, binary: &Path, show: &mut Show) -> Outcome {
    in_a_lab(script, binary, show, |world, show, steps| {
        for step in &script.steps {
            let pauses = |action: &Action| matches!(action, Action::Pause { .. });
            if step.kind != StepKind::Steady || !step.actions.iter().all(pauses) {
                bail!(
                    "step {:?}: without a cluster there is nothing to change",
                    step.name
                );
            }
        }
        let mut clients = Clients::start(world)?;
        let open = clients.open(&Command::Start {
            plan: script.direct_plan(),
        })?;
        show.line(&format!("{open} connections are open"));
        let evidence = Evidence::default();
        mark(&mut clients, "first", false)?;
        for (number, step) in (1..).zip(&script.steps) {
            show.begin(number, script.steps.len(), &step.name);
            std::thread::sleep(Duration::from_secs(step.seconds_min));
            let report = mark(&mut clients, &step.name, true)?;
            let result = judge(&step.name, step.kind, &report, &evidence);
            show.step(&result);
            steps.push(result);
        }
        finish(&mut clients, steps)
    })
}

/// Builds a lab, works in it, and takes it down whatever came of it.
fn in_a_lab(
    script: &Script,
    binary: &Path,
    show: &mut Show,
    work: impl FnOnce(&mut World, &mut Show, &mut Vec<StepResult>) -> Result<()>,
) -> Outcome {
    let mut steps = Vec::with_capacity(script.steps.len());
    let result = build(script, binary, show).and_then(|mut world| {
        let done = work(&mut world, show, &mut steps);
        if done.is_err() {
            show.line("the lab's logs:");
            show.logs(&world);
        }
        show.line("taking the lab down");
        let down = life::down(&script.topology.id);
        done.and(down.map(drop))
    });
    Outcome {
        document: Document {
            kept: result.is_ok() && steps.iter().all(|step| step.faults.is_empty()),
            steps,
            error: None,
        },
        error: result.err(),
    }
}

fn build(script: &Script, binary: &Path, show: &mut Show) -> Result<World> {
    life::reap()?;
    machine::check(script.size().need(), machine::available()?)?;
    show.line("building the lab");
    World::up(script.topology.clone(), binary)
}

fn mark(clients: &mut Clients, next: &str, is_steady: bool) -> Result<Report> {
    clients.report(&Command::Mark {
        name: next.to_owned(),
        is_steady,
    })
}

/// Whatever the last step left must end byte-exact too.
fn finish(clients: &mut Clients, steps: &mut [StepResult]) -> Result<()> {
    let report = clients.report(&Command::Finish)?;
    if let Some(step) = steps.last_mut() {
        step.faults.extend(judge_quiet("at the end", &report));
    }
    Ok(())
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
    /// The guest that the step killed: its slot, and what was seen of its death.
    killed: Option<(u16, KilledGuest)>,
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

    fn run(&mut self, steps: &mut Vec<StepResult>) -> Result<()> {
        let script = self.script;
        for (number, step) in (1..).zip(&script.steps) {
            self.show.begin(number, script.steps.len(), &step.name);
            let result = self.step(step)?;
            self.show.step(&result);
            steps.push(result);
        }
        self.show.progress("the end: every connection ends");
        finish(&mut self.clients, steps)
    }

    fn step(&mut self, step: &Step) -> Result<StepResult> {
        self.clients.open(&Command::Refill)?;
        self.clients.open(&Command::Last {
            seconds: step.streams_last_s,
        })?;
        let between = mark(&mut self.clients, "steady", true)?;
        let steady_s = step.steady_s.unwrap_or(self.script.steady_s);
        std::thread::sleep(Duration::from_secs(steady_s));
        let before = self.before()?;
        let steady = mark(&mut self.clients, &step.name, false)?;
        let began = Instant::now();
        self.changes.clear();
        self.killed = None;
        self.streams_end = step.streams_last_s.is_some();
        let mut evidence = Evidence::default();
        if let Err(error) = self.act(step, &before, &mut evidence) {
            evidence.failure = Some(format!("{error:#}"));
        }
        let min = Duration::from_secs(step.seconds_min).max(step.kind.lasts_at_least());
        std::thread::sleep(min.saturating_sub(began.elapsed()));
        let report = mark(&mut self.clients, "between steps", false)?;
        if let Err(error) = self.gather(step, &before, &report, &mut evidence) {
            // The step does not hold, but the clients' word on it is still worth having.
            evidence.failure.get_or_insert(format!("{error:#}"));
        }
        let mut result = judge(&step.name, step.kind, &report, &evidence);
        let quiet = [
            ("between this step and the one before", &between),
            ("under steady load before the step", &steady),
        ];
        for (when, report) in quiet {
            result.faults.extend(judge_quiet(when, report));
        }
        Ok(result)
    }
}
