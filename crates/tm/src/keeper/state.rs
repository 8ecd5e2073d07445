//! What a keeper leaves to the program that replaces it: a sealed memory file, its layout version
//! first.
//!
//! Descriptors are written by their numbers, which exec keeps. The workers' hello says which
//! layouts the new program reads, so a keeper never starts one that could not go on.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use hitless_carry::process::{Inheritance, Watched};
use hitless_carry::slots::Slots;
use hitless_carry::vault::Vault;
use hitless_carry::{memory, process};

use super::clients::ClientConnection;
use super::course::State;
use super::hold::{Held, HeldPipe, HeldSlot};
use super::listeners::Listener;
use super::process::{Queue, Twin, Worker};
use super::{Keeper, KeeperError, KeeperOptions, Who};
use crate::control::Request;
use crate::control::packet::{opcode, request_of};
use crate::link::journal::Journal;
use crate::link::{KEEPER_STATE_LAYOUT, WorkerHello};
use crate::wire::{Malformed, Reader, Writer};

/// Names the memory file's descriptor to the next program.
pub(super) const VARIABLE: &str = "HITLESS_KEEPER_STATE";

/// A state above this is not ours: 64 bytes for each of a million descriptors.
const BYTES_MAX: u64 = 64 << 20;

/// Replaces this process; returns only if that failed.
pub(super) fn replace(keeper: &Keeper, who: Who, text: &str) -> io::Error {
    let mut keep = Vec::new();
    let bytes = write(keeper, who, text, &mut keep);
    let file = match memory::from_bytes("hitless-keeper", &bytes) {
        Ok(file) => file,
        Err(error) => return error,
    };
    keep.push(file.as_raw_fd());
    let number = file.as_raw_fd().to_string();
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    process::replace(
        &keeper.options.program,
        &args,
        (VARIABLE, OsStr::new(&number)),
        &keep,
    )
}

fn write(keeper: &Keeper, who: Who, text: &str, keep: &mut Vec<RawFd>) -> Vec<u8> {
    let mut w = Writer::new();
    let mut fd = |w: &mut Writer, fd: &dyn AsRawFd| {
        keep.push(fd.as_raw_fd());
        w.u32(fd.as_raw_fd() as u32);
    };
    w.u16(KEEPER_STATE_LAYOUT).u64(keeper.started_us);
    w.u64(keeper.restarts)
        .u64(keeper.upgrades)
        .u64(keeper.reloads)
        .u64(keeper.quarantined);
    keeper.journal.encode(&mut w);
    w.text(&keeper.last_refusal)
        .bytes(&keeper.config)
        .bytes(&keeper.candidate)
        .u32(keeper.client_ids);
    w.u32(who.0.map_or(0, |id| id + 1)).text(text);
    fd(&mut w, &keeper.slots.file());
    fd(&mut w, &keeper.lock);
    fd(&mut w, &keeper.control);

    w.u32(keeper.clients.len() as u32);
    for client in &keeper.clients {
        w.u32(client.id);
        fd(&mut w, &client.socket);
        w.u32(client.waiting.len() as u32);
        for packet in &client.waiting {
            w.bytes(packet);
        }
    }
    // What waits for its turn is answered by the next program.
    w.u32(keeper.queue.len() as u32);
    for (request, who) in &keeper.queue {
        w.u8(opcode(*request)).u32(who.0.map_or(0, |id| id + 1));
    }
    w.u32(keeper.asked.len() as u32);
    for (id, (client, request)) in &keeper.asked {
        let is_status = *request == Request::Status;
        w.u32(*id).u32(*client).u8(is_status.into());
    }
    w.u32(keeper.listeners.len() as u32);
    for listener in &keeper.listeners {
        w.address(listener.requested).address(listener.bound);
        w.u32(listener.sockets.len() as u32);
        for socket in &listener.sockets {
            fd(&mut w, socket);
        }
    }
    w.u64(keeper.held.unprotected)
        .u32(keeper.held.lanes.len() as u32);
    for lane in &keeper.held.lanes {
        w.u32(lane.slots.len() as u32);
        for (index, slot) in &lane.slots {
            w.u32(*index).u32(slot.generation).u8(slot.fds.len() as u8);
            for held in &slot.fds {
                fd(&mut w, held.as_ref());
            }
        }
        w.u32(lane.pipes.len() as u32);
        for (index, pipe) in &lane.pipes {
            w.u32(*index).u32(pipe.maker);
            fd(&mut w, pipe.ends[0].as_ref());
            fd(&mut w, pipe.ends[1].as_ref());
        }
    }
    let worker = keeper
        .current
        .as_ref()
        .expect("a keeper replaces itself only beside a worker");
    w.u32(worker.process.pid);
    fd(&mut w, &worker.process.pidfd);
    fd(&mut w, &worker.link.socket);
    w.u32(worker.lanes.len() as u32);
    for lane in &worker.lanes {
        fd(&mut w, &lane.socket);
    }
    fd(&mut w, &worker.twin.channel);
    let twin = worker.twin.process.as_ref();
    w.u32(twin.map_or(0, |twin| twin.pid));
    if let Some(twin) = twin {
        fd(&mut w, &twin.pidfd);
    }
    w.u32(worker.incarnation).u64(worker.since_us);
    let hello = worker
        .hello
        .as_ref()
        .expect("a worker that serves has greeted");
    w.u16(hello.version)
        .u16(hello.writes)
        .u16(hello.reads.0)
        .u16(hello.reads.1);
    w.u16(hello.keeper_states.0).u16(hello.keeper_states.1);
    w.u64(hello.descriptors_max).text(&hello.build);
    keeper.journal.encode_costs(&mut w);
    // A program that does not know of these does not look behind the build.
    fd(&mut w, &keeper.vault.file());
    w.u8(keeper.files.is_some().into());
    if let Some(files) = &keeper.files {
        fd(&mut w, files.as_ref());
    }
    w.bytes
}

