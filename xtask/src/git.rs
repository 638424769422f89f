//! What git says of the source.

use std::env;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::command::run_bounded;

use crate::cargo::workspace;

const LIMIT: Duration = Duration::from_mins(1);

/// How old everything counts that is made of the source, in seconds since 1970:
/// `SOURCE_DATE_EPOCH`, or when the commit was made that is checked out.
pub(crate) fn source_time() -> Result<u64> {
    if let Ok(time) = env::var("SOURCE_DATE_EPOCH") {
        return time.parse().context("SOURCE_DATE_EPOCH: not a number");
    }
    time_of_commit().context("there is no commit: set SOURCE_DATE_EPOCH")
}

/// When the commit was made that is checked out, in seconds since 1970.
pub(crate) fn time_of_commit() -> Result<u64> {
    let time = git(&["log", "-1", "--format=%ct"])?;
    time.parse().context("git told no time")
}

/// The tags of the commit that is checked out.
pub(crate) fn tags() -> Result<Vec<String>> {
    lines(&["tag", "--points-at", "HEAD"])
}

/// Files that differ from the commit that is checked out, or are not in it though they are not to
/// be ignored.
pub(crate) fn changed() -> Result<Vec<String>> {
    lines(&["status", "--porcelain"])
}

/// The commit that is checked out.
pub(crate) fn revision() -> Result<String> {
    git(&["rev-parse", "HEAD"])
}

fn lines(arguments: &[&str]) -> Result<Vec<String>> {
    Ok(git(arguments)?.lines().map(str::to_owned).collect())
}

fn git(arguments: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(workspace()).args(arguments);
    Ok(run_bounded(git, LIMIT)?.trim().to_owned())
}
