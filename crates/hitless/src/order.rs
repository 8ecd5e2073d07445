//! `hitless reload`, `upgrade`, `stop` and `metrics`: orders to a running program.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use hitless_tm::control::{Client, ControlError, Outcome, Reply, Request};

use crate::exit::{Exit, Failure};
use crate::find::Which;
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    which: Which,
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
}

/// How often a program that ends is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) fn reload(options: &Options) -> Result<Exit> {
    let reply = options.which.call(Request::Reload)?;
    conclude(
        &reply,
        "nothing is applied; the configuration in force stays",
    )
}

pub(crate) fn upgrade(options: &Options) -> Result<Exit> {
    let reply = options.which.call(Request::Upgrade)?;
    conclude(&reply, "no upgrade; the program that ran before goes on")
}

pub(crate) fn metrics(options: &Options) -> Result<Exit> {
    let reply = options.which.call(Request::Metrics)?;
    conclude(&reply, "no metrics")
}

pub(crate) fn stop(options: &StopOptions) -> Result<Exit> {
    let (folder, client) = options.which.find()?;
    let reply = match client.call(Request::Stop) {
        // It had nothing to drain and was gone before it could answer.
        Err(ControlError::Ended) => return Ok(Exit::Done),
        reply => reply?,
    };
    let exit = conclude(&reply, "the program does not stop")?;
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
    match end.recv_timeout(left) {
        Err(RecvTimeoutError::Timeout) => {
            let failure = Failure::new(Exit::StillRunning, "the drain is not over yet");
            return Err(failure
                .hint("it goes on; `hitless status` shows what is left")
                .into());
        }
        // Gone already, or one of another release that does not tell.
        Err(RecvTimeoutError::Disconnected) | Ok(Err(_)) => {}
        // It says what it had to cut.
        Ok(Ok(reply)) if reply.outcome == Outcome::Done && !reply.body.is_empty() => {
            output::print(&reply.body)?;
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
    Ok(exit)
}

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
            let message = if body.is_empty() {
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
