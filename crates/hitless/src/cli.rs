//! The command line.

use anyhow::Result;
use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};
use hitless_types::suggest::closest;

use crate::exit::Exit;
use crate::{
    check, cluster, controller, ingress, lab, node, order, serve, status, tm, version, worker,
};

/// A load balancer that keeps every connection through its own changes.
#[derive(Parser, Debug)]
#[command(
    name = "hitless",
    version = version::long(),
    arg_required_else_help = true,
    infer_subcommands = false,
    after_help = "Exit codes: 0 done, 1 failed or refused, 2 usage, 3 needs the operator, \
                  4 still running at the timeout, 5 unreachable or not allowed."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Balance on this machine, as a site file says; no root needed
    Serve(serve::Options),
    /// Say everything that is wrong with a site file
    Check(check::Options),
    /// Show what runs: virtual servers, pools, members, latest changes
    Status(status::Options),
    /// Apply the changed site file without closing a connection, or refuse it whole
    Reload(order::ChangeOptions),
    /// Start the program that is now on disk and carry every connection over
    Upgrade(order::ChangeOptions),
    /// Take no new connections, let the others finish, and end
    Stop(order::StopOptions),
    /// Print the metrics in the Prometheus text format
    Metrics(order::Options),
    /// The traffic manager of a guest: `serve` with a run folder of its own
    Tm(tm::Options),
    /// Show nodes, guests, buckets, changes or the virtual cluster
    Get(cluster::GetOptions),
    /// Give the cluster a site file
    Apply(cluster::ApplyOptions),
    /// Add a node or a guest to the cluster
    Add(cluster::AddOptions),
    /// Take a node or a guest out of the cluster
    Remove(cluster::RemoveOptions),
    /// Lead new connections past a guest or a node, until it holds none
    Drain(cluster::DrainOptions),
    /// End a drain, half-way or when it is done
    Undrain(cluster::UndrainOptions),
    /// Undo a change that is under way
    CallBack(cluster::CallBackOptions),
    /// Set how many guests the cluster has
    Scale(cluster::ScaleOptions),
    /// The cluster's controller: API, orders, the bucket table
    Controller(controller::Options),
    /// A node's agent: its director and its guests
    Node(node::Options),
    /// Started in a guest by its node's agent, never by hand
    #[command(hide = true)]
    Ingress(ingress::Options),
    /// Try a whole cluster on this machine, in namespaces, under checked traffic
    Lab(lab::Options),
    /// Started by a keeper, never by hand
    #[command(hide = true)]
    Worker(worker::Options),
}

impl Cli {
    pub(crate) fn run(self) -> Result<Exit> {
        match self.command {
            Command::Serve(options) => serve::run(options),
            Command::Check(options) => check::run(&options),
            Command::Status(options) => status::run(&options),
            Command::Reload(options) => order::reload(&options),
            Command::Upgrade(options) => order::upgrade(&options),
            Command::Stop(options) => order::stop(&options),
            Command::Metrics(options) => order::metrics(&options),
            Command::Get(options) => cluster::get(&options),
            Command::Apply(options) => cluster::apply(&options),
            Command::Add(options) => cluster::add(&options),
            Command::Remove(options) => cluster::remove(&options),
            Command::Drain(options) => cluster::drain(&options),
            Command::Undrain(options) => cluster::undrain(&options),
            Command::CallBack(options) => cluster::call_back(&options),
            Command::Scale(options) => cluster::scale(&options),
            Command::Controller(options) => controller::run(options),
            Command::Node(options) => node::run(options),
            Command::Ingress(options) => ingress::run(options),
            Command::Tm(options) => tm::run(options),
            Command::Lab(options) => lab::run(options),
            Command::Worker(options) => worker::run(&options),
        }
    }
}

