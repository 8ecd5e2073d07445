//! A worker's end: what it cost, whom it left behind, and who gets that.

use core::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use hitless_carry::process::Ended;
use hitless_carry::slots::{Kind, Slots};

use super::course::{Input, State, Which};
use super::hold::Dead;
use super::process::Worker;
use super::{Keeper, Who};
use crate::clock::now_us;
use crate::control::Outcome;
use crate::ledger::CRASH;
use crate::link::ToWorker;
use crate::status::ChangeKind;

/// Deaths within this are counted for the pause between restarts.
const DEATHS_WINDOW_US: u64 = 10_000_000;

impl Keeper {
    /// A worker's process ended and was collected.
    pub(super) fn on_end(&mut self, which: Which, ended: Ended) {
        self.drain_lanes();
        let slot = match which {
            Which::Current => &mut self.current,
            Which::Next => &mut self.next,
            Which::Leaving => &mut self.leaving,
        };
        let Some(worker) = slot.take() else { return };
        let incarnation = worker.incarnation;
        if which != Which::Leaving {
            // A kill from outside is nobody's fault.
            self.blames = ended != Ended::Signal(libc::SIGKILL);
            if self.held.misses(&self.slots, incarnation) {
                self.search(&worker);
            }
        }
        // Its descriptors are closed before anybody is told that it is gone.
        let pid = worker.process.pid;
        worker.twin.end();
        match which {
            Which::Current => {
                tracing::error!(pid, "worker ended with {ended}");
                self.dead = incarnation;
                self.note(Outcome::Failed, format!("the worker ended with {ended}"));
            }
            Which::Next => {
                self.dead = incarnation;
                self.lost_successor = incarnation;
                self.note(Outcome::Failed, format!("the successor ended with {ended}"));
            }
            Which::Leaving => {}
        }
        self.feed(Input::Ended(which));
    }

    /// Looks for clients that a dead worker had accepted a moment before, and nobody else has.
    fn search(&mut self, worker: &Worker) {
        match worker.twin.ask() {
            Ok(fds) => {
                let known = self.held.cookies();
                let cookie = |fd: &OwnedFd| rustix::net::sockopt::socket_cookie(fd).unwrap_or(0);
                let is_fresh = |fd: &OwnedFd| self.is_clients(fd) && !known.contains(&cookie(fd));
                let fresh: Vec<_> = fds.into_iter().filter(is_fresh).map(Rc::new).collect();
                self.fresh.extend(fresh);
                self.has_searched = true;
                tracing::info!(count = self.fresh.len(), "clients that were just accepted");
            }
            Err(error) => tracing::warn!(%error, "a dead worker's twin does not answer"),
        }
    }

    /// Whether it was accepted at an address of ours.
    fn is_clients(&self, fd: &OwnedFd) -> bool {
        let local = rustix::net::getsockname(fd).ok();
        let Some(local) = local.and_then(|local| SocketAddr::try_from(local).ok()) else {
            return false;
        };
        self.listeners.iter().any(|listener| {
            let bound = listener.bound;
            bound.port() == local.port()
                && (bound.ip().is_unspecified() || bound.ip() == local.ip())
        })
    }

    /// What the successor had committed comes back as after a crash; the rest, its predecessor
    /// still has.
    pub(super) fn take_back(&mut self) {
        self.begin_crash_ledger();
        let successor = self.lost_successor;
        if let Some(current) = &mut self.current {
            current.send(&ToWorker::SuccessorGone { successor });
        }
    }

    pub(super) fn note_crash(&mut self) {
        let now = now_us();
        self.begin_crash_ledger();
        let (sequence, text) = (self.sequence(CRASH), "the worker died");
        self.journal
            .add(ChangeKind::WorkerCrash, now, sequence, text);
        self.restarts += 1;
        for (_, (client, request)) in core::mem::take(&mut self.asked) {
            self.answer_alone(request, Who(Some(client)));
        }
        self.deaths_us.push_back(now);
        while self
            .deaths_us
            .front()
            .is_some_and(|&at| at + DEATHS_WINDOW_US < now)
        {
            self.deaths_us.pop_front();
        }
    }

    fn begin_crash_ledger(&mut self) {
        self.journal.keep_costs(CRASH.of(self.slots.head()), false);
        // Who is being killed does not go on either.
        let living = match self.course {
            State::Clearing => Vec::new(),
            _ => self.living(),
        };
        let connections = unowned(&self.slots, &living);
        CRASH.of(self.slots.head()).begin(now_us(), connections);
    }

    fn living(&self) -> Vec<u32> {
        let workers = [&self.current, &self.next].into_iter().flatten();
        workers.map(|worker| worker.incarnation).collect()
    }

    pub(super) fn send_orphans(&mut self) {
        self.drain_lanes();
        let dead = Dead {
            incarnation: core::mem::take(&mut self.dead),
            has_searched: core::mem::take(&mut self.has_searched),
            fresh: core::mem::take(&mut self.fresh),
        };
        let packets = self.held.orphans(&self.slots, dead, &self.living());
        if let Some(worker) = &mut self.current {
            for (lane, packets) in packets.into_iter().enumerate() {
                for packet in packets {
                    worker.lanes[lane].send(packet);
                }
            }
        }
    }
}

/// Connections that nobody living owns.
fn unowned(slots: &Slots, living: &[u32]) -> u64 {
    let mut count = 0;
    for lane in 0..slots.lanes() {
        for index in 0..slots.slots_per_lane() {
            let slot = slots.slot(lane, index);
            let is_used = slot.kind() != Some(Kind::Free);
            count += u64::from(is_used && !living.contains(&slot.owner.load(Ordering::Relaxed)));
        }
    }
    count
}
