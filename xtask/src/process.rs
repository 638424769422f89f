//! What the kernel says of other processes.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::Pid;

/// The first child of a process with one thread; `None`: it has none yet. Fails once the process
/// has ended.
pub(crate) fn child_of(process: u32) -> Result<Option<Pid>> {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(&path).context(path)?;
    let Some(child) = children.split_whitespace().next() else {
        return Ok(None);
    };
    Pid::from_raw(child.parse()?)
        .context("a process id")
        .map(Some)
}
