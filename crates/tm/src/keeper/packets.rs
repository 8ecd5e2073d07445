//! What workers say on their links: greetings, addresses, results, texts; and the questions that
//! they are asked.

use core::net::SocketAddr;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use hitless_carry::memory;
use hitless_carry::process::Watched;
use hitless_carry::slots::{IN_FLIGHT, Kind, Slot, Slots};
use hitless_types::site::bounds;

use super::course::{Input, State, Which};
use super::listeners::{self, Listener};
use super::{Keeper, KeeperError, Who};
use crate::clock::now_us;
use crate::control::{Outcome, Request};
use crate::link::{ConfigState, KEEPER_STATE_LAYOUT, KeeperFacts, ToKeeper, ToWorker, WorkerHello};
use crate::status::ChangeKind;
use crate::tls::Files;
use crate::tls::files::decode_names;
use crate::worker::report;

/// A status or metrics document is below this.
const TEXT_BYTES_MAX: u64 = 64 << 20;
/// In the run folder: what is known of connections that were cut, the newest in place of the
/// oldest.
const QUARANTINE: &str = "quarantine";
const QUARANTINED_MAX: u64 = 64;
/// Of one of them: what was unread on both sides, escaped, and some lines.
const QUARANTINE_BYTES_MAX: u64 = 1 << 20;

impl Keeper {
    pub(super) fn on_packet(&mut self, which: Which, packet: ToKeeper, fds: Vec<OwnedFd>) {
        match packet {
            ToKeeper::Hello(hello) => self.on_hello(which, hello, fds),
            ToKeeper::Accept { addresses, single } => self.on_accept(which, addresses, &single),
            ToKeeper::Refuse { text } => self.on_refuse(which, text),
            ToKeeper::Applied { text } => self.on_applied(which, text),
            ToKeeper::TakeoverDone => self.feed(Input::Done(which)),
            ToKeeper::TakeoverFailed { text } => {
                tracing::error!("takeover: {text}");
                self.note(Outcome::Failed, format!("takeover failed: {text}"));
                self.feed(Input::Failed(which));
            }
            ToKeeper::OrphansPlease { .. } => self.feed(Input::Orphans(which)),
            ToKeeper::Text { id, text } => self.on_text(id, text, &fds),
            ToKeeper::MetricsPlease { id } => {
                let facts = self.facts();
                if let Some(worker) = self.worker(which) {
                    worker.send(&ToWorker::Metrics { id, facts });
                }
            }
            ToKeeper::Drained { text } => {
                self.farewell = Some(text);
                self.feed(Input::Drained(which));
            }
            ToKeeper::Quarantined { text } => self.on_quarantined(&text, &fds),
            ToKeeper::FilesPlease => self.on_files_please(which, &fds),
        }
    }

    fn on_hello(&mut self, which: Which, hello: WorkerHello, fds: Vec<OwnedFd>) {
        if let Some(worker) = self.worker(which) {
            worker.twin.process = fds.into_iter().next().and_then(Watched::of);
        }
        if which == Which::Next
            && let Some(reason) = self.misfit(&hello)
        {
            self.note(Outcome::Refused, reason);
            return self.feed(Input::Refused(which));
        }
        let vault = self.vault.file().try_clone_to_owned();
        if let Some(worker) = self.worker(which) {
            if let (Ok(vault), 2..) = (vault, hello.version) {
                worker.send_with(&ToWorker::Vault, vec![Rc::new(vault)]);
            }
            worker.hello = Some(hello);
        }
        match memory::from_bytes("hitless-config", &self.config) {
            Ok(file) => self.send_config(which, file),
            Err(error) => {
                self.note(Outcome::Failed, format!("memory file: {error}"));
                self.feed(Input::Refused(which));
            }
        }
    }

