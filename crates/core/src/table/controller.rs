//! The table's controller: the machine that alone decides rows.
//!
//! ```text
//!        policy, boots, losses        acknowledgements, refusals, live connections, silence
//!                  │                                   │
//!                  v                                   v
//!   Loaded ──> decide: slots, trust, wishes, next rows ──> Write (compare-and-set)
//!     ^                                                      │            │
//!     └── Conflict: somebody else wrote, read all anew ──────┘            v Written
//!                                     offers of rows and trust, stage by stage
//! ```
//!
//! **State.** What has to survive is [`Header`] and the [`Page`]s, and lies in the store; nothing
//! is sent before it is written there. How far a row has come is not stored: it follows from
//! acknowledgements, and a controller that has just loaded offers every row again and hears them
//! again. So a controller may die anywhere, and two may run at once: the compare-and-set lets one
//! of them go on, and what both send was written.
//!
//! **Driver.** `Load`: read header and pages, hand in [`Input::Loaded`]. `Write`: one transaction
//! that compares the header's generation with `parent` (absent for `None`) and puts header and
//! pages; then [`Input::Written`], or [`Input::Conflict`] if the comparison failed. `ToAgent`,
//! `ToGuest`: send, or forget if there is no link; whenever a link opens, [`Input::Connected`] has
//! everything offered again. Actions are carried out in order.
//!
//! **Failure paths.** A lost message: offered again after [`OFFER_AGAIN_US`]. A guest from which no
//! director's agent hears: suspect, its trust withdrawn, and after every agent's acknowledgement of
//! that and one lease more it is fenced, and rows go on without it. A leaver that holds connections
//! or turns suspect: its row is withdrawn. A director that is silent: everything waits, by name,
//! until it answers or the policy no longer lists it.
//!
//! Wishes come from [`assign`](crate::assign::assign), rows from
//! [`next_row`](crate::table::step::next_row).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::assign::{Candidate, Unit};
use crate::row::{BUCKETS, Bucket, GuestSlot};
use crate::rules::Rules;
use crate::table::bits::Bits;
use crate::table::controller::inventory::Inventory;
use crate::table::controller::progress::Progress;
use crate::table::message::{
    DirectorId, FromAgent, FromGuest, Generation, Party, ToAgent, ToGuest,
};
use crate::table::step::{Entry, Stage, Standing, Wait, owes};
use crate::time::Time;

mod decide;
mod inventory;
mod progress;
mod status;

/// Schema of [`Header`] and [`Page`] that this release writes.
pub const SCHEMA: u16 = 1;
/// Buckets per page of the store: 64 pages, so that a change of few buckets writes few bytes.
pub const PAGE_BUCKETS: usize = 1_024;
/// Rows and trust that are not acknowledged are offered again after this.
pub const OFFER_AGAIN_US: u64 = 1_000_000;
/// A guest that no agent hears for this long is suspect. It is believed dead, and avoided, long
/// before.
pub const SUSPECT_AFTER_US: u64 = 400_000;
/// An agent whose last word is older has no say in who is silent.
pub const AGENT_HEARD_WITHIN_US: u64 = 500_000;
/// A suspect is trusted again when an agent has heard it all this time; twice as long each time
/// that it was a suspect again within [`CALM_AFTER_US`], up to 8 times: a guest on a starved machine
/// does not go back and forth, each time with the rows of all its buckets.
pub const HEARD_FOR_US: u64 = 500_000;
/// See [`HEARD_FOR_US`].
pub const CALM_AFTER_US: u64 = 60_000_000;
/// A guest that is suspect for this long gets its buckets' wishes taken away.
pub const SUSPECT_REPLAN_AFTER_US: u64 = 10_000_000;
/// A director that is no longer listed but stamped within this time blocks settling.
pub const STRAY_FOR_US: u64 = 2_000_000;
/// From the last agent's acknowledgement that a suspect gets no lease any more to the end of that
/// lease, with a tenth for clocks of different speed.
pub const FENCE_AFTER_US: u64 = crate::table::guest::LEASE_US * 11 / 10;

/// What the operator wants of the table.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Policy {
    /// By name.
    pub guests: BTreeMap<String, GuestPolicy>,
    /// Directors whose acknowledgement counts. One that was *seen* gone, or was removed, is no
    /// longer listed.
    pub directors: BTreeSet<DirectorId>,
    pub unit: Unit,
}

/// What the operator wants of a guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuestPolicy {
    /// Share of the buckets, relative to the others'.
    pub weight: u32,
    pub node: String,
    pub wanted: Wanted,
    /// The change under which `wanted` was asked for, by which progress is shown. None: as
    /// configured.
    pub change: Option<String>,
}

/// Whether a guest is to serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    Serve,
    /// To leave all rows, and stay.
    Drain,
}

