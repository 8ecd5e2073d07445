//! Who may be used, as the data path reads it.
//!
//! Invariants: there is one [`MemberState`] per pool and address for as long as somebody holds it,
//! so what is known of a member survives reloads; [`MemberState::is_usable`] is one relaxed load
//! and never blocks; the columns admin and health are separate and each has its reason; a worker's
//! board also keeps health in the slot file, so that the worker after a crash begins with it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hitless_carry::slots::Slots;
use hitless_core::health::{Admin, AdminReason, Health, HealthReason};
use hitless_types::site::Site;
use serde::{Deserialize, Serialize};

use crate::tls::MembersSide;
use crate::worker::stats::{Keyed, member_key};

/// Which member: the same address in two pools is two members, probed apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MemberKey {
    pub pool: String,
    pub address: SocketAddr,
}

/// What is known of a member, as a value: what status shows and what a worker tells the one that
/// follows it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MemberHealth {
    pub admin: Admin,
    pub admin_reason: AdminReason,
    pub health: Health,
    pub health_reason: HealthReason,
    /// When the health became what it is, by the monotonic clock of this machine in microseconds:
    /// the same for every process of it. `None` while nothing is known.
    pub since_us: Option<u64>,
}

/// One member's place on the board.
#[derive(Debug, Default)]
pub struct MemberState {
    /// Where its health is kept over a crash. `None`: nowhere.
    memory: Option<Memory>,
    /// Admin state and health in one byte, see [`pack`].
    word: AtomicU8,
    detail: Mutex<MemberHealth>,
    /// How its probes speak TLS. `None`: in cleartext.
    tls: Mutex<Option<Arc<MembersSide>>>,
}

impl MemberState {
    pub(crate) fn set_tls(&self, tls: Option<Arc<MembersSide>>) {
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = tls;
    }

    pub(super) fn tls(&self) -> Option<Arc<MembersSide>> {
        self.tls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether new work may go there: the operator lets it, and no probe says that it is down. One
    /// load.
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
        self.remember(&detail);
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
        self.remember(&detail);
    }

    /// A place that begins with what the slot file has of it.
    fn recalled(memory: Memory) -> Self {
        let detail = memory.read();
        Self {
            word: AtomicU8::new(pack(detail.admin, detail.health)),
            detail: Mutex::new(detail),
            memory: Some(memory),
            tls: Mutex::default(),
        }
    }

    fn remember(&self, detail: &MemberHealth) {
        if let Some(memory) = &self.memory {
            memory.write(detail.health, detail.since_us);
        }
    }
}

/// A member's health in the slot file: one word, health in the two low bits, since when above them.
/// 0 is unknown.
#[derive(Debug)]
struct Memory {
    slots: Arc<Slots>,
    place: usize,
}

impl Memory {
    /// `None` if the table has no room for it: its health is not kept.
    fn of(slots: &Arc<Slots>, key: &MemberKey) -> Option<Self> {
        let place = slots.keyed_index(0, member_key(&key.pool, key.address));
        (place != 0).then(|| Self {
            slots: Arc::clone(slots),
            place,
        })
    }

    fn word(&self) -> &AtomicU64 {
        &self.slots.keyed(0, self.place).counters[Keyed::Health as usize]
    }

    fn write(&self, health: Health, since_us: Option<u64>) {
        let word = match health {
            Health::Unknown => 0,
            Health::Up => since_us.unwrap_or(0) << 2 | 1,
            Health::Down => since_us.unwrap_or(0) << 2 | 2,
        };
        self.word().store(word, Ordering::Relaxed);
    }

    fn read(&self) -> MemberHealth {
        let word = self.word().load(Ordering::Relaxed);
        let health = match word & 3 {
            1 => Health::Up,
            2 => Health::Down,
            _ => return MemberHealth::default(),
        };
        MemberHealth {
            health,
            health_reason: HealthReason::NotProbedYet,
            since_us: Some(word >> 2),
            ..MemberHealth::default()
        }
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
    /// `None`: health dies with the process.
    memory: Option<Arc<Slots>>,
}

impl Board {
    pub fn new() -> Self {
        Self::default()
    }

    /// A board that keeps what is known in the slot file, and begins with what is there.
    pub(crate) fn in_memory(slots: Arc<Slots>) -> Self {
        Self {
            memory: Some(slots),
            ..Self::default()
        }
    }

    fn fresh(&self, key: &MemberKey) -> Arc<MemberState> {
        let memory = self.memory.as_ref();
        let memory = memory.and_then(|slots| Memory::of(slots, key));
        Arc::new(memory.map_or_else(MemberState::default, MemberState::recalled))
    }

    /// The place of a member, made if there is none: unknown, ready. A worker calls this when it
    /// builds its snapshot of a configuration and keeps the result in it.
    pub fn member(&self, pool: &str, address: SocketAddr) -> Arc<MemberState> {
        let key = MemberKey {
            pool: pool.to_owned(),
            address,
        };
        let mut members = lock(&self.members);
        let place = members.entry(key);
        let key = place.key().clone();
        Arc::clone(place.or_insert_with(|| self.fresh(&key)))
    }

    /// Makes a place for every member of `site` and forgets those that are not in it. Places that a
    /// snapshot in use still holds go on to work, unseen.
    pub fn keep_only(&self, site: &Site) {
        let mut members = lock(&self.members);
        let mut old = std::mem::take(&mut *members);
        for pool in &site.pools {
            for member in &pool.members {
                let key = MemberKey {
                    pool: pool.name.as_str().to_owned(),
                    address: member.address,
                };
                let state = old.remove(&key).unwrap_or_else(|| self.fresh(&key));
                members.insert(key, state);
            }
        }
        for memory in old.values().filter_map(|state| state.memory.as_ref()) {
            memory.write(Health::Unknown, None);
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
            let state = members.entry(key.clone());
            state.or_insert_with(|| self.fresh(&key)).set_all(health);
        }
    }
}

/// A panic elsewhere leaves a whole value behind each of these locks, so its poison is no reason to
/// stop.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
