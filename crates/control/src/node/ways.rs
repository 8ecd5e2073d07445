//! The threads that know by which next hop each guest on another node is reached, and whose link is
//! cut.
//!
//! The kernel tells of every change of links, neighbours and routes as it happens; then its routes
//! and neighbours are asked, so that the director needs no look-up of its own. A way that is not
//! known is asked for, and left out until it is. Where telling fails, a slow look finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::time::Duration;

use super::Event;
use crate::plane::Way;

/// What nobody told of is found within this.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// While a way is not known: the next hop is asked for again.
const LOOK_EVERY_IF_MISSING: Duration = Duration::from_millis(50);
/// Changes that come together are looked at together.
const CHANGES_TOGETHER: Duration = Duration::from_millis(2);

/// What happened on a node's network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Packets can pass this interface, or no longer.
    Link { ifindex: u32, is_running: bool },
    /// Ways may have changed.
    Ways,
}

/// What knows the ways of a node.
pub trait Underlay: Send {
    /// The ways to these addresses, as far as known; what is not known is asked for.
    fn ways(&mut self, to: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Way>;

    /// Tells of changes from now on, from a thread of its own, until `tell` says false. One that
    /// cannot tell is looked at now and then.
    fn watch(&self, tell: Box<dyn Fn(Change) -> bool + Send>) {
        drop(tell);
    }
}

/// What the thread is told.
pub(super) enum Wish {
    /// The ways to these are wanted.
    To(BTreeSet<IpAddr>),
    Look,
}

/// Starts the threads; wishes go into what it returns.
pub(super) fn keep(underlay: Box<dyn Underlay>, events: SyncSender<Event>) -> Sender<Wish> {
    let (sender, wishes) = channel();
    let (told, looks) = (events.clone(), sender.clone());
    underlay.watch(Box::new(move |change| match change {
        Change::Link { .. } => {
            told.send(Event::Network(change)).is_ok() && looks.send(Wish::Look).is_ok()
        }
        Change::Ways => looks.send(Wish::Look).is_ok(),
    }));
    std::thread::spawn(move || follow(underlay, &wishes, &events));
    sender
}

fn follow(mut underlay: Box<dyn Underlay>, wishes: &Receiver<Wish>, events: &SyncSender<Event>) {
    let mut to = BTreeSet::new();
    let mut known = BTreeMap::new();
    loop {
        let is_complete = to.len() == known.len();
        let patience = if is_complete {
            LOOK_EVERY
        } else {
            LOOK_EVERY_IF_MISSING
        };
        match wishes.recv_timeout(patience) {
            Ok(first) => {
                if matches!(first, Wish::Look) {
                    std::thread::sleep(CHANGES_TOGETHER);
                }
                for wish in std::iter::once(first).chain(wishes.try_iter()) {
                    if let Wish::To(newest) = wish {
                        to = newest;
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let ways = if to.is_empty() {
            BTreeMap::new()
        } else {
            underlay.ways(&to)
        };
        if ways != known {
            known = ways;
            if events.send(Event::Ways(known.clone())).is_err() {
                return;
            }
        }
    }
}
