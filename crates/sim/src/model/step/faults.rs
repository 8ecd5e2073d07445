//! Suspicion, leases, crashes, returns, and guests that are cut off for a while.

use hitless_core::rules::Rules;
use hitless_core::table::step::{may_trust_again, slot_of_new_kernel};

use super::{Action, Steps};
use crate::model::state::{Client, Code, Kernel, Seen, State, index, slot};

impl Steps {
    pub(super) fn faults(&mut self, rules: &Rules, state: &State) {
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
            let may_renew = guest.standing == Seen::Serving
                || (guest.standing == Seen::Suspect && !are_withdrawn);
            if guest.is_alive && may_renew {
                next.guests[at].has_lease = !guest.has_lease;
                if !guest.has_lease {
                    self.push(Action::LeaseReturns { guest: number }, next, None);
                } else if state.budget.cuts > 0 {
                    next.budget.cuts -= 1;
                    self.push(Action::LeaseLapses { guest: number }, next, None);
                }
            }
            let mut next = *state;
            if guest.standing == Seen::Suspect && !guest.has_lease && are_withdrawn {
                next.guests[at].standing = Seen::Fenced;
                self.push(Action::Fence { guest: number }, next, None);
            }
            let mut next = *state;
            let may = may_trust_again(rules, guest.has_acknowledged);
            if is_suspect && may {
                next.guests[at].standing = Seen::Serving;
                // It may have died since.
                next.guests[at].has_lease = guest.is_alive;
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
            let stage = state.stage(rules, &state.entry());
            next.reached = state.reached.max(stage);
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
