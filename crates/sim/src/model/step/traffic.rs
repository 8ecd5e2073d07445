//! Packets: sent, judged hop by hop, lost; and what they do to kernels.

use core::fmt;

use hitless_core::row::GuestSlot;
use hitless_core::rules::Rules;
use hitless_core::steer::{Hop, Packet, Segment, Stamp, Verdict, director, ingress};
use hitless_core::table::step::Stage;

use super::{Action, Steps, Violation};
use crate::model::state::{Client, Code, Guest, InFlight, Kernel, Kind, SLOTS, State, index, slot};

impl Steps {
    pub(super) fn traffic(&mut self, rules: &Rules, state: &State) {
        let in_flight = state.packets.iter().flatten().count();
        let kind = match state.client {
            Client::Connecting => Some(Kind::Syn),
            Client::Connected(home) => Some(Kind::Data(home)),
            Client::Over => None,
        };
        if let Some(kind) = kind
            && in_flight < usize::from(state.budget.packets)
        {
            for (number, this) in (0_u8..).zip(&state.directors) {
                for dead in opinions(this.row, None) {
                    let verdict = director(rules, 1, this.row.row(), &dead.dead());
                    let Verdict::Forward { to, stamp, .. } = verdict else {
                        continue;
                    };
                    let mut next = *state;
                    put(&mut next, kind, to, stamp);
                    let is_syn = kind == Kind::Syn;
                    self.push(
                        Action::Send {
                            is_syn,
                            director: number,
                            dead,
                        },
                        next,
                        None,
                    );
                }
            }
        }
        for place in 0..in_flight {
            self.arrive(rules, state, place);
            let mut next = *state;
            next.packets[place] = None;
            let packet = u8::try_from(place).expect("two packets");
            self.push(Action::Lose { packet }, next, None);
        }
        for (number, guest) in (0_u8..).zip(&state.guests) {
            if guest.kernel != Kernel::HalfOpen {
                continue;
            }
            let mut next = *state;
            if state.client == Client::Connecting {
                next.client = Client::Connected(number);
                self.push(Action::SynAck { guest: number }, next, None);
            } else if state.client != Client::Connected(number) {
                next.guests[usize::from(number)].kernel = Kernel::Nothing;
                self.push(Action::Expire { guest: number }, next, None);
            }
        }
        if let Some(home) = state.home() {
            let mut next = *state;
            next.client = Client::Over;
            next.guests[home].kernel = Kernel::Nothing;
            self.push(Action::Close, next, None);
        }
    }

    fn arrive(&mut self, rules: &Rules, state: &State, place: usize) {
        let Some(packet) = state.packets[place] else {
            return;
        };
        let number = u8::try_from(place).expect("two packets");
        let at = usize::from(packet.to);
        let mut seen = Vec::new();
        for dead in opinions(state.guests[at].row, Some(packet.to)) {
            let mut next = *state;
            next.packets[place] = None;
            if !state.guests[at].is_alive {
                return;
            }
            let verdict = judge(rules, state, &packet, &dead.dead());
            if seen.contains(&verdict) {
                continue;
            }
            seen.push(verdict);
            let violation = take(&mut next, state, &packet, verdict)
                .or_else(|| new_goes_old(rules, state, &packet, verdict, dead));
            self.push(
                Action::Arrive {
                    packet: number,
                    dead,
                },
                next,
                violation,
            );
        }
    }
}

/// Whom a hop believes dead: a bit per guest, by index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beliefs(pub u8);

/// The same as a list. The checker makes many of them, so it is no vector.
#[derive(Clone, Copy, Debug)]
pub struct Dead {
    slots: [GuestSlot; SLOTS],
    len: usize,
}

impl Beliefs {
    pub fn dead(self) -> Dead {
        let mut dead = Dead {
            slots: [slot(0); SLOTS],
            len: 0,
        };
        for index in (0..SLOTS).filter(|index| self.0 & (1 << index) != 0) {
            dead.slots[dead.len] = slot(index);
            dead.len += 1;
        }
        dead
    }
}

impl core::ops::Deref for Dead {
    type Target = [GuestSlot];

    fn deref(&self) -> &[GuestSlot] {
        &self.slots[..self.len]
    }
}

impl fmt::Display for Beliefs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return Ok(());
        }
        write!(f, " believing")?;
        self.dead()
            .iter()
            .try_for_each(|slot| write!(f, " g{}", slot.number()))?;
        write!(f, " dead")
    }
}

