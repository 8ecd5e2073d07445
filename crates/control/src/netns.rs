//! Guests in network namespaces, and the ways to those of other nodes: the real parts of a node
//! agent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hitless_hypervisor::{
    GUEST_INTERFACE, Gateways, Guest, GuestName, GuestSpec, Hypervisor, Limits, NetnsDriver,
    Program,
};
use hitless_net::{Namespace, Netlink, Prefix, Watch};

use crate::node::guests::{GuestPlan, GuestRunner, Running};
use crate::node::ways::{Change, Underlay};
use crate::plane::Way;
use crate::{file, kernel};

/// The node's end of every guest's link.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Headers of a segment to a client, and what is put around it on its way here.
const OVERHEAD_V4: u32 = 40 + 76;
const OVERHEAD_V6: u32 = 60 + 76;

/// How long the thread that hears of changes waits at a time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Names of a guest's programs.
pub const INGRESS: &str = "ingress";
pub const MANAGER: &str = "tm";

/// Where a guest's things are.
#[derive(Clone, Debug)]
pub struct GuestFolder(PathBuf);

impl GuestFolder {
    /// Of a guest of the node whose run folder this is.
    pub fn of(run: &Path, guest: &str) -> Self {
        Self(run.join("g").join(guest))
    }

    /// A symbolic link to the program that its traffic manager runs.
    pub fn program(&self) -> PathBuf {
        self.0.join("hitless")
    }

    /// The site configuration.
    pub fn site(&self) -> PathBuf {
        self.0.join("site.yaml")
    }

    /// The traffic manager's run folder.
    pub fn manager(&self) -> PathBuf {
        self.0.join("tm")
    }

    /// What its ingress keeps.
    pub fn orders(&self) -> PathBuf {
        self.0.join("ingress.json")
    }

    /// Points the program's link at another program, at once.
    pub fn point(&self, program: &Path) -> std::io::Result<()> {
        let new = self.0.join("hitless.new");
        let _ = std::fs::remove_file(&new);
        std::os::unix::fs::symlink(program, &new)?;
        std::fs::rename(&new, self.program())
    }
}

/// How a node's guests are run.
#[derive(Clone, Debug)]
pub struct RunnerOptions {
    pub run: PathBuf,
    /// Guests' addresses are taken from these, one of each; the first address of each stays free.
    pub prefixes: Vec<Prefix>,
    pub mtu: u16,
    /// This program.
    pub program: PathBuf,
    /// Pin folder of guests' programs.
    pub pins: PathBuf,
}

/// Runs guests by the driver `netns`.
#[derive(Debug)]
pub struct NetnsRunner {
    driver: NetnsDriver,
    options: RunnerOptions,
}

impl NetnsRunner {
    /// Runs guests by this driver.
    pub fn new(driver: NetnsDriver, options: RunnerOptions) -> Self {
        Self { driver, options }
    }

    /// The guest's number on this node, by which it gets its addresses: kept, so that they stay.
    fn number(&self, name: &str) -> Result<u32, String> {
        let path = self.options.run.join("numbers.json");
        let mut numbers: BTreeMap<String, u32> = file::read_json(&path).unwrap_or_default();
        if let Some(number) = numbers.get(name) {
            return Ok(*number);
        }
        // Numbers rise as long as they can: an address is used again as late as possible.
        let number = numbers.values().max().map_or(10, |highest| highest + 1);
        numbers.insert(name.to_owned(), number);
        file::write_json(&path, &numbers)
            .map_err(|error| format!("cannot keep numbers: {error}"))?;
        Ok(number)
    }

