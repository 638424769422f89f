//! What an administrator is told about a file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::keys::KEYS;
use super::value::quote;

/// How alike, from 0 to 1, an unknown key and a known one must be to suggest the latter.
const SUGGESTION_THRESHOLD: f64 = 0.7;

/// What is odd in a file, but no reason not to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A key that means nothing to the gateway.
    UnknownKey {
        /// The key as written.
        key: String,
        /// The known key that was perhaps meant.
        suggestion: Option<&'static str>,
    },
    /// A key that stands in the file more than once.
    DuplicateKey {
        /// The key.
        key: &'static str,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Without the value: a secret meant for another program may stand there.
            Self::UnknownKey { key, suggestion } => {
                write!(f, "unknown key {} ignored", quote(key))?;
                match suggestion {
                    Some(name) => write!(f, "; did you mean {name:?}?"),
                    None => Ok(()),
                }
            }
            Self::DuplicateKey { key } => {
                write!(
                    f,
                    "key {key:?} is given more than once; the last one counts"
                )
            }
        }
    }
}

/// Why a file cannot be used. Every one is a configuration error to the caller (exit code 78).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {reason}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        reason: io::Error,
    },
    /// The file is not one JSON object.
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
    /// Values are wrong; one line each.
    #[error("{}", lines(.path, .problems))]
    Values {
        /// The file.
        path: PathBuf,
        /// All of them, at least one.
        problems: Vec<Problem>,
    },
}

/// A wrong value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key it belongs to.
    pub key: &'static str,
    /// What the key takes.
    pub expected: String,
    /// The value in short, as the file has it.
    pub found: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            expected,
            found,
        } = self;
        write!(f, "{key}: expected {expected}, found {found}")
    }
}

fn lines(path: &Path, problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("{}: {problem}", path.display()))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The known key that an unknown one was perhaps meant to be.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    KEYS.iter()
        .map(|key| {
            let known = key.name.to_lowercase();
            let likeness = strsim::normalized_damerau_levenshtein(&name, &known);
            (likeness, key.name)
        })
        .filter(|(likeness, _)| *likeness >= SUGGESTION_THRESHOLD)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, name)| name)
}
