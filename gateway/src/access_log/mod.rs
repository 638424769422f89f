//! The access log: one JSON object in a line for each request, desktop, channel and refusal, in
//! the format of docs/access-log.md.
//!
//! Events go through a bounded queue to a thread that writes them. Nobody ever waits for it: what
//! finds the queue full is dropped, counted and told.

mod event;
mod file;
mod request_id;
mod writer;

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;

pub use event::{ChannelEnd, ChannelStart, Event, Requested};
pub use request_id::RequestId;
use writer::Writer;

use crate::background::{self, NoThreads};

/// Events that may wait to be written.
const QUEUE: usize = 8_192;

/// Longest wait at the end for what is still to be written.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Pause before another look for room in the queue.
const END_RETRY: Duration = Duration::from_millis(10);

/// Takes events; cheap to clone. The default one is off.
#[derive(Clone, Default)]
pub struct AccessLog(Option<Arc<Queue>>);

struct Queue {
    sender: SyncSender<Message>,
    state: Arc<State>,
}

/// What both ends of the queue see.
#[derive(Default)]
struct State {
    /// Events that found no room, or could not be written, since this was last told.
    dropped: AtomicU64,
    /// The file is to be opened again.
    reopen: AtomicBool,
}

enum Message {
    Event(SystemTime, Box<Event>),
    End,
}

/// The thread that writes.
pub struct Writing {
    sender: SyncSender<Message>,
    /// Closed when the thread has ended.
    ended: Receiver<Infallible>,
}

impl AccessLog {
    /// Opens the file, made when there is none, and starts writing to its end.
    pub fn start(path: &Path) -> anyhow::Result<(Self, Writing)> {
        let file = file::LogFile::open(path)
            .with_context(|| format!("cannot open {} (AccessLog)", path.display()))?;
        let (sender, receiver) = sync_channel(QUEUE);
        let state = Arc::<State>::default();
        let writer = Writer::new(file, receiver, Arc::clone(&state));
        let writing = Writing::start(writer, sender.clone())?;
        Ok((Self(Some(Arc::new(Queue { sender, state }))), writing))
    }

    /// Whether anything is written at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes an event, which is only made if there is a log.
    pub fn write(&self, event: impl FnOnce() -> Event) {
        let Some(queue) = &self.0 else {
            return;
        };
        let message = Message::Event(SystemTime::now(), Box::new(event()));
        if let Err(TrySendError::Full(_)) = queue.sender.try_send(message) {
            queue.state.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the file again, as it was moved away.
    pub fn reopen(&self) {
        if let Some(queue) = &self.0 {
            queue.state.reopen.store(true, Ordering::Relaxed);
        }
    }
}

impl Writing {
    fn start(writer: Writer, sender: SyncSender<Message>) -> Result<Self, NoThreads> {
        let (ending, ended) = sync_channel(0);
        background::thread("access-log", (writer, ending), |(writer, _)| writer.run())?;
        Ok(Self { sender, ended })
    }

    /// Writes what is in the queue, and ends. Blocks for as long as that takes, within a limit: a
    /// disk or a reader that takes nothing loses the rest.
    pub fn finish(self) {
        let limit = Instant::now() + END_LIMIT;
        while let Err(TrySendError::Full(_)) = self.sender.try_send(Message::End) {
            if Instant::now() >= limit {
                return;
            }
            std::thread::sleep(END_RETRY);
        }
        let left = limit.saturating_duration_since(Instant::now());
        let (Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) | Ok(_)) =
            self.ended.recv_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn refused(reason: &str) -> Event {
        Event::Refused {
            request: None,
            client: "192.0.2.7".parse().unwrap(),
            session: None,
            status: Some(403),
            reason: reason.to_owned(),
        }
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines();
        lines.map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    #[test]
    fn what_is_written_before_the_end_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        std::fs::write(&path, "{}\n").unwrap();
        let (log, writing) = AccessLog::start(&path).unwrap();
        log.write(|| refused("a \"reason\"\nwith lines"));
        log.write(|| refused("b"));
        writing.finish();
        let lines = lines(&path);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1]["event"], "refused");
        assert_eq!(lines[1]["client"], "192.0.2.7");
        assert_eq!(lines[1]["reason"], "a \"reason\"\nwith lines");
        assert_eq!(lines[1]["status"], 403);
        assert_eq!(lines[1].get("session"), None);
        let time = lines[2]["time"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok() && time.len() == 24);
        // Too late, and no harm.
        log.write(|| refused("c"));
    }

