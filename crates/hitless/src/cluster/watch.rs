//! Following a change: how far it is, what it waits for, and what it cost.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use hitless_api::{BlockingClient, Change, ChangeState, ClientError, Closed, Death, Drain};

use super::{explain, reasons, word};
use crate::exit::{Exit, Failure};
use crate::{output, table};

/// How often a change that is watched is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

#[derive(Args, Clone, Debug)]
pub(super) struct Watch {
    /// Follow the change until it is over
    #[arg(long)]
    pub(super) watch: bool,
    /// How long to follow it; it goes on after that
    #[arg(long, value_name = "TIME", value_parser = crate::order::duration, requires = "watch")]
    pub(super) timeout: Option<Duration>,
}

/// Follows a change, if asked to: a line that changes on a terminal, a line per change of it when
/// piped.
pub(super) fn follow(client: &BlockingClient, name: &str, watch: &Watch) -> Result<Exit> {
    let until = watch.timeout.map(|timeout| Instant::now() + timeout);
    follow_until(client, name, watch.watch, until)
}

pub(super) fn follow_until(
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
                let line = line_of(&change, now_us());
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
                    output::print(&end_of(&change))?;
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
        std::thread::sleep(INTERVAL);
    }
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

/// One line of a change that is under way.
fn line_of(change: &Change, now_us: u64) -> String {
    let Change {
        name, waits, drain, ..
    } = change;
    let drain = drain
        .as_ref()
        .filter(|_| !change.state.is_over())
        .map_or(String::new(), |drain| format!("  {}", pace(drain, now_us)));
    let waits = if waits.is_empty() {
        String::new()
    } else {
        format!("  waits until {}", reasons(waits))
    };
    let progress = progress_of(change);
    format!("{name}  {}  {progress}{drain}{waits}", word(&change.state))
}

/// How far it is. A change that nothing has to be done for yet has no figures.
pub(super) fn progress_of(change: &Change) -> String {
    let progress = &change.progress;
    match progress.total {
        0 => "-".to_owned(),
        total => format!("{}/{total} {}", progress.done, progress.unit),
    }
}

/// How a drain gets on: what is left, how fast it goes, and when it may be over.
fn pace(drain: &Drain, now_us: u64) -> String {
    let left = match drain.left {
        Some(1) => "1 connection left".to_owned(),
        left => format!("{} connections left", table::number(left)),
    };
    let rate = match drain.ends_per_s {
        Some(rate) => format!(", {rate:.1} end per second"),
        None => String::new(),
    };
    let end = match drain.ends_us {
        Some(at) => {
            let seconds = at.saturating_sub(now_us).div_ceil(1_000_000);
            format!(
                "; end in about {} ({})",
                table::age(seconds * 1_000),
                drain.estimate
            )
        }
        None => format!("; end: {}", drain.estimate),
    };
    format!("{left}{rate}{end}")
}

/// What is said of a change that is over.
fn end_of(change: &Change) -> String {
    format!(
        "{}: {}; {}\n{}",
        change.name,
        word(&change.state),
        ledger_of(change),
        more_of(change)
    )
}

/// A ledger, and whether it is an estimate.
pub(super) fn ledger_of(change: &Change) -> String {
    let by_counts = change.ledger_by_counts && change.ledger.connections > 0;
    format!(
        "{}{}",
        change.ledger,
        if by_counts {
            " (of the whole cluster, estimated from counts)"
        } else {
            ""
        }
    )
}

/// What of a change needs more than its line: whom it closed, how a guest died.
pub(super) fn more_of(change: &Change) -> String {
    let unknown = match change.unknown_reset {
        0 => String::new(),
        1 => "  1 packet met no connection on any guest and was answered by a reset\n".to_owned(),
        many => {
            format!("  {many} packets met no connection on any guest and were answered by resets\n")
        }
    };
    let closed = change.closed.as_ref().map(closed).unwrap_or_default();
    let death = change.death.as_ref().map(death).unwrap_or_default();
    unknown + &closed + &death
}

/// A death in its order, from the first thing that was seen of it.
fn death(death: &Death) -> String {
    let last_believed = death.believed_us.values().max().copied();
    let seen = death.believed_us.values().min().copied();
    let Some(began) = [death.cut_us, seen].into_iter().flatten().min() else {
        return "nobody saw when it died\n".to_owned();
    };
    let after = |at: u64| match at.checked_sub(began) {
        Some(us) => format!("{} ms after", us / 1_000),
        None => format!("{} ms before", (began - at) / 1_000),
    };
    let after = |at: Option<u64>| at.map_or("?".to_owned(), after);
    let first = match death.cut_us {
        Some(_) => "its link was cut",
        None => "a director believed it dead",
    };
    let directors = death.believed_us.len();
    let held = match (death.connections, death.counted_us) {
        (Some(held), Some(counted)) => {
            format!("{held} connections, counted {} that", after(Some(counted)))
        }
        _ => "?".to_owned(),
    };
    format!(
        "{first} (on {}, slot {})\n\
         \x20 last packet sent to it      {}\n\
         \x20 believed dead by all        {} ({directors} directors)\n\
         \x20 told to a controller        {}\n\
         \x20 no row names it             {}\n\
         \x20 it held                     {held}\n",
        death.node,
        death.slot,
        after(death.last_packet_us),
        after(last_believed),
        after(Some(death.seen_us)),
        after(death.rows_us),
    )
}

/// Connections that a deadline closed, a line each.
fn closed(closed: &Closed) -> String {
    let plural = if closed.total == 1 { "" } else { "s" };
    let mut text = format!(
        "closed at the deadline: {} connection{plural}\n",
        closed.total
    );
    for one in &closed.named {
        let server = match &one.virtual_server {
            Some(name) => format!("{name} ({})", one.server),
            None => one.server.clone(),
        };
        text.push_str(&format!("  {} to {server}, on {}\n", one.client, one.guest));
    }
    if closed.left_out > 0 {
        text.push_str(&format!("  and {} more, not listed\n", closed.left_out));
    }
    text
}

#[cfg(test)]
mod tests;
