//! What is true of every state: reach, and that moves settle.

use hitless_core::row::GuestSlot;
use hitless_core::rules::Rules;
use hitless_core::steer::{Verdict, director};

use super::state::{Client, Code, InFlight, Kernel, Kind, Seen, State, index, slot};
use super::step::{Action, Beliefs, Steps, Violation, judge, opinions};

/// Whether packets that are sent now, while nothing else happens, arrive where they belong.
///
/// Nobody dead: whatever anybody believes. Somebody dead: beliefs are exact, and living guests that
/// are not suspect have the newest row; otherwise nothing is demanded of this state, nor of a
/// director that lags and whose row names the dead alone.
pub fn reach(rules: &Rules, state: &State) -> Option<Violation> {
    let is_dead = |slot: &GuestSlot| !state.guests[index(*slot)].is_alive;
    let has_dead = state
        .row
        .row()
        .slots()
        .chain(state.before.row().slots())
        .any(|slot| is_dead(&slot));
    if has_dead {
        let lags = |guest: &super::state::Guest| {
            guest.is_alive && guest.standing == Seen::Serving && guest.row != state.row
        };
        if state.guests.iter().any(lags) {
            return None;
        }
    }
    let kind = match (state.client, state.home()) {
        (_, Some(home)) => Kind::Data(u8::try_from(home).expect("four slots")),
        (Client::Connecting, None) => Kind::Syn,
        (Client::Connected(_) | Client::Over, None) => return None,
    };
    for this in &state.directors {
        let walk = Walk {
            rules,
            state,
            kind,
            has_dead,
            is_lagging: this.row != state.row,
        };
        if kind == Kind::Syn && !somebody_listens(state, this.row) {
            continue;
        }
        // Nobody whom it can ask lives; the newest row, which names others, is on its way.
        if walk.is_lagging && this.row.row().slots().all(|slot| is_dead(&slot)) {
            continue;
        }
        for dead in walk.beliefs(this.row, None) {
            let Verdict::Forward { to, stamp, .. } =
                director(rules, 1, this.row.row(), &dead.dead())
            else {
                continue;
            };
            let to = u8::try_from(index(to)).expect("four slots");
            let packet = InFlight {
                kind,
                to,
                word: Code::of(stamp.word),
                no_answer: false,
            };
            if !walk.arrives(packet, 0) {
                let is_syn = kind == Kind::Syn;
                return Some(if is_syn {
                    Violation::SynReach
                } else {
                    Violation::Reach
                });
            }
        }
    }
    None
}

/// Whether a guest of the director's row, named by its own row too, would take a SYN.
fn somebody_listens(state: &State, row: Code) -> bool {
    row.row().slots().any(|slot| {
        let guest = &state.guests[index(slot)];
        let has_row = guest.row.row().contains(slot);
        // A guest that acknowledged the newest row is counted on, whatever it has.
        let is_counted_on = guest.has_acknowledged && state.row.row().contains(slot);
        guest.is_alive && guest.listens && (has_row || is_counted_on)
    })
}

struct Walk<'a> {
    rules: &'a Rules,
    state: &'a State,
    kind: Kind,
    has_dead: bool,
    /// The director that sends has not the newest row.
    is_lagging: bool,
}

impl Walk<'_> {
    /// Whom a hop may believe dead: exactly those who are, if anybody is; otherwise anybody.
    fn beliefs(&self, row: Code, me: Option<u8>) -> impl Iterator<Item = Beliefs> + use<> {
        let is_dead = |slot: &GuestSlot| !self.state.guests[index(*slot)].is_alive;
        let dead = row
            .row()
            .slots()
            .filter(is_dead)
            .fold(0, |dead, slot| dead | (1 << index(slot)));
        let has_dead = self.has_dead;
        opinions(row, me).filter(move |beliefs| !has_dead || beliefs.0 == dead)
    }

    fn arrives(&self, packet: InFlight, hops: usize) -> bool {
        let at = usize::from(packet.to);
        let guest = &self.state.guests[at];
        if !guest.is_alive || hops > 12 {
            return false;
        }
        let mut verdicts = Vec::new();
        for dead in self.beliefs(guest.row, Some(packet.to)) {
            let verdict = judge(self.rules, self.state, &packet, &dead.dead());
            if !verdicts.contains(&verdict) {
                verdicts.push(verdict);
            }
        }
        verdicts.into_iter().all(|verdict| match verdict {
            Verdict::Forward { to, stamp, .. } => {
                let next = InFlight {
                    kind: self.kind,
                    to: u8::try_from(index(to)).expect("four slots"),
                    word: Code::of(stamp.word),
                    no_answer: stamp.no_answer,
                };
                self.arrives(next, hops + 1)
            }
            Verdict::Accept => true,
            Verdict::Deliver => match self.kind {
                Kind::Data(home) => at == usize::from(home),
                Kind::Syn => guest.kernel != Kernel::Nothing,
            },
            // A suspect that was passed over is silent, as long as the director has an old row too.
            Verdict::Drop(_) => {
                guest.standing != Seen::Serving && guest.row != self.state.row && self.is_lagging
            }
            Verdict::Answer | Verdict::Refuse => false,
        })
    }
}

/// I4: once traffic is over and no fault is left to come, the table settles.
pub fn settles(rules: &Rules, state: &State) -> Option<Violation> {
    let is_well = |guest: &super::state::Guest| {
        guest.standing == Seen::Absent
            || (guest.is_alive && guest.listens && guest.standing == Seen::Serving)
    };
    if !state.guests.iter().all(is_well) {
        return None;
    }
    let mut state = *state;
    state.client = Client::Over;
    state.packets = [None; super::state::PACKETS];
    state.budget.wishes = 0;
    state.budget.rows = 9;
    state.budget.suspicions = 0;
    state.budget.program_crashes = 0;
    state.budget.kernel_crashes = 0;
    state.budget.cuts = 0;
    state.budget.others = 0;
    for guest in &mut state.guests {
        guest.kernel = Kernel::Nothing;
    }
    let mut steps = Steps::new();
    for _ in 0..80 {
        steps.of(rules, &state);
        let forward = steps.next.iter().find(|(action, _, _)| {
            matches!(
                action,
                Action::Next
                    | Action::GuestTakes { .. }
                    | Action::GuestLeaves { .. }
                    | Action::DirectorTakes { .. }
            )
        });
        match forward {
            Some((_, next, _)) => state = *next,
            None => {
                let row = state.row.row();
                let (owner, standby) = state.wish;
                let wished = [owner, standby].into_iter().filter(|index| *index < 7);
                let is_there = row.slots().eq(wished.map(|index| slot(index.into())));
                return (!is_there).then_some(Violation::Stuck);
            }
        }
    }
    Some(Violation::Stuck)
}
