//! What carries out ciphers here: instructions mean little without.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};

/// Features of the processor on which ciphers depend.
const FLAGS: [&str; 8] = [
    "aes",
    "pclmulqdq",
    "ssse3",
    "avx",
    "avx2",
    "movbe",
    "vaes",
    "avx512f",
];
/// Ciphers of kernel TLS, as the kernel calls them.
const CIPHERS: [&str; 2] = ["gcm(aes)", "rfc7539(chacha20,poly1305)"];

/// The processor's features, and the kernel's implementations that are preferred.
pub(crate) fn describe() -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
    let crypto = fs::read_to_string("/proc/crypto").context("reading /proc/crypto")?;
    let line = cpu.lines().find_map(|line| line.strip_prefix("flags"));
    let all: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
    let flags: Vec<&str> = FLAGS
        .into_iter()
        .filter(|flag| all.contains(flag))
        .collect();
    let mut text = format!("processor: {}", flags.join(" "));
    for name in CIPHERS {
        if let Some(driver) = preferred(&crypto, name) {
            let _ = write!(text, "; kernel: {name} by {driver}");
        }
    }
    Ok(text)
}

/// The driver of the highest priority.
fn preferred<'a>(crypto: &'a str, name: &str) -> Option<&'a str> {
    let field = |block: &'a str, key: &str| {
        let mut fields = block.lines().filter_map(|line| line.split_once(':'));
        fields.find_map(|(found, value)| (found.trim() == key).then(|| value.trim()))
    };
    let blocks = crypto.split("\n\n");
    blocks
        .filter(|block| field(block, "name") == Some(name))
        .max_by_key(|block| field(block, "priority")?.parse::<u32>().ok())
        .and_then(|block| field(block, "driver"))
}
