//! `hitless node`: wiring of a node's agent.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use hitless_control::bpf::BpfDirector;
use hitless_control::link::Address;
use hitless_control::message::TOLD_TO_CLOSE;
use hitless_control::netns::{GuestFolder, KernelUnderlay, NetnsRunner, RunnerOptions};
use hitless_control::node::managers::{Looked, ManagerControl};
use hitless_control::node::{Ended, Node, Options as Driver, Parts, forget_other_kernel};
use hitless_control::{kernel, lease};
use hitless_core::ledger::Ledger;
use hitless_hypervisor::{NetnsDriver, NetnsOptions};
use hitless_net::{Namespace, Prefix};
use hitless_tm::control::{Client, Outcome, Request};
use hitless_tm::status::{ChangeKind, Status};

use crate::exit::{Exit, Failure};
use crate::{logging, version};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The node's name, as it was added
    #[arg(long)]
    name: String,
    /// The folder for what it keeps and for its guests
    #[arg(long, value_name = "DIR")]
    run_dir: PathBuf,
    /// Where the controller listens for agents: `nodes.sock` in its run folder
    #[arg(long, value_name = "ADDRESS")]
    controller: Address,
    /// An interface at which packets for virtual addresses come in; may be repeated
    #[arg(long = "uplink", value_name = "INTERFACE", required = true)]
    uplinks: Vec<String>,
    /// The node's address on the underlay
    #[arg(long, value_name = "ADDRESS")]
    address: IpAddr,
    /// Where guests' addresses are taken from, one prefix per family
    #[arg(long = "guest-prefix", value_name = "PREFIX", required = true)]
    guest_prefixes: Vec<Prefix>,
    /// The folder in a bpf file system where programs are pinned
    #[arg(long, value_name = "DIR")]
    pins: PathBuf,
    /// MTU of the underlay
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u16).range(1_280..))]
    mtu: u16,
    /// UDP port on which leases are granted
    #[arg(long, default_value_t = lease::DEFAULT_PORT)]
    lease_port: u16,
    /// What the names of guests' network namespaces begin with
    #[arg(long, value_name = "TEXT")]
    guest_namespaces: Option<String>,
}

pub(crate) fn run(options: Options) -> Result<Exit> {
    logging::start();
    if !rustix::process::geteuid().is_root() {
        let failure = Failure::new(Exit::Unreachable, "a node's agent needs root");
        return Err(failure
            .hint("it loads BPF programs and makes network namespaces")
            .into());
    }
    prefer_this_process();
    let run = std::path::absolute(&options.run_dir)?;
    let shown = run.display();
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(&run)
        .with_context(|| format!("cannot make the run folder {shown}"))?;
    let kernel = kernel::boot_of(&Namespace::current()?)?;
    forget_other_kernel(&run, kernel);
    provide_bpf_file_system(&options.pins)?;
    let plane = BpfDirector::open(options.pins.clone(), options.uplinks)
        .context("cannot open the director")?;
    let prefix = options
        .guest_namespaces
        .unwrap_or_else(|| format!("hl-{}-", options.name));
    let driver = NetnsDriver::open(NetnsOptions {
        run: run.clone(),
        prefix,
    })?;
    let program = std::env::current_exe().context("cannot find this program on disk")?;
    let runner = RunnerOptions {
        run: run.clone(),
        prefixes: options.guest_prefixes,
        mtu: options.mtu,
        program: program.clone(),
        pins: options.pins,
    };
    let parts = Parts {
        plane: Arc::new(plane),
        guests: Box::new(NetnsRunner::new(driver, runner)),
        managers: Arc::new(Managers {
            run: run.clone(),
            program,
        }),
        underlay: Box::new(KernelUnderlay::open(options.address).map_err(|error| anyhow!(error))?),
    };
    let driver = Driver {
        name: options.name,
        run,
        controller: options.controller,
        address: options.address,
        lease_port: options.lease_port,
        kernel,
        release: version::long().to_owned(),
    };
    match Node::new(driver, parts)
        .context("cannot open the sockets")?
        .run()
    {
        Ended::Stopped | Ended::Left => Ok(Exit::Done),
    }
}

