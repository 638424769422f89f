//! What an administrator is told about a file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::environment::PREFIX;
use super::keys::KEYS;
use super::origin::Origin;
use super::value::quote;

/// How alike, from 0 to 1, an unknown key and a known one must be to suggest the latter.
const SUGGESTION_THRESHOLD: f64 = 0.7;

/// What is odd in a file, but no reason not to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The file, if it is one beside the configuration file.
    file: Option<PathBuf>,
    oddity: Oddity,
}

/// What is odd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Oddity {
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

impl Warning {
    /// Of what comes from `origin`, where `path` is the configuration file.
    pub(super) fn new(origin: &Origin, path: &Path, oddity: Oddity) -> Self {
        let file = match origin {
            Origin::File(file) if file != path => Some(file.clone()),
            _ => None,
        };
        Self { file, oddity }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        match &self.oddity {
            // Without the value: a secret meant for another program may stand there.
            Oddity::UnknownKey { key, suggestion } => {
                write!(f, "unknown key {} ignored", quote(key))?;
                match suggestion {
                    Some(name) => write!(f, "; did you mean {name:?}?"),
                    None => Ok(()),
                }
            }
            Oddity::DuplicateKey { key } => {
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
    /// Values or variables are wrong; one line each.
    #[error("{}", lines(.faults))]
    Values {
        /// All of them, at least one.
        faults: Vec<Fault>,
    },
}

/// What is wrong in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A value.
    Value {
        /// Where it comes from.
        origin: Origin,
        /// What is wrong with it.
        problem: Problem,
    },
    /// An environment variable that is called like one of the gateway's, but is none.
    Variable {
        /// Its name.
        name: String,
        /// What follows the prefix in the name that was perhaps meant.
        suggestion: Option<String>,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { origin, problem } => write!(f, "{origin}: {problem}"),
            // Without the value, which may be a secret of another program.
            Self::Variable { name, suggestion } => {
                write!(f, "{name}: there is no such key")?;
                match suggestion {
                    Some(word) => write!(f, "; did you mean {PREFIX}{word}?"),
                    None => Ok(()),
                }
            }
        }
    }
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

fn lines(faults: &[Fault]) -> String {
    let lines: Vec<_> = faults.iter().map(Fault::to_string).collect();
    lines.join("\n")
}

/// The known key that an unknown one was perhaps meant to be.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    most_alike(name, KEYS.iter().map(|key| (key.name, key.name)))
}

/// What stands beside the known name that is most like this one, if any is.
pub(super) fn most_alike<T>(
    name: &str,
    known: impl Iterator<Item = (impl AsRef<str>, T)>,
) -> Option<T> {
    let name = name.to_lowercase();
    known
        .map(|(known, meant)| {
            let known = known.as_ref().to_lowercase();
            let likeness = strsim::normalized_damerau_levenshtein(&name, &known);
            (likeness, meant)
        })
        .filter(|(likeness, _)| *likeness >= SUGGESTION_THRESHOLD)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, meant)| meant)
}
