//! Counterexamples as text: one step a line, readable, and replayed by every test run.
//!
//! ```text
//! rule count_half_open
//! budget 2 1 0 0 0 0 2 0 0
//! violation Reset
//! send SYN by d1 believing g1 dead
//! ...
//! ```

use core::fmt::Write;

use hitless_core::rules::Rules;

use super::check::{reach, settles};
use super::mutants::{MUTANTS, Mutant, wide_budget};
use super::state::{Budget, State};
use super::step::{Action, Steps, Violation};

/// A recorded counterexample.
#[derive(Debug)]
pub struct Trace {
    pub mutant: &'static Mutant,
    pub budget: Budget,
    pub violation: String,
    pub steps: Vec<String>,
}

/// The state after these steps, all of which must be possible.
pub fn after(rules: &Rules, start: State, lines: &[&str]) -> Option<State> {
    let mut steps = Steps::new();
    lines.iter().try_fold(start, |state, line| {
        steps.of(rules, &state);
        let step = steps
            .next
            .iter()
            .find(|(action, _, _)| action.to_string() == *line);
        step.map(|(_, next, _)| *next)
    })
}

/// The text of a counterexample.
pub fn write(mutant: &Mutant, violation: Violation, actions: &[Action]) -> String {
    let numbers = mutant.budget.numbers().map(|number| number.to_string());
    let mut text = format!(
        "rule {}\nbudget {}\nviolation {violation:?}\n",
        mutant.name,
        numbers.join(" "),
    );
    for step in mutant.prefix {
        writeln!(text, "{step}").expect("a string takes all");
    }
    for action in actions {
        writeln!(text, "{action}").expect("a string takes all");
    }
    text
}

/// Reads a trace; `Err` says what is wrong with it.
pub fn read(text: &str) -> Result<Trace, String> {
    let mut lines = text.lines();
    let mut field = |name: &str| {
        let line = lines.next().unwrap_or_default();
        line.strip_prefix(name)
            .map(|value| value.trim().to_owned())
            .ok_or(format!("no {name}"))
    };
    let name = field("rule")?;
    let numbers = field("budget")?;
    let violation = field("violation")?;
    let mutant = MUTANTS
        .iter()
        .find(|mutant| mutant.name == name)
        .ok_or("unknown rule")?;
    let numbers: Vec<u8> = numbers
        .split(' ')
        .filter_map(|number| number.parse().ok())
        .collect();
    let numbers = numbers
        .try_into()
        .map_err(|_| "a budget has nine numbers")?;
    let steps = lines.map(str::to_owned).collect();
    Ok(Trace {
        mutant,
        budget: wide_budget(numbers),
        violation,
        steps,
    })
}

/// Takes the trace's steps under `rules`. Steps that are not possible are passed over: with all
/// rules some are not. Returns the first violation, and how many steps were taken.
pub fn replay(rules: &Rules, trace: &Trace) -> (Option<Violation>, usize) {
    let mut state = (trace.mutant.start)(trace.budget);
    let mut steps = Steps::new();
    let mut taken = 0;
    for line in &trace.steps {
        steps.of(rules, &state);
        let step = steps
            .next
            .iter()
            .find(|(action, _, _)| action.to_string() == *line);
        let Some((_, next, violation)) = step else {
            continue;
        };
        taken += 1;
        if violation.is_some() {
            return (*violation, taken);
        }
        state = *next;
        if let Some(violation) = reach(rules, &state).or_else(|| settles(rules, &state)) {
            return (Some(violation), taken);
        }
    }
    (None, taken)
}
