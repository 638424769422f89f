//! What a client asks the bench host to do on a channel.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use testkit::spice::ChannelType;

/// Length of a job on the wire, in bytes.
pub(crate) const LENGTH: usize = 32;

/// One piece of work; a channel can carry several, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// The host sends `total` bytes in writes of `write` bytes, back to back.
    Downlink {
        /// Size of a write, in bytes.
        write: u32,
        /// Bytes in all.
        total: u64,
    },
    /// The host takes `total` bytes, verifies them and answers with one byte.
    Uplink {
        /// Bytes in all.
        total: u64,
    },
    /// The host sends back what comes until `total` bytes came.
    Echo {
        /// Bytes in all.
        total: u64,
    },
    /// The host plays its side of the recorded excerpt of a channel.
    Replay {
        /// The channel.
        channel: ChannelType,
        /// Where in the excerpt to begin.
        from: Duration,
    },
    /// The host sends messages of [`super::wan::message`], as fast as its socket takes them, until
    /// the channel ends.
    Show {
        /// Size of a message, in bytes.
        message: u32,
        /// What the host counts its bytes under.
        key: u64,
    },
}

impl Job {
    /// The job as it is sent.
    pub(crate) fn encode(self) -> [u8; LENGTH] {
        let (operation, size, total, from) = match self {
            Self::Downlink { write, total } => (1, write, total, Duration::ZERO),
            Self::Uplink { total } => (2, 0, total, Duration::ZERO),
            Self::Echo { total } => (3, 0, total, Duration::ZERO),
            Self::Replay { channel, from } => (4, u32::from(channel as u8), 0, from),
            Self::Show { message, key } => (5, message, key, Duration::ZERO),
        };
        let from = u64::try_from(from.as_micros()).unwrap_or(u64::MAX);
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(&u32::to_le_bytes(operation));
        bytes[4..8].copy_from_slice(&size.to_le_bytes());
        bytes[8..16].copy_from_slice(&total.to_le_bytes());
        bytes[16..24].copy_from_slice(&from.to_le_bytes());
        bytes
    }

    /// Reads a job.
    pub(crate) fn decode(bytes: [u8; LENGTH]) -> Result<Self> {
        let word = |at| u32::from_le_bytes([0, 1, 2, 3].map(|index: usize| bytes[at + index]));
        let long = |at| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let total = long(8);
        Ok(match word(0) {
            1 => Self::Downlink {
                write: word(4),
                total,
            },
            2 => Self::Uplink { total },
            3 => Self::Echo { total },
            4 => Self::Replay {
                channel: u8::try_from(word(4))
                    .ok()
                    .and_then(ChannelType::from_number)
                    .context("a channel that no client opens")?,
                from: Duration::from_micros(long(16)),
            },
            5 => Self::Show {
                message: word(4),
                key: total,
            },
            other => bail!("there is no job {other}: bytes were lost or changed"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_arrive_as_they_were_sent() {
        for job in [
            Job::Downlink {
                write: 1024,
                total: u64::MAX - 1,
            },
            Job::Uplink { total: 1 << 33 },
            Job::Echo { total: 64 },
            Job::Replay {
                channel: ChannelType::Inputs,
                from: Duration::from_micros(1_234_567_890_123),
            },
            Job::Show {
                message: 4096,
                key: u64::MAX,
            },
        ] {
            assert_eq!(Job::decode(job.encode()).unwrap(), job);
        }
        assert!(Job::decode([0; LENGTH]).is_err());
    }
}
