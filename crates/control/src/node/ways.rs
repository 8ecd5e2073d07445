//! The thread that knows by which next hop each guest on another node is reached.
//!
//! It asks the kernel's routes and neighbours twice a second, and whenever the addresses change, so that the director
//! needs no look-up of its own. A way that is not known is asked for, and left out until it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc::{RecvTimeoutError, Sender, SyncSender, channel};
use std::time::Duration;

use super::Event;
use crate::plane::Way;

/// A next hop that changes its Ethernet address is followed within this.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// While a way is not known.
const LOOK_EVERY_IF_MISSING: Duration = Duration::from_millis(50);

/// What knows the ways of a node.
pub trait Underlay: Send {
    /// The ways to these addresses, as far as known; what is not known is asked for.
    fn ways(&mut self, to: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Way>;
}

/// Starts the thread; addresses go into what it returns.
pub(super) fn keep(
    mut underlay: Box<dyn Underlay>,
    events: SyncSender<Event>,
) -> Sender<BTreeSet<IpAddr>> {
    let (sender, wishes) = channel();
    std::thread::spawn(move || {
        let mut wish = BTreeSet::new();
        let mut known = BTreeMap::new();
        loop {
            let is_complete = wish.len() == known.len();
            match wishes.recv_timeout(if is_complete {
                LOOK_EVERY
            } else {
                LOOK_EVERY_IF_MISSING
            }) {
                Ok(newest) => wish = wishes.try_iter().last().unwrap_or(newest),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let ways = if wish.is_empty() {
                BTreeMap::new()
            } else {
                underlay.ways(&wish)
            };
            if ways != known {
                known = ways;
                if events.send(Event::Ways(known.clone())).is_err() {
                    return;
                }
            }
        }
    });
    sender
}
