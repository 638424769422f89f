//! Orders to one channel: to end, or to stand still.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;

use crate::datapath::Order;

/// Why a channel is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// The gateway is being stopped.
    Shutdown,
    /// Somebody ended this desktop session by hand.
    Kicked,
    /// The time that draining may take is over.
    Drained,
}

/// Asks one channel to end, or to stand still.
#[derive(Default)]
pub struct StopSignal {
    /// 0: go on; else 1 and a [`StopCause`].
    cause: AtomicU8,
    /// The channel is to stand still, to be handed over.
    freeze: AtomicBool,
    waker: AtomicWaker,
}

impl StopSignal {
    pub(super) fn stop(&self, cause: StopCause) {
        // The first cause stays.
        let _ =
            self.cause
                .compare_exchange(0, 1 + cause as u8, Ordering::Release, Ordering::Relaxed);
        self.waker.wake();
    }

    /// Why the channel is to end; `None`: it is not.
    pub fn cause(&self) -> Option<StopCause> {
        match self.cause.load(Ordering::Acquire) {
            0 => None,
            1 => Some(StopCause::Shutdown),
            2 => Some(StopCause::Kicked),
            _ => Some(StopCause::Drained),
        }
    }

    pub(super) fn freeze(&self) {
        self.freeze.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Lets the channel move on here, until it is asked again.
    pub(super) fn thaw(&self) {
        self.freeze.store(false, Ordering::Release);
    }

    /// What the channel is to do; it is woken when that changes.
    pub(super) fn poll_order(&self, context: &Context<'_>) -> Poll<Order> {
        // Registering first, so that an order in between is not missed.
        self.waker.register(context.waker());
        if self.cause.load(Ordering::Acquire) != 0 {
            Poll::Ready(Order::Stop)
        } else if self.freeze.load(Ordering::Acquire) {
            Poll::Ready(Order::Freeze)
        } else {
            Poll::Pending
        }
    }

    /// Ready once the channel is to end.
    pub fn stopped(&self) -> impl Future<Output = ()> {
        std::future::poll_fn(|context| {
            // Registering first, so that a stop in between is not missed.
            self.waker.register(context.waker());
            match self.cause() {
                Some(_) => Poll::Ready(()),
                None => Poll::Pending,
            }
        })
    }
}
