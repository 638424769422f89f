//! All threads, made at the start.

use std::io;
use std::panic;
use std::sync::mpsc::channel;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use gateway_datapath::supervise;
use tokio::runtime::{Builder, Runtime};

use super::places;
use crate::output::complain;

/// `EX_OSERR` of sysexits.h: the system does not give what the process needs, "such as cannot
/// fork".
pub const EXIT_NO_THREADS: u8 = 71;

/// Longer than any process lives: an idle thread that ended could not be made again when it is
/// needed.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);
/// Longest wait for threads to begin, or to be gone.
const LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked whether threads are gone.
const LOOK: Duration = Duration::from_millis(1);

/// The system gives fewer threads than are needed.
#[derive(Debug, thiserror::Error)]
#[error("not enough threads: {what}: {error}; raise TasksMax= of the unit, or `ulimit -u`")]
pub struct NoThreads {
    what: String,
    error: io::Error,
}

impl NoThreads {
    fn new(what: String, error: io::Error) -> Self {
        Self { what, error }
    }
}

/// A thread of its own that is run again when it panics: see [`supervise::thread`].
pub fn thread<S: Send + 'static>(
    name: &'static str,
    state: S,
    run: impl Fn(&mut S) + Send + 'static,
) -> Result<JoinHandle<()>, NoThreads> {
    let started = supervise::thread(name, state, run);
    started.map_err(|error| NoThreads::new(format!("the thread {name} cannot be started"), error))
}

/// The runtime, with `workers` threads for its tasks and one for each of the [`places`], all of
/// which are there when this returns and until the process ends.
///
/// Fails also when there would not be `others` more.
pub fn runtime(workers: usize, others: usize) -> anyhow::Result<Runtime> {
    prove(workers + places::THREADS + others)?;
    let mut builder = Builder::new_multi_thread();
    builder
        .enable_all()
        .worker_threads(workers)
        .max_blocking_threads(places::THREADS)
        .thread_keep_alive(FOR_EVER);
    let usual = panic::take_hook();
    // Somebody else may take the threads that were there a moment ago. The runtime panics then, and
    // unwinding would wait for ever for those of its threads that it has.
    panic::set_hook(Box::new(|panic| {
        let error = io::Error::other(panic.payload_as_str().unwrap_or("unknown"));
        let error = NoThreads::new("the runtime cannot be started".to_owned(), error);
        complain(&format!("flexvdi-gateway: {error}"));
        std::process::exit(EXIT_NO_THREADS.into());
    }));
    let runtime = builder.build().context("cannot start the runtime");
    let occupied = runtime.and_then(|runtime| {
        occupy(&runtime, places::THREADS)?;
        Ok(runtime)
    });
    panic::set_hook(usual);
    occupied
}

/// Makes so many threads, and has them end again.
///
/// The runtime panics or hangs when it is refused one, so this is found out before.
fn prove(needed: usize) -> Result<(), NoThreads> {
    let before = threads();
    let gate = RwLock::new(());
    let made = thread::scope(|scope| {
        let closed = gate.write();
        for made in 0..needed {
            let wait = || drop(gate.read());
            thread::Builder::new()
                .spawn_scoped(scope, wait)
                .map_err(|error| {
                    NoThreads::new(format!("{made} of {needed} can be started"), error)
                })?;
        }
        drop(closed);
        Ok(())
    });
    // A thread counts until the kernel has done with it, which is after it was waited for.
    let limit = Instant::now() + LIMIT;
    while before.is_some() && threads() > before && Instant::now() < limit {
        thread::sleep(LOOK);
    }
    made
}

/// Threads of this process; `None`: it is not known.
fn threads() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

/// Has the runtime make its threads for work that blocks, by giving it so much work at a time.
fn occupy(runtime: &Runtime, count: usize) -> Result<(), NoThreads> {
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
    let (arrived, arrivals) = channel();
    for _ in 0..count {
        let (arrived, gate) = (arrived.clone(), Arc::clone(&gate));
        runtime.spawn_blocking(move || {
            // Nobody waits any more once one has not come.
            let _ = arrived.send(());
            drop(gate.read());
        });
    }
    let limit = Instant::now() + LIMIT;
    let all = (0..count).try_for_each(|_| {
        let left = limit.saturating_duration_since(Instant::now());
        arrivals.recv_timeout(left)
    });
    drop(closed);
    all.map_err(|error| {
        NoThreads::new(
            "the runtime has not all of its own".to_owned(),
            io::Error::other(error),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_to_be_had_are_had() {
        prove(8).unwrap();
    }

    #[test]
    fn the_runtime_has_its_threads_at_once_and_keeps_them() {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(3)
            .thread_keep_alive(FOR_EVER)
            .build()
            .unwrap();
        occupy(&runtime, 3).unwrap();
        let begun = Arc::new(std::sync::Barrier::new(4));
        for _ in 0..3 {
            let begun = Arc::clone(&begun);
            runtime.spawn_blocking(move || begun.wait());
        }
        begun.wait();
    }
}
