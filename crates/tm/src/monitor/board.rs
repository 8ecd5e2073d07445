//! Who may be used, as the data path reads it.
//!
//! Invariants: there is one [`MemberState`] per pool and address for as long as somebody holds it, so what is known of a
//! member survives reloads; [`MemberState::is_usable`] is one relaxed load and never blocks; the columns admin and
//! health are separate and each has its reason.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hitless_core::health::{Admin, AdminReason, Health, HealthReason};
use hitless_types::site::Site;
use serde::{Deserialize, Serialize};

/// Which member: the same address in two pools is two members, probed apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MemberKey {
    pub pool: String,
    pub address: SocketAddr,
}

/// What is known of a member, as a value: what status shows and what a worker tells the one that follows it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MemberHealth {
    pub admin: Admin,
    pub admin_reason: AdminReason,
    pub health: Health,
    pub health_reason: HealthReason,
    /// When the health became what it is, by the monotonic clock of this machine in microseconds: the same for every
    /// process of it. `None` while nothing is known.
    pub since_us: Option<u64>,
}

/// One member's place on the board.
#[derive(Debug, Default)]
pub struct MemberState {
    /// Admin state and health in one byte, see [`pack`].
    word: AtomicU8,
    detail: Mutex<MemberHealth>,
}

impl MemberState {
    /// Whether new work may go there: the operator lets it, and no probe says that it is down. One load.
    pub fn is_usable(&self) -> bool {
        self.word.load(Ordering::Relaxed) == 0
    }

    /// Everything known of it. For status, not for the data path.
    pub fn detail(&self) -> MemberHealth {
        lock(&self.detail).clone()
    }

    /// Replaces what the probes say and keeps what the operator wants.
    pub fn set_health(&self, health: Health, reason: HealthReason, since_us: Option<u64>) {
        let mut detail = lock(&self.detail);
        detail.health = health;
        detail.health_reason = reason;
        detail.since_us = since_us;
        self.word
            .store(pack(detail.admin, detail.health), Ordering::Relaxed);
    }

    /// Replaces what the operator wants and keeps what the probes say.
    pub fn set_admin(&self, admin: Admin, reason: AdminReason) {
        let mut detail = lock(&self.detail);
        detail.admin = admin;
        detail.admin_reason = reason;
        self.word
            .store(pack(detail.admin, detail.health), Ordering::Relaxed);
    }

    fn set_all(&self, value: MemberHealth) {
        let mut detail = lock(&self.detail);
        self.word
            .store(pack(value.admin, value.health), Ordering::Relaxed);
        *detail = value;
    }
}

/// 0 if and only if the member may be used.
const fn pack(admin: Admin, health: Health) -> u8 {
    let admin = match admin {
        Admin::Ready => 0,
        Admin::Drain => 1,
        Admin::Maint => 2,
    };
    let down = match health {
        Health::Up | Health::Unknown => 0,
        Health::Down => 4,
    };
    admin | down
}

/// All members of a traffic manager. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Board {
    members: Arc<Mutex<BTreeMap<MemberKey, Arc<MemberState>>>>,
}

impl Board {
    pub fn new() -> Self {
        Self::default()
    }

    /// The place of a member, made if there is none: unknown, ready. A worker calls this when it builds its snapshot of
    /// a configuration and keeps the result in it.
    pub fn member(&self, pool: &str, address: SocketAddr) -> Arc<MemberState> {
        let key = MemberKey {
            pool: pool.to_owned(),
            address,
        };
        Arc::clone(lock(&self.members).entry(key).or_default())
    }

    /// Makes a place for every member of `site` and forgets those that are not in it. Places that a snapshot in use
    /// still holds go on to work, unseen.
    pub fn keep_only(&self, site: &Site) {
        let mut members = lock(&self.members);
        let mut old = std::mem::take(&mut *members);
        for pool in &site.pools {
            for member in &pool.members {
                let key = MemberKey {
                    pool: pool.name.as_str().to_owned(),
                    address: member.address,
                };
                let state = old.remove(&key).unwrap_or_default();
                members.insert(key, state);
            }
        }
    }

    /// What is known of every member, in the order of pools and addresses.
    pub fn export(&self) -> Vec<(MemberKey, MemberHealth)> {
        let members = lock(&self.members);
        members
            .iter()
            .map(|(key, state)| (key.clone(), state.detail()))
            .collect()
    }

    /// Takes over what another process knew. Called before the monitors start.
    pub fn import(&self, known: Vec<(MemberKey, MemberHealth)>) {
        let mut members = lock(&self.members);
        for (key, health) in known {
            members.entry(key).or_default().set_all(health);
        }
    }
}

/// A panic elsewhere leaves a whole value behind each of these locks, so its poison is no reason to stop.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
