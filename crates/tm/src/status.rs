//! What `hitless status` shows: the body of the control socket's answer to a status request, as
//! JSON.
//!
//! Written by the worker, read by whoever asks; a reader of another release ignores fields that it
//! does not know. Absent is not the same as zero: an `Option` that is `None` is shown as `?`.

use std::net::SocketAddr;
use std::path::PathBuf;

use hitless_core::health::{Admin, AdminReason, Config, ConfigReason, Health, HealthReason};
use hitless_core::ledger::Ledger;
use serde::{Deserialize, Serialize};

/// What runs. Ages instead of times of day, so that no clock has to agree.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    pub program: Program,
    pub config: Config,
    pub config_reason: ConfigReason,
    pub virtual_servers: Vec<VirtualServerStatus>,
    pub pools: Vec<PoolStatus>,
    /// The latest last; at most [`CHANGES_MAX`].
    pub changes: Vec<Change>,
    /// `None` if an older program does not say.
    #[serde(default)]
    pub losses: Option<Losses>,
    /// Connections whose clients were told to close since the keeper was first started. `None` if
    /// an older program does not say.
    #[serde(default)]
    pub told_to_close_total: Option<u64>,
}

/// What deaths of workers have cost since the keeper was first started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Losses {
    pub connections_total: u64,
    /// Of these, requests that were under way.
    pub requests_total: u64,
}

/// Changes that a program remembers: those of a day of work by hand.
pub const CHANGES_MAX: usize = 16;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Program {
    pub build: String,
    pub keeper_pid: u32,
    /// `None` while no worker runs.
    pub worker_pid: Option<u32>,
    pub site_file: PathBuf,
    pub run_dir: PathBuf,
    /// Since the keeper was first started; upgrades do not count.
    pub age_ms: u64,
    /// Since this worker started. `None` while no worker runs.
    pub worker_age_ms: Option<u64>,
    /// Client connections at the moment. `None` if no worker could be asked.
    pub connections: Option<u64>,
    /// Whether clients are told to close, as while a guest is drained. `None` if an older program
    /// does not say.
    #[serde(default)]
    pub tells_to_close: Option<bool>,
    /// How long connections may still go on, while it stops. `None` if it does not stop, or an
    /// older program does not say.
    #[serde(default)]
    pub drain_left_ms: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VirtualServerStatus {
    pub name: String,
    pub listen: SocketAddr,
    pub protocol: String,
    pub pool: String,
    pub admin: Admin,
    /// Up while one member can be used; down while none can; unknown while nothing is known of any.
    pub health: Health,
    pub traffic: Traffic,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PoolStatus {
    pub name: String,
    pub method: String,
    pub members: Vec<MemberStatus>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    pub address: SocketAddr,
    pub weight: u16,
    pub admin: Admin,
    pub admin_reason: AdminReason,
    pub health: Health,
    pub health_reason: HealthReason,
    /// For how long the health is what it is. `None` while nothing is known.
    pub health_age_ms: Option<u64>,
    pub traffic: Traffic,
}

/// Figures of a virtual server or member. They survive reloads and upgrades. `None` is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Traffic {
    pub connections: Option<u64>,
    pub connections_total: Option<u64>,
    pub requests_total: Option<u64>,
    pub failures_total: Option<u64>,
    pub bytes_in_total: Option<u64>,
    pub bytes_out_total: Option<u64>,
}

/// A change that is over, with what it cost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    pub kind: ChangeKind,
    pub age_ms: u64,
    pub text: String,
    /// `None` for a change that touches no connection.
    pub ledger: Option<Ledger>,
    /// Bytes that were in pipes when it began, and went on. `None` for a change that touches no
    /// connection.
    #[serde(default)]
    pub bytes_in_pipes: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Start,
    Reload,
    ReloadRefused,
    Upgrade,
    UpgradeFailed,
    WorkerCrash,
    /// A connection on which workers died was cut.
    Quarantine,
}
