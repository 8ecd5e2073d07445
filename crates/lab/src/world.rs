//! The lab's namespaces, links and processes: made, found again, taken down.
//!
//! ```text
//! clients --- router ==(ECMP by layer-4 hash)== node ... node --- their guests (made by the node agents)
//!                \--- members: web servers, stream server
//! ```
//!
//! All names begin with `hl-ID-` and all files lie in `/run/hitless-lab/ID`, so a lab can be taken
//! down by its id alone, whatever became of the process that made it. Routes of equal cost are
//! plain ones: a change of the nodes moves flows between directors, as a switch without resilient
//! hashing does.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hitless_hypervisor::{Daemon, Process};
use hitless_net::{
    Namespace, Netlink, NextHop, Offload, Prefix, Route, VethEnd, attach_pass, set_offload,
};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::client::Flow;
use crate::topology::{
    HTTP_PORT, STREAM_PORT, Spoke, Topology, UPLINK, clients_spoke, folder_of, guests_network,
    member_address, members_spoke, node_spoke, prefix_of,
};
use crate::wire::append_pattern;

/// Killed processes are gone within this.
const GONE_WITHIN: Duration = Duration::from_secs(10);
const CLIENTS: &str = "clients";
const ROUTER: &str = "router";
const MEMBERS: &str = "members";

/// What is written down, so that another process can go on or clean up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub topology: Topology,
    pub binary: PathBuf,
    /// The process that owns the lab: when it is gone, the lab may be cleaned up. None: it stays
    /// until `down`.
    pub owner: Option<(u32, u64)>,
    /// Number of each node, which its addresses are made of.
    pub numbers: BTreeMap<String, u8>,
    /// Nodes that the router sends to.
    pub announced: Vec<String>,
}

/// A lab that is up.
#[derive(Debug)]
pub struct World {
    state: State,
}

impl World {
    /// Builds everything and starts servers and controller; no node agent runs yet. What a dead lab
    /// of this id left is removed first; a living one is refused.
    pub fn up(topology: Topology, binary: &Path, owner: Option<Process>) -> Result<Self> {
        topology.check()?;
        ensure!(
            rustix::process::geteuid().is_root(),
            "a lab makes network namespaces and needs root"
        );
        let binary = fs::canonicalize(binary)
            .with_context(|| format!("there is no program {}", binary.display()))?;
        let folder = topology.folder();
        if let Ok(old) = Self::open(&topology.id) {
            if let Some((pid, started_ticks)) = old.state.owner {
                let owner = Process { pid, started_ticks };
                ensure!(
                    !owner.is_alive() || pid == std::process::id(),
                    "lab {} is being run by process {pid}",
                    topology.id
                );
            } else {
                bail!("lab {0} is up; `hitless lab down {0}` ends it", topology.id);
            }
        }
        down(&topology.id)?;
        fs::create_dir_all(&folder)?;
        let mut world = Self {
            state: State {
                topology,
                binary,
                owner: owner.map(|process| (process.pid, process.started_ticks)),
                numbers: BTreeMap::new(),
                announced: Vec::new(),
            },
        };
        world.save()?;
        world.build().inspect_err(|_| {
            let _ = down(&world.state.topology.id);
        })?;
        Ok(world)
    }

    /// Finds a lab that is up.
    pub fn open(id: &str) -> Result<Self> {
        let path = folder_of(id).join("state.json");
        let text = fs::read(&path).map_err(|_| anyhow!("there is no lab {id}"))?;
        let state = serde_json::from_slice(&text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { state })
    }

    pub const fn state(&self) -> &State {
        &self.state
    }

    pub const fn topology(&self) -> &Topology {
        &self.state.topology
    }

    /// The product's program.
    pub fn binary(&self) -> &Path {
        &self.state.binary
    }

    /// Where the controller keeps its files.
    pub fn controller_folder(&self) -> PathBuf {
        self.topology().folder().join("controller")
    }