/// The stored head of a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    pub schema: u16,
    /// Rises with every write; what a write compares.
    pub generation: Generation,
    /// When trust last changed: the generation by which agents acknowledge it.
    pub trust: Generation,
    /// The last slot given; they are given in turn, so that one is used again as late as possible.
    pub last_slot: u16,
    pub guests: BTreeMap<GuestSlot, GuestRecord>,
}

/// One kernel of one guest, by its slot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuestRecord {
    pub name: String,
    /// Which boot of the guest's kernel this is: a namespace or VM that is made anew has another.
    pub boot: u64,
    pub state: State,
    /// Everybody who may have to send to it knows how: see [`Input::Reachable`]. Until then no row
    /// names it.
    pub is_known: bool,
}

/// What is stored of a guest's standing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Serving,
    Suspect,
    /// Destroyed; the record stays until no row names the slot and all have acknowledged that.
    Gone,
}

/// The stored entries of [`PAGE_BUCKETS`] buckets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Page {
    pub schema: u16,
    pub entries: Vec<Entry>,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// The store's content. `None`: there is no table yet.
    Loaded(Option<(Header, Vec<Page>)>),
    /// The last write is in the store.
    Written,
    /// The last write was refused, because the header has another generation.
    Conflict,
    /// What the operator wants now.
    Policy(Policy),
    /// A guest's kernel runs. It gets the slot of this boot, a new one if the boot is new.
    Booted {
        name: String,
        boot: u64,
    },
    /// All directors and all guests that serve know how to reach these, and these know how to reach
    /// all guests that serve. What was once so stays so, since only those that are told of all
    /// guests are sent rows, or announced, later.
    Reachable {
        slots: BTreeSet<GuestSlot>,
    },
    /// This kernel is known to be destroyed.
    Destroyed {
        slot: GuestSlot,
    },
    /// Somebody else than the agents has reason to think this guest dead; taken back with `false`.
    Suspected {
        slot: GuestSlot,
        is_suspect: bool,
    },
    /// A link to this party opened: it may have missed anything.
    Connected(Party),
    FromAgent {
        from: DirectorId,
        message: FromAgent,
    },
    FromGuest {
        from: GuestSlot,
        message: FromGuest,
    },
    /// `deadline()` has come.
    Tick,
}

/// What the driver is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    Load,
    Write {
        parent: Option<Generation>,
        header: Header,
        pages: Vec<(u16, Page)>,
    },
    ToAgent {
        to: DirectorId,
        message: ToAgent,
    },
    ToGuest {
        to: GuestSlot,
        message: ToGuest,
    },
}

/// How a table is doing, for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// None: nothing loaded yet.
    pub generation: Option<Generation>,
    pub guests: BTreeMap<GuestSlot, GuestStatus>,
    /// Buckets that are not where they are wished, or whose row not all have acknowledged.
    pub unsettled: usize,
    /// Why, at most one line per reason.
    pub waits: Vec<WaitReason>,
    pub changes: Vec<ChangeStatus>,
}

/// How a guest is doing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuestStatus {
    pub name: String,
    pub standing: Standing,
    /// Whether everybody knows how to reach it.
    pub is_known: bool,
    /// Buckets that it leads.
    pub leads: usize,
    /// Buckets whose row names it, or named it and not all have acknowledged the next one.
    pub named: usize,
    /// Live connections, by its last report. None: no report yet.
    pub connections: Option<u64>,
}

/// What is waited for, since when.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WaitReason {
    /// Stable word for the reason: `stage_guests`, `connections`, ...
    pub code: String,
    pub wait: Wait,
    /// Who does not answer, where that is the reason.
    pub object: Option<Party>,
    pub buckets: usize,
    pub since: Time,
}

/// How far a change has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeStatus {
    pub name: String,
    pub guest: String,
    pub wanted: Wanted,
    /// Buckets still to come or to go.
    pub left: usize,
    pub is_done: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Controller {
    rules: Rules,
    actions: VecDeque<Action>,
    store: Store,
    /// As in the store. None: not loaded, or there is no table yet.
    header: Option<Header>,
    /// As in the store; empty or of full length.
    entries: Vec<Entry>,
    progress: Progress,
    inventory: Inventory,
    /// Buckets whose next row is to be looked for.
    todo: Bits,
    /// Something came that wishes may depend on.
    must_replan: bool,
    /// What the wishes were last planned from. None: not yet, of the table as it was loaded.
    planned: Option<Planned>,
    /// What each bucket waits for, and since when anything waits for that.
    waiting: Vec<Option<Wait>>,
    waits: BTreeMap<Wait, (usize, Time)>,
    /// Since when no guest can be given buckets. None: one can.
    nobody_since: Option<Time>,
    offer_again: Time,
    last_now: Time,
}

