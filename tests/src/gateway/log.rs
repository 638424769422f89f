//! The lines that a process writes to its standard error.

use anyhow::{Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;

/// Collects lines until the stream ends.
#[derive(Debug)]
pub(super) struct ProcessLog {
    lines: watch::Receiver<Vec<String>>,
    is_read: watch::Sender<bool>,
}

impl ProcessLog {
    /// Reads `stream` in a task of its own.
    pub(super) fn collect(stream: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let (sender, lines) = watch::channel(Vec::new());
        let (is_read, mut reads) = watch::channel(true);
        tokio::spawn(async move {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            // Whatever bytes come: a log that is no UTF-8 must not stop the process writing it.
            while matches!(reader.read_until(b'\n', &mut line).await, Ok(1..)) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                sender.send_modify(|lines| lines.push(text));
                line.clear();
                // A process log that is gone is read to its end.
                let _ = reads.wait_for(|reads| *reads).await;
            }
        });
        Self { lines, is_read }
    }

    /// Reads no further than the next line, or reads on.
    pub(super) fn set_read(&self, is_read: bool) {
        self.is_read.send_replace(is_read);
    }

    /// All lines so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// The last lines so far.
    pub(super) fn tail(&self) -> String {
        const LINES: usize = 30;
        let lines = self.lines.borrow();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// Waits for the first line that `wanted` accepts.
    pub(super) async fn find(&self, mut wanted: impl FnMut(&str) -> bool) -> Result<String> {
        let mut receiver = self.lines.clone();
        let mut seen = 0;
        loop {
            {
                let lines = receiver.borrow_and_update();
                for line in &lines[seen..] {
                    if wanted(line) {
                        return Ok(line.clone());
                    }
                }
                seen = lines.len();
            }
            if receiver.changed().await.is_err() {
                bail!("the log ended without the awaited line");
            }
        }
    }

    /// Waits for the end of the stream.
    pub(super) async fn finished(&self) {
        let mut receiver = self.lines.clone();
        while receiver.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn finds_lines_that_came_and_that_come() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let log = ProcessLog::collect(reader);
        writer.write_all(b"one\ntwo\n").await.unwrap();
        assert_eq!(log.find(|line| line == "two").await.unwrap(), "two");
        assert_eq!(log.find(|line| line == "one").await.unwrap(), "one");
        let later = log.find(|line| line.starts_with("th"));
        let write = writer.write_all(b"\xff\nthree\n");
        let (found, written) = tokio::join!(later, write);
        written.unwrap();
        assert_eq!(found.unwrap(), "three");
        drop(writer);
        assert!(log.find(|_| false).await.is_err());
        log.finished().await;
        assert_eq!(log.lines().len(), 4);
    }
}
