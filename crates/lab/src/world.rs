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
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hitless_hypervisor::{Daemon, Process};
use hitless_net::{
    Namespace, Netlink, NextHop, Offload, Prefix, Route, VethEnd, attach_pass, set_offload,
};
use rustix::mount::MountFlags;
use serde::{Deserialize, Serialize};

use crate::client::Flow;
use crate::kill;
use crate::life::{down, lock, remove, start_guard};
use crate::topology::{
    CLIENT_PORTS, HTTP_PORT, STREAM_PORT, Spoke, Topology, UPLINK, check_id, clients_spoke,
    folder_of, guests_network, member_address, members_spoke, node_spoke,
};
use crate::wire::append_pattern;

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
    /// Builds everything and starts servers; neither controller nor node agent runs yet. What a
    /// dead lab of this id left is removed first; a living one is refused.
    ///
    /// The calling process owns it: a lab whose owner has gone is taken down by its guard. It stays
    /// for good with [`Self::keep`].
    pub fn up(topology: Topology, binary: &Path) -> Result<Self> {
        topology.check()?;
        ensure!(
            rustix::process::geteuid().is_root(),
            "a lab makes network namespaces and needs root"
        );
        let binary = fs::canonicalize(binary)
            .with_context(|| format!("there is no program {}", binary.display()))?;
        let own = Process::find(std::process::id()).context("cannot read the own process")?;
        let id = topology.id.clone();
        let mut world = Self {
            state: State {
                topology,
                binary,
                owner: Some((own.pid, own.started_ticks)),
                numbers: BTreeMap::new(),
                announced: Vec::new(),
            },
        };
        {
            let _lock = lock()?;
            if let Ok(old) = Self::open(&id) {
                match old.owner() {
                    Some(owner) if owner.is_alive() => {
                        bail!("lab {id} is being run by process {}", owner.pid)
                    }
                    Some(_) => {}
                    None => bail!("lab {id} is up; `hitless lab down {id}` ends it"),
                }
            }
            remove(&id)?;
            fs::create_dir_all(world.topology().folder())?;
            world.save()?;
        }
        let built = start_guard(&world, own).and_then(|()| world.build());
        built.inspect_err(|_| {
            let _ = down(&id);
        })?;
        Ok(world)
    }

    /// From now on it stays until [`down`].
    pub fn keep(&mut self) -> Result<()> {
        self.state.owner = None;
        self.save()
    }

    /// The process that it goes with. None: it stays.
    pub(crate) fn owner(&self) -> Option<Process> {
        let (pid, started_ticks) = self.state.owner?;
        Some(Process { pid, started_ticks })
    }

    /// Finds a lab that is up.
    pub fn open(id: &str) -> Result<Self> {
        check_id(id)?;
        let path = folder_of(id).join("state.json");
        let text = fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => anyhow!("there is no lab {id}"),
            _ => anyhow!("cannot read {}: {error}", path.display()),
        })?;
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
        let (first, last) = CLIENT_PORTS;
        self.clients()?
            .set("ipv4/ip_local_port_range", &format!("{first} {last}"))?;
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
            kill::all_in(&namespace)?;
        }
        let guests = Namespace::list(&self.topology().guest_prefix(node))?;
        for name in guests.into_iter().chain([own]) {
            if let Ok(namespace) = Namespace::open(&name) {
                kill::all_in(&namespace)?;
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
