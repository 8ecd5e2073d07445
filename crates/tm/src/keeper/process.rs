//! A worker as its keeper sees it: a process, its link and its lanes, and what waits to be sent to
//! it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use hitless_carry::{message, process, slots::Slots, twin};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::hold::Packet;
use super::listeners::Listener;
use crate::link::{KeeperHello, ToWorker, WorkerHello};
use crate::worker::LINK_FD;

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) process: process::Watched,
    pub(super) link: Queue,
    pub(super) lanes: Vec<Queue>,
    pub(super) twin: Twin,
    pub(super) incarnation: u32,
    pub(super) hello: Option<WorkerHello>,
    pub(super) since_us: u64,
    /// What it asked for with its last Accept: addresses in use afterwards, and those bound for it.
    pub(super) wanted: Vec<core::net::SocketAddr>,
    pub(super) fresh: Vec<Listener>,
}

/// The way to a worker's [twin](hitless_carry::twin). It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Twin {
    pub(super) channel: OwnedFd,
    /// Its process, once the worker has said so; `None`: it could not make one.
    pub(super) process: Option<process::Watched>,
}

/// For a twin to look at a thousand descriptors, many times over.
const TWIN_PATIENCE_MS: i32 = 500;

impl Twin {
    /// After the worker's death: clients that it had accepted and not yet touched.
    pub(super) fn ask(&self) -> io::Result<Vec<OwnedFd>> {
        twin::ask(&self.channel, TWIN_PATIENCE_MS)
    }

    /// Ends it, and with it the descriptors of its dead worker.
    pub(super) fn end(self) {
        drop(self.channel);
        let Some(process) = self.process else { return };
        let mut polled = [PollFd::new(&process.pidfd, PollFlags::IN)];
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(TWIN_PATIENCE_MS) * 1_000_000,
        };
        if !matches!(rustix::event::poll(&mut polled, Some(&patience)), Ok(1)) {
            process.kill();
        }
        let _ = process.collect(true);
    }
}

/// A packet socket and what waits for room in it.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) socket: OwnedFd,
    pub(super) waiting: VecDeque<Packet>,
}

impl Queue {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            waiting: VecDeque::new(),
        }
    }

    /// Queues a packet and sends what there is room for. A receiver that is gone shows by its
    /// pidfd, not here.
    pub(super) fn send(&mut self, packet: Packet) {
        self.waiting.push_back(packet);
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        while let Some(packet) = self.waiting.front() {
            let fds: Vec<BorrowedFd<'_>> = packet.fds.iter().map(|fd| fd.as_fd()).collect();
            match message::send(&self.socket, &[&packet.bytes], &fds, false) {
                Ok(()) => {
                    self.waiting.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Too many descriptors in flight: the receivers have to take some first.
                Err(error) if error.raw_os_error() == Some(109) => return,
                Err(_) => self.waiting.clear(),
            }
        }
    }
}

/// Everything that a start needs.
pub(super) struct Start<'a> {
    pub(super) program: &'a Path,
    /// The program's name in lists of processes.
    pub(super) shown: &'a Path,
    pub(super) args: &'a [OsString],
    pub(super) hello: KeeperHello,
    pub(super) slots: &'a Slots,
    pub(super) now_us: u64,
}

impl Worker {
    pub(super) fn start(start: Start<'_>) -> io::Result<Self> {
        let (link, child_link) = message::pair()?;
        let (channel, child_channel) = message::pair()?;
        let mut lanes = Vec::new();
        let slots = Rc::new(start.slots.file().try_clone_to_owned()?);
        let mut fds = vec![slots, Rc::new(child_channel)];
        for _ in 0..start.hello.lanes {
            let (ours, theirs) = message::pair()?;
            lanes.push(Queue::new(ours));
            fds.push(Rc::new(theirs));
        }
        let process = process::spawn(
            start.program,
            start.shown.as_os_str(),
            start.args,
            child_link,
            LINK_FD,
        )?;
        let mut worker = Self {
            process,
            link: Queue::new(link),
            lanes,
            twin: Twin {
                channel,
                process: None,
            },
            incarnation: start.hello.incarnation,
            hello: None,
            since_us: start.now_us,
            wanted: Vec::new(),
            fresh: Vec::new(),
        };
        worker.send_with(&ToWorker::Hello(start.hello), fds);
        Ok(worker)
    }

    pub(super) fn send(&mut self, packet: &ToWorker) {
        self.send_with(packet, Vec::new());
    }

    pub(super) fn send_with(&mut self, packet: &ToWorker, fds: Vec<Rc<OwnedFd>>) {
        self.link.send(Packet {
            bytes: packet.encode(),
            fds,
        });
    }

    pub(super) fn flush(&mut self) {
        self.link.flush();
        for lane in &mut self.lanes {
            lane.flush();
        }
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.link.waiting.is_empty() && self.lanes.iter().all(|lane| lane.waiting.is_empty())
    }
}
