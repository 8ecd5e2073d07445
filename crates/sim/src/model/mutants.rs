//! The mutants: one rule left out each, and the bounds in which that breaks something.

use hitless_core::rules::Rules;

use super::state::{Budget, State};
use super::trace;

/// A rule left out.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Also the name of its trace.
    pub name: &'static str,
    pub clear: fn(&mut Rules),
    pub budget: Budget,
    /// Steps from which the search starts, so that it finds deep counterexamples in little time.
    pub prefix: &'static [&'static str],
    /// The world before the first step.
    pub start: fn(Budget) -> State,
}

/// The standby leaves: guest 1 alone has the bucket.
const LONE: &[&str] = &[
    "wish g1 alone",
    "controller writes",
    "g3 takes row",
    "g3 counts zero",
    "g1 takes row",
    "g2 takes row",
    "d1 takes row",
    "d2 takes row",
];

/// The same, with a SYN under way to the guest that left.
const LONE_WITH_OLD_SYN: &[&str] = &[
    "send SYN by d1 believing g1 dead",
    "wish g1 alone",
    "controller writes",
    "g3 takes row",
    "g3 counts zero",
    "g1 takes row",
    "g2 takes row",
    "d1 takes row",
    "d2 takes row",
];

/// Guest 2 leads, guests 1 and 3 are still to leave, guest 4 to come; a SYN is on its way to guest
/// 1.
const SHIFTED_WITH_OLD_SYN: &[&str] = &[
    "send SYN by d1",
    "wish g2 g4",
    "controller writes",
    "g1 takes row",
    "g3 takes row",
    "g4 takes row",
    "g2 takes row",
    "d1 takes row",
    "d2 takes row",
    "controller writes",
    "g1 takes row",
    "g2 takes row",
    "g3 takes row",
    "g4 takes row",
    "d1 takes row",
    "d2 takes row",
];

/// Guest 2 leads, guests 1 and 3 are still to leave.
const SHIFTED: &[&str] = &[
    "wish g2 alone",
    "controller writes",
    "g1 takes row",
    "g3 takes row",
    "g2 takes row",
    "d1 takes row",
    "d2 takes row",
    "controller writes",
    "g1 takes row",
    "g2 takes row",
    "g3 takes row",
    "d1 takes row",
    "d2 takes row",
];

impl Mutant {
    pub fn rules(&self) -> Rules {
        let mut rules = Rules::ALL;
        (self.clear)(&mut rules);
        rules
    }

    /// The state from which the search starts; `None` if a step of the prefix is not possible.
    pub fn begin(&self, rules: &Rules) -> Option<State> {
        trace::after(rules, (self.start)(self.budget), self.prefix)
    }
}

/// Rows, wishes, program crashes, kernel crashes, suspicions, rebirths, packets.
pub const fn budget(of: [u8; 7]) -> Budget {
    let [
        rows,
        wishes,
        programs,
        kernels,
        suspicions,
        rebirths,
        packets,
    ] = of;
    wide_budget([
        rows, wishes, programs, kernels, suspicions, rebirths, packets, 0, 0,
    ])
}

/// The same with cuts and others' connections, in the order of [`Budget::numbers`].
pub const fn wide_budget(of: [u8; 9]) -> Budget {
    let [
        rows,
        wishes,
        program_crashes,
        kernel_crashes,
        suspicions,
        rebirths,
        packets,
        cuts,
        others,
    ] = of;
    Budget {
        rows,
        wishes,
        program_crashes,
        kernel_crashes,
        suspicions,
        rebirths,
        packets,
        cuts,
        others,
    }
}

macro_rules! mutant {
    ($rule:ident, $budget:expr) => {
        mutant!($rule, $budget, &[])
    };
    ($rule:ident, $budget:expr, $prefix:expr) => {
        mutant!($rule, $budget, $prefix, State::new)
    };
    ($rule:ident, $budget:expr, $prefix:expr, $start:expr) => {
        Mutant {
            name: stringify!($rule),
            clear: |rules| rules.$rule = false,
            budget: budget($budget),
            prefix: $prefix,
            start: $start,
        }
    };
}

impl Budget {
    /// In the order of [`wide_budget`].
    pub const fn numbers(&self) -> [u8; 9] {
        [
            self.rows,
            self.wishes,
            self.program_crashes,
            self.kernel_crashes,
            self.suspicions,
            self.rebirths,
            self.packets,
            self.cuts,
            self.others,
        ]
    }
}