/// Mounts a bpf file system at the pin folder, unless it lies in one.
fn provide_bpf_file_system(pins: &Path) -> Result<()> {
    const BPF_MAGIC: i64 = 0xcafe_4a11;
    let shown = pins.display();
    let make = || std::fs::create_dir_all(pins);
    let kind = |path: &Path| rustix::fs::statfs(path).map(|found| found.f_type);
    let parent = pins.ancestors().find(|path| path.exists());
    if parent.is_some_and(|path| kind(path) == Ok(BPF_MAGIC)) {
        return make().with_context(|| format!("cannot make the folder {shown}"));
    }
    make().with_context(|| format!("cannot make the folder {shown}"))?;
    rustix::mount::mount("bpf", pins, "bpf", rustix::mount::MountFlags::empty(), None)
        .with_context(|| format!("cannot mount a bpf file system at {shown}"))
}

/// Leases are renewed every 20 ms: on a busy machine, before others' work. Without the right to, it
/// goes on as it is.
pub(crate) fn prefer_this_process() {
    const NICE: i32 = -10;
    if rustix::process::setpriority_process(None, NICE).is_err() {
        tracing::info!("runs without a higher priority");
    }
}

/// Traffic managers by their keepers' control sockets.
struct Managers {
    run: PathBuf,
    program: PathBuf,
}

impl Managers {
    fn call(&self, guest: &str, request: Request) -> Result<String, String> {
        let folder = GuestFolder::of(&self.run, guest).manager();
        let client = Client::connect(&folder).map_err(|error| error.to_string())?;
        let reply = client.call(request).map_err(|error| error.to_string())?;
        match reply.outcome {
            Outcome::Done => Ok(reply.body),
            Outcome::Refused | Outcome::Failed => Err(reply.body),
        }
    }

    fn status(&self, guest: &str) -> Result<Status, String> {
        let body = self.call(guest, Request::Status)?;
        serde_json::from_str(&body).map_err(|error| format!("its status cannot be read: {error}"))
    }
}

impl ManagerControl for Managers {
    fn reload(&self, guest: &str, site: &str) -> Result<(), String> {
        let path = GuestFolder::of(&self.run, guest).site();
        hitless_control::file::write(&path, site.as_bytes()).map_err(|error| error.to_string())?;
        self.call(guest, Request::Reload).map(|_| ())
    }

    fn upgrade(&self, guest: &str, program: Option<&str>) -> Result<Option<Ledger>, String> {
        let program = program.map_or(self.program.as_path(), Path::new);
        if !program.is_file() {
            return Err(format!("there is no program {}", program.display()));
        }
        GuestFolder::of(&self.run, guest)
            .point(program)
            .map_err(|error| format!("cannot point to {}: {error}", program.display()))?;
        self.call(guest, Request::Upgrade)?;
        let changes = self.status(guest)?.changes;
        let last = changes
            .iter()
            .rev()
            .find(|change| change.kind == ChangeKind::Upgrade);
        Ok(last.and_then(|change| change.ledger))
    }

    fn tell_to_close(&self, guest: &str, tells: bool) -> Result<(), String> {
        let request = if tells {
            Request::TellToClose
        } else {
            Request::KeepOpen
        };
        self.call(guest, request).map(|_| ())
    }

    fn look(&self, guest: &str) -> Option<Looked> {
        let status = self.status(guest).ok()?;
        let program = status.program;
        // While no worker runs, nothing serves.
        program.worker_pid?;
        let mut counters = BTreeMap::new();
        for change in status.changes {
            let kind = match change.kind {
                ChangeKind::Upgrade => "upgrade",
                ChangeKind::WorkerCrash => "crash",
                _ => continue,
            };
            if let Some(bytes) = change.bytes_in_pipes {
                counters.insert(format!("last_{kind}_bytes_in_pipes"), bytes);
            }
        }
        if let Some(losses) = status.losses {
            counters.insert("crash_reset".to_owned(), losses.connections_total);
            counters.insert("crash_requests_lost".to_owned(), losses.requests_total);
        }
        if let Some(told) = status.told_to_close_total {
            counters.insert(TOLD_TO_CLOSE.to_owned(), told);
        }
        Some(Looked {
            program: program.build,
            worker_pids: program.worker_pid.into_iter().collect(),
            tells_to_close: program.tells_to_close,
            counters,
        })
    }
}
