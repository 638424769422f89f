//! Waiting until the client's TCP has taken everything that was sent towards it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::link::Link;

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
    /// Ready once nothing is left between host leg and client's TCP; an error once nothing can
    /// be any more.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, link: &Link) -> Poll<io::Result<()>> {
        loop {
            if let Some((sleep, _)) = &mut self.next {
                ready!(sleep.as_mut().poll(context));
            }
            link.check_abandoned()?;
            if link.is_drained()? {
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
