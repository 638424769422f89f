//! What the gateways of a pool share: the keys with which tickets are sealed, so that any of them
//! serves a ticket that another one made.

mod keys;
mod seal;

pub use keys::{KeyFileError, PoolKeys, append_key, new_file};
pub(crate) use seal::{CLOCK_TOLERANCE, has_room, session_number};
pub use seal::{Contents, OpenError, SealError};

#[cfg(test)]
pub(crate) use keys::key_for_test;
