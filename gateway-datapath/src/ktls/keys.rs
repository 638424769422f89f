//! Keys as the kernel takes them (`struct tls12_crypto_info_*` in linux/tls.h).

use rustls::ProtocolVersion;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::tls::{Cipher, Protection};

/// A version of TLS with a cipher, as far as the gateway and the kernel can have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    version: Version,
    cipher: Cipher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Tls12,
    Tls13,
}

/// Bytes that may be sealed with one AES-GCM key: see the same limit of the gateway's own record
/// layer (tls/record.rs).
const GCM_LIMIT: u64 = 1 << 38;

impl Suite {
    /// All that the gateway can agree on with a client.
    pub const ALL: [Self; 6] = [
        Self::new(Version::Tls13, Cipher::Aes128Gcm),
        Self::new(Version::Tls13, Cipher::Aes256Gcm),
        Self::new(Version::Tls13, Cipher::ChaCha20Poly1305),
        Self::new(Version::Tls12, Cipher::Aes128Gcm),
        Self::new(Version::Tls12, Cipher::Aes256Gcm),
        Self::new(Version::Tls12, Cipher::ChaCha20Poly1305),
    ];

    const fn new(version: Version, cipher: Cipher) -> Self {
        Self { version, cipher }
    }

    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match (self.version, self.cipher) {
            (Version::Tls13, Cipher::Aes128Gcm) => "TLS 1.3 AES-128-GCM",
            (Version::Tls13, Cipher::Aes256Gcm) => "TLS 1.3 AES-256-GCM",
            (Version::Tls13, Cipher::ChaCha20Poly1305) => "TLS 1.3 CHACHA20-POLY1305",
            (Version::Tls12, Cipher::Aes128Gcm) => "TLS 1.2 AES-128-GCM",
            (Version::Tls12, Cipher::Aes256Gcm) => "TLS 1.2 AES-256-GCM",
            (Version::Tls12, Cipher::ChaCha20Poly1305) => "TLS 1.2 CHACHA20-POLY1305",
        }
    }

    /// How many bytes may be sent with one key.
    pub(super) const fn limit(self) -> u64 {
        match self.cipher {
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => GCM_LIMIT,
            Cipher::ChaCha20Poly1305 => u64::MAX,
        }
    }

    pub(super) fn is_tls_13(self) -> bool {
        self.version == Version::Tls13
    }

    /// Bytes of its key.
    pub(crate) const fn key_len(self) -> usize {
        match self.cipher {
            Cipher::Aes128Gcm => 16,
            Cipher::Aes256Gcm | Cipher::ChaCha20Poly1305 => 32,
        }
    }

    /// Bytes of a record besides its plaintext: header, explicit nonce (RFC 5288, section 3),
    /// content type of TLS 1.3, tag.
    pub(crate) const fn overhead(self) -> u64 {
        match (self.version, self.cipher) {
            (Version::Tls13, _) => 5 + 1 + 16,
            (Version::Tls12, Cipher::ChaCha20Poly1305) => 5 + 16,
            (Version::Tls12, Cipher::Aes128Gcm | Cipher::Aes256Gcm) => 5 + 8 + 16,
        }
    }

    /// Bytes of the structure with its key.
    pub(super) const fn info_len(self) -> usize {
        // The nonce has 12 bytes in one piece, or as 4 of salt and 8 that count.
        4 + 12 + self.key_len() + 8
    }

    /// Numbers of `struct tls_crypto_info`: version and cipher.
    const fn numbers(self) -> [u16; 2] {
        let version = match self.version {
            Version::Tls12 => 0x0303,
            Version::Tls13 => 0x0304,
        };
        let cipher = match self.cipher {
            Cipher::Aes128Gcm => 51,
            Cipher::Aes256Gcm => 52,
            Cipher::ChaCha20Poly1305 => 54,
        };
        [version, cipher]
    }
}

