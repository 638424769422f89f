//! The thread that writes.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tracing::{info, warn};

use super::file::{LogFile, Unwritten};
use super::{Event, Message, State};

/// How often the file is looked for where it should be, and drops are told.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Lines that are written at once, in bytes.
const BATCH: usize = 64 * 1_024;
/// A file that cannot be written to is told of again after this time.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    file: LogFile,
    receiver: Receiver<Message>,
    state: Arc<State>,
    lines: Vec<u8>,
    checked: Instant,
    warned: Option<Instant>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a Event,
}

impl Writer {
    pub(super) fn new(file: LogFile, receiver: Receiver<Message>, state: Arc<State>) -> Self {
        Self {
            file,
            receiver,
            state,
            lines: Vec::new(),
            checked: Instant::now(),
            warned: None,
        }
    }

    /// Writes until the end is told, or nobody is left to tell it.
    pub(super) fn run(&mut self) {
        loop {
            match self.receiver.recv_timeout(CHECK_INTERVAL) {
                Ok(Message::Event(time, event)) => self.add(time, &event),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
            let mut is_end = false;
            while self.lines.len() < BATCH {
                match self.receiver.try_recv() {
                    Ok(Message::Event(time, event)) => self.add(time, &event),
                    Ok(Message::End) => {
                        is_end = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
            self.flush();
            if is_end {
                break;
            }
        }
        self.flush();
    }

    fn add(&mut self, time: SystemTime, event: &Event) {
        let line = Line {
            time: humantime::format_rfc3339_millis(time).to_string(),
            event,
        };
        // Neither a vector nor these types can fail.
        if serde_json::to_writer(&mut self.lines, &line).is_ok() {
            let _ = self.lines.write_all(b"\n");
        }
    }

    fn flush(&mut self) {
        self.follow_file();
        let dropped = self.state.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            self.add(SystemTime::now(), &Event::Dropped { count: dropped });
        }
        if self.lines.is_empty() {
            return;
        }
        match self.file.append(&self.lines) {
            Ok(()) if dropped > 0 => {
                warn!(
                    count = dropped,
                    "access log: events were dropped, because they could not be written in time"
                );
            }
            Ok(()) => {}
            Err(Unwritten { error, lines }) => {
                // The last of these lines is the one that tells of earlier ones.
                let lost = lines.saturating_sub(u64::from(dropped > 0));
                self.state
                    .dropped
                    .fetch_add(dropped + lost, Ordering::Relaxed);
                if self.warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
                    warn!(%error, lost = dropped + lost, "access log cannot be written");
                    self.warned = Some(Instant::now());
                }
            }
        }
        self.lines.clear();
    }

    /// Opens the file again when told, or when it was moved away.
    fn follow_file(&mut self) {
        let told = self.state.reopen.swap(false, Ordering::Relaxed);
        let due = self.checked.elapsed() >= CHECK_INTERVAL;
        if due {
            self.checked = Instant::now();
        }
        if told || (due && self.file.was_moved()) {
            match self.file.reopen() {
                Ok(()) => info!("access log reopened"),
                Err(error) => {
                    warn!(%error, "cannot reopen the access log; the old file is still used");
                }
            }
        }
    }
}
