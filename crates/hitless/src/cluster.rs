//! The verbs of a cluster: each one or a few calls of the controller's API.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use hitless_api::{
    AdminState, BlockingClient, Change, ChangeState, ClientError, ConfigState, ErrorCode, Guest,
    Health, Node, Order, Wait,
};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output;
use crate::table::{self, Cell, Tone};

/// Where a controller is when nobody says.
pub(crate) const CONTROLLER_FOLDER: &str = "/run/hitless/controller";
/// How often a change that is watched is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Args, Clone, Debug)]
pub(crate) struct Which {
    /// The controller's run folder
    #[arg(long, value_name = "DIR", env = "HITLESS_CONTROLLER", default_value = CONTROLLER_FOLDER)]
    controller: PathBuf,
}

impl Which {
    fn client(&self) -> BlockingClient {
        BlockingClient::new(self.controller.join(hitless_api::SOCKET_NAME))
    }
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Table,
    Json,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    #[value(alias = "node")]
    Nodes,
    #[value(alias = "guest")]
    Guests,
    #[value(alias = "bucket")]
    Buckets,
    #[value(alias = "change")]
    Changes,
    #[value(alias = "virtual-clusters")]
    VirtualCluster,
}

#[derive(Args, Debug)]
pub(crate) struct GetOptions {
    kind: Kind,
    /// Only the one of this name
    name: Option<String>,
    #[arg(short, long, default_value = "table")]
    output: Form,
    #[command(flatten)]
    which: Which,
}

#[derive(Args, Debug)]
pub(crate) struct ApplyOptions {
    /// The site file, as `hitless serve` takes it
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    which: Which,
}