/// What wishes follow from, beside the wishes before.
#[derive(PartialEq, Eq, Debug)]
struct Planned {
    candidates: BTreeMap<GuestSlot, Candidate>,
    unit: Unit,
}

/// What the machine is about with the store.
#[derive(Debug)]
enum Store {
    Loading,
    Idle,
    Writing {
        header: Header,
        entries: Vec<(usize, Entry)>,
    },
}

impl Default for Controller {
    fn default() -> Self {
        Self::new()
    }
}

impl Controller {
    /// A machine that knows nothing yet; its first action is `Load`.
    pub fn new() -> Self {
        Self {
            rules: Rules::ALL,
            actions: VecDeque::from([Action::Load]),
            store: Store::Loading,
            header: None,
            entries: Vec::new(),
            progress: Progress::default(),
            inventory: Inventory::default(),
            todo: Bits::default(),
            must_replan: true,
            planned: None,
            waiting: Vec::new(),
            waits: BTreeMap::new(),
            nobody_since: None,
            offer_again: Time(0),
            last_now: Time(0),
        }
    }

    /// Takes what happened, and decides.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.hear(now, input);
        self.conclude(now);
    }

    /// Notes what happened. Decides nothing: what came together is decided on together, by one
    /// [`Self::conclude`] for all of it.
    pub fn hear(&mut self, now: Time, input: Input) {
        match input {
            Input::Loaded(content) => self.loaded(content),
            Input::Written => self.written(),
            Input::Conflict => self.reload(),
            Input::Policy(policy) => {
                let has_other_directors = self
                    .inventory
                    .policy
                    .as_ref()
                    .is_none_or(|old| old.directors != policy.directors);
                self.inventory.policy = Some(policy);
                self.must_replan = true;
                if has_other_directors {
                    self.recount_all();
                    self.trust_all();
                }
            }
            Input::Booted { name, boot } => {
                self.inventory.boots.insert(name, boot);
            }
            Input::Reachable { slots } => self.inventory.reachable = slots,
            Input::Destroyed { slot } => {
                self.inventory.destroyed.insert(slot);
                self.forget_boot(slot);
            }
            Input::Suspected {
                slot,
                is_suspect: true,
            } => {
                self.inventory.suspected.insert(slot);
            }
            Input::Suspected {
                slot,
                is_suspect: false,
            } => {
                self.inventory.suspected.remove(&slot);
            }
            Input::Connected(party) => self.connected(party),
            Input::FromAgent { from, message } => self.hear_agent(now, from, message),
            Input::FromGuest { from, message } => self.hear_guest(now, from, message),
            Input::Tick => {}
        }
    }

    /// Decides on all that was heard. `now` is not before that of any [`Self::hear`].
    pub fn conclude(&mut self, now: Time) {
        self.last_now = self.last_now.max(now);
        self.fence(now);
        self.decide(now);
        self.offer(now);
    }

    /// What the driver is to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Time> {
        let is_open = self.progress.has_open_offers() || self.has_untold_agents();
        let again = is_open.then_some(self.offer_again);
        [again, self.inventory.deadline(self.last_now)]
            .into_iter()
            .flatten()
            .min()
    }

    /// The slot of this guest's newest kernel, once that is in the store.
    pub fn slot_of(&self, name: &str) -> Option<GuestSlot> {
        let guests = &self.header.as_ref()?.guests;
        guests
            .iter()
            .find(|(_, record)| record.name == name && record.state != State::Gone)
            .map(|(slot, _)| *slot)
    }

    /// What is stored of a bucket, and how far its newest row has come. None: there is no table
    /// yet.
    pub fn bucket(&self, bucket: Bucket) -> Option<(Entry, Stage)> {
        let index = usize::from(bucket.0);
        Some((*self.entries.get(index)?, self.progress.stage(index)))
    }

    /// How a guest is seen.
    pub fn standing(&self, slot: GuestSlot) -> Standing {
        let state = self
            .header
            .as_ref()
            .and_then(|header| header.guests.get(&slot));
        match state.map(|record| record.state) {
            Some(State::Serving) => Standing::Serving,
            Some(State::Suspect) if self.inventory.fenced.contains(&slot) => Standing::Fenced,
            Some(State::Suspect) => Standing::Suspect,
            // A slot without a record was retired: all have acknowledged tables without it.
            Some(State::Gone) | None => Standing::Gone,
        }
    }

    /// How a guest stands whose acknowledgements may count. None: no row names it before it is known
    /// to all, so nothing waits for it; it is offered rows, to have them by then.
    fn owing(&self, slot: GuestSlot) -> Option<Standing> {
        let guests = self.header.as_ref().map(|header| &header.guests);
        let record = guests.and_then(|guests| guests.get(&slot));
        let is_known = record.is_none_or(|record| record.is_known);
        is_known.then(|| self.standing(slot))
    }

    fn reload(&mut self) {
        self.store = Store::Loading;
        self.actions.push_back(Action::Load);
    }

    fn loaded(&mut self, content: Option<(Header, Vec<Page>)>) {
        self.store = Store::Idle;
        let (header, pages) =
            content.map_or((None, Vec::new()), |(header, pages)| (Some(header), pages));
        self.header = header;
        self.entries = pages.into_iter().flat_map(|page| page.entries).collect();
        self.waiting = vec![None; self.entries.len()];
        self.waits.clear();
        // What was heard before belongs to another controller's table: everything is offered and
        // heard again.
        self.progress = Progress::default();
        self.inventory.forget_reports();
        self.must_replan = true;
        self.planned = None;
        self.recount_all();
        self.trust_all();
        self.ask_for_reports(|_| true);
    }

    fn written(&mut self) {
        let Store::Writing { header, entries } = core::mem::replace(&mut self.store, Store::Idle)
        else {
            return;
        };
        let is_first = self.entries.is_empty() && !entries.is_empty();
        if is_first {
            self.entries = vec![Entry::default(); BUCKETS];
            self.waiting = vec![None; BUCKETS];
        }
        let changed = self.changed_guests(&header);
        let trust_changed = self
            .header
            .as_ref()
            .is_none_or(|old| old.trust != header.trust);
        self.header = Some(header);
        for (index, entry) in entries {
            self.enter(index, entry);
        }
        if trust_changed {
            self.inventory.fence_at = None;
            self.trust_all();
        }
        if is_first {
            self.recount_all();
        }
        self.revise_standing(&changed);
    }

    /// Guests whose record is another than in `new`, with how they stood until now.
    fn changed_guests(&self, new: &Header) -> BTreeMap<GuestSlot, Option<Standing>> {
        let nobody = BTreeMap::new();
        let old = self.header.as_ref().map_or(&nobody, |old| &old.guests);
        old.keys()
            .chain(new.guests.keys())
            .filter(|slot| old.get(slot) != new.guests.get(slot))
            .map(|slot| (*slot, self.owing(*slot)))
            .collect()
    }

    /// Guests have another standing than `before`: who owes an acknowledgement, and which row comes
    /// next, may be another in the buckets that this touches.
    fn revise_standing(&mut self, before: &BTreeMap<GuestSlot, Option<Standing>>) {
        if before.is_empty() {
            return;
        }
        let Some(header) = &self.header else { return };
        let state = |slot: &GuestSlot| header.guests.get(slot).map(|record| record.state);
        self.inventory
            .fenced
            .retain(|slot| state(slot) == Some(State::Suspect));
        // The number of a slot that was retired may be another guest's one day.
        self.inventory
            .destroyed
            .retain(|slot| header.guests.contains_key(slot));
        let parties: BTreeSet<Party> = self.parties().into_iter().collect();
        self.progress.keep_only(&parties);
        let changed: Vec<_> = before
            .iter()
            .map(|(slot, was)| (*slot, *was, self.owing(*slot)))
            .collect();
        self.recount_where(|rules, entry| {
            changed.iter().any(|(slot, was, is)| {
                let owes = |standing: &Option<Standing>| {
                    standing.is_some_and(|standing| owes(rules, entry, *slot, standing))
                };
                let wish = &entry.wish;
                let is_wished = [wish.owner, wish.standby].contains(&Some(*slot));
                let is_named = entry.row.contains(*slot) || entry.before.contains(*slot);
                is_wished || is_named || owes(was) != owes(is)
            })
        });
        self.ask_for_reports(|slot| before.contains_key(&slot));
    }

    /// A kernel that was destroyed is not given another slot when its own is retired.
    fn forget_boot(&mut self, slot: GuestSlot) {
        let guests = self.header.as_ref().map(|header| &header.guests);
        if let Some(record) = guests.and_then(|guests| guests.get(&slot))
            && self.inventory.boots.get(&record.name) == Some(&record.boot)
        {
            self.inventory.boots.remove(&record.name);
        }
    }

    /// Takes an entry that is in the store.
    fn enter(&mut self, index: usize, entry: Entry) {
        let old = core::mem::replace(&mut self.entries[index], entry);
        if old.row != entry.row {
            self.progress.new_row(index);
            let led = old
                .row
                .head()
                .filter(|head| entry.row.head() != Some(*head));
            if let Some(led) = led {
                self.inventory.stop_leading(led, index);
            }
            self.inventory.refused.remove(&index);
            self.recount(index);
        }
        self.todo.set(index);
    }
}

/// The buckets of a page in the store.
fn page_of(index: usize) -> u16 {
    u16::try_from(index / PAGE_BUCKETS).expect("64 pages")
}

#[cfg(test)]
mod tests;
