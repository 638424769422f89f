//! Digests, as people and programs write them.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};

/// The digest of these bytes, in hexadecimal digits.
pub(crate) fn sha256(content: &[u8]) -> String {
    let digest = digest(&SHA256, content);
    let mut text = String::new();
    for byte in digest.as_ref() {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}
