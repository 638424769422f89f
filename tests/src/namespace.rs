//! Networks of a test's own, in which nobody else has sockets.

use std::fs::{self, File};
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::netlink;

/// Runs a test in a network namespace of its own, on a thread of its own; only root may.
///
/// Processes that it starts are in that namespace too.
pub fn run<F: Future<Output = Result<()>>>(
    test: impl FnOnce() -> F + Send + 'static,
) -> Result<()> {
    let thread = thread::spawn(move || {
        leave()?;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build()?.block_on(test())
    });
    thread.join().map_err(|_| anyhow!("the test panicked"))?
}

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace with no device but `lo`. It is gone with its last clone and the sockets
/// and processes in it.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<File>);

impl Namespace {
    /// Makes a new one; only root may.
    pub fn new() -> Result<Self> {
        let thread = thread::spawn(|| {
            leave()?;
            Ok(Self(Arc::new(own()?)))
        });
        thread
            .join()
            .map_err(|_| anyhow!("the thread that makes a namespace panicked"))?
    }

    /// Does something on this thread in the namespace: sockets opened and processes started
    /// meanwhile belong to it, wherever they are used.
    ///
    /// # Panics
    /// When the thread cannot be brought back: it must not go on in a network that is not its own.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        let back = Back(own()?);
        move_into(&self.0).context("entering a network namespace")?;
        let done = work();
        drop(back);
        Ok(done)
    }

    /// Moves this thread into the namespace for good.
    pub fn settle(&self) -> Result<()> {
        move_into(&self.0).context("entering a network namespace")
    }

    /// Sets one of the namespace's settings, named from `/proc/sys/net` on.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{name}");
        self.enter(|| fs::write(&path, value))?
            .with_context(|| format!("writing {value:?} to {path}"))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Where a thread goes when this is dropped.
struct Back(File);

impl Drop for Back {
    fn drop(&mut self) {
        move_into(&self.0).expect("a thread may return to the namespace that it came from");
    }
}

fn move_into(namespace: &File) -> rustix::io::Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
}

fn own() -> Result<File> {
    File::open(OWN).with_context(|| format!("opening {OWN}"))
}

/// Moves the calling thread for good into a namespace that it alone is in.
fn leave() -> Result<()> {
    #[expect(unsafe_code, reason = "the only way to leave a namespace")]
    // SAFETY: the thread goes on sharing its descriptors with the others; that of the network
    // is only asked when a socket is opened.
    let left = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
    left.context("no network namespace of its own: this needs root, or CAP_SYS_ADMIN")?;
    netlink::bring_up_loopback()
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
