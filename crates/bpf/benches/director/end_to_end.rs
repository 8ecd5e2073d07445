//! What the look-up costs a message, end to end: the ingress on a real interface before a real
//! server.
//!
//! client -- node with the director -- guest with the ingress and an echo server. The guest's side
//! (the thread in which the kernel receives, and the server's) has a core of its own; all else has
//! the other. Three programs are swapped on the guest's interface: *a* takes the encapsulation off,
//! *b* is the ingress without its look-up, *c* the ingress. A round runs each behind each other, so
//! that what drifts or lingers meets all alike, and a figure is the median of the rounds' differences. Messages are
//! 64 bytes and their echoes, 66 at a time, over all connections in random order.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio, id};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hitless_bpf::{AddressKind, AttachMode, Director, Hop, Identity, Ingress, Vni};
use hitless_harness::figures::{Figure, median};
use hitless_net::{Namespace, Netlink, Offload, attach_pass, set_offload};
use libbpf_rs::libbpf_sys;
use rustix::event::epoll;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_setaffinity};

use crate::put_first;
use crate::scene::{KEY, VNI, all_to_one, slot};
use crate::wrapped::Bench;

const CONNECTIONS: [usize; 2] = [16, 16_384];
const VIP: &str = "192.0.2.80:443";
const MESSAGE: usize = 64;
const IN_FLIGHT: usize = 66;
/// 66 at a time: some 10 ms a program.
const BATCHES: usize = 30;
/// Before those, behind a change of program.
const WARM_UP: usize = 5;
/// Twelve programs each, for few and for many connections: 20 and 60 s. The more there are, the more
/// a message's price varies.
const ROUNDS: [usize; 2] = [48, 144];
/// A round, and then the next: each program comes behind each other twice and never behind itself,
/// for messages behind a change cost more.
const ORDER: [usize; 12] = [0, 1, 2, 0, 2, 1, 0, 2, 1, 2, 0, 1];
const GUEST_CORE: usize = 1;
const OTHER_CORE: usize = 0;

/// Namespaces of this process, with all that is in them. Named, so that `ip` finds them.
struct Namespaces;

impl Namespaces {
    fn new() -> Result<Self> {
        let all = Self;
        for role in ["client", "node", "guest"] {
            ip(&format!("netns add {}", name(role)))?;
        }
        Ok(all)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for role in ["client", "node", "guest"] {
            let _ = ip(&format!("netns delete {}", name(role)));
        }
    }
}

fn name(role: &str) -> String {
    format!("hlbench-{}-{role}", id())
}

/// An interface's name, which the thread that receives for it has in its own.
fn interface(letter: char) -> String {
    format!("{letter}{}", id())
}

fn ip(arguments: &str) -> Result<()> {
    run(Command::new("ip").args(arguments.split_whitespace()))
}

fn ip_in(role: &str, arguments: &str) -> Result<()> {
    ip(&format!("-n {} {arguments}", name(role)))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{command:?}: not found"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Runs `work` on a thread in a namespace.
fn within<T: Send>(role: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            enter(role)?;
            work()
        });
        worker.join().expect("the work does not panic")
    })
}

fn enter(role: &str) -> Result<()> {
    enter_named(&name(role))
}

