//! How a command ends: its exit code, and the error that it prints.

use core::fmt;
use std::io::Write;
use std::process::ExitCode;

/// Exit codes, the same for every command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    Done,
    /// Failed, refused, or rolled back.
    Failed,
    /// The command line cannot be meant.
    Usage,
    /// Still running when the time to wait was over.
    StillRunning,
    /// Nothing answers, or it may not be asked.
    Unreachable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // 3 is "needs the operator"; no command here ends like that yet.
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::StillRunning => 4,
            Exit::Unreachable => 5,
        })
    }
}

/// An error that knows its exit code and what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    /// `None` if the message says it all.
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Prints an error with what caused it and what to do next, and answers its exit code.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    let mut stderr = std::io::stderr().lock();
    let failure = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>());
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(stderr, "error: {error:#}");
    if let Some(hint) = failure.and_then(|failure| failure.hint.as_ref()) {
        let _ = writeln!(stderr, "help: {hint}");
    }
    failure.map_or(Exit::Failed, |failure| failure.exit)
}
