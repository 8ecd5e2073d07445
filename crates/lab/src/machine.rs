//! Whether the machine has what a lab needs, with figures.
//!
//! The figures are upper bounds of what was measured for each part, so that a lab that is accepted
//! also runs.

use std::fs;

use anyhow::{Result, bail};
use rustix::process::Resource;

use crate::topology::{CLIENT_PORTS, Topology};

const MIB: u64 = 1 << 20;
/// Agent, director's tables (512 KiB of rows per virtual cluster) and the kernel's share of a
/// namespace.
const NODE_BYTES: u64 = 48 * MIB;
/// Ingress, keeper and worker with their memory file, and the namespace.
const GUEST_BYTES: u64 = 96 * MIB;
/// Controller, store, clients, members.
const BASE_BYTES: u64 = 256 * MIB;
/// Four sockets' buffers and a slot.
const CONNECTION_BYTES: u64 = 64 << 10;
/// Client and member sockets, pipes of a spliced pair, and the keeper's duplicates: the most that
/// one process has.
const CONNECTION_DESCRIPTORS: u64 = 8;
const NODE_PROCESSES: u64 = 1;
/// Ingress, keeper, and two workers during a takeover.
const GUEST_PROCESSES: u64 = 4;

/// What a lab needs, or what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub memory_bytes: u64,
    pub descriptors: u64,
    pub processes: u64,
    /// Of the clients' one address of each family, towards one virtual server.
    pub ports: u64,
}

/// How large a lab gets at its largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub nodes: u64,
    pub guests: u64,
    pub web_servers: u64,
    /// Connections that are open at a time.
    pub connections: u64,
    /// Client ports in use at a time towards one virtual server.
    pub ports: u64,
}

impl Size {
    /// Of a lab without traffic.
    pub fn of(topology: &Topology) -> Self {
        Self {
            nodes: topology.nodes.len() as u64,
            guests: topology.guests.len() as u64,
            web_servers: u64::from(topology.web_servers),
            connections: 0,
            ports: 0,
        }
    }

    /// What it needs.
    pub const fn need(self) -> Capacity {
        Capacity {
            memory_bytes: BASE_BYTES
                + self.nodes * NODE_BYTES
                + self.guests * GUEST_BYTES
                + self.connections * CONNECTION_BYTES,
            descriptors: 256 + self.connections * CONNECTION_DESCRIPTORS,
            processes: 8
                + self.web_servers
                + self.nodes * NODE_PROCESSES
                + self.guests * GUEST_PROCESSES,
            ports: self.ports,
        }
    }
}

/// What this machine has to give.
pub fn available() -> Result<Capacity> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let free_kib: u64 = memory
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemAvailable:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0);
    let limit = |resource| {
        rustix::process::getrlimit(resource)
            .maximum
            .unwrap_or(u64::MAX)
    };
    let running = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .count() as u64;
    let pid_max: u64 = fs::read_to_string("/proc/sys/kernel/pid_max")?
        .trim()
        .parse()?;
    Ok(Capacity {
        memory_bytes: free_kib * 1_024,
        descriptors: limit(Resource::Nofile),
        processes: limit(Resource::Nproc).min(pid_max).saturating_sub(running),
        ports: CLIENT_PORTS.1 - CLIENT_PORTS.0 + 1,
    })
}

/// Refuses what does not fit, and says by how much.
pub fn check(need: Capacity, has: Capacity) -> Result<()> {
    let mut missing = Vec::new();
    if need.memory_bytes > has.memory_bytes {
        missing.push(format!(
            "{} MiB of memory, and has {}",
            need.memory_bytes / MIB,
            has.memory_bytes / MIB
        ));
    }
    if need.descriptors > has.descriptors {
        missing.push(format!(
            "{} file descriptors in one process, and allows {}",
            need.descriptors, has.descriptors
        ));
    }
    if need.processes > has.processes {
        missing.push(format!(
            "{} processes, and has room for {}",
            need.processes, has.processes
        ));
    }
    if need.ports > has.ports {
        missing.push(format!(
            "{} client ports towards one virtual server, and has {}",
            need.ports, has.ports
        ));
    }
    if !missing.is_empty() {
        bail!("this machine needs for this lab: {}", missing.join("; "));
    }
    Ok(())
}
