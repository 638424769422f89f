//! Waiting until a leg's TCP has taken everything that the kernel redirected to it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Time between two looks, which doubles while nothing has changed: the kernel tells nobody when
/// its worker has sent the last byte.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(32);

/// A wait that may be going on.
#[derive(Default)]
pub(super) struct Flush {
    next: Option<(Pin<Box<Sleep>>, Duration)>,
}

impl Flush {
    /// Ready once `is_drained` says that nothing is left before the TCP that takes it; an error
    /// once it says that nothing can be any more.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        is_drained: impl Fn() -> io::Result<bool>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some((sleep, _)) = &mut self.next {
                ready!(sleep.as_mut().poll(context));
            }
            if is_drained()? {
                self.next = None;
                return Poll::Ready(Ok(()));
            }
            match &mut self.next {
                Some((sleep, pause)) => {
                    *pause = (*pause * 2).min(LAST_LOOK);
                    sleep.as_mut().reset(Instant::now() + *pause);
                }
                None => {
                    self.next = Some((Box::pin(tokio::time::sleep(FIRST_LOOK)), FIRST_LOOK));
                }
            }
        }
    }
}
