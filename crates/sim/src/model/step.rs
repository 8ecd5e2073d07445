//! What may happen next: every step of the world, by the product's own functions.

use core::fmt;

use hitless_core::assign::Wish;
use hitless_core::row::GuestSlot;
use hitless_core::rules::Rules;
use hitless_core::steer::{Held, Hop, Packet, Segment, Stamp, Verdict, director, ingress};
use hitless_core::table::message::{DirectorId, Party};
use hitless_core::table::step::{
    Entry, Live, Next, Stage, Standing, View, Why, counts_before_leaving, is_news, may_trust_again,
    next_row, owes, slot_of_new_kernel, stage_of,
};

use super::state::{Client, Code, InFlight, Kernel, Kind, Seen, State, index, slot};

/// One step. Guests and directors by index from 0, shown from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The client sends through this director, which believes this guest dead.
    Send {
        is_syn: bool,
        director: u8,
        dead: Option<u8>,
    },
    /// The packet at this place arrives, and the guest believes this one dead.
    Arrive {
        packet: u8,
        dead: Option<u8>,
    },
    Lose {
        packet: u8,
    },
    /// The guest's SYN-ACK reaches the client.
    SynAck {
        guest: u8,
    },
    Close,
    /// A half-open entry that nobody uses ends.
    Expire {
        guest: u8,
    },
    Wish {
        owner: u8,
        standby: u8,
    },
    /// The controller writes the next row.
    Next,
    GuestTakes {
        guest: u8,
    },
    /// The leaver counts zero.
    GuestLeaves {
        guest: u8,
    },
    DirectorTakes {
        director: u8,
    },
    Suspect {
        guest: u8,
    },
    Withdraw {
        director: u8,
    },
    LeaseEnds {
        guest: u8,
    },
    Fence {
        guest: u8,
    },
    TrustAgain {
        guest: u8,
    },
    ProgramCrashes {
        guest: u8,
    },
    ProgramStarts {
        guest: u8,
    },
    KernelCrashes {
        guest: u8,
    },
    Destroyed {
        guest: u8,
    },
    Reborn {
        guest: u8,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let belief = |dead: Option<u8>| match dead {
            Some(dead) => format!(" believing g{} dead", dead + 1),
            None => String::new(),
        };
        match *self {
            Self::Send {
                is_syn,
                director,
                dead,
            } => {
                let kind = if is_syn { "SYN" } else { "data" };
                write!(f, "send {kind} by d{}{}", director + 1, belief(dead))
            }
            Self::Arrive { packet, dead } => write!(f, "arrive p{}{}", packet + 1, belief(dead)),
            Self::Lose { packet } => write!(f, "lose p{}", packet + 1),
            Self::SynAck { guest } => write!(f, "syn-ack of g{}", guest + 1),
            Self::Close => write!(f, "close"),
            Self::Expire { guest } => write!(f, "half-open expires at g{}", guest + 1),
            Self::Wish { owner, standby: 7 } => write!(f, "wish g{} alone", owner + 1),
            Self::Wish { owner, standby } => write!(f, "wish g{} g{}", owner + 1, standby + 1),
            Self::Next => write!(f, "controller writes"),
            Self::GuestTakes { guest } => write!(f, "g{} takes row", guest + 1),
            Self::GuestLeaves { guest } => write!(f, "g{} counts zero", guest + 1),
            Self::DirectorTakes { director } => write!(f, "d{} takes row", director + 1),
            Self::Suspect { guest } => write!(f, "g{} is suspected", guest + 1),
            Self::Withdraw { director } => write!(f, "d{} withdraws trust", director + 1),
            Self::LeaseEnds { guest } => write!(f, "lease of g{} ends", guest + 1),
            Self::Fence { guest } => write!(f, "g{} is fenced", guest + 1),
            Self::TrustAgain { guest } => write!(f, "g{} is trusted again", guest + 1),
            Self::ProgramCrashes { guest } => write!(f, "program of g{} crashes", guest + 1),
            Self::ProgramStarts { guest } => write!(f, "program of g{} starts", guest + 1),
            Self::KernelCrashes { guest } => write!(f, "kernel of g{} crashes", guest + 1),
            Self::Destroyed { guest } => write!(f, "g{} is confirmed destroyed", guest + 1),
            Self::Reborn { guest } => write!(f, "kernel of g{} comes back", guest + 1),
        }
    }
}

/// What must never happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// I1: a packet of a live connection was answered by a stack that does not know it.
    Reset,
    /// I1: a packet of a live connection never arrives, if nothing more happens.
    Reach,
    /// I1: a SYN was refused although a guest of the row listens, or holds the flow.
    Refused,
    /// I1: a SYN is taken by nobody, if nothing more happens, although a guest of the row listens.
    SynReach,
    /// I2: two kernels hold the connection as established.
    TwoHomes,
    /// I3: a SYN from before the newest row started a connection at a guest that does not lead, and
    /// that believes the head alive, although all have the row and its head listens.
    NewGoesOld,
    /// I4: a move does not settle.
    Stuck,
}

