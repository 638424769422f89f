//! Protection of TLS records (RFC 8446, section 5; RFC 5246, section 6.2; RFC 5288; RFC 7905).

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey,
};
use rustls::ProtocolVersion;

use super::secrets::{Cipher, Protection};

/// Largest plaintext of a record, in bytes.
pub(super) const MAX_PLAINTEXT: usize = 16_384;
/// Content type, version and length, in bytes.
pub(super) const HEADER: usize = 5;
/// Most that protection adds to a plaintext, in bytes: header, explicit nonce, type, tag.
pub(super) const MAX_OVERHEAD: usize = HEADER + EXPLICIT_NONCE + 1 + TAG;

const EXPLICIT_NONCE: usize = 8;
const TAG: usize = 16;
/// Longest protected part of a record: RFC 8446, section 5.2, and RFC 5246, section 6.2.3.
const MAX_CIPHERTEXT_13: usize = MAX_PLAINTEXT + 256;
const MAX_CIPHERTEXT_12: usize = MAX_PLAINTEXT + 2_048;
/// What stands in every header, whatever the version (RFC 8446, section 5.1).
const WIRE_VERSION: [u8; 2] = [3, 3];

/// Bytes that may be sealed with one AES-GCM key: 2^24 records of full size, below the 2^24.5 of
/// RFC 8446, section 5.5. That bound is one on blocks, so that small records count for little.
const GCM_LIMIT: u64 = 1 << 38;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Alert,
    Handshake,
    ApplicationData,
}

impl Content {
    const fn wire(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::ApplicationData => 23,
        }
    }

    pub(crate) fn from_wire(byte: u8) -> Result<Self, RecordError> {
        match byte {
            21 => Ok(Self::Alert),
            22 => Ok(Self::Handshake),
            23 => Ok(Self::ApplicationData),
            _ => Err(RecordError::Unexpected),
        }
    }
}

/// Why a record cannot be taken, or not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("record does not decrypt")]
    BadMac,
    #[error("record too long")]
    Overflow,
    #[error("record of a kind that must not occur")]
    Unexpected,
    #[error("malformed record")]
    Decode,
    #[error("value that must not be")]
    IllegalParameter,
    #[error("too many records that carry no data")]
    TooMany,
    #[error("peer sent the alert {0}")]
    Alert(u8),
    #[error("key is used up")]
    KeyExhausted,
    #[error("keys are not those that are in use")]
    OtherKeys,
}

impl RecordError {
    /// The alert that tells the peer (RFC 8446, section 6.2); an alert is not answered.
    pub(crate) const fn alert(self) -> Option<u8> {
        Some(match self {
            Self::Unexpected | Self::TooMany => 10,
            Self::BadMac => 20,
            Self::Overflow => 22,
            Self::IllegalParameter => 47,
            Self::Decode => 50,
            Self::KeyExhausted | Self::OtherKeys => 80,
            Self::Alert(_) => return None,
        })
    }
}

/// Rules that differ between versions and algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Tls13,
    Tls12Gcm,
    Tls12ChaCha,
}

impl Scheme {
    /// Bytes before the ciphertext.
    const fn prefix(self) -> usize {
        match self {
            Self::Tls12Gcm => HEADER + EXPLICIT_NONCE,
            Self::Tls13 | Self::Tls12ChaCha => HEADER,
        }
    }

    /// Bytes behind the plaintext.
    const fn suffix(self) -> usize {
        match self {
            Self::Tls13 => 1 + TAG,
            Self::Tls12Gcm | Self::Tls12ChaCha => TAG,
        }
    }
}

/// The key of one direction.
struct RecordKey {
    aead: LessSafeKey,
    iv: [u8; 12],
    scheme: Scheme,
    sequence: u64,
    /// Bytes sealed, and how many may be.
    sealed: u64,
    limit: u64,
}

impl RecordKey {
    fn new(
        protection: &Protection,
        sequence: u64,
        version: ProtocolVersion,
    ) -> Result<Self, RecordError> {
        let (gcm, chacha) = if version == ProtocolVersion::TLSv1_3 {
            (Scheme::Tls13, Scheme::Tls13)
        } else {
            (Scheme::Tls12Gcm, Scheme::Tls12ChaCha)
        };
        let (algorithm, scheme, limit) = match protection.cipher {
            Cipher::Aes128Gcm => (&AES_128_GCM, gcm, GCM_LIMIT),
            Cipher::Aes256Gcm => (&AES_256_GCM, gcm, GCM_LIMIT),
            Cipher::ChaCha20Poly1305 => (&CHACHA20_POLY1305, chacha, u64::MAX),
        };
        let key = UnboundKey::new(algorithm, &protection.key).map_err(|_| RecordError::Decode)?;
        Ok(Self {
            aead: LessSafeKey::new(key),
            iv: protection.iv,
            scheme,
            sequence,
            sealed: 0,
            limit,
        })
    }

