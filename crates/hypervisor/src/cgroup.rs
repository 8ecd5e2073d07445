//! A guest's limits as a control group, in either version of the kernel's interface.
//!
//! Limits are a help, not a promise: where the machine does not let us set one (no such controller,
//! a container that may not), the guest runs without it, and the reason is part of what the driver
//! reports.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Limits;

/// Where control groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// Our folder in it.
const OURS: &str = "hitless";
/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_MAGIC: rustix::fs::FsWord = 0x6367_7270;
/// Period of the processor limit in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// A guest's control group: one folder (version 2) or one per controller (version 1).
#[derive(Debug)]
pub(crate) struct Cgroup {
    /// Files by which a process joins.
    pub joins: Vec<PathBuf>,
    /// Limits that are asked for and not kept, each with its reason.
    pub degraded: Vec<String>,
}

/// One limit: its controller, the file in version 1 and 2, and their values.
struct Setting {
    controller: &'static str,
    v1: (&'static str, String),
    v2: (&'static str, String),
    is_asked_for: bool,
}

fn settings(limits: &Limits) -> [Setting; 3] {
    let max = |value: Option<u64>, none: &str| value.map_or(none.to_owned(), |v| v.to_string());
    let quota_us = limits
        .cpu_percent_max
        .map(|percent| u64::from(percent) * CPU_PERIOD_US / 100);
    [
        Setting {
            controller: "pids",
            v1: ("pids.max", max(limits.processes_max, "max")),
            v2: ("pids.max", max(limits.processes_max, "max")),
            is_asked_for: limits.processes_max.is_some(),
        },
        Setting {
            controller: "memory",
            v1: ("memory.limit_in_bytes", max(limits.memory_bytes_max, "-1")),
            v2: ("memory.max", max(limits.memory_bytes_max, "max")),
            is_asked_for: limits.memory_bytes_max.is_some(),
        },
        Setting {
            controller: "cpu",
            v1: ("cpu.cfs_quota_us", max(quota_us, "-1")),
            v2: (
                "cpu.max",
                format!("{} {CPU_PERIOD_US}", max(quota_us, "max")),
            ),
            is_asked_for: limits.cpu_percent_max.is_some(),
        },
    ]
}

/// Makes the control group `name`, or takes the one that is there, and sets its limits.
pub(crate) fn create(name: &str, limits: &Limits) -> Cgroup {
    let mut group = Cgroup {
        joins: Vec::new(),
        degraded: Vec::new(),
    };
    let unified = is_unified().then(|| prepare_unified(name));
    for setting in settings(limits) {
        let set = || -> io::Result<PathBuf> {
            let (folder, (file, value)) = match &unified {
                Some(Ok(folder)) => (folder.clone(), setting.v2),
                Some(Err(error)) => return Err(io::Error::new(error.kind(), error.to_string())),
                None => {
                    let controller = Path::new(ROOT).join(setting.controller);
                    if !controller.join("cgroup.procs").exists() {
                        return Err(io::Error::other("this machine has no such controller"));
                    }
                    (controller.join(OURS).join(name), setting.v1)
                }
            };
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(file), value)?;
            Ok(folder.join("cgroup.procs"))
        };
        match set() {
            Ok(join) if !group.joins.contains(&join) => group.joins.push(join),
            Ok(_) => {}
            Err(error) if setting.is_asked_for => {
                let controller = setting.controller;
                group
                    .degraded
                    .push(format!("no limit of {controller}: {error}"));
            }
            Err(_) => {}
        }
    }
    group
}

/// Removes the control group. It must be empty; what cannot be removed stays, since it holds
/// nothing.
pub(crate) fn remove(name: &str) {
    for parent in ["", "pids", "memory", "cpu"] {
        let _ = fs::remove_dir(Path::new(ROOT).join(parent).join(OURS).join(name));
    }
}

fn is_unified() -> bool {
    rustix::fs::statfs(ROOT).is_ok_and(|stat| stat.f_type == CGROUP2_MAGIC)
}

/// Makes the folder and passes the controllers down to it.
fn prepare_unified(name: &str) -> io::Result<PathBuf> {
    let root = Path::new(ROOT);
    let ours = root.join(OURS);
    fs::create_dir_all(ours.join(name))?;
    for folder in [root, &ours] {
        for controller in ["+pids", "+memory", "+cpu"] {
            // One that is not there is found out when its limit is set.
            let _ = fs::write(folder.join("cgroup.subtree_control"), controller);
        }
    }
    Ok(ours.join(name))
}