#[derive(Args, Clone, Debug)]
struct Watch {
    /// Follow the change until it is over
    #[arg(long)]
    watch: bool,
    /// How long to follow it; it goes on after that
    #[arg(long, value_name = "TIME", value_parser = crate::order::duration, requires = "watch")]
    timeout: Option<Duration>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Thing {
    Node,
    Guest,
}

#[derive(Args, Debug)]
pub(crate) struct AddOptions {
    kind: Thing,
    name: String,
    /// The node that the guest runs on
    #[arg(long, required_if_eq("kind", "guest"))]
    node: Option<String>,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    which: Which,
}

#[derive(Args, Debug)]
pub(crate) struct RemoveOptions {
    kind: Thing,
    name: String,
    /// After this, connections that are left are closed, and counted
    #[arg(long, value_name = "TIME", value_parser = crate::order::duration)]
    deadline: Option<Duration>,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    which: Which,
}

#[derive(Args, Debug)]
pub(crate) struct DrainOptions {
    /// A guest or a node
    name: String,
    /// After this, connections that are left are closed, and counted
    #[arg(long, value_name = "TIME", value_parser = crate::order::duration)]
    deadline: Option<Duration>,
    /// Remove the guest when it is empty
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    which: Which,
}

#[derive(Args, Debug)]
pub(crate) struct UndrainOptions {
    /// A guest or a node
    name: String,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    which: Which,
}

#[derive(Args, Debug)]
pub(crate) struct ScaleOptions {
    /// How many guests shall serve
    count: usize,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    which: Which,
}

pub(crate) fn get(options: &GetOptions) -> Result<Exit> {
    let client = options.which.client();
    let name = options.name.as_deref();
    match options.kind {
        Kind::Nodes => {
            let nodes = client.nodes().map_err(explain)?.items;
            let heading = [
                "NAME", "PHASE", "ADMIN", "HEALTH", "CONFIG", "DIRECTOR", "XDP", "GUESTS",
            ];
            show(
                options,
                "node",
                nodes,
                &heading,
                |node| {
                    (
                        &node.name,
                        vec![
                            node.name.clone().into(),
                            word(&node.phase).into(),
                            admin(node.admin),
                            health(&node.health),
                            config(&node.config),
                            maybe(node.director).into(),
                            maybe(node.xdp.as_ref()).into(),
                            joined(&node.guests).into(),
                        ],
                    )
                },
                name,
            )
        }
        Kind::Guests => {
            let guests = client.guests().map_err(explain)?.items;
            let heading = [
                "NAME", "NODE", "PHASE", "ADMIN", "HEALTH", "CONFIG", "SLOT", "LIVE", "OWNS",
                "STANDBY", "PROGRAM",
            ];
            show(
                options,
                "guest",
                guests,
                &heading,
                |guest| {
                    (
                        &guest.name,
                        vec![
                            guest.name.clone().into(),
                            guest.node.clone().into(),
                            word(&guest.phase).into(),
                            admin(guest.admin),
                            health(&guest.health),
                            config(&guest.config),
                            maybe(guest.slot).into(),
                            guest
                                .live
                                .map_or("?".to_owned(), |live| live.to_string())
                                .into(),
                            guest.buckets_owned.into(),
                            guest.buckets_standby.into(),
                            maybe(guest.program.as_ref()).into(),
                        ],
                    )
                },
                name,
            )
        }
        Kind::Buckets => {
            let runs = match name {
                None => client.buckets().map_err(explain)?.items,
                Some(number) => {
                    let usage = |_| {
                        Failure::new(Exit::Usage, format!("{number:?} is no bucket: 0 to 65535"))
                    };
                    vec![
                        client
                            .bucket(number.parse().map_err(usage)?)
                            .map_err(explain)?,
                    ]
                }
            };
            static NONE: String = String::new();
            show(
                options,
                "bucket",
                runs,
                &["BUCKETS", "ROW", "SEQUENCE", "REASON"],
                |run| {
                    (
                        &NONE,
                        vec![
                            if run.first == run.last {
                                run.first.to_string()
                            } else {
                                format!("{}-{}", run.first, run.last)
                            }
                            .into(),
                            run.row.join(" > ").into(),
                            run.sequence.into(),
                            run.reason.clone().into(),
                        ],
                    )
                },
                None,
            )
        }
        Kind::Changes => {
            let changes = client.changes().map_err(explain)?.items;
            let heading = ["NAME", "OBJECT", "STATE", "PROGRESS", "WAITS FOR", "LEDGER"];
            show(
                options,
                "change",
                changes,
                &heading,
                |change| {
                    (
                        &change.name,
                        vec![
                            change.name.clone().into(),
                            maybe(change.object.as_ref()).into(),
                            Cell::toned(
                                word(&change.state),
                                match change.state {
                                    ChangeState::Done => Tone::Good,
                                    ChangeState::Failed => Tone::Bad,
                                    ChangeState::Waiting
                                    | ChangeState::Doing
                                    | ChangeState::CalledBack => Tone::Plain,
                                },
                            ),
                            format!(
                                "{}/{} {}",
                                change.progress.done, change.progress.total, change.progress.unit
                            )
                            .into(),
                            change
                                .failure
                                .clone()
                                .unwrap_or_else(|| reasons(&change.waits))
                                .into(),
                            change.ledger.into(),
                        ],
                    )
                },
                name,
            )
        }
        Kind::VirtualCluster => {
            let clusters = client.virtual_clusters().map_err(explain)?.items;
            let heading = ["NAME", "VNI", "ADDRESSES", "GUESTS", "MOVING", "IMBALANCE"];
            show(
                options,
                "virtual cluster",
                clusters,
                &heading,
                |cluster| {
                    (
                        &cluster.name,
                        vec![
                            cluster.name.clone().into(),
                            cluster.vni.into(),
                            joined(&cluster.addresses).into(),
                            joined(&cluster.guests).into(),
                            cluster.buckets_moving.into(),
                            cluster
                                .imbalance
                                .map_or("-".to_owned(), |figure| format!("{figure:.3}"))
                                .into(),
                        ],
                    )
                },
                name,
            )
        }
    }
}

/// Prints objects as they were asked for: all, or the one of a name.
fn show<T: Serialize>(
    options: &GetOptions,
    kind: &str,
    objects: Vec<T>,
    heading: &[&str],
    row: impl Fn(&T) -> (&String, Vec<Cell>),
    name: Option<&str>,
) -> Result<Exit> {
    let is_meant = |object: &T| name.is_none_or(|name| row(object).0 == name);
    let found: Vec<&T> = objects.iter().filter(|object| is_meant(object)).collect();
    if let (Some(name), true) = (name, found.is_empty()) {
        let message = format!("there is no {kind} named \"{name}\"");
        return Err(Failure::new(Exit::Failed, message).into());
    }
    match options.output {
        Form::Json => output::print_json(&found)?,
        Form::Table => {
            let rows: Vec<Vec<Cell>> = found.iter().map(|object| row(object).1).collect();
            output::print(&table::render(heading, &rows, output::is_coloured()))?;
        }
    }
    Ok(Exit::Done)
}

pub(crate) fn apply(options: &ApplyOptions) -> Result<Exit> {
    let text = std::fs::read_to_string(&options.file)
        .with_context(|| format!("cannot read {}", options.file.display()))?;
    let client = options.which.client();
    let accepted = client.put_site(&text).map_err(explain)?;
    follow(&client, &accepted.change, &options.watch)
}

pub(crate) fn add(options: &AddOptions) -> Result<Exit> {
    let name = options.name.clone();
    let order = match (options.kind, &options.node) {
        (Thing::Node, None) => Order::AddNode { node: name },
        (Thing::Node, Some(_)) => {
            let message = "--node says where a guest runs; a node is added by its name alone";
            return Err(Failure::new(Exit::Usage, message).into());
        }
        (Thing::Guest, node) => Order::AddGuest {
            guest: name,
            node: node.clone().unwrap_or_default(),
        },
    };
    ask(&options.which, &order, &options.watch)
}

pub(crate) fn remove(options: &RemoveOptions) -> Result<Exit> {
    let (name, deadline_s) = (options.name.clone(), seconds(options.deadline));
    let order = match options.kind {
        Thing::Node => Order::RemoveNode {
            node: name,
            deadline_s,
        },
        Thing::Guest => Order::DrainGuest {
            guest: name,
            deadline_s,
            remove: true,
        },
    };
    ask(&options.which, &order, &options.watch)
}

pub(crate) fn drain(options: &DrainOptions) -> Result<Exit> {
    let (name, deadline_s) = (options.name.clone(), seconds(options.deadline));
    let order = match kind_of(&options.which, &name)? {
        Thing::Node if options.remove => Order::RemoveNode {
            node: name,
            deadline_s,
        },
        Thing::Node => Order::DrainNode {
            node: name,
            deadline_s,
        },
        Thing::Guest => Order::DrainGuest {
            guest: name,
            deadline_s,
            remove: options.remove,
        },
    };
    ask(&options.which, &order, &options.watch)
}

pub(crate) fn undrain(options: &UndrainOptions) -> Result<Exit> {
    let name = options.name.clone();
    let order = match kind_of(&options.which, &name)? {
        Thing::Node => Order::UndrainNode { node: name },
        Thing::Guest => Order::UndrainGuest { guest: name },
    };
    ask(&options.which, &order, &options.watch)
}

/// Adds guests where there are fewest, or drains those with the highest names and removes them.
pub(crate) fn scale(options: &ScaleOptions) -> Result<Exit> {
    let client = options.which.client();
    let nodes = client.nodes().map_err(explain)?.items;
    let guests = client.guests().map_err(explain)?.items;
    let orders = scaling(&nodes, &guests, options.count)?;
    let mut changes = Vec::with_capacity(orders.len());
    for order in &orders {
        changes.push(client.order(order).map_err(explain)?.change);
    }
    // All are under way before the first is waited for.
    let until = options
        .watch
        .timeout
        .map(|timeout| Instant::now() + timeout);
    for change in &changes {
        let exit = follow_until(&client, change, options.watch.watch, until)?;
        if exit != Exit::Done {
            return Ok(exit);
        }
    }
    Ok(Exit::Done)
}

/// What has to be ordered for `count` guests to serve.
fn scaling(nodes: &[Node], guests: &[Guest], count: usize) -> Result<Vec<Order>> {
    let serving: Vec<&Guest> = guests
        .iter()
        .filter(|guest| guest.admin == AdminState::Ready)
        .collect();
    let mut names: Vec<String> = serving.iter().map(|guest| guest.name.clone()).collect();
    let mut per_node: Vec<(usize, &str)> = nodes
        .iter()
        .filter(|node| node.admin == AdminState::Ready)
        .map(|node| {
            let here = serving.iter().filter(|guest| guest.node == node.name);
            (here.count(), node.name.as_str())
        })
        .collect();
    // A guest that still drains keeps its name.
    let mut free = (1..)
        .map(|number| format!("guest-{number}"))
        .filter(|name| guests.iter().all(|guest| guest.name != *name));
    let mut orders = Vec::new();
    while names.len() < count {
        per_node.sort_unstable();
        let (Some((here, node)), Some(guest)) = (per_node.first_mut(), free.next()) else {
            return Err(Failure::new(Exit::Failed, "no node can take a guest").into());
        };
        *here += 1;
        names.push(guest.clone());
        orders.push(Order::AddGuest {
            guest,
            node: (*node).to_owned(),
        });
    }
    names.sort();
    for guest in names.into_iter().skip(count) {
        orders.push(Order::DrainGuest {
            guest,
            deadline_s: None,
            remove: true,
        });
    }
    Ok(orders)
}

fn ask(which: &Which, order: &Order, watch: &Watch) -> Result<Exit> {
    let client = which.client();
    let accepted = client.order(order).map_err(explain)?;
    follow(&client, &accepted.change, watch)
}

/// Whether a name is a guest's or a node's.
fn kind_of(which: &Which, name: &str) -> Result<Thing> {
    let client = which.client();
    if client
        .guests()
        .map_err(explain)?
        .items
        .iter()
        .any(|guest| guest.name == name)
    {
        return Ok(Thing::Guest);
    }
    if client
        .nodes()
        .map_err(explain)?
        .items
        .iter()
        .any(|node| node.name == name)
    {
        return Ok(Thing::Node);
    }
    let message = format!("there is no guest and no node named \"{name}\"");
    Err(Failure::new(Exit::Failed, message).into())
}

/// Follows a change, if asked to: a line that changes on a terminal, a line per change of it when
/// piped.
fn follow(client: &BlockingClient, name: &str, watch: &Watch) -> Result<Exit> {
    let until = watch.timeout.map(|timeout| Instant::now() + timeout);
    follow_until(client, name, watch.watch, until)
}

fn follow_until(
    client: &BlockingClient,
    name: &str,
    watches: bool,
    until: Option<Instant>,
) -> Result<Exit> {
    if !watches {
        output::print(&format!("{name}\n"))?;
        return Ok(Exit::Done);
    }
    let is_terminal = std::io::stderr().is_terminal();
    if is_terminal {
        eprintln!("(Ctrl-C stops watching, not the change; `hitless get changes {name}` shows it)");
    }
    let mut last = String::new();
    loop {
        // A controller that is being restarted is no reason to stop watching.
        match client.change(name) {
            Ok(change) => {
                let line = line_of(&change);
                if line != last {
                    let mut stderr = std::io::stderr().lock();
                    let _ = match is_terminal {
                        true => write!(stderr, "\r\x1b[K{line}"),
                        false => writeln!(stderr, "{line}"),
                    };
                    last = line;
                }
                if change.state.is_over() {
                    if is_terminal {
                        eprintln!();
                    }
                    output::print(&format!(
                        "{}: {}; {}\n",
                        change.name,
                        word(&change.state),
                        change.ledger
                    ))?;
                    return match (change.state, change.failure) {
                        (ChangeState::Done, _) => Ok(Exit::Done),
                        (_, Some(failure)) => Err(Failure::new(Exit::Failed, failure).into()),
                        (_, None) => Ok(Exit::Failed),
                    };
                }
            }
            Err(
                ClientError::Unreachable { .. } | ClientError::Broken(_) | ClientError::TimedOut(_),
            ) => {}
            Err(error) => return Err(explain(error).into()),
        }
        if until.is_some_and(|until| until <= Instant::now()) {
            return Ok(Exit::StillRunning);
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

fn line_of(change: &Change) -> String {
    let Change {
        name,
        progress,
        waits,
        ..
    } = change;
    let waits = if waits.is_empty() {
        String::new()
    } else {
        format!("  waits until {}", reasons(waits))
    };
    format!(
        "{name}  {}  {}/{} {}{waits}",
        word(&change.state),
        progress.done,
        progress.total,
        progress.unit
    )
}

fn reasons(waits: &[Wait]) -> String {
    let mut reasons: Vec<String> = waits
        .iter()
        .take(3)
        .map(|wait| format!("{}: {}", wait.object, wait.ends_when))
        .collect();
    if waits.len() > reasons.len() {
        reasons.push(format!("and {} more", waits.len() - reasons.len()));
    }
    if reasons.is_empty() {
        "-".into()
    } else {
        reasons.join("; ")
    }
}

fn explain(error: ClientError) -> Failure {
    match error {
        ClientError::Unreachable { ref source, .. } => {
            let message = format!("{error}: {source}");
            Failure::new(Exit::Unreachable, message).hint(
                "start one with `hitless controller`, or name its run folder with --controller",
            )
        }
        ClientError::Refused(refusal) => {
            let exit = match refusal.code {
                ErrorCode::Forbidden | ErrorCode::Unavailable => Exit::Unreachable,
                ErrorCode::Invalid
                | ErrorCode::NotFound
                | ErrorCode::Conflict
                | ErrorCode::Refused
                | ErrorCode::TooLarge
                | ErrorCode::Internal => Exit::Failed,
            };
            Failure::new(exit, refusal.to_string())
        }
        ClientError::Broken(_) | ClientError::TimedOut(_) | ClientError::Unreadable(_) => {
            Failure::new(Exit::Unreachable, error.to_string())
        }
    }
}

/// The API's own word for a state.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(_) | Err(_) => "?".into(),
    }
}

fn admin(state: AdminState) -> Cell {
    let tone = if state == AdminState::Ready {
        Tone::Good
    } else {
        Tone::Doubtful
    };
    Cell::toned(word(&state), tone)
}

fn health(health: &Health) -> Cell {
    match health {
        Health::Up => Cell::toned("up", Tone::Good),
        Health::Down { reason, .. } => Cell::toned(format!("down ({reason})"), Tone::Bad),
        Health::Unknown { reason } => Cell::toned(format!("unknown ({reason})"), Tone::Doubtful),
    }
}

fn config(config: &ConfigState) -> Cell {
    match config {
        ConfigState::Synced => Cell::toned("synced", Tone::Good),
        ConfigState::Pending { reason } => {
            Cell::toned(format!("pending ({reason})"), Tone::Doubtful)
        }
        ConfigState::Rejected { .. } => Cell::toned("rejected", Tone::Bad),
    }
}

fn maybe(value: Option<impl ToString>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

fn joined(names: &[String]) -> String {
    if names.is_empty() {
        "-".into()
    } else {
        names.join(",")
    }
}

fn seconds(time: Option<Duration>) -> Option<u64> {
    time.map(|time| time.as_secs())
}

#[cfg(test)]
mod tests;
