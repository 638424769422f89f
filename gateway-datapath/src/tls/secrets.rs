//! The secrets of an established connection, kept so that they can be written down: what rustls
//! gives out for the kernel could be used, but not be moved to another process.
//!
//! With TLS 1.3 that is the traffic secret of each direction, from which key, IV and the next
//! secret follow (RFC 8446, sections 7.2 and 7.3). rustls tells it to nobody but a key log, so
//! our configurations have one, [`Capture`], which keeps it for [`Capture::take`].

use std::cell::RefCell;

use aws_lc_rs::hkdf::{Algorithm, HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets, KeyLog, ProtocolVersion};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::record::RecordError;
use super::role::Role;
use crate::encoded::Bytes;

/// Algorithm that protects records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Cipher {
    const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// Hash of the suite of TLS 1.3 that has this cipher (RFC 8446, appendix B.4).
    const fn hash_13(self) -> Algorithm {
        match self {
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => HKDF_SHA256,
            Self::Aes256Gcm => HKDF_SHA384,
        }
    }

    const fn hash_len_13(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => 32,
            Self::Aes256Gcm => 48,
        }
    }
}

/// What protects the records of one direction, until the next key update.
#[derive(PartialEq, Eq)]
pub(crate) struct Protection {
    pub(crate) cipher: Cipher,
    pub(crate) key: Zeroizing<Vec<u8>>,
    pub(crate) iv: [u8; 12],
}

impl Protection {
    pub(super) fn of(secrets: &ConnectionTrafficSecrets) -> Result<Self, RecordError> {
        let (cipher, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Cipher::ChaCha20Poly1305, key, iv)
            }
            _ => return Err(RecordError::Unexpected),
        };
        Ok(Self {
            cipher,
            key: Zeroizing::new(key.as_ref().to_vec()),
            iv: iv.as_ref().try_into().map_err(|_| RecordError::Decode)?,
        })
    }
}

/// Secrets of both directions.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Secrets {
    version: Version,
    cipher: Cipher,
    transmit: Bytes,
    receive: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    /// Each secret is key and IV, one behind the other.
    Tls12,
    /// Each secret is a traffic secret.
    Tls13,
}

impl Secrets {
    /// `captured` are the traffic secrets of a connection with TLS 1.3. They must lead to the
    /// keys that were extracted: records would be sealed with nonces that were used before.
    pub(super) fn new(
        extracted: &ExtractedSecrets,
        version: ProtocolVersion,
        role: Role,
        captured: Captured,
    ) -> Result<Self, RecordError> {
        let (tx, rx) = (
            Protection::of(&extracted.tx.1)?,
            Protection::of(&extracted.rx.1)?,
        );
        let secrets = if version == ProtocolVersion::TLSv1_3 {
            let (transmit, receive) = match role {
                Role::Client => (captured.client, captured.server),
                Role::Server => (captured.server, captured.client),
            };
            Self {
                version: Version::Tls13,
                cipher: tx.cipher,
                transmit,
                receive,
            }
        } else {
            let both =
                |p: &Protection| Bytes::from(&Zeroizing::new([&p.key[..], &p.iv].concat())[..]);
            Self {
                version: Version::Tls12,
                cipher: tx.cipher,
                transmit: both(&tx),
                receive: both(&rx),
            }
        };
        secrets.check()?;
        if secrets.transmit()? != tx || secrets.receive()? != rx {
            return Err(RecordError::OtherKeys);
        }
        Ok(secrets)
    }

    /// Whether the secrets are as long as they must be: they may come from outside.
    pub(crate) fn check(&self) -> Result<(), RecordError> {
        let len = match self.version {
            Version::Tls12 => self.cipher.key_len() + 12,
            Version::Tls13 => self.cipher.hash_len_13(),
        };
        let is_right = self.transmit.len() == len && self.receive.len() == len;
        is_right.then_some(()).ok_or(RecordError::Decode)
    }

    pub(crate) fn version(&self) -> ProtocolVersion {
        match self.version {
            Version::Tls12 => ProtocolVersion::TLSv1_2,
            Version::Tls13 => ProtocolVersion::TLSv1_3,
        }
    }

    /// What protects records on their way out.
    pub(super) fn transmit(&self) -> Result<Protection, RecordError> {
        self.protection(&self.transmit)
    }

    /// What protects records that come in.
    pub(super) fn receive(&self) -> Result<Protection, RecordError> {
        self.protection(&self.receive)
    }

    /// Goes on to the next secret of what is sent, as a key update does (RFC 8446, section 7.2).
    pub(crate) fn update_transmit(&mut self) -> Result<Protection, RecordError> {
        self.transmit = self.next(&self.transmit)?;
        self.transmit()
    }

