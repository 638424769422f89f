//! What systemd says of the service, where it runs.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// There while systemd is the system's first process (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";
/// Longest wait for it.
const LIMIT: Duration = Duration::from_secs(5);
/// What is asked for.
const PROPERTIES: &str = "LoadState,ActiveState,SubState,Result,UnitFileState,NeedDaemonReload,\
                          NRestarts,ExecMainStatus,MainPID";

/// Properties of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct State(HashMap<String, String>);

impl State {
    /// Asks; `None`: systemd does not run here, or does not answer.
    pub(super) async fn of(unit: &str) -> Option<Self> {
        if !Path::new(BOOTED).exists() {
            return None;
        }
        let mut command = Command::new("systemctl");
        command
            .args(["show", "--no-pager", "--property", PROPERTIES, "--", unit])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(LIMIT, command.output()).await.ok()?.ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        output.status.success().then(|| Self::parse(&text))
    }

    /// Of lines such as `ActiveState=active`.
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self(pairs.collect())
    }

    /// A property; empty: it is not known.
    pub(super) fn get(&self, property: &str) -> &str {
        self.0.get(property).map_or("", String::as_str)
    }
}
