//! Limits of the operating system.

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that a thousand channels need, both ends of them and some to spare.
const ENOUGH: u64 = 4_096;

/// Raises the number of files that this process and its children may have open.
pub(crate) fn raise_open_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .context("raising the limit of open files")?;
    ensure!(
        limit.maximum.is_none_or(|most| most >= ENOUGH),
        "only {} files may be open here: run `ulimit -Hn {ENOUGH}` as root first",
        limit.maximum.unwrap_or_default()
    );
    Ok(())
}
