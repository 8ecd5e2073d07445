//! The batched machines against the checker's single steps.
//!
//! A bucket of the running cluster is a state of the model: rows as they lie in maps, rows and
//! standings as they are stored, an acknowledgement from the moment at which its party said it.
//! After each event every watched bucket has either not changed, or the model has a way of few
//! steps from what it was to what it is. Then what the checker found of the model holds of the
//! machines, however they batch.
//!
//! The operator's, the planner's and the traffic's doings are inputs: wishes, deaths, new guests,
//! what kernels hold. Of a bucket that was never written, and of rows that name more guests than the
//! model has places for, nothing is said; both are counted.

use std::collections::BTreeMap;
use std::fmt;

use hitless_core::assign::Wish;
use hitless_core::row::{Bucket, GuestSlot, Row, Sequence};
use hitless_core::rules::Rules;
use hitless_core::table::controller::State as Stored;
use hitless_core::table::step::{Stage, Standing};

use super::World;
use crate::model::state::{
    Client, Code, DIRECTORS, Director, FIRST_SEQUENCE, Guest, Kernel, PACKETS, SLOTS, Seen, State,
    slot,
};
use crate::model::step::Steps;

/// Steps between two events at most: a commit may carry a change of standing, a row, and more.
const STEPS_MAX: usize = 7;
/// A way may lead so far away from where it leads to: who is suspected anew makes the directors
/// withdraw anew, and all leases end behind that.
const DETOUR_MAX: usize = 3;
/// Rows that are older than the newest by more than this count as so old.
const LAG_MAX: u16 = 12;

/// Watches some buckets.
#[derive(Debug)]
pub struct Lockstep {
    rules: Rules,
    watched: Vec<(Bucket, Option<Moment>)>,
    steps: Steps,
    /// How often each kind of step was taken, by the first words of its name.
    pub taken: BTreeMap<String, u64>,
    /// Changes that were too wide for the model.
    pub passed_over: u64,
}

