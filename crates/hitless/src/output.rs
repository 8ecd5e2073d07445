//! Writing to standard output: colour only where it is seen, and a closed pipe is no error.

use std::io::{ErrorKind, IsTerminal, Write};

use anyhow::{Context, Result};

/// Prints a text that ends its own lines.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Prints a value as JSON, indented, with a line end.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
    print(&format!("{text}\n"))
}

/// Whether standard output may be coloured: a terminal, and `NO_COLOR` is not set.
pub(crate) fn is_coloured() -> bool {
    std::io::stdout().is_terminal() && !no_color()
}

/// Whether standard error may be coloured.
pub(crate) fn is_stderr_coloured() -> bool {
    std::io::stderr().is_terminal() && !no_color()
}

fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