fn enter_named(namespace: &str) -> Result<()> {
    let file = File::open(Path::new("/run/netns").join(namespace))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

fn pin(thread: Option<u32>, core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    let pid = thread.and_then(|number| rustix::process::Pid::from_raw(number as i32));
    Ok(sched_setaffinity(pid, &cores)?)
}

/// Makes the kernel receive for an interface in a thread of its own, and that on `core`.
fn receive_on(role: &str, interface: &str, core: usize) -> Result<u32> {
    let write = format!("echo 1 > /sys/class/net/{interface}/threaded");
    run(Command::new("ip").args(["netns", "exec", &name(role), "sh", "-c", &write]))?;
    let prefix = format!("napi/{interface}-");
    for entry in fs::read_dir("/proc")? {
        let entry = entry?.path();
        let Ok(comm) = fs::read_to_string(entry.join("comm")) else {
            continue;
        };
        if comm.starts_with(&prefix) {
            let number = entry
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            let number = number.context("a process has a number")?;
            pin(Some(number), core)?;
            put_first(number);
            return Ok(number);
        }
    }
    bail!("no thread receives for {interface}")
}

fn index(role: &str, interface: &str) -> Result<(u32, [u8; 6])> {
    let output = Command::new("ip")
        .args(["-n", &name(role), "-j", "link", "show", interface])
        .output()?;
    let links: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let mac = links[0]["address"]
        .as_str()
        .context("a link has an address")?;
    let mut bytes = [0; 6];
    for (byte, text) in bytes.iter_mut().zip(mac.split(':')) {
        *byte = u8::from_str_radix(text, 16)?;
    }
    let index = links[0]["ifindex"]
        .as_u64()
        .context("a link has an index")?;
    Ok((index as u32, bytes))
}

/// Nanoseconds on a core, of a thread that is not running now.
fn used_ns(thread: &Path) -> Result<u64> {
    let text = fs::read_to_string(thread.join("schedstat"))
        .context("this kernel keeps no times of threads (CONFIG_SCHED_INFO)")?;
    let first = text.split_whitespace().next();
    first
        .and_then(|word| word.parse().ok())
        .context("schedstat begins with a number")
}

pub(crate) fn measure(pins: &Path, figures: &mut Vec<Figure>) -> Result<()> {
    if thread::available_parallelism()?.get() < 2 {
        eprintln!("end to end: not measured, it needs two cores");
        return Ok(());
    }
    let most = getrlimit(Resource::Nofile).maximum;
    let wanted = CONNECTIONS[1] as u64 + 1_000;
    if most.is_none_or(|most| most >= wanted) {
        let limit = Rlimit {
            current: Some(wanted),
            maximum: most,
        };
        setrlimit(Resource::Nofile, limit)?;
    }
    let _namespaces = Namespaces::new()?;
    let [client, uplink, port, guest] = ['c', 'u', 'p', 'g'].map(interface);
    ip(&format!(
        "link add {client} netns {} type veth peer name {uplink} netns {}",
        name("client"),
        name("node")
    ))?;
    ip(&format!(
        "link add {port} netns {} type veth peer name {guest} netns {}",
        name("node"),
        name("guest")
    ))?;
    for (role, interface, address) in [
        ("client", &client, "10.1.0.1/24"),
        ("node", &uplink, "10.1.0.254/24"),
        ("node", &port, "10.2.0.254/24"),
        ("guest", &guest, "10.2.0.1/24"),
    ] {
        ip_in(role, &format!("addr add {address} dev {interface}"))?;
        ip_in(role, &format!("link set {interface} up"))?;
    }
    ip_in("guest", "link set lo up")?;
    ip_in("guest", "addr add 192.0.2.80/32 dev lo")?;
    ip_in("client", "route add default via 10.1.0.254 advmss 1340")?;
    ip_in("guest", "route add default via 10.2.0.254 advmss 1340")?;
    // XDP loses the note that a checksum is still to be filled in.
    let at_client = Namespace::open(&name("client"))?;
    let at_node = Namespace::open(&name("node"))?;
    set_offload(&at_client, &client, Offload::SendChecksum, false)?;
    within("node", || {
        Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?)
    })?;
    within("client", || {
        let setting = "/proc/sys/net/ipv4/ip_local_port_range";
        Ok(fs::write(setting, "1024 65000")?)
    })?;

    let pins = pins.join("end-to-end");
    fs::create_dir(&pins)?;
    let vni = Vni::new(VNI)?;
    let director = Director::open(&pins)?;
    director.set_cluster(vni, KEY, NonZeroU16::MIN)?;
    let vip: SocketAddr = VIP.parse()?;
    director.set_address(vip.ip(), vni, AddressKind::Vip)?;
    director.set_rows(vni, &all_to_one()?)?;
    let (port_index, port_mac) = index("node", &port)?;
    let (guest_index, guest_mac) = index("guest", &guest)?;
    let hop = Hop {
        source: "10.2.0.254".parse()?,
        destination: "10.2.0.1".parse()?,
        mac: guest_mac,
        source_mac: port_mac,
        ifindex: Some(port_index),
        mtu: Some(1_500),
    };
    director.set_guest(vni, slot(1), &hop)?;
    let (uplink_index, _) = index("node", &uplink)?;
    attach_pass(&mut Netlink::open(&at_client)?, &client)?;
    attach_pass(&mut Netlink::open(&at_node)?, &port)?;
    let mode = within("node", || Ok(director.attach(uplink_index)?))?;
    let identity = Identity {
        vni,
        key: KEY,
        slot: slot(1),
    };
    let ingress = Ingress::open(&pins, identity)?;
    ingress.set_address(vip.ip(), AddressKind::Vip)?;
    ingress.set_rows(&all_to_one()?);
    if mode != AttachMode::Native
        || within("guest", || Ok(ingress.attach(guest_index)?))? != AttachMode::Native
    {
        bail!("programs do not run in the driver here");
    }
    receive_on("client", &client, OTHER_CORE)?;
    receive_on("node", &uplink, OTHER_CORE)?;
    receive_on("node", &port, OTHER_CORE)?;
    let receiver = receive_on("guest", &guest, GUEST_CORE)?;

    let tables = crate::tables_in(&pins, "ingress")?;
    let bench = Bench::load(
        include_bytes!(concat!(env!("OUT_DIR"), "/bench_ingress.bpf.o")),
        &tables,
    )?;
    let product = open_pinned(&tables.join("programs/ingress"))?;
    let link = open_pinned(&pins.join(format!("ingress/links/ingress-{guest_index}")))?;
    let programs = [
        bench.program("bench_decapsulate")?,
        bench.program("bench_without_look_up")?,
        product,
    ];
    for (connections, rounds) in CONNECTIONS.into_iter().zip(ROUNDS) {
        let rig = Rig::new(vip, connections, receiver)?;
        figures.extend(rig.measure(&link, &programs, rounds)?);
    }
    Ok(())
}