    /// The same for what comes in.
    pub(crate) fn update_receive(&mut self) -> Result<Protection, RecordError> {
        self.receive = self.next(&self.receive)?;
        self.receive()
    }

    fn next(&self, secret: &[u8]) -> Result<Bytes, RecordError> {
        if self.version != Version::Tls13 {
            return Err(RecordError::Unexpected);
        }
        let next = self.expand(secret, b"traffic upd", self.cipher.hash_len_13())?;
        Ok(Bytes::from(&next[..]))
    }

    fn protection(&self, secret: &[u8]) -> Result<Protection, RecordError> {
        let key_len = self.cipher.key_len();
        let (key, iv) = match self.version {
            Version::Tls13 => (
                self.expand(secret, b"key", key_len)?,
                self.expand(secret, b"iv", 12)?,
            ),
            Version::Tls12 => {
                let (key, iv) = secret
                    .split_at_checked(key_len)
                    .ok_or(RecordError::Decode)?;
                (Zeroizing::new(key.to_vec()), Zeroizing::new(iv.to_vec()))
            }
        };
        Ok(Protection {
            cipher: self.cipher,
            key,
            iv: iv[..].try_into().map_err(|_| RecordError::Decode)?,
        })
    }

    /// `HKDF-Expand-Label` with an empty context (RFC 8446, section 7.1).
    fn expand(
        &self,
        secret: &[u8],
        label: &[u8],
        len: usize,
    ) -> Result<Zeroizing<Vec<u8>>, RecordError> {
        const PREFIX: &[u8] = b"tls13 ";
        let number = |value: usize| u8::try_from(value).map_err(|_| RecordError::Decode);
        let info = [
            &[0, number(len)?, number(PREFIX.len() + label.len())?][..],
            PREFIX,
            label,
            &[0],
        ];
        let prk = Prk::new_less_safe(self.cipher.hash_13(), secret);
        let mut out = Zeroizing::new(vec![0; len]);
        prk.expand(&info, Length(len))
            .and_then(|okm| okm.fill(&mut out))
            .map_err(|_| RecordError::Decode)?;
        Ok(out)
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// The first traffic secrets of a connection with TLS 1.3; empty with TLS 1.2.
#[derive(Default)]
pub(super) struct Captured {
    client: Bytes,
    server: Bytes,
}

thread_local! {
    static CAPTURED: RefCell<Captured> = RefCell::default();
}

/// A key log that keeps the traffic secrets until the handshake's step that made them is over.
/// rustls calls it inside that step, on the same thread.
#[derive(Debug)]
pub(super) struct Capture;

impl Capture {
    const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
    const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

    /// What was captured since the last call; `None`: nothing.
    pub(super) fn take() -> Option<Captured> {
        let captured = CAPTURED.take();
        (!captured.client.is_empty()).then_some(captured)
    }
}

impl KeyLog for Capture {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        CAPTURED.with_borrow_mut(|captured| match label {
            Self::CLIENT => captured.client = secret.into(),
            Self::SERVER => captured.server = secret.into(),
            _ => {}
        });
    }

    fn will_log(&self, label: &str) -> bool {
        label == Self::CLIENT || label == Self::SERVER
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::cipher::{AeadKey, Iv};

    use super::*;

    fn as_extracted(protection: &Protection) -> (u64, ConnectionTrafficSecrets) {
        let key: [u8; 32] = protection.key[..].try_into().unwrap();
        let (key, iv) = (AeadKey::from(key), Iv::copy(&protection.iv));
        (0, ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv })
    }

    fn captured() -> Captured {
        Captured {
            client: Bytes::from(&[1; 32][..]),
            server: Bytes::from(&[2; 32][..]),
        }
    }

    #[test]
    fn secrets_that_do_not_lead_to_the_keys_in_use_are_refused() {
        let secrets = |key_updates: [usize; 2]| {
            let mut used = Secrets {
                version: Version::Tls13,
                cipher: Cipher::ChaCha20Poly1305,
                transmit: captured().server,
                receive: captured().client,
            };
            (0..key_updates[0]).for_each(|_| drop(used.update_transmit()));
            (0..key_updates[1]).for_each(|_| drop(used.update_receive()));
            let extracted = ExtractedSecrets {
                tx: as_extracted(&used.transmit().unwrap()),
                rx: as_extracted(&used.receive().unwrap()),
            };
            Secrets::new(
                &extracted,
                ProtocolVersion::TLSv1_3,
                Role::Server,
                captured(),
            )
            .map(drop)
        };
        assert_eq!(secrets([0, 0]), Ok(()));
        assert_eq!(secrets([1, 0]), Err(RecordError::OtherKeys));
        assert_eq!(secrets([0, 1]), Err(RecordError::OtherKeys));
    }
}
