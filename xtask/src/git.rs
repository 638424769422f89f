//! What git says of the source.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::command::run_bounded;

use crate::cargo::workspace;

const LIMIT: Duration = Duration::from_mins(1);

/// When the commit was made that is checked out, in seconds since 1970.
pub(crate) fn time_of_commit() -> Result<u64> {
    let time = git(&["log", "-1", "--format=%ct"])?;
    time.parse().context("git told no time")
}

/// The commit that is checked out.
pub(crate) fn revision() -> Result<String> {
    git(&["rev-parse", "HEAD"])
}

fn git(arguments: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(workspace()).args(arguments);
    Ok(run_bounded(git, LIMIT)?.trim().to_owned())
}
