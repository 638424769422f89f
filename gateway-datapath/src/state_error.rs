//! What is wrong with a state that comes from outside of the process.

use std::io;

/// Why a state that another process has written down is not gone on with. Says which part of it,
/// never what stands there: it holds secrets.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// No gateway of this version writes such a state.
    #[error("a state that does not occur: {0}")]
    Unsound(&'static str),
    /// The socket that came with it cannot be used.
    #[error("a socket that cannot be used: {0}")]
    Socket(#[from] io::Error),
}

impl StateError {
    /// Fails for a part that is not as a gateway writes it.
    pub fn unless(is_sound: bool, part: &'static str) -> Result<(), Self> {
        if is_sound {
            Ok(())
        } else {
            Err(Self::Unsound(part))
        }
    }
}
