//! `hitless reload`, `upgrade`, `stop` and `metrics`: orders to a running program.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

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
                output::print_json(&ended(String::new(), String::new()))?;
            }
            return Ok(Exit::Done);
        }
        reply => reply?,
    };
    let text = reply.body.trim_end().to_owned();
    let exit = match is_json {
        false => conclude(&reply, "the program does not stop")?,
        true => word(reply.outcome).1,
    };
    if is_json && (exit != Exit::Done || options.detach) {
        let outcome = match options.detach {
            true if exit == Exit::Done => "running",
            _ => word(reply.outcome).0,
        };
        output::print_json(&Answer {
            outcome,
            text,
            ..Answer::default()
        })?;
        return Ok(exit);
    }
    if exit != Exit::Done || options.detach {
        return Ok(exit);
    }
    eprintln!("draining (Ctrl-C stops watching, not the drain)");
    let deadline = options.timeout.map(|timeout| Instant::now() + timeout);
    let (sender, end) = channel();
    std::thread::spawn(move || sender.send(client.call(Request::AwaitEnd)));
    let left = deadline.map_or(Duration::MAX, |at| {
        at.saturating_duration_since(Instant::now())
    });
    let mut exit = Exit::Done;
    let mut farewell = String::new();
    match end.recv_timeout(left) {
        Err(RecvTimeoutError::Timeout) => {
            if is_json {
                output::print_json(&Answer {
                    outcome: "running",
                    text,
                    ..Answer::default()
                })?;
            }
            let failure = Failure::new(Exit::StillRunning, "the drain is not over yet");
            return Err(failure
                .hint("it goes on; `hitless status` shows what is left")
                .into());
        }
        // Gone already, or one of another release that does not tell.
        Err(RecvTimeoutError::Disconnected) | Ok(Err(_)) => {}
        // It says what it had to cut.
        Ok(Ok(reply)) if reply.outcome == Outcome::Done && !reply.body.is_empty() => {
            if !is_json {
                output::print(&reply.body)?;
            }
            farewell = reply.body;
            exit = Exit::Failed;
        }
        Ok(Ok(_)) => {}
    }
    while !matches!(
        Client::connect(&folder),
        Err(ControlError::NotRunning { .. })
    ) {
        std::thread::sleep(WATCH_INTERVAL);
    }
    eprintln!("stopped");
    if is_json {
        output::print_json(&ended(text, farewell))?;
    }
    Ok(exit)
}

/// A stop that is over, with what it says that it cut.
fn ended(text: String, farewell: String) -> Answer {
    let cut = match farewell.split_once('\n') {
        None => Cut {
            total: Some(0),
            ..Cut::default()
        },
        Some((first, rest)) => Cut {
            total: first.split(' ').nth(1).and_then(|count| count.parse().ok()),
            connections: rest.lines().filter_map(cut_connection).collect(),
        },
    };
    Answer {
        outcome: "done",
        text: format!("{text}\n{farewell}").trim().to_owned(),
        change: None,
        cut: Some(cut),
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
        assert_eq!(
            ended(String::new(), String::new()).cut.unwrap().total,
            Some(0)
        );
        let listed = "cut 3 connections that outlasted the drain:\n  raw  [::1]:40\n  web  \
                      192.0.2.1:50\n  and 1 more\n";
        let cut = ended("stopping".to_owned(), listed.to_owned()).cut.unwrap();
        let one = |virtual_server: &str, client: &str| CutConnection {
            virtual_server: virtual_server.to_owned(),
            client: client.to_owned(),
        };
        let expected = Cut {
            total: Some(3),
            connections: vec![one("raw", "[::1]:40"), one("web", "192.0.2.1:50")],
        };
        assert_eq!(cut, expected);
        let at_once = ended(
            String::new(),
            "stopped at once: whatever was open is cut\n".into(),
        );
        assert_eq!(at_once.cut.unwrap().total, None);
    }
}