impl State {
    pub(super) fn entry(&self) -> Entry {
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
    pub(super) fn stage(&self, rules: &Rules, entry: &Entry) -> Stage {
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
    pub(super) fn held(&self, guest: usize, kind: Kind) -> Held {
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

/// What [`next_row`] sees. Counts are those of the moment: old ones only lead to rows that are
/// withdrawn.
struct Sight<'a> {
    state: &'a State,
    rules: &'a Rules,
}

impl View for Sight<'_> {
    fn standing(&self, slot: GuestSlot) -> Standing {
        self.state.standing(slot)
    }

    fn live(&self, slot: GuestSlot) -> Live {
        if self.state.is_live(self.rules, index(slot)) {
            Live::Some(1)
        } else {
            Live::Zero
        }
    }

    fn has_refused(&self, slot: GuestSlot) -> bool {
        let guest = &self.state.guests[index(slot)];
        guest.row == self.state.row
            && !guest.has_acknowledged
            && self.state.is_live(self.rules, index(slot))
    }

    fn holder(&self) -> Option<GuestSlot> {
        let row = self.state.row.row();
        (0..self.state.guests.len()).map(slot).find(|slot| {
            !row.contains(*slot)
                && self.state.standing(*slot) == Standing::Serving
                && self.state.is_live(self.rules, index(*slot))
        })
    }
}

/// The world's next states.
#[derive(Debug, Default)]
pub struct Steps {
    pub next: Vec<(Action, State, Option<Violation>)>,
}

impl Steps {
    pub const fn new() -> Self {
        Self { next: Vec::new() }
    }

    /// All steps from `state`.
    pub fn of(&mut self, rules: &Rules, state: &State) {
        self.next.clear();
        self.traffic(rules, state);
        self.table(rules, state);
        self.faults(rules, state);
    }

    fn push(&mut self, action: Action, mut state: State, violation: Option<Violation>) {
        state.sort_packets();
        self.next.push((action, state, violation));
    }

    fn traffic(&mut self, rules: &Rules, state: &State) {
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
                    let believed: Vec<GuestSlot> =
                        dead.map(|dead| slot(dead.into())).into_iter().collect();
                    let verdict = director(rules, 1, this.row.row(), &believed);
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
            let verdict = judge(rules, state, &packet, dead);
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

    fn table(&mut self, rules: &Rules, state: &State) {
        let entry = state.entry();
        let stage = state.stage(rules, &entry);
        if state.budget.rows > 0
            && let Next::Row { row, .. } = next_row(rules, &entry, stage, &Sight { state, rules })
        {
            let mut next = *state;
            next.before = state.row;
            next.row = Code::of(row);
            next.budget.rows -= 1;
            for guest in &mut next.guests {
                guest.has_acknowledged = false;
            }
            for director in &mut next.directors {
                director.has_acknowledged = false;
            }
            self.push(Action::Next, next, None);
        }
        for (number, guest) in (0_u8..).zip(&state.guests) {
            let this = slot(number.into());
            if !guest.is_alive || guest.has_acknowledged || guest.standing == Seen::Gone {
                continue;
            }
            if stage_of(rules, &entry, Party::Guest(this)) > stage {
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
        for (number, director) in (0_u8..).zip(&state.directors) {
            let its = stage_of(rules, &entry, Party::Director(DirectorId(1)));
            if !director.has_acknowledged && its <= stage {
                let mut next = *state;
                next.directors[usize::from(number)].row = state.row;
                next.directors[usize::from(number)].has_acknowledged = true;
                self.push(Action::DirectorTakes { director: number }, next, None);
            }
        }
        if state.budget.wishes > 0 && state.row == state.before {
            for (owner, standby) in [
                (1, 2),
                (0, 1),
                (0, 7),
                (2, 0),
                (1, 7),
                (1, 0),
                (2, 7),
                (2, 1),
            ] {
                let mut next = *state;
                next.wish = (owner, standby);
                next.budget.wishes -= 1;
                self.push(Action::Wish { owner, standby }, next, None);
            }
        } else if state.budget.wishes > 0 && stage == Stage::Done {
            for (owner, standby) in [(0, 2), (0, 7), (2, 0), (1, 7), (1, 2)] {
                let mut next = *state;
                next.wish = (owner, standby);
                next.budget.wishes -= 1;
                self.push(Action::Wish { owner, standby }, next, None);
            }
        }
    }

    fn faults(&mut self, rules: &Rules, state: &State) {
        for number in 0..4_u8 {
            let at = usize::from(number);
            let guest = &state.guests[at];
            let mut next = *state;
            if guest.standing == Seen::Serving && state.budget.suspicions > 0 {
                next.guests[at].standing = Seen::Suspect;
                next.budget.suspicions -= 1;
                for director in &mut next.directors {
                    director.has_withdrawn = false;
                }
                self.push(Action::Suspect { guest: number }, next, None);
            }
            let is_suspect = matches!(guest.standing, Seen::Suspect | Seen::Fenced);
            let are_withdrawn = state
                .directors
                .iter()
                .all(|director| director.has_withdrawn);
            let mut next = *state;
            if guest.is_alive && guest.has_lease && is_suspect && are_withdrawn {
                next.guests[at].has_lease = false;
                self.push(Action::LeaseEnds { guest: number }, next, None);
            }
            let mut next = *state;
            if guest.standing == Seen::Suspect && !guest.has_lease && are_withdrawn {
                next.guests[at].standing = Seen::Fenced;
                self.push(Action::Fence { guest: number }, next, None);
            }
            let mut next = *state;
            let may = may_trust_again(rules, guest.has_acknowledged);
            if guest.is_alive && is_suspect && may {
                next.guests[at].standing = Seen::Serving;
                next.guests[at].has_lease = true;
                self.push(Action::TrustAgain { guest: number }, next, None);
            }
            self.crashes(rules, state, number);
        }
        let has_suspect = state
            .guests
            .iter()
            .any(|guest| guest.standing == Seen::Suspect);
        for (number, director) in (0_u8..).zip(&state.directors) {
            if has_suspect && !director.has_withdrawn {
                let mut next = *state;
                next.directors[usize::from(number)].has_withdrawn = true;
                self.push(Action::Withdraw { director: number }, next, None);
            }
        }
    }

    fn crashes(&mut self, rules: &Rules, state: &State, number: u8) {
        let at = usize::from(number);
        let guest = &state.guests[at];
        let end = |next: &mut State| {
            next.guests[at].kernel = Kernel::Nothing;
            if state.client == Client::Connected(number) {
                next.client = Client::Over;
            }
        };
        let mut next = *state;
        if guest.is_alive && guest.listens && state.budget.program_crashes > 0 {
            end(&mut next);
            next.guests[at].listens = false;
            next.budget.program_crashes -= 1;
            self.push(Action::ProgramCrashes { guest: number }, next, None);
        }
        let mut next = *state;
        if guest.is_alive && !guest.listens {
            next.guests[at].listens = true;
            self.push(Action::ProgramStarts { guest: number }, next, None);
        }
        let mut next = *state;
        if guest.is_alive && state.budget.kernel_crashes > 0 {
            end(&mut next);
            next.guests[at].listens = false;
            next.guests[at].is_alive = false;
            next.guests[at].has_lease = false;
            next.budget.kernel_crashes -= 1;
            self.push(Action::KernelCrashes { guest: number }, next, None);
        }
        let mut next = *state;
        if !guest.is_alive && !matches!(guest.standing, Seen::Absent | Seen::Gone) {
            next.guests[at].standing = Seen::Gone;
            self.push(Action::Destroyed { guest: number }, next, None);
        }
        let mut next = *state;
        let is_known = !matches!(guest.standing, Seen::Absent | Seen::Gone);
        if !guest.is_alive && is_known && state.budget.rebirths > 0 {
            let new = index(slot_of_new_kernel(rules, slot(at), slot(3)));
            // In its old slot nobody sees that it is another kernel.
            if new != at {
                next.guests[at].standing = Seen::Gone;
                next.guests[new].standing = Seen::Serving;
                next.guests[new].has_acknowledged = false;
            }
            let born = &mut next.guests[new];
            born.row = Code(0);
            born.is_alive = true;
            born.listens = true;
            born.has_lease = true;
            next.budget.rebirths -= 1;
            self.push(Action::Reborn { guest: number }, next, None);
        }
    }
}

/// Whom a hop may believe dead: nobody, or any other one of its row.
pub(super) fn opinions(row: Code, me: Option<u8>) -> impl Iterator<Item = Option<u8>> {
    let others = (0..4)
        .map(move |position| (row.0 >> (3 * position)) & 7)
        .filter(|slot| *slot > 0);
    let others = others.map(|slot| u8::try_from(slot - 1).expect("four slots"));
    core::iter::once(None).chain(others.filter(move |other| Some(*other) != me).map(Some))
}

/// The product's verdict on a packet.
pub(super) fn judge(rules: &Rules, state: &State, packet: &InFlight, dead: Option<u8>) -> Verdict {
    let at = usize::from(packet.to);
    let believed = dead.map(|dead| slot(dead.into()));
    judge_with(rules, state, packet, at, believed.as_slice())
}

pub(super) fn judge_with(
    rules: &Rules,
    state: &State,
    packet: &InFlight,
    at: usize,
    believed_dead: &[GuestSlot],
) -> Verdict {
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
        Verdict::Answer => return reset(state, packet),
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
            let wrong = |(number, guest): (usize, &super::state::Guest)| {
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
    dead: Option<u8>,
) -> Option<Violation> {
    let row = state.row.row();
    let head = index(row.head()?);
    let guest = &state.guests[head];
    let is_old = row.sequence().is_newer_than(packet.word.row().sequence());
    let is_wrong = verdict == Verdict::Accept
        && is_old
        && dead.is_none()
        && usize::from(packet.to) != head
        && guest.is_alive
        && guest.listens
        && guest.row == state.row
        && state.guests[usize::from(packet.to)].row == state.row
        && state.stage(rules, &state.entry()) == Stage::Done;
    is_wrong.then_some(Violation::NewGoesOld)
}