    /// Where the controller answers.
    pub fn api_socket(&self) -> PathBuf {
        self.controller_folder().join(hitless_api::SOCKET_NAME)
    }

    fn save(&self) -> Result<()> {
        let path = self.topology().folder().join("state.json");
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(&self.state)?)?;
        fs::rename(new, path)?;
        Ok(())
    }

    fn build(&mut self) -> Result<()> {
        let folder = self.topology().folder();
        for part in ["bpf", "controller", "nodes", "logs", "members", "objects"] {
            fs::create_dir_all(folder.join(part))?;
        }
        rustix::mount::mount("bpf", folder.join("bpf"), "bpf", MountFlags::empty(), None)
            .context("cannot mount a file system for BPF objects")?;
        self.build_router()?;
        for (name, spoke) in [(CLIENTS, clients_spoke()), (MEMBERS, members_spoke())] {
            let namespace = Namespace::create(&self.topology().namespace(name))?;
            self.hang_on_router(&namespace, name, &spoke)?;
        }
        self.start_members()?;
        for node in self.topology().nodes.clone() {
            self.build_node(&node)?;
        }
        Ok(())
    }

    fn build_router(&self) -> Result<()> {
        let router = Namespace::create(&self.topology().namespace(ROUTER))?;
        prepare_forwarding(&router)?;
        for setting in [
            "ipv4/fib_multipath_hash_policy",
            "ipv6/fib_multipath_hash_policy",
        ] {
            router.set(setting, "1")?;
        }
        Ok(())
    }

    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        Ok(Namespace::open(&self.topology().namespace(name))?)
    }

    /// The clients' namespace.
    pub fn clients(&self) -> Result<Namespace> {
        self.namespace(CLIENTS)
    }

    fn hang_on_router(&self, namespace: &Namespace, name: &str, spoke: &Spoke) -> Result<()> {
        let router = self.namespace(ROUTER)?;
        let mut at_router = Netlink::open(&router)?;
        let mut here = Netlink::open(namespace)?;
        let port = port_name(name);
        let own = VethEnd {
            namespace,
            name: UPLINK,
            mac: None,
        };
        let other = VethEnd {
            namespace: &router,
            name: &port,
            mac: None,
        };
        at_router.add_veth(own, other, self.topology().mtu)?;
        namespace.set("ipv6/conf/all/accept_dad", "0")?;
        for (netlink, namespace, link, v4, v6) in [
            (
                &mut at_router,
                &router,
                port.as_str(),
                spoke.router_v4,
                spoke.router_v6,
            ),
            (&mut here, namespace, UPLINK, spoke.own_v4, spoke.own_v6),
        ] {
            netlink.add_address(link, v4)?;
            netlink.add_address(link, v6)?;
            // XDP loses the note that a checksum is still to be filled in.
            set_offload(namespace, link, Offload::SendChecksum, false)?;
            netlink.set_up(link)?;
        }
        // What a director transmits back to the router arrives only where a program runs; merged
        // packets would be too large to forward.
        attach_pass(&mut at_router, &port)?;
        set_offload(&router, &port, Offload::ReceiveMerge, false)?;
        for (destination, gateway) in [("0.0.0.0/0", spoke.router_v4), ("::/0", spoke.router_v6)] {
            let destination: Prefix = destination.parse()?;
            let hop = NextHop::via(UPLINK, gateway.address());
            here.replace_route(&Route::new(destination, vec![hop]))?;
        }
        Ok(())
    }

    /// Makes a node's namespace and its link, and the router's way to its guests. No packet of a
    /// client goes to it before it is announced.
    pub fn build_node(&mut self, node: &str) -> Result<()> {
        let number = match self.state.numbers.get(node) {
            Some(number) => *number,
            None => {
                let number = self.state.numbers.values().max().map_or(1, |last| last + 1);
                self.state.numbers.insert(node.to_owned(), number);
                self.save()?;
                number
            }
        };
        let namespace = Namespace::create(&self.topology().node_namespace(node))?;
        prepare_forwarding(&namespace)?;
        let spoke = node_spoke(number);
        self.hang_on_router(&namespace, node, &spoke)?;
        let mut router = Netlink::open(&self.namespace(ROUTER)?)?;
        for (network, gateway) in guests_network(number)
            .into_iter()
            .zip([spoke.own_v4, spoke.own_v6])
        {
            let hop = NextHop::via(port_name(node), gateway.address());
            router.replace_route(&Route::new(network, vec![hop]))?;
        }
        fs::create_dir_all(self.node_folder(node))?;
        Ok(())
    }

    pub fn node_folder(&self, node: &str) -> PathBuf {
        self.topology().folder().join("nodes").join(node)
    }

    /// Addresses of a node: its uplink's, and where its guests have theirs.
    pub fn node_addresses(&self, node: &str) -> Result<(Spoke, [Prefix; 2])> {
        let number = self
            .state
            .numbers
            .get(node)
            .with_context(|| format!("there is no node {node} in this lab"))?;
        Ok((node_spoke(*number), guests_network(*number)))
    }

    /// Ends all that runs on a node, in silence, and removes it: a machine that lost its power.
    pub fn destroy_node(&mut self, node: &str) -> Result<()> {
        self.withdraw(node)?;
        let mut router = Netlink::open(&self.namespace(ROUTER)?)?;
        router.delete_link(&port_name(node))?;
        // The node's agent first: one that still ran would make anew the guests that are killed.
        let own = self.topology().node_namespace(node);
        if let Ok(namespace) = Namespace::open(&own) {
            kill_all(&namespace)?;
        }
        let guests = Namespace::list(&self.topology().guest_prefix(node))?;
        for name in guests.into_iter().chain([own]) {
            if let Ok(namespace) = Namespace::open(&name) {
                kill_all(&namespace)?;
            }
            Namespace::delete(&name)?;
        }
        let bpf = self.topology().folder().join("bpf").join(node);
        let _ = fs::remove_dir_all(bpf);
        match fs::remove_dir_all(self.node_folder(node)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Lets the router send to a node.
    pub fn announce(&mut self, node: &str) -> Result<()> {
        self.node_addresses(node)?;
        if !self.state.announced.iter().any(|other| other == node) {
            self.state.announced.push(node.to_owned());
        }
        self.route_vips()
    }

    /// Takes a node out of the router's choice.
    pub fn withdraw(&mut self, node: &str) -> Result<()> {
        self.state.announced.retain(|other| other != node);
        self.route_vips()
    }

    fn route_vips(&self) -> Result<()> {
        self.save()?;
        let mut router = Netlink::open(&self.namespace(ROUTER)?)?;
        for vip in self.topology().vips() {
            let mut hops = Vec::new();
            for node in &self.state.announced {
                let (spoke, _) = self.node_addresses(node)?;
                let gateway = if vip.is_ipv6() {
                    spoke.own_v6
                } else {
                    spoke.own_v4
                };
                hops.push(NextHop::via(port_name(node), gateway.address()));
            }
            let destination = Prefix::host(vip);
            if hops.is_empty() {
                router.delete_route(destination)?;
            } else {
                router.replace_route(&Route::new(destination, hops))?;
            }
        }
        Ok(())
    }

    /// Which of the router's ports each flow leaves by: its director.
    pub fn directors_of(&self, flows: &[Flow]) -> Result<Vec<u32>> {
        let mut router = Netlink::open(&self.namespace(ROUTER)?)?;
        let arrives_at = router.link(&port_name(CLIENTS))?.index;
        flows
            .iter()
            .map(|flow| {
                Ok(router
                    .way_of_flow(arrives_at, flow.from, flow.to)?
                    .interface)
            })
            .collect()
    }

    /// Whether a native XDP program runs on a node's uplink.
    pub fn has_native_xdp(&self, node: &str) -> Result<bool> {
        let namespace = Namespace::open(&self.topology().node_namespace(node))?;
        Ok(Netlink::open(&namespace)?
            .link(UPLINK)?
            .native_xdp
            .is_some())
    }

    /// Starts a program in one of the lab's namespaces (None: where the lab itself is), as nobody's
    /// child.
    pub fn start(
        &self,
        name: &str,
        namespace: Option<&Namespace>,
        binary: &Path,
        arguments: &[String],
    ) -> Result<Process> {
        let here = Namespace::current()?;
        let logs = self.topology().folder().join("logs");
        let daemon = Daemon {
            binary,
            arguments,
            environment: &[("HITLESS_LAB".to_owned(), self.topology().id.clone())],
            namespace: namespace.unwrap_or(&here),
            cgroups: &[],
            log: &logs.join(format!("{name}.log")),
            pid_file: &logs.join(format!("{name}.pid")),
        };
        daemon
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", binary.display()))
    }

    /// The process that [`Self::start`] started under this name, if it still runs.
    pub fn process(&self, name: &str) -> Option<Process> {
        let logs = self.topology().folder().join("logs");
        Process::from_file(&logs.join(format!("{name}.pid")))
    }

    fn start_members(&self) -> Result<()> {
        let namespace = self.namespace(MEMBERS)?;
        let mut netlink = Netlink::open(&namespace)?;
        for number in 0..=self.topology().web_servers {
            for is_v6 in [false, true] {
                let address = Prefix::host(member_address(number, is_v6));
                netlink.add_address("lo", address)?;
            }
        }
        drop(netlink);
        // Addresses on loopback are reached through the router only if it knows that they are on
        // this link.
        let mut router = Netlink::open(&self.namespace(ROUTER)?)?;
        for number in 0..=self.topology().web_servers {
            for (is_v6, gateway) in [
                (false, members_spoke().own_v4),
                (true, members_spoke().own_v6),
            ] {
                let destination = Prefix::host(member_address(number, is_v6));
                let hop = NextHop::via(port_name(MEMBERS), gateway.address());
                router.replace_route(&Route::new(destination, vec![hop]))?;
            }
        }
        let objects = self.topology().folder().join("objects");
        for size in &self.topology().objects {
            let mut bytes = Vec::with_capacity(*size as usize);
            append_pattern(&mut bytes, crate::client::OBJECT_SEED, 0, *size as usize);
            fs::write(objects.join(size.to_string()), bytes)?;
        }
        let nginx = find_program("nginx")?;
        for number in 1..=self.topology().web_servers {
            let name = format!("nginx-{number}");
            let conf = self.nginx_conf(number)?;
            let arguments = ["-c".to_owned(), conf.display().to_string()];
            self.start(&name, Some(&namespace), &nginx, &arguments)?;
        }
        let mut arguments = vec!["lab".to_owned(), "server".to_owned()];
        for is_v6 in [false, true] {
            let address = std::net::SocketAddr::new(member_address(0, is_v6), STREAM_PORT);
            arguments.push(address.to_string());
        }
        let own = std::env::current_exe()?;
        self.start("stream-server", Some(&namespace), &own, &arguments)?;
        for number in 0..=self.topology().web_servers {
            let port = if number == 0 { STREAM_PORT } else { HTTP_PORT };
            let address = std::net::SocketAddr::new(member_address(number, false), port);
            await_listening(&namespace, address)?;
        }
        Ok(())
    }

    fn nginx_conf(&self, number: u16) -> Result<PathBuf> {
        let folder = self
            .topology()
            .folder()
            .join("members")
            .join(format!("nginx-{number}"));
        fs::create_dir_all(&folder)?;
        let here = folder.display();
        let objects = self.topology().folder().join("objects");
        let mut listen = String::new();
        for is_v6 in [false, true] {
            let address = std::net::SocketAddr::new(member_address(number, is_v6), HTTP_PORT);
            listen.push_str(&format!("    listen {address};\n"));
        }
        let text = format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {here}/pid;\nerror_log {here}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n  access_log off;\n  sendfile on;\n  tcp_nodelay on;\n  keepalive_timeout 3600s;\n  \
             keepalive_requests 1000000;\n  default_type application/octet-stream;\n  \
             client_body_temp_path {here}/body;\n  proxy_temp_path {here}/proxy;\n  fastcgi_temp_path {here}/fastcgi;\n  \
             uwsgi_temp_path {here}/uwsgi;\n  scgi_temp_path {here}/scgi;\n  \
             server {{\n{listen}    root {};\n  }}\n}}\n",
            objects.display()
        );
        let path = folder.join("nginx.conf");
        fs::write(&path, text)?;
        Ok(path)
    }

    /// A command that starts in the clients' namespace.
    pub fn client_command(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["lab", "client"]);
        self.clients()?.place(&mut command);
        Ok(command)
    }
}

