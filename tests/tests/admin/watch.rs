//! `flexvdi-gateway status --watch`.

use std::process::{ExitStatus, Stdio};

use testkit::command::find_program;
use testkit::gateway::gateway_binary;
use testkit::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::support::Stage;

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// What Ctrl-C sends to a terminal.
const CTRL_C: &[u8] = &[3];

/// A command that runs, and what it has written so far.
struct Watching {
    child: Child,
    seen: String,
}

impl Watching {
    fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn();
        Self {
            child: child.unwrap(),
            seen: String::new(),
        }
    }

    /// Reads until this was written.
    async fn wait_for(&mut self, text: &str) {
        let stdout = self.child.stdout.as_mut().unwrap();
        let mut buffer = [0; 4_096];
        while !self.seen.contains(text) {
            let read = within(text, stdout.read(&mut buffer)).await;
            let length = read.unwrap().unwrap();
            assert_ne!(length, 0, "no {text:?} in {:?}", self.seen);
            self.seen += &String::from_utf8_lossy(&buffer[..length]);
        }
    }

    async fn end(mut self) -> (ExitStatus, String) {
        let mut rest = Vec::new();
        let mut stdout = self.child.stdout.take().unwrap();
        let read = within("the end of the output", stdout.read_to_end(&mut rest));
        read.await.unwrap().unwrap();
        let status = within("the end", self.child.wait()).await;
        self.seen += &String::from_utf8_lossy(&rest);
        (status.unwrap().unwrap(), self.seen)
    }
}

#[tokio::test]
async fn a_terminal_is_refreshed_and_given_back_at_ctrl_c() {
    let script = find_program("script").expect("as root: apt-get install -y bsdutils");
    let stage = Stage::new().await;
    let token = stage.desktop().await.token;
    let _main = stage.channel(&token, ChannelType::Main).await;
    let line = format!(
        "exec {} --config {} status --watch",
        gateway_binary().unwrap().display(),
        stage.gateway.config_path().display()
    );
    // It gives a shell a terminal, and ends as the shell does: which may not stand between, since
    // some shells die of the Ctrl-C themselves.
    let mut watching = Watching::start(
        Command::new(script)
            .args(["--quiet", "--flush", "--return"])
            .args(["--command", &line, "/dev/null"]),
    );
    watching.wait_for("1 desktop session, 1 channel,").await;
    assert!(watching.seen.starts_with(ENTER), "{:?}", watching.seen);
    let _display = stage.channel(&token, ChannelType::Display).await;
    watching.wait_for("1 desktop session, 2 channels,").await;
    assert!(!watching.seen.contains(LEAVE), "{:?}", watching.seen);
    let stdin = watching.child.stdin.as_mut().unwrap();
    stdin.write_all(CTRL_C).await.unwrap();
    stdin.flush().await.unwrap();
    watching.wait_for(LEAVE).await;
    let (status, seen) = watching.end().await;
    assert_eq!(status.code(), Some(0), "{seen:?}");
    assert_eq!(seen.matches(LEAVE).count(), 1, "{seen:?}");
}

#[tokio::test]
async fn a_pipe_gets_plain_text_until_the_end() {
    let stage = Stage::new().await;
    let mut command = Command::new(gateway_binary().unwrap());
    command.arg("--config").arg(stage.gateway.config_path());
    let mut watching = Watching::start(command.args(["status", "--watch"]));
    watching.wait_for("0 desktop sessions,").await;
    let token = stage.desktop().await.token;
    let _main = stage.channel(&token, ChannelType::Main).await;
    watching.wait_for("1 desktop session,").await;
    assert!(!watching.seen.contains('\x1b'), "{:?}", watching.seen);
    let pid = i32::try_from(watching.child.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let (status, _) = watching.end().await;
    assert_eq!(status.code(), Some(0));
}
