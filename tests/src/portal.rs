//! A portal that signs tickets itself (`TicketPublicKeys`).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Signs with Ed25519, and has its public key in a file.
pub struct Portal {
    key: Ed25519KeyPair,
    folder: TempDir,
}

impl Portal {
    /// A portal with a new key.
    ///
    /// # Errors
    /// When there is no randomness, or the file cannot be written.
    pub fn new() -> Result<Self> {
        let portal = Self {
            key: Ed25519KeyPair::generate().context("no key")?,
            folder: TempDir::with_prefix("testkit-portal-")?,
        };
        std::fs::write(portal.file(), portal.pem()?)?;
        Ok(portal)
    }

    /// The file, in PEM at first.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("portal.pem")
    }

    /// The public key.
    ///
    /// # Errors
    /// Never, as long as the library writes its keys.
    pub fn pem(&self) -> Result<String> {
        let der: PublicKeyX509Der<'_> = self.key.public_key().as_der().context("no DER")?;
        let body = STANDARD.encode(der.as_ref());
        Ok(format!(
            "-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"
        ))
    }

    /// A token for this host that is good for a minute, with these claims besides or instead.
    pub fn token(&self, host: SocketAddr, more: &Value) -> String {
        let mut claims = json!({
            "host": host.ip().to_string(),
            "port": host.port(),
            "exp": from_now(60),
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        self.sign(&claims)
    }

    /// A token with these claims alone.
    pub fn sign(&self, claims: &Value) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"JWT"}"#);
        let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
        let message = format!("{header}.{claims}");
        let signature = self.key.sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// So many seconds from now, since 1970.
pub fn from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    i64::try_from(now)
        .unwrap_or(i64::MAX)
        .saturating_add(seconds)
}
