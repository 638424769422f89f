//! Tickets that a portal signs: JSON Web Tokens (RFC 7519) that say which host and port they open.
//!
//! The gateway has the portal's public keys (`TicketPublicKeys`) and asks nobody. Signatures,
//! headers and the registered claims are checked by `jsonwebtoken`, with aws-lc-rs; of algorithms
//! only ES256, RS256 (RFC 7518) and `EdDSA` with Ed25519 (RFC 8037) are known here, each with keys of
//! its own kind, so that no key can be used with another algorithm than its own.

mod claims;
#[cfg(test)]
pub(crate) mod for_test;
mod keys;
mod refused;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{Context, SHA256};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};

use crate::grant::Grant;
use crate::pool::CLOCK_TOLERANCE;
use claims::Claims;
use keys::PublicKey;
pub use keys::{FormatError, PublicKeyFileError, PublicKeys};
use refused::Refused;

/// Bytes by which the `jti` of a token is known.
pub(crate) const TOKEN_ID: usize = 16;

/// A hash of a token's `jti` and of the key that it was signed with.
pub(crate) type TokenId = [u8; TOKEN_ID];

/// What tokens have to be like, besides being signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The `aud` of every token; `None`: no token has one.
    pub audience: Option<String>,
    /// How far ahead `exp` may lie.
    pub longest_life: Duration,
}

/// Checks signed tickets.
pub struct SignedTickets {
    keys: Arc<PublicKeys>,
    rules: Rules,
    refused: Refused,
}

/// What a signed ticket stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    /// What it permits.
    pub(crate) grant: Grant,
    /// From when on it is refused.
    pub(crate) expires: SystemTime,
    /// Good for one desktop session only, which is known by this.
    pub(crate) id: Option<TokenId>,
}

/// Why a token is refused. Never repeats what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("not a signed token, or its alg is not known")]
    Malformed,
    #[error("alg is none of ES256, EdDSA and RS256")]
    Algorithm,
    #[error("no key of TicketPublicKeys has this alg and kid")]
    UnknownKey,
    #[error("crit or b64 asks for an extension that is not known")]
    Critical,
    #[error("the signature is wrong")]
    Signature,
    #[error("it has expired (exp)")]
    Expired,
    #[error("it is not valid yet (nbf)")]
    TooEarly,
    #[error("exp lies further ahead than TicketMaxLife allows")]
    TooLong,
    #[error("aud is not TicketAudience, or is there although TicketAudience is not set")]
    Audience,
    #[error(
        "claims are missing or malformed: host, port, exp, and optionally nbf, aud, jti, network, \
         tls_port, channels"
    )]
    Claims,
    #[error("it was refused a short time ago")]
    Again,
}

impl Wrong {
    /// Whether the token will be refused at any later time, too.
    fn is_for_good(self) -> bool {
        !matches!(self, Self::TooEarly | Self::TooLong)
    }
}

/// Whether a token looks like a signed one: three parts between dots, which no other ticket has.
pub(crate) fn is_signed(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl SignedTickets {
    /// Takes tokens that were signed with one of these keys.
    pub fn new(keys: Arc<PublicKeys>, rules: Rules) -> Self {
        Self {
            keys,
            rules,
            refused: Refused::default(),
        }
    }

    /// Looks at a token: a check of a signature, unless it can be refused for less.
    pub(crate) fn open(&self, token: &str) -> Result<Signed, Wrong> {
        if self.refused.contains(token) {
            return Err(Wrong::Again);
        }
        let opened = self.open_new(token);
        if opened.as_ref().is_err_and(|wrong| wrong.is_for_good()) {
            self.refused.note(token);
        }
        opened
    }

    fn open_new(&self, token: &str) -> Result<Signed, Wrong> {
        let header = decode_header(token).map_err(|_| Wrong::Malformed)?;
        let mut failure = Wrong::UnknownKey;
        for key in self.keys.candidates(&header) {
            match self.open_with(key, token) {
                Err(Wrong::Signature) => failure = Wrong::Signature,
                opened => return opened,
            }
        }
        if !keys::is_known(header.alg) {
            failure = Wrong::Algorithm;
        }
        Err(failure)
    }

    fn open_with(&self, key: &PublicKey, token: &str) -> Result<Signed, Wrong> {
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = CLOCK_TOLERANCE.as_secs();
        validation.validate_nbf = true;
        if let Some(audience) = &self.rules.audience {
            validation.set_audience(&[audience]);
            validation.set_required_spec_claims(&["exp", "aud"]);
        }
        let decoded = decode::<Claims>(token, &key.key, &validation);
        let Claims { grant, expiry, id } = decoded.map_err(|error| wrong(error.kind()))?.claims;
        let now = SystemTime::now();
        let expiry = UNIX_EPOCH
            .checked_add(Duration::from_secs(expiry))
            .ok_or(Wrong::TooLong)?;
        let ahead = expiry.duration_since(now).unwrap_or_default();
        if ahead > self.rules.longest_life + CLOCK_TOLERANCE {
            return Err(Wrong::TooLong);
        }
        Ok(Signed {
            grant,
            // The library counts whole seconds, and takes a token in the last one too.
            expires: expiry + CLOCK_TOLERANCE + Duration::from_secs(1),
            id: id.map(|id| token_id(key, &id)),
        })
    }
}

/// Claims as they are read once a signature is good.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_claims(json: &[u8]) {
    let _ = serde_json::from_slice::<Claims>(json);
}

fn token_id(key: &PublicKey, id: &str) -> TokenId {
    let mut digest = Context::new(&SHA256);
    digest.update(&key.fingerprint);
    digest.update(id.as_bytes());
    let mut short = [0; TOKEN_ID];
    short.copy_from_slice(&digest.finish().as_ref()[..TOKEN_ID]);
    short
}

fn wrong(kind: &ErrorKind) -> Wrong {
    match kind {
        ErrorKind::InvalidSignature => Wrong::Signature,
        // The shape was good before, so this is what the header asks for.
        ErrorKind::InvalidToken => Wrong::Critical,
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim)
            if claim == "aud" =>
        {
            Wrong::Audience
        }
        ErrorKind::ExpiredSignature => Wrong::Expired,
        ErrorKind::ImmatureSignature => Wrong::TooEarly,
        ErrorKind::InvalidAudience => Wrong::Audience,
        ErrorKind::Json(_)
        | ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_) => Wrong::Claims,
        // What is no base64 besides the header is the rest of it.
        _ => Wrong::Malformed,
    }
}
