//! Runs cargo from within its own commands.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};

/// A cargo command in the workspace's folder.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace());
    command
}

/// Runs cargo with its output shown; fails when it fails.
pub fn run(arguments: &[&str]) -> Result<()> {
    let status = status(arguments)?;
    ensure!(status.success(), "cargo {}: {status}", arguments.join(" "));
    Ok(())
}

/// Builds the gateway that tests use, with the features that `cargo test --workspace` gives it and
/// all that it needs. Those of `-p gateway` are others, with which cargo would build much of it
/// again. Features of tests count as soon as a test is built, here the smallest.
pub(crate) fn build_for_tests() -> Result<()> {
    let what = ["--bin", "flexvdi-gateway", "--test", "modules"];
    run(&[&["build", "--quiet", "--workspace"], &what[..]].concat())
}

/// Runs cargo with its output shown.
pub fn status(arguments: &[&str]) -> Result<ExitStatus> {
    command(arguments)
        .status()
        .with_context(|| format!("starting cargo {}", arguments.join(" ")))
}

/// Names the workspace's folder, if it is not the one that this program was built in.
pub(crate) const WORKSPACE: &str = "XTASK_WORKSPACE";

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    env::var_os(WORKSPACE).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(".."),
        PathBuf::from,
    )
}
