//! The model in the test run: every recorded counterexample on the product's machines, and a few
//! small searches.

use std::collections::HashSet;

use hitless_core::rules::Rules;
use hitless_sim::model::mutants::{MUTANTS, Mutant, REDUNDANT, WIDE, wide_budget};
use hitless_sim::model::search::search;
use hitless_sim::model::state::State;
use hitless_sim::model::trace;

/// Without its rule the trace breaks what it says; with all rules the same steps break nothing.
#[test]
fn every_mutant_fails_its_trace_and_the_original_holds() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    for mutant in MUTANTS
        .iter()
        .filter(|mutant| !REDUNDANT.contains(&mutant.name))
    {
        let path = folder.join(format!("{}.trace", mutant.name));
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let trace = trace::read(&text).unwrap_or_else(|error| panic!("{}: {error}", mutant.name));
        let (violation, taken) = trace::replay(&mutant.rules(), &trace);
        let violation = violation.map(|violation| format!("{violation:?}"));
        assert_eq!(
            violation.as_ref(),
            Some(&trace.violation),
            "{}",
            mutant.name
        );
        assert_eq!(
            taken,
            trace.steps.len(),
            "{}: every step is possible",
            mutant.name
        );
        let (violation, taken) = trace::replay(&Rules::ALL, &trace);
        assert_eq!(violation, None, "{} with all rules", mutant.name);
        assert!(taken > 0 || trace.steps.is_empty());
    }
}

#[test]
fn every_trace_belongs_to_a_mutant() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let of = name.strip_suffix(".trace").unwrap_or_default();
        let is_replayed = |mutant: &Mutant| mutant.name == of && !REDUNDANT.contains(&of);
        assert!(
            MUTANTS.iter().any(is_replayed),
            "{name} belongs to no mutant that is replayed: remove it, or add its mutant"
        );
    }
}

/// Rules 1 to 6, I1, I2, I3 and I4 over all interleavings at a small size.
#[test]
fn all_rules_hold_in_small_searches() {
    for of in &WIDE[..3] {
        let found = search(&Rules::ALL, State::new(wide_budget(*of)), 5_000_000);
        assert!(
            found.counterexample.is_none(),
            "{of:?}: {:?}",
            found.counterexample
        );
        assert!(
            found.is_complete && found.states > 10_000,
            "{of:?}: {}",
            found.states
        );
    }
}

/// The deep places from which mutants fail: with all rules everything that follows holds.
#[test]
fn all_rules_hold_where_mutants_fail_late() {
    let mut starts = HashSet::new();
    for mutant in MUTANTS.iter().filter(|mutant| !mutant.prefix.is_empty()) {
        let start = mutant.begin(&Rules::ALL).unwrap();
        if !starts.insert(start) {
            continue;
        }
        let found = search(&Rules::ALL, start, 1_000_000);
        let name = mutant.name;
        assert!(
            found.counterexample.is_none(),
            "{name}: {:?}",
            found.counterexample
        );
        assert!(found.is_complete && found.states > 100, "{name}");
    }
}
