//! What is wrong with a file that a user wrote: every error at once, each with its place.

use core::fmt;

use serde::Serialize;

use crate::document::Mark;

/// One error in a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// Stable name of this kind of error, for example `unknown-field`.
    pub code: &'static str,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// Where in the document, for example `pools.web.members[1]`. Empty for the document as a
    /// whole.
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

/// Characters of a found value that are shown.
const QUOTE_MAX: usize = 60;
/// Characters of a line that are shown.
const LINE_MAX: usize = 120;
/// Problems of one file that are shown; a file of another kind would have thousands.
const PROBLEMS_MAX: usize = 100;

impl Problem {
    pub fn at(
        mark: Mark,
        field: impl Into<String>,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            line: mark.line,
            column: mark.column,
            field: field.into(),
            message: message.into(),
            found: None,
            allowed: None,
            hint: None,
            width: mark.width.max(1),
        }
    }

    #[must_use]
    pub fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    #[must_use]
    pub fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A text in back quotes, cut and without control characters, so that a file cannot write on the
/// terminal.
pub fn quote(text: &str) -> String {
    let mut shown: String = visible(text).take(QUOTE_MAX).collect();
    if text.chars().count() > QUOTE_MAX {
        shown.push('…');
    }
    format!("`{shown}`")
}

fn visible(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().map(|c| {
        if c.is_control() && c != '\t' {
            '�'
        } else {
            c
        }
    })
}

/// Collects the problems of one file.
#[derive(Debug, Default)]
pub struct Sink {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Sink {
    pub fn add(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Something that is allowed, and hardly meant.
    pub fn warn(&mut self, problem: Problem) {
        self.warnings.push(problem);
    }

    /// `value` and what was odd if nothing was wrong, else every problem in the order of the file.
    /// Where something is wrong the warnings are left out: it may be what they come from.
    ///
    /// # Errors
    /// The problems, if there are any.
    ///
    /// # Panics
    /// If there is neither a value nor a problem.
    pub fn finish<T>(
        self,
        value: Option<T>,
        file: &str,
        bytes: &[u8],
    ) -> Result<(T, Option<Problems>), Problems> {
        if !self.problems.is_empty() {
            return Err(Problems::new(file, Severity::Error, self.problems, bytes));
        }
        let value = value.expect("a reader that gives no value reports why");
        let warnings = self.warnings;
        let warnings =
            (!warnings.is_empty()).then(|| Problems::new(file, Severity::Warning, warnings, bytes));
        Ok((value, warnings))
    }
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Severity {
    /// The file is refused.
    #[default]
    Error,
    /// The file is taken.
    Warning,
}

impl Severity {
    const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// All errors of one file, or all warnings, in the order of their places; never empty.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problems {
    /// The file as the user named it.
    pub file: String,
    pub problems: Vec<Problem>,
    /// Problems that are not listed, because there are too many.
    pub left_out: usize,
    #[serde(skip)]
    severity: Severity,
    /// The lines that the problems point at, for the text form.
    #[serde(skip)]
    lines: Vec<(usize, String)>,
}

impl Problems {
    fn new(file: &str, severity: Severity, mut problems: Vec<Problem>, bytes: &[u8]) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        // An alias repeats a value, and so its problems.
        problems.dedup_by(|a, b| {
            (a.line, a.column, a.code, &a.message) == (b.line, b.column, b.code, &b.message)
        });
        let left_out = problems.len().saturating_sub(PROBLEMS_MAX);
        problems.truncate(PROBLEMS_MAX);
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let lines = text
            .lines()
            .enumerate()
            .map(|(position, line)| (position + 1, line))
            .filter(|(line, _)| problems.iter().any(|problem| problem.line == *line))
            .map(|(line, text)| (line, text.to_owned()))
            .collect();
        Self {
            file: file.to_owned(),
            problems,
            left_out,
            severity,
            lines,
        }
    }

    fn write_problem(&self, f: &mut fmt::Formatter<'_>, problem: &Problem) -> fmt::Result {
        let word = self.severity.word();
        writeln!(f, "{word}[{}]: {}", problem.code, problem.message)?;
        let gutter = problem.line.to_string().len();
        let (file, line, column) = (&self.file, problem.line, problem.column);
        write!(f, "{:gutter$}--> {file}:{line}:{column}", "")?;
        if problem.field.is_empty() {
            writeln!(f)?;
        } else {
            writeln!(f, ": {}", problem.field)?;
        }
        if let Some((_, text)) = self.lines.iter().find(|(number, _)| *number == line) {
            let (shown, mark) = excerpt(text, column, problem.width);
            writeln!(f, "{:gutter$} |", "")?;
            writeln!(f, "{line} | {shown}")?;
            writeln!(f, "{:gutter$} | {mark}", "")?;
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

/// The part of a line around a column, and the line with the mark under it.
fn excerpt(line: &str, column: usize, width: usize) -> (String, String) {
    let skipped = if column > LINE_MAX * 3 / 4 {
        column - LINE_MAX / 2
    } else {
        0
    };
    let lead = if skipped > 0 { "…" } else { "" };
    let mut shown: String = visible(line).skip(skipped).take(LINE_MAX).collect();
    if line.chars().count() > skipped + LINE_MAX {
        shown.push('…');
    }
    // Tabs stay, so that the mark stands under its character at any tab width.
    let before = line.chars().skip(skipped).take(column - 1 - skipped);
    let mut mark: String = " ".repeat(lead.chars().count());
    mark.extend(before.map(|c| if c == '\t' { '\t' } else { ' ' }));
    mark.push_str(&"^".repeat(width.clamp(1, LINE_MAX / 2)));
    (format!("{lead}{shown}"), mark)
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            self.write_problem(f, problem)?;
            writeln!(f)?;
        }
        let count = self.problems.len() + self.left_out;
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{}: {count} {}{plural}", self.file, self.severity.word())?;
        if self.left_out > 0 {
            write!(f, ", the first {} shown", self.problems.len())?;
        }
        Ok(())
    }
}

impl core::error::Error for Problems {}
