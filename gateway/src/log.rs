//! Where the log goes: to journald when systemd runs the gateway, else to stderr.

use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;

use anyhow::Context;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Starts logging; `debug` tells more of what the gateway does, and nothing of its libraries.
pub(crate) fn init(debug: bool) -> anyhow::Result<()> {
    let own = if debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    let filter = Targets::new()
        .with_target("gateway", own)
        .with_default(LevelFilter::WARN);
    let layer = if stderr_is_journal() {
        tracing_journald::layer()
            .context("cannot reach journald")?
            .with_syslog_identifier("flexvdi-gateway".to_owned())
            .boxed()
    } else {
        fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed()
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .context("cannot start logging")
}

/// Whether stderr is the stream that `JOURNAL_STREAM` names (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}
