//! What the running gateway says of itself at its socket in `RuntimeDir`.

use std::io;
use std::path::Path;
use std::time::Duration;

use http::Method;
use procfs::process::Process;
use serde_json::Value;
use tokio::time::timeout;

use super::samples::{self, Sample};
use crate::admin::client;
use crate::causes::find;

/// Longest wait for each answer.
const LIMIT: Duration = Duration::from_secs(4);

/// A gateway that has answered. It may be of another version, so everything is optional.
pub(crate) struct Running {
    /// As `status --json` prints it.
    pub(super) status: Value,
    /// The values in effect; `None`: a gateway before this one does not give them.
    pub(super) configuration: Option<Value>,
    /// As Prometheus reads them.
    pub(super) metrics: String,
}

/// Why nobody has answered.
#[derive(Clone, Debug)]
pub(super) enum NoAnswer {
    /// Nobody listens there.
    NotRunning,
    /// This process may not ask.
    NotAllowed,
    /// One is there that does not answer as gateways do.
    Silent(String),
}

impl Running {
    /// Asks the gateway whose `RuntimeDir` this is.
    pub(super) async fn ask(runtime_dir: &Path) -> Result<Self, NoAnswer> {
        let status = answer(runtime_dir, "/status").await?;
        let status = serde_json::from_str(&status)
            .map_err(|error| NoAnswer::Silent(format!("its status is no JSON: {error}")))?;
        let configuration = answer(runtime_dir, "/configuration").await.ok();
        let metrics = answer(runtime_dir, "/metrics").await.unwrap_or_default();
        Ok(Self {
            status,
            configuration: configuration.and_then(|text| serde_json::from_str(&text).ok()),
            metrics,
        })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> Option<u32> {
        u32::try_from(self.status["pid"].as_u64()?).ok()
    }

    /// What it has counted.
    pub(super) fn samples(&self) -> Vec<Sample> {
        samples::parse(&self.metrics)
    }
}

/// A process; `None`: there is none of this number.
pub(super) fn process(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

async fn answer(runtime_dir: &Path, path: &str) -> Result<String, NoAnswer> {
    let asked = timeout(LIMIT, client::ask(runtime_dir, Method::GET, path)).await;
    let Ok(asked) = asked else {
        let reason = format!("no answer within {} s", LIMIT.as_secs());
        return Err(NoAnswer::Silent(reason));
    };
    asked.map_err(|error| {
        let cause: Option<&io::Error> = find(error.as_ref());
        match cause.map(io::Error::kind) {
            Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                NoAnswer::NotRunning
            }
            Some(io::ErrorKind::PermissionDenied) => NoAnswer::NotAllowed,
            _ => NoAnswer::Silent(format!("{error:#}")),
        }
    })
}
