//! A whole cluster in one process, over real sockets, with data planes in memory.

#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]
#![allow(unreachable_pub, reason = "a module of tests")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hitless_api::{BlockingClient, Change, Order, Status};
use hitless_control::controller::cluster::SiteFacts;
use hitless_control::controller::{self, Controller};
use hitless_control::ingress::{self, Ingress};
use hitless_control::link::Address;
use hitless_control::message::{AttachedProgram, Cluster, IngressOrders};
use hitless_control::node::guests::{GuestPlan, GuestRunner, Running};
use hitless_control::node::managers::{Looked, ManagerControl};
use hitless_control::node::ways::Underlay;
use hitless_control::node::{self, Node, Parts};
use hitless_control::plane::{
    Connection, Count, DirectorPlane, IngressPlane, PlaneError, Result, Way,
};
use hitless_core::flow::FlowKey;
use hitless_core::ledger::Ledger;
use hitless_core::row::{BUCKETS, Bucket, GuestSlot, Row};
use hitless_core::table::message::DirectorId;
use hitless_store::Embedded;

const PATIENCE: Duration = Duration::from_secs(60);

/// Tables in memory; they outlive the process that writes them, as pinned maps do.
#[derive(Default)]
pub struct Tables {
    pub rows: Mutex<Vec<Row>>,
    ways: Mutex<BTreeMap<GuestSlot, Way>>,
    live: Mutex<BTreeMap<Bucket, u32>>,
    pub replaced: Mutex<u32>,
    /// What an ingress counts.
    counters: Mutex<BTreeMap<String, u64>>,
}

impl Tables {
    fn begin(&self) {
        self.rows.lock().unwrap().resize(BUCKETS, Row::NONE);
    }

    fn put(&self, rows: &[(Bucket, Row)]) {
        let mut own = self.rows.lock().unwrap();
        for (bucket, row) in rows {
            own[usize::from(bucket.0)] = *row;
        }
    }

    fn program(&self) -> Option<AttachedProgram> {
        let digest = format!("prog-{}", self.replaced.lock().unwrap());
        Some(AttachedProgram {
            digest,
            mode: "native".into(),
        })
    }
}

struct FakeDirector(Arc<Tables>);

impl DirectorPlane for FakeDirector {
    fn set_up(&self, _: DirectorId, _: &Cluster) -> Result<()> {
        self.0.begin();
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        self.0.rows.lock().unwrap().clone()
    }

    fn store(&self, rows: &[(Bucket, Row)]) -> Result<()> {
        if self.0.rows.lock().unwrap().is_empty() {
            return Err(PlaneError("it has left".into()));
        }
        self.0.put(rows);
        Ok(())
    }

    fn believe(&self, _: &[GuestSlot]) -> Result<()> {
        Ok(())
    }

    fn set_ways(&self, ways: &BTreeMap<GuestSlot, Way>) -> Result<()> {
        self.0.ways.lock().unwrap().clone_from(ways);
        Ok(())
    }

    fn set_members(&self, _: &[IpAddr]) -> Result<()> {
        Ok(())
    }

    fn set_ports(&self, _: &BTreeMap<u32, IpAddr>) -> Result<()> {
        Ok(())
    }

    fn replace(&self) -> Result<()> {
        *self.0.replaced.lock().unwrap() += 1;
        Ok(())
    }

    fn program(&self) -> Option<AttachedProgram> {
        self.0.program()
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        BTreeMap::from([("directed".into(), 1)])
    }

    fn leave(&self) -> Result<()> {
        self.0.rows.lock().unwrap().clear();
        Ok(())
    }
}

struct FakeIngress(Arc<Tables>);

impl IngressPlane for FakeIngress {
    fn set_up(&self, _: &IngressOrders) -> Result<()> {
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        self.0.rows.lock().unwrap().clone()
    }

    fn store(&self, rows: &[(Bucket, Row)]) -> Result<()> {
        self.0.put(rows);
        Ok(())
    }

    fn count(&self) -> Result<Count> {
        let live: Vec<_> = self
            .0
            .live
            .lock()
            .unwrap()
            .iter()
            .map(|(bucket, held)| (*bucket, *held))
            .collect();
        let connections = live.iter().map(|(_, held)| u64::from(*held)).sum();
        Ok(Count { live, connections })
    }

