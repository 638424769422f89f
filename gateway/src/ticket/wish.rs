//! How tickets are asked for, and why none is made.

use std::time::Duration;

use crate::pool::SealError;

/// Why no ticket can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// Too many tickets wait to be used.
    #[error("too many tickets are waiting to be used")]
    Full,
    /// The system's random source failed.
    #[error("the system's random source failed")]
    Random,
    /// A ticket for the pool cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A pool's tickets hold what they stand for.
    #[error("a ticket of a pool is too long for a host name")]
    HostName,
}

/// How a ticket is wished for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// The time in which it has to be used; `None`: as configured.
    pub life: Option<Duration>,
    /// How it is written.
    pub form: Form,
}

/// How a ticket is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As short as can be, for all clients.
    #[default]
    Short,
    /// As a host name, which native clients may give in place of a user name.
    HostName,
}

impl Form {
    /// Of a ticket that is asked for as a host name, or not.
    pub fn of(is_host_name: bool) -> Self {
        if is_host_name {
            Self::HostName
        } else {
            Self::Short
        }
    }
}