    fn spec(&self, plan: &GuestPlan) -> Result<GuestSpec, String> {
        let folder = GuestFolder::of(&self.options.run, &plan.name);
        let number = self.number(&plan.name)?;
        let addresses = self.options.prefixes.iter().map(|prefix| {
            let address = prefix
                .nth(number)
                .ok_or_else(|| format!("{prefix} has no address left"))?;
            Ok(Prefix::host(address))
        });
        let text = |path: &Path| path.display().to_string();
        let mtu = u32::from(self.options.mtu);
        let program = |name: &str, binary: PathBuf, arguments: Vec<String>| Program {
            name: name.to_owned(),
            binary,
            arguments,
            environment: Vec::new(),
            is_limited: name != INGRESS,
        };
        let ingress = vec![
            "ingress".into(),
            "--name".into(),
            plan.name.clone(),
            "--orders".into(),
            text(&folder.orders()),
            "--agent".into(),
            text(&self.options.run.join(crate::node::GUEST_SOCKET)),
            "--pins".into(),
            text(&self.options.pins),
        ];
        let manager = vec![
            "tm".into(),
            "--file".into(),
            text(&folder.site()),
            "--run-dir".into(),
            text(&folder.manager()),
        ];
        Ok(GuestSpec {
            name: GuestName::new(plan.name.clone())?,
            addresses: addresses.collect::<Result<_, String>>()?,
            vips: plan.vips.clone(),
            gateways: Gateways {
                v4: Some(GATEWAY_V4),
                v6: Some(GATEWAY_V6),
            },
            mtu,
            advertised_mss_v4: Some(mtu - OVERHEAD_V4),
            advertised_mss_v6: Some(mtu - OVERHEAD_V6),
            limits: Limits::default(),
            programs: vec![
                program(INGRESS, self.options.program.clone(), ingress),
                program(MANAGER, folder.program(), manager),
            ],
        })
    }

    /// None: it is gone by now.
    fn running(&self, guest: &Guest) -> Result<Option<Running>, String> {
        let namespace = match Namespace::open(&guest.namespace) {
            Err(error) if error.is_not_there() => return Ok(None),
            other => other.map_err(|error| chain(&error))?,
        };
        let boot = kernel::boot_of(&namespace).map_err(|error| chain(&error))?;
        let pid = |name: &str| {
            let program = guest.programs.iter().find(|program| program.name == name)?;
            Some(program.process.as_ref()?.pid)
        };
        Ok(Some(Running {
            name: guest.spec.name.as_str().to_owned(),
            boot,
            addresses: guest
                .spec
                .addresses
                .iter()
                .map(|prefix| prefix.address())
                .collect(),
            interface: GUEST_INTERFACE.to_owned(),
            mac: guest.mac,
            node_mac: guest.node_mac,
            ifindex: guest.node_interface_index,
            mtu: self.options.mtu,
            ingress_pid: pid(INGRESS),
            keeper_pid: pid(MANAGER),
            is_dead: !guest.is_link_up,
        }))
    }
}

impl GuestRunner for NetnsRunner {
    fn list(&self) -> Result<Vec<Running>, String> {
        let guests = self.driver.list().map_err(|error| chain(&error))?;
        let running = guests.iter().map(|guest| self.running(guest).transpose());
        running.flatten().collect()
    }

    fn ensure(&self, plan: &GuestPlan) -> Result<(), String> {
        let name = GuestName::new(plan.name.clone())?;
        let folder = GuestFolder::of(&self.options.run, &plan.name);
        let io = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| format!("cannot {what}: {error}")
        };
        let spec = self.spec(plan)?;
        let guests = self.driver.list().map_err(|error| chain(&error))?;
        let known = guests.iter().find(|guest| guest.spec.name == name);
        if known.is_none() {
            // What is left of a guest that was here before is not this one.
            self.destroy(&plan.name)?;
            std::fs::create_dir_all(&folder.0).map_err(io("make the guest's folder"))?;
            let program = plan
                .manager
                .as_ref()
                .map_or(self.options.program.clone(), PathBuf::from);
            folder.point(&program).map_err(io("point to the program"))?;
            file::write(&folder.site(), plan.site.as_bytes()).map_err(io("write the site file"))?;
        }
        if known.is_none_or(|guest| guest.spec != spec) {
            self.driver.create(&spec).map_err(|error| chain(&error))?;
        }
        if known.is_none_or(|guest| guest.spec != spec || !guest.is_running()) {
            self.driver.start(&name).map_err(|error| chain(&error))?;
        }
        Ok(())
    }

    fn destroy(&self, name: &str) -> Result<(), String> {
        let guest = GuestName::new(name)?;
        self.driver.destroy(&guest).map_err(|error| chain(&error))?;
        // Pins of the guest's programs go with it: a new kernel has new ones.
        remove_pins(&self.options.pins, name);
        let _ = std::fs::remove_dir_all(GuestFolder::of(&self.options.run, name).0);
        Ok(())
    }
}

