//! `hitless scale`: as many guests as asked for, by one order for each that comes or goes.
//!
//! The loop is this command's: the controller knows the single changes, and not that they belong
//! together. So whoever interrupts it hears what was ordered by then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use hitless_api::{AdminState, AtDeadline, Guest, Node, NodePhase, Order};
use hitless_carry::signals::Signals;
use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;

use super::watch::{Watch, follow_until};
use super::{Which, explain};
use crate::exit::{Exit, Failure};

#[derive(Args, Debug)]
pub(crate) struct ScaleOptions {
    /// How many guests shall serve
    count: usize,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    which: Which,
}

/// Adds guests where there are fewest, or drains those with the highest names and removes them.
pub(crate) fn scale(options: &ScaleOptions) -> Result<Exit> {
    let client = options.which.client();
    let nodes = client.nodes().map_err(explain)?.items;
    let guests = client.guests().map_err(explain)?.items;
    let orders = scaling(&nodes, &guests, options.count)?;
    let so_far = Arc::new(Mutex::new(SoFar::of(orders.len())));
    tell_when_interrupted(Arc::clone(&so_far))?;
    let mut changes = Vec::with_capacity(orders.len());
    for order in &orders {
        let change = client.order(order).map_err(explain)?.change;
        lock(&so_far).ordered.push(change.clone());
        changes.push(change);
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
        lock(&so_far).over += 1;
    }
    Ok(Exit::Done)
}

/// What of a scale has been done, for whoever interrupts it: nobody else goes on with the rest.
#[derive(Default, Debug)]
struct SoFar {
    of: usize,
    ordered: Vec<String>,
    over: usize,
}

impl SoFar {
    fn of(count: usize) -> Self {
        Self {
            of: count,
            ..Self::default()
        }
    }

    fn told(&self) -> String {
        let Self { of, ordered, over } = self;
        let count = ordered.len();
        if count == 0 {
            return "interrupted: nothing was ordered".to_owned();
        }
        let are = |count: usize, one: &'static str, more: &'static str| match count {
            1 => one,
            _ => more,
        };
        let mut text = format!(
            "interrupted: {count} of {of} changes {} ordered and {} on, {over} of them {} done: {}",
            are(count, "was", "were"),
            are(count, "goes", "go"),
            are(*over, "is", "are"),
            ordered.join(", ")
        );
        let left = of - count;
        if left > 0 {
            text.push_str(&format!(
                "; {left} {} not ordered",
                are(left, "was", "were")
            ));
        }
        text + "; `hitless get changes` shows them"
    }
}

fn lock(so_far: &Mutex<SoFar>) -> MutexGuard<'_, SoFar> {
    so_far.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ctrl-C ends the command with what it has done so far. Called before there are other threads.
fn tell_when_interrupted(so_far: Arc<Mutex<SoFar>>) -> Result<()> {
    const INTERRUPTED: i32 = 130;
    let signals = [Signal::INT, Signal::TERM].map(Signal::as_raw);
    let signals = Signals::open(&signals).context("cannot take signals")?;
    std::thread::Builder::new()
        .name("interrupted".to_owned())
        .spawn(move || {
            let mut asked = [PollFd::new(&signals, PollFlags::IN)];
            while rustix::event::poll(&mut asked, None).is_err() || signals.next().is_none() {}
            eprintln!("\n{}", lock(&so_far).told());
            std::process::exit(INTERRUPTED);
        })
        .context("cannot start a thread")?;
    Ok(())
}

/// Guests that `scale` gives to a node: some 200 MiB and a handful of processes each, and a slip of
/// the finger is no order for a thousand.
const GUESTS_PER_NODE_MAX: usize = 16;

/// What has to be ordered for `count` guests to serve.
fn scaling(nodes: &[Node], guests: &[Guest], count: usize) -> Result<Vec<Order>> {
    if count == 0 {
        let message = "with 0 guests nobody would serve: take the last ones away by their names";
        return Err(Failure::new(Exit::Usage, message).into());
    }
    // Nodes that have joined and answer: a guest on any other serves nobody, nor will it soon.
    let can_serve = |node: &&Node| node.linked && node.phase == NodePhase::Joined;
    let nodes: Vec<&Node> = nodes.iter().filter(can_serve).collect();
    let serves = |guest: &&Guest| {
        guest.admin == AdminState::Ready && nodes.iter().any(|node| node.name == guest.node)
    };
    let serving: Vec<&Guest> = guests.iter().filter(serves).collect();
    let mut names: Vec<String> = serving.iter().map(|guest| guest.name.clone()).collect();
    let mut per_node: Vec<(usize, &str)> = nodes
        .iter()
        .map(|node| {
            let here = serving.iter().filter(|guest| guest.node == node.name);
            (here.count(), node.name.as_str())
        })
        .collect();
    let room = nodes.len() * GUESTS_PER_NODE_MAX;
    if count > room.max(names.len()) {
        let message = format!(
            "{} nodes answer, which take {room} guests: {GUESTS_PER_NODE_MAX} each",
            nodes.len()
        );
        return Err(Failure::new(Exit::Failed, message).into());
    }
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
            at_deadline: AtDeadline::Close,
            remove: true,
        });
    }
    Ok(orders)
}

#[cfg(test)]
mod tests;