/// Whom a hop may believe dead: any others of its row, in any combination.
pub(in crate::model) fn opinions(row: Code, me: Option<u8>) -> impl Iterator<Item = Beliefs> {
    let others = row
        .row()
        .slots()
        .map(index)
        .filter(|other| me.map(usize::from) != Some(*other))
        .fold(0_u8, |others, other| others | (1 << other));
    (0..1 << SLOTS)
        .filter(move |mask| mask & !others == 0)
        .map(Beliefs)
}

/// The product's verdict on a packet.
pub(in crate::model) fn judge(
    rules: &Rules,
    state: &State,
    packet: &InFlight,
    believed_dead: &[GuestSlot],
) -> Verdict {
    let at = usize::from(packet.to);
    let hop = Hop {
        me: slot(at),
        row: state.guests[at].row.row(),
        believed_dead,
        has_lease: state.guests[at].has_lease,
        held: state.held(at, packet.kind),
    };
    let segment = if packet.kind == Kind::Syn {
        Segment::Syn
    } else {
        Segment::Ack
    };
    let stamp = Stamp {
        word: packet.word.row(),
        no_answer: packet.no_answer,
        as_new: false,
        stamper: 1,
    };
    ingress(
        rules,
        &hop,
        &Packet {
            segment,
            stamp: Some(stamp),
        },
    )
}

fn put(state: &mut State, kind: Kind, to: GuestSlot, stamp: Stamp) {
    let place = state
        .packets
        .iter()
        .position(Option::is_none)
        .expect("room was checked");
    let to = u8::try_from(index(to)).expect("four slots");
    let packet = InFlight {
        kind,
        to,
        word: Code::of(stamp.word),
        no_answer: stamp.no_answer,
    };
    state.packets[place] = Some(packet);
}

/// What the verdict does to the world.
fn take(next: &mut State, state: &State, packet: &InFlight, verdict: Verdict) -> Option<Violation> {
    let at = usize::from(packet.to);
    match verdict {
        Verdict::Forward { to, stamp, .. } => put(next, packet.kind, to, stamp),
        Verdict::Drop(_) => {}
        Verdict::Accept => next.guests[at].kernel = Kernel::HalfOpen,
        Verdict::Deliver => match (packet.kind, state.guests[at].kernel) {
            (Kind::Data(number), Kernel::HalfOpen) if usize::from(number) == at => {
                next.guests[at].kernel = Kernel::Established;
                let homes = next
                    .guests
                    .iter()
                    .filter(|guest| guest.kernel == Kernel::Established);
                return (homes.count() > 1).then_some(Violation::TwoHomes);
            }
            // The stack answers a wrong number with a reset of just that number.
            (Kind::Data(_), Kernel::HalfOpen) => return reset(state, packet),
            _ => {}
        },
        Verdict::Answer | Verdict::Refuse => return reset(state, packet),
    }
    None
}

/// A packet was answered by a stack that does not know it: was that wrong?
fn reset(state: &State, packet: &InFlight) -> Option<Violation> {
    match packet.kind {
        Kind::Data(home) => (state.home() == Some(home.into())).then_some(Violation::Reset),
        Kind::Syn if state.client == Client::Over => None,
        Kind::Syn => {
            let row = state.guests[usize::from(packet.to)].row.row();
            let wrong = |(number, guest): (usize, &Guest)| {
                guest.is_alive
                    && (guest.kernel != Kernel::Nothing
                        || (guest.listens && row.contains(slot(number))))
            };
            state
                .guests
                .iter()
                .enumerate()
                .any(wrong)
                .then_some(Violation::Refused)
        }
    }
}

/// I3.
fn new_goes_old(
    rules: &Rules,
    state: &State,
    packet: &InFlight,
    verdict: Verdict,
    dead: Beliefs,
) -> Option<Violation> {
    let row = state.row.row();
    let head = index(row.head()?);
    let guest = &state.guests[head];
    let is_old = row.sequence().is_newer_than(packet.word.row().sequence());
    let is_wrong = verdict == Verdict::Accept
        && is_old
        && dead.0 == 0
        && usize::from(packet.to) != head
        && guest.is_alive
        && guest.listens
        && guest.row == state.row
        && state.guests[usize::from(packet.to)].row == state.row
        && state.stage(rules, &state.entry()) == Stage::Done;
    is_wrong.then_some(Violation::NewGoesOld)
}
