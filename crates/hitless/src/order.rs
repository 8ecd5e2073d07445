//! `hitless reload`, `upgrade`, `stop` and `metrics`: orders to a running program.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use hitless_tm::control::{Client, ControlError, Outcome, Reply, Request};
use serde::Serialize;
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::find::{Which, unreachable};
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    which: Which,
}

#[derive(Args, Debug)]
pub(crate) struct ChangeOptions {
    #[command(flatten)]
    which: Which,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Format {
    Text,
    Json,
}

/// The answer as JSON.
#[derive(Serialize, Default, PartialEq, Debug)]
struct Answer {
    /// `done`, `refused`, `failed`, or `running` if the time to watch was over first.
    outcome: &'static str,
    /// What the program says.
    text: String,
    /// The change as `status` shows it, with its ledger. `None` of a stop, and if the program
    /// remembers none.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<Value>,
    /// What a stop cut. `None` of anything else, and while that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<Cut>,
}

/// Connections that outlasted a drain.
#[derive(Serialize, Default, PartialEq, Debug)]
struct Cut {
    /// `None`: all that were open, and nobody counted them.
    total: Option<u64>,
    /// The first of them.
    connections: Vec<CutConnection>,
}

#[derive(Serialize, PartialEq, Debug)]
struct CutConnection {
    virtual_server: String,
    client: String,
}

#[derive(Args, Debug)]
pub(crate) struct StopOptions {
    #[command(flatten)]
    which: Which,
    /// Return as soon as the drain has begun
    #[arg(long)]
    detach: bool,
    /// How long to watch the drain; it goes on after that
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "detach")]
    timeout: Option<Duration>,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// How often a program that ends is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) fn reload(options: &ChangeOptions) -> Result<Exit> {
    let failed = "nothing is applied; the configuration in force stays";
    change(options, Request::Reload, failed)
}

pub(crate) fn upgrade(options: &ChangeOptions) -> Result<Exit> {
    let failed = "no upgrade; the program that ran before goes on";
    change(options, Request::Upgrade, failed)
}

fn change(options: &ChangeOptions, request: Request, failed: &str) -> Result<Exit> {
    let (folder, client) = options.which.find()?;
    let reply = client.call(request).map_err(|error| unreachable(&error))?;
    if options.output == Format::Text {
        return conclude(&reply, failed);
    }
    // Asked anew: after an upgrade another program answers.
    let status = Client::connect(&folder).and_then(|client| client.call(Request::Status));
    let status = status
        .ok()
        .and_then(|status| serde_json::from_str::<Value>(&status.body).ok());
    let latest = status.and_then(|status| status["changes"].as_array()?.last().cloned());
    let (outcome, exit) = word(reply.outcome);
    output::print_json(&Answer {
        outcome,
        text: reply.body.trim_end().to_owned(),
        change: latest,
        cut: None,
    })?;
    Ok(exit)
}

const fn word(outcome: Outcome) -> (&'static str, Exit) {
    match outcome {
        Outcome::Done => ("done", Exit::Done),
        Outcome::Refused => ("refused", Exit::Failed),
        Outcome::Failed => ("failed", Exit::Failed),
    }
}

pub(crate) fn metrics(options: &Options) -> Result<Exit> {
    let reply = options.which.call(Request::Metrics)?;
    conclude(&reply, "no metrics")
}

pub(crate) fn stop(options: &StopOptions) -> Result<Exit> {
    let is_json = options.output == Format::Json;
    let (folder, client) = options.which.find()?;
    let reply = match client.call(Request::Stop) {
        // It had nothing to drain and was gone before it could answer.
        Err(ControlError::Ended) => {
            if is_json {
                output::print_json(&ended("", Some("")))?;
            }
            return Ok(Exit::Done);
        }
        reply => reply?,
    };
    let is_over = reply.outcome != Outcome::Done || options.detach;
    let running = || Answer {
        outcome: "running",
        text: reply.body.trim_end().to_owned(),
        ..Answer::default()
    };
    match (is_json, is_over) {
        (true, true) => {
            let (outcome, exit) = match word(reply.outcome) {
                ("done", exit) => ("running", exit),
                other => other,
            };
            output::print_json(&Answer {
                outcome,
                ..running()
            })?;
            return Ok(exit);
        }
        (true, false) => {}
        (false, _) => {
            let exit = conclude(&reply, "the program does not stop")?;
            if is_over {
                return Ok(exit);
            }
        }
    }
    eprintln!("draining (Ctrl-C stops watching, not the drain)");
    let farewell = match await_end(client, options.timeout) {
        End::Later => {
            if is_json {
                output::print_json(&running())?;
            }
            let failure = Failure::new(Exit::StillRunning, "the drain is not over yet");
            let hint = "it goes on; `hitless status` shows what is left";
            return Err(failure.hint(hint).into());
        }
        End::Silent => None,
        End::Said(farewell) => Some(farewell),
    };
    while !matches!(
        Client::connect(&folder),
        Err(ControlError::NotRunning { .. })
    ) {
        std::thread::sleep(WATCH_INTERVAL);
    }
    match is_json {
        true => output::print_json(&ended(&reply.body, farewell.as_deref()))?,
        false => output::print(farewell.as_deref().unwrap_or_default())?,
    }
    eprintln!("stopped");
    // It says what it had to cut, and nothing else.
    Ok(match farewell.as_deref() {
        None | Some("") => Exit::Done,
        Some(_) => Exit::Failed,
    })
}