    /// Why the program of a successor cannot take this one's connections.
    fn misfit(&self, new: &WorkerHello) -> Option<String> {
        let old = self
            .current
            .as_ref()
            .and_then(|worker| worker.hello.as_ref())?;
        let (oldest, newest) = new.reads;
        if !(oldest..=newest).contains(&old.writes) {
            return Some(format!(
                "the program on disk (build {}) reads connection records of layout {oldest} to \
                 {newest}, the running one writes layout {}: it keeps serving\n",
                new.build, old.writes
            ));
        }
        let (oldest, newest) = new.keeper_states;
        if !(oldest..=newest).contains(&KEEPER_STATE_LAYOUT) {
            return Some(format!(
                "the program on disk (build {}) reads keeper states of layout {oldest} to \
                 {newest}, the running one writes layout {KEEPER_STATE_LAYOUT}: it keeps serving\n",
                new.build
            ));
        }
        // What the keeper holds, pipes included, a member's socket for each request under way, and
        // some that are idle. Too few show in the takeover, which is then undone.
        let needed = self.held.count as u64 + requests_in_flight(&self.slots) + 256;
        (new.descriptors_max < needed).then(|| {
            format!(
                "the new worker may open {} descriptors, {needed} are needed to take over what \
                 lives: the running one keeps serving\n",
                new.descriptors_max
            )
        })
    }

    pub(super) fn send_config(&mut self, which: Which, file: OwnedFd) {
        self.renew_deadline();
        if let Some(worker) = self.worker(which) {
            worker.send_with(&ToWorker::Config, vec![Rc::new(file)]);
        }
    }

    /// Certificates and keys are read with the keeper's privileges; what they are worth is the
    /// worker's to say. With a configuration that is in force go the files that were read with it:
    /// what lies there by now may be wrong.
    fn on_files_please(&mut self, which: Which, fds: &[OwnedFd]) {
        let bounds = bounds::FILE_BYTES_MAX as u64 * 2;
        let asked = fds.first().map(|fd| memory::to_bytes(fd, bounds));
        let Some(Ok(asked)) = asked else {
            self.note(
                Outcome::Failed,
                "the worker's question was lost\n".to_owned(),
            );
            return self.feed(Input::Refused(which));
        };
        let is_new = self.course == State::Reloading && which == Which::Current;
        let known = self.files.clone().filter(|_| !is_new);
        let names = decode_names(&asked).unwrap_or_default();
        let file = known.map_or_else(
            || {
                let files = Files::read(names.into_iter(), &self.options.config);
                memory::from_bytes("hitless-files", &files.encode()).map(Rc::new)
            },
            Ok,
        );
        match file {
            Ok(file) => {
                self.renew_deadline();
                match is_new {
                    true => self.candidate_files = Some(Rc::clone(&file)),
                    false => self.files = Some(Rc::clone(&file)),
                }
                if let Some(worker) = self.worker(which) {
                    worker.send_with(&ToWorker::Files, vec![file]);
                }
            }
            Err(error) => {
                self.note(Outcome::Failed, format!("memory file: {error}\n"));
                self.feed(Input::Refused(which));
            }
        }
    }

    fn on_accept(&mut self, which: Which, mut addresses: Vec<SocketAddr>, single: &[SocketAddr]) {
        let mut fresh = Vec::new();
        let mut failures = Vec::new();
        addresses.extend(single);
        for &address in &addresses {
            let is_single = single.contains(&address);
            let lanes = if is_single { 1 } else { self.slots.lanes() };
            let is_it = |listener: &Listener| {
                listener.requested == address && listener.sockets.len() == lanes as usize
            };
            if self.listeners.iter().any(is_it) {
                continue;
            }
            match listeners::bind(address, lanes, !is_single) {
                Ok(listener) => fresh.push(listener),
                Err(error) => failures.push((address, why_not(&error))),
            }
        }
        if !failures.is_empty() {
            return self.on_no_address(which, failures);
        }
        let Some(worker) = (match which {
            Which::Current => self.current.as_mut(),
            Which::Next => self.next.as_mut(),
            Which::Leaving => None,
        }) else {
            return;
        };
        for &address in &addresses {
            let mut all = self.listeners.iter().chain(&fresh);
            let Some(listener) = all.find(|listener| listener.requested == address) else {
                continue;
            };
            let copies: Result<Vec<_>, _> = listener
                .sockets
                .iter()
                .map(|socket| socket.try_clone().map(Rc::new))
                .collect();
            match copies {
                Ok(copies) => {
                    let listen = ToWorker::Listen {
                        requested: address,
                        bound: listener.bound,
                    };
                    worker.send_with(&listen, copies);
                }
                Err(error) => {
                    return self.on_no_address(which, vec![(address, why_not(&error))]);
                }
            }
        }
        worker.send(&ToWorker::Apply);
        worker.wanted = addresses;
        worker.fresh = fresh;
        self.renew_deadline();
    }

