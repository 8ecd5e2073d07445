//! What may happen next: every step of the world, by the product's own functions.
//!
//! [`traffic`] moves packets, [`table`] rows and acknowledgements, [`faults`] breaks and mends.

mod action;
mod faults;
mod table;
mod traffic;

use hitless_core::rules::Rules;

pub use action::Action;
pub(super) use traffic::{Beliefs, judge, opinions};

use super::state::State;

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

/// The world's next states.
#[derive(Debug, Default)]
pub struct Steps {
    pub next: Vec<(Action, State, Option<Violation>)>,
}

impl Steps {
    pub const fn new() -> Self {
        Self { next: Vec::new() }
    }

    /// The steps of tables and faults alone.
    pub fn of_control(&mut self, rules: &Rules, state: &State) {
        self.next.clear();
        self.table(rules, state);
        self.faults(rules, state);
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
}
