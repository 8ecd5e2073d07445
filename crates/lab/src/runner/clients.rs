//! The clients' process, as the runner has it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, anyhow, bail};

use crate::client::{Answer, Command, Flow, Report};
use crate::world::World;

/// The clients' process.
pub(super) struct Clients {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Clients {
    pub(super) fn start(world: &World) -> Result<Self> {
        let mut child = world
            .client_command()?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the clients")?;
        let commands = child.stdin.take().context("the clients have no input")?;
        let answers = child.stdout.take().context("the clients have no output")?;
        Ok(Self {
            child,
            commands,
            answers: BufReader::new(answers),
        })
    }

    fn ask(&mut self, command: &Command) -> Result<Answer> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        let sent = self.commands.write_all(line.as_bytes());
        let mut answer = String::new();
        if sent.is_err() || self.answers.read_line(&mut answer)? == 0 {
            bail!("the clients are gone: {}", self.child.wait()?);
        }
        Ok(serde_json::from_str(&answer)?)
    }

    pub(super) fn open(&mut self, command: &Command) -> Result<u64> {
        match self.ask(command)? {
            Answer::Open { connections } => Ok(connections),
            other => Err(anyhow!("the clients answered {other:?}")),
        }
    }

    pub(super) fn report(&mut self, command: &Command) -> Result<Report> {
        match self.ask(command)? {
            Answer::Report { report } => Ok(*report),
            other => Err(anyhow!("the clients answered {other:?}")),
        }
    }

    pub(super) fn flows(&mut self) -> Result<Vec<Flow>> {
        match self.ask(&Command::Flows)? {
            Answer::Flows { flows } => Ok(flows),
            other => Err(anyhow!("the clients answered {other:?}")),
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
