//! The loops that leases hang on come before what else runs on the machine.
//!
//! A guest that does not get its lease for 100 ms answers nobody, and is believed dead. Its
//! traffic managers, or a build beside them, may take all of the processor; these loops take next to
//! nothing of it, but when they want it.
//!
//! Niceness, not a real-time policy: a real-time thread that waits for an ordinary one's half-written
//! message would keep it from ever being written.

use std::sync::OnceLock;

use hitless_hypervisor::Process;

/// Before programs of no special priority, behind the kernel's own.
const NICE: i32 = -15;
/// Where the kernel groups processes by session, niceness counts within the session only, and this
/// file says how nice the whole session is (sched(7)).
const OF_SESSION: &str = "/proc/self/autogroup";

/// What this process was started with.
static ORDINARY: OnceLock<i32> = OnceLock::new();

/// For the calling thread, threads that it starts from now on, and the process's session. Where it
/// is not allowed, everything works, with the machine's patience.
pub(crate) fn raise() {
    ORDINARY.get_or_init(|| {
        // A shell's other programs are not to be raised too.
        if Process::own().is_some_and(Process::leads_session)
            && let Err(error) = std::fs::write(OF_SESSION, NICE.to_string())
        {
            tracing::debug!(%error, "its session has no special priority");
        }
        rustix::process::getpriority_process(None).unwrap_or(0)
    });
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "runs with no special priority");
    }
}

/// Back to what the process was started with: for work that takes its time, on a thread that was
/// started by one that [`raise`] was called on.
pub(crate) fn ordinary() {
    if let Some(nice) = ORDINARY.get() {
        let _ = rustix::process::setpriority_process(None, *nice);
    }
}
