//! The mutants: one rule left out each, and the bounds in which that breaks something.

use hitless_core::rules::Rules;

use super::state::Budget;

/// A rule left out.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Also the name of its trace.
    pub name: &'static str,
    pub clear: fn(&mut Rules),
    pub budget: Budget,
}

impl Mutant {
    pub fn rules(&self) -> Rules {
        let mut rules = Rules::ALL;
        (self.clear)(&mut rules);
        rules
    }
}

/// Rows, wishes, program crashes, kernel crashes, suspicions, rebirths, packets.
pub const fn budget(of: [u8; 7]) -> Budget {
    let [
        rows,
        wishes,
        program_crashes,
        kernel_crashes,
        suspicions,
        rebirths,
        packets,
    ] = of;
    Budget {
        rows,
        wishes,
        program_crashes,
        kernel_crashes,
        suspicions,
        rebirths,
        packets,
    }
}

macro_rules! mutant {
    ($rule:ident, $budget:expr) => {
        Mutant {
            name: stringify!($rule),
            clear: |rules| rules.$rule = false,
            budget: budget($budget),
        }
    };
}

/// All rules that break something within their bounds.
pub const MUTANTS: &[Mutant] = &[
    mutant!(believed_dead_last, [0, 0, 0, 0, 0, 0, 2]),
    mutant!(check_initial_sequence, [0, 0, 0, 0, 0, 0, 2]),
    mutant!(look_up_always, [0, 0, 0, 0, 0, 0, 2]),
    mutant!(restamp_data, [2, 1, 0, 0, 0, 0, 2]),
    mutant!(restamp_syn, [2, 1, 0, 0, 0, 0, 2]),
    mutant!(restamp_syn_with_self, [2, 1, 0, 0, 0, 0, 2]),
    mutant!(restamp_syn_unless_head, [2, 1, 0, 0, 0, 0, 2]),
    mutant!(restamp_by_own_belief, [2, 1, 0, 1, 0, 0, 2]),
    mutant!(restamp_ignores_old_order, [2, 1, 0, 1, 0, 0, 2]),
    mutant!(pass_syn_when_not_listening, [0, 0, 1, 0, 0, 0, 2]),
    mutant!(accept_only_when_listed, [2, 1, 0, 0, 0, 0, 2]),
    mutant!(answer_only_for_own_row, [2, 1, 0, 0, 0, 0, 2]),
    mutant!(set_no_answer, [2, 1, 1, 0, 0, 0, 2]),
    mutant!(lease_to_answer, [1, 1, 0, 0, 1, 0, 2]),
    mutant!(count_half_open, [2, 1, 0, 0, 0, 0, 2]),
    mutant!(leaver_first, [1, 1, 0, 0, 0, 0, 2]),
    mutant!(one_leaves_per_row, [3, 1, 0, 0, 0, 0, 2]),
    mutant!(joiner_last, [2, 1, 0, 0, 0, 0, 2]),
    mutant!(guests_before_directors, [2, 1, 0, 0, 0, 0, 2]),
    mutant!(barrier, [3, 1, 0, 0, 0, 0, 2]),
    mutant!(suspect_to_tail, [2, 0, 0, 0, 1, 0, 2]),
    mutant!(new_slot_for_new_kernel, [2, 1, 0, 1, 0, 1, 2]),
    mutant!(lease_wait, [2, 1, 0, 0, 1, 0, 2]),
    mutant!(lease_wait_for_every_row, [2, 1, 0, 0, 1, 0, 2]),
    mutant!(lease_back_with_newest_row, [2, 1, 0, 0, 1, 0, 2]),
    mutant!(append_holder, [2, 1, 0, 0, 1, 0, 2]),
];

/// Searches in which all rules hold; the first few are small enough for every test run.
pub const WIDE: &[[u8; 7]] = &[
    [2, 1, 0, 0, 0, 0, 1],
    [1, 1, 1, 0, 0, 0, 1],
    [1, 1, 0, 0, 1, 0, 1],
    [2, 1, 0, 0, 0, 0, 2],
    [3, 1, 0, 0, 0, 0, 1],
    [2, 1, 1, 0, 0, 0, 1],
    [2, 1, 1, 1, 0, 0, 1],
    [2, 1, 0, 1, 0, 1, 1],
    [2, 1, 0, 0, 1, 0, 1],
    [3, 2, 0, 0, 0, 0, 1],
    [1, 1, 0, 0, 1, 0, 2],
    [3, 1, 0, 0, 0, 0, 2],
];

/// Rules whose absence breaks nothing within the bounds: kept as depth.
pub const REDUNDANT: &[&str] = &["guests_before_directors", "append_holder"];
