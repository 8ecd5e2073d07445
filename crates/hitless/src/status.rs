//! `hitless status`: what runs, on one screen or as JSON.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use hitless_core::health::{AdminReason, Config, ConfigReason, Health};
use hitless_tm::control::{Outcome, Request};
use hitless_tm::status::{Change, ChangeKind, MemberStatus, Status, VirtualServerStatus};

use crate::exit::{Exit, Failure};
use crate::find::Which;
use crate::output;
use crate::table::{self, Cell, Tone};

#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    which: Which,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Format {
    Table,
    Json,
}

pub(crate) fn run(options: &Options) -> Result<Exit> {
    let reply = options.which.call(Request::Status)?;
    if reply.outcome != Outcome::Done {
        return Err(Failure::new(Exit::Failed, reply.body).into());
    }
    match options.output {
        Format::Json => {
            // The program's own words: fields that this program does not know stay.
            let value: serde_json::Value =
                serde_json::from_str(&reply.body).context("the program's status is not JSON")?;
            output::print_json(&value)?;
        }
        Format::Table => {
            let status: Status = serde_json::from_str(&reply.body)
                .context("the program's status cannot be read; try `-o json`")?;
            output::print(&render(&status, output::is_coloured()))?;
        }
    }
    Ok(Exit::Done)
}

fn render(status: &Status, coloured: bool) -> String {
    let mut text = program(status);
    let rows: Vec<_> = status.virtual_servers.iter().map(server).collect();
    let heading = [
        "VIRTUAL SERVER",
        "LISTEN",
        "PROTOCOL",
        "POOL",
        "ADMIN",
        "HEALTH",
        "CONNECTIONS",
        "TOTAL",
        "REQUESTS",
    ];
    text.push('\n');
    text.push_str(&table::render(&heading, &rows, coloured));
    let members = status
        .pools
        .iter()
        .flat_map(|pool| pool.members.iter().map(|one| member(&pool.name, one)));
    let heading = [
        "POOL",
        "MEMBER",
        "WEIGHT",
        "ADMIN",
        "HEALTH",
        "SINCE",
        "CONNECTIONS",
        "TOTAL",
        "FAILURES",
        "REASON",
    ];
    text.push('\n');
    text.push_str(&table::render(
        &heading,
        &members.collect::<Vec<_>>(),
        coloured,
    ));
    if !status.changes.is_empty() {
        let rows: Vec<_> = status.changes.iter().rev().map(change).collect();
        text.push('\n');
        text.push_str(&table::render(
            &["CHANGE", "AGO", "WHAT IT COST"],
            &rows,
            coloured,
        ));
    }
    text
}

fn program(status: &Status) -> String {
    let program = &status.program;
    let worker = program
        .worker_pid
        .map_or("-".to_owned(), |pid| pid.to_string());
    let config = match &status.config_reason {
        ConfigReason::AsWritten => status.config.to_string(),
        ConfigReason::Applying => format!("{}: being applied", status.config),
        ConfigReason::Refused(why) => format!("{}: {why}", status.config),
        ConfigReason::ChangedSince => format!(
            "{}: the file was changed since; `hitless reload` applies it",
            status.config
        ),
        ConfigReason::Unreadable(why) => format!(
            "{}: the file cannot be read any more ({why})",
            status.config
        ),
    };
    let rejected = match status.config {
        Config::Rejected => "the configuration before it runs on",
        _ => "",
    };
    let mut lines = vec![
        (
            "program",
            format!(
                "build {}, up {}, keeper {}, worker {worker}",
                program.build,
                table::age(program.age_ms),
                program.keeper_pid
            ),
        ),
        ("site", program.site_file.display().to_string()),
        ("config", config),
        // Behind the line that it explains.
        ("", rejected.to_owned()),
        ("run folder", program.run_dir.display().to_string()),
        ("connections", table::number(program.connections)),
    ];
    if program.worker_pid.is_none() {
        let text = "no worker runs at the moment: the next one goes on with what lives";
        lines.insert(1, ("", text.to_owned()));
    }
    if let Some(left_ms) = program.drain_left_ms {
        let left = table::age(left_ms);
        let text = format!("connections may go on for {left} more, then they are cut");
        lines.insert(0, ("stopping", text));
    }
    lines
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name:<12} {value}\n"))
        .collect()
}

fn server(server: &VirtualServerStatus) -> Vec<Cell> {
    vec![
        Cell::from(&server.name),
        Cell::from(server.listen),
        Cell::from(&server.protocol),
        Cell::from(&server.pool),
        Cell::from(server.admin),
        health(server.health),
        Cell::from(table::number(server.traffic.connections)),
        Cell::from(table::number(server.traffic.connections_total)),
        // A virtual server that carries bytes has no requests to count.
        Cell::from(if server.protocol == "tcp" {
            "-".to_owned()
        } else {
            table::number(server.traffic.requests_total)
        }),
    ]
}

fn member(pool: &str, member: &MemberStatus) -> Vec<Cell> {
    vec![
        Cell::from(pool),
        Cell::from(member.address),
        Cell::from(member.weight),
        Cell::from(member.admin),
        health(member.health),
        Cell::from(member.health_age_ms.map_or("-".to_owned(), table::age)),
        Cell::from(table::number(member.traffic.connections)),
        Cell::from(table::number(member.traffic.connections_total)),
        Cell::from(table::number(member.traffic.failures_total)),
        match &member.admin_reason {
            AdminReason::Operator(note) => Cell::from(note),
            AdminReason::Default => Cell::from(&member.health_reason),
        },
    ]
}

fn health(health: Health) -> Cell {
    match health {
        Health::Up => Cell::toned("up", Tone::Good),
        Health::Down => Cell::toned("down", Tone::Bad),
        Health::Unknown => Cell::toned("?", Tone::Doubtful),
    }
}

fn change(change: &Change) -> Vec<Cell> {
    let (kind, tone) = match change.kind {
        ChangeKind::Start => ("start", Tone::Plain),
        ChangeKind::Reload => ("reload", Tone::Plain),
        ChangeKind::ReloadRefused => ("reload refused", Tone::Doubtful),
        ChangeKind::Upgrade => ("upgrade", Tone::Plain),
        ChangeKind::UpgradeFailed => ("upgrade failed", Tone::Bad),
        ChangeKind::WorkerCrash => ("worker crash", Tone::Bad),
        ChangeKind::Quarantine => ("quarantine", Tone::Bad),
    };
    vec![
        Cell::toned(kind, tone),
        Cell::from(table::age(change.age_ms)),
        Cell::from(match (&change.ledger, change.text.as_str()) {
            (_, text) if !text.is_empty() => text.to_owned(),
            (Some(ledger), _) => ledger.to_string(),
            (None, _) => "-".to_owned(),
        }),
    ]
}

#[cfg(test)]
mod tests;
