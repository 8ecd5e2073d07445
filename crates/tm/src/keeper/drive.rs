//! Performs what the [course](super::course) decides: processes, sockets, ledgers and answers.

use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use hitless_carry::{memory, message};

use super::course::{Action, Input, State, Which};
use super::process::{Start, Worker};
use super::{Keeper, KeeperError, Who, state};
use crate::clock::now_us;
use crate::control::{Outcome, Request};
use crate::ledger::{self, CRASH, Field, TAKEOVER};
use crate::link::{KeeperHello, Role, ToWorker, VERSION};
use crate::status::ChangeKind;

/// More deaths than this within a [while](super::death) make the next restart wait.
const DEATHS_AT_ONCE: usize = 5;
/// For a worker to take the packets that wait for it, before the keeper replaces itself.
const FLUSH_US_MAX: u64 = 2_000_000;
/// Beyond a stop's time, for the worker to cut what is left.
const CUT_US: u64 = 500_000;

/// The program that this process runs, whatever lies at its path by now.
const RUNNING_PROGRAM: &str = "/proc/self/exe";

impl Keeper {
    pub(super) fn start_first(&mut self) -> Result<(), KeeperError> {
        let worker = self
            .start_worker(Role::First, 0)
            .map_err(|error| KeeperError::Worker(error.to_string()))?;
        self.current = Some(worker);
        self.deadline_us = self.deadline();
        Ok(())
    }

    /// Begins the requests that can begin now.
    pub(super) fn next_request(&mut self) {
        let input = |request| match request {
            Request::Reload => Some(Input::Reload),
            Request::Upgrade => Some(Input::Upgrade),
            Request::Stop => Some(Input::Stop),
            Request::Status
            | Request::Metrics
            | Request::TellToClose
            | Request::KeepOpen
            | Request::AwaitEnd => None,
        };
        while let Some(at) = self
            .queue
            .iter()
            .position(|(request, _)| input(*request).is_some_and(|it| self.course.takes(it)))
        {
            let Some((request, who)) = self.queue.remove(at) else {
                return;
            };
            self.who = Some(who);
            self.request = Some((request, self.sequence(CRASH)));
            self.verdict = None;
            if let Some(input) = input(request) {
                self.feed(input);
            }
        }
    }

    pub(super) fn feed(&mut self, input: Input) {
        let (next, actions) = self.course.on(input);
        if next != self.course {
            tracing::debug!(from = ?self.course, ?input, to = ?next, "course");
            self.course = next;
            self.deadline_us = self.deadline();
        }
        for action in actions {
            self.perform(*action);
        }
    }

    /// A further step of the same state has its own time.
    pub(super) fn renew_deadline(&mut self) {
        if self.deadline_us.is_some() {
            self.deadline_us = self.deadline();
        }
    }

    fn deadline(&self) -> Option<u64> {
        let patience = match self.course {
            State::Stopping => Some(self.options.drain.as_micros() as u64 + CUT_US),
            state => state.patience_us(),
        };
        patience.map(|patience| now_us() + patience)
    }

    /// How long connections may still go on in a stop. `None`: it does not stop.
    pub(super) fn drain_left_us(&self) -> Option<u64> {
        let deadline = self.deadline_us.filter(|_| self.is_draining)?;
        Some(deadline.saturating_sub(now_us() + CUT_US))
    }

    pub(super) fn on_time(&mut self, now: u64) {
        if self.deadline_us.is_some_and(|at| now >= at) {
            self.deadline_us = None;
            tracing::warn!(state = ?self.course, "takes too long");
            self.feed(Input::Late);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Validate => self.validate(),
            Action::CommitConfig => self.commit_config(),
            Action::StartSuccessor => self.start_successor(),
            Action::StartAgain => {
                if self.deaths_us.len() > DEATHS_AT_ONCE {
                    return self.feed(Input::CannotStart);
                }
                self.start_after_crash();
            }
            Action::Start => self.start_after_crash(),
            Action::BeginTakeover => self.begin_takeover(),
            Action::Because(why) => self.note(Outcome::Failed, why.to_owned()),
            Action::Kill(which) => {
                if let Some(worker) = self.worker(which) {
                    worker.process.kill();
                }
            }
            Action::Dismiss => {
                self.leaving = self.current.take();
                if let Some(old) = &mut self.leaving {
                    old.send(&ToWorker::Exit);
                }
            }
            Action::Promote => self.current = self.next.take(),
            Action::TakeBack => self.take_back(),
            Action::NoteCrash => self.note_crash(),
            Action::SendOrphans => self.send_orphans(),
            Action::Replace => self.replace(),
            Action::Answer(text) => self.answer(Outcome::Failed, text),
            Action::AnswerDone => self.answer(Outcome::Done, ""),
            Action::AnswerRefused(text) => self.answer(Outcome::Refused, text),
            Action::Drain => self.drain(),
            Action::Finish => self.end = Some(Ok(())),
            Action::Fail => {
                let text = self
                    .verdict
                    .take()
                    .map_or_else(String::new, |(_, text)| text);
                let failure = self.failure.take();
                self.end = Some(Err(failure.unwrap_or(KeeperError::Worker(text))));
            }
        }
    }

