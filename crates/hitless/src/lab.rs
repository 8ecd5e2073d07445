//! `hitless lab`: a whole cluster on one machine, changed under traffic whose every byte is
//! checked.

use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Error, Result};
use clap::{Args, Subcommand, ValueEnum};
use hitless_carry::signals::Signals;
use hitless_hypervisor::Process;
use hitless_lab::cluster::Cluster;
use hitless_lab::machine::{self, Size};
use hitless_lab::runner::{self, Outcome};
use hitless_lab::script::Script;
use hitless_lab::show::Show;
use hitless_lab::topology::Topology;
use hitless_lab::world::World;
use hitless_lab::{client, life, server};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;

use crate::exit::{Exit, Failure};
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Build the lab that a topology file describes, and leave it up
    Up {
        /// The topology, YAML
        topology: PathBuf,
        /// The program that the cluster runs; without it, this one
        #[arg(long, value_name = "PROGRAM")]
        binary: Option<PathBuf>,
    },
    /// Take a lab down, whatever is left of it
    Down {
        /// Its id; without it, every lab whose runner is gone
        id: Option<String>,
    },
    /// Show the labs that are up
    Status {
        /// Only this one
        id: Option<String>,
    },
    /// Build a lab, drive traffic, make a script's changes, judge each, and take the lab down
    Run {
        /// The script, YAML
        script: PathBuf,
        /// The program that the cluster runs; without it, this one
        #[arg(long, value_name = "PROGRAM")]
        binary: Option<PathBuf>,
        /// Print one JSON document on standard output, and progress on standard error
        #[arg(long)]
        json: bool,
        /// How the result is printed; `json` is the same as --json
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
        /// Start no cluster: clients go straight to the members, which shows what the lab itself
        /// costs
        #[arg(long)]
        direct: bool,
    },
    /// The clients of a lab
    #[command(hide = true)]
    Client,
    /// The stream server of a lab
    #[command(hide = true)]
    Server { listen: Vec<SocketAddr> },
    /// Takes a lab down when a process is gone
    #[command(hide = true)]
    Guard {
        id: String,
        pid: u32,
        started_ticks: u64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Format {
    Table,
    Json,
}

pub(crate) fn run(options: Options) -> Result<Exit> {
    match options.command {
        Command::Up { topology, binary } => {
            let topology = Topology::read(&topology)?;
            machine::check(Size::of(&topology).need(), machine::available()?)?;
            life::reap()?;
            let id = topology.id.clone();
            take_down_when_interrupted(&id)?;
            let mut world = World::up(topology, &program(binary)?).map_err(unless_interrupted)?;
            let started = Cluster::of(&world).start(&mut world);
            if let Err(error) = started.and_then(|()| world.keep()) {
                let error = unless_interrupted(error);
                Show::new(true).logs(&world);
                life::down(&id)?;
                return Err(error);
            }
            output::print(&status(&world))?;
            Ok(Exit::Done)
        }
        Command::Down { id: Some(id) } => {
            if !life::down(&id)? {
                let known = life::all();
                let hint = match known.is_empty() {
                    true => "there is none".to_owned(),
                    false => format!("there are: {}", known.join(", ")),
                };
                return Err(
                    Failure::new(Exit::Failed, format!("there is no lab {id}; {hint}")).into(),
                );
            }
            output::print(&format!("took down lab {id}\n"))?;
            Ok(Exit::Done)
        }
        Command::Down { id: None } => {
            for id in life::reap()? {
                output::print(&format!("took down lab {id}\n"))?;
            }
            for id in life::all() {
                output::print(&format!(
                    "lab {id} is in use or was left up: `hitless lab down {id}` ends it\n"
                ))?;
            }
            Ok(Exit::Done)
        }
        Command::Status { id: Some(id) } => {
            output::print(&status(&World::open(&id)?))?;
            Ok(Exit::Done)
        }
        Command::Status { id: None } => {
            let ids = life::all();
            if ids.is_empty() {
                output::print("no lab is up\n")?;
            }
            for id in ids {
                let text = match World::open(&id) {
                    Ok(world) => status(&world),
                    Err(error) => {
                        format!(
                            "lab {id}: {error:#}; `hitless lab down {id}` removes its remains\n"
                        )
                    }
                };
                output::print(&text)?;
            }
            Ok(Exit::Done)
        }
        Command::Run {
            script,
            binary,
            json,
            output,
            direct,
        } => {
            let mut show = Show::new(json || output == Format::Json);
            let mut outcome = match Script::read(&script).and_then(|script| {
                let binary = program(binary)?;
                take_down_when_interrupted(&script.topology.id)?;
                Ok(match direct {
                    true => runner::run_direct(&script, &binary, &mut show),
                    false => runner::run(&script, &binary, &mut show),
                })
            }) {
                Ok(outcome) => outcome,
                Err(error) => Outcome {
                    error: Some(error),
                    ..Outcome::default()
                },
            };
            let error = outcome.error.map(unless_interrupted);
            outcome.document.error = error.as_ref().map(|error| format!("{error:#}"));
            // A reader of documents gets one, whatever happened.
            show.end(&outcome.document)?;
            match (error, outcome.document.kept) {
                (Some(error), _) => Err(error),
                (None, true) => Ok(Exit::Done),
                (None, false) => Ok(Exit::Failed),
            }
        }
        Command::Client => {
            client::run(std::io::stdin(), std::io::stdout())?;
            Ok(Exit::Done)
        }
        Command::Server { listen } => {
            // Nobody stops it but by a signal: it ends with its lab.
            let (stop, _keep) = std::io::pipe()?;
            server::serve(&listen, &OwnedFd::from(stop), |addresses| {
                let _ = writeln!(std::io::stdout(), "listens on {addresses:?}");
            })?;
            Ok(Exit::Done)
        }
        Command::Guard {
            id,
            pid,
            started_ticks,
        } => {
            life::guard(&id, pid, started_ticks)?;
            Ok(Exit::Done)
        }
    }
}

/// The lab is being taken down from under whoever works with it.
static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// What goes wrong in a lab that is taken down is nobody's concern: that ends the program.
fn unless_interrupted(error: Error) -> Error {
    while IS_INTERRUPTED.load(Ordering::Relaxed) {
        std::thread::park();
    }
    error
}

/// Ctrl-C and its like end the program, but not before the lab is gone. Call it before there are
/// threads. (What kills without a word is the guard's business.)
fn take_down_when_interrupted(id: &str) -> Result<()> {
    const INTERRUPTED: i32 = 130;
    let signals = [Signal::INT, Signal::TERM, Signal::HUP].map(Signal::as_raw);
    let signals = Signals::open(&signals).context("cannot take signals")?;
    let own = Process::find(std::process::id()).context("cannot read the own process")?;
    let id = id.to_owned();
    std::thread::Builder::new()
        .name("interrupted".to_owned())
        .spawn(move || {
            let mut asked = [PollFd::new(&signals, PollFlags::IN)];
            while rustix::event::poll(&mut asked, None).is_err() || signals.next().is_none() {}
            IS_INTERRUPTED.store(true, Ordering::Relaxed);
            eprintln!("\ninterrupted: taking lab {id} down");
            if let Err(error) = life::down_if_of(&id, own) {
                eprintln!("{error:#}");
            }
            std::process::exit(INTERRUPTED);
        })
        .context("cannot start a thread")?;
    Ok(())
}

fn program(given: Option<PathBuf>) -> Result<PathBuf> {
    match given {
        Some(path) => Ok(path),
        None => std::env::current_exe().context("cannot find the own program"),
    }
}

fn status(world: &World) -> String {
    let topology = world.topology();
    let runner = match world.state().owner {
        Some((pid, _)) => format!(", run by process {pid}"),
        None => String::new(),
    };
    let nodes: Vec<&str> = world.state().numbers.keys().map(String::as_str).collect();
    let mut text = format!("lab {}: nodes {}{runner}\n", topology.id, nodes.join(", "));
    match Cluster::of(world).status() {
        Ok(status) => {
            let settled = if status.settled {
                "settled"
            } else {
                "not settled"
            };
            text.push_str(&format!(
                "  {} of {} nodes linked, {} of {} guests serving, {settled}\n",
                status.nodes_linked, status.nodes, status.guests_serving, status.guests
            ));
        }
        Err(error) => text.push_str(&format!("  the controller does not answer: {error:#}\n")),
    }
    let [v4, v6] = topology.vips();
    let object = topology.objects.first().copied().unwrap_or(1);
    text.push_str(&format!(
        "  orders:  hitless get guests --controller {}\n  traffic: nsenter --net=/run/netns/{} curl http://{v4}/{} (or http://[{v6}]/{})\n",
        world.controller_folder().display(),
        topology.namespace("clients"),
        object,
        object,
    ));
    text
}
