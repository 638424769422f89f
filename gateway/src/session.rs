//! Numbers that tie the log's lines together.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

static NEXT_SESSION: AtomicU64 = AtomicU64::new(1);
static NEXT_CHANNEL: AtomicU64 = AtomicU64::new(1);

/// Number of a desktop session: the channels that were opened with one ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(Number);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Number {
    /// Of this process.
    Own(u64),
    /// Of a pool: the same in each of its gateways.
    Pool(u64),
}

impl SessionId {
    /// A number that this process has not used before.
    pub fn next() -> Self {
        Self(Number::Own(NEXT_SESSION.fetch_add(1, Ordering::Relaxed)))
    }

    /// A number that follows from a pool's ticket, 48 bits.
    pub fn of_pool(number: u64) -> Self {
        Self(Number::Pool(number))
    }

    /// Whether a gateway may have given this number; it may come from outside.
    pub(crate) fn is_sound(self) -> bool {
        match self.0 {
            Number::Own(number) => number < MANY,
            Number::Pool(number) => number >> 48 == 0,
        }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Number::Own(number) => write!(f, "s{number}"),
            Number::Pool(number) => write!(f, "p{number:012x}"),
        }
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
        let number = if let Some(digits) = text.strip_prefix('s') {
            digits.parse().map(Number::Own)
        } else {
            let digits = text.strip_prefix('p').ok_or(NoSessionId)?;
            u64::from_str_radix(digits, 16).map(Number::Pool)
        };
        let id = Self(number.map_err(|_| NoSessionId)?);
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
        Self(NEXT_CHANNEL.fetch_add(1, Ordering::Relaxed))
    }
}

impl ChannelId {
    /// The number itself.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The channel of this number, which another process began.
    pub fn known(number: u64) -> Self {
        Self(number)
    }
}

/// What no number of sessions or channels reaches.
pub(crate) const MANY: u64 = 1 << 56;

/// The numbers that come next: of a session and of a channel.
pub fn upcoming() -> [u64; 2] {
    [&NEXT_SESSION, &NEXT_CHANNEL].map(|next| next.load(Ordering::Relaxed))
}

/// Leaves out all numbers below these.
pub fn leave_out(upcoming: [u64; 2]) {
    NEXT_SESSION.fetch_max(upcoming[0], Ordering::Relaxed);
    NEXT_CHANNEL.fetch_max(upcoming[1], Ordering::Relaxed);
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
        let of_pool = SessionId::of_pool(0x0123_4567_89ab);
        assert_eq!(of_pool.to_string().parse(), Ok(of_pool));
        for wrong in [
            "",
            "s",
            "12",
            "c12",
            "s+1",
            "s01",
            "s-1",
            "s99999999999999999999",
            "p",
            "pc",
            "p0123456789AB",
        ] {
            assert_eq!(wrong.parse::<SessionId>(), Err(NoSessionId), "{wrong}");
        }
    }
}