    /// Notes why what is under way ends as it does; what is noted first counts.
    pub(super) fn note(&mut self, outcome: Outcome, text: String) {
        if self.verdict.is_none() {
            self.verdict = Some((outcome, text));
        }
    }

    /// Answers who asked for what is under way. A text that was noted as whole lines stands alone.
    fn answer(&mut self, outcome: Outcome, rest: &str) {
        let Some(who) = self.who.take() else { return };
        let (outcome, text) = match self.verdict.take() {
            Some((noted, text)) if text.ends_with('\n') => (noted, text),
            Some((noted, text)) => (noted, format!("{text}{rest}")),
            None => match (outcome, self.course) {
                (Outcome::Done, State::Stopping | State::Over) => {
                    let text = if self.is_draining {
                        "stopping already: connections may finish\n"
                    } else {
                        "stopping: connections may finish\n"
                    };
                    (outcome, text.to_owned())
                }
                _ => (outcome, rest.trim_start_matches("; ").to_owned()),
            },
        };
        self.record(outcome, &text);
        self.log(who, outcome, &text);
        self.reply(who, outcome, &text);
    }

    /// One line for each thing that was asked for, by whichever way.
    fn log(&self, who: Who, outcome: Outcome, text: &str) {
        let Some((request, _)) = self.request else {
            return;
        };
        let by = who.0.map_or("signal", |_| "command");
        let what = match request {
            Request::Reload => "reload",
            Request::Upgrade => "upgrade",
            Request::Stop => "stop",
            _ => return,
        };
        let text = one_line(text);
        // It says so itself.
        let text = text.strip_prefix("upgraded ").unwrap_or(&text);
        match outcome {
            Outcome::Done => tracing::info!(by, "{what}: {text}"),
            Outcome::Refused | Outcome::Failed => tracing::error!(by, "{what}: {text}"),
        }
    }

    /// What was asked for is over, with this outcome.
    fn record(&mut self, outcome: Outcome, text: &str) {
        let Some((request, crashes)) = self.request else {
            return;
        };
        let kind = match (request, outcome) {
            (Request::Reload, Outcome::Done) => ChangeKind::Reload,
            (Request::Reload, _) => ChangeKind::ReloadRefused,
            (Request::Upgrade, Outcome::Done) => ChangeKind::Upgrade,
            (Request::Upgrade, _) => ChangeKind::UpgradeFailed,
            (
                Request::Stop
                | Request::Status
                | Request::Metrics
                | Request::TellToClose
                | Request::KeepOpen
                | Request::AwaitEnd,
                _,
            ) => return,
        };
        if request == Request::Reload {
            self.last_refusal.clear();
        }
        let mut sequence = 0;
        match kind {
            ChangeKind::ReloadRefused => self.last_refusal.push_str(text),
            ChangeKind::Upgrade => sequence = self.sequence(TAKEOVER),
            // A successor that died has its ledger among the crashes.
            ChangeKind::UpgradeFailed if self.sequence(CRASH) > crashes => {
                sequence = self.sequence(CRASH);
            }
            _ => {}
        }
        self.journal.add(kind, now_us(), sequence, text);
    }

    pub(super) fn sequence(&self, ledger: ledger::Which) -> u64 {
        ledger.of(self.slots.head()).read(Field::Sequence)
    }

    fn start_worker(&self, role: Role, predecessor: u32) -> std::io::Result<Worker> {
        let head = self.slots.head();
        let incarnation = head.incarnation.fetch_add(1, Ordering::Relaxed) + 1;
        let (user, group) = self.options.worker_user.unwrap_or((65534, 65534));
        let program = match role {
            Role::Successor => self.options.program.as_path(),
            Role::First | Role::AfterCrash => Path::new(RUNNING_PROGRAM),
        };
        Worker::start(Start {
            program,
            shown: &self.options.program,
            args: &self.options.worker_args,
            hello: KeeperHello {
                version: VERSION,
                role,
                incarnation,
                predecessor,
                lanes: self.slots.lanes(),
                user,
                group,
                file_name: self.options.config.display().to_string(),
                is_paused: head.paused.load(Ordering::Relaxed) != 0,
                blames: role == Role::AfterCrash && self.blames,
            },
            slots: &self.slots,
            now_us: now_us(),
        })
    }

    fn start_successor(&mut self) {
        if let Some(reason) = why_no_program(&self.options.program) {
            let program = self.options.program.display();
            self.note(Outcome::Refused, format!("{program} {reason}"));
            return self.feed(Input::CannotStart);
        }
        let predecessor = self.current.as_ref().map_or(0, |worker| worker.incarnation);
        match self.start_worker(Role::Successor, predecessor) {
            Ok(worker) => self.next = Some(worker),
            Err(error) => {
                let program = self.options.program.display();
                let text = format!("cannot start {program}: {error}");
                self.note(Outcome::Refused, text);
                self.feed(Input::CannotStart);
            }
        }
    }