    fn held(&self) -> Result<Vec<Connection>> {
        let live = self.0.live.lock().unwrap();
        let connection = |(bucket, number): (&Bucket, u32)| Connection {
            client: SocketAddr::from(([10, 9, (bucket.0 >> 8) as u8, 2], number as u16)),
            server: SocketAddr::from(([203, 0, 113, 10], 80)),
        };
        Ok(live
            .iter()
            .flat_map(|(bucket, held)| (0..*held).map(move |number| (bucket, number)))
            .map(connection)
            .collect())
    }

    fn end_all(&self) -> Result<Vec<Connection>> {
        let held = self.held()?;
        self.0.live.lock().unwrap().clear();
        Ok(held)
    }

    fn lease(&self, _: u64) {}

    fn believe(&self, _: &[GuestSlot]) -> Result<()> {
        Ok(())
    }

    fn stampers(&self) -> Vec<DirectorId> {
        Vec::new()
    }

    fn replace(&self) -> Result<()> {
        *self.0.replaced.lock().unwrap() += 1;
        Ok(())
    }

    fn program(&self) -> Option<AttachedProgram> {
        self.0.program()
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        self.0.counters.lock().unwrap().clone()
    }
}

/// A guest: its kernel's tables, and the ingress that runs in it, if one does.
pub struct FakeGuest {
    boot: u64,
    number: u8,
    tables: Arc<Tables>,
    ingress: Option<(ingress::Stop, JoinHandle<()>)>,
    is_dead: bool,
}

impl FakeGuest {
    fn stop(&mut self) {
        if let Some((stop, thread)) = self.ingress.take() {
            stop.stop();
            thread.join().unwrap();
        }
    }
}

/// A machine: what survives its agent.
pub struct Machine {
    name: String,
    number: u8,
    run: PathBuf,
    pub director: Arc<Tables>,
    guests: Mutex<BTreeMap<String, FakeGuest>>,
    boots: Mutex<u64>,
}

struct FakeRunner(Arc<Machine>);

impl Machine {
    fn guest_address(&self, number: u8) -> IpAddr {
        let [_, net, ..] = base();
        IpAddr::V4(Ipv4Addr::new(127, net, self.number, number))
    }

    /// Cuts the guest's power: nothing of it answers any more.
    pub fn kill_guest(&self, name: &str) {
        let mut guests = self.guests.lock().unwrap();
        let guest = guests.get_mut(name).unwrap();
        guest.stop();
        guest.is_dead = true;
    }
}

/// Loopback addresses of this test's process.
fn base() -> [u8; 2] {
    [127, (std::process::id() % 200 + 20) as u8]
}

impl GuestRunner for FakeRunner {
    fn list(&self) -> std::result::Result<Vec<Running>, String> {
        let guests = self.0.guests.lock().unwrap();
        let running = guests.iter().map(|(name, guest)| Running {
            name: name.clone(),
            boot: guest.boot,
            addresses: vec![self.0.guest_address(guest.number)],
            interface: "eth0".into(),
            mac: [2, 0, 0, 0, 0, guest.number],
            node_mac: [2, 0, 0, 0, 1, guest.number],
            ifindex: u32::from(guest.number),
            mtu: 1_500,
            ingress_pid: None,
            keeper_pid: None,
            is_dead: guest.is_dead,
        });
        Ok(running.collect())
    }

    fn ensure(&self, plan: &GuestPlan) -> std::result::Result<(), String> {
        let mut guests = self.0.guests.lock().unwrap();
        if !guests.contains_key(&plan.name) {
            let mut boots = self.0.boots.lock().unwrap();
            *boots += 1;
            let tables = Arc::new(Tables::default());
            tables.begin();
            let boot = u64::from(self.0.number) * 1_000 + *boots;
            let guest = FakeGuest {
                boot,
                number: *boots as u8 + 10,
                tables,
                ingress: None,
                is_dead: false,
            };
            guests.insert(plan.name.clone(), guest);
        }
        let guest = guests.get_mut(&plan.name).unwrap();
        if guest.ingress.is_none() {
            let tables = Arc::clone(&guest.tables);
            let options = ingress::Options {
                name: plan.name.clone(),
                boot: guest.boot,
                orders_file: self.0.run.join(format!("{}.json", plan.name)),
                agent: Address::Unix(self.0.run.join(node::GUEST_SOCKET)),
                release: "test".into(),
            };
            let open = move |_: &IngressOrders| {
                Ok(Arc::new(FakeIngress(Arc::clone(&tables))) as Arc<dyn IngressPlane>)
            };
            let ingress = Ingress::new(options, Box::new(open));
            let stop = ingress.stop();
            guest.ingress = Some((stop, std::thread::spawn(|| ingress.run())));
        }
        Ok(())
    }

