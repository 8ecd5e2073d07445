//! Rows: written by the controller, taken and acknowledged stage by stage.

use hitless_core::assign::Wish;
use hitless_core::row::{GuestSlot, Row};
use hitless_core::rules::Rules;
use hitless_core::steer::Held;
use hitless_core::table::message::{DirectorId, Party};
use hitless_core::table::step::{
    Entry, Live, Next, Stage, Standing, View, Why, counts_before_leaving, is_news, next_row, owes,
    stage_of,
};

use super::{Action, Steps};
use crate::model::state::{Code, Kernel, Kind, SLOTS, Seen, State, index, slot};

impl State {
    pub(crate) fn entry(&self) -> Entry {
        let slot_of = |index: u8| (index < 7).then(|| slot(usize::from(index)));
        let wish = Wish {
            owner: slot_of(self.wish.0),
            standby: slot_of(self.wish.1),
        };
        Entry {
            row: self.row.row(),
            before: self.before.row(),
            wish,
            why: Why::First,
        }
    }

    /// How far the newest row has come, as the controller computes it.
    pub(crate) fn stage(&self, rules: &Rules, entry: &Entry) -> Stage {
        let mut stage = Stage::Done;
        for (number, guest) in self.guests.iter().enumerate() {
            if guest.standing == Seen::Absent || guest.has_acknowledged {
                continue;
            }
            if owes(rules, entry, slot(number), self.standing(slot(number))) {
                stage = stage.min(stage_of(rules, entry, Party::Guest(slot(number))));
            }
        }
        for director in self
            .directors
            .iter()
            .filter(|director| !director.has_acknowledged)
        {
            let _ = director;
            stage = stage.min(stage_of(rules, entry, Party::Director(DirectorId(1))));
        }
        stage
    }

    /// What the guest's kernel says of a packet.
    pub(in crate::model) fn held(&self, guest: usize, kind: Kind) -> Held {
        let this = &self.guests[guest];
        match (this.kernel, kind) {
            (Kernel::Established, _) => Held::Established,
            (Kernel::HalfOpen, Kind::Data(number)) => Held::HalfOpen {
                is_ours: usize::from(number) == guest,
            },
            (Kernel::HalfOpen, Kind::Syn) => Held::HalfOpen { is_ours: false },
            (Kernel::Nothing, _) if this.listens => Held::Listener,
            (Kernel::Nothing, _) => Held::Nothing,
        }
    }

    /// Whether the guest's count of the bucket is not zero.
    fn is_live(&self, rules: &Rules, guest: usize) -> bool {
        self.guests[guest].is_alive && self.held(guest, Kind::Syn).is_live(rules)
    }

    fn standing(&self, slot: GuestSlot) -> Standing {
        match self.guests[index(slot)].standing {
            Seen::Serving => Standing::Serving,
            Seen::Suspect => Standing::Suspect,
            Seen::Fenced => Standing::Fenced,
            Seen::Gone | Seen::Absent => Standing::Gone,
        }
    }
}

/// What [`next_row`] sees.
struct Sight<'a> {
    state: &'a State,
    rules: &'a Rules,
    counts: Counts,
}

/// Whose connections were counted, and when.
#[derive(Clone, Copy)]
enum Counts {
    /// This connection, now.
    Own,
    /// Other connections of the bucket as well, or at another time: so anything may have been said.
    Others {
        /// Who is said to hold something, a bit per guest.
        live: u8,
        /// The leaver found something when it counted.
        has_refused: bool,
        holder: Option<GuestSlot>,
    },
    /// The controller does not know any more, or not yet, that the leaver has left: an old refusal
    /// counts.
    Forgotten,
}

impl View for Sight<'_> {
    fn standing(&self, slot: GuestSlot) -> Standing {
        self.state.standing(slot)
    }

    fn live(&self, slot: GuestSlot) -> Live {
        let is_live = match self.counts {
            Counts::Own | Counts::Forgotten => self.state.is_live(self.rules, index(slot)),
            Counts::Others { live, .. } => live & (1 << index(slot)) != 0,
        };
        if is_live { Live::Some(1) } else { Live::Zero }
    }

    fn has_refused(&self, slot: GuestSlot) -> bool {
        let guest = &self.state.guests[index(slot)];
        let holds = match self.counts {
            Counts::Own => self.state.is_live(self.rules, index(slot)),
            Counts::Others { has_refused, .. } => has_refused,
            Counts::Forgotten => return true,
        };
        guest.row == self.state.row && !guest.has_acknowledged && holds
    }

    fn holder(&self) -> Option<GuestSlot> {
        if let Counts::Others { holder, .. } = self.counts {
            return holder;
        }
        self.outside()
            .find(|slot| self.state.is_live(self.rules, index(*slot)))
    }
}

impl Sight<'_> {
    /// Guests outside the row that might hold connections.
    fn outside(&self) -> impl Iterator<Item = GuestSlot> {
        let row = self.state.row.row();
        let is_outside = move |slot: &GuestSlot| {
            !row.contains(*slot) && self.state.standing(*slot) == Standing::Serving
        };
        (0..SLOTS).map(slot).filter(is_outside)
    }
}

