//! The life of labs: who owns them, how they are found, and how they go.
//!
//! A lab goes with the process that owns it, however that ends: a guard, which is nobody's child,
//! waits for it. What even a killed guard leaves is found by its names.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hitless_hypervisor::{Daemon, Process};
use hitless_net::Namespace;
use rustix::fs::FlockOperation;
use rustix::mount::UnmountFlags;
use rustix::process::Signal;

use crate::kill::{self, GONE_WITHIN};
use crate::topology::{check_id, folder_of, prefix_of};
use crate::world::World;

/// One process at a time decides what becomes of labs: a guard that takes a dead one down must not
/// meet the next of its id.
pub(crate) fn lock() -> Result<fs::File> {
    const PATH: &str = "/run/hitless-lab.lock";
    let file = fs::File::create(PATH).with_context(|| format!("cannot open {PATH}"))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)
        .with_context(|| format!("cannot lock {PATH}"))?;
    Ok(file)
}

/// Takes lab `id` down, whatever is left of it. False if there was nothing.
pub fn down(id: &str) -> Result<bool> {
    check_id(id)?;
    ensure!(
        rustix::process::geteuid().is_root(),
        "taking a lab down needs root"
    );
    let _lock = lock()?;
    remove(id)
}

/// The same, by who holds the lock.
pub(crate) fn remove(id: &str) -> Result<bool> {
    let folder = folder_of(id);
    let was_there = folder.exists() || !Namespace::list(&prefix_of(id))?.is_empty();
    // What runs in no namespace of the lab's has a pid file.
    if let Ok(entries) = fs::read_dir(folder.join("logs")) {
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.extension().is_some_and(|extension| extension == "pid")
                && let Some(process) = Process::from_file(&path)
            {
                process.signal(Signal::KILL)?;
                process.wait_gone(GONE_WITHIN)?;
            }
        }
    }
    for name in Namespace::list(&prefix_of(id))? {
        if let Ok(namespace) = Namespace::open(&name) {
            kill::all_in(&namespace)?;
        }
        Namespace::delete(&name)?;
    }
    let bpf = folder.join("bpf");
    match rustix::mount::unmount(&bpf, UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error).context("cannot unmount the lab's BPF file system"),
    }
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(was_there),
    }
}

/// The ids of all labs that are up, or left.
pub fn all() -> Vec<String> {
    let mut ids: Vec<String> = fs::read_dir("/run/hitless-lab")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| check_id(name).is_ok())
        .collect();
    ids.sort();
    ids
}

/// Takes down every lab whose owner is gone, and what is left of one of which nobody knows any more
/// whose it was.
pub fn reap() -> Result<Vec<String>> {
    let mut reaped = Vec::new();
    for id in all() {
        let _lock = lock()?;
        let is_due = match World::open(&id) {
            Ok(world) => world.owner().is_some_and(|owner| !owner.is_alive()),
            Err(_) => true,
        };
        if is_due && remove(&id)? {
            reaped.push(id);
        }
    }
    Ok(reaped)
}

/// Takes lab `id` down if `process` owns it. False if not.
pub fn down_if_of(id: &str, process: Process) -> Result<bool> {
    let _lock = lock()?;
    let owner = World::open(id).ok().and_then(|world| world.owner());
    if owner == Some(process) {
        remove(id)
    } else {
        Ok(false)
    }
}

/// Waits for the end of `process`, then takes lab `id` down, unless that was done, or another run
/// owns it now: what `hitless lab guard` does.
pub fn guard(id: &str, pid: u32, started_ticks: u64) -> Result<()> {
    check_id(id)?;
    let process = Process { pid, started_ticks };
    while !process.wait_gone(Duration::from_secs(3_600))? {}
    {
        let _lock = lock()?;
        // An interrupted process may have gone on building while its lab was taken down: what has
        // no state is nobody's.
        let is_due = World::open(id).map_or(true, |world| world.owner() == Some(process));
        if is_due {
            remove(id)?;
        }
    }
    for file in guard_files(id, process) {
        let _ = fs::remove_file(file);
    }
    Ok(())
}

/// The log and the pid file of the guard that waits for `process`. Not in the lab's folder: taking
/// it down ends all that has a pid file there, and it is the guard that does so.
fn guard_files(id: &str, process: Process) -> [PathBuf; 2] {
    ["log", "pid"].map(|kind| {
        let name = format!("hitless-lab-guard-{id}-{}.{kind}", process.pid);
        Path::new("/run").join(name)
    })
}

/// Starts a process that takes the lab down when `own`, the calling one, is gone, however it goes.
pub(crate) fn start_guard(world: &World, own: Process) -> Result<()> {
    let id = &world.topology().id;
    let arguments = [
        "lab",
        "guard",
        id,
        &own.pid.to_string(),
        &own.started_ticks.to_string(),
    ]
    .map(str::to_owned);
    let [log, pid_file] = guard_files(id, own);
    let daemon = Daemon {
        binary: &std::env::current_exe()?,
        arguments: &arguments,
        environment: &[],
        namespace: &Namespace::current()?,
        cgroups: &[],
        log: &log,
        pid_file: &pid_file,
    };
    daemon.spawn().context("cannot start the lab's guard")?;
    Ok(())
}