    fn on_no_address(&mut self, which: Which, failures: Vec<(SocketAddr, String)>) {
        if let Some(worker) = self.worker(which) {
            worker.send(&ToWorker::Cancel);
        }
        let failure = KeeperError::Listen(failures);
        self.note(Outcome::Refused, format!("{failure}\n"));
        self.failure = Some(failure);
        self.feed(Input::Refused(which));
    }

    fn on_refuse(&mut self, which: Which, text: String) {
        let noted = match which {
            Which::Current => text.clone(),
            Which::Next | Which::Leaving => {
                format!("the program on disk refuses the configuration:\n{text}")
            }
        };
        if self.course == State::Restarting {
            tracing::error!("a worker refused the configuration in force: {text}");
        }
        self.note(Outcome::Refused, noted);
        self.failure = Some(KeeperError::Refused(text));
        self.feed(Input::Refused(which));
    }

    fn on_applied(&mut self, which: Which, text: String) {
        let Some(worker) = self.worker(which) else {
            return;
        };
        let fresh = core::mem::take(&mut worker.fresh);
        self.listeners.extend(fresh);
        match self.course {
            State::Reloading => self.note(Outcome::Done, text),
            State::Starting => {
                self.journal.add(ChangeKind::Start, now_us(), 0, &text);
                for listener in &self.listeners {
                    tracing::info!(address = %listener.bound, "listening");
                }
            }
            _ => {}
        }
        self.feed(Input::Applied(which));
    }

    /// The worker serves what it was sent last.
    pub(super) fn commit_config(&mut self) {
        if let Some(worker) = &mut self.current {
            let wanted = core::mem::take(&mut worker.wanted);
            self.listeners
                .retain(|listener| wanted.contains(&listener.requested));
        }
        self.config = core::mem::take(&mut self.candidate);
        self.files = self.candidate_files.take();
        self.reloads += 1;
    }

    /// A flag in the slot file, so that it outlives workers and upgrades; event loops look at it
    /// with each answer.
    pub(super) fn tell_to_close(&mut self, request: Request, who: Who) {
        let tells = request == Request::TellToClose;
        let flag = &self.slots.head().tells_to_close;
        flag.store(tells.into(), Ordering::Relaxed);
        let text = if tells {
            "clients are told to close\n"
        } else {
            "clients may stay\n"
        };
        self.reply(who, Outcome::Done, text);
    }

    /// Passes a question on to the worker.
    pub(super) fn ask(&mut self, request: Request, who: Who) {
        let facts = self.facts();
        let Some(worker) = self
            .current
            .as_mut()
            .filter(|worker| worker.hello.is_some())
        else {
            return self.answer_alone(request, who);
        };
        self.questions = self.questions.wrapping_add(1);
        let id = self.questions;
        worker.send(&match request {
            Request::Metrics => ToWorker::Metrics { id, facts },
            _ => ToWorker::Status { id, facts },
        });
        if let Some(client) = who.0 {
            self.asked.insert(id, (client, request));
        }
    }

    /// What the keeper knows by itself, while no worker can be asked.
    pub(super) fn answer_alone(&mut self, request: Request, who: Who) {
        if request != Request::Status {
            return self.reply(who, Outcome::Failed, "no worker runs at the moment\n");
        }
        let status = report::status_of_keeper(&self.slots, &self.facts(), &self.options.config);
        self.reply(who, Outcome::Done, &status);
    }

