//! Changes that all lanes make together: what each has done is counted, and the keeper hears of it
//! when the last one has. What is known of members goes along.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use hitless_carry::{memory, message};

use super::event_loop::{Command, Report};
use super::removed::RemovedMember;
use super::{Worker, WorkerError};
use crate::ledger::{CRASH, count};
use crate::link::{ToKeeper, ToWorker};
use crate::monitor::{MemberHealth, MemberKey};
use crate::status::VirtualServerStatus;

/// What is known of all members travels below this.
const HEALTH_BYTES_MAX: u64 = 64 << 20;

/// Connections that a drain's end names one by one.
const CUT_SHOWN_MAX: usize = 100;

/// How many lanes have said what.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) applied: usize,
    pub(super) prepared: usize,
    pub(super) moved: usize,
    pub(super) took_back: usize,
    pub(super) predecessor_gone: usize,
    pub(super) drained: usize,
    pub(super) adopted: usize,
    pub(super) has_failed: bool,
}

impl Worker {
    pub(super) fn on_report(&mut self, lane: u32, report: Report) -> Result<(), WorkerError> {
        let all = self.lanes.len();
        match report {
            Report::Applied => {
                self.counts.applied += 1;
                if self.counts.applied == all {
                    let text = self.site.as_ref().map_or_else(String::new, |site| {
                        let servers = count(site.virtual_servers.len() as u64, "virtual server");
                        let pools = count(site.pools.len() as u64, "pool");
                        format!("applied: {servers}, {pools}\n")
                    });
                    self.tell(&ToKeeper::Applied { text })?;
                }
            }
            Report::Prepared => {
                self.counts.prepared += 1;
                if self.counts.prepared == all {
                    for lane in &self.lanes {
                        lane.send(Command::Commit);
                    }
                }
            }
            Report::Given | Report::Taken => {
                self.counts.moved += 1;
                let gone = self.counts.predecessor_gone;
                if gone > 0 && self.counts.moved + gone == all {
                    let of = self.hello.predecessor;
                    self.tell(&ToKeeper::OrphansPlease { of })?;
                }
                if self.counts.moved == all {
                    self.start_monitors();
                    self.tell(&ToKeeper::TakeoverDone)?;
                }
            }
            Report::Failed(text) => {
                if !core::mem::replace(&mut self.counts.has_failed, true) {
                    self.tell(&ToKeeper::TakeoverFailed {
                        text: format!("lane {lane}: {text}"),
                    })?;
                }
            }
            Report::TookBack => {
                self.counts.took_back += 1;
                if self.counts.took_back == all {
                    self.tell(&ToKeeper::OrphansPlease {
                        of: self.hello.predecessor,
                    })?;
                }
            }
            Report::PredecessorGone => {
                self.counts.predecessor_gone += 1;
                self.start_monitors();
                if self.counts.predecessor_gone + self.counts.moved == all {
                    self.tell(&ToKeeper::OrphansPlease {
                        of: self.hello.predecessor,
                    })?;
                }
            }
            Report::Quarantined { text, known } => {
                let file = memory::from_bytes("hitless-quarantine", known.as_bytes()).ok();
                self.tell_with(&ToKeeper::Quarantined { text }, file.as_ref())?;
            }
            Report::Adopted => {
                self.counts.adopted += 1;
                if self.counts.adopted == all {
                    self.counts.adopted = 0;
                    let cost = CRASH.of(self.slots.head()).after_a_crash();
                    let pid = std::process::id();
                    tracing::warn!(pid, "this worker goes on for the one that ended: {cost}");
                }
            }
            Report::Drained { cut } => {
                self.counts.drained += 1;
                self.cut.extend(cut);
                if self.counts.drained == all {
                    let text = cut_lines(&self.cut);
                    self.tell(&ToKeeper::Drained { text })?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn on_takeover(&mut self, packet: &ToWorker, mut fds: Vec<OwnedFd>) {
        self.counts.prepared = 0;
        self.counts.moved = 0;
        self.counts.has_failed = false;
        let knowledge = fds.pop();
        let gives = if let ToWorker::GiveTo { successor } = packet {
            self.successor = *successor;
            if let Some(socket) = &knowledge {
                self.tell_knowledge(socket);
            }
            true
        } else {
            false
        };
        self.knowledge = knowledge;
        for (lane, peer) in self.lanes.iter().zip(fds) {
            lane.send(if gives {
                Command::Give { peer }
            } else {
                Command::Take { peer }
            });
        }
    }

    /// Tells the successor which members are up, without which it would probe first and use all
    /// meanwhile, and the names of removed virtual servers and members, whose connections go over
    /// as well.
    fn tell_knowledge(&self, socket: &OwnedFd) {
        let known = serde_json::to_vec(&self.board.export()).unwrap_or_default();
        let removed = serde_json::to_vec(&self.earlier).unwrap_or_default();
        let members = serde_json::to_vec(&self.removed_members).unwrap_or_default();
        let files = [
            ("hitless-members", known),
            ("hitless-removed", removed),
            ("hitless-removed-members", members),
        ];
        let files: io::Result<Vec<OwnedFd>> = files
            .iter()
            .map(|(name, bytes)| memory::from_bytes(name, bytes))
            .collect();
        if let Ok(files) = files {
            let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            let _ = message::send(socket, &[&[1]], &fds, false);
        }
    }

    /// A predecessor of an older release says nothing of removed virtual servers and members.
    fn learn_removed(&mut self, servers: Option<&OwnedFd>, members: Option<&OwnedFd>) {
        let bytes = |file: Option<&OwnedFd>| memory::to_bytes(file?, HEALTH_BYTES_MAX).ok();
        let servers: Option<Vec<VirtualServerStatus>> =
            bytes(servers).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        self.earlier.extend(servers.unwrap_or_default());
        let members: Option<Vec<RemovedMember>> =
            bytes(members).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        self.removed_members.extend(members.unwrap_or_default());
    }

    pub(super) fn learn(&mut self, buffer: &mut [u8]) {
        let Some(socket) = &self.knowledge else {
            return;
        };
        let mut fds = Vec::new();
        match message::receive(socket, buffer, &mut fds, false) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            _ => {}
        }
        self.knowledge = None;
        let bytes = fds
            .first()
            .and_then(|fd| memory::to_bytes(fd, HEALTH_BYTES_MAX).ok());
        let known: Option<Vec<(MemberKey, MemberHealth)>> =
            bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match known {
            Some(known) => self.board.import(known),
            None => tracing::warn!("what the predecessor knew of members cannot be read"),
        }
        self.learn_removed(fds.get(1), fds.get(2));
        self.start_monitors();
    }
}

/// What a drain had to cut, for people. Empty if it was nothing.
fn cut_lines(cut: &[String]) -> String {
    if cut.is_empty() {
        return String::new();
    }
    let plural = if cut.len() == 1 { "" } else { "s" };
    let mut text = format!(
        "cut {} connection{plural} that outlasted the drain:\n",
        cut.len()
    );
    for line in cut.iter().take(CUT_SHOWN_MAX) {
        text.push_str(&format!("  {line}\n"));
    }
    if cut.len() > CUT_SHOWN_MAX {
        text.push_str(&format!("  and {} more\n", cut.len() - CUT_SHOWN_MAX));
    }
    text
}