    fn destroy(&self, name: &str) -> std::result::Result<(), String> {
        if let Some(mut guest) = self.0.guests.lock().unwrap().remove(name) {
            guest.stop();
        }
        Ok(())
    }
}

struct FakeManagers;

impl ManagerControl for FakeManagers {
    fn reload(&self, _: &str, site: &str) -> std::result::Result<(), String> {
        if site.contains("bad") {
            Err("refused by the traffic manager".into())
        } else {
            Ok(())
        }
    }

    fn upgrade(&self, _: &str, _: Option<&str>) -> std::result::Result<Option<Ledger>, String> {
        Ok(Some(Ledger::begin(0)))
    }

    fn tell_to_close(&self, _: &str, _: bool) -> std::result::Result<(), String> {
        Ok(())
    }

    fn look(&self, _: &str) -> Option<Looked> {
        Some(Looked {
            program: "test".into(),
            worker_pids: vec![1],
            tells_to_close: None,
            counters: BTreeMap::new(),
        })
    }
}

struct AllWays;

impl Underlay for AllWays {
    fn ways(&mut self, to: &std::collections::BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Way> {
        let way = |address: &IpAddr| Way {
            source: *address,
            destination: *address,
            mac: [2; 6],
            source_mac: [2; 6],
            ifindex: 1,
            mtu: 1_500,
        };
        to.iter().map(|address| (*address, way(address))).collect()
    }
}

pub struct RunningNode {
    pub machine: Arc<Machine>,
    pub agent: Option<(node::Stop, JoinHandle<node::Ended>)>,
}

pub struct TestCluster {
    pub folder: tempfile::TempDir,
    pub port: u16,
    controller: Option<(controller::Stop, JoinHandle<()>)>,
    pub nodes: Vec<RunningNode>,
    pub client: BlockingClient,
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.stop();
            node.machine
                .guests
                .lock()
                .unwrap()
                .values_mut()
                .for_each(FakeGuest::stop);
        }
        self.stop_controller();
    }
}

