//! What the command line prints.
//!
//! The standard library's macros panic when nobody reads any more, as with `| head -1`; here that
//! is an error like others, which [`is_closed`] knows.

use std::io::{self, Write};

/// Exit code when nobody reads what is printed: that of a program that SIGPIPE ended, as shells
/// tell it.
pub(crate) const EXIT_CLOSED: u8 = 128 + 13;

/// Why something could not be printed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
struct OutputError(#[source] io::Error);

/// Writes to standard output, to its end.
pub(crate) fn print(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    output
        .write_all(text.as_ref())
        .and_then(|()| output.flush())
        .map_err(|error| OutputError(error).into())
}

/// Writes a line to standard output.
pub(crate) fn print_line(line: &str) -> anyhow::Result<()> {
    print(format!("{line}\n"))
}

/// Writes a line to standard error; that nobody reads it changes nothing.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether this is the error of a standard output that nobody reads any more; a socket that
/// breaks is another matter.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref();
    cause.is_some_and(|OutputError(cause)| cause.kind() == io::ErrorKind::BrokenPipe)
}
