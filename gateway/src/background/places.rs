//! Places for work that blocks a thread.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Lookups of hosts' names at a time.
const HOST_THREADS: usize = 16;
/// Lookups of the names of the manager and the portal at a time.
const MANAGER_THREADS: usize = 4;
/// Work of the gateway's own at a time: a reload, a sign of life, the end of the access log; and
/// one that takes over while another thread of the runtime is busy for long.
const OWN_THREADS: usize = 4;
/// Passwords that are checked at a time, each with a core's time and megabytes of memory: as many
/// more would only make those that wait wait longer, and take time from the channels.
const PASSWORD_THREADS: usize = 2;
/// Threads for all places together.
pub(super) const THREADS: usize = HOST_THREADS + MANAGER_THREADS + OWN_THREADS + PASSWORD_THREADS;

/// Lookups of hosts' names.
pub static HOSTS: Places = Places::new(HOST_THREADS, 1_000);
/// Lookups of the names of the manager and the portal.
pub static MANAGER: Places = Places::new(MANAGER_THREADS, 1_000);
/// What the gateway does for itself.
pub static OWN: Places = Places::new(OWN_THREADS, 16);
/// Checks of passwords.
pub static PASSWORDS: Places = Places::new(PASSWORD_THREADS, 64);

/// How many threads one kind of work may block, and how much of it may wait for one.
///
/// Only a `static` makes sense, as a place is held for as long as the work runs, whether somebody
/// waits for it or not: work that blocks cannot be cancelled.
pub struct Places {
    threads: Semaphore,
    queue: Semaphore,
}

/// No thread became free in time, or too many wait for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no thread is free for it")]
pub struct Busy;

/// Why there is no result of work that blocks.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// It was not begun.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// It panicked, or the runtime ends.
    #[error("it failed: {0}")]
    Failed(#[from] tokio::task::JoinError),
}

impl Places {
    /// For so much work at a time, and so much that waits.
    pub const fn new(threads: usize, queue: usize) -> Self {
        Self {
            threads: Semaphore::const_new(threads),
            queue: Semaphore::const_new(queue),
        }
    }

    /// Does this on a thread that it may block, once one is free, for which it waits at most
    /// `wait`. There is no limit on the work itself.
    pub async fn run<T: Send + 'static>(
        &'static self,
        wait: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkError> {
        let queued = self.queue.try_acquire().map_err(|_| Busy)?;
        let place = timeout(wait, self.threads.acquire()).await;
        drop(queued);
        // Nobody closes the semaphore.
        let Ok(Ok(place)) = place else {
            return Err(Busy.into());
        };
        let work = move || {
            let _place = place;
            work()
        };
        Ok(spawn_blocking(work).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_keeps_its_place_until_it_is_done() {
        static PLACES: Places = Places::new(1, 1);
        let (release, released) = channel::<()>();
        let work = move || {
            let _ = released.recv();
        };
        let given_up = timeout(Duration::from_millis(10), PLACES.run(LONG, work)).await;
        assert!(given_up.is_err());
        let refused = PLACES.run(Duration::from_millis(10), || ()).await;
        assert!(matches!(refused, Err(WorkError::Busy(_))), "{refused:?}");
        drop(release);
        PLACES.run(LONG, || ()).await.unwrap();
    }

    #[tokio::test]
    async fn one_more_than_may_wait_is_refused_at_once() {
        static PLACES: Places = Places::new(1, 1);
        let (release, released) = channel::<()>();
        let first = tokio::spawn(PLACES.run(LONG, move || {
            let _ = released.recv();
        }));
        while PLACES.threads.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let second = tokio::spawn(PLACES.run(LONG, || 2));
        while PLACES.queue.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let third = PLACES.run(LONG, || 3).await;
        assert!(matches!(third, Err(WorkError::Busy(_))), "{third:?}");
        drop(release);
        first.await.unwrap().unwrap();
        assert_eq!(second.await.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_gives_the_place_back() {
        static PLACES: Places = Places::new(1, 1);
        let failed = PLACES.run(LONG, || panic!("on purpose")).await;
        let Err::<(), _>(error) = failed else {
            unreachable!("it panicked")
        };
        assert!(error.to_string().contains("on purpose"), "{error}");
        PLACES.run(LONG, || ()).await.unwrap();
    }
}
