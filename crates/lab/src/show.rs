//! What a person sees while a script runs, and the table at its end.
//!
//! On a terminal the line of the step that runs is written anew, each second; piped, each thing is
//! a line of its own. All of it goes to standard error if standard output is a document for
//! programs.

use std::fs;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::judge::{Document, StepResult};
use crate::script::Action;
use crate::world::World;

/// Lines of each log that are shown when a lab fails.
const LOG_LINES: usize = 8;
/// How often the line on a terminal is written anew.
const REDRAW_EVERY: Duration = Duration::from_secs(1);

/// Where progress goes.
#[derive(Debug)]
pub struct Show {
    out: Out,
    began: Instant,
    step: String,
    /// The line that is written anew, with the time before it. None while there is none, or no
    /// terminal.
    live: Arc<Mutex<Option<String>>>,
    is_redrawn: bool,
}

#[derive(Clone, Copy, Debug)]
struct Out {
    is_json: bool,
    is_terminal: bool,
}

impl Out {
    fn write(self, text: &str) {
        // A reader that has gone must not end a run that still has a lab to take down.
        let _ = if self.is_json {
            stderr().write_all(text.as_bytes())
        } else {
            stdout()
                .write_all(text.as_bytes())
                .and_then(|()| stdout().flush())
        };
    }

    fn draw(self, began: Instant, what: &str) {
        let at = began.elapsed().as_secs();
        self.write(&format!("\r\x1b[K{at:>4} s  {what}"));
    }
}

impl Show {
    pub fn new(is_json: bool) -> Self {
        let is_terminal = if is_json {
            stderr().is_terminal()
        } else {
            stdout().is_terminal()
        };
        Self {
            out: Out {
                is_json,
                is_terminal,
            },
            began: Instant::now(),
            step: String::new(),
            live: Arc::default(),
            is_redrawn: false,
        }
    }

    /// One line.
    pub fn line(&mut self, text: &str) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let clear = if live.take().is_some() {
            "\r\x1b[K"
        } else {
            ""
        };
        let at = self.began.elapsed().as_secs();
        self.out.write(&format!("{clear}{at:>4} s  {text}\n"));
    }

    /// A step begins.
    pub fn begin(&mut self, number: usize, of: usize, name: &str) {
        self.step = format!("{number}/{of} {name}");
        self.progress("steady load");
    }

    /// It does something.
    pub fn action(&mut self, action: &Action) {
        self.progress(&sentence(action));
    }

    /// What goes on in the step.
    pub fn progress(&mut self, what: &str) {
        let text = format!("{}: {what}", self.step);
        if !self.out.is_terminal {
            self.line(&text);
            return;
        }
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        self.out.draw(self.began, &text);
        *live = Some(text);
        drop(live);
        self.redraw();
    }

    /// Starts the thread that keeps the time in the line going, for the rest of the program.
    fn redraw(&mut self) {
        if std::mem::replace(&mut self.is_redrawn, true) {
            return;
        }
        let (out, began, live) = (self.out, self.began, Arc::downgrade(&self.live));
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(REDRAW_EVERY);
                let Some(live) = live.upgrade() else { return };
                let live = live.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(text) = &*live {
                    out.draw(began, text);
                }
            }
        });
    }

    /// A step ended.
    pub fn step(&mut self, result: &StepResult) {
        let verdict = if result.faults.is_empty() {
            "kept"
        } else {
            "BROKEN"
        };
        let text = format!(
            "{verdict}: {} ({} s): {} connections, {} carried, {} finished, {} told to close, {} lost, longest stall {} ms",
            result.name,
            result.seconds,
            result.connections,
            result.carried,
            result.finished,
            result.told_to_close,
            result.reset + result.closed_early + result.refused + result.corrupted,
            result.stall_ms_max
        );
        self.line(&text);
        for fault in &result.faults {
            self.line(&format!("        {fault}"));
        }
    }

    /// The table, or the document.
    pub fn end(&mut self, document: &Document) -> anyhow::Result<()> {
        if self.out.is_json {
            let mut out = stdout().lock();
            serde_json::to_writer(&mut out, document)?;
            out.write_all(b"\n")?;
            return Ok(());
        }
        // A run that ended before its first step has nothing to show but its error.
        if !document.steps.is_empty() {
            self.out.write(&table(document));
        }
        Ok(())
    }

    /// The last lines of every log.
    pub fn logs(&mut self, world: &World) {
        let folder = world.topology().folder();
        let mut paths = Vec::new();
        collect_logs(&folder, &mut paths);
        paths.sort();
        for path in paths {
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            let lines: Vec<&str> = text.lines().collect();
            if lines.is_empty() {
                continue;
            }
            self.line(&format!("{}:", path.display()));
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                self.line(&format!("    {line}"));
            }
        }
    }
}

