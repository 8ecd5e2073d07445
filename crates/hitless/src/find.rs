//! Run folders: where a running program's control socket is, and which programs run.
//!
//! Each program has a folder of its own. Where nobody names one, it is `serve-PID` in the user's
//! base folder (the process id stays through upgrades), so several programs can run, and the
//! commands find the one that does. A folder whose program is gone is removed when it is met.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use hitless_tm::control::{self, Client, ControlError, Reply, Request};
use hitless_tm::status::Status;

use crate::exit::{Exit, Failure};

const PREFIX: &str = "serve-";

/// Which running program is meant.
#[derive(Args, Clone, Debug)]
pub(crate) struct Which {
    /// The run folder of the program; only needed if several run
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
}

impl Which {
    /// Sends a request to the program that is meant, and waits for its answer.
    pub(crate) fn call(&self, request: Request) -> Result<Reply> {
        let (_, client) = self.find()?;
        client
            .call(request)
            .map_err(|error| unreachable(&error).into())
    }

    /// The run folder of the program that is meant, and a connection to it.
    pub(crate) fn find(&self) -> Result<(PathBuf, Client)> {
        if let Some(folder) = &self.run_dir {
            let client = Client::connect(folder).map_err(|error| unreachable(&error))?;
            return Ok((folder.clone(), client));
        }
        let base = control::default_run_folder();
        let mut running = running_in(&base)?;
        match running.len() {
            0 => {
                let message = format!("no hitless runs here (looked in {})", base.display());
                let failure = Failure::new(Exit::Unreachable, message);
                let hint =
                    "start one with `hitless serve -f FILE`, or name its folder with --run-dir";
                Err(failure.hint(hint).into())
            }
            1 => Ok(running.remove(0)),
            count => {
                let mut message = format!("{count} programs run here:");
                for (folder, client) in &running {
                    let file = describe(client);
                    message.push_str(&format!("\n  --run-dir {}  {file}", folder.display()));
                }
                let failure = Failure::new(Exit::Usage, message);
                Err(failure.hint("name the one you mean with --run-dir").into())
            }
        }
    }
}

/// A run folder for a program that starts now: the one that was named, or a new one of its own.
pub(crate) fn folder_to_start_in(named: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(folder) = named {
        return std::path::absolute(&folder).context("cannot make the run folder's path absolute");
    }
    let base = control::default_run_folder();
    make_private(&base)?;
    // What is left of programs that were killed goes now; an error here hinders nobody.
    let _ = running_in(&base);
    Ok(base.join(format!("{PREFIX}{}", std::process::id())))
}

/// Every program that answers in the base folder, by folder.
fn running_in(base: &Path) -> Result<Vec<(PathBuf, Client)>> {
    let entries = match std::fs::read_dir(base) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let message = format!("may not look into {}", base.display());
            return Err(Failure::new(Exit::Unreachable, message).into());
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot look into {}", base.display()));
        }
    };
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    // The base itself may have been named as a run folder.
    folders.insert(0, base.to_owned());
    let mut running = Vec::new();
    for folder in folders {
        match Client::connect(&folder) {
            Ok(client) => running.push((folder, client)),
            Err(ControlError::NotRunning { .. }) => remove_if_left_over(&folder),
            Err(_) => {}
        }
    }
    Ok(running)
}

/// Removes a folder of ours whose process is gone.
fn remove_if_left_over(folder: &Path) {
    let name = folder.file_name().and_then(|name| name.to_str());
    let pid = name.and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
    if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
        // Another command may be removing it as well.
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Makes the base folder, or makes sure that it belongs to this user alone.
fn make_private(base: &Path) -> Result<()> {
    let shown = base.display();
    match DirBuilder::new().mode(0o700).create(base) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            let message = format!("cannot make the folder {shown}: {error}");
            let failure = Failure::new(Exit::Failed, message);
            return Err(failure.hint("name another one with --run-dir").into());
        }
    }
    let metadata =
        std::fs::symlink_metadata(base).with_context(|| format!("cannot look at {shown}"))?;
    if is_private(&metadata) {
        return Ok(());
    }
    let message = format!("the folder {shown} can be entered by other users, or belongs to one");
    let failure = Failure::new(Exit::Unreachable, message);
    Err(failure
        .hint("remove it, or name another one with --run-dir")
        .into())
}

fn is_private(metadata: &Metadata) -> bool {
    metadata.is_dir()
        && metadata.uid() == rustix::process::geteuid().as_raw()
        && metadata.permissions().mode() & 0o077 == 0
}

/// The site file of a running program, for telling several apart.
fn describe(client: &Client) -> String {
    let reply = client.call(Request::Status).ok();
    let status = reply.and_then(|reply| serde_json::from_str::<Status>(&reply.body).ok());
    status.map_or("?".to_owned(), |status| {
        status.program.site_file.display().to_string()
    })
}

pub(crate) fn unreachable(error: &ControlError) -> Failure {
    let failure = Failure::new(Exit::Unreachable, error.to_string());
    match error {
        ControlError::NotRunning { .. } => failure.hint("start it with `hitless serve -f FILE`"),
        ControlError::NotAllowed { .. } => {
            failure.hint("run the command as the user that started it")
        }
        ControlError::Version { .. } => {
            failure.hint("use the program that is installed where it runs")
        }
        ControlError::Ended | ControlError::Io(_) => failure,
    }
}
