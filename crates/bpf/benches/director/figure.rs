//! What a benchmark prints: a table, or one document in the form of all our benchmarks
//! (`docs/benchmarks.md`).

use std::collections::BTreeMap;

use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Document {
    pub(crate) group: &'static str,
    pub(crate) rows: Vec<Figure>,
}

#[derive(Serialize)]
pub(crate) struct Figure {
    pub(crate) measure: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    pub(crate) peers: BTreeMap<&'static str, f64>,
    pub(crate) goal: String,
    pub(crate) met: bool,
}

impl Figure {
    pub(crate) fn new(measure: impl Into<String>, unit: &'static str, ours: f64) -> Self {
        Self {
            measure: measure.into(),
            unit,
            ours: (ours * 10.0).round() / 10.0,
            peers: Default::default(),
            goal: String::new(),
            met: true,
        }
    }

    pub(crate) fn beside(mut self, peer: &'static str, value: f64) -> Self {
        self.peers.insert(peer, (value * 10.0).round() / 10.0);
        self
    }

    pub(crate) fn goal(mut self, goal: impl Into<String>, met: bool) -> Self {
        self.goal = goal.into();
        self.met = met;
        self
    }
}
pub(crate) fn print_table(rows: &[Figure]) {
    for row in rows {
        let peers: Vec<_> = row
            .peers
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let met = match (row.goal.is_empty(), row.met) {
            (true, _) => "",
            (false, true) => "met",
            (false, false) => "MISSED",
        };
        println!(
            "{:<44} {:>8} {:<3} {:<32} {:<28} {met}",
            row.measure,
            row.ours,
            row.unit,
            peers.join(", "),
            row.goal
        );
    }
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
