//! `hitless check`: everything that is wrong with a site file, and nothing else.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use hitless_tm::tls::{self, Files};
use hitless_types::problem::{Problem, Problems};
use hitless_types::site::{Site, bounds};
use serde::Serialize;

use crate::exit::Exit;
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The site file; `-` reads standard input
    #[arg(
        short,
        long = "file",
        value_name = "FILE",
        required_unless_present = "named"
    )]
    file: Option<PathBuf>,
    /// The site file, without `-f`
    #[arg(value_name = "FILE", conflicts_with = "file")]
    named: Option<PathBuf>,
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
    /// What is odd in a file that is right.
    warnings: &'a [Problem],
}

pub(crate) fn run(options: &Options) -> Result<Exit> {
    let path = options.file.as_ref().or(options.named.as_ref());
    let path = path.context("no file is named")?;
    let file = path.display().to_string();
    let bytes = match (read(path), options.output) {
        (Ok(bytes), _) => bytes,
        (Err(error), Format::Text) => return Err(error),
        (Err(error), Format::Json) => {
            output::print_json(&Answer {
                file: &file,
                valid: false,
                error: Some(format!("{error:#}")),
                problems: &[],
                left_out: 0,
                warnings: &[],
            })?;
            return Ok(Exit::Failed);
        }
    };
    let result = check(path, &file, &bytes);
    match options.output {
        Format::Json => {
            let (problems, left_out, warnings) = match &result {
                Ok((_, warnings)) => {
                    let all = warnings.iter().flat_map(|some| some.problems.clone());
                    (&[][..], 0, all.collect())
                }
                Err(problems) => (&problems.problems[..], problems.left_out, Vec::new()),
            };
            output::print_json(&Answer {
                file: &file,
                valid: result.is_ok(),
                error: None,
                problems,
                left_out,
                warnings: &warnings,
            })?;
        }
        Format::Text => match &result {
            Ok((site, warnings)) => {
                let warnings = warnings.iter().map(|some| format!("{some}\n"));
                let warnings: String = warnings.collect();
                output::print(&format!("{warnings}{file}: ok, {}\n", summary(site)))?;
            }
            Err(problems) => output::print(&format!("{problems}\n"))?,
        },
    }
    Ok(if result.is_ok() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// The site, with what is odd in it and in the certificates and keys that it names. Those are looked
/// at only if the file itself is right.
fn check(path: &Path, file: &str, bytes: &[u8]) -> Result<(Site, Vec<Problems>), Problems> {
    let (site, odd) = Site::check(file, bytes)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_s = now.map_or(0, |now| now.as_secs());
    let (_, warnings) = tls::load(&site, &Files::of(&site, path), None, now_s, (file, bytes))?;
    Ok((site, odd.into_iter().chain(warnings).collect()))
}

/// Reads no more than one byte above what is accepted, so that a wrong file name cannot fill the
/// memory.
fn read(file: &Path) -> Result<Vec<u8>> {
    let limit = bounds::FILE_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    // Also a pipe, as a shell makes one of another command: nobody is served meanwhile.
    let result = if file == Path::new("-") {
        let input = std::io::stdin().lock();
        input.take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    let result = result.map(|_| bytes);
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
