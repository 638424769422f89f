//! What a client gets, as a client would read it.

/// A client's view of a channel.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) payload: Vec<u8>,
    pub(super) pongs: Vec<Vec<u8>>,
    /// A Close, and its code.
    pub(super) close: Option<Option<u16>>,
    /// The last frame is whole.
    pub(super) is_whole: bool,
}

/// Longest payload that every client takes, in bytes.
const MAX_PAYLOAD: usize = 65_536;

impl Sent {
    /// Takes all for payload.
    pub(super) fn raw(bytes: &[u8]) -> Self {
        Self {
            payload: bytes.to_vec(),
            is_whole: true,
            ..Self::default()
        }
    }

    /// Reads frames; panics where they break a rule. Payload of a frame that is not whole counts.
    pub(super) fn read(mut bytes: &[u8], may_ping: bool) -> Self {
        let mut sent = Self {
            is_whole: true,
            ..Self::default()
        };
        while let [first, rest @ ..] = bytes {
            assert!(sent.close.is_none(), "something behind the Close");
            let Some((length, rest)) = length(rest) else {
                sent.is_whole = false;
                break;
            };
            assert!(length <= MAX_PAYLOAD, "{length} bytes");
            let (payload, behind) = rest.split_at(length.min(rest.len()));
            sent.is_whole = payload.len() == length;
            match first {
                0x82 => {
                    assert_ne!(length, 0, "an empty frame");
                    sent.payload.extend_from_slice(payload);
                }
                _ if !sent.is_whole => {}
                0x88 => {
                    assert!(length == 0 || length == 2);
                    sent.close = Some(payload.first_chunk().copied().map(u16::from_be_bytes));
                }
                0x89 => assert!(
                    may_ping && length == 0,
                    "pinged a client that cannot answer"
                ),
                0x8a => sent.pongs.push(payload.to_vec()),
                other => panic!("a frame that begins with {other:#04x}"),
            }
            bytes = behind;
        }
        sent
    }
}

/// The length of a frame whose header goes on with `rest`, and what follows the header.
fn length(rest: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = rest.split_first()?;
    assert_eq!(first & 0x80, 0, "masked");
    let (number, least, rest) = match first {
        126 => {
            let (bytes, rest) = rest.split_first_chunk()?;
            (u64::from(u16::from_be_bytes(*bytes)), 126, rest)
        }
        127 => {
            let (bytes, rest) = rest.split_first_chunk()?;
            (u64::from_be_bytes(*bytes), 65_536, rest)
        }
        short => (short.into(), 0, rest),
    };
    assert!(number >= least, "not the shortest length");
    Some((usize::try_from(number).expect("64 bits"), rest))
}
