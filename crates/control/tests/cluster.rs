//! Controller, three agents and their guests' ingresses in one process, over real sockets, with
//! data planes in memory: adding, draining, calling back, killing each role, a guest's death, a
//! node that leaves.

#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hitless_api::{
    AtDeadline, BlockingClient, BucketRun, Change, ChangeState, GuestPhase, Order, Status, WaitCode,
};
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
struct Tables {
    rows: Mutex<Vec<Row>>,
    ways: Mutex<BTreeMap<GuestSlot, Way>>,
    live: Mutex<BTreeMap<Bucket, u32>>,
    replaced: Mutex<u32>,
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
        BTreeMap::new()
    }
}

/// A guest: its kernel's tables, and the ingress that runs in it, if one does.
struct FakeGuest {
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
struct Machine {
    name: String,
    number: u8,
    run: PathBuf,
    director: Arc<Tables>,
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
    fn kill_guest(&self, name: &str) {
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

struct RunningNode {
    machine: Arc<Machine>,
    agent: Option<(node::Stop, JoinHandle<node::Ended>)>,
}

struct TestCluster {
    folder: tempfile::TempDir,
    port: u16,
    controller: Option<(controller::Stop, JoinHandle<()>)>,
    nodes: Vec<RunningNode>,
    client: BlockingClient,
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
    fn stop(&mut self) {
        if let Some((stop, thread)) = self.agent.take() {
            stop.stop();
            thread.join().unwrap();
        }
    }

    fn start(&mut self, controller: &Path, port: u16) {
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
    fn new() -> Self {
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

    fn start_controller(&mut self) {
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

    fn stop_controller(&mut self) {
        if let Some((stop, thread)) = self.controller.take() {
            stop.stop();
            thread.join().unwrap();
        }
    }

    fn add_node(&mut self, name: &str) {
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

    fn order(&self, order: Order) -> String {
        self.client.order(&order).unwrap().change
    }

    fn add_guest(&self, guest: &str, node: &str) {
        self.order(Order::AddGuest {
            guest: guest.into(),
            node: node.into(),
        });
    }

    /// The guest's kernel holds exactly these connections.
    fn hold(&self, guest: &str, node: usize, live: &[(Bucket, u32)]) {
        let guests = self.nodes[node].machine.guests.lock().unwrap();
        *guests[guest].tables.live.lock().unwrap() = live.iter().copied().collect();
    }

    /// The rows that the first node's director has.
    fn table(&self) -> Vec<Row> {
        self.nodes[0].machine.director.rows.lock().unwrap().clone()
    }

    /// A bucket that the guest leads.
    fn bucket_of(&self, guest: &str) -> Bucket {
        let slot = self.client.guest(guest).unwrap().slot;
        let leads = |row: &Row| row.head().map(GuestSlot::number) == slot;
        Bucket(self.table().iter().position(leads).unwrap() as u16)
    }

    /// Waits until a change is over.
    fn over(&self, change: &str) -> Change {
        self.until(change, |_| {
            self.client
                .change(change)
                .is_ok_and(|change| change.state.is_over())
        });
        self.client.change(change).unwrap()
    }

    fn until(&self, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
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

    fn settled(&self) {
        self.until("settled", |status| status.settled);
    }

    /// At rest every director and every guest of a row has the same row, and its owner is one of
    /// these.
    fn check_rest(&self, owners: &[&str]) {
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

#[test]
fn a_cluster_lives_through_its_changes() {
    let mut cluster = TestCluster::new();
    let refused = cluster.client.order(&Order::AddGuest {
        guest: "g1".into(),
        node: "n1".into(),
    });
    assert!(refused.unwrap_err().to_string().contains("no node"));
    assert!(
        cluster
            .client
            .put_site("nonsense")
            .unwrap_err()
            .to_string()
            .contains("line 1")
    );
    cluster.add_node("n1");
    cluster.add_node("n2");
    cluster.add_node("n3");
    cluster.client.put_site("good").unwrap();
    cluster.add_guest("g1", "n1");
    cluster.settled();
    cluster.check_rest(&["g1"]);
    cluster.add_guest("g2", "n2");
    cluster.settled();
    cluster.check_rest(&["g1", "g2"]);
    // A guest that joins is given its share and nothing else changes its owner, nor does one that is
    // there lose more than another.
    let before = cluster.table();
    cluster.add_guest("g3", "n3");
    cluster.settled();
    cluster.check_rest(&["g1", "g2", "g3"]);
    let slot = |name: &str| cluster.client.guest(name).unwrap().slot.unwrap();
    let mut moved = BTreeMap::<u16, usize>::new();
    for (before, now) in before.iter().zip(cluster.table()) {
        let (before, now) = (before.head().unwrap(), now.head().unwrap());
        if before != now {
            assert_eq!(now.number(), slot("g3"));
            *moved.entry(before.number()).or_default() += 1;
        }
    }
    let owned = cluster.client.guest("g3").unwrap().buckets_owned as usize;
    assert_eq!(moved.values().sum::<usize>(), owned);
    assert!(owned.abs_diff(BUCKETS / 3) <= 1, "{owned}");
    let (g1, g2) = (moved[&slot("g1")], moved[&slot("g2")]);
    assert!(g1.abs_diff(g2) <= 1, "{moved:?}");

    // A drain waits for the last connection, says so, and can be called back.
    let held = |guest: &str, node: usize, live: &[(Bucket, u32)]| cluster.hold(guest, node, live);
    let of_g2 = cluster.bucket_of("g2");
    held("g2", 1, &[(of_g2, 3)]);
    let drain = Order::DrainGuest {
        guest: "g2".into(),
        deadline_s: None,
        at_deadline: AtDeadline::Close,
        remove: false,
    };
    let change = cluster.order(drain.clone());
    cluster.until("waiting for connections", |status| {
        status
            .waits
            .iter()
            .any(|wait| wait.code == WaitCode::ConnectionsLive)
            && cluster
                .client
                .guest("g2")
                .is_ok_and(|guest| guest.buckets_owned == 0 && guest.buckets_standby == 1)
    });
    assert_eq!(
        cluster.client.guest("g2").unwrap().phase,
        GuestPhase::Draining
    );
    // Each bucket says for itself: one waits, for whom and for which change; all others are settled.
    cluster.until("but one settled", |_| {
        let runs = cluster.client.buckets().unwrap().items;
        let waiting: Vec<_> = runs.iter().filter(|run| run.wait.is_some()).collect();
        let is_it = |run: &BucketRun| (run.first, run.last) == (of_g2.0, of_g2.0);
        matches!(waiting[..], [one] if is_it(one))
    });
    let bucket = cluster.client.bucket(of_g2.0).unwrap();
    let wait = bucket.wait.unwrap();
    assert_eq!(wait.code, WaitCode::ConnectionsLive);
    assert_eq!(
        (wait.objects, wait.connections),
        (vec!["g2".to_owned()], Some(3))
    );
    assert_eq!(wait.change.as_ref(), Some(&change));
    assert_eq!(
        wait.ends_when,
        "the 3 connections that g2 holds of it have ended"
    );
    // It is behind the head: whoever leads, it is another.
    let behind = bucket.row.iter().position(|name| name == "g2");
    assert!(behind.is_some_and(|at| at > 0), "{:?}", bucket.row);
    let settled = cluster.client.bucket(of_g2.0.wrapping_add(1)).unwrap();
    assert_eq!(
        (settled.wait, settled.row.contains(&"g2".to_owned())),
        (None, false)
    );
    cluster.client.call_back(&change).unwrap();
    cluster.settled();
    let runs = cluster.client.buckets().unwrap().items;
    assert!(runs.iter().all(|run| run.wait.is_none()), "{runs:?}");
    assert_eq!(
        cluster.client.change(&change).unwrap().state,
        ChangeState::CalledBack
    );
    cluster.check_rest(&["g1", "g2", "g3"]);
    let change = cluster.order(drain);
    held("g2", 1, &[]);
    cluster.settled();
    assert_eq!(
        cluster.client.change(&change).unwrap().state,
        ChangeState::Done
    );
    assert_eq!(
        cluster.client.guest("g2").unwrap().phase,
        GuestPhase::Drained
    );
    cluster.check_rest(&["g1", "g3"]);

    // A controller that comes back goes on with what its store says, in the middle of a change too.
    let change = cluster.order(Order::UndrainGuest { guest: "g2".into() });
    cluster.stop_controller();
    cluster.start_controller();
    cluster.until("back", |status| status.settled && status.nodes_linked == 3);
    assert_eq!(
        cluster.client.change(&change).unwrap().state,
        ChangeState::Done
    );
    cluster.check_rest(&["g1", "g2", "g3"]);

    // Replaced programs, an upgrade, a site that a traffic manager refuses.
    let change = cluster.order(Order::ReplacePrograms {});
    cluster.settled();
    assert_eq!(
        cluster.client.change(&change).unwrap().state,
        ChangeState::Done
    );
    assert!(
        cluster
            .nodes
            .iter()
            .all(|node| *node.machine.director.replaced.lock().unwrap() == 1)
    );
    let change = cluster.order(Order::UpgradeTrafficManagers {
        program: "/bin/true".into(),
    });
    cluster.settled();
    assert_eq!(
        cluster.client.change(&change).unwrap().state,
        ChangeState::Done
    );
    let change = cluster.client.put_site("bad").unwrap().change;
    cluster.until("refused", |_| {
        cluster
            .client
            .change(&change)
            .is_ok_and(|c| c.state == ChangeState::Failed)
    });
    cluster.client.put_site("good again").unwrap();
    cluster.settled();
}

/// What a drain's deadline does with endless connections, as it was ordered.
#[test]
fn a_deadline_closes_and_names_what_is_left_or_gives_up() {
    let mut cluster = TestCluster::new();
    cluster.port += 2;
    cluster.add_node("n1");
    cluster.add_node("n2");
    cluster.client.put_site("good").unwrap();
    cluster.add_guest("g1", "n1");
    cluster.add_guest("g2", "n2");
    cluster.settled();
    let drain = |at_deadline, deadline_s, remove| Order::DrainGuest {
        guest: "g2".into(),
        deadline_s: Some(deadline_s),
        at_deadline,
        remove,
    };

    // Given up: nothing is closed, and it serves again.
    cluster.hold("g2", 1, &[(cluster.bucket_of("g2"), 2)]);
    let change = cluster.over(&cluster.order(drain(AtDeadline::GiveUp, 1, false)));
    assert_eq!(change.state, ChangeState::Failed);
    let failure = change.failure.unwrap();
    assert!(
        failure.contains("2 connections were left on guest g2"),
        "{failure}"
    );
    assert_eq!((change.ledger.reset, change.closed), (0, None));
    cluster.settled();
    assert_eq!(
        cluster.client.guest("g2").unwrap().phase,
        GuestPhase::Serving
    );
    cluster.check_rest(&["g1", "g2"]);

    // Closed: the two are named, and the guest stays, drained.
    let change = cluster.order(drain(AtDeadline::Close, 4, false));
    // While it runs, it says how it gets on: they do not end by themselves, the deadline is an end.
    cluster.until("counting", |_| {
        let drain = cluster.client.change(&change).unwrap().drain;
        drain.is_some_and(|drain| {
            drain.left == Some(2)
                && drain.ends_per_s == Some(0.0)
                && drain.estimate == "the deadline ends it"
        })
    });
    let change = cluster.over(&change);
    assert_eq!(change.state, ChangeState::Done);
    assert_eq!((change.ledger.connections, change.ledger.reset), (2, 2));
    change.ledger.check().unwrap();
    let closed = change.closed.unwrap();
    assert_eq!(
        (closed.total, closed.named.len(), closed.left_out),
        (2, 2, 0)
    );
    for one in &closed.named {
        assert_eq!(one.guest, "g2");
        assert!(one.client.starts_with("10.9."), "{one:?}");
        assert_eq!(one.server, "203.0.113.10:80");
        assert_eq!(one.virtual_server.as_deref(), Some("raw"));
    }
    assert_eq!(change.drain, None);
    assert_eq!(
        cluster.client.guest("g2").unwrap().phase,
        GuestPhase::Drained
    );

    // More than are named, and the guest goes.
    cluster.order(Order::UndrainGuest { guest: "g2".into() });
    cluster.settled();
    cluster.hold("g2", 1, &[(cluster.bucket_of("g2"), 300)]);
    let change = cluster.over(&cluster.order(drain(AtDeadline::Close, 1, true)));
    assert_eq!(
        (change.state, change.ledger.reset),
        (ChangeState::Done, 300)
    );
    let closed = change.closed.unwrap();
    assert_eq!(
        (closed.total, closed.named.len(), closed.left_out),
        (300, 256, 44)
    );
    cluster.settled();
    assert!(cluster.client.guest("g2").is_err());
    cluster.check_rest(&["g1"]);
}

fn remove(node: &str, confirm_off: bool) -> Order {
    Order::RemoveNode {
        node: node.into(),
        deadline_s: None,
        at_deadline: AtDeadline::Close,
        confirm_off,
    }
}

/// A machine that is off cannot leave by itself: it is removed by the operator's word.
#[test]
fn a_node_that_is_off_is_removed_by_the_operator_s_word() {
    let mut cluster = TestCluster::new();
    cluster.port += 3;
    cluster.add_node("n1");
    cluster.add_node("n2");
    cluster.client.put_site("good").unwrap();
    cluster.add_guest("g1", "n1");
    cluster.add_guest("g2", "n2");
    cluster.settled();
    let client = cluster.client.clone();
    let refusal = |order: &Order| client.order(order).unwrap_err().to_string();
    let answers = refusal(&remove("n2", true));
    assert!(
        answers.contains("\"n2\" answers, so it is not off"),
        "{answers}"
    );
    // The machine's power is cut: the agent first, so that nobody tells of the guest's end.
    cluster.nodes[1].stop();
    cluster.nodes[1].machine.kill_guest("g2");
    cluster.until("missing", |status| status.nodes_linked == 1);
    let silent = refusal(&remove("n2", false));
    assert!(
        silent.contains("does not answer") && silent.contains("--confirm-off"),
        "{silent}"
    );
    let change = cluster.over(&cluster.order(remove("n2", true)));
    assert_eq!(change.state, ChangeState::Done);
    cluster.settled();
    assert_eq!(cluster.client.nodes().unwrap().items.len(), 1);
    assert_eq!(cluster.client.guests().unwrap().items.len(), 1);
    cluster.nodes.pop();
    cluster.check_rest(&["g1"]);
    let changes = cluster.client.changes().unwrap().items;
    let died = changes.iter().find(|one| one.kind == "guest-died").unwrap();
    assert_eq!(
        (died.object.as_deref(), died.state),
        (Some("g2"), ChangeState::Done)
    );
    // One that never came is removed without a word.
    cluster.order(Order::AddNode { node: "n9".into() });
    let change = cluster.over(&cluster.order(remove("n9", false)));
    assert_eq!(change.state, ChangeState::Done);
    cluster.settled();
}

#[test]
fn agents_and_guests_come_back() {
    let mut cluster = TestCluster::new();
    cluster.port += 1;
    cluster.add_node("n1");
    cluster.add_node("n2");
    cluster.client.put_site("good").unwrap();
    cluster.add_guest("g1", "n1");
    cluster.add_guest("g2", "n2");
    cluster.settled();
    cluster.check_rest(&["g1", "g2"]);
    let slot = |name: &str| cluster.client.guest(name).unwrap().slot;

    // A guest whose power is cut comes back as another kernel, with another slot.
    let before = slot("g2");
    cluster.hold("g2", 1, &[(cluster.bucket_of("g2"), 7)]);
    cluster.until("counted", |_| {
        cluster
            .client
            .guest("g2")
            .is_ok_and(|g2| g2.live == Some(7))
    });
    // Agents' reports of what was counted come twice a second.
    cluster.nodes[1].machine.kill_guest("g2");
    cluster.until("another slot", |_| {
        slot("g2").is_some_and(|now| Some(now) != before)
    });
    cluster.settled();
    cluster.check_rest(&["g1", "g2"]);
    // Its death is a change that nobody ordered, with what it cost and when it was seen.
    let changes = cluster.client.changes().unwrap().items;
    let deaths: Vec<_> = changes
        .iter()
        .filter(|one| one.kind == "guest-died")
        .collect();
    let [died] = deaths[..] else {
        panic!("{deaths:?}")
    };
    assert_eq!(
        (died.object.as_deref(), died.state),
        (Some("g2"), ChangeState::Done)
    );
    assert_eq!((died.ledger.connections, died.ledger.reset), (7, 7));
    died.ledger.check().unwrap();
    let death = died.death.as_ref().unwrap();
    assert_eq!((death.node.as_str(), Some(death.slot)), ("n2", before));
    assert_eq!(death.connections, Some(7));
    let nodes: Vec<&str> = death.believed_us.keys().map(String::as_str).collect();
    assert_eq!(nodes, ["n1", "n2"], "{death:?}");
    assert!(
        death
            .believed_us
            .values()
            .all(|at| Some(*at) <= death.rows_us),
        "{death:?}"
    );
    // An agent that comes back adopts its director's rows, and orders nothing anew.
    let rows = cluster.nodes[0]
        .machine
        .director
        .rows
        .lock()
        .unwrap()
        .clone();
    let (folder, port) = (cluster.folder.path().to_owned(), cluster.port);
    cluster.nodes[0].stop();
    cluster.until("missing", |status| status.nodes_linked == 1);
    cluster.nodes[0].start(&folder, port);
    cluster.until("back", |status| status.nodes_linked == 2);
    cluster.settled();
    assert!(rows == *cluster.nodes[0].machine.director.rows.lock().unwrap());

    // A node leaves: its guests are drained and removed, its director takes no part any more.
    let change = cluster.order(remove("n2", false));
    cluster.until("gone", |_| {
        cluster
            .client
            .change(&change)
            .is_ok_and(|c| c.state == ChangeState::Done)
    });
    let (_, thread) = cluster.nodes[1].agent.take().unwrap();
    assert_eq!(thread.join().unwrap(), node::Ended::Left);
    cluster.settled();
    assert_eq!(cluster.client.nodes().unwrap().items.len(), 1);
    cluster.check_rest(&["g1"]);
}
