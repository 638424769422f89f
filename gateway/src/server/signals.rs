//! What ends the gateway from outside.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end the gateway.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    restart: Signal,
}

/// How serving has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// A successor has everything.
    HandedOver,
    /// The gateway is not to run any more.
    Stop,
    /// The service manager starts the next process at once.
    Restart,
}

impl Signals {
    pub(super) fn watch() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?,
            restart: signal(SignalKind::user_defined2()).context("cannot watch for SIGUSR2")?,
        })
    }

    pub(super) async fn next(&mut self) -> Ended {
        tokio::select! {
            _ = self.terminate.recv() => Ended::Stop,
            _ = self.interrupt.recv() => Ended::Stop,
            _ = self.restart.recv() => Ended::Restart,
        }
    }
}