/// Takes lab `id` down, whatever is left of it. No error if there is nothing.
pub fn down(id: &str) -> Result<()> {
    let folder = folder_of(id);
    // What runs in no namespace of the lab's has a pid file.
    if let Ok(entries) = fs::read_dir(folder.join("logs")) {
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.extension().is_some_and(|extension| extension == "pid")
                && let Some(process) = Process::from_file(&path)
            {
                process.signal(Signal::KILL)?;
                process.wait_gone(GONE_WITHIN)?;
            }
        }
    }
    for name in Namespace::list(&prefix_of(id))? {
        if let Ok(namespace) = Namespace::open(&name) {
            kill_all(&namespace)?;
        }
        Namespace::delete(&name)?;
    }
    let bpf = folder.join("bpf");
    match rustix::mount::unmount(&bpf, UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error).context("cannot unmount the lab's BPF file system"),
    }
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The ids of all labs that are up, or left.
pub fn all() -> Vec<String> {
    let mut ids: Vec<String> = fs::read_dir("/run/hitless-lab")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    ids.sort();
    ids
}

/// Takes down every lab whose owner is gone.
pub fn reap() -> Result<Vec<String>> {
    let mut reaped = Vec::new();
    for id in all() {
        let Ok(world) = World::open(&id) else {
            continue;
        };
        if let Some((pid, started_ticks)) = world.state.owner
            && !(Process { pid, started_ticks }).is_alive()
        {
            down(&id)?;
            reaped.push(id);
        }
    }
    Ok(reaped)
}

