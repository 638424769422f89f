//! Loads kernel modules.

use std::fs::File;
use std::io::Write;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::system::finit_module;
use testkit::vm::PREFIX;

/// Loads them in this order. One that the processor has no use for is left out, with a line that
/// says so.
pub(crate) fn load_all(console: &mut File, paths: &[String]) -> Result<()> {
    for path in paths {
        let file = File::open(path).with_context(|| format!("opening {path}"))?;
        match finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(Errno::NODEV) => {
                writeln!(console, "{PREFIX}{path} is not for this processor")?;
            }
            Err(problem) => {
                return Err(problem).with_context(|| format!("loading {path}"));
            }
        }
    }
    Ok(())
}
