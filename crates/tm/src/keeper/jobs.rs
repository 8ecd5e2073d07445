//! The keeper's transitions: what a packet, an end of a process, a request or the time changes.

use core::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use hitless_carry::process::Ended;
use hitless_carry::slots::{Kind, Slots};
use hitless_carry::{memory, message};

use super::listeners::Listener;
use super::process::{Stage, Start, Worker};
use super::{Job, Keeper, KeeperError, Which, Who, listeners, state};
use crate::clock::now_us;
use crate::control::{Outcome, Request};
use crate::ledger::{CRASH, TAKEOVER};
use crate::link::{
    KEEPER_STATE_LAYOUT, KeeperFacts, KeeperHello, Role, ToKeeper, ToWorker, WorkerHello,
};

/// From a worker's start until it has done what it was told; and each later step of a configuration.
const STEP_US_MAX: u64 = 10_000_000;
/// A whole takeover: 10,000 connections take 50 ms, a loaded machine a hundred times that.
const TAKEOVER_US_MAX: u64 = 60_000_000;
/// For a predecessor that has handed over all to exit.
const EXIT_US_MAX: u64 = 2_000_000;
/// More deaths than this within [`DEATHS_WINDOW_US`] make the next restart wait.
const DEATHS_AT_ONCE: usize = 5;
const DEATHS_WINDOW_US: u64 = 10_000_000;
const RESTART_PAUSE_US: u64 = 1_000_000;

/// Who of an upgrade's two workers has said that its part is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Taking {
    given: bool,
    taken: bool,
    /// The successor failed: it is being killed, then the predecessor takes back.
    failed: bool,
}

/// The program that this process runs, whatever lies at its path by now.
const RUNNING_PROGRAM: &str = "/proc/self/exe";

impl Keeper {
    pub(super) fn start_first(&mut self) -> Result<(), KeeperError> {
        self.job = Some(Job::Start);
        let worker = self
            .start_worker(Role::First, 0)
            .map_err(|error| KeeperError::Worker(error.to_string()))?;
        self.current = Some(worker);
        Ok(())
    }

    fn start_worker(&self, role: Role, predecessor: u32) -> std::io::Result<Worker> {
        let head = self.slots.head();
        let incarnation = head.incarnation.fetch_add(1, Ordering::Relaxed) + 1;
        let (user, group) = self.options.worker_user.unwrap_or((65534, 65534));
        let program = match role {
            Role::Successor => self.options.program.as_path(),
            Role::First | Role::AfterCrash => Path::new(RUNNING_PROGRAM),
        };
        let now_us = now_us();
        Worker::start(Start {
            program,
            args: &self.options.worker_args,
            hello: KeeperHello {
                role,
                incarnation,
                predecessor,
                lanes: self.slots.lanes(),
                user,
                group,
                file_name: self.options.config.display().to_string(),
                is_paused: head.paused.load(Ordering::Relaxed) != 0,
            },
            slots: &self.slots,
            now_us,
            deadline_us: now_us + STEP_US_MAX,
        })
    }

    /// Begins the next request if nothing is being done.
    pub(super) fn next_job(&mut self) {
        while self.job.is_none() && self.current.as_ref().is_some_and(is_ready) {
            let Some((request, who)) = self.queue.pop_front() else {
                return;
            };
            match request {
                Request::Reload => self.begin_reload(who),
                Request::Upgrade => self.begin_upgrade(who),
                Request::Stop => self.begin_stop(who),
                Request::Status | Request::Metrics => self.ask(request, who),
            }
        }
        // A stop does not wait for a worker that does not come up.
        let stops = |(request, _): &(Request, Who)| *request == Request::Stop;
        if self.restart_at_us.is_some() && self.queue.iter().any(stops) {
            self.end = Some(Ok(()));
        }
    }

    fn begin_reload(&mut self, who: Who) {
        let bytes = match self.read_config() {
            Ok(bytes) => bytes,
            Err(error) => return self.refuse_reload(who, &format!("{error}\n")),
        };
        let file = memory::from_bytes("hitless-config", &bytes);
        self.job = Some(Job::Reload { who, bytes });
        match file {
            Ok(file) => self.send_config(Which::Current, file),
            Err(error) => self.fail_job(Outcome::Failed, &format!("memory file: {error}\n")),
        }
    }