fn collect_logs(folder: &std::path::Path, to: &mut Vec<std::path::PathBuf>) {
    for path in fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
    {
        if path.is_dir() && !path.ends_with("bpf") {
            collect_logs(&path, to);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            to.push(path);
        }
    }
}

/// An action in words: `drain-guest: guest tm1, remove`. What is not asked for is left out.
fn sentence(action: &Action) -> String {
    let fields = |fields: &Map<String, Value>| {
        let told = fields.iter().filter_map(|(name, value)| match value {
            Value::Null | Value::Bool(false) => None,
            Value::Bool(true) => Some(name.clone()),
            Value::String(text) => Some(format!("{name} {text}")),
            other => Some(format!("{name} {other}")),
        });
        told.collect::<Vec<_>>().join(", ")
    };
    match serde_json::to_value(action) {
        Ok(Value::String(name)) => name,
        Ok(Value::Object(named)) => {
            let named = named.iter().map(|(name, value)| match value {
                Value::Object(map) => format!("{name}: {}", fields(map)),
                other => format!("{name}: {other}"),
            });
            named.collect()
        }
        Ok(_) | Err(_) => String::new(),
    }
}

/// A table of all steps: the clients' tally, and the proofs.
pub fn table(document: &Document) -> String {
    let width = document
        .steps
        .iter()
        .map(|step| step.name.len())
        .max()
        .unwrap_or(0)
        .max(4);
    let mut text = format!(
        "\n{:width$}  {:>6} {:>7} {:>8} {:>5} {:>5} {:>6} {:>7} {:>7} {:>8} {:>11}\n",
        "step",
        "conns",
        "carried",
        "finished",
        "told",
        "reset",
        "closed",
        "refused",
        "corrupt",
        "stall ms",
        "retransmits"
    );
    for step in &document.steps {
        let proofs: Vec<String> = step
            .proofs
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        text.push_str(&format!(
            "{:width$}  {:>6} {:>7} {:>8} {:>5} {:>5} {:>6} {:>7} {:>7} {:>8} {:>11}{}\n    {}\n",
            step.name,
            step.connections,
            step.carried,
            step.finished,
            step.told_to_close,
            step.reset,
            step.closed_early,
            step.refused,
            step.corrupted,
            step.stall_ms_max,
            format!("{} ({})", step.retransmits_step, step.retransmits_before),
            if step.faults.is_empty() {
                ""
            } else {
                "  BROKEN"
            },
            proofs.join(" ")
        ));
    }
    text.push_str(
        "\nretransmits: the clients' in the step, and in as long a time of steady load before it\n",
    );
    for step in document.steps.iter().filter(|step| !step.faults.is_empty()) {
        text.push_str(&format!(
            "BROKEN {}: {}\n",
            step.name,
            step.faults.join("; ")
        ));
    }
    text.push_str(if document.kept {
        "kept: every promise held\n"
    } else {
        "NOT kept\n"
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_told_in_words() {
        let drain = |remove, deadline_s| Action::DrainGuest {
            guest: "tm1".into(),
            remove,
            deadline_s,
        };
        for (action, text) in [
            (drain(true, None), "drain-guest: guest tm1, remove"),
            (
                drain(false, Some(5)),
                "drain-guest: deadline_s 5, guest tm1",
            ),
            (Action::Pause { ms: 20 }, "pause: ms 20"),
            (Action::WaitSettled, "wait-settled"),
        ] {
            assert_eq!(sentence(&action), text);
        }
    }
}