/// What the program before left, if this process replaced one. Call it before any descriptor is
/// opened.
pub(super) fn inherited() -> Result<Option<(Inheritance, Vec<u8>)>, KeeperError> {
    let Some(number) = std::env::var(VARIABLE).ok() else {
        return Ok(None);
    };
    let broken = |source| KeeperError::Io {
        what: "state of the program before",
        source,
    };
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, Malformed);
    let inheritance = Inheritance::claim().ok_or_else(|| broken(invalid()))?;
    let number = number.parse().map_err(|_| broken(invalid()))?;
    let file = inheritance.take(number).ok_or_else(|| broken(invalid()))?;
    let bytes = memory::to_bytes(file.as_fd(), BYTES_MAX).map_err(broken)?;
    Ok(Some((inheritance, bytes)))
}

/// The keeper that goes on, and whom to tell what.
pub(super) fn read(
    options: KeeperOptions,
    inheritance: &Inheritance,
    bytes: &[u8],
) -> Result<(Keeper, Who, String), KeeperError> {
    read_fields(options, inheritance, bytes).map_err(|error| KeeperError::Io {
        what: "state of the program before",
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

fn read_fields(
    options: KeeperOptions,
    inheritance: &Inheritance,
    bytes: &[u8],
) -> Result<(Keeper, Who, String), Malformed> {
    let mut r = Reader::new(bytes);
    let take = |r: &mut Reader<'_>| -> Result<OwnedFd, Malformed> {
        let number = RawFd::try_from(r.u32()?).map_err(|_| Malformed)?;
        inheritance.take(number).ok_or(Malformed)
    };
    if r.u16()? != KEEPER_STATE_LAYOUT {
        return Err(Malformed);
    }
    let started_us = r.u64()?;
    let (restarts, upgrades) = (r.u64()?, r.u64()?);
    let (reloads, quarantined) = (r.u64()?, r.u64()?);
    let mut journal = Journal::decode(&mut r)?;
    let last_refusal = r.text()?.to_owned();
    let config = r.bytes()?.to_vec();
    let candidate = r.bytes()?.to_vec();
    let client_ids = r.u32()?;
    let who = Who(r.u32()?.checked_sub(1));
    let text = r.text()?.to_owned();
    let slots = Slots::map(take(&mut r)?).map_err(|_| Malformed)?;
    let lock = take(&mut r)?;
    let control = take(&mut r)?;

    let mut clients = Vec::new();
    for _ in 0..r.u32()? {
        let (id, socket) = (r.u32()?, take(&mut r)?);
        let mut waiting = VecDeque::new();
        for _ in 0..r.u32()? {
            waiting.push_back(r.bytes()?.to_vec());
        }
        clients.push(ClientConnection {
            id,
            socket,
            waiting,
        });
    }
    let mut queue = VecDeque::new();
    for _ in 0..r.u32()? {
        let request = request_of(r.u8()?).ok_or(Malformed)?;
        queue.push_back((request, Who(r.u32()?.checked_sub(1))));
    }
    let mut asked = HashMap::new();
    for _ in 0..r.u32()? {
        let (id, client, is_status) = (r.u32()?, r.u32()?, r.flag()?);
        let request = if is_status {
            Request::Status
        } else {
            Request::Metrics
        };
        asked.insert(id, (client, request));
    }
    let mut listeners = Vec::new();
    for _ in 0..r.u32()? {
        let (requested, bound) = (r.address()?, r.address()?);
        let sockets = (0..r.u32()?)
            .map(|_| take(&mut r))
            .collect::<Result<_, _>>()?;
        listeners.push(Listener {
            requested,
            bound,
            sockets,
        });
    }
    let mut held = Held {
        unprotected: r.u64()?,
        ..Held::new(r.u32()?)
    };
    for lane in &mut held.lanes {
        for _ in 0..r.u32()? {
            let (index, generation, count) = (r.u32()?, r.u32()?, r.u8()?);
            let fds = (0..count)
                .map(|_| take(&mut r).map(Rc::new))
                .collect::<Result<_, _>>()?;
            held.count += usize::from(count);
            lane.slots.insert(index, HeldSlot { generation, fds });
        }
        for _ in 0..r.u32()? {
            let (index, maker) = (r.u32()?, r.u32()?);
            let ends = [Rc::new(take(&mut r)?), Rc::new(take(&mut r)?)];
            held.count += 2;
            lane.pipes.insert(index, HeldPipe { maker, ends });
        }
    }
    let pid = r.u32()?;
    let process = Watched {
        pid,
        pidfd: take(&mut r)?,
    };
    let link = Queue::new(take(&mut r)?);
    let lanes = (0..r.u32()?)
        .map(|_| take(&mut r).map(Queue::new))
        .collect::<Result<_, _>>()?;
    let channel = take(&mut r)?;
    let twin = match r.u32()? {
        0 => None,
        pid => Some(Watched {
            pid,
            pidfd: take(&mut r)?,
        }),
    };
    let worker = Worker {
        process,
        link,
        lanes,
        twin: Twin {
            channel,
            process: twin,
        },
        incarnation: r.u32()?,
        since_us: r.u64()?,
        hello: Some(WorkerHello {
            version: r.u16()?,
            writes: r.u16()?,
            reads: (r.u16()?, r.u16()?),
            keeper_states: (r.u16()?, r.u16()?),
            descriptors_max: r.u64()?,
            build: r.text()?.to_owned(),
        }),
        wanted: Vec::new(),
        fresh: Vec::new(),
    };
    journal.decode_costs(&mut r)?;
    // What comes last is not there if the program before knew no TLS.
    let (mut vault, mut files) = (None, None);
    if !r.is_empty() {
        vault = Vault::map(take(&mut r)?).ok();
        if r.flag()? {
            files = Some(Rc::new(take(&mut r)?));
        }
    }
    let fresh = Keeper::new(options, slots, lock, control).map_err(|_| Malformed)?;
    let keeper = Keeper {
        started_us,
        restarts,
        upgrades,
        reloads,
        quarantined,
        last_refusal,
        journal,
        config,
        candidate,
        client_ids,
        clients,
        queue,
        asked,
        listeners,
        held,
        current: Some(worker),
        course: State::Serving,
        vault: vault.unwrap_or(fresh.vault),
        files,
        ..fresh
    };
    Ok((keeper, who, text))
}
