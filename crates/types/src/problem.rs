//! What is wrong with a file that a user wrote: every error at once, each with its place.

use core::fmt;

use serde::Serialize;

/// One error in a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// Stable name of this kind of error, for example `unknown-field`.
    pub code: &'static str,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// Where in the document, for example `pools.web.members[1]`. Empty for the document as a whole.
    pub field: String,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What was found there. `None` where something is missing or the message says it all.
    pub found: Option<String>,
    /// What may be written there. `None` where that cannot be said in a line.
    pub allowed: Option<String>,
    /// What to do, for example a name that was probably meant. `None` if there is no good guess.
    pub hint: Option<String>,
    /// How many characters the error covers, at least 1; for the mark under the line.
    #[serde(skip)]
    pub width: usize,
}

/// All errors of one file, in the order of their places; never empty.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problems {
    /// The file as the user named it.
    pub file: String,
    pub problems: Vec<Problem>,
    /// The lines that the problems point at, for the text form.
    #[serde(skip)]
    pub(crate) lines: Vec<(usize, String)>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.problems.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            self.write_problem(f, problem)?;
        }
        Ok(())
    }
}

impl core::error::Error for Problems {}

impl Problems {
    fn write_problem(&self, f: &mut fmt::Formatter<'_>, problem: &Problem) -> fmt::Result {
        writeln!(f, "error[{}]: {}", problem.code, problem.message)?;
        let gutter = problem.line.to_string().len();
        write!(
            f,
            "{:gutter$}--> {}:{}:{}",
            "", self.file, problem.line, problem.column
        )?;
        if problem.field.is_empty() {
            writeln!(f)?;
        } else {
            writeln!(f, ": {}", problem.field)?;
        }
        if let Some((_, text)) = self.lines.iter().find(|(line, _)| *line == problem.line) {
            let mark = "^".repeat(problem.width.max(1));
            writeln!(f, "{:gutter$} |", "")?;
            writeln!(f, "{} | {text}", problem.line)?;
            writeln!(
                f,
                "{:gutter$} | {:indent$}{mark}",
                "",
                "",
                indent = problem.column - 1
            )?;
        }
        for (label, value) in [
            ("found", &problem.found),
            ("allowed", &problem.allowed),
            ("help", &problem.hint),
        ] {
            if let Some(value) = value {
                writeln!(f, "{:gutter$} = {label}: {value}", "")?;
            }
        }
        Ok(())
    }
}