fn open_pinned(path: &Path) -> Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    use std::os::unix::ffi::OsStrExt as _;
    let text = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the string lives until the call returns.
    let fd = unsafe { libbpf_sys::bpf_obj_get(text.as_ptr()) };
    if fd < 0 {
        bail!("{}: {}", path.display(), std::io::Error::last_os_error());
    }
    // SAFETY: the call has made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The echo server: a process of its own, since both ends' descriptors may be more than one may
/// have.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The argument that makes this program the echo server; a namespace and a number of connections
/// follow.
pub(crate) const ECHO: &str = "echo-server";

pub(crate) fn serve(arguments: &[String]) -> Result<()> {
    let [namespace, connections] = arguments else {
        bail!("a namespace and a number of connections are needed");
    };
    enter_named(namespace)?;
    pin(None, GUEST_CORE)?;
    let listener = TcpListener::bind(VIP)?;
    std::io::stdout().write_all(b"\n")?;
    std::io::stdout().flush()?;
    echo(&listener, connections.parse()?)
}

/// Open connections, and where their receiver's time is read.
struct Rig {
    streams: Vec<TcpStream>,
    receiver: String,
    server: Server,
    random: std::cell::Cell<u64>,
}

impl Rig {
    fn new(vip: SocketAddr, connections: usize, receiver: u32) -> Result<Self> {
        let mut server = Command::new(std::env::current_exe()?)
            .args([ECHO, &name("guest"), &connections.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the echo server")?;
        let mut ready = [0];
        let output = server.stdout.as_mut().context("it has an output")?;
        let is_ready = output.read_exact(&mut ready);
        // It ends with its connections, or before it has any if it is killed.
        let server = Server(server);
        is_ready.context("the echo server did not start")?;
        let streams = within("client", || {
            (0..connections)
                .map(|_| {
                    let stream = TcpStream::connect_timeout(&vip, Duration::from_secs(10))?;
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                    Ok(stream)
                })
                .collect::<Result<Vec<_>>>()
        })
        .context("connections through the programs")?;
        Ok(Self {
            streams,
            receiver: format!("/proc/{receiver}"),
            server,
            random: 1.into(),
        })
    }

    fn measure(
        &self,
        link: &OwnedFd,
        programs: &[OwnedFd; 3],
        rounds: usize,
    ) -> Result<[Figure; 2]> {
        pin(None, OTHER_CORE)?;
        let mut costs: [Vec<f64>; 3] = Default::default();
        for round in 0..rounds + 1 {
            let mut both = [0.0; 3];
            for which in ORDER {
                replace(link, &programs[which])?;
                both[which] += self.message_ns()? / 4.0;
            }
            // The first one warms up.
            if round > 0 {
                for (costs, cost) in costs.iter_mut().zip(both) {
                    costs.push(cost);
                }
            }
        }
        let [a, b, c] = costs;
        let difference =
            |of: &[f64], to: &[f64]| sorted(of.iter().zip(to).map(|(of, to)| of - to).collect());
        let whole = difference(&c, &a);
        let look_up = difference(&c, &b);
        let plain = median(a);
        let percent = |value: f64| 100.0 * value / plain;
        let connections = self.streams.len();
        let share = percent(whole[whole.len() / 2]);
        eprintln!(
            "end to end, {connections} connections: a {plain:.0} ns a message; c - a {}; c - b {}",
            quartiles(&whole),
            quartiles(&look_up)
        );
        Ok([
            Figure::new(
                format!("ingress over decapsulation, {connections} connections"),
                "%",
                share,
            )
            .beside("ns a message", plain)
            .goal("<= 4 % of a message", share <= 4.0),
            Figure::new(
                format!("its look-up alone, {connections} connections"),
                "%",
                percent(look_up[look_up.len() / 2]),
            )
            .beside("ns", look_up[look_up.len() / 2]),
        ])
    }

    /// The receiving side's time for a message, in nanoseconds.
    fn message_ns(&self) -> Result<f64> {
        for _ in 0..WARM_UP {
            self.batch()?;
        }
        let before = self.used_ns()?;
        for _ in 0..BATCHES {
            self.batch()?;
        }
        Ok((self.used_ns()? - before) as f64 / (BATCHES * IN_FLIGHT) as f64)
    }

    fn batch(&self) -> Result<()> {
        let mut message = [0x5a; MESSAGE];
        let chosen: [usize; IN_FLIGHT] = std::array::from_fn(|_| {
            let mut random = self.random.get();
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            self.random.set(random);
            random as usize % self.streams.len()
        });
        for stream in chosen {
            (&self.streams[stream]).write_all(&message)?;
        }
        for stream in chosen {
            (&self.streams[stream]).read_exact(&mut message)?;
        }
        Ok(())
    }

    fn used_ns(&self) -> Result<u64> {
        Ok(used_ns(Path::new(&self.receiver))?
            + used_ns(&Path::new("/proc").join(self.server.0.id().to_string()))?)
    }
}

fn replace(link: &OwnedFd, program: &OwnedFd) -> Result<()> {
    // SAFETY: both descriptors live until the call returns; no options are given.
    let result = unsafe {
        libbpf_sys::bpf_link_update(link.as_raw_fd(), program.as_raw_fd(), std::ptr::null())
    };
    if result != 0 {
        bail!(
            "cannot swap the program: {}",
            std::io::Error::from_raw_os_error(-result)
        );
    }
    Ok(())
}

/// Takes `connections`, then echoes until all of them have ended.
fn echo(listener: &TcpListener, connections: usize) -> Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut streams = Vec::new();
    for number in 0..connections {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&poll, &stream, data, epoll::EventFlags::IN)?;
        streams.push(Some(stream));
    }
    let mut left = connections;
    let mut events = Vec::with_capacity(IN_FLIGHT);
    let mut bytes = [0; 16 * MESSAGE];
    while left > 0 {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let number = event.data.u64() as usize;
            let Some(mut stream) = streams[number].as_ref() else {
                continue;
            };
            match stream.read(&mut bytes) {
                Ok(length @ 1..) => stream.write_all(&bytes[..length])?,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => {
                    streams[number] = None;
                    left -= 1;
                }
            }
        }
    }
    Ok(())
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn quartiles(sorted: &[f64]) -> String {
    let at = |part: usize| sorted[sorted.len() * part / 4];
    format!("{:.0} ({:.0} to {:.0}) ns", at(2), at(1), at(3))
}
