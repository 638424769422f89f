//! The little of the Spice protocol that a gateway's peers must speak: the first message of a
//! channel.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// What a channel carries; the numbers are those of the Spice protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the protocol's own")]
pub enum ChannelType {
    Main = 1,
    Display = 2,
    Inputs = 3,
    Cursor = 4,
    Playback = 5,
    Record = 6,
    UsbRedir = 9,
    Port = 10,
}

impl ChannelType {
    /// The channels that every client of a plain VM opens.
    pub const PLAIN_VM: [Self; 4] = [Self::Main, Self::Display, Self::Inputs, Self::Cursor];

    const ALL: [Self; 8] = [
        Self::Main,
        Self::Display,
        Self::Inputs,
        Self::Cursor,
        Self::Playback,
        Self::Record,
        Self::UsbRedir,
        Self::Port,
    ];

    /// The type with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// The type with this name, as in `main`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The name by which Spice clients call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Display => "display",
            Self::Inputs => "inputs",
            Self::Cursor => "cursor",
            Self::Playback => "playback",
            Self::Record => "record",
            Self::UsbRedir => "usbredir",
            Self::Port => "port",
        }
    }

    /// Whether clients announce capabilities of this very channel, which makes their first
    /// message 42 bytes long instead of 38.
    fn has_own_capabilities(self) -> bool {
        matches!(
            self,
            Self::Main | Self::Display | Self::Playback | Self::Record
        )
    }
}

impl fmt::Display for ChannelType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Length of the fixed part that begins every link message, in bytes.
pub const LINK_HEADER: usize = 16;

/// The client's first message on a channel (`SpiceLinkHeader` and `SpiceLinkMess`), 38 or 42
/// bytes.
pub fn link_message(channel_type: ChannelType, channel_id: u8) -> Vec<u8> {
    const COMMON_CAPABILITIES: u32 = 0b1101;
    const CHANNEL_CAPABILITIES: u32 = 0b1111;
    const FIXED_SIZE: u32 = 18;
    let mut capabilities = vec![COMMON_CAPABILITIES];
    if channel_type.has_own_capabilities() {
        capabilities.push(CHANNEL_CAPABILITIES);
    }
    let own = u32::from(channel_type.has_own_capabilities());

    let mut message = b"REDQ".to_vec();
    let mut put = |value: u32| message.extend(value.to_le_bytes());
    put(2); // major version
    put(2); // minor version
    put(FIXED_SIZE + 4 * (1 + own));
    put(0); // connection id: a new session
    message.push(channel_type as u8);
    message.push(channel_id);
    let mut put = |value: u32| message.extend(value.to_le_bytes());
    put(1); // common capabilities
    put(own);
    put(FIXED_SIZE); // where the capabilities begin
    capabilities.into_iter().for_each(put);
    message
}

/// The length of a whole link message whose first bytes are `header`; `None` when it is none.
pub fn link_length(header: [u8; LINK_HEADER]) -> Option<usize> {
    const LONGEST: usize = 4096;
    let size = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
    let length = LINK_HEADER + usize::try_from(size).ok()?;
    (header.starts_with(b"REDQ") && (22..=LONGEST).contains(&length)).then_some(length)
}

/// Reads a whole link message and nothing after it.
pub async fn read_link(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut header = [0; LINK_HEADER];
    reader.read_exact(&mut header).await?;
    let length = link_length(header)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no Spice link message"))?;
    let mut message = header.to_vec();
    message.resize(length, 0);
    reader.read_exact(&mut message[LINK_HEADER..]).await?;
    Ok(message)
}

/// The channel type and id that a whole link message names.
pub fn linked_channel(message: &[u8]) -> Option<(ChannelType, u8)> {
    let kind = ChannelType::from_number(*message.get(20)?)?;
    Some((kind, *message.get(21)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_messages_have_the_recorded_lengths_and_fields() {
        for (kind, length) in [
            (ChannelType::Main, 42),
            (ChannelType::Display, 42),
            (ChannelType::Inputs, 38),
            (ChannelType::Cursor, 38),
            (ChannelType::Playback, 42),
        ] {
            let message = link_message(kind, 3);
            assert_eq!(message.len(), length, "{kind}");
            assert_eq!((message[20], message[21]), (kind as u8, 3));
            let header = *message.first_chunk().unwrap();
            assert_eq!(link_length(header), Some(length));
            assert_eq!(linked_channel(&message), Some((kind, 3)));
        }
        assert_eq!(link_length(*b"GET / HTTP/1.1\r\n"), None);
    }
}
