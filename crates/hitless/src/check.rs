//! `hitless check`: everything that is wrong with a site file, and nothing else.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use hitless_types::problem::Problem;
use hitless_types::site::{Site, bounds};
use serde::Serialize;

use crate::exit::Exit;
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The site file; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Format {
    Text,
    Json,
}

/// The answer as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    file: &'a str,
    valid: bool,
    /// Why the file could not be read at all. `None`: it could.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    problems: &'a [Problem],
    left_out: usize,
}

pub(crate) fn run(options: &Options) -> Result<Exit> {
    let file = options.file.display().to_string();
    let bytes = match (read(&options.file), options.output) {
        (Ok(bytes), _) => bytes,
        (Err(error), Format::Text) => return Err(error),
        (Err(error), Format::Json) => {
            output::print_json(&Answer {
                file: &file,
                valid: false,
                error: Some(format!("{error:#}")),
                problems: &[],
                left_out: 0,
            })?;
            return Ok(Exit::Failed);
        }
    };
    let result = Site::parse(&file, &bytes);
    match options.output {
        Format::Json => {
            let (problems, left_out) = match &result {
                Ok(_) => (&[][..], 0),
                Err(problems) => (&problems.problems[..], problems.left_out),
            };
            output::print_json(&Answer {
                file: &file,
                valid: result.is_ok(),
                error: None,
                problems,
                left_out,
            })?;
        }
        Format::Text => match &result {
            Ok(site) => output::print(&format!("{file}: ok, {}\n", summary(site)))?,
            Err(problems) => output::print(&format!("{problems}\n"))?,
        },
    }
    Ok(if result.is_ok() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// Reads no more than one byte above what is accepted, so that a wrong file name cannot fill the
/// memory.
fn read(file: &Path) -> Result<Vec<u8>> {
    let result = if file == Path::new("-") {
        let limit = bounds::FILE_BYTES_MAX as u64 + 1;
        let mut bytes = Vec::new();
        let input = std::io::stdin().lock();
        input.take(limit).read_to_end(&mut bytes).map(|_| bytes)
    } else {
        hitless_tm::site_file::read(file)
    };
    result.with_context(|| format!("cannot read {}", file.display()))
}

fn summary(site: &Site) -> String {
    let members = site.pools.iter().map(|pool| pool.members.len()).sum();
    format!(
        "{}, {}, {}",
        count(site.virtual_servers.len(), "virtual server"),
        count(site.pools.len(), "pool"),
        count(members, "member")
    )
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
