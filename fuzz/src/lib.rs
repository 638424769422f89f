//! What each fuzz target checks, apart from the entry points that libFuzzer wants.
//!
//! A target says what must be true of any input and panics where it is not.

pub mod configuration;
pub mod desktops;
pub mod forwarded;
pub mod frames;
pub mod hijack;
mod input;
pub mod path;
pub mod pool;
pub mod proxy_header;
pub mod records;
pub mod relay;
pub mod resume;
pub mod signed;
pub mod tls_accept;
#[path = "../../gateway-datapath/tests/tls/peer.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod tls_peer;
#[path = "../../gateway-datapath/tests/codec/reference.rs"]
mod tungstenite_reference;

use std::pin::pin;
use std::task::{Context, Poll, Waker};

thread_local! {
    /// Time limits want a clock; this one jumps when everybody waits.
    static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("nothing of the system is needed");
}

/// The outcome of what has nothing to wait for.
fn poll_once<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| {
        let _entered = runtime.enter();
        let mut context = Context::from_waker(Waker::noop());
        match pin!(future).poll(&mut context) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("waits although everything is there"),
        }
    })
}

/// The outcome of what waits for time to pass.
fn poll_through<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| runtime.block_on(future))
}
