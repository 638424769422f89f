//! A command on a terminal, and somebody who answers its questions: util-linux's `script` gives it
//! the terminal.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::command::find_program;
use crate::net::within;

/// What Ctrl-C sends to a terminal.
pub const CTRL_C: &str = "\u{3}";

/// What starts a command so that Ctrl-C ends it: a shell has those that it runs in the background,
/// perhaps the tests, ignore that.
const AS_BY_HAND: &str = "exec env --default-signal=INT";

/// A running command; killed when dropped.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    /// What it has said since the last answer.
    said: String,
}

impl Terminal {
    /// Starts a line of the shell.
    pub fn start(line: &str) -> Result<Self> {
        let script = find_program("script").context("as root: apt-get install -y bsdutils")?;
        let child = Command::new(script)
            .args(["--quiet", "--flush", "--return"])
            .args(["--command", &format!("{AS_BY_HAND} {line}"), "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting script")?;
        Ok(Self {
            child,
            said: String::new(),
        })
    }

    /// Waits until it says this.
    pub async fn asks(&mut self, text: &str) -> Result<()> {
        let stdout = self.child.stdout.as_mut().context("its output")?;
        let mut buffer = [0; 4_096];
        while !self.said.contains(text) {
            let length = within(text, stdout.read(&mut buffer)).await??;
            ensure!(length > 0, "no {text:?} in {:?}", self.said);
            self.said += &String::from_utf8_lossy(&buffer[..length]);
        }
        Ok(())
    }

    /// Types in this as it is.
    pub async fn type_in(&mut self, text: &str) -> Result<()> {
        self.said.clear();
        let stdin = self.child.stdin.as_mut().context("its input")?;
        stdin.write_all(text.as_bytes()).await?;
        Ok(stdin.flush().await?)
    }

    /// Waits for a question, and answers it.
    pub async fn answer(&mut self, question: &str, answer: &str) -> Result<()> {
        self.asks(question).await?;
        self.type_in(&format!("{answer}\n")).await
    }

    /// Waits for one question after the other, and answers each.
    pub async fn answer_all(&mut self, answers: &[(&str, &str)]) -> Result<()> {
        for (question, answer) in answers {
            self.answer(question, answer).await?;
        }
        Ok(())
    }

    /// Waits for its end: the exit code, and what it has said since the last answer.
    pub async fn end(mut self) -> Result<(Option<i32>, String)> {
        let mut rest = Vec::new();
        let mut stdout = self.child.stdout.take().context("its output")?;
        let read = within("the end of the output", stdout.read_to_end(&mut rest));
        read.await??;
        let status = within("the end", self.child.wait()).await??;
        self.said += &String::from_utf8_lossy(&rest);
        Ok((status.code(), self.said))
    }
}
