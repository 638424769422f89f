//! What the program was started with, as documents show it.

use std::env;

/// The command as it was given.
pub(crate) fn command_line() -> String {
    let arguments = env::args().skip(1).collect::<Vec<_>>();
    format!("cargo xtask bench {}", arguments.join(" "))
}