    /// Whether this is the key of this protection, as far as its IV tells, which is derived from
    /// the same secret.
    fn check(&self, protection: &Protection) -> Result<(), RecordError> {
        let is_same = self.iv == protection.iv;
        is_same.then_some(()).ok_or(RecordError::OtherKeys)
    }

    /// The per-record nonce: IV and sequence number, by exclusive or (RFC 8446, section 5.3).
    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    /// Additional data of TLS 1.2 (RFC 5246, section 6.2.3.3); `head` begins with content type
    /// and version.
    fn additional_data_12(&self, head: &[u8], plaintext: usize) -> Result<[u8; 13], RecordError> {
        let mut data = [0; 13];
        data[..8].copy_from_slice(&self.sequence.to_be_bytes());
        data[8..11].copy_from_slice(&head[..3]);
        data[11..].copy_from_slice(&wire_length(plaintext)?);
        Ok(data)
    }
}

fn wire_length(length: usize) -> Result<[u8; 2], RecordError> {
    let length = u16::try_from(length).map_err(|_| RecordError::Overflow)?;
    Ok(length.to_be_bytes())
}

/// Protects records on their way out.
pub(super) struct Sealer(RecordKey);

impl Sealer {
    /// `sequence` is the number of the next record.
    pub(super) fn new(
        protection: &Protection,
        sequence: u64,
        version: ProtocolVersion,
    ) -> Result<Self, RecordError> {
        RecordKey::new(protection, sequence, version).map(Self)
    }

    /// Fails when another key is in use than this.
    pub(super) fn check(&self, protection: &Protection) -> Result<(), RecordError> {
        self.0.check(protection)
    }

    /// How much the key has sealed, in bytes.
    pub(super) fn sealed(&self) -> u64 {
        self.0.sealed
    }

    /// Says how much the key has sealed before.
    pub(super) fn set_sealed(&mut self, bytes: u64) {
        self.0.sealed = bytes;
    }

    /// The number of the next record.
    pub(super) fn sequence(&self) -> u64 {
        self.0.sequence
    }

    /// Where the plaintext of a record begins.
    pub(super) fn prefix(&self) -> usize {
        self.0.scheme.prefix()
    }

    /// How many bytes a record has behind its plaintext.
    pub(super) fn suffix(&self) -> usize {
        self.0.scheme.suffix()
    }

    /// Whether the key has sealed so much that the next record should be a key update.
    ///
    /// The bound leaves room then, for that key update and for alerts.
    pub(super) fn is_worn(&self) -> bool {
        self.0.sealed >= self.0.limit
    }

    /// Makes a record of the `plaintext` bytes that stand behind [`Sealer::prefix`] bytes of
    /// `room`; returns the record's length. `room` has [`MAX_OVERHEAD`] bytes to spare.
    pub(super) fn seal(
        &mut self,
        content: Content,
        room: &mut [u8],
        plaintext: usize,
    ) -> Result<usize, RecordError> {
        let key = &mut self.0;
        if key.sequence == u64::MAX {
            return Err(RecordError::KeyExhausted);
        }
        let (prefix, suffix) = (key.scheme.prefix(), key.scheme.suffix());
        let length = prefix + plaintext + suffix;
        let nonce = key.nonce();
        let (head, body) = room[..length].split_at_mut(prefix);
        head[1..3].copy_from_slice(&WIRE_VERSION);
        head[3..HEADER].copy_from_slice(&wire_length(length - HEADER)?);
        let (text, tag_room) = body.split_at_mut(plaintext + suffix - TAG);
        let unique = Nonce::assume_unique_for_key(nonce);
        let sealed: Result<Tag, _> = match key.scheme {
            Scheme::Tls13 => {
                head[0] = Content::ApplicationData.wire();
                text[plaintext] = content.wire();
                key.aead
                    .seal_in_place_separate_tag(unique, Aad::from(&*head), text)
            }
            Scheme::Tls12Gcm | Scheme::Tls12ChaCha => {
                head[0] = content.wire();
                if key.scheme == Scheme::Tls12Gcm {
                    head[HEADER..].copy_from_slice(&nonce[4..]);
                }
                let data = key.additional_data_12(head, plaintext)?;
                key.aead
                    .seal_in_place_separate_tag(unique, Aad::from(data), text)
            }
        };
        let tag = sealed.map_err(|_| RecordError::KeyExhausted)?;
        tag_room.copy_from_slice(tag.as_ref());
        key.sequence += 1;
        key.sealed = key.sealed.saturating_add(length as u64);
        Ok(length)
    }