    fn refuse_reload(&mut self, who: Who, text: &str) {
        self.last_refusal = text.to_owned();
        self.reply(who, Outcome::Refused, text);
    }

    fn begin_upgrade(&mut self, who: Who) {
        let predecessor = self.current.as_ref().map_or(0, |worker| worker.incarnation);
        match self.start_worker(Role::Successor, predecessor) {
            Ok(worker) => {
                self.next = Some(worker);
                self.job = Some(Job::Upgrade { who, taking: None });
            }
            Err(error) => {
                let program = self.options.program.display();
                self.reply(
                    who,
                    Outcome::Refused,
                    &format!("cannot start {program}: {error}\n"),
                );
            }
        }
    }

    fn begin_stop(&mut self, who: Who) {
        let within = self.options.drain;
        self.job = Some(Job::Stop);
        self.stop_at_us = Some(now_us() + within.as_micros() as u64 + 500_000);
        if let Some(worker) = &mut self.current {
            worker.send(&ToWorker::Drain {
                within_ms: within.as_millis() as u64,
            });
        }
        self.listeners.clear();
        self.reply(who, Outcome::Done, "stopping: connections may finish\n");
    }

    /// Passes a question on to the worker.
    pub(super) fn ask(&mut self, request: Request, who: Who) {
        let facts = self.facts();
        let Some(worker) = self
            .current
            .as_mut()
            .filter(|worker| worker.hello.is_some())
        else {
            return self.reply(who, Outcome::Failed, "no worker runs at the moment\n");
        };
        self.questions = self.questions.wrapping_add(1);
        let id = self.questions;
        worker.send(&match request {
            Request::Metrics => ToWorker::Metrics { id, facts },
            _ => ToWorker::Status { id, facts },
        });
        if let Some(client) = who.0 {
            self.asked.insert(id, client);
        }
    }