impl Steps {
    pub(super) fn table(&mut self, rules: &Rules, state: &State) {
        let entry = state.entry();
        let stage = state.stage(rules, &entry);
        self.next_rows(rules, state, &entry, stage);
        let offered = stage.max(state.reached);
        for (number, guest) in (0_u8..).zip(&state.guests) {
            let this = slot(number.into());
            if !guest.is_alive || guest.has_acknowledged || guest.standing == Seen::Gone {
                continue;
            }
            if stage_of(rules, &entry, Party::Guest(this)) > offered {
                continue;
            }
            let counts = counts_before_leaving(rules, &entry, this);
            let mut next = *state;
            if is_news(guest.row.row(), entry.row) {
                next.guests[usize::from(number)].row = state.row;
                next.guests[usize::from(number)].has_acknowledged = !counts;
                self.push(Action::GuestTakes { guest: number }, next, None);
            } else if counts && !state.is_live(rules, number.into()) {
                next.guests[usize::from(number)].has_acknowledged = true;
                self.push(Action::GuestLeaves { guest: number }, next, None);
            }
        }
        for (number, guest) in (0_u8..).zip(&state.guests) {
            let this = slot(number.into());
            // A row that was withdrawn had been offered to its leaver alone.
            let is_leaver = entry.row.contains(this) && !entry.before.contains(this);
            let was_offered = state.was_offered || is_leaver;
            let is_due = guest.is_alive && guest.standing != Seen::Gone && was_offered;
            if is_due && state.budget.cuts > 0 && is_news(guest.row.row(), entry.before) {
                let mut next = *state;
                next.budget.cuts -= 1;
                next.guests[usize::from(number)].row = state.before;
                self.push(Action::GuestTakesOld { guest: number }, next, None);
            }
        }
        for (number, director) in (0_u8..).zip(&state.directors) {
            let its = stage_of(rules, &entry, Party::Director(DirectorId(1)));
            if !director.has_acknowledged && its <= offered {
                let mut next = *state;
                next.directors[usize::from(number)].row = state.row;
                next.directors[usize::from(number)].has_acknowledged = true;
                self.push(Action::DirectorTakes { director: number }, next, None);
            }
        }
        self.wishes(state, stage);
    }

    /// What the planner may come to wish: anything at rest, a choice half-way.
    fn wishes(&mut self, state: &State, stage: Stage) {
        let at_rest = [
            (1, 2),
            (0, 1),
            (0, 7),
            (2, 0),
            (1, 7),
            (1, 0),
            (2, 7),
            (2, 1),
            (1, 3),
            (3, 0),
            (3, 7),
        ];
        let half_way = [(0, 2), (0, 7), (2, 0), (1, 7), (1, 2), (3, 0)];
        let wishes = if state.row == state.before {
            at_rest.as_slice()
        } else if stage == Stage::Done {
            half_way.as_slice()
        } else {
            return;
        };
        let is_there = |index: u8| {
            let standing = state
                .guests
                .get(usize::from(index))
                .map(|guest| guest.standing);
            !matches!(standing, Some(Seen::Absent | Seen::Gone))
        };
        for (owner, standby) in wishes.iter().copied() {
            if state.budget.wishes > 0 && is_there(owner) && is_there(standby) {
                let mut next = *state;
                next.wish = (owner, standby);
                next.budget.wishes -= 1;
                self.push(Action::Wish { owner, standby }, next, None);
            }
        }
    }

    /// The row that the controller writes next: by what it knows of this connection, or of others.
    fn next_rows(&mut self, rules: &Rules, state: &State, entry: &Entry, stage: Stage) {
        if state.budget.rows == 0 {
            return;
        }
        let mut sight = Sight {
            state,
            rules,
            counts: Counts::Own,
        };
        let own = next_row(rules, entry, stage, &sight);
        if let Next::Row { row, why } = own {
            self.push(Action::Next, written(state, row, why), None);
        }
        if state.budget.cuts > 0 && stage > Stage::Leaver {
            sight.counts = Counts::Forgotten;
            if let Next::Row { row, why } = next_row(rules, entry, Stage::Leaver, &sight) {
                let mut next = written(state, row, why);
                // Others have it already.
                next.was_offered = true;
                next.budget.cuts -= 1;
                self.push(Action::NextForgetting, next, None);
            }
        }
        if state.budget.others == 0 {
            return;
        }
        let mut found = vec![own];
        let holders: Vec<_> = sight.outside().map(Some).chain([None]).collect();
        for live in 0..1 << SLOTS {
            for has_refused in [false, true] {
                for holder in &holders {
                    sight.counts = Counts::Others {
                        live,
                        has_refused,
                        holder: *holder,
                    };
                    let other = next_row(rules, entry, stage, &sight);
                    let Next::Row { row, why } = other else {
                        continue;
                    };
                    if found.contains(&other) {
                        continue;
                    }
                    found.push(other);
                    let mut next = written(state, row, why);
                    next.budget.others -= 1;
                    let row = next.row;
                    self.push(Action::NextByOthers { row }, next, None);
                }
            }
        }
    }
}

/// The world once the controller has written this row.
fn written(state: &State, row: Row, why: Why) -> State {
    let mut next = *state;
    next.before = state.row;
    next.reached = Stage::Leaver;
    next.was_offered = why != Why::Withdrawn;
    next.row = Code::of(row);
    next.budget.rows -= 1;
    for guest in &mut next.guests {
        guest.has_acknowledged = false;
    }
    for director in &mut next.directors {
        director.has_acknowledged = false;
    }
    next
}
