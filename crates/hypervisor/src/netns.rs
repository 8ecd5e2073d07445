//! The driver `netns`: a guest is a network namespace with a control group, on the node's own
//! kernel.
//!
//! On disk, below `run/guests/NAME`: `spec.json`, and for each program `PROGRAM.pid` and
//! `PROGRAM.log`. The guest's end of its link is called [`GUEST_INTERFACE`]. The node's end has no
//! XDP program yet: without one nothing that the guest's ingress transmits arrives, so the caller
//! attaches the director's program for guests' ports.
//!
//! The namespace has a kernel's network state of its own, but it is no machine: a program that is
//! killed has its sockets closed by a kernel that lives on. So [`Hypervisor::destroy`] pulls the
//! cable first.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hitless_net::{Namespace, Netlink, NextHop, Offload, Prefix, Route, VethEnd, set_offload};
use rustix::process::Signal;

use crate::daemon::Daemon;
use crate::{
    Error, Guest, GuestName, GuestSpec, Hypervisor, Process, Program, ProgramState, Result, cgroup,
};

mod network;

/// The guest's end of its link.
pub const GUEST_INTERFACE: &str = "eth0";
/// How long killed processes may take to disappear: the kernel frees their memory and sockets
/// meanwhile.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// Marks a process as a program of a guest, with the program's name.
const PROGRAM_MARK: &str = "HITLESS_GUEST_PROGRAM";

/// Where the driver keeps its things.
#[derive(Clone, Debug)]
pub struct NetnsOptions {
    /// The node's folder for what runs; guests are below `guests` in it.
    pub run: PathBuf,
    /// What the names of guests' namespaces and control groups begin with, such as `hl-LAB-NODE-`.
    /// It tells the guests of several nodes on one machine apart.
    pub prefix: String,
}

/// The driver. The namespace in which it is opened is the node's.
#[derive(Debug)]
pub struct NetnsDriver {
    options: NetnsOptions,
    node: Namespace,
}

impl NetnsDriver {
    /// Opens the driver for the node whose namespace the calling thread is in, and makes that
    /// namespace forward.
    pub fn open(options: NetnsOptions) -> Result<Self> {
        let node = Namespace::current().map_err(Error::Node)?;
        for (setting, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            // Answers come back by other ways than questions went.
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ] {
            node.set(setting, value).map_err(Error::Node)?;
        }
        let guests = options.run.join("guests");
        fs::create_dir_all(&guests).map_err(file("make folder", &guests))?;
        Ok(Self { options, node })
    }

    fn namespace_name(&self, name: &GuestName) -> String {
        format!("{}{name}", self.options.prefix)
    }

    fn folder(&self, name: &GuestName) -> PathBuf {
        self.options.run.join("guests").join(name.as_str())
    }

    fn pid_file(&self, name: &GuestName, program: &str) -> PathBuf {
        self.folder(name).join(format!("{program}.pid"))
    }

