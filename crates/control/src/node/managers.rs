//! The thread that keeps traffic managers at the ordered program and site configuration.
//!
//! A generation is tried once: a manager that refuses a configuration, or fails an upgrade, keeps
//! what it had, and the refusal is reported until another generation is ordered.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, SyncSender, channel};
use std::time::Duration;

use hitless_core::ledger::Ledger;
use serde::{Deserialize, Serialize};

use super::Event;
use super::guests::Running;
use crate::file;
use crate::message::{Orders, SiteFile};

/// How often managers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a guest's traffic manager is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManagerPlan {
    /// The boot of the guest: a new one begins with the newest of everything.
    pub boot: u64,
    pub site: SiteFile,
    pub manager_generation: u64,
    /// None: the agent's own program.
    pub program: Option<String>,
    /// Its clients are told to close.
    pub is_draining: bool,
}

impl ManagerPlan {
    pub(super) fn all(
        orders: &Orders,
        running: &BTreeMap<String, Running>,
    ) -> BTreeMap<String, Self> {
        let plan = |(name, guest): (&String, &Running)| {
            let plan = Self {
                boot: guest.boot,
                site: orders.site.clone(),
                manager_generation: orders.programs.manager_generation,
                program: orders.programs.manager.clone(),
                is_draining: orders
                    .guests
                    .get(name)
                    .is_some_and(|guest| guest.is_draining),
            };
            (name.clone(), plan)
        };
        running
            .iter()
            .filter(|(name, _)| orders.guests.contains_key(*name))
            .map(plan)
            .collect()
    }
}

/// What a traffic manager is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ManagerState {
    /// Its build; none: it does not answer.
    pub program: Option<String>,
    pub worker_pids: Vec<u32>,
    pub site_generation: u64,
    pub site_refused: Option<String>,
    pub manager_generation: u64,
    pub upgrade_failed: Option<String>,
    pub upgrade_ledger: Option<Ledger>,
    /// Figures of it, by name.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
}

/// What a manager says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Looked {
    pub program: String,
    pub worker_pids: Vec<u32>,
    /// Whether it tells clients to close; none: it cannot.
    pub tells_to_close: Option<bool>,
    /// Figures that change only when something happens to it, by name.
    pub counters: BTreeMap<String, u64>,
}

/// How a node reaches the traffic managers of its guests. Calls wait until the work is done.
pub trait ManagerControl: Send + Sync {
    /// Applies this site configuration, or says why it is refused.
    fn reload(&self, guest: &str, site: &str) -> Result<(), String>;

    /// Replaces keeper and worker by the program at this path (none: the agent's own), and carries
    /// all connections over.
    fn upgrade(&self, guest: &str, program: Option<&str>) -> Result<Option<Ledger>, String>;

    /// Clients are told to close where their protocol can say so, or are no longer.
    fn tell_to_close(&self, guest: &str, tells: bool) -> Result<(), String>;

    /// What runs. None: it does not answer.
    fn look(&self, guest: &str) -> Option<Looked>;
}

/// What is known of a guest's manager; kept in a file, so that an agent that comes back repeats
/// nothing.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
struct Own {
    boot: u64,
    state: ManagerState,
    site_tried: Option<u64>,
    manager_tried: Option<u64>,
}

/// Starts the thread; plans go into what it returns.
pub(super) fn keep(
    control: Arc<dyn ManagerControl>,
    kept: PathBuf,
    events: SyncSender<Event>,
) -> Sender<BTreeMap<String, ManagerPlan>> {
    let (sender, plans) = channel();
    std::thread::spawn(move || {
        let mut plan: BTreeMap<String, ManagerPlan> = BTreeMap::new();
        let mut own: BTreeMap<String, Own> = file::read_json(&kept).unwrap_or_default();
        let mut written = own.clone();
        loop {
            match plans.recv_timeout(LOOK_EVERY) {
                Ok(newest) => plan = plans.try_iter().last().unwrap_or(newest),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            own.retain(|name, _| plan.contains_key(name));
            for (name, plan) in &plan {
                bring(&*control, name, plan, own.entry(name.clone()).or_default());
            }
            if own != written {
                if let Err(error) = file::write_json(&kept, &own) {
                    tracing::warn!(%error, "cannot keep what managers were told in a file");
                }
                written = own.clone();
            }
            let states = own
                .iter()
                .map(|(name, own)| (name.clone(), own.state.clone()))
                .collect();
            if events.send(Event::Managers(states)).is_err() {
                return;
            }
        }
    });
    sender
}

/// Brings one manager to its plan.
fn bring(control: &dyn ManagerControl, name: &str, plan: &ManagerPlan, own: &mut Own) {
    if own.boot != plan.boot {
        // A guest begins with the newest program.
        *own = Own {
            boot: plan.boot,
            manager_tried: Some(plan.manager_generation),
            ..Own::default()
        };
        own.state.manager_generation = plan.manager_generation;
    }
    let looked = control.look(name);
    own.state.program = looked.as_ref().map(|looked| looked.program.clone());
    own.state.worker_pids = looked
        .as_ref()
        .map(|looked| looked.worker_pids.clone())
        .unwrap_or_default();
    let Some(looked) = looked else { return };
    own.state.counters.clone_from(&looked.counters);
    // Asked for anew where a keeper that was started again has forgotten it.
    if looked
        .tells_to_close
        .is_some_and(|tells| tells != plan.is_draining)
        && let Err(reason) = control.tell_to_close(name, plan.is_draining)
    {
        tracing::warn!(guest = name, reason, "its clients cannot be told to close");
    }
    if plan.site.generation > 0 && own.site_tried != Some(plan.site.generation) {
        own.site_tried = Some(plan.site.generation);
        let result = control.reload(name, &plan.site.text);
        match &result {
            Ok(()) => own.state.site_generation = plan.site.generation,
            Err(reason) => {
                tracing::warn!(guest = name, reason, "the site configuration was refused")
            }
        }
        own.state.site_refused = result.err();
    }
    if own.manager_tried != Some(plan.manager_generation) {
        own.manager_tried = Some(plan.manager_generation);
        match control.upgrade(name, plan.program.as_deref()) {
            Ok(ledger) => {
                own.state.manager_generation = plan.manager_generation;
                own.state.upgrade_ledger = ledger;
                own.state.upgrade_failed = None;
            }
            Err(reason) => {
                tracing::warn!(guest = name, reason, "the upgrade failed");
                own.state.upgrade_failed = Some(reason);
            }
        }
        if let Some(looked) = control.look(name) {
            own.state.program = Some(looked.program);
            own.state.worker_pids = looked.worker_pids;
        }
    }
}
