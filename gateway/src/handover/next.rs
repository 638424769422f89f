//! Whether the program that is started next can go on with what this one leaves.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::message::VERSION;
use gateway_datapath::sockmap::AGREEMENT;

/// The hidden command that answers.
pub const COMMAND: &str = "can-take-over";
/// Longest wait for the answer, while the channels move on.
const LIMIT: Duration = Duration::from_secs(10);

/// Whether this program goes on with what was written down in this version, and with eBPF programs
/// of this agreement, if there are any.
pub fn is_known(version: u32, agreement: Option<u32>) -> bool {
    version == VERSION && agreement.is_none_or(|agreement| agreement == AGREEMENT)
}

/// Asks the program that lies now where this one was started from, which an upgrade has replaced:
/// fails when it does not know the version, or cannot start with the configuration, which `arguments`
/// and the environment lead to. With `programs`, also when it has no agreement with those that are
/// loaded.
pub async fn ask(arguments: &[OsString], programs: bool) -> Result<()> {
    let named = std::env::args_os().next().filter(is_path);
    let program = match named {
        Some(name) => name.into(),
        None => std::env::current_exe().context("cannot find the own program")?,
    };
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .arg(COMMAND)
        .arg(VERSION.to_string())
        .args(programs.then(|| AGREEMENT.to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let answered = tokio::time::timeout(LIMIT, command.status()).await;
    let status = answered.context("the program that is started next does not answer")?;
    let status = status.with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(
        status.success(),
        "the program that is started next cannot take over: {status}"
    );
    Ok(())
}

fn is_path(name: &OsString) -> bool {
    Path::new(name).components().count() > 1
}
