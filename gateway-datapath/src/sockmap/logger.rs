//! What the programs log, which they do on rare events only.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use aya::Ebpf;
use aya_log::EbpfLogger;
use tracing::{debug, warn};

/// Passes the programs' lines to the gateway's log.
struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        warn!(text = %record.args(), "eBPF program");
    }

    fn flush(&self) {}
}

/// The ring that the programs log into.
pub(super) struct Logger(EbpfLogger<ToTracing>);

impl Logger {
    /// `None`: there is no such ring, and nothing will be heard.
    pub(super) fn new(ebpf: &mut Ebpf) -> Option<Self> {
        match EbpfLogger::init_with_logger(ebpf, ToTracing) {
            Ok(logger) => Some(Self(logger)),
            Err(error) => {
                debug!(%error, "the eBPF programs' log cannot be read");
                None
            }
        }
    }

    /// Logs what has come.
    pub(super) fn flush(&mut self) {
        self.0.flush();
    }
}

impl AsRawFd for Logger {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
