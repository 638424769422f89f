//! Tasks and threads that live for as long as the gateway.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::error;

/// How long what has failed rests before it is run again.
const PAUSE: Duration = Duration::from_secs(1);

/// What a supervised task does, on what it keeps for the next time.
pub type Running<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A task that is run again when it panics; ended when dropped.
#[must_use = "it ends when dropped"]
#[derive(Debug)]
pub struct Supervised<T>(JoinHandle<T>);

impl<T> Supervised<T> {
    /// Waits until it ends by itself; `None`: the runtime ends.
    pub async fn ended(mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

impl<T> Drop for Supervised<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs a task until it returns, which one whose result is `Infallible` never does. A panic is
/// logged, and the task is run again after a second, on `state` as the panic has left it. Must be
/// called in a runtime.
pub fn supervised<S, T>(
    name: &'static str,
    state: S,
    run: impl for<'a> Fn(&'a mut S) -> Running<'a, T> + Send + 'static,
) -> Supervised<T>
where
    S: Send + 'static,
    T: Send + 'static,
{
    let tell = move |reason: &str| tell(name, reason);
    Supervised(tokio::spawn(until_done(state, run, tell)))
}

async fn until_done<S, T>(
    mut state: S,
    run: impl for<'a> Fn(&'a mut S) -> Running<'a, T>,
    tell: impl Fn(&str),
) -> T {
    loop {
        match caught(run(&mut state)).await {
            Ok(done) => return done,
            Err(panic) => tell(said(&*panic)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Runs this until it returns, on a thread of its own. A panic is logged, and it is run again after
/// a second, on `state` as the panic has left it. Fails when the system gives no thread.
pub fn thread<S: Send + 'static>(
    name: &'static str,
    mut state: S,
    run: impl Fn(&mut S) + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    let supervised = move || {
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&mut state))) {
            tell(name, said(&*panic));
            thread::sleep(PAUSE);
        }
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(supervised)
}

/// The future's result, or what it panicked with.
async fn caught<T>(future: impl Future<Output = T>) -> thread::Result<T> {
    let mut future = pin!(future);
    // After a panic it is not polled again.
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    )
    .await
}

fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without message")
}

fn tell(task: &str, reason: &str) {
    error!(task, reason, "a background task failed and was restarted");
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

    use super::*;

    /// Fails on the way until it was run three times.
    async fn third_time(runs: &mut u32) -> u32 {
        *runs += 1;
        tokio::task::yield_now().await;
        assert!(*runs >= 3, "run {runs}");
        *runs
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_told_of_and_run_again_with_what_it_has() {
        let told = Mutex::new(Vec::new());
        let tell = |reason: &str| told.lock().unwrap().push(reason.to_owned());
        let done = until_done(0, |runs| Box::pin(third_time(runs)), tell).await;
        assert_eq!(done, 3);
        assert_eq!(*told.lock().unwrap(), ["run 1", "run 2"]);
    }

    #[tokio::test]
    async fn a_task_that_is_done_says_with_what() {
        let task = supervised("test", 2, |runs| Box::pin(third_time(runs)));
        assert_eq!(task.ended().await, Some(3));
    }

    async fn wait(sender: &mut UnboundedSender<()>) -> Infallible {
        sender.send(()).unwrap();
        std::future::pending().await
    }

    #[tokio::test]
    async fn a_task_that_lives_for_ever_ends_when_nobody_has_it_any_more() {
        let (sender, mut receiver) = unbounded_channel();
        let task = supervised("test", sender, |sender| Box::pin(wait(sender)));
        assert_eq!(receiver.recv().await, Some(()));
        drop(task);
        assert_eq!(receiver.recv().await, None);
    }

    #[test]
    fn a_thread_that_panics_is_run_again_with_what_it_has() {
        let (sender, receiver) = channel();
        let run = move |runs: &mut u32| {
            *runs += 1;
            assert!(*runs == 2, "the first time");
            sender.send(*runs).unwrap();
        };
        thread("test", 0, run).unwrap().join().unwrap();
        assert_eq!(receiver.recv().unwrap(), 2);
    }
}
