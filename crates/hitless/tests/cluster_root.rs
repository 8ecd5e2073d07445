//! Two nodes and two guests in network namespaces, with the real programs: connections live on
//! while guests are added and drained, agents, ingresses and the controller are killed, and packets
//! change their director. Needs root; says so and passes without.

#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hitless_api::{BlockingClient, ChangeState, Order};
use hitless_net::{
    Namespace, Netlink, NextHop, Offload, Prefix, Route, VethEnd, attach_pass, set_offload,
};

const PATIENCE: Duration = Duration::from_secs(60);
const VIP: &str = "203.0.113.10:80";
const SITE: &str = "
pools:
  echo:
    members: [10.9.0.2:9001]
virtual_servers:
  raw: { listen: 203.0.113.10:80, protocol: tcp, pool: echo }
";

/// The whole machinery; taken down when it goes, also in a panic.
struct Bench {
    prefix: String,
    folder: tempfile::TempDir,
    controller: Option<Child>,
    nodes: [Option<Child>; 2],
    client: Namespace,
    router: Namespace,
    api: BlockingClient,
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

fn kill(mut child: Child) {
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
    fn new() -> Self {
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
        bench
    }

    /// The router sends packets for the VIP to this node alone.
    fn direct_by(&self, number: u8) {
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

    fn start_controller(&mut self) {
        let mut command = self.program();
        command
            .arg("controller")
            .arg("--run-dir")
            .arg(self.folder.path().join("c"));
        self.controller = Some(command.spawn().unwrap());
    }

    fn start_node(&mut self, number: u8) {
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

    fn until<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if begun.elapsed() > PATIENCE {
                let log =
                    std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                panic!("not {what}: {:#?}\n{log}", self.api.status());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn settled(&self) {
        self.until("settled", || {
            self.api.status().ok().filter(|status| status.settled)
        });
    }

    fn done(&self, order: Order) {
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
struct Stream {
    thread: std::thread::JoinHandle<std::io::Result<u64>>,
}

fn stream(
    client: &Namespace,
    number: u64,
    stop: &Arc<AtomicBool>,
    turns: &Arc<AtomicU64>,
) -> Stream {
    let mut socket = client.run(|| TcpStream::connect(VIP).unwrap()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
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
    Stream { thread }
}

fn serve_echo(client: &Namespace) {
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

fn pid_in(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path)
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[test]
fn connections_live_through_a_cluster_s_changes_root() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root for network namespaces and BPF");
        return;
    }
    let mut bench = Bench::new();
    serve_echo(&bench.client);
    bench.start_controller();
    bench.until("answering", || bench.api.status().ok());
    bench.api.put_site(SITE).unwrap();
    for number in [1, 2] {
        bench.start_node(number);
        bench.done(Order::AddNode {
            node: format!("n{number}"),
        });
    }
    bench.done(Order::AddGuest {
        guest: "g1".into(),
        node: "n1".into(),
    });

    let (stop, turns) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let streams: Vec<Stream> = (0..30)
        .map(|number| stream(&bench.client, number, &stop, &turns))
        .collect();
    let goes_on = |bench: &Bench| {
        let before = turns.load(Ordering::Relaxed);
        bench.until("going on", || {
            (turns.load(Ordering::Relaxed) > before + 90).then_some(())
        });
    };
    goes_on(&bench);
    // A guest joins, on the other node; packets come by the other director.
    bench.done(Order::AddGuest {
        guest: "g2".into(),
        node: "n2".into(),
    });
    bench.direct_by(2);
    goes_on(&bench);
    // The first guest is drained; its connections live on behind the second chance; it is called
    // back.
    bench
        .api
        .order(&Order::DrainGuest {
            guest: "g1".into(),
            deadline_s: None,
            remove: false,
        })
        .unwrap();
    bench.until("out of the lead", || {
        bench
            .api
            .guest("g1")
            .ok()
            .filter(|guest| guest.buckets_owned == 0 && guest.buckets_standby <= 30)
    });
    let new = stream(&bench.client, 100, &stop, &turns);
    goes_on(&bench);
    assert!(
        bench
            .api
            .guest("g1")
            .unwrap()
            .live
            .is_some_and(|live| live >= 30)
    );
    bench.done(Order::UndrainGuest { guest: "g1".into() });
    // Every role is killed and comes back.
    bench
        .nodes
        .iter_mut()
        .filter_map(Option::take)
        .for_each(kill);
    bench.controller.take().into_iter().for_each(kill);
    goes_on(&bench);
    bench.start_controller();
    bench.start_node(1);
    bench.start_node(2);
    bench.settled();
    let pids: Vec<(PathBuf, u32)> = ["n1/guests/g1/ingress.pid", "n2/guests/g2/ingress.pid"]
        .iter()
        .map(|path| bench.folder.path().join(path))
        .map(|path| (path.clone(), pid_in(&path).unwrap()))
        .collect();
    for (_, pid) in &pids {
        let pid = rustix::process::Pid::from_raw(*pid as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    for (path, old) in &pids {
        bench.until("started again", || pid_in(path).filter(|pid| pid != old));
    }
    bench.settled();
    goes_on(&bench);
    bench.done(Order::ReplacePrograms {});
    goes_on(&bench);

    stop.store(true, Ordering::Relaxed);
    for stream in streams.into_iter().chain([new]) {
        assert!(stream.thread.join().unwrap().unwrap() > 0);
    }
    let counters = bench.api.counters().unwrap();
    let sum = |name: &str| -> u64 {
        counters
            .ingresses
            .iter()
            .filter_map(|ingress| ingress.counters.get(name))
            .sum()
    };
    assert!(
        sum("forwarded") + sum("restamped") > 0,
        "nothing went along a row: {counters:?}"
    );
    assert_eq!(sum("answered"), 0, "{counters:?}");
}
