//! What each fuzz target checks, apart from the entry points that libFuzzer wants.
//!
//! A target says what must be true of any input and panics where it is not.

pub mod frames;
pub mod hijack;
mod input;
pub mod proxy_header;
pub mod relay;
#[path = "../../gateway/tests/codec/reference.rs"]
mod tungstenite_reference;

use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// The outcome of what has nothing to wait for.
fn poll_once<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        /// Time limits want a clock; it stands still.
        static RUNTIME: tokio::runtime::Runtime = clock();
    }
    RUNTIME.with(|runtime| {
        let _entered = runtime.enter();
        let mut context = Context::from_waker(Waker::noop());
        match pin!(future).poll(&mut context) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("waits although everything is there"),
        }
    })
}

/// A runtime without sockets whose clock jumps when everybody waits.
fn clock() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("nothing of the system is needed")
}
