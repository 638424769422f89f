//! Orders to one channel: to end, or to stand still.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;

use gateway_datapath::Order;
use gateway_datapath::end_reason::{EndReason, StopCause};

/// Asks one channel to end, or to stand still.
#[derive(Default)]
pub struct StopSignal {
    /// Empty: go on. The first cause stays.
    cause: OnceLock<StopCause>,
    /// The channel is to stand still, to be handed over.
    freeze: AtomicBool,
    waker: AtomicWaker,
}

impl StopSignal {
    pub(super) fn stop(&self, cause: StopCause) {
        let _ = self.cause.set(cause);
        self.waker.wake();
    }

    /// Why the channel is to end; `None`: it is not.
    pub fn cause(&self) -> Option<StopCause> {
        self.cause.get().copied()
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
        if let Some(cause) = self.cause() {
            Poll::Ready(Order::Stop(EndReason::Asked(cause)))
        } else if self.freeze.load(Ordering::Acquire) {
            Poll::Ready(Order::Freeze)
        } else {
            Poll::Pending
        }
    }

    /// Ready once the channel is to end; says why.
    pub fn stopped(&self) -> impl Future<Output = EndReason> {
        std::future::poll_fn(|context| {
            // Registering first, so that a stop in between is not missed.
            self.waker.register(context.waker());
            match self.cause() {
                Some(cause) => Poll::Ready(EndReason::Asked(cause)),
                None => Poll::Pending,
            }
        })
    }
}