    fn facts(&self) -> KeeperFacts {
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
        }
    }

    pub(super) fn on_packet(&mut self, which: Which, packet: ToKeeper, fds: Vec<OwnedFd>) {
        match packet {
            ToKeeper::Hello(hello) => self.on_hello(which, hello),
            ToKeeper::Accept { addresses, single } => self.on_accept(which, addresses, &single),
            ToKeeper::Refuse { text } => self.on_refuse(which, &text),
            ToKeeper::Applied { text } => self.on_applied(which, &text),
            ToKeeper::TakeoverDone => self.on_takeover_done(which),
            ToKeeper::TakeoverFailed { text } => {
                tracing::error!("takeover: {text}");
                self.last_refusal = text;
                self.fail_takeover();
            }
            ToKeeper::OrphansPlease { of } => {
                self.send_orphans(which, of);
                // After its predecessor's death in the takeover, this one has all there is now.
                if matches!(self.job, Some(Job::Upgrade { .. })) && self.next.is_none() {
                    if let Some(worker) = &mut self.current {
                        worker.deadline_us = None;
                    }
                    self.finish_upgrade();
                }
            }
            ToKeeper::Text { id } => {
                let text = fds
                    .first()
                    .and_then(|fd| memory::to_bytes(fd, 64 << 20).ok());
                if let Some(client) = self.asked.remove(&id) {
                    let text = text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                    let (outcome, text) = match &text {
                        Some(text) => (Outcome::Done, text.as_str()),
                        None => (Outcome::Failed, "the worker's answer was lost\n"),
                    };
                    self.reply(Who(Some(client)), outcome, text);
                }
            }
            ToKeeper::MetricsPlease { id } => {
                let facts = self.facts();
                if let Some(worker) = self.worker(which) {
                    worker.send(&ToWorker::Metrics { id, facts });
                }
            }
            ToKeeper::Drained => {
                if matches!(self.job, Some(Job::Stop)) {
                    self.end = Some(Ok(()));
                }
            }
        }
    }

    fn on_hello(&mut self, which: Which, hello: WorkerHello) {
        if which == Which::Next
            && let Some(reason) = self.misfit(&hello)
        {
            return self.fail_job(Outcome::Refused, &reason);
        }
        let file = memory::from_bytes("hitless-config", &self.config);
        if let Some(worker) = self.worker(which) {
            worker.hello = Some(hello);
        }
        match file {
            Ok(file) => self.send_config(which, file),
            Err(error) => self.fail_job(Outcome::Failed, &format!("memory file: {error}\n")),
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
        // What the keeper holds, the bound pipes included, plus the sockets to members of HTTP requests.
        let needed = 2 * self.held.count as u64 + 64;
        (new.descriptors_max < needed).then(|| {
            format!(
                "the new worker may open {} descriptors, {needed} are needed to take over what \
                 lives: the running one keeps serving\n",
                new.descriptors_max
            )
        })
    }

    fn send_config(&mut self, which: Which, file: OwnedFd) {
        if let Some(worker) = self.worker(which) {
            worker.stage = Stage::Validating;
            worker.deadline_us = Some(now_us() + STEP_US_MAX);
            worker.send_with(&ToWorker::Config, vec![Rc::new(file)]);
        }
    }

    fn on_accept(&mut self, which: Which, mut addresses: Vec<SocketAddr>, single: &[SocketAddr]) {
        let mut fresh = Vec::new();
        addresses.extend(single);
        for &address in &addresses {
            let lanes = if single.contains(&address) {
                1
            } else {
                self.slots.lanes()
            };
            let is_it = |listener: &Listener| {
                listener.requested == address && listener.sockets.len() == lanes as usize
            };
            if self.listeners.iter().any(is_it) {
                continue;
            }
            match listeners::bind(address, lanes) {
                Ok(listener) => fresh.push(listener),
                Err(error) => return self.on_no_address(which, address, &error),
            }
        }
        let Some(worker) = (match which {
            Which::Current => self.current.as_mut(),
            Which::Next => self.next.as_mut(),
            Which::Leaving => None,
        }) else {
            return;
        };
        for &address in &addresses {
            let all = self.listeners.iter().chain(&fresh);
            let Some(listener) = all.clone().find(|listener| listener.requested == address) else {
                continue;
            };
            let copies: Result<Vec<_>, _> = listener
                .sockets
                .iter()
                .map(|socket| socket.try_clone().map(Rc::new))
                .collect();
            match copies {
                Ok(copies) => {
                    let bound = listener.bound;
                    worker.send_with(
                        &ToWorker::Listen {
                            requested: address,
                            bound,
                        },
                        copies,
                    );
                }
                Err(error) => return self.on_no_address(which, address, &error),
            }
        }
        worker.send(&ToWorker::Apply);
        worker.stage = Stage::Applying;
        worker.deadline_us = Some(now_us() + STEP_US_MAX);
        worker.wanted = addresses;
        worker.fresh = fresh;
    }

    fn on_no_address(&mut self, which: Which, address: SocketAddr, error: &std::io::Error) {
        let reason = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another program uses that address".to_owned(),
            std::io::ErrorKind::PermissionDenied => {
                "not permitted: ports below 1024 need privileges".to_owned()
            }
            std::io::ErrorKind::AddrNotAvailable => {
                "this machine does not have that address".to_owned()
            }
            _ => error.to_string(),
        };
        if matches!(self.job, Some(Job::Start)) {
            let address = address.to_string();
            self.end = Some(Err(KeeperError::Listen { address, reason }));
            return;
        }
        if let Some(worker) = self.worker(which) {
            worker.send(&ToWorker::Cancel);
        }
        self.fail_job(
            Outcome::Refused,
            &format!("cannot listen on {address}: {reason}\n"),
        );
    }

    fn on_refuse(&mut self, which: Which, text: &str) {
        match self.job {
            Some(Job::Start) => self.end = Some(Err(KeeperError::Refused(text.to_owned()))),
            Some(Job::Reload { .. }) if which == Which::Current => {
                self.last_refusal = text.to_owned();
                self.fail_job(Outcome::Refused, text);
            }
            Some(Job::Upgrade { .. }) if which == Which::Next => {
                let text = format!("the program on disk refuses the configuration:\n{text}");
                self.fail_job(Outcome::Refused, &text);
            }
            _ => tracing::error!("a worker refused the configuration in force: {text}"),
        }
    }

    fn on_applied(&mut self, which: Which, text: &str) {
        let Some(worker) = self.worker(which) else {
            return;
        };
        worker.stage = Stage::Ready;
        worker.deadline_us = None;
        let role = worker.role;
        let (wanted, fresh) = (
            core::mem::take(&mut worker.wanted),
            core::mem::take(&mut worker.fresh),
        );
        self.listeners.extend(fresh);
        match self.job.take() {
            Some(Job::Reload { who, bytes }) if which == Which::Current => {
                self.listeners
                    .retain(|listener| wanted.contains(&listener.requested));
                self.config = bytes;
                self.reloads += 1;
                self.last_refusal.clear();
                self.reply(who, Outcome::Done, text);
                return;
            }
            Some(Job::Upgrade { who, taking: None }) if which == Which::Next => {
                self.job = Some(Job::Upgrade { who, taking: None });
                return self.begin_takeover();
            }
            Some(Job::Start) => {
                for listener in &self.listeners {
                    tracing::info!(address = %listener.bound, "listening");
                }
            }
            other => self.job = other,
        }
        // The first worker, or one after a crash: what its lanes wait for comes now.
        if which == Which::Current && role != Role::Successor {
            let dead = core::mem::take(&mut self.dead);
            self.send_orphans(Which::Current, dead);
        }
    }

    fn begin_takeover(&mut self) {
        let lanes = self.slots.lanes() as usize;
        let pairs: Result<Vec<_>, _> = (0..=lanes).map(|_| message::pair()).collect();
        let pairs = match pairs {
            Ok(pairs) => pairs,
            Err(error) => {
                return self.fail_job(Outcome::Failed, &format!("takeover sockets: {error}\n"));
            }
        };
        let (give, take): (Vec<_>, Vec<_>) = pairs
            .into_iter()
            .map(|(give, take)| (Rc::new(give), Rc::new(take)))
            .unzip();
        let (Some(current), Some(next)) = (&mut self.current, &mut self.next) else {
            return;
        };
        let head = self.slots.head();
        let ledger = TAKEOVER.of(head);
        // Each event loop adds what it has when it stops accepting.
        ledger.begin(now_us(), 0);
        next.deadline_us = Some(now_us() + TAKEOVER_US_MAX);
        next.send_with(&ToWorker::TakeFrom, take);
        current.send_with(
            &ToWorker::GiveTo {
                successor: next.incarnation,
            },
            give,
        );
        if let Some(Job::Upgrade { taking, .. }) = &mut self.job {
            *taking = Some(Taking::default());
        }
    }

    fn on_takeover_done(&mut self, which: Which) {
        let Some(Job::Upgrade {
            taking: Some(taking),
            ..
        }) = &mut self.job
        else {
            return;
        };
        if which == Which::Current && self.next.is_none() {
            // Its predecessor died after it had handed over all.
            if let Some(worker) = &mut self.current {
                worker.deadline_us = None;
            }
            return self.finish_upgrade();
        }
        match which {
            Which::Current => taking.given = true,
            Which::Next => taking.taken = true,
            Which::Leaving => {}
        }
        if taking.given && taking.taken && !taking.failed {
            let mut old = self.current.take();
            if let Some(old) = &mut old {
                old.stage = Stage::Leaving;
                old.deadline_us = Some(now_us() + EXIT_US_MAX);
                old.send(&ToWorker::Exit);
            }
            self.leaving = old;
            self.promote();
        }
    }

    fn promote(&mut self) {
        self.current = self.next.take();
        if let Some(worker) = &mut self.current {
            worker.deadline_us = None;
        }
    }

    /// The successor cannot go on: it is killed; when it is collected, its predecessor takes back.
    fn fail_takeover(&mut self) {
        if let Some(Job::Upgrade {
            taking: Some(taking),
            ..
        }) = &mut self.job
        {
            taking.failed = true;
        }
        if let Some(next) = &mut self.next {
            next.deadline_us = None;
            next.process.kill();
        }
    }

    /// Sends what a dead worker owned to the one that goes on.
    fn send_orphans(&mut self, which: Which, dead: u32) {
        self.drain_lanes();
        let workers = [&self.current, &self.next].into_iter().flatten();
        let living: Vec<u32> = workers.map(|worker| worker.incarnation).collect();
        let packets = self.held.orphans(&self.slots, dead, &living);
        if let Some(worker) = self.worker(which) {
            for (lane, packets) in packets.into_iter().enumerate() {
                for packet in packets {
                    worker.lanes[lane].send(packet);
                }
            }
        }
    }

    /// Ends the job under way without effect, and tells who asked.
    pub(super) fn fail_job(&mut self, outcome: Outcome, text: &str) {
        match self.job.take() {
            Some(Job::Start) => self.end = Some(Err(KeeperError::Worker(text.trim().to_owned()))),
            Some(Job::Reload { who, .. }) => {
                if let Some(worker) = &mut self.current
                    && worker.hello.is_some()
                {
                    worker.stage = Stage::Ready;
                    worker.deadline_us = None;
                    worker.fresh.clear();
                }
                self.reply(who, outcome, text);
            }
            Some(Job::Upgrade { who, .. }) => {
                if let Some(next) = self.next.take() {
                    next.process.kill();
                    let _ = next.process.collect(true);
                }
                self.last_refusal = text.to_owned();
                self.reply(who, outcome, text);
            }
            Some(Job::Stop) | None => {}
        }
    }

    pub(super) fn on_end(&mut self, which: Which, ended: Ended) {
        self.drain_lanes();
        match which {
            Which::Leaving => {
                self.leaving = None;
                self.finish_upgrade();
            }
            Which::Next => self.on_successor_end(ended),
            Which::Current => self.on_current_end(ended),
        }
    }

    fn on_successor_end(&mut self, ended: Ended) {
        let Some(next) = self.next.take() else { return };
        let was_taking = matches!(
            self.job,
            Some(Job::Upgrade {
                taking: Some(_),
                ..
            })
        );
        let why = match (&self.job, self.last_refusal.is_empty()) {
            (
                Some(Job::Upgrade {
                    taking: Some(taking),
                    ..
                }),
                false,
            ) if taking.failed => {
                format!("takeover failed: {}; ", self.last_refusal)
            }
            _ => format!("the successor ended with {ended}; "),
        };
        if was_taking && let Some(current) = &mut self.current {
            // What it had acknowledged comes back as after a crash.
            let connections = owned(&self.slots, next.incarnation);
            CRASH.of(self.slots.head()).begin(now_us(), connections);
            current.send(&ToWorker::SuccessorGone {
                successor: next.incarnation,
            });
        }
        self.fail_job(
            Outcome::Failed,
            &format!("{why}the running worker keeps serving\n"),
        );
    }

    fn on_current_end(&mut self, ended: Ended) {
        let Some(dead) = self.current.take() else {
            return;
        };
        if matches!(self.job, Some(Job::Stop)) {
            self.end = Some(Ok(()));
            return;
        }
        if matches!(self.job, Some(Job::Start)) {
            self.end = Some(Err(KeeperError::Worker(format!("ended with {ended}"))));
            return;
        }
        let now = now_us();
        tracing::error!(pid = dead.process.pid, "worker ended with {ended}");
        let connections = owned(&self.slots, dead.incarnation);
        CRASH.of(self.slots.head()).begin(now, connections);
        self.restarts += 1;
        for (_, client) in core::mem::take(&mut self.asked) {
            self.reply(
                Who(Some(client)),
                Outcome::Failed,
                "the worker ended meanwhile\n",
            );
        }
        let is_taking = matches!(
            self.job,
            Some(Job::Upgrade {
                taking: Some(Taking { failed: false, .. }),
                ..
            })
        );
        if is_taking && self.next.is_some() {
            // The successor goes on alone; it asks for the rest when it has taken what was on its way.
            if let Some(Job::Upgrade {
                taking: Some(taking),
                ..
            }) = &mut self.job
            {
                taking.given = true;
            }
            self.promote();
            return;
        }
        self.fail_job(
            Outcome::Failed,
            "the worker ended meanwhile; another one is started\n",
        );
        self.dead = dead.incarnation;
        self.deaths_us.push_back(now);
        while self
            .deaths_us
            .front()
            .is_some_and(|&at| at + DEATHS_WINDOW_US < now)
        {
            self.deaths_us.pop_front();
        }
        if self.deaths_us.len() > DEATHS_AT_ONCE {
            self.restart_at_us = Some(now + RESTART_PAUSE_US);
        } else {
            self.restart();
        }
    }

    fn restart(&mut self) {
        self.restart_at_us = None;
        match self.start_worker(Role::AfterCrash, self.dead) {
            Ok(worker) => self.current = Some(worker),
            Err(error) => {
                tracing::error!("cannot start a worker: {error}");
                self.restart_at_us = Some(now_us() + RESTART_PAUSE_US);
            }
        }
    }

    /// Both workers are done: the keeper replaces itself too.
    fn finish_upgrade(&mut self) {
        let Some(Job::Upgrade { who, .. }) = self.job else {
            return;
        };
        self.drain_lanes();
        let build = self
            .current
            .as_ref()
            .and_then(|worker| worker.hello.as_ref());
        let build = build.map_or_else(String::new, |hello| hello.build.clone());
        let ledger = TAKEOVER.of(self.slots.head()).summary();
        let text = format!("upgraded to build {build}: {ledger}\n");
        // What waits for room would be forgotten; the worker takes it within a turn of its loop.
        let until = now_us() + EXIT_US_MAX;
        while let Some(worker) = &mut self.current
            && !worker.is_flushed()
            && now_us() < until
        {
            worker.flush();
            std::thread::yield_now();
        }
        let error = state::replace(self, who, &text);
        self.job = None;
        let text = format!(
            "the worker was upgraded to build {build}, but the keeper stays as it is: {error}\n"
        );
        self.reply(who, Outcome::Failed, &text);
    }

    /// This process has just replaced the one before.
    pub(super) fn upgraded(&mut self, who: Who, text: &str) {
        self.upgrades += 1;
        self.last_refusal.clear();
        self.reply(who, Outcome::Done, text);
    }

    pub(super) fn on_time(&mut self, now: u64) {
        if self.restart_at_us.is_some_and(|at| now >= at) {
            self.restart();
        }
        if self.stop_at_us.is_some_and(|at| now >= at) {
            self.end = Some(Ok(()));
        }
        let is_late = |worker: &Option<Worker>| {
            worker
                .as_ref()
                .and_then(|worker| worker.deadline_us)
                .is_some_and(|at| now >= at)
        };
        if is_late(&self.leaving)
            && let Some(worker) = &mut self.leaving
        {
            tracing::error!("the old worker does not exit; it is ended");
            worker.deadline_us = None;
            worker.process.kill();
        }
        if is_late(&self.next) {
            if matches!(
                self.job,
                Some(Job::Upgrade {
                    taking: Some(_),
                    ..
                })
            ) {
                self.last_refusal = "the successor takes too long".to_owned();
                self.fail_takeover();
            } else {
                let text = "the successor does not start; the running worker keeps serving\n";
                self.fail_job(Outcome::Failed, text);
            }
        }
        if is_late(&self.current)
            && let Some(worker) = &mut self.current
        {
            tracing::error!(stage = ?worker.stage, "the worker does not answer; it is ended");
            worker.deadline_us = None;
            worker.process.kill();
        }
    }
}

fn is_ready(worker: &Worker) -> bool {
    worker.stage == Stage::Ready
}

/// Connections that a worker owns.
fn owned(slots: &Slots, owner: u32) -> u64 {
    let mut count = 0;
    for lane in 0..slots.lanes() {
        for index in 0..slots.slots_per_lane() {
            let slot = slots.slot(lane, index);
            let is_used = slot.kind() != Some(Kind::Free);
            count += u64::from(is_used && slot.owner.load(Ordering::Relaxed) == owner);
        }
    }
    count
}
