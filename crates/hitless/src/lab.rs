//! `hitless lab`: a whole cluster on one machine, changed under traffic whose every byte is
//! checked.

use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use hitless_lab::cluster::Cluster;
use hitless_lab::script::Script;
use hitless_lab::show::Show;
use hitless_lab::topology::Topology;
use hitless_lab::world::{self, World};
use hitless_lab::{client, machine, runner, server};

use crate::exit::Exit;
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

pub(crate) fn run(options: Options) -> Result<Exit> {
    match options.command {
        Command::Up { topology, binary } => {
            let text = std::fs::read_to_string(&topology)
                .with_context(|| format!("cannot read {}", topology.display()))?;
            let topology = Topology::parse(&text)?;
            machine::check(machine::need(&topology, 0), machine::available()?)?;
            world::reap()?;
            let mut world = World::up(topology, &program(binary)?, None)?;
            let cluster = Cluster::of(&world);
            if let Err(error) = cluster.start(&mut world) {
                Show::new(true).logs(&world);
                world::down(&world.topology().id)?;
                return Err(error);
            }
            output::print(&status(&world))?;
            Ok(Exit::Done)
        }
        Command::Down { id: Some(id) } => {
            world::down(&id)?;
            Ok(Exit::Done)
        }
        Command::Down { id: None } => {
            for id in world::reap()? {
                output::print(&format!("took down lab {id}\n"))?;
            }
            Ok(Exit::Done)
        }
        Command::Status { id } => {
            let ids = id.map_or_else(world::all, |id| vec![id]);
            for id in ids {
                output::print(&status(&World::open(&id)?))?;
            }
            Ok(Exit::Done)
        }
        Command::Run {
            script,
            binary,
            json,
            direct,
        } => {
            let script = Script::read(&script)?;
            let mut show = Show::new(json);
            let document = if direct {
                runner::run_direct(&script, &program(binary)?, &mut show)?
            } else {
                runner::run(&script, &program(binary)?, &mut show)?
            };
            show.end(&document)?;
            Ok(if document.kept {
                Exit::Done
            } else {
                Exit::Failed
            })
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
            world::guard(&id, pid, started_ticks)?;
            Ok(Exit::Done)
        }
    }
}

fn program(given: Option<PathBuf>) -> Result<PathBuf> {
    match given {
        Some(path) => Ok(path),
        None => std::env::current_exe().context("cannot find the own program"),
    }
}

fn status(world: &World) -> String {
    let topology = world.topology();
    let mut text = format!("lab {}: nodes {}\n", topology.id, topology.nodes.join(", "));
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
    text.push_str(&format!(
        "  orders:  {}\n  traffic: nsenter --net=/run/netns/{} curl http://{v4}/{} (or http://[{v6}]/)\n",
        world.api_socket().display(),
        topology.namespace("clients"),
        topology.objects.first().copied().unwrap_or(1),
    ));
    text
}
