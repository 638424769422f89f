//! Lines on their way to whoever reads the log.
//!
//! A reader that stops, as a full pipe or a hanging journal does, must not stop the gateway with
//! it. So lines go through a bounded queue to a thread that writes them; what finds the queue full
//! is dropped, counted and reported once lines flow again.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use crate::background::{self, NoThreads};

/// Lines that may wait to be written.
const QUEUE: usize = 8_192;
/// How long the last lines may take when the process ends.
const END_LIMIT: Duration = Duration::from_secs(1);
/// How often a full queue is tried again when the process ends.
const END_RETRY: Duration = Duration::from_millis(10);

enum Message {
    Line(Vec<u8>),
    End,
}

/// The near end of the queue; cheap to clone.
#[derive(Clone)]
pub(super) struct Lines {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

/// The far end. Dropping it writes what is in the queue, for at most a second.
pub(crate) struct Writing {
    sender: SyncSender<Message>,
    ended: Receiver<()>,
}

/// Starts a thread that writes lines to `output`. `tell` is called on it, with the number of lines
/// that were dropped, once there is room again.
pub(super) fn start(
    output: impl Write + Send + 'static,
    tell: impl Fn(u64) + Send + 'static,
) -> Result<(Lines, Writing), NoThreads> {
    let (sender, receiver) = sync_channel(QUEUE);
    let (ending, ended) = sync_channel(1);
    let dropped = Arc::<AtomicU64>::default();
    let lines = Lines {
        sender: sender.clone(),
        dropped: Arc::clone(&dropped),
    };
    background::thread("log", (receiver, output), move |(receiver, output)| {
        write(receiver, output, || {
            let count = dropped.swap(0, Ordering::Relaxed);
            if count > 0 {
                tell(count);
            }
        });
        // Nobody waits for it unless the process ends.
        let _ = ending.send(());
    })?;
    Ok((lines, Writing { sender, ended }))
}

/// Writes until it is asked to end. `idle` is called whenever the queue is empty.
fn write(receiver: &Receiver<Message>, output: &mut impl Write, idle: impl Fn()) {
    loop {
        let message = receiver.try_recv().or_else(|_| {
            idle();
            receiver.recv()
        });
        match message {
            // There is no other place to which a failure could be reported.
            Ok(Message::Line(line)) => drop(output.write_all(&line)),
            Ok(Message::End) | Err(_) => return,
        }
    }
}

impl Write for Lines {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Message::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let limit = Instant::now() + END_LIMIT;
        while let Err(TrySendError::Full(_)) = self.sender.try_send(Message::End) {
            if Instant::now() >= limit {
                return;
            }
            thread::sleep(END_RETRY);
        }
        let left = limit.saturating_duration_since(Instant::now());
        // A reader that takes nothing loses the rest.
        let (Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) =
            self.ended.recv_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Takes a line for each leave.
    struct Reluctant {
        leave: Receiver<()>,
        begun: Sender<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Reluctant {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.begun.send(());
            let _ = self.leave.recv();
            self.taken.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_that_stops_and_what_is_lost_is_told() {
        let (give_leave, leave) = channel();
        let (begun, has_begun) = channel();
        let (tell, told) = channel();
        let taken = Arc::default();
        let output = Reluctant {
            leave,
            begun,
            taken: Arc::clone(&taken),
        };
        let (mut lines, writing) = start(output, move |count| tell.send(count).unwrap()).unwrap();
        lines.write_all(b"0\n").unwrap();
        has_begun.recv().unwrap();
        for number in 1..QUEUE + 8 {
            lines.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        // The reader goes on.
        drop(give_leave);
        assert_eq!(told.recv().unwrap(), 7);
        drop(writing);
        let numbers: Vec<_> = (0..=QUEUE).map(|number| number.to_string()).collect();
        let expected = format!("{}\n", numbers.join("\n"));
        assert_eq!(
            String::from_utf8(taken.lock().unwrap().clone()).unwrap(),
            expected
        );
    }

    #[test]
    fn the_end_does_not_wait_for_a_reader_that_stopped() {
        let (_give_leave, leave) = channel();
        let output = Reluctant {
            leave,
            begun: channel().0,
            taken: Arc::default(),
        };
        let (mut lines, writing) = start(output, |_| {}).unwrap();
        for _ in 0..2 * QUEUE {
            lines.write_all(b"line\n").unwrap();
        }
        drop(writing);
    }
}