    /// Lets the key be used up after so many bytes.
    #[cfg(test)]
    pub(super) fn limit_to(&mut self, bytes: u64) {
        self.0.limit = bytes;
    }
}

/// Takes the protection off records that come in.
pub(super) struct Opener(RecordKey);

/// An opened record: what it carries, and where in its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) content: Content,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Opener {
    /// `sequence` is the number of the next record.
    pub(super) fn new(
        protection: &Protection,
        sequence: u64,
        version: ProtocolVersion,
    ) -> Result<Self, RecordError> {
        RecordKey::new(protection, sequence, version).map(Self)
    }

    /// Fails when another key is in use than this.
    pub(super) fn check(&self, protection: &Protection) -> Result<(), RecordError> {
        self.0.check(protection)
    }

    /// The number of the next record.
    pub(super) fn sequence(&self) -> u64 {
        self.0.sequence
    }

    /// Length of the record at the start of `bytes`, once all of it is there. A header that must
    /// not be is refused as soon as that shows.
    pub(super) fn complete(&self, bytes: &[u8]) -> Result<Option<usize>, RecordError> {
        let is_tls_13 = self.0.scheme == Scheme::Tls13;
        let Some(&kind) = bytes.first() else {
            return Ok(None);
        };
        let content = Content::from_wire(kind)?;
        if is_tls_13 && content != Content::ApplicationData {
            return Err(RecordError::Unexpected);
        }
        if bytes.len() > 2 && bytes[1] != WIRE_VERSION[0] {
            return Err(RecordError::Decode);
        }
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let longest = if is_tls_13 {
            MAX_CIPHERTEXT_13
        } else {
            MAX_CIPHERTEXT_12
        };
        if length == 0 && content != Content::ApplicationData {
            return Err(RecordError::Decode);
        }
        if length > longest {
            return Err(RecordError::Overflow);
        }
        Ok((bytes.len() >= HEADER + length).then_some(HEADER + length))
    }

    /// Decrypts a whole record in place, of which [`Opener::complete`] knows the length.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Opened, RecordError> {
        let key = &mut self.0;
        let prefix = key.scheme.prefix();
        if record.len() < prefix + TAG {
            return Err(RecordError::BadMac);
        }
        if key.sequence == u64::MAX {
            return Err(RecordError::KeyExhausted);
        }
        let text_len = record.len() - prefix - TAG;
        let (head, text) = record.split_at_mut(prefix);
        let mut nonce = key.nonce();
        let opened = match key.scheme {
            Scheme::Tls13 => {
                // Whatever version stands there (RFC 8446, section 5.2).
                head[1..3].copy_from_slice(&WIRE_VERSION);
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.aead.open_in_place(nonce, Aad::from(&*head), text)
            }
            Scheme::Tls12Gcm | Scheme::Tls12ChaCha => {
                if key.scheme == Scheme::Tls12Gcm {
                    nonce[4..].copy_from_slice(&head[HEADER..]);
                }
                let data = key.additional_data_12(head, text_len)?;
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.aead.open_in_place(nonce, Aad::from(data), text)
            }
        };
        let text = opened.map_err(|_| RecordError::BadMac)?;
        key.sequence += 1;
        // The content type counts here, and padding does (RFC 8446, section 5.4).
        if text.len() > MAX_PLAINTEXT + usize::from(key.scheme == Scheme::Tls13) {
            return Err(RecordError::Overflow);
        }
        let (content, plaintext) = match key.scheme {
            // The last byte that is not padding tells what the record carries.
            Scheme::Tls13 => match text.iter().rposition(|&byte| byte != 0) {
                Some(at) => (text[at], at),
                None => return Err(RecordError::Unexpected),
            },
            Scheme::Tls12Gcm | Scheme::Tls12ChaCha => (head[0], text.len()),
        };
        Ok(Opened {
            content: Content::from_wire(content)?,
            start: prefix,
            end: prefix + plaintext,
        })
    }
}
