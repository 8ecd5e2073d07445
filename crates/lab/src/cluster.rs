//! The cluster in a lab: its roles' processes, and the orders that are given through the API.
//!
//! Nothing here knows how the product works; it starts a program by its path, and speaks to the
//! controller's socket.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hitless_api::{
    BlockingClient, Change, ChangeState, Guest, NodePhase, Order, Status, Wait, WaitCode,
};
use hitless_hypervisor::Process;
use hitless_net::Namespace;
use rustix::process::Signal;

use crate::topology::UPLINK;
use crate::world::World;

/// A controller answers, and an agent joins, within this.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How often a state is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Only connections hold a change up once it has been so for this long: agents report twice a
/// second.
const HELD_FOR: Duration = Duration::from_secs(2);

/// Where node agents find the controller, in its run folder.
const AGENTS_SOCKET: &str = "nodes.sock";

/// A lab's cluster.
#[derive(Debug)]
pub struct Cluster {
    api: BlockingClient,
}

impl Cluster {
    /// Of a lab whose controller runs, or will.
    pub fn of(world: &World) -> Self {
        Self {
            api: BlockingClient::new(world.api_socket()),
        }
    }

    pub const fn api(&self) -> &BlockingClient {
        &self.api
    }

    /// Starts controller and node agents, gives the site, nodes and guests, waits until all serve,
    /// and announces the nodes.
    pub fn start(&self, world: &mut World) -> Result<()> {
        start_controller(world)?;
        self.await_controller()?;
        self.api
            .put_site(&world.topology().site_text())
            .context("the site was refused")?;
        for node in world.topology().nodes.clone() {
            self.order(&Order::AddNode { node: node.clone() })?;
            start_node(world, &node)?;
        }
        for node in world.topology().nodes.clone() {
            self.await_joined(&node)?;
        }
        for (guest, node) in world.topology().guests.clone() {
            self.order(&Order::AddGuest { guest, node })?;
        }
        self.await_settled(Duration::from_secs(60))?;
        for node in world.topology().nodes.clone() {
            world.announce(&node)?;
        }
        Ok(())
    }

    /// Waits until nothing is under way, or nothing but what waits for clients' own connections to
    /// end: endless streams keep their rows as they are, and a change of which only that is left is
    /// as far as it can be. A change of `own` that failed is an error.
    pub fn await_rest(&self, own: &[&str], within: Duration) -> Result<()> {
        let mut held_since = None;
        await_that(within, || {
            let status = match self.api.status() {
                Ok(status) => status,
                Err(error) => return Ok(Some(error.to_string())),
            };
            let changes = self.api.changes()?.items;
            for change in &changes {
                if change.state == ChangeState::Failed && own.contains(&change.name.as_str()) {
                    let why = change.failure.clone().unwrap_or_default();
                    bail!("{} failed: {why}", change.name);
                }
            }
            if status.settled {
                return Ok(None);
            }
            let others = others_than_clients(&status, &changes);
            if !others.is_empty() {
                held_since = None;
                return Ok(Some(format!("it waits for {}", others.join("; "))));
            }
            let since = *held_since.get_or_insert_with(Instant::now);
            let is_steady = since.elapsed() >= HELD_FOR;
            Ok((!is_steady).then(|| "it waits for connections to end".to_owned()))
        })
    }

    /// Gives an order; its change's name.
    pub fn order(&self, order: &Order) -> Result<String> {
        let accepted = self
            .api
            .order(order)
            .with_context(|| format!("the order {} was refused", order.kind()))?;
        Ok(accepted.change)
    }

    pub fn status(&self) -> Result<Status> {
        Ok(self.api.status()?)
    }

    pub fn guests(&self) -> Result<Vec<Guest>> {
        Ok(self.api.guests()?.items)
    }

    pub fn guest(&self, name: &str) -> Result<Guest> {
        Ok(self.api.guest(name)?)
    }

    /// Waits until the controller answers.
    pub fn await_controller(&self) -> Result<()> {
        await_that(START_WITHIN, || match self.api.status() {
            Ok(_) => Ok(None),
            Err(error) => Ok(Some(format!("the controller does not answer: {error}"))),
        })
    }

    /// Waits until a node's agent has joined.
    pub fn await_joined(&self, node: &str) -> Result<()> {
        await_that(START_WITHIN, || match self.api.node(node) {
            Ok(found) if found.phase == NodePhase::Joined && found.linked => Ok(None),
            Ok(found) => Ok(Some(format!("node {node} is {:?}", found.phase))),
            Err(error) => Ok(Some(error.to_string())),
        })
    }

    /// Waits until a node that was destroyed and built anew has its agent linked again.
    pub fn await_joined_again(&self, node: &str, within: Duration) -> Result<()> {
        await_that(within, || match self.api.node(node) {
            Ok(found) if found.linked => Ok(None),
            Ok(found) => Ok(Some(format!("node {node} is {:?}", found.phase))),
            Err(error) => Ok(Some(error.to_string())),
        })
    }