    fn start_after_crash(&mut self) {
        match self.start_worker(Role::AfterCrash, self.dead) {
            Ok(worker) => {
                self.current = Some(worker);
                // The state may be the same as for the one before.
                self.deadline_us = self.deadline();
            }
            Err(error) => {
                tracing::error!("cannot start a worker: {error}");
                self.feed(Input::CannotStart);
            }
        }
    }

    fn begin_takeover(&mut self) {
        let lanes = self.slots.lanes() as usize;
        let pairs: Result<Vec<_>, _> = (0..=lanes).map(|_| message::pair()).collect();
        let pairs = match pairs {
            Ok(pairs) => pairs,
            Err(error) => {
                self.note(Outcome::Failed, format!("takeover sockets: {error}"));
                return self.feed(Input::Failed(Which::Current));
            }
        };
        let (give, take): (Vec<_>, Vec<_>) = pairs
            .into_iter()
            .map(|(give, take)| (Rc::new(give), Rc::new(take)))
            .unzip();
        let (Some(current), Some(next)) = (&mut self.current, &mut self.next) else {
            return;
        };
        // Each event loop adds what it has when it stops accepting.
        self.journal
            .keep_costs(TAKEOVER.of(self.slots.head()), true);
        TAKEOVER.of(self.slots.head()).begin(now_us(), 0);
        next.send_with(&ToWorker::TakeFrom, take);
        let successor = next.incarnation;
        current.send_with(&ToWorker::GiveTo { successor }, give);
    }

    /// Both workers are done: the keeper replaces itself too, and its successor answers.
    fn replace(&mut self) {
        let Some(who) = self.who.take() else { return };
        self.verdict = None;
        self.drain_lanes();
        let hello = self
            .current
            .as_ref()
            .and_then(|worker| worker.hello.as_ref());
        let build = hello.map_or_else(String::new, |hello| hello.build.clone());
        let ledger = TAKEOVER.of(self.slots.head()).summary();
        let text = format!("upgraded to build {build}: {ledger}\n");
        // What waits for room would be forgotten; the worker takes it within a turn of its loop.
        let until = now_us() + FLUSH_US_MAX;
        while let Some(worker) = &mut self.current
            && !worker.is_flushed()
            && now_us() < until
        {
            worker.flush();
            std::thread::yield_now();
        }
        let error = state::replace(self, who, &text);
        let text = format!(
            "the worker was upgraded to build {build}, but the keeper stays as it is: {error}\n"
        );
        self.record(Outcome::Failed, &text);
        self.log(who, Outcome::Failed, &text);
        self.reply(who, Outcome::Failed, &text);
    }

    /// This process has just replaced the one before.
    pub(super) fn upgraded(&mut self, who: Who, text: &str) {
        self.upgrades += 1;
        self.request = Some((Request::Upgrade, 0));
        self.record(Outcome::Done, text);
        self.log(who, Outcome::Done, text);
        self.reply(who, Outcome::Done, text);
    }

    fn drain(&mut self) {
        self.is_draining = true;
        let within_ms = self.options.drain.as_millis() as u64;
        if let Some(worker) = &mut self.current {
            worker.send(&ToWorker::Drain { within_ms });
        }
        self.listeners.clear();
    }

    fn validate(&mut self) {
        let bytes = match self.read_config() {
            Ok(bytes) => bytes,
            Err(error) => {
                self.note(Outcome::Refused, format!("{error}\n"));
                return self.feed(Input::Refused(Which::Current));
            }
        };
        match memory::from_bytes("hitless-config", &bytes) {
            Ok(file) => {
                self.candidate = bytes;
                self.candidate_files = None;
                self.send_config(Which::Current, file);
            }
            Err(error) => {
                self.note(Outcome::Failed, format!("memory file: {error}\n"));
                self.feed(Input::Refused(Which::Current));
            }
        }
    }
}

/// An answer as one line of a log: of many lines, as all errors of a file are, the first, and the
/// last, which counts them.
fn one_line(text: &str) -> String {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default().trim_end_matches(':');
    match lines.next_back() {
        Some(last) => format!("{first}; {}", last.trim()),
        None => first.to_owned(),
    }
}

/// What is wrong with a file in the program's place. The C library would run any text by a shell,
/// whatever it says.
fn why_no_program(path: &Path) -> Option<String> {
    let mut start = [0u8; 4];
    let read = std::fs::File::open(path).and_then(|file| {
        use std::os::unix::fs::FileExt;
        file.read_at(&mut start, 0)
    });
    match read {
        Err(error) => Some(format!("cannot be read: {error}")),
        Ok(4) if start == *b"\x7fELF" || start.starts_with(b"#!") => None,
        Ok(_) => Some("is no program: it begins neither as ELF nor with `#!`".to_owned()),
    }
}
