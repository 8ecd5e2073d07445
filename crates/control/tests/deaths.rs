//! Two node agents without a controller: a guest's link is cut at one, and the other believes the
//! guest dead, though it goes on hearing its lease requests.

#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hitless_control::clock;
use hitless_control::lease::Seal;
use hitless_control::link::Address;
use hitless_control::message::{AttachedProgram, Cluster, GuestOrder, Orders};
use hitless_control::node::guests::{GuestPlan, GuestRunner, Running};
use hitless_control::node::managers::{Looked, ManagerControl};
use hitless_control::node::ways::{Change, Underlay};
use hitless_control::node::{self, Node, Parts};
use hitless_control::plane::{DirectorPlane, Result, Way};
use hitless_core::flow::FlowKey;
use hitless_core::ledger::Ledger;
use hitless_core::row::{BUCKETS, Bucket, GuestSlot, Row};
use hitless_core::table::agent::Trust;
use hitless_core::table::message::{DirectorId, Generation, LeaseRequest};

const KEY: FlowKey = FlowKey(*b"hitless test key");
const IFINDEX: u32 = 77;

/// Only beliefs are of interest.
struct Director(Sender<Vec<GuestSlot>>);

impl DirectorPlane for Director {
    fn set_up(&self, _: DirectorId, _: &Cluster) -> Result<()> {
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        vec![Row::NONE; BUCKETS]
    }

    fn store(&self, _: &[(Bucket, Row)]) -> Result<()> {
        Ok(())
    }

    fn believe(&self, dead: &[GuestSlot]) -> Result<()> {
        let _ = self.0.send(dead.to_vec());
        Ok(())
    }

    fn set_ways(&self, _: &BTreeMap<GuestSlot, Way>) -> Result<()> {
        Ok(())
    }

    fn set_members(&self, _: &[IpAddr]) -> Result<()> {
        Ok(())
    }

    fn set_ports(&self, _: &BTreeMap<u32, IpAddr>) -> Result<()> {
        Ok(())
    }

    fn replace(&self) -> Result<()> {
        Ok(())
    }

    fn program(&self) -> Option<AttachedProgram> {
        None
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    fn leave(&self) -> Result<()> {
        Ok(())
    }
}

struct Runner(Vec<Running>);

impl GuestRunner for Runner {
    fn list(&self) -> std::result::Result<Vec<Running>, String> {
        Ok(self.0.clone())
    }

    fn ensure(&self, _: &GuestPlan) -> std::result::Result<(), String> {
        Ok(())
    }

    fn destroy(&self, _: &str) -> std::result::Result<(), String> {
        Ok(())
    }
}

struct NoManagers;

impl ManagerControl for NoManagers {
    fn reload(&self, _: &str, _: &str) -> std::result::Result<(), String> {
        Ok(())
    }

    fn upgrade(&self, _: &str, _: Option<&str>) -> std::result::Result<Option<Ledger>, String> {
        Ok(None)
    }

    fn tell_to_close(&self, _: &str, _: bool) -> std::result::Result<(), String> {
        Ok(())
    }

