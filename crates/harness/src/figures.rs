//! What a benchmark prints: a table for people, or with `--json` one document for programs
//! (`docs/benchmarks.md`), and with which exit code it ends.
//!
//! A benchmark measures only if cargo calls it as one (`--bench`): what runs all targets as tests
//! asks for no figures.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;

/// All figures of a group.
#[derive(Debug, Serialize)]
pub struct Document {
    group: &'static str,
    rows: Vec<Figure>,
}

/// One figure beside others of the same run.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    measure: String,
    unit: &'static str,
    ours: f64,
    peers: BTreeMap<&'static str, f64>,
    /// None: it is measured to be known, and nothing is asked of it.
    goal: Option<String>,
    /// None: there is no goal.
    met: Option<bool>,
    /// What else people want to know of it.
    #[serde(skip)]
    note: String,
}

impl Figure {
    pub fn new(measure: impl Into<String>, unit: &'static str, ours: f64) -> Self {
        Self {
            measure: measure.into(),
            unit,
            ours: rounded(ours),
            peers: BTreeMap::new(),
            goal: None,
            met: None,
            note: String::new(),
        }
    }

    #[must_use]
    pub fn beside(mut self, peer: &'static str, value: f64) -> Self {
        self.peers.insert(peer, rounded(value));
        self
    }

    #[must_use]
    pub fn goal(mut self, goal: impl Into<String>, met: bool) -> Self {
        self.goal = Some(goal.into());
        self.met = Some(met);
        self
    }

    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// What a peer had.
    pub fn peer(&self, peer: &str) -> Option<f64> {
        self.peers.get(peer).copied()
    }

    fn line(&self) -> String {
        let peers: Vec<String> = self
            .peers
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let goal = self.goal.as_deref().unwrap_or_default();
        let met = match self.met {
            None => "",
            Some(true) => "met",
            Some(false) => "MISSED",
        };
        let line = format!(
            "{:<48} {:>8} {:<3} {:<28} {goal:<34} {met} {}",
            self.measure,
            self.ours,
            self.unit,
            peers.join(", "),
            self.note
        );
        line.trim_end().to_owned()
    }
}

impl Document {
    pub fn new(group: &'static str, rows: Vec<Figure>) -> Self {
        Self { group, rows }
    }

    /// Prints it as the arguments ask. The exit code tells whether every goal is met.
    pub fn print(&self, arguments: &Arguments) -> ExitCode {
        if arguments.json {
            let text = serde_json::to_string(self).expect("figures are plain data");
            println!("{text}");
        } else {
            for row in &self.rows {
                println!("{}", row.line());
            }
        }
        match self.rows.iter().all(|row| row.met != Some(false)) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }
}

/// What a benchmark is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Arguments {
    pub json: bool,
    /// None: all parts.
    pub part: Option<String>,
}

impl Arguments {
    /// The program's arguments. An error is the code to end with, and has been said: 0 where
    /// nothing is to be measured, 2 for what no benchmark of these parts understands.
    pub fn read(parts: &[&str]) -> Result<Self, ExitCode> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        match Self::parse(&words, parts) {
            Ok(Some(arguments)) => Ok(arguments),
            Ok(None) => Err(ExitCode::SUCCESS),
            Err(message) => {
                eprintln!("error: {message}");
                Err(ExitCode::from(2))
            }
        }
    }

    /// None: no benchmark is wanted.
    fn parse(words: &[String], parts: &[&str]) -> Result<Option<Self>, String> {
        if !words.iter().any(|word| word == "--bench") {
            return Ok(None);
        }
        let mut arguments = Self {
            json: false,
            part: None,
        };
        for word in words {
            match word.as_str() {
                "--bench" => {}
                "--json" => arguments.json = true,
                word if arguments.part.is_none() && parts.contains(&word) => {
                    arguments.part = Some(word.to_owned());
                }
                word => {
                    let mut allowed = vec!["--json"];
                    allowed.extend(parts);
                    let allowed = allowed.join(", ");
                    return Err(format!("{word:?} is not known here; known: {allowed}"));
                }
            }
        }
        Ok(Some(arguments))
    }

    /// Whether a part is asked for.
    pub fn wants(&self, part: &str) -> bool {
        self.part.as_deref().is_none_or(|wanted| wanted == part)
    }
}

/// To a thousandth: what is behind it is noise.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// The middle one.
///
/// # Panics
/// If there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Option<Arguments>, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Arguments::parse(&words, &["bulk", "stall"])
    }

    #[test]
    fn the_document_has_the_shape_that_is_documented() {
        let figures = vec![
            Figure::new("a request", "ns", 12.345_678)
                .beside("floor", 3.0)
                .goal("<= 4.5 x floor", true),
            Figure::new("a wait", "ms", 7.0).note("(6 to 8)"),
        ];
        let document = serde_json::to_value(Document::new("codec", figures)).expect("plain data");
        let expected = serde_json::json!({
            "group": "codec",
            "rows": [
                {
                    "measure": "a request", "unit": "ns", "ours": 12.346,
                    "peers": { "floor": 3.0 }, "goal": "<= 4.5 x floor", "met": true,
                },
                {
                    "measure": "a wait", "unit": "ms", "ours": 7.0,
                    "peers": {}, "goal": null, "met": null,
                },
            ],
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn a_missed_goal_fails_and_no_goal_does_not() {
        let arguments = Arguments {
            json: false,
            part: None,
        };
        let code = |row: Figure| Document::new("codec", vec![row]).print(&arguments);
        let figure = Figure::new("a wait", "ms", 7.0);
        assert_eq!(code(figure.clone()), ExitCode::SUCCESS);
        assert_eq!(code(figure.goal("<= 6 ms", false)), ExitCode::FAILURE);
    }

    #[test]
    fn a_figure_without_goal_is_neither_met_nor_missed() {
        let figure = Figure::new("a wait", "ms", 7.0);
        assert!(figure.line().ends_with("ms"), "{}", figure.line());
        let missed = figure.goal("<= 6 ms", false).line();
        assert!(
            missed.ends_with("<= 6 ms                            MISSED"),
            "{missed}"
        );
    }

    #[test]
    fn nothing_is_measured_unless_it_is_asked_for() {
        assert_eq!(parse(&["--quiet", "what"]), Ok(None));
        let json = true;
        let part = Some("bulk".to_owned());
        assert_eq!(
            parse(&["bulk", "--json", "--bench"]),
            Ok(Some(Arguments { json, part }))
        );
    }

    #[test]
    fn an_unknown_part_is_an_error_that_names_the_others() {
        let error = parse(&["bulks", "--bench"]).expect_err("no such part");
        assert_eq!(
            error,
            "\"bulks\" is not known here; known: --json, bulk, stall"
        );
        assert!(parse(&["bulk", "stall", "--bench"]).is_err());
    }

    #[test]
    fn parts_are_wanted_alone_or_all() {
        let one = parse(&["bulk", "--bench"])
            .expect("a part")
            .expect("measured");
        assert!(one.wants("bulk") && !one.wants("stall"));
        let all = parse(&["--bench"]).expect("no part").expect("measured");
        assert!(all.wants("bulk") && all.wants("stall"));
    }
}
