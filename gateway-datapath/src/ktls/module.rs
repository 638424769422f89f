//! The kernel's module `tls`.
//!
//! A kernel that has it as a module loads it by itself when a process with `CAP_NET_ADMIN` asks
//! for TLS on a socket; the gateway keeps neither that nor `CAP_SYS_MODULE`, so it is loaded
//! before they are given up.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::thread::{CapabilitySet, capabilities};

use super::sockopt;

/// Where the kernel says which program loads modules.
const MODPROBE: &str = "/proc/sys/kernel/modprobe";
/// Longest time that it may take, and how often it is looked at meanwhile.
const LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// Has the kernel load it if it is missing and this process may; what comes of it the probe tells.
pub fn load_if_missing() {
    let is_missing = asked().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    if is_missing {
        let _ = load();
    }
}

/// Asks for TLS on a connection of this process, which has the kernel look for the module.
fn asked() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let connected = TcpStream::connect(listener.local_addr()?)?;
    sockopt::attach(&connected)
}

/// Loads it, where this process may; otherwise says why not. Blocks for some seconds at most.
pub(crate) fn load() -> anyhow::Result<()> {
    let may_load = capabilities(None)?
        .effective
        .contains(CapabilitySet::SYS_MODULE);
    if !may_load {
        bail!("module tls is not loaded, and this process may not load it: modprobe tls");
    }
    let program = fs::read_to_string(MODPROBE).context("no modules can be loaded")?;
    let program = program.trim();
    let mut command = Command::new(program);
    command
        .arg("tls")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let child = command.stderr(Stdio::piped()).spawn();
    let child =
        child.with_context(|| format!("module tls is not loaded, and {program} cannot be run"))?;
    let output = ended(child).with_context(|| format!("{program} tls"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or_default();
    ensure!(output.status.success(), "{program} tls: {said}");
    Ok(())
}

/// What a process has said that ends in time; what it says must be short.
fn ended(mut child: Child) -> anyhow::Result<std::process::Output> {
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            bail!("it takes longer than {LIMIT:?}");
        }
        std::thread::sleep(POLL);
    }
    Ok(child.wait_with_output()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_short_process_says_is_heard() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo why >&2; exit 1"]);
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let output = ended(child).unwrap();
        assert_eq!(output.stderr, b"why\n");
        assert!(!output.status.success());
    }
}
