//! The verbs of a cluster: each one or a few calls of the controller's API.

mod scale;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use hitless_api::{
    AdminState, AtDeadline, BlockingClient, ChangeState, ClientError, ConfigState, ErrorCode,
    Health, Order, Wait,
};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output;
use crate::table::{self, Cell, Tone};
pub(crate) use scale::{ScaleOptions, scale};
use watch::{Watch, follow};

/// Where a controller is when nobody says.
pub(crate) const CONTROLLER_FOLDER: &str = "/run/hitless/controller";

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
struct Deadline {
    /// How long connections may go on
    #[arg(
        id = "deadline",
        long,
        value_name = "TIME",
        value_parser = crate::order::duration
    )]
    after: Option<Duration>,
    /// What then becomes of those that are left
    #[arg(
        long,
        value_name = "WHAT",
        default_value = "close",
        requires = "deadline"
    )]
    at_deadline: Then,
}

impl Deadline {
    /// A part of a second counts as one: nobody is given less time than was asked for.
    fn seconds(&self) -> Option<u64> {
        self.after
            .map(|time| time.as_secs() + u64::from(time.subsec_nanos() > 0))
    }

    fn then(&self) -> AtDeadline {
        match self.at_deadline {
            Then::Close => AtDeadline::Close,
            Then::GiveUp => AtDeadline::GiveUp,
        }
    }
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    /// They are closed, counted and named
    Close,
    /// They go on, and the drain fails
    GiveUp,
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
    #[command(flatten)]
    deadline: Deadline,
    /// The node does not answer, and I know that the machine is off and stays off
    #[arg(long)]
    confirm_off: bool,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    which: Which,
}

#[derive(Args, Debug)]
pub(crate) struct DrainOptions {
    /// A guest or a node
    name: String,
    #[command(flatten)]
    deadline: Deadline,
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
pub(crate) struct CallBackOptions {
    /// The change's name, as `get changes` shows it
    change: String,
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
                &["BUCKETS", "ROW", "SEQUENCE", "WHY", "WAITS UNTIL", "FOR"],
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
                            match &run.wait {
                                None => Cell::toned("settled", Tone::Good),
                                Some(wait) => {
                                    let text = format!("{} [{}]", wait.ends_when, word(&wait.code));
                                    Cell::toned(text, Tone::Doubtful)
                                }
                            },
                            maybe(run.wait.as_ref().and_then(|wait| wait.change.as_ref())).into(),
                        ],
                    )
                },
                None,
            )
        }
        Kind::Changes => {
            let changes = client.changes().map_err(explain)?.items;
            let meant = changes
                .iter()
                .find(|change| Some(change.name.as_str()) == name);
            let more = meant.map(watch::more_of).unwrap_or_default();
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
                            watch::progress_of(change).into(),
                            change
                                .failure
                                .clone()
                                .unwrap_or_else(|| reasons(&change.waits))
                                .into(),
                            watch::ledger_of(change).into(),
                        ],
                    )
                },
                name,
            )?;
            if options.output == Form::Table {
                output::print(&more)?;
            }
            Ok(Exit::Done)
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
    let (name, deadline_s) = (options.name.clone(), options.deadline.seconds());
    let at_deadline = options.deadline.then();
    let order = match options.kind {
        Thing::Node => Order::RemoveNode {
            node: name,
            deadline_s,
            at_deadline,
            confirm_off: options.confirm_off,
        },
        Thing::Guest if options.confirm_off => {
            let message = "--confirm-off is said of a node: of a guest its node tells";
            return Err(Failure::new(Exit::Usage, message).into());
        }
        Thing::Guest => Order::DrainGuest {
            guest: name,
            deadline_s,
            at_deadline,
            remove: true,
        },
    };
    ask(&options.which, &order, &options.watch)
}

pub(crate) fn drain(options: &DrainOptions) -> Result<Exit> {
    let (name, deadline_s) = (options.name.clone(), options.deadline.seconds());
    let at_deadline = options.deadline.then();
    let order = match kind_of(&options.which, &name)? {
        Thing::Node if options.remove => Order::RemoveNode {
            node: name,
            deadline_s,
            at_deadline,
            confirm_off: false,
        },
        Thing::Node => Order::DrainNode {
            node: name,
            deadline_s,
            at_deadline,
        },
        Thing::Guest => Order::DrainGuest {
            guest: name,
            deadline_s,
            at_deadline,
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

/// Undoes a change that is under way.
pub(crate) fn call_back(options: &CallBackOptions) -> Result<Exit> {
    let client = options.which.client();
    let accepted = client.call_back(&options.change).map_err(explain)?;
    follow(&client, &accepted.change, &options.watch)
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

fn reasons(waits: &[Wait]) -> String {
    let mut reasons: Vec<String> = waits
        .iter()
        .take(3)
        .map(|wait| format!("{}: {} [{}]", wait.object, wait.ends_when, word(&wait.code)))
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