    #[test]
    fn a_file_that_was_moved_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let moved = dir.path().join("access.log.1");
        let (log, writing) = AccessLog::start(&path).unwrap();
        log.write(|| refused("old"));
        while std::fs::metadata(&path).unwrap().len() == 0 {
            std::thread::yield_now();
        }
        std::fs::rename(&path, &moved).unwrap();
        log.reopen();
        log.write(|| refused("new"));
        writing.finish();
        assert_eq!(lines(&moved)[0]["reason"], "old");
        assert_eq!(lines(&path)[0]["reason"], "new");
        assert_eq!((lines(&moved).len(), lines(&path).len()), (1, 1));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let (sender, receiver) = sync_channel(2);
        let state = Arc::<State>::default();
        let queue = Queue {
            sender: sender.clone(),
            state: Arc::clone(&state),
        };
        let log = AccessLog(Some(Arc::new(queue)));
        for number in 0..5 {
            log.write(|| refused(&number.to_string()));
        }
        let file = file::LogFile::open(&path).unwrap();
        let writer = Writer::new(file, receiver, state);
        Writing::start(writer, sender).unwrap().finish();
        let lines = lines(&path);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1]["reason"], "1");
        assert_eq!(lines[2]["event"], "dropped");
        assert_eq!(lines[2]["count"], 3);
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted_until_it_can_be_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let (log, writing) = AccessLog::start(&path).unwrap();
        let state = Arc::clone(&log.0.as_ref().unwrap().state);
        let lost = |count| {
            while state.dropped.load(Ordering::Relaxed) < count {
                std::thread::yield_now();
            }
        };
        log.write(|| refused("first"));
        lost(1);
        log.write(|| refused("second"));
        lost(2);
        std::fs::remove_file(&path).unwrap();
        log.reopen();
        log.write(|| refused("third"));
        writing.finish();
        let lines = lines(&path);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["reason"], "third");
        assert_eq!(lines[1]["event"], "dropped");
        assert_eq!(lines[1]["count"], 2);
    }

    #[test]
    fn a_fifo_that_nobody_reads_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let error = AccessLog::start(&path).err().unwrap();
        let text = format!("{error:#}");
        assert!(text.ends_with("nobody reads this FIFO"), "{text}");
    }

    #[test]
    fn the_end_waits_for_a_reader_only_so_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        // It is there, and reads nothing.
        let mut both = std::fs::OpenOptions::new();
        let _reader = both.read(true).write(true).open(&path).unwrap();
        let (log, writing) = AccessLog::start(&path).unwrap();
        let state = Arc::clone(&log.0.as_ref().unwrap().state);
        // Far more than a second for each write can bring to an end in time.
        let long = "x".repeat(2_000);
        for _ in 0..QUEUE {
            log.write(|| refused(&long));
        }
        writing.finish();
        // The thread has not got to its end; it ends with the process.
        assert!(Arc::strong_count(&state) > 2);
    }

    #[test]
    fn one_that_is_off_makes_no_events() {
        let log = AccessLog::default();
        assert!(!log.is_on());
        log.write(|| unreachable!("nobody would read it"));
        log.reopen();
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = AccessLog::start(Path::new("/nonexistent/a.log"))
            .err()
            .unwrap();
        let text = format!("{error:#}");
        assert!(text.contains("/nonexistent/a.log (AccessLog)"), "{text}");
    }
}