/// The pin folder of one boot of a guest.
pub fn guest_pins(pins: &Path, name: &str, boot: u64) -> PathBuf {
    pins.join(format!("guest-{name}-{boot:016x}"))
}

/// Removes the pins of all boots of a guest.
fn remove_pins(pins: &Path, name: &str) {
    let prefix = format!("guest-{name}-");
    let Ok(entries) = std::fs::read_dir(pins) else {
        return;
    };
    for entry in entries.flatten() {
        let boot = entry
            .file_name()
            .to_str()
            .and_then(|found| found.strip_prefix(&prefix).map(str::len));
        if boot == Some(16) {
            // Where it fails, a folder without use stays behind until the next reboot.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The kernel's routes and neighbours.
#[derive(Debug)]
pub struct KernelUnderlay {
    netlink: Netlink,
    /// The node's own address.
    source: IpAddr,
}

impl KernelUnderlay {
    /// Of the network namespace that this thread is in.
    pub fn open(source: IpAddr) -> Result<Self, String> {
        let netlink = Netlink::here().map_err(|error| chain(&error))?;
        Ok(Self { netlink, source })
    }

    fn way(
        &mut self,
        destination: IpAddr,
        neighbours: &BTreeMap<(u32, IpAddr), [u8; 6]>,
        links: &BTreeMap<u32, ([u8; 6], u16)>,
    ) -> Option<Way> {
        let way = self.netlink.way_to(destination).ok()?;
        let next = way.gateway.unwrap_or(destination);
        let (source_mac, mtu) = *links.get(&way.interface)?;
        let Some(mac) = neighbours.get(&(way.interface, next)) else {
            // A packet makes the kernel ask for it; the port discards.
            if let Ok(socket) = UdpSocket::bind(SocketAddr::new(self.source, 0)) {
                let _ = socket.send_to(&[], SocketAddr::new(next, 9));
            }
            return None;
        };
        Some(Way {
            source: self.source,
            destination,
            mac: *mac,
            source_mac,
            ifindex: way.interface,
            mtu,
        })
    }
}

impl Underlay for KernelUnderlay {
    fn watch(&self, tell: Box<dyn Fn(Change) -> bool + Send>) {
        // Opened by this thread: the namespace is the one that it is in.
        let mut watch = match Watch::here() {
            Ok(watch) => watch,
            Err(error) => {
                let error = chain(&error);
                return tracing::warn!(error, "changes of the network are found by looking only");
            }
        };
        std::thread::spawn(move || {
            loop {
                let changes = match watch.next(LOOK_AGAIN) {
                    Ok(changes) => changes,
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "cannot hear of changes for now");
                        std::thread::sleep(LOOK_AGAIN);
                        vec![hitless_net::Change::Lost]
                    }
                };
                for change in changes {
                    let change = match change {
                        hitless_net::Change::Link { index, is_running } => Change::Link {
                            ifindex: index,
                            is_running,
                        },
                        hitless_net::Change::LinkGone { index } => Change::Link {
                            ifindex: index,
                            is_running: false,
                        },
                        hitless_net::Change::Neighbour
                        | hitless_net::Change::Route
                        | hitless_net::Change::Lost => Change::Ways,
                    };
                    if !tell(change) {
                        return;
                    }
                }
            }
        });
    }

    fn ways(&mut self, to: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Way> {
        let neighbours = self.netlink.neighbours().unwrap_or_default();
        let neighbours = neighbours
            .into_iter()
            .filter_map(|neighbour| {
                Some(((neighbour.interface, neighbour.address), neighbour.mac?))
            })
            .collect();
        let links = self.netlink.links().unwrap_or_default();
        let links = links
            .into_iter()
            .filter_map(|link| {
                Some((
                    link.index,
                    (link.mac?, u16::try_from(link.mtu).unwrap_or(u16::MAX)),
                ))
            })
            .collect();
        to.iter()
            .filter_map(|address| Some((*address, self.way(*address, &neighbours, &links)?)))
            .collect()
    }
}