/// A bucket at one moment.
#[derive(Clone, PartialEq, Debug)]
struct Moment {
    row: Row,
    before: Row,
    wish: Wish,
    guests: BTreeMap<GuestSlot, OfGuest>,
    directors: Vec<OfDirector>,
    /// How far the newest row has ever come.
    reached: Stage,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct OfGuest {
    standing: Standing,
    is_alive: bool,
    row: Row,
    acknowledged: Sequence,
    has_lease: bool,
    is_live: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct OfDirector {
    row: Row,
    acknowledged: Sequence,
    has_withdrawn: bool,
}

impl Lockstep {
    /// `rules` are the model's: with one left out it is another model, which the machines do not
    /// follow.
    pub fn new(rules: Rules, buckets: &[Bucket]) -> Self {
        Self {
            rules,
            watched: buckets.iter().map(|bucket| (*bucket, None)).collect(),
            steps: Steps::new(),
            taken: BTreeMap::new(),
            passed_over: 0,
        }
    }

    /// Compares every watched bucket with what it was at the last call.
    pub fn check(&mut self, world: &World) -> Result<(), String> {
        for index in 0..self.watched.len() {
            let (bucket, old) = self.watched[index].clone();
            let mut new = look(world, bucket);
            if let (Some(old), Some(new)) = (&old, &mut new) {
                new.remember(old);
            }
            if let (Some(old), Some(new)) = (&old, &new)
                && old != new
            {
                self.follow(old, new)
                    .map_err(|error| format!("{bucket:?} at {:?}: {error}", world.now))?;
            }
            self.watched[index].1 = new;
        }
        Ok(())
    }

    /// Finds the model's way from one to the other.
    fn follow(&mut self, old: &Moment, new: &Moment) -> Result<(), String> {
        let Some(places) = places(old, new) else {
            self.passed_over += 1;
            return Ok(());
        };
        let target = normal(&model_of(new, new, &places));
        let start = normal(&model_of(&with_inputs(old, new), new, &places));
        let far = distance(&start, &target);
        if far == 0 {
            return Ok(());
        }
        let mut found = vec![(start, usize::MAX, String::new())];
        let mut end_of_depth = 1;
        let (mut at, mut depth) = (0, 0);
        while at < found.len() && depth < STEPS_MAX {
            self.steps.of_control(&self.rules, &found[at].0);
            for (action, next, _) in self.steps.next.drain(..) {
                let next = normal(&next);
                let left = distance(&next, &target);
                if left == 0 {
                    let mut name = action.to_string();
                    let mut from = at;
                    loop {
                        *self.taken.entry(kind_of(&name)).or_default() += 1;
                        if found[from].1 == usize::MAX {
                            return Ok(());
                        }
                        name.clone_from(&found[from].2);
                        from = found[from].1;
                    }
                }
                let is_new = || found.iter().all(|(known, _, _)| *known != next);
                if left <= far + DETOUR_MAX && found.len() < 2_000 && is_new() {
                    found.push((next, at, action.to_string()));
                }
            }
            at += 1;
            if at == end_of_depth {
                depth += 1;
                end_of_depth = found.len();
            }
        }
        Err(format!("no step of the model leads from\n{old}to\n{new}"))
    }
}

impl Moment {
    /// What was once so stays so, whatever a controller forgets: how far a row came, and that a
    /// suspect's lease ran out.
    fn remember(&mut self, old: &Self) {
        for (slot, guest) in &mut self.guests {
            let was_fenced = old
                .guests
                .get(slot)
                .is_some_and(|old| old.standing == Standing::Fenced);
            if was_fenced && guest.standing == Standing::Suspect {
                guest.standing = Standing::Fenced;
            }
        }
        if self.row == old.row {
            self.reached = old.reached;
        }
        if let Some(places) = places(self, self) {
            let state = model_of(self, self, &places);
            let stage = state.stage(&Rules::ALL, &state.entry());
            self.reached = self.reached.max(stage);
        } else {
            self.reached = Stage::Done;
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (row, before, wish) = (self.row, self.before, self.wish);
        writeln!(f, "  {row:?} after {before:?}, wished {wish:?}")?;
        for (slot, guest) in &self.guests {
            writeln!(f, "  {slot:?}: {guest:?}")?;
        }
        self.directors
            .iter()
            .try_for_each(|director| writeln!(f, "  {director:?}"))
    }
}

/// The step's name without its numbers.
fn kind_of(name: &str) -> String {
    let is_word = |word: &&str| !word.contains(|character: char| character.is_ascii_digit());
    let words: Vec<&str> = name.split(' ').filter(is_word).collect();
    words.join(" ")
}

fn look(world: &World, bucket: Bucket) -> Option<Moment> {
    let index = usize::from(bucket.0);
    let (header, _) = world.store.as_ref()?;
    let entry = *world.entry(index)?;
    let is_suspect = |slot: &GuestSlot| world.state_of(*slot) == Some(Stored::Suspect);
    // Of a guest that is not known to all the table has nothing but its number.
    let known = header.guests.iter().filter(|(_, record)| record.is_known);
    let guests = known.map(|(slot, record)| {
        let host = world.hosts.get(slot);
        let standing = match record.state {
            Stored::Serving => Standing::Serving,
            Stored::Suspect => world
                .controller
                .as_ref()
                .filter(|controller| controller.standing(*slot) == Standing::Fenced)
                .map_or(Standing::Suspect, |_| Standing::Fenced),
            Stored::Gone => Standing::Gone,
        };
        let acknowledged = host
            .map(|host| &host.acknowledged)
            .or_else(|| world.dead.get(slot));
        let guest = OfGuest {
            standing,
            is_alive: host.is_some(),
            row: host.map_or(Row::NONE, |host| host.map[index]),
            acknowledged: acknowledged.map_or(Sequence(0), |all| all[index]),
            has_lease: world.may_have_lease(*slot),
            is_live: host.is_some_and(|host| host.flows.values().any(|flow| flow.bucket == bucket)),
        };
        (*slot, guest)
    });
    let directors = world.nodes.values().map(|node| OfDirector {
        row: node.map[index],
        acknowledged: node.acknowledged[index],
        has_withdrawn: !node.kept.trusted.iter().any(is_suspect),
    });
    Some(Moment {
        row: entry.row,
        before: entry.before,
        wish: entry.wish,
        guests: guests.collect(),
        directors: directors.collect(),
        reached: Stage::Leaver,
    })
}

/// The guests that matter, each with its place in the model. None: there are too many.
fn places(old: &Moment, new: &Moment) -> Option<Vec<GuestSlot>> {
    let mut places: Vec<GuestSlot> = Vec::new();
    for seen in [old, new] {
        let is_there = |guest: &OfGuest| guest.standing != Standing::Gone;
        let there = seen.guests.iter().filter(|(_, guest)| is_there(guest));
        let there = there.map(|(slot, _)| *slot);
        for slot in there.chain(seen.row.slots()).chain(seen.before.slots()) {
            if !places.contains(&slot) {
                places.push(slot);
            }
        }
    }
    places.sort();
    (places.len() <= SLOTS).then_some(places)
}

/// `old` with what is no step of the table but its input.
fn with_inputs(old: &Moment, new: &Moment) -> Moment {
    let mut old = old.clone();
    old.wish = new.wish;
    for (slot, after) in &new.guests {
        let Some(guest) = old.guests.get_mut(slot) else {
            old.guests.insert(*slot, *after);
            continue;
        };
        if guest.is_alive != after.is_alive {
            // A kernel ends, or runs for the first time.
            guest.is_alive = after.is_alive;
            guest.row = after.row;
            guest.has_lease = after.has_lease;
        }
        guest.is_live = after.is_live;
        // Late rows of a guest that nobody waits for any more.
        let is_older =
            |row: Row| row != Row::NONE && new.before.sequence().is_newer_than(row.sequence());
        if is_older(after.row) && !is_older_than(after.row, guest.row) {
            guest.row = after.row;
        }
    }
    old
}

fn is_older_than(row: Row, other: Row) -> bool {
    other != Row::NONE && other.sequence().is_newer_than(row.sequence())
}

/// The model's state. Rows are renumbered so that `newest`'s has a certain sequence.
fn model_of(seen: &Moment, newest: &Moment, places: &[GuestSlot]) -> State {
    let place = |slot: GuestSlot| places.iter().position(|other| *other == slot);
    let code = |row: Row| {
        if row == Row::NONE {
            return Code(0);
        }
        let lag = newest.row.sequence().0.wrapping_sub(row.sequence().0);
        let sequence = FIRST_SEQUENCE.wrapping_add(LAG_MAX + 1 - lag.min(LAG_MAX));
        let slots = row.slots().filter_map(place).map(slot);
        Code::of(Row::from_slots(slots, Sequence(sequence)).expect("a row's slots"))
    };
    let mut state = State::new(crate::model::mutants::wide_budget([
        3, 0, 0, 0, 3, 0, 0, 4, 3,
    ]));
    state.row = code(seen.row);
    state.before = code(seen.before);
    let wished = |slot: Option<GuestSlot>| {
        let place = slot.and_then(place);
        place.map_or(7, |place| u8::try_from(place).expect("four places"))
    };
    state.wish = (wished(seen.wish.owner), wished(seen.wish.standby));
    state.reached = seen.reached;
    state.client = Client::Over;
    state.packets = [None; PACKETS];
    let absent = Guest {
        row: Code(0),
        kernel: Kernel::Nothing,
        is_alive: false,
        listens: false,
        has_lease: false,
        standing: Seen::Gone,
        has_acknowledged: false,
    };
    for (index, guest) in state.guests.iter_mut().enumerate() {
        let of = places.get(index).and_then(|slot| seen.guests.get(slot));
        *guest = of.map_or(absent, |of| Guest {
            row: code(of.row),
            kernel: if of.is_live {
                Kernel::Established
            } else {
                Kernel::Nothing
            },
            is_alive: of.is_alive,
            listens: of.is_alive,
            has_lease: of.has_lease,
            standing: match of.standing {
                Standing::Serving => Seen::Serving,
                Standing::Suspect => Seen::Suspect,
                Standing::Fenced => Seen::Fenced,
                Standing::Gone => Seen::Gone,
            },
            has_acknowledged: of.acknowledged == seen.row.sequence(),
        });
    }
    assert_eq!(seen.directors.len(), DIRECTORS);
    for (director, of) in state.directors.iter_mut().zip(&seen.directors) {
        *director = Director {
            row: code(of.row),
            has_acknowledged: of.acknowledged == seen.row.sequence(),
            has_withdrawn: of.has_withdrawn,
        };
    }
    state
}

/// The state without what makes no difference: a lease that may be renewed at any time is one, the
/// gone are all alike, and nobody withdraws anything while nobody is suspect.
fn normal(state: &State) -> State {
    let mut state = *state;
    state.was_offered = true;
    state.budget.cuts = 4;
    let is_suspect = |guest: &Guest| matches!(guest.standing, Seen::Suspect | Seen::Fenced);
    if !state.guests.iter().any(is_suspect) {
        for director in &mut state.directors {
            director.has_withdrawn = false;
        }
    }
    let are_withdrawn = state
        .directors
        .iter()
        .all(|director| director.has_withdrawn);
    for guest in &mut state.guests {
        match guest.standing {
            Seen::Absent | Seen::Gone => {
                guest.standing = Seen::Gone;
                guest.is_alive = false;
                guest.listens = false;
                guest.has_acknowledged = false;
                guest.row = Code(0);
                guest.kernel = Kernel::Nothing;
                guest.has_lease = false;
            }
            Seen::Serving => guest.has_lease = guest.is_alive,
            Seen::Suspect if !are_withdrawn => guest.has_lease = guest.is_alive,
            Seen::Suspect | Seen::Fenced => guest.has_lease &= guest.is_alive,
        }
    }
    state
}

/// In how many places two states differ, budgets apart.
fn distance(one: &State, other: &State) -> usize {
    let mut far = 0;
    let mut count = |differs: bool| far += usize::from(differs);
    count(one.row != other.row);
    count(one.before != other.before);
    for (one, other) in one.guests.iter().zip(&other.guests) {
        count(one.row != other.row);
        count(one.has_acknowledged != other.has_acknowledged);
        count(one.standing != other.standing);
        count(one.has_lease != other.has_lease);
    }
    for (one, other) in one.directors.iter().zip(&other.directors) {
        count(one.row != other.row);
        count(one.has_acknowledged != other.has_acknowledged);
        count(one.has_withdrawn != other.has_withdrawn);
    }
    far
}
