//! What is wrong with the file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Most mistakes that are told at a time.
const MOST: usize = 100;
/// Most characters of a found text that a message repeats.
const MAX_SHOWN: usize = 40;

/// Why the file cannot be used. Never repeats a password, nor a hash of one.
#[derive(Debug, thiserror::Error)]
pub enum DesktopsError {
    /// The file cannot be read.
    #[error("{}: Desktops: {reason}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        reason: io::Error,
    },
    /// The file is no JSON.
    #[error("{}: line {line}, column {column}: {reason}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in bytes, from 1; 0 before the first byte of a line.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
    /// Something in it is wrong; one line each.
    #[error("{}", .problems.lines(.path))]
    Values {
        /// The file.
        path: PathBuf,
        /// All of them.
        problems: Problems,
    },
}

/// Mistakes with their places.
#[derive(Debug, Default)]
pub struct Problems {
    told: Vec<(String, String)>,
    more: usize,
}

impl Problems {
    /// Adds one; `place` is such as `users[3].desktops[0]`, or empty for the whole file.
    pub(super) fn add(&mut self, place: &str, what: impl Into<String>) {
        if self.told.len() < MOST {
            self.told.push((place.to_owned(), what.into()));
        } else {
            self.more += 1;
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    fn lines(&self, path: &Path) -> String {
        let path = path.display();
        let mut lines: Vec<_> = self
            .told
            .iter()
            .map(|(place, what)| match place.as_str() {
                "" => format!("{path}: {what}"),
                _ => format!("{path}: {place}: {what}"),
            })
            .collect();
        if self.more > 0 {
            lines.push(format!("{path}: and {} more mistakes", self.more));
        }
        lines.join("\n")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines(Path::new("Desktops")))
    }
}

/// The beginning of a text in quotation marks, control characters escaped.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_mistakes_are_told() {
        let mut problems = Problems::default();
        for at in 0..MOST + 7 {
            problems.add(&format!("users[{at}]"), "wrong");
        }
        let text = problems.to_string();
        assert_eq!(text.lines().count(), MOST + 1);
        assert!(text.ends_with("Desktops: and 7 more mistakes"), "{text}");
    }

    #[test]
    fn what_was_found_is_short_and_on_one_line() {
        assert_eq!(shown("a\nb"), "\"a\\nb\"");
        assert_eq!(shown(&"ä".repeat(41)), format!("\"{}\"...", "ä".repeat(40)));
    }
}
