//! Waiting until channels stand still that are to wait for the next process.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, timeout};

/// How long channels may take, from the last one that stood still. Those that do not in this time
/// end with the process, so it is much more than a busy machine needs to give each its turn.
const SINCE_THE_LAST: Duration = Duration::from_secs(2);
/// How long they may take together.
const ALL: Duration = Duration::from_secs(10);
/// Time between two looks at how many are still to come: one that was waited for may have ended.
const LOOK: Duration = Duration::from_millis(20);

/// What stands still, until that is as much as is `expected` by then, or the time is over.
pub(super) async fn collect<T>(
    expected: impl Fn() -> usize,
    mut receiver: UnboundedReceiver<T>,
) -> Vec<T> {
    let begun = Instant::now();
    let mut last = begun;
    let mut collected = Vec::new();
    while collected.len() < expected() && last.elapsed() < SINCE_THE_LAST && begun.elapsed() < ALL {
        // All that are there, before anybody is asked again how many are to come.
        match timeout(LOOK, receiver.recv_many(&mut collected, usize::MAX)).await {
            Ok(0) => break,
            Ok(_) => last = Instant::now(),
            Err(_) => {}
        }
    }
    collected
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::mpsc::unbounded_channel;
    use tokio::time::sleep;

    use super::*;

    const SOON: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn one_that_a_busy_machine_holds_up_is_waited_for() {
        let (sender, receiver) = unbounded_channel();
        let begun = Instant::now();
        let standing_still = async {
            sender.send(1).unwrap();
            for late in [2, 3] {
                sleep(SINCE_THE_LAST.saturating_sub(SOON)).await;
                sender.send(late).unwrap();
            }
        };
        let (collected, ()) = tokio::join!(collect(|| 3, receiver), standing_still);
        assert_eq!(collected, [1, 2, 3]);
        assert!(begun.elapsed() < 2 * SINCE_THE_LAST);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_never_stands_still_holds_nobody_up_for_long() {
        let (sender, receiver) = unbounded_channel();
        sender.send(1).unwrap();
        let begun = Instant::now();
        assert_eq!(collect(|| 2, receiver).await, [1]);
        assert!(begun.elapsed() <= SINCE_THE_LAST + LOOK);
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_come_one_by_one_there_is_an_end() {
        let (sender, receiver) = unbounded_channel();
        let begun = Instant::now();
        let standing_still = async {
            while sender.send(()).is_ok() {
                sleep(SINCE_THE_LAST / 2).await;
            }
        };
        let (collected, ()) = tokio::join!(collect(|| usize::MAX, receiver), standing_still);
        assert!(!collected.is_empty());
        assert!(begun.elapsed() < ALL + SINCE_THE_LAST);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_ends_meanwhile_is_waited_for_no_longer() {
        let (_sender, receiver) = unbounded_channel::<()>();
        let open = Cell::new(1);
        let begun = Instant::now();
        let ending = async {
            sleep(SOON).await;
            open.set(0);
        };
        let (collected, ()) = tokio::join!(collect(|| open.get(), receiver), ending);
        assert!(collected.is_empty());
        assert!(begun.elapsed() <= SOON + LOOK);
    }
}