    fn read_spec(&self, name: &GuestName) -> Result<GuestSpec> {
        let path = self.folder(name).join("spec.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoGuest(name.clone()));
            }
            other => other.map_err(file("read", &path))?,
        };
        serde_json::from_slice(&text).map_err(|error| file("read", &path)(error.into()))
    }

    fn write_spec(&self, spec: &GuestSpec) -> Result<()> {
        let folder = self.folder(&spec.name);
        fs::create_dir_all(&folder).map_err(file("make folder", &folder))?;
        let (path, new) = (folder.join("spec.json"), folder.join("spec.json-new"));
        let text = serde_json::to_vec_pretty(spec).map_err(|e| file("write", &new)(e.into()))?;
        fs::write(&new, text).map_err(file("write", &new))?;
        fs::rename(&new, &path).map_err(file("write", &path))
    }

    /// The process that runs as `program`. One that was started by an agent that died before it
    /// wrote the pid file is found by its mark, and gets its pid file now.
    fn process(&self, name: &GuestName, program: &str, guest: &Namespace) -> Option<Process> {
        let pid_file = self.pid_file(name, program);
        if let Some(process) = Process::from_file(&pid_file) {
            return Some(process);
        }
        let mark = format!("{PROGRAM_MARK}={program}");
        let found = guest.processes().ok()?.into_iter().find_map(|pid| {
            let process = Process::find(pid).filter(|process| process.leads_session())?;
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == mark.as_bytes())
                .then_some(process)
        })?;
        // If this fails, the next call looks for the mark again.
        let _ = found.write_file(&pid_file);
        Some(found)
    }

    fn state(&self, spec: GuestSpec, degraded: Vec<String>) -> Result<Guest> {
        let namespace = self.namespace_name(&spec.name);
        let guest = Namespace::open(&namespace).map_err(network(&spec.name))?;
        let links = network::links(&self.node, &guest, &spec.name)?;
        let programs = spec
            .programs
            .iter()
            .map(|program| ProgramState {
                name: program.name.clone(),
                process: self.process(&spec.name, &program.name, &guest),
            })
            .collect();
        Ok(Guest {
            namespace,
            node_interface: links.node.name,
            node_interface_index: links.node.index,
            mac: links.guest.mac.unwrap_or_default(),
            node_mac: links.node.mac.unwrap_or_default(),
            programs,
            is_link_up: links.node.is_up && links.guest.is_up,
            degraded,
            spec,
        })
    }

    fn spawn(
        &self,
        spec: &GuestSpec,
        program: &Program,
        guest: &Namespace,
        cgroups: &[PathBuf],
    ) -> Result<Process> {
        let folder = self.folder(&spec.name);
        let mut environment = program.environment.clone();
        environment.push((PROGRAM_MARK.to_owned(), program.name.clone()));
        let daemon = Daemon {
            binary: &program.binary,
            arguments: &program.arguments,
            environment: &environment,
            namespace: guest,
            cgroups: if program.is_limited { cgroups } else { &[] },
            log: &folder.join(format!("{}.log", program.name)),
            pid_file: &self.pid_file(&spec.name, &program.name),
        };
        daemon.spawn().map_err(|source| Error::Start {
            guest: spec.name.clone(),
            program: program.name.clone(),
            binary: program.binary.clone(),
            source,
        })
    }

    /// Kills all that is in the guest's namespace, and waits until it is gone.
    fn kill_all(&self, name: &GuestName, guest: &Namespace) -> Result<()> {
        let deadline = Instant::now() + GONE_WITHIN;
        loop {
            // A process may fork while we look, so look again until there is none.
            let pids = guest.processes().map_err(network(name))?;
            if pids.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::StillThere {
                    guest: name.clone(),
                    pids,
                    seconds: GONE_WITHIN.as_secs(),
                });
            }
            let processes: Vec<Process> = pids.into_iter().filter_map(Process::find).collect();
            for process in &processes {
                let _ = process.signal(Signal::KILL);
            }
            for process in processes {
                let rest = deadline.saturating_duration_since(Instant::now());
                let _ = process.wait_gone(rest);
            }
        }
    }
}

impl Hypervisor for NetnsDriver {
    fn create(&self, spec: &GuestSpec) -> Result<Guest> {
        check(spec)?;
        let name = self.namespace_name(&spec.name);
        if matches!(self.read_spec(&spec.name), Err(Error::NoGuest(_))) {
            // A namespace of this name was left by somebody whose files are gone. What runs in it
            // was started by them, and is no guest of ours.
            self.destroy(&spec.name)?;
        }
        let guest = match Namespace::create(&name) {
            Err(error) if error.is_already_there() => {
                Namespace::open(&name).map_err(network(&spec.name))?
            }
            other => other.map_err(network(&spec.name))?,
        };
        if let Ok(old) = self.read_spec(&spec.name)
            && old.gateways != spec.gateways
        {
            return Err(Error::NeedsDestroy {
                guest: spec.name.clone(),
                field: "gateway",
            });
        }
        // First, so that what follows is a guest of ours, though we die in it.
        self.write_spec(spec)?;
        network::set_up(&self.node, &guest, spec)?;
        let group = cgroup::create(&name, &spec.limits);
        self.state(spec.clone(), group.degraded)
    }

    fn start(&self, name: &GuestName) -> Result<Guest> {
        let spec = self.read_spec(name)?;
        let namespace = self.namespace_name(name);
        let guest = Namespace::open(&namespace).map_err(network(name))?;
        let group = cgroup::create(&namespace, &spec.limits);
        for program in &spec.programs {
            if self.process(name, &program.name, &guest).is_none() {
                self.spawn(&spec, program, &guest, &group.joins)?;
            }
        }
        self.state(spec, group.degraded)
    }

