//! The file, which others may move away while it is written to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long lines wait for whoever reads a pipe.
const READER_LIMIT: Duration = Duration::from_secs(1);
/// How often a full pipe is tried again.
const READER_RETRY: Duration = Duration::from_millis(10);

/// A file that is appended to.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// It ends in a part of a line, which could not be taken back.
    is_torn: bool,
}

/// Lines that could not be written.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) error: io::Error,
    /// How many of the last ones are not in the file.
    pub(super) lines: u64,
}

impl LogFile {
    /// Opens the file; one that is made can be read by owner and group.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: open(path)?,
            is_torn: false,
        })
    }

    /// Opens the path again; the old file stays in use when that fails.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        self.is_torn = false;
        Ok(())
    }

    /// Whether the path leads to another file by now, or to none.
    pub(super) fn was_moved(&self) -> bool {
        let own = self.file.metadata().map(|file| (file.dev(), file.ino()));
        let found = fs::metadata(&self.path).map(|file| (file.dev(), file.ino()));
        match (own, found) {
            (Ok(own), Ok(found)) => own != found,
            (_, Err(error)) => error.kind() == io::ErrorKind::NotFound,
            (Err(_), Ok(_)) => false,
        }
    }

    /// Appends whole lines: the beginning of one that does not fit, as on a full disk, is taken
    /// back.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        self.append_by(lines, write_some)
    }

    fn append_by(
        &mut self,
        lines: &[u8],
        mut write: impl FnMut(&mut File, &[u8]) -> io::Result<usize>,
    ) -> Result<(), Unwritten> {
        let all = |error| Unwritten {
            error,
            lines: count(lines),
        };
        if self.is_torn {
            if write(&mut self.file, b"\n").map_err(all)? == 0 {
                return Err(all(io::ErrorKind::WriteZero.into()));
            }
            self.is_torn = false;
        }
        let mut written = 0;
        while written < lines.len() {
            let error = match write(&mut self.file, &lines[written..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(len) => {
                    written += len;
                    continue;
                }
                Err(error) => error,
            };
            let whole = lines[..written].iter().rposition(|&byte| byte == b'\n');
            let whole = whole.map_or(0, |at| at + 1);
            self.take_back((written - whole) as u64);
            return Err(Unwritten {
                error,
                lines: count(&lines[whole..]),
            });
        }
        Ok(())
    }

    /// Takes bytes at the end back, unless somebody else has written behind them.
    fn take_back(&mut self, part: u64) {
        if part == 0 {
            return;
        }
        let cut = self.file.stream_position().and_then(|end| {
            if self.file.metadata()?.len() != end {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            self.file.set_len(end.saturating_sub(part))
        });
        self.is_torn = cut.is_err();
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.split_inclusive(|&byte| byte == b'\n').count() as u64
}

/// Writes what fits. A pipe whose reader does not read is given up after a while.
fn write_some(file: &mut File, bytes: &[u8]) -> io::Result<usize> {
    let begun = Instant::now();
    loop {
        match file.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < READER_LIMIT =>
            {
                thread::sleep(READER_RETRY);
            }
            outcome => return outcome,
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        // A FIFO must neither be waited for when it is opened nor hold the writer for ever
        // (fifo(7)). Regular files do not look at it.
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ENXIO) => io::Error::new(error.kind(), "nobody reads this FIFO"),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_does_not_fit_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let mut log = LogFile::open(&path).unwrap();
        log.append(b"before\n").unwrap();
        for room in 0..12 {
            let mut left = room;
            let full = log.append_by(b"first\nsecond\n", |file, bytes| {
                let len = left.min(bytes.len()).min(4);
                left -= len;
                match len {
                    0 => Err(io::ErrorKind::StorageFull.into()),
                    _ => file.write(&bytes[..len]),
                }
            });
            let Unwritten { error, lines } = full.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            let fitted = usize::from(room >= 6);
            assert_eq!(lines, 2 - fitted as u64);
            log.append(b"after\n").unwrap();
            let text = fs::read_to_string(&path).unwrap();
            let expected = ["before\n", &"first\n".repeat(fitted), "after\n"].concat();
            assert_eq!(text, expected, "{room}");
            log.file.set_len(7).unwrap();
        }
    }

    #[test]
    fn a_part_that_cannot_be_taken_back_is_a_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let mut log = LogFile::open(&path).unwrap();
        let mut other = LogFile::open(&path).unwrap();
        let mut is_first = true;
        let full = log.append_by(b"first\n", |file, bytes| {
            if !std::mem::take(&mut is_first) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let len = file.write(&bytes[..2])?;
            other
                .append(b" by another\n")
                .map_err(|failed| failed.error)?;
            Ok(len)
        });
        assert_eq!(full.unwrap_err().lines, 1);
        log.append(b"after\n").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "fi by another\n\nafter\n");
    }
}