/// A guest that was killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KilledGuest {
    /// When it was cut off, on the clock that directors note their packets by: nanoseconds of
    /// `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Clients' connections that it held then.
    pub held: u64,
}

/// Takes a guest from the network and kills all that is in it: a machine that lost its power. `pid`
/// is any of its processes.
pub fn kill_guest(pid: u32) -> Result<KilledGuest> {
    let namespace = Namespace::of_process(pid)?;
    let here = Namespace::current()?;
    ensure!(
        namespace.inode()? != here.inode()?,
        "process {pid} is in no guest's namespace"
    );
    let mut netlink = Netlink::open(&namespace)?;
    // Opened while the process lives: its node's agent may end it as soon as the link is down.
    let tables = ConnectionTables::open(pid)?;
    netlink.set_down(hitless_hypervisor::GUEST_INTERFACE)?;
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Nothing comes in any more: what it holds now is what can be lost.
    let held = tables.clients()?;
    kill_all(&namespace)?;
    Ok(KilledGuest {
        at_ns: at.tv_sec.unsigned_abs() * 1_000_000_000 + at.tv_nsec.unsigned_abs(),
        held,
    })
}

/// The kernel's own lists of a namespace's TCP sockets.
struct ConnectionTables([fs::File; 2]);

impl ConnectionTables {
    /// Of the namespace of this process.
    fn open(pid: u32) -> Result<Self> {
        let open = |table: &str| {
            let path = format!("/proc/{pid}/net/{table}");
            fs::File::open(&path).with_context(|| format!("cannot read {path}"))
        };
        Ok(Self([open("tcp")?, open("tcp6")?]))
    }