/// All rules that break something within their bounds.
pub const MUTANTS: &[Mutant] = &[
    mutant!(believed_dead_last, [0, 0, 0, 0, 0, 0, 2]),
    mutant!(check_initial_sequence, [0, 0, 0, 0, 0, 0, 2]),
    mutant!(look_up_always, [0, 0, 0, 0, 0, 0, 2]),
    mutant!(restamp_data, [2, 1, 0, 0, 0, 0, 2]),
    mutant!(restamp_syn, [2, 1, 0, 0, 0, 0, 1]),
    mutant!(restamp_syn_with_self, [1, 1, 1, 0, 0, 0, 1]),
    mutant!(restamp_syn_unless_head, [2, 1, 0, 0, 0, 0, 2]),
    mutant!(restamp_by_own_belief, [2, 1, 0, 1, 0, 0, 2]),
    mutant!(restamp_ignores_old_order, [2, 1, 0, 1, 0, 0, 2]),
    mutant!(pass_syn_when_not_listening, [0, 0, 1, 0, 0, 0, 2]),
    mutant!(
        accept_only_when_listed,
        [2, 2, 0, 0, 0, 0, 2],
        LONE_WITH_OLD_SYN
    ),
    mutant!(answer_only_for_own_row, [1, 1, 1, 0, 0, 0, 2]),
    mutant!(set_no_answer, [2, 2, 1, 0, 0, 0, 2], LONE_WITH_OLD_SYN),
    mutant!(lease_to_answer, [2, 2, 0, 0, 1, 0, 1], LONE),
    mutant!(count_half_open, [2, 1, 0, 0, 0, 0, 2]),
    mutant!(leaver_first, [1, 1, 0, 0, 0, 0, 2]),
    mutant!(one_leaves_per_row, [3, 1, 0, 0, 0, 0, 2]),
    mutant!(
        join_before_leaving,
        [3, 1, 0, 0, 0, 0, 1],
        SHIFTED_WITH_OLD_SYN,
        State::with_fourth
    ),
    mutant!(joiner_last, [2, 2, 0, 0, 0, 0, 2], LONE_WITH_OLD_SYN),
    mutant!(guests_before_directors, [2, 1, 0, 0, 0, 0, 1]),
    mutant!(barrier, [4, 1, 0, 0, 0, 0, 1], SHIFTED),
    mutant!(suspect_to_tail, [2, 0, 0, 0, 1, 0, 2]),
    mutant!(new_slot_for_new_kernel, [1, 1, 0, 1, 0, 1, 1], LONE),
    mutant!(lease_wait, [2, 2, 0, 0, 1, 0, 1], LONE),
    mutant!(lease_wait_for_every_row, [2, 2, 0, 0, 1, 0, 1], LONE),
    mutant!(lease_back_with_newest_row, [2, 2, 0, 0, 1, 0, 1], LONE),
    mutant!(append_holder, [2, 1, 0, 0, 1, 0, 1]),
];

/// Searches in which all rules hold; the first few are small enough for every test run.
pub const WIDE: &[[u8; 9]] = &[
    [2, 1, 0, 0, 0, 0, 1, 0, 0],
    [1, 1, 1, 0, 0, 0, 1, 0, 0],
    [1, 1, 0, 0, 0, 0, 1, 1, 1],
    [1, 1, 0, 0, 1, 0, 1, 0, 0],
    [2, 1, 0, 0, 0, 0, 2, 0, 0],
    [3, 1, 0, 0, 0, 0, 1, 0, 0],
    [2, 1, 1, 0, 0, 0, 1, 0, 0],
    [2, 1, 1, 1, 0, 0, 1, 0, 0],
    [2, 1, 0, 1, 0, 1, 1, 0, 0],
    [3, 2, 0, 0, 0, 0, 1, 0, 0],
    [2, 2, 0, 1, 0, 0, 1, 0, 0],
    [2, 1, 0, 0, 0, 0, 1, 0, 1],
    [2, 1, 0, 0, 0, 0, 2, 0, 1],
    [3, 1, 0, 0, 0, 0, 1, 0, 2],
    [1, 1, 0, 0, 1, 0, 1, 1, 0],
    [2, 1, 1, 0, 0, 0, 1, 1, 1],
    [2, 1, 1, 1, 0, 0, 1, 0, 1],
    [2, 1, 0, 1, 0, 1, 1, 0, 1],
    [3, 1, 0, 0, 0, 0, 2, 0, 0],
    [2, 1, 0, 0, 1, 0, 1, 0, 0],
    [1, 1, 0, 0, 1, 0, 2, 0, 0],
    [2, 1, 0, 0, 1, 0, 1, 1, 0],
    [2, 1, 0, 0, 1, 0, 1, 0, 1],
];

/// Rules whose absence breaks nothing within the bounds: kept as depth.
pub const REDUNDANT: &[&str] = &["guests_before_directors", "append_holder"];
