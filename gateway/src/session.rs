//! Numbers that tie the log's lines together.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of a desktop session: the channels that were opened with one ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

impl SessionId {
    /// A number that this process has not used before.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

/// Not the number of a desktop session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a desktop session such as s12")]
pub struct NoSessionId;

impl FromStr for SessionId {
    type Err = NoSessionId;

    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    fn from_str(text: &str) -> Result<Self, NoSessionId> {
        let digits = text.strip_prefix('s').ok_or(NoSessionId)?;
        let number = digits.parse().map_err(|_| NoSessionId)?;
        let id = Self(number);
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(NoSessionId)
        }
    }
}

/// Number of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelId(u64);

impl ChannelId {
    /// A number that this process has not used before.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_read_as_they_are_written() {
        let id = SessionId::next();
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in [
            "",
            "s",
            "12",
            "c12",
            "s+1",
            "s01",
            "s-1",
            "s99999999999999999999",
        ] {
            assert_eq!(wrong.parse::<SessionId>(), Err(NoSessionId), "{wrong}");
        }
    }
}