impl Serialize for Suite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Suite {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let mut all = Self::ALL.into_iter();
        all.find(|suite| suite.name() == name)
            .ok_or_else(|| D::Error::custom("expected a suite of TLS"))
    }
}

/// The key of one direction; never printed.
pub(crate) struct Key {
    suite: Suite,
    info: Zeroizing<Vec<u8>>,
}

impl Key {
    /// `sequence` is the number of the next record, which may be sent with it.
    pub(super) fn new(
        protection: &Protection,
        sequence: u64,
        version: ProtocolVersion,
    ) -> Option<Self> {
        let version = match version {
            ProtocolVersion::TLSv1_2 => Version::Tls12,
            ProtocolVersion::TLSv1_3 => Version::Tls13,
            _ => return None,
        };
        let suite = Suite::new(version, protection.cipher);
        Self::from_parts(suite, &protection.key, protection.iv, sequence)
    }

    /// `None`: the key has another length.
    pub(crate) fn from_parts(
        suite: Suite,
        key: &[u8],
        iv: [u8; 12],
        sequence: u64,
    ) -> Option<Self> {
        if key.len() != suite.key_len() {
            return None;
        }
        let [version, cipher] = suite.numbers();
        // Long enough for all, so that no copy is left behind when it grows.
        let mut info = Zeroizing::new(Vec::with_capacity(64));
        info.extend(version.to_ne_bytes());
        info.extend(cipher.to_ne_bytes());
        match (suite.version, suite.cipher) {
            (_, Cipher::ChaCha20Poly1305) => {
                info.extend(iv);
                info.extend(key);
            }
            (version, Cipher::Aes128Gcm | Cipher::Aes256Gcm) => {
                let mut explicit = iv;
                if version == Version::Tls12 {
                    // The kernel counts this nonce up from here, while the gateway's record layer
                    // has used it with sequence numbers by exclusive or. The other half of all
                    // values was used by neither. (What comes in carries its own.)
                    explicit[4] ^= 0x80;
                }
                info.extend(&explicit[4..]);
                info.extend(key);
                info.extend(&iv[..4]);
            }
        }
        info.extend(sequence.to_be_bytes());
        Some(Self { suite, info })
    }

    pub(super) fn suite(&self) -> Suite {
        self.suite
    }

    /// The structure's bytes.
    pub(super) fn info(&self) -> &[u8] {
        &self.info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IV: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    #[test]
    fn structures_are_laid_out_as_the_kernel_has_them() {
        for suite in Suite::ALL {
            let key = vec![0x55; suite.key_len()];
            let info = Key::from_parts(suite, &key, IV, 7).unwrap().info;
            let size = match suite.cipher {
                Cipher::Aes128Gcm => size_of::<libc::tls12_crypto_info_aes_gcm_128>(),
                Cipher::Aes256Gcm => size_of::<libc::tls12_crypto_info_aes_gcm_256>(),
                Cipher::ChaCha20Poly1305 => size_of::<libc::tls12_crypto_info_chacha20_poly1305>(),
            };
            assert_eq!(info.len(), size, "{}", suite.name());
            assert_eq!(suite.info_len(), size, "{}", suite.name());
            assert_eq!(info[size - 8..], [0, 0, 0, 0, 0, 0, 0, 7]);
        }
    }

    #[test]
    fn salt_and_nonce_stand_where_they_belong() {
        let info = |suite| Key::from_parts(suite, &[0x55; 16], IV, 7).unwrap().info;
        let tls_13 = info(Suite::new(Version::Tls13, Cipher::Aes128Gcm));
        assert_eq!(tls_13[4..12], IV[4..]);
        assert_eq!(tls_13[28..32], IV[..4]);
        let tls_12 = info(Suite::new(Version::Tls12, Cipher::Aes128Gcm));
        assert_eq!(tls_12[4..12], [0x85, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(tls_12[28..32], IV[..4]);
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        assert!(Key::from_parts(Suite::ALL[0], &[0; 32], IV, 0).is_none());
    }
}