    fn stop(&self, name: &GuestName, grace: Duration) -> Result<()> {
        let spec = self.read_spec(name)?;
        let guest = Namespace::open(&self.namespace_name(name)).map_err(network(name))?;
        for program in spec.programs.iter().rev() {
            if let Some(process) = self.process(name, &program.name, &guest) {
                let _ = process.signal(Signal::TERM);
                let _ = process.wait_gone(grace);
            }
        }
        self.kill_all(name, &guest)
    }

    fn kill_program(&self, name: &GuestName, program: &str) -> Result<()> {
        let spec = self.read_spec(name)?;
        if !spec.programs.iter().any(|known| known.name == program) {
            let known: Vec<&str> = spec.programs.iter().map(|p| p.name.as_str()).collect();
            return Err(Error::NoProgram {
                guest: name.clone(),
                program: program.to_owned(),
                known: known.join(", "),
            });
        }
        let guest = Namespace::open(&self.namespace_name(name)).map_err(network(name))?;
        let Some(process) = self.process(name, program, &guest) else {
            return Ok(());
        };
        let _ = process.signal(Signal::KILL);
        match process.wait_gone(GONE_WITHIN) {
            Ok(false) => Err(Error::StillThere {
                guest: name.clone(),
                pids: vec![process.pid],
                seconds: GONE_WITHIN.as_secs(),
            }),
            Ok(true) | Err(_) => Ok(()),
        }
    }

    fn destroy(&self, name: &GuestName) -> Result<()> {
        let namespace = self.namespace_name(name);
        if let Ok(guest) = Namespace::open(&namespace) {
            network::pull_cable(&self.node, &guest, name)?;
            self.kill_all(name, &guest)?;
        }
        network::remove_link(&self.node, name)?;
        Namespace::delete(&namespace).map_err(network(name))?;
        cgroup::remove(&namespace);
        let folder = self.folder(name);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file("remove folder", &folder)(error))
            }
            _ => Ok(()),
        }
    }

    fn list(&self) -> Result<Vec<Guest>> {
        let guests = self.options.run.join("guests");
        let mut names: Vec<GuestName> = fs::read_dir(&guests)
            .map_err(file("list", &guests))?
            .filter_map(|entry| GuestName::new(entry.ok()?.file_name().into_string().ok()?).ok())
            .collect();
        names.sort();
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let spec = match self.read_spec(&name) {
                // Being made when its agent died: it is no guest yet.
                Err(Error::NoGuest(_)) => continue,
                other => other?,
            };
            match self.state(spec, Vec::new()) {
                // Its namespace is gone (the machine has been restarted): its folder is a leftover.
                Err(Error::Network { source, .. }) if source.is_not_there() => {}
                other => found.push(other?),
            }
        }
        Ok(found)
    }
}

fn check(spec: &GuestSpec) -> Result<()> {
    let bad = |reason: String| {
        Err(Error::BadSpec {
            guest: spec.name.clone(),
            reason,
        })
    };
    for prefix in &spec.addresses {
        let has_gateway = match prefix.address() {
            IpAddr::V4(_) => spec.gateways.v4.is_some(),
            IpAddr::V6(_) => spec.gateways.v6.is_some(),
        };
        if !has_gateway {
            return bad(format!(
                "it has the address {prefix} and no gateway of that family"
            ));
        }
    }
    if spec
        .gateways
        .v6
        .is_some_and(|gateway| !gateway.is_unicast_link_local())
    {
        return bad("its IPv6 gateway is not a link-local address".to_owned());
    }
    // IPv6 needs 1,280.
    if !(1_280..=65_535).contains(&spec.mtu) {
        return bad(format!("its MTU is {}; it must be 1280 to 65535", spec.mtu));
    }
    for (index, program) in spec.programs.iter().enumerate() {
        if !program.binary.is_absolute() {
            return bad(format!(
                "the path {} is not absolute",
                program.binary.display()
            ));
        }
        if GuestName::new(program.name.as_str()).is_err() {
            return bad(format!(
                "{:?} cannot be the name of a program",
                program.name
            ));
        }
        if spec.programs[..index]
            .iter()
            .any(|other| other.name == program.name)
        {
            return bad(format!("two of its programs are called {}", program.name));
        }
    }
    Ok(())
}

fn network(name: &GuestName) -> impl Fn(hitless_net::Error) -> Error {
    move |source| Error::Network {
        guest: name.clone(),
        source,
    }
}

fn file(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::File {
        operation,
        path: path.to_owned(),
        source,
    }
}