    /// Clients' connections that it holds now.
    fn clients(self) -> Result<u64> {
        let mut held = 0;
        for mut table in self.0 {
            let mut text = String::new();
            table
                .read_to_string(&mut text)
                .context("cannot read a table of connections")?;
            held += text.lines().skip(1).filter(|line| is_client(line)).count() as u64;
        }
        Ok(held)
    }
}

/// Whether a line of /proc/net/tcp is a connection of a client: `number: local:port remote:port
/// state ...`.
fn is_client(line: &str) -> bool {
    const TIME_WAIT: &str = "06";
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, state) = (fields.next(), fields.nth(1));
    let port = local.and_then(|local| u16::from_str_radix(local.rsplit(':').next()?, 16).ok());
    let is_served = port.is_some_and(|port| [HTTP_PORT, STREAM_PORT].contains(&port));
    is_served && state.is_some_and(|state| ![TIME_WAIT, LISTEN].contains(&state))
}

fn kill_all(namespace: &Namespace) -> Result<()> {
    let here = Namespace::current()?;
    ensure!(
        namespace.inode()? != here.inode()?,
        "a lab's namespace is the one we are in"
    );
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        let processes: Vec<Process> = namespace
            .processes()?
            .into_iter()
            .filter_map(Process::find)
            .collect();
        if processes.is_empty() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{processes:?} are still there after they were killed"
        );
        for process in &processes {
            process.signal(Signal::KILL)?;
        }
        for process in processes {
            process.wait_gone(deadline.saturating_duration_since(Instant::now()))?;
        }
    }
}

