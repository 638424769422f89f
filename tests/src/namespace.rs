//! A network of a test's own, in which nobody else has sockets.

use std::fs;
use std::future::Future;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::loopback;

/// Runs a test in a network namespace of its own, on a thread of its own; only root may.
///
/// Processes that it starts are in that namespace too.
pub fn run<F: Future<Output = Result<()>>>(
    test: impl FnOnce() -> F + Send + 'static,
) -> Result<()> {
    let thread = thread::spawn(move || {
        #[expect(unsafe_code, reason = "the only way to leave a namespace")]
        // SAFETY: the thread goes on sharing its descriptors with the others; that of the network
        // is only asked when a socket is opened.
        let left = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
        left.context("no network namespace of its own: run the tests as root")?;
        loopback::bring_up().context("bringing up lo")?;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build()?.block_on(test())
    });
    thread.join().map_err(|_| anyhow!("the test panicked"))?
}

/// How many sockets of all kinds there are in this thread's namespace, those included that have
/// no descriptor any more; connections in `TIME_WAIT` are none.
pub fn sockets() -> Result<u64> {
    sockstat("sockets:", "used")
}

/// Memory that all TCP sockets of this machine are charged for, in bytes.
pub fn tcp_memory() -> Result<u64> {
    Ok(sockstat("TCP:", "mem")? * rustix::param::page_size() as u64)
}

/// Sets the buffer sizes of TCP sockets that are opened in this thread's namespace from now on:
/// default and most, in bytes.
pub fn limit_tcp_buffers(default: u64, most: u64) -> Result<()> {
    for name in ["tcp_rmem", "tcp_wmem"] {
        let path = format!("/proc/sys/net/ipv4/{name}");
        fs::write(&path, format!("4096 {default} {most}"))
            .with_context(|| format!("writing {path}"))?;
    }
    Ok(())
}

/// A number of `/proc/net/sockstat` (net/ipv4/proc.c).
fn sockstat(line: &str, name: &str) -> Result<u64> {
    const PATH: &str = "/proc/thread-self/net/sockstat";
    let text = fs::read_to_string(PATH).with_context(|| format!("reading {PATH}"))?;
    let line = text.lines().find_map(|text| text.strip_prefix(line));
    let mut words = line.into_iter().flat_map(str::split_whitespace);
    words.find(|word| *word == name);
    let number = words
        .next()
        .with_context(|| format!("{PATH} has no {name}"))?;
    Ok(number.parse()?)
}
