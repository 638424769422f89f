//! Bytes in a text format, wiped when they are dropped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// Bytes that are written in base64 where a state is written down; they may be secret, so they
/// are never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bytes(Zeroizing<Vec<u8>>);

impl Bytes {
    /// The bytes, to be appended to.
    pub fn as_mut_vec(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({} B)", self.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = Zeroizing::new(STANDARD_NO_PAD.encode(&**self));
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = STANDARD_NO_PAD.decode(text.as_bytes());
        // The text may be secret: it is not repeated.
        let bytes = bytes.map_err(|_| D::Error::custom("not base64"))?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_are_not_printed() {
        for len in 0..10 {
            let bytes = Bytes::from(&vec![0xfb; len][..]);
            let text = serde_json::to_string(&bytes).unwrap();
            assert_eq!(serde_json::from_str::<Bytes>(&text).unwrap(), bytes);
        }
        let shown = format!("{:?}", Bytes::from(&b"secret"[..]));
        assert_eq!(shown, "Bytes(6 B)");
        let error = serde_json::from_str::<Bytes>("\"se*cret\"").unwrap_err();
        assert!(!error.to_string().contains("cret"));
    }
}
