//! The kernel's module `tls`.
//!
//! A kernel that has it as a module loads it by itself when a process with `CAP_NET_ADMIN` asks
//! for TLS on a socket; a service may have lost that capability and still be root.

use std::fs;
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// Where the kernel says which program loads modules.
const MODPROBE: &str = "/proc/sys/kernel/modprobe";

/// Loads it, where root asks for it; otherwise says why not.
pub(in crate::datapath) fn load() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("module tls is not loaded, and only root may: modprobe tls");
    }
    let program = fs::read_to_string(MODPROBE).context("no modules can be loaded")?;
    let program = program.trim();
    let output = Command::new(program).arg("tls").output();
    let output =
        output.with_context(|| format!("module tls is not loaded, and {program} cannot be run"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or_default();
    ensure!(output.status.success(), "{program} tls: {said}");
    Ok(())
}
