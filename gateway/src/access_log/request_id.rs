//! Numbers of requests, by which lines of several logs are tied together.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use http::{HeaderName, HeaderValue};
use serde::{Serialize, Serializer};

/// Longest number of a trusted proxy that is taken over, in characters.
const LONGEST: usize = 64;

/// Number of a request: of this gateway, or as a trusted proxy gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The header that has it, from trusted proxies and to the manager.
    pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

    /// A number that no other request has, at this gateway or another one.
    pub fn next() -> Self {
        static PROCESS: OnceLock<u64> = OnceLock::new();
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let process = PROCESS.get_or_init(|| {
            let mut random = [0; 8];
            // Without randomness numbers are unique in this process at least.
            let _ = SystemRandom::new().fill(&mut random);
            u64::from_be_bytes(random) >> 16
        });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{process:012x}-{number}").into())
    }

    /// A number that a trusted proxy gave; `None` for one that is longer than 64 characters or has
    /// others than letters, digits and `-_.:=+/@`.
    pub fn given(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?.trim();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:=+/@".contains(&byte);
        let is_good = (1..=LONGEST).contains(&text.len()) && text.bytes().all(is_plain);
        is_good.then(|| Self(text.into()))
    }

    /// The number that another process of this gateway gave.
    pub fn known(text: &str) -> Self {
        Self(text.into())
    }

    /// As the value of a header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_never_the_same() {
        let (first, second) = (RequestId::next(), RequestId::next());
        assert_ne!(first, second);
        assert_eq!(first.as_str()[..13], second.as_str()[..13]);
    }

    #[test]
    fn given_numbers_are_plain_and_short() {
        let given = |text: &str| RequestId::given(&HeaderValue::from_str(text).unwrap());
        for good in ["7f3a-1", "0af7651916cd43dd:8448", &"a".repeat(64)] {
            assert_eq!(given(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a\"b", "{x}", &"a".repeat(65)] {
            assert_eq!(given(bad), None, "{bad}");
        }
    }
}