impl RunningNode {
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.agent.take() {
            stop.stop();
            thread.join().unwrap();
        }
    }

    pub fn start(&mut self, controller: &Path, port: u16) {
        let [_, net] = base();
        let options = node::Options {
            name: self.machine.name.clone(),
            run: self.machine.run.clone(),
            controller: Address::Unix(controller.join(controller::NODE_SOCKET)),
            address: IpAddr::V4(Ipv4Addr::new(127, net, 0, self.machine.number)),
            lease_port: port,
            kernel: u64::from(self.machine.number),
            release: "test".into(),
        };
        let parts = || Parts {
            plane: Arc::new(FakeDirector(Arc::clone(&self.machine.director))),
            guests: Box::new(FakeRunner(Arc::clone(&self.machine))),
            managers: Arc::new(FakeManagers),
            underlay: Box::new(AllWays),
        };
        // The socket of the agent before lives as long as its receiving thread.
        let begun = Instant::now();
        let node = loop {
            match Node::new(options.clone(), parts()) {
                Ok(node) => break node,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        self.agent = Some((node.stop(), std::thread::spawn(|| node.run())));
    }
}

impl TestCluster {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [_, net] = base();
        let probe = UdpSocket::bind((Ipv4Addr::new(127, net, 0, 1), 0)).unwrap();
        let port = probe.local_addr().unwrap().port();
        let client = BlockingClient::new(folder.path().join(hitless_api::SOCKET_NAME));
        let mut cluster = Self {
            folder,
            port,
            controller: None,
            nodes: Vec::new(),
            client,
        };
        cluster.start_controller();
        cluster
    }

    pub fn start_controller(&mut self) {
        let run = self.folder.path().to_owned();
        let options = controller::Options {
            store: Box::new(Embedded::open(&run.join("store")).unwrap()),
            run,
            release: "test".into(),
            new_key: Box::new(|| FlowKey(*b"hitless test key")),
            read_site: Box::new(|text| match text {
                "nonsense" => Err("line 1: this is no site".into()),
                _ => Ok(SiteFacts {
                    vips: vec!["203.0.113.10".parse().unwrap()],
                    servers: Vec::new(),
                    names: [("203.0.113.10:80".parse().unwrap(), "raw".to_owned())].into(),
                }),
            }),
        };
        let controller = Controller::new(options).unwrap();
        self.controller = Some((
            controller.stop(),
            std::thread::spawn(|| controller.run().unwrap()),
        ));
    }

    pub fn stop_controller(&mut self) {
        if let Some((stop, thread)) = self.controller.take() {
            stop.stop();
            thread.join().unwrap();
        }
    }

    pub fn add_node(&mut self, name: &str) {
        let number = self.nodes.len() as u8 + 1;
        let run = self.folder.path().join(name);
        std::fs::create_dir(&run).unwrap();
        let machine = Arc::new(Machine {
            name: name.into(),
            number,
            run,
            director: Arc::default(),
            guests: Mutex::default(),
            boots: Mutex::default(),
        });
        self.order(Order::AddNode { node: name.into() });
        let mut node = RunningNode {
            machine,
            agent: None,
        };
        node.start(self.folder.path(), self.port);
        self.nodes.push(node);
    }

    pub fn order(&self, order: Order) -> String {
        self.client.order(&order).unwrap().change
    }

    pub fn add_guest(&self, guest: &str, node: &str) {
        self.order(Order::AddGuest {
            guest: guest.into(),
            node: node.into(),
        });
    }

    /// The guest's kernel holds exactly these connections.
    pub fn hold(&self, guest: &str, node: usize, live: &[(Bucket, u32)]) {
        let guests = self.nodes[node].machine.guests.lock().unwrap();
        *guests[guest].tables.live.lock().unwrap() = live.iter().copied().collect();
    }

    /// The guest's ingress says so of a counter.
    pub fn count(&self, guest: &str, node: usize, counter: &str, count: u64) {
        let guests = self.nodes[node].machine.guests.lock().unwrap();
        let mut counters = guests[guest].tables.counters.lock().unwrap();
        counters.insert(counter.to_owned(), count);
    }

    /// The rows that the first node's director has.
    pub fn table(&self) -> Vec<Row> {
        self.nodes[0].machine.director.rows.lock().unwrap().clone()
    }

    /// A bucket that the guest leads.
    pub fn bucket_of(&self, guest: &str) -> Bucket {
        let slot = self.client.guest(guest).unwrap().slot;
        let leads = |row: &Row| row.head().map(GuestSlot::number) == slot;
        Bucket(self.table().iter().position(leads).unwrap() as u16)
    }

    /// Waits until a change is over.
    pub fn over(&self, change: &str) -> Change {
        self.until(change, |_| {
            self.client
                .change(change)
                .is_ok_and(|change| change.state.is_over())
        });
        self.client.change(change).unwrap()
    }

    pub fn until(&self, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        let begun = Instant::now();
        loop {
            let status = self.client.status();
            match &status {
                Ok(status) if holds(status) => return status.clone(),
                _ if begun.elapsed() > PATIENCE => {
                    let guests = self.client.guests();
                    panic!("not {what}: {status:#?} {guests:#?}")
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub fn settled(&self) {
        self.until("settled", |status| status.settled);
    }

    /// At rest every director and every guest of a row has the same row, and its owner is one of
    /// these.
    pub fn check_rest(&self, owners: &[&str]) {
        let guests = self.client.guests().unwrap().items;
        let slot = |name: &&str| {
            guests
                .iter()
                .find(|guest| guest.name == **name)
                .unwrap()
                .slot
                .unwrap()
        };
        let slots: Vec<u16> = owners.iter().map(slot).collect();
        let directing = self.nodes.iter().filter(|node| node.agent.is_some());
        let tables: Vec<Vec<Row>> = directing
            .map(|node| node.machine.director.rows.lock().unwrap().clone())
            .collect();
        let mut owned = BTreeMap::<u16, usize>::new();
        for (bucket, row) in tables[0].iter().enumerate() {
            assert!(
                tables.iter().all(|table| table[bucket] == *row),
                "directors differ in bucket {bucket}"
            );
            let head = row.head().unwrap().number();
            assert!(slots.contains(&head), "bucket {bucket} has {row:?}");
            *owned.entry(head).or_default() += 1;
        }
        let (least, most) = (owned.values().min().unwrap(), owned.values().max().unwrap());
        assert!(most - least <= 1, "{owned:?}");
        assert_eq!(owned.len(), owners.len());
        for node in &self.nodes {
            for (name, guest) in node.machine.guests.lock().unwrap().iter() {
                let me = guests
                    .iter()
                    .find(|known| known.name == *name)
                    .unwrap()
                    .slot;
                let own = guest.tables.rows.lock().unwrap();
                let named = tables[0].iter().enumerate();
                let named =
                    named.filter(|(_, row)| row.slots().any(|slot| Some(slot.number()) == me));
                for (bucket, row) in named {
                    assert_eq!(own[bucket], *row, "guest {name} differs in bucket {bucket}");
                }
            }
        }
    }
}
