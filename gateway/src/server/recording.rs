//! The access log while the gateway runs.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::access_log::{AccessLog, Writing};
use crate::background::OWN;
use crate::config::Config;
use gateway_datapath::supervise::{Supervised, supervised};

/// Longest wait for a thread that waits for the end of the access log.
const FINISH_WAIT: Duration = Duration::from_secs(5);

/// What writes the access log, if there is one.
pub(super) struct Recording {
    writing: Option<Writing>,
    _reopening: Supervised<Infallible>,
}

/// The access log, which SIGUSR1 opens anew, and what writes it.
pub(super) fn access_log(config: &Config) -> anyhow::Result<(AccessLog, Recording)> {
    let reopen = signal(SignalKind::user_defined1()).context("cannot watch for SIGUSR1")?;
    let (access_log, writing) = match &config.access_log {
        Some(path) => AccessLog::start(path).map(|(log, writing)| (log, Some(writing)))?,
        None => (AccessLog::default(), None),
    };
    let state = (reopen, access_log.clone(), writing.is_some());
    let reopening = supervised("SIGUSR1", state, |(reopen, access_log, writes)| {
        Box::pin(reopen_for_ever(reopen, access_log, *writes))
    });
    let recording = Recording {
        writing,
        _reopening: reopening,
    };
    Ok((access_log, recording))
}

async fn reopen_for_ever(told: &mut Signal, access_log: &AccessLog, writes: bool) -> Infallible {
    loop {
        told.recv().await;
        access_log.reopen();
        if writes {
            info!("SIGUSR1: reopening the access log");
        } else {
            info!("SIGUSR1: there is no access log to reopen");
        }
    }
}

/// Waits until the access log has every line.
pub(super) async fn finish(recording: Recording) -> anyhow::Result<()> {
    if let Some(writing) = recording.writing {
        // Channels that were dropped may not have ended yet; nothing is waited for any more.
        let finished = OWN.run(FINISH_WAIT, || writing.finish()).await;
        finished.context("the access log failed")?;
    }
    Ok(())
}