/// Keeps of the commands that clap takes for meant the one that is a slip away, as `check` does.
pub(crate) fn without_wild_guess(mut error: clap::Error) -> clap::Error {
    let meant = match (
        error.get(ContextKind::InvalidSubcommand),
        error.get(ContextKind::SuggestedSubcommand),
    ) {
        (Some(ContextValue::String(word)), Some(ContextValue::Strings(guesses))) => {
            closest(word, guesses.iter().map(String::as_str)).map(str::to_owned)
        }
        _ => return error,
    };
    match meant {
        Some(meant) => {
            let meant = ContextValue::Strings(vec![meant]);
            error.insert(ContextKind::SuggestedSubcommand, meant);
        }
        None => {
            error.remove(ContextKind::SuggestedSubcommand);
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    /// The reference says of every wait what it waits for, and what an operator can do.
    #[test]
    fn the_reference_has_every_wait() {
        use hitless_api::WaitCode;
        use hitless_core::row::GuestSlot;
        use hitless_core::table::message::DirectorId;
        use hitless_core::table::step::{Stage, Wait};

        let page = include_str!("../../../docs/reference/cli.md");
        let rows = |heading: &str| -> Vec<String> {
            let (_, rest) = page.split_once(heading).expect("the heading");
            let lines = rest.lines().skip_while(|line| !line.starts_with("| `"));
            let rows = lines.take_while(|line| line.starts_with("| `"));
            let code = |line: &str| line.split('`').nth(1).map(str::to_owned);
            rows.filter_map(code).collect()
        };
        // A new one does not compile here until it is in `ALL` as well.
        let in_order = |code: WaitCode| match code {
            WaitCode::NodeNotLinked => 0,
            WaitCode::GuestNotReady => 1,
            WaitCode::NotKnown => 2,
            WaitCode::GuestNotAcknowledged => 3,
            WaitCode::DirectorNotAcknowledged => 4,
            WaitCode::ConnectionsLive => 5,
            WaitCode::LeaseRuns => 6,
            WaitCode::RowBusy => 7,
            WaitCode::NoGuest => 8,
            WaitCode::TrafficManagerNotReady => 9,
            WaitCode::ProgramNotReplaced => 10,
            WaitCode::Other => 11,
        };
        for (place, code) in WaitCode::ALL.into_iter().enumerate() {
            assert_eq!(in_order(code), place);
        }
        let codes = WaitCode::ALL.map(|code| {
            let value = serde_json::to_value(code).expect("a word");
            value.as_str().expect("a word").to_owned()
        });
        assert_eq!(rows("\n### Codes\n"), codes);

        let (guest, director) = (GuestSlot::new(1).expect("a slot"), DirectorId(1));
        let steps = [
            Wait::Stage(Stage::Leaver),
            Wait::Stage(Stage::Guests),
            Wait::Stage(Stage::Joiner),
            Wait::Stage(Stage::Directors),
            Wait::Connections(guest),
            Wait::Count(guest),
            Wait::Suspect(guest),
            Wait::RowFull,
            Wait::Stray(director),
            Wait::Owner(guest),
            Wait::NoGuest,
        ];
        let steps: Vec<&str> = steps.iter().map(Wait::code).collect();
        assert_eq!(rows("\n### Steps of rows\n"), steps);
    }

    /// The reference has a section for each command, with each of its options.
    #[test]
    fn the_reference_has_every_command_and_option() {
        let page = include_str!("../../../docs/reference/cli.md");
        let cli = super::Cli::command();
        for command in cli
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
        {
            let heading = format!("\n## {}\n", command.get_name());
            let section = page.split_once(&heading).map(|(_, rest)| rest);
            let section = section.unwrap_or_else(|| panic!("no section for {heading}"));
            let section = section.split("\n## ").next().unwrap_or_default();
            for option in command
                .get_arguments()
                .filter_map(|option| option.get_long())
            {
                let found = option == "help" || section.contains(&format!("`--{option}`"));
                assert!(found, "--{option} is not in section {}", command.get_name());
            }
        }
    }
}
