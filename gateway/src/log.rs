//! Where the log goes: to stderr, one line per event; for the journal with its priority.

mod queue;

use std::fmt;
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use anyhow::Context;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{self, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

pub(crate) use queue::Writing;

/// Changes how much the log tells.
pub struct Verbosity(reload::Handle<Targets, Registry>);

impl Verbosity {
    /// `debug` tells more of what the gateway does, and nothing of its libraries.
    pub fn set(&self, debug: bool) {
        // Fails only once there is no log any more.
        let _ = self.0.reload(targets(debug));
    }
}

fn targets(debug: bool) -> Targets {
    let own = if debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    Targets::new()
        .with_target("gateway", own)
        .with_default(LevelFilter::WARN)
}

/// Starts logging, as [`Verbosity::set`] says; it ends when the second part is dropped.
pub(crate) fn init(debug: bool) -> anyhow::Result<(Verbosity, Writing)> {
    let (filter, verbosity) = reload::Layer::new(targets(debug));
    // Not the standard library's stderr: its lock would be held while nobody reads.
    let stderr = std::io::stderr().as_fd().try_clone_to_owned();
    let stderr = File::from(stderr.context("cannot use standard error")?);
    let (queue, writing) = queue::start(stderr, |count| {
        warn!(count, "log lines were dropped, because nobody read them");
    })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(queue)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let layer = if stderr_is_journal() {
        lines.event_format(JournalLine::default()).boxed()
    } else {
        lines.boxed()
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .context("cannot start logging")?;
    Ok((Verbosity(verbosity), writing))
}

/// Whether stderr is the stream that `JOURNAL_STREAM` names (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// A line as the journal takes it from a service: the priority in front (sd-daemon(3)), and no
/// time, which it adds itself.
struct JournalLine(Format<format::Full, ()>);

impl Default for JournalLine {
    fn default() -> Self {
        let line = Format::default().without_time();
        Self(line.with_level(false).with_target(false))
    }
}

impl<S, N> FormatEvent<S, N> for JournalLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}