/// How the watching of a stop ended.
enum End {
    /// The time to watch was over first.
    Later,
    /// The program was gone already, or is of another release that does not tell.
    Silent,
    /// What it cut; empty if nothing.
    Said(String),
}

fn await_end(client: Client, timeout: Option<Duration>) -> End {
    let (sender, end) = channel();
    std::thread::spawn(move || sender.send(client.call(Request::AwaitEnd)));
    match end.recv_timeout(timeout.unwrap_or(Duration::MAX)) {
        Err(RecvTimeoutError::Timeout) => End::Later,
        Ok(Ok(reply)) if reply.outcome == Outcome::Done => End::Said(reply.body),
        Err(RecvTimeoutError::Disconnected) | Ok(_) => End::Silent,
    }
}

/// A stop that is over, with what it says that it cut. `None`: it does not say.
fn ended(text: &str, farewell: Option<&str>) -> Answer {
    let cut = farewell.map(|farewell| match farewell.split_once('\n') {
        None => Cut {
            total: Some(0),
            ..Cut::default()
        },
        Some((first, rest)) => Cut {
            total: first.split(' ').nth(1).and_then(|count| count.parse().ok()),
            connections: rest.lines().filter_map(cut_connection).collect(),
        },
    });
    let text = format!("{}\n{}", text.trim_end(), farewell.unwrap_or_default());
    Answer {
        outcome: "done",
        text: text.trim().to_owned(),
        change: None,
        cut,
    }
}

/// `NAME  ADDRESS`, as the program lists them. `None`: another line.
fn cut_connection(line: &str) -> Option<CutConnection> {
    let (virtual_server, client) = line.trim().split_once("  ")?;
    Some(CutConnection {
        virtual_server: virtual_server.to_owned(),
        client: client.to_owned(),
    })
}

/// What a program that stops answers to any other order.
const IS_STOPPING: &str = "the traffic manager is stopping";

/// Prints the answer: what was done on standard output, why not on standard error.
fn conclude(reply: &Reply, failed: &str) -> Result<Exit> {
    let body = reply.body.trim_end();
    match reply.outcome {
        Outcome::Done => {
            if !body.is_empty() {
                output::print(&format!("{body}\n"))?;
            }
            Ok(Exit::Done)
        }
        Outcome::Refused | Outcome::Failed => {
            // It is no news of the file or the program that it stops.
            let message = if body == IS_STOPPING {
                format!("{body}: it takes no further orders")
            } else if body.is_empty() {
                failed.to_owned()
            } else {
                format!("{failed}\n{body}")
            };
            Err(Failure::new(Exit::Failed, message).into())
        }
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    hitless_types::scalar::duration(text).map_err(|error| format!("it {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stop_cut_is_read_out_of_its_farewell() {
        assert_eq!(ended("", Some("")).cut.unwrap().total, Some(0));
        assert_eq!(ended("", None).cut, None, "not known is not none");
        let listed = "cut 3 connections that outlasted the drain:\n  raw  [::1]:40\n  web  \
                      192.0.2.1:50\n  and 1 more\n";
        let cut = ended("stopping", Some(listed)).cut.unwrap();
        let one = |virtual_server: &str, client: &str| CutConnection {
            virtual_server: virtual_server.to_owned(),
            client: client.to_owned(),
        };
        let expected = Cut {
            total: Some(3),
            connections: vec![one("raw", "[::1]:40"), one("web", "192.0.2.1:50")],
        };
        assert_eq!(cut, expected);
        let at_once = ended("", Some("stopped at once: whatever was open is cut\n"));
        assert_eq!(at_once.cut.unwrap().total, None);
    }
}