    fn look(&self, _: &str) -> Option<Looked> {
        None
    }
}

type Tell = Box<dyn Fn(Change) -> bool + Send>;

/// Tells what the test tells it.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<Option<Tell>>>);

impl Underlay for Network {
    fn ways(&mut self, _: &std::collections::BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Way> {
        BTreeMap::new()
    }

    fn watch(&self, tell: Tell) {
        *self.0.lock().unwrap() = Some(tell);
    }
}

fn address(number: u8) -> IpAddr {
    let net = (std::process::id() % 200 + 20) as u8;
    IpAddr::V4(Ipv4Addr::new(127, net, 9, number))
}

struct Agent {
    stop: node::Stop,
    thread: Option<std::thread::JoinHandle<node::Ended>>,
    network: Network,
    beliefs: Receiver<Vec<GuestSlot>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Agent {
    /// Goes on from the files that an agent keeps, so it needs no controller.
    fn start(folder: &Path, number: u8, port: u16, guest: GuestSlot) -> Self {
        let run = folder.join(format!("n{number}"));
        std::fs::create_dir(&run).unwrap();
        let is_host = number == 1;
        let boot = 5;
        let guests = is_host.then(|| {
            let order = GuestOrder {
                slot: Some((boot, guest)),
                is_draining: false,
                ends_for: None,
            };
            ("g1".to_owned(), order)
        });
        let orders = Orders {
            generation: 1,
            director: DirectorId(u16::from(number)),
            cluster: Cluster {
                name: "test".into(),
                vni: 1,
                key: KEY,
                vips: Vec::new(),
            },
            guests: guests.into_iter().collect(),
            peers: Vec::new(),
            directors: [1, 2]
                .map(|number| (DirectorId(u16::from(number)), address(number)))
                .into(),
            programs: Default::default(),
            site: Default::default(),
            is_leaving: false,
        };
        let kept = serde_json::json!({ "kernel": 3, "orders": orders });
        std::fs::write(run.join("orders.json"), kept.to_string()).unwrap();
        let trust = Trust {
            generation: Generation(1),
            trusted: [guest].into(),
            suspects: Default::default(),
        };
        let trust = serde_json::to_string(&trust).unwrap();
        std::fs::write(run.join("trust.json"), trust).unwrap();
        let running = is_host.then(|| Running {
            name: "g1".into(),
            boot,
            addresses: vec![address(10)],
            interface: "eth0".into(),
            mac: [2; 6],
            node_mac: [2; 6],
            ifindex: IFINDEX,
            mtu: 1_500,
            ingress_pid: None,
            keeper_pid: None,
            is_dead: false,
        });
        let (sender, beliefs) = channel();
        let network = Network::default();
        let options = node::Options {
            name: format!("n{number}"),
            controller: Address::Unix(run.join("nobody.sock")),
            run,
            address: address(number),
            lease_port: port,
            kernel: 3,
            release: "test".into(),
        };
        let parts = Parts {
            plane: Arc::new(Director(sender)),
            guests: Box::new(Runner(running.into_iter().collect())),
            managers: Arc::new(NoManagers),
            underlay: Box::new(network.clone()),
        };
        let node = Node::new(options, parts).unwrap();
        Self {
            stop: node.stop(),
            thread: Some(std::thread::spawn(|| node.run())),
            network,
            beliefs,
        }
    }

    fn tell(&self, is_running: bool) {
        let change = Change::Link {
            ifindex: IFINDEX,
            is_running,
        };
        let network = self.network.0.lock().unwrap();
        assert!(network.as_ref().unwrap()(change));
    }
}

#[test]
fn a_death_is_believed_at_once_by_all_agents() {
    let folder = tempfile::tempdir().unwrap();
    let guest = GuestSlot::new(4).unwrap();
    let probe = UdpSocket::bind((address(1), 0)).unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let agents = [1, 2].map(|number| Agent::start(folder.path(), number, port, guest));

    // What may still be under way when a guest dies, and more: it asks for its lease all the time,
    // so that no silence makes anybody believe it dead.
    let socket = UdpSocket::bind((address(10), 0)).unwrap();
    let seal = Seal::new(KEY);
    let ask = || {
        let request = LeaseRequest {
            guest,
            asked: clock::now(),
        };
        for number in [1, 2] {
            socket
                .send_to(&seal.request(&request), (address(number), port))
                .unwrap();
        }
    };
    let begun = Instant::now();
    let (mut heard, mut is_dead) = ([false; 2], [false; 2]);
    while heard != [true; 2] {
        assert!(begun.elapsed() < Duration::from_secs(30), "{heard:?}");
        ask();
        // Again and again, since an agent that has just begun knows of no guest yet.
        agents[0].tell(true);
        agents[0].tell(false);
        std::thread::sleep(Duration::from_millis(5));
        for (at, agent) in agents.iter().enumerate() {
            for dead in agent.beliefs.try_iter() {
                heard[at] |= dead == [guest];
                is_dead[at] = !dead.is_empty();
            }
        }
    }
    // It lives after all.
    agents[0].tell(true);
    let begun = Instant::now();
    while is_dead != [false; 2] {
        assert!(begun.elapsed() < Duration::from_secs(30), "{is_dead:?}");
        ask();
        std::thread::sleep(Duration::from_millis(5));
        for (at, agent) in agents.iter().enumerate() {
            for dead in agent.beliefs.try_iter() {
                is_dead[at] = !dead.is_empty();
            }
        }
    }
}
