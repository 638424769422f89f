//! What a host on a Unix socket sends while its client takes less than comes.
//!
//! It waits in the host's own send buffer, whose size is the host's affair. What waits behind that,
//! in the client's socket, follows the rate at which the client takes it. The program tells when
//! the host's buffer fills; then the process looks from time to time, and only as long as that goes
//! on.

use std::future::Future;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::Context;

use tokio::time::Sleep;

use super::link::Link;
use crate::bounds::{self, Bounds};
use crate::tcp_info;

/// What waits of a host, and how much may.
pub(super) struct Charged {
    /// How much may wait in the client's socket, and how much the program has framed when that was
    /// last looked at.
    bounds: Bounds,
    framed: u64,
    /// Until then the program does not tell again.
    rest: Option<Pin<Box<Sleep>>>,
    /// Bytes that the program has dropped, of which the channel has heard.
    pub(super) dropped: u64,
}

impl Charged {
    pub(super) fn new() -> Self {
        Self {
            bounds: Bounds::in_kernel(),
            framed: 0,
            rest: None,
            dropped: 0,
        }
    }

    /// The host's send buffer fills.
    pub(super) fn on_held_up(&mut self, link: &Link) {
        if self.rest.is_some() {
            return;
        }
        link.set_watched(false);
        self.rest = Some(Box::pin(tokio::time::sleep(bounds::LOOK)));
        self.follow(link);
    }

    /// Has the program tell again when it is time.
    pub(super) fn poll_rest(&mut self, context: &mut Context<'_>, link: &Link) {
        let Some(rest) = &mut self.rest else { return };
        if rest.as_mut().poll(context).is_ready() {
            self.rest = None;
            link.set_watched(true);
        }
    }

    fn follow(&mut self, link: &Link) {
        let Ok(state) = link.state() else { return };
        let client = link.client.socket();
        // Otherwise it is the kernel's worker that is late.
        if tcp_info::bytes_unsent(client).is_ok_and(|unsent| unsent > 0) {
            self.bounds.on_held_up();
        }
        let moved = state.framed.saturating_sub(self.framed);
        self.framed = state.framed;
        let moved = usize::try_from(moved).unwrap_or(usize::MAX);
        self.bounds.on_moved(moved, Some((None, client.as_fd())));
    }
}