    /// Waits until a node is drained.
    pub fn await_drained(&self, node: &str, within: Duration) -> Result<()> {
        await_that(within, || match self.api.node(node) {
            Ok(found) if found.phase == NodePhase::Drained => Ok(None),
            Ok(found) => Ok(Some(format!("node {node} is {:?}", found.phase))),
            Err(error) => Ok(Some(error.to_string())),
        })
    }

    /// Waits until a change is over. A failed one is an error.
    pub fn await_change(&self, name: &str, within: Duration) -> Result<Change> {
        let mut last = None;
        await_that(within, || {
            let change = self.api.change(name)?;
            if change.state == ChangeState::Failed {
                bail!("{name} failed: {}", change.failure.unwrap_or_default());
            }
            let is_over = change.state.is_over();
            let waits: Vec<String> = change
                .waits
                .iter()
                .map(|wait| format!("{}: {}", wait.object, wait.ends_when))
                .collect();
            last = Some(change);
            Ok((!is_over).then(|| format!("{name} waits for {}", waits.join("; "))))
        })?;
        last.context("no change was read")
    }

    /// Waits until nothing is under way.
    pub fn await_settled(&self, within: Duration) -> Result<()> {
        await_that(within, || match self.api.status() {
            Ok(status) if status.settled => Ok(None),
            Ok(status) => {
                let waits: Vec<String> = status
                    .waits
                    .iter()
                    .map(|wait| format!("{}: {}", wait.object, wait.ends_when))
                    .collect();
                Ok(Some(format!(
                    "the cluster is not settled; it waits for {}",
                    waits.join("; ")
                )))
            }
            Err(error) => Ok(Some(error.to_string())),
        })
    }
}

/// What an unsettled cluster waits for besides clients' connections. A change that says nothing of
/// what it waits for is something else.
fn others_than_clients(status: &Status, changes: &[Change]) -> Vec<String> {
    let under_way = || changes.iter().filter(|change| !change.state.is_over());
    // The cluster's wait for a change is what the change itself waits for.
    let is_change = |wait: &&Wait| under_way().any(|change| change.name == wait.object);
    let own = status.waits.iter().filter(|wait| !is_change(wait));
    let waits = own.chain(under_way().flat_map(|change| &change.waits));
    let mut others: Vec<String> = waits
        .filter(|wait| wait.code != WaitCode::ConnectionsLive)
        .map(|wait| format!("{}: {}", wait.object, wait.ends_when))
        .collect();
    let silent = under_way().filter(|change| change.waits.is_empty());
    others.extend(silent.map(|change| format!("{}, which does not say for what", change.name)));
    if status.waits.is_empty() && under_way().next().is_none() {
        others.push("something that it does not name".to_owned());
    }
    others
}

/// Waits until `look` finds nothing missing. What was missing last is the error at the time-out.
pub fn await_that(
    within: Duration,
    mut look: impl FnMut() -> Result<Option<String>>,
) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let Some(missing) = look()? else {
            return Ok(());
        };
        if Instant::now() >= deadline {
            bail!("still not so after {} s: {missing}", within.as_secs());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Starts the controller.
pub fn start_controller(world: &World) -> Result<Process> {
    let run = world.controller_folder().display().to_string();
    let arguments = ["controller".to_owned(), "--run-dir".to_owned(), run];
    world.start("controller", None, world.binary(), &arguments)
}

/// Starts a node's agent in the node's namespace.
pub fn start_node(world: &World, node: &str) -> Result<Process> {
    let namespace = Namespace::open(&world.topology().node_namespace(node))?;
    let (spoke, guests) = world.node_addresses(node)?;
    let bpf = world.topology().folder().join("bpf").join(node);
    let arguments: Vec<String> = [
        ("--name", node.to_owned()),
        ("--run-dir", world.node_folder(node).display().to_string()),
        (
            "--controller",
            world
                .controller_folder()
                .join(AGENTS_SOCKET)
                .display()
                .to_string(),
        ),
        ("--uplink", UPLINK.to_owned()),
        ("--address", spoke.own_v4.address().to_string()),
        ("--guest-prefix", guests[0].to_string()),
        ("--guest-prefix", guests[1].to_string()),
        ("--guest-namespaces", world.topology().guest_prefix(node)),
        ("--mtu", world.topology().mtu.to_string()),
        ("--pins", bpf.display().to_string()),
    ]
    .into_iter()
    .flat_map(|(option, value)| [option.to_owned(), value])
    .collect();
    let arguments = [vec!["node".to_owned()], arguments].concat();
    world.start(
        &agent_name(node),
        Some(&namespace),
        world.binary(),
        &arguments,
    )
}

/// The name by which a node's agent was started.
pub fn agent_name(node: &str) -> String {
    format!("node-{node}")
}

/// Kills a process and waits until it is gone. No error if it is gone already.
pub fn kill(pid: u32) -> Result<()> {
    let Some(process) = Process::find(pid) else {
        return Ok(());
    };
    process.signal(Signal::KILL)?;
    if !process.wait_gone(Duration::from_secs(10))? {
        bail!("process {pid} is still there 10 s after it was killed");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
