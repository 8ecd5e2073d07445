//! `hitless serve`: keeper and worker on one machine, from a site file.

use std::ffi::OsString;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use hitless_tm::keeper::{self, KeeperError, KeeperOptions};

use crate::exit::{Exit, Failure};
use crate::{find, logging, order, version};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The site file
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// A folder for the control socket [default: one of its own in the user's run folder]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    #[command(flatten)]
    engine: Engine,
}

/// What can be chosen for a keeper and its workers.
#[derive(Args, Debug)]
pub(crate) struct Engine {
    /// Event loops of the worker, for the life of the program [default: one per processor]
    #[arg(long, value_name = "NUMBER")]
    threads: Option<NonZeroU16>,
    /// How long connections may go on after a stop
    #[arg(long, value_name = "TIME", value_parser = order::duration, default_value = "30s")]
    drain: Duration,
}

pub(crate) fn run(options: Options) -> Result<Exit> {
    let is_own_folder = options.run_dir.is_none();
    let run_folder = find::folder_to_start_in(options.run_dir)?;
    let exit = keep(&options.file, &run_folder, &options.engine);
    if is_own_folder {
        // It is empty or holds a socket that nobody answers on; the next start would remove it
        // otherwise.
        let _ = std::fs::remove_dir_all(&run_folder);
    }
    exit
}

/// Runs a keeper until it is stopped.
pub(crate) fn keep(file: &Path, run_folder: &Path, engine: &Engine) -> Result<Exit> {
    if file == Path::new("-") {
        let message = "a site file is read again at each reload, which standard input cannot be";
        return Err(Failure::new(Exit::Usage, message).into());
    }
    logging::start();
    let file = std::path::absolute(file).context("cannot make the file's path absolute")?;
    let mut options = KeeperOptions::new(file, run_folder.to_owned(), program()?);
    options.worker_args = vec![OsString::from("worker")];
    options.build_id = version::build().to_owned();
    options.threads = engine.threads;
    options.drain = engine.drain;
    match keeper::run(options) {
        Ok(()) => Ok(Exit::Done),
        Err(error) => Err(explain(error).into()),
    }
}

/// The path of this program as it was called, so that an upgrade finds what lies there later: a
/// symbolic link that is pointed at a newer release counts, and so does a file that has taken this
/// one's place already.
fn program() -> Result<PathBuf> {
    let called = std::env::args_os().next().map(PathBuf::from);
    let called = called.unwrap_or_default();
    let candidates: Vec<PathBuf> = if called.components().count() > 1 {
        std::path::absolute(&called).into_iter().collect()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path);
        folders.map(|folder| folder.join(&called)).collect()
    };
    let found = candidates.into_iter().find(|candidate| candidate.is_file());
    match found {
        Some(program) => Ok(program),
        None => std::env::current_exe().context("cannot find this program on disk"),
    }
}

fn explain(error: KeeperError) -> Failure {
    let message = error.to_string();
    match error {
        KeeperError::Listen(failures) => {
            // A line for each address.
            let message = message.replace('\n', "\nerror: ");
            let hints = failures.iter().filter_map(|(address, _)| {
                let holders = hitless_tm::holder::of(address);
                let (hold, it) = match holders.len() {
                    0 => return None,
                    1 => ("holds", "it"),
                    _ => ("hold", "them"),
                };
                let (holders, port) = (holders.join(", "), address.port());
                Some(format!(
                    "{holders} {hold} port {port}; stop {it}, or change `listen`"
                ))
            });
            let hints: Vec<_> = hints.collect();
            match hints.is_empty() {
                true => Failure::new(Exit::Failed, message),
                false => Failure::new(Exit::Failed, message).hint(hints.join("\n")),
            }
        }
        KeeperError::AlreadyRunning { .. } => Failure::new(Exit::Failed, message).hint(
            "`hitless reload` applies a changed file to it; another --run-dir starts a second one",
        ),
        KeeperError::RunFolder { .. } => {
            Failure::new(Exit::Failed, message).hint("name another folder with --run-dir")
        }
        KeeperError::Refused(_) => {
            Failure::new(Exit::Failed, format!("the site file is refused\n{message}"))
        }
        KeeperError::Config { .. } | KeeperError::Worker(_) | KeeperError::Io { .. } => {
            Failure::new(Exit::Failed, message)
        }
    }
}
