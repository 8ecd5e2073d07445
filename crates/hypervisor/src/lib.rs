//! How a node runs its guests: the trait [`Hypervisor`], and drivers.
//!
//! Invariants of every driver: a guest is no child of the caller, so it lives on when the caller
//! dies; whoever calls next finds it again by [`Hypervisor::list`] and goes on with it; every call
//! may be repeated, and does what is still missing.
//!
//! Not here: when a guest is made, drained or ended (node agent and planners), and what its
//! programs do.

mod cgroup;
mod daemon;
mod error;
mod netns;
mod spec;

pub use daemon::{Daemon, Process};
pub use error::{Error, Result};
pub use netns::{GUEST_INTERFACE, NetnsDriver, NetnsOptions};
pub use spec::{Gateways, GuestName, GuestSpec, Limits, Program};

use std::fmt::Debug;
use std::time::Duration;

/// Runs guests. Blocking: call it from a thread that may wait.
pub trait Hypervisor: Debug + Send + Sync {
    /// Makes the guest's place (network, limits, folder); nothing runs in it yet. A guest that is
    /// there keeps running and takes what of the specification can be changed under it: addresses,
    /// VIPs, limits and programs.
    fn create(&self, spec: &GuestSpec) -> Result<Guest>;

    /// Starts every program of the guest that does not run, in the order of its specification.
    fn start(&self, name: &GuestName) -> Result<Guest>;

    /// Ends the guest's programs in reverse order: asked first, killed after `grace` each. Its
    /// place stays.
    fn stop(&self, name: &GuestName, grace: Duration) -> Result<()>;

    /// Ends one program with `SIGKILL`, and with it nothing else of the guest. [`Self::start`]
    /// brings it back.
    fn kill_program(&self, name: &GuestName, program: &str) -> Result<()>;

    /// Ends the guest at once and in silence, as a machine that loses its power: no packet tells
    /// anybody. Its place and its folder go too. No error if there is no such guest.
    fn destroy(&self, name: &GuestName) -> Result<()>;

    /// All guests of this node, whoever started them, sorted by name.
    fn list(&self) -> Result<Vec<Guest>>;
}

/// A guest as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    pub spec: GuestSpec,
    /// Name of its network namespace.
    pub namespace: String,
    /// The node's end of its link.
    pub node_interface: String,
    /// Index of the node's end, in the node's namespace.
    pub node_interface_index: u32,
    /// Ethernet address of the guest's end: what a director on this node sends to.
    pub mac: [u8; 6],
    /// Ethernet address of the node's end: what the guest sends to.
    pub node_mac: [u8; 6],
    /// In the order of the specification.
    pub programs: Vec<ProgramState>,
    /// Whether its link is up at both ends. A guest whose cable was pulled is as good as a machine
    /// without power.
    pub is_link_up: bool,
    /// Limits that are not kept here, each with its reason.
    pub degraded: Vec<String>,
}

impl Guest {
    /// Whether all its programs run.
    pub fn is_running(&self) -> bool {
        self.programs
            .iter()
            .all(|program| program.process.is_some())
    }
}

/// A program of a guest as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramState {
    pub name: String,
    /// None: it does not run.
    pub process: Option<Process>,
}

#[cfg(test)]
mod tests;
