//! Two nodes in network namespaces, with a router and clients: what tests of a whole cluster share.

#![allow(dead_code, reason = "not every test uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]
#![allow(unreachable_pub, reason = "a module of tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hitless_api::{BlockingClient, ChangeState, Order};
use hitless_harness::needs;
use hitless_net::{
    Namespace, Netlink, NextHop, Offload, Prefix, Route, VethEnd, attach_pass, set_offload,
};

/// One machine's cores are not enough for two of these at a time.
static ALONE: Mutex<()> = Mutex::new(());

const PATIENCE: Duration = Duration::from_secs(60);
pub const VIP: &str = "203.0.113.10:80";
pub const WEB: &str = "203.0.113.10:8080";
const SITE: &str = "
pools:
  echo:
    members: [10.9.0.2:9001]
  web:
    members: [10.9.0.2:9002]
virtual_servers:
  raw: { listen: 203.0.113.10:80, protocol: tcp, pool: echo }
  web: { listen: 203.0.113.10:8080, protocol: http, pool: web }
";

/// The whole machinery; taken down when it goes, also in a panic.
pub struct Bench {
    prefix: String,
    pub folder: tempfile::TempDir,
    pub controller: Option<Child>,
    pub nodes: [Option<Child>; 2],
    pub client: Namespace,
    router: Namespace,
    pub api: BlockingClient,
    _alone: MutexGuard<'static, ()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let children = self
            .nodes
            .iter_mut()
            .chain([&mut self.controller])
            .filter_map(Option::take);
        children.for_each(kill);
        for name in Namespace::list(&self.prefix).unwrap_or_default() {
            if let Ok(namespace) = Namespace::open(&name) {
                for pid in namespace.processes().unwrap_or_default() {
                    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            let _ = Namespace::delete(&name);
        }
        for node in ["pins1", "pins2"] {
            let pins = self.folder.path().join(node);
            let _ = rustix::mount::unmount(&pins, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

pub fn kill(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// A link between two namespaces, both ends with an address and up.
fn link(one: (&Namespace, &str, &str), other: (&Namespace, &str, &str)) {
    let mut netlink = Netlink::open(one.0).unwrap();
    let ends = [one, other].map(|(namespace, name, _)| VethEnd {
        namespace,
        name,
        mac: None,
    });
    netlink.add_veth(ends[0], ends[1], 1_600).unwrap();
    for (namespace, name, address) in [one, other] {
        let mut netlink = Netlink::open(namespace).unwrap();
        netlink.add_address(name, prefix(address)).unwrap();
        netlink.set_up(name).unwrap();
        netlink.set_up("lo").unwrap();
        set_offload(namespace, name, Offload::SendChecksum, false).unwrap();
    }
}

fn route(namespace: &Namespace, to: &str, interface: &str, gateway: &str) {
    let hop = NextHop::via(interface, gateway.parse().unwrap());
    Netlink::open(namespace)
        .unwrap()
        .replace_route(&Route::new(prefix(to), vec![hop]))
        .unwrap();
}

impl Bench {
    /// Clients, a router and two nodes without an agent. None: this is not root, which is said.
    #[track_caller]
    pub fn new() -> Option<Self> {
        if !needs::root() {
            return None;
        }
        // A test that panicked has left nothing of this behind.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("hlct{}-", std::process::id());
        let namespace = |role: &str| Namespace::create(&format!("{name}{role}")).unwrap();
        let (client, router) = (namespace("c"), namespace("r"));
        let folder = tempfile::tempdir().unwrap();
        let api = BlockingClient::new(folder.path().join("c").join(hitless_api::SOCKET_NAME));
        let bench = Self {
            prefix: name.clone(),
            folder,
            controller: None,
            nodes: [None, None],
            client,
            router,
            api,
            _alone: alone,
        };
        link(
            (&bench.client, "eth0", "10.9.0.2/24"),
            (&bench.router, "c", "10.9.0.1/24"),
        );
        route(&bench.client, "0.0.0.0/0", "eth0", "10.9.0.1");
        bench.router.set("ipv4/ip_forward", "1").unwrap();
        for number in [1, 2] {
            let node = namespace(&format!("n{number}"));
            let (here, there) = (format!("10.8.{number}.2"), format!("10.8.{number}.1"));
            let interface = format!("n{number}");
            link(
                (&node, "up0", &format!("{here}/24")),
                (&bench.router, &interface, &format!("{there}/24")),
            );
            // What the director sends back out of its uplink arrives only at a peer with a program.
            attach_pass(&mut Netlink::open(&bench.router).unwrap(), &interface).unwrap();
            route(&node, "0.0.0.0/0", "up0", &there);
            route(
                &bench.router,
                &format!("10.1.{number}.0/24"),
                &interface,
                &here,
            );
        }
        bench.direct_by(1);
        Some(bench)
    }

    /// Starts all roles, with the site, both nodes, and these guests on the nodes of their number.
    pub fn start(&mut self, guests: &[&str]) {
        serve_echo(&self.client);
        serve_web(&self.client);
        self.start_controller();
        self.until("answering", || self.api.status().ok());
        self.api.put_site(SITE).unwrap();
        for number in [1, 2] {
            self.start_node(number);
            self.done(Order::AddNode {
                node: format!("n{number}"),
            });
        }
        for (guest, number) in guests.iter().zip([1, 2].into_iter().cycle()) {
            self.add_guest(guest, number);
        }
    }

    pub fn add_guest(&self, guest: &str, number: u8) {
        self.done(Order::AddGuest {
            guest: guest.into(),
            node: format!("n{number}"),
        });
    }

    /// A guest's network namespace.
    pub fn namespace_of(&self, node: &str, guest: &str) -> Namespace {
        Namespace::open(&format!("{}{node}g-{guest}", self.prefix)).unwrap()
    }

    /// The command, as an operator gives it.
    pub fn hitless(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hitless"));
        command
            .args(arguments)
            .env("HITLESS_CONTROLLER", self.folder.path().join("c"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// What all roles have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The router sends packets for the VIP to this node alone.
    pub fn direct_by(&self, number: u8) {
        route(
            &self.router,
            "203.0.113.10/32",
            &format!("n{number}"),
            &format!("10.8.{number}.2"),
        );
    }

    fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hitless"));
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap());
        command
    }

    pub fn start_controller(&mut self) {
        let mut command = self.program();
        command
            .arg("controller")
            .arg("--run-dir")
            .arg(self.folder.path().join("c"));
        self.controller = Some(command.spawn().unwrap());
    }

    pub fn start_node(&mut self, number: u8) {
        let namespace = Namespace::open(&format!("{}n{number}", self.prefix)).unwrap();
        let path = |name: String| self.folder.path().join(name);
        let mut command = self.program();
        command.args([
            "node",
            "--name",
            &format!("n{number}"),
            "--uplink",
            "up0",
            "--mtu",
            "1600",
        ]);
        command.args([
            "--address",
            &format!("10.8.{number}.2"),
            "--guest-prefix",
            &format!("10.1.{number}.0/24"),
        ]);
        command.arg("--run-dir").arg(path(format!("n{number}")));
        command.arg("--pins").arg(path(format!("pins{number}")));
        command.arg("--controller").arg(path("c/nodes.sock".into()));
        command.args(["--guest-namespaces", &format!("{}n{number}g-", self.prefix)]);
        let child = namespace.place(&mut command).spawn().unwrap();
        self.nodes[usize::from(number) - 1] = Some(child);
    }

    pub fn until<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if begun.elapsed() > PATIENCE {
                panic!("not {what}: {:#?}\n{}", self.api.status(), self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn settled(&self) {
        self.until("settled", || {
            self.api.status().ok().filter(|status| status.settled)
        });
    }

    pub fn done(&self, order: Order) {
        let change = self.api.order(&order).unwrap().change;
        self.until(&change, || {
            let change = self.api.change(&change).ok()?;
            assert_ne!(change.state, ChangeState::Failed, "{change:?}");
            (change.state == ChangeState::Done).then_some(())
        });
        self.settled();
    }
}

/// A client that sends and checks bytes until it is told to stop.
pub struct Stream {
    /// Its own address, as the cluster sees it.
    pub from: SocketAddr,
    pub thread: std::thread::JoinHandle<std::io::Result<u64>>,
}

pub fn stream(
    client: &Namespace,
    number: u64,
    stop: &Arc<AtomicBool>,
    turns: &Arc<AtomicU64>,
) -> Stream {
    let mut socket = client.run(|| TcpStream::connect(VIP).unwrap()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let from = socket.local_addr().unwrap();
    let (stop, turns) = (Arc::clone(stop), Arc::clone(turns));
    let thread = std::thread::spawn(move || {
        let mut turn = 0;
        while !stop.load(Ordering::Relaxed) {
            let message = format!("{number:08}{turn:08}");
            socket.write_all(message.as_bytes())?;
            let mut answer = [0; 16];
            socket.read_exact(&mut answer)?;
            assert_eq!(answer, message.as_bytes());
            turn += 1;
            turns.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(turn)
    });
    Stream { from, thread }
}

pub fn serve_echo(client: &Namespace) {
    let listener = client
        .run(|| TcpListener::bind("10.9.0.2:9001").unwrap())
        .unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reading = socket.try_clone().unwrap();
                let _ = std::io::copy(&mut reading, &mut socket);
            });
        }
    });
}

/// A member that answers every request with two bytes.
fn serve_web(client: &Namespace) {
    let listener = client
        .run(|| TcpListener::bind("10.9.0.2:9002").unwrap())
        .unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            std::thread::spawn(move || {
                while read_head(&mut socket).is_ok() {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if socket.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Reads up to the empty line behind a head.
fn read_head(socket: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).to_lowercase())
}

/// A client of the web server that keeps its connection.
pub struct WebClient(TcpStream);

impl WebClient {
    pub fn connect(client: &Namespace) -> Self {
        let socket = client.run(|| TcpStream::connect(WEB).unwrap()).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Self(socket)
    }

    /// Asks once; whether the answer tells it to close.
    pub fn ask(&mut self) -> bool {
        self.0
            .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            .unwrap();
        let head = read_head(&mut self.0).unwrap();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        let mut body = [0; 2];
        self.0.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"ok");
        head.contains("connection: close")
    }

    /// Whether the other side has ended it cleanly.
    pub fn is_at_end(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

pub fn pid_in(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path)
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}