/// Name of the router's end of the link to `name`: at most 15 bytes.
fn port_name(name: &str) -> String {
    let plain = format!("p-{name}");
    if plain.len() <= 15 {
        return plain;
    }
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("p-{}{hash:08x}", &name[..5])
}

fn prepare_forwarding(namespace: &Namespace) -> Result<()> {
    for (setting, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
    ] {
        namespace.set(setting, value)?;
    }
    Ok(())
}

fn find_program(name: &str) -> Result<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .with_context(|| format!("{name} is not installed; `cargo xtask setup` installs it"))
}

fn await_listening(namespace: &Namespace, address: std::net::SocketAddr) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let connected = namespace
            .run(|| std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)))?;
        match connected {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("nobody listens on {address}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Waits for the end of `process`, then takes lab `id` down: what `hitless lab guard` does.
pub fn guard(id: &str, pid: u32, started_ticks: u64) -> Result<()> {
    let process = Process { pid, started_ticks };
    while !process.wait_gone(Duration::from_secs(3_600))? {}
    match World::open(id) {
        Ok(world) if world.state.owner == Some((process.pid, process.started_ticks)) => down(id),
        // It was taken down, or another run owns it now.
        _ => Ok(()),
    }
}

/// Starts a process that takes the lab down when the calling process is gone, however it goes.
pub fn start_guard(world: &World) -> Result<()> {
    let own = Process::find(std::process::id()).context("cannot read the own process")?;
    let arguments = [
        "lab",
        "guard",
        &world.topology().id,
        &own.pid.to_string(),
        &own.started_ticks.to_string(),
    ]
    .map(str::to_owned);
    // Not below the lab's folder: `down` ends all that has a pid file there, and it is the guard
    // that calls it.
    let log = std::env::temp_dir().join(format!("hitless-lab-guard-{}.log", world.topology().id));
    let daemon = Daemon {
        binary: &std::env::current_exe()?,
        arguments: &arguments,
        environment: &[],
        namespace: &Namespace::current()?,
        cgroups: &[],
        log: &log,
        pid_file: &log.with_extension("pid"),
    };
    daemon.spawn().context("cannot start the lab's guard")?;
    Ok(())
}
