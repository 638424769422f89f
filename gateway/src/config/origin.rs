//! Where the value of a key comes from.

use std::fmt;
use std::path::PathBuf;

/// A place that gives keys their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// None: the key has its default.
    Default,
    /// A file: the configuration file, or one beside it.
    File(PathBuf),
    /// An environment variable, by its name.
    Variable(String),
    /// `--set` on the command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => f.write_str(name),
            Self::CommandLine => f.write_str("--set"),
        }
    }
}