    fn on_text(&mut self, id: u32, text: Option<String>, fds: &[OwnedFd]) {
        let Some((client, _)) = self.asked.remove(&id) else {
            return;
        };
        let text = text.or_else(|| {
            let bytes = memory::to_bytes(fds.first()?, TEXT_BYTES_MAX).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        });
        let (outcome, text) = match &text {
            Some(text) => (Outcome::Done, text.as_str()),
            None => (Outcome::Failed, "the worker's answer was lost\n"),
        };
        self.reply(Who(Some(client)), outcome, text);
    }

    /// A connection on which workers died was cut: what is known of it is kept for people.
    fn on_quarantined(&mut self, text: &str, fds: &[OwnedFd]) {
        let folder = self.options.run_folder.join(QUARANTINE);
        let number = self.quarantined % QUARANTINED_MAX;
        self.quarantined += 1;
        let path = folder.join(format!("{number}.json"));
        let bytes = fds
            .first()
            .ok_or_else(|| std::io::ErrorKind::InvalidData.into());
        let kept = bytes
            .and_then(|fd| memory::to_bytes(fd, QUARANTINE_BYTES_MAX))
            .and_then(|bytes| keep_private(&folder, &path, &bytes));
        let text = match kept {
            Ok(()) => format!("{text}; see {}", path.display()),
            Err(error) => format!("{text}; what is known of it cannot be kept: {error}"),
        };
        tracing::error!("{text}");
        self.journal.add(ChangeKind::Quarantine, now_us(), 0, &text);
    }

    /// Whether the site file is what is in force.
    fn config_state(&self) -> ConfigState {
        match self.read_config() {
            Ok(bytes) if bytes == self.config => ConfigState::InForce,
            Ok(bytes) if !self.last_refusal.is_empty() && bytes == self.candidate => {
                ConfigState::Refused
            }
            Ok(_) => ConfigState::Changed,
            Err(KeeperError::Config { source, .. }) => ConfigState::Unreadable(source.to_string()),
            Err(error) => ConfigState::Unreadable(error.to_string()),
        }
    }

    pub(super) fn facts(&self) -> KeeperFacts {
        let now = now_us();
        let worker = self.current.as_ref();
        KeeperFacts {
            build: self.options.build_id.clone(),
            pid: std::process::id(),
            worker_pid: worker.map_or(0, |worker| worker.process.pid),
            run_folder: self.options.run_folder.display().to_string(),
            age_ms: (now - self.started_us) / 1000,
            worker_age_ms: worker.map_or(0, |worker| (now - worker.since_us) / 1000),
            descriptors: self.descriptors(),
            descriptors_max: self.descriptors_max,
            restarts: self.restarts,
            upgrades: self.upgrades,
            reloads: self.reloads,
            last_refusal: self.last_refusal.clone(),
            config: self.config_state(),
            is_stopping: self.is_draining,
            drain_left_ms: self.drain_left_us().map(|left| left / 1000),
            journal: self.journal.clone(),
        }
    }
}

fn requests_in_flight(slots: &Slots) -> u64 {
    let all = (0..slots.lanes())
        .flat_map(|lane| (0..slots.slots_per_lane()).map(move |index| slots.slot(lane, index)));
    let is_one = |slot: &&Slot| slot.kind() == Some(Kind::Http) && slot.has_flag(IN_FLIGHT);
    all.filter(is_one).count() as u64
}

/// Writes a file that its owner alone can read.
fn keep_private(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made?;
    let _ = std::fs::remove_file(path);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}

/// Why an address is not to be had, in the operator's words.
fn why_not(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "another program uses that address".to_owned(),
        std::io::ErrorKind::PermissionDenied => {
            "not permitted: ports below 1024 need privileges".to_owned()
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address".to_owned()
        }
        _ => error.to_string(),
    }
}
