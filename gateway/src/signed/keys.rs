//! The file with the public keys of those who sign tickets: PEM (RFC 7468) or JWKS (RFC 7517).

use std::io;
use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde::Deserialize;
use serde_json::Value;
use x509_parser::asn1_rs::{FromDer, oid};
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::pem::Block;
use crate::pem_file::{PemFile, exposed};

/// As many are checked for one token at most; a portal that changes its key has two.
const MAX_KEYS: usize = 16;
/// Sizes of an RSA modulus, in bytes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;

/// What is wrong with a file of public keys. Never repeats what stands in it.
#[derive(Debug, thiserror::Error)]
pub enum PublicKeyFileError {
    /// The file cannot be read.
    #[error("{}: TicketPublicKeys: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        reason: io::Error,
    },
    /// The content is no set of public keys.
    #[error("{}: TicketPublicKeys: {wrong}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        wrong: FormatError,
    },
}

/// Why a text is no set of public keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Neither of the formats.
    #[error("expected public keys in PEM, or a JSON object with \"keys\" (JWKS): {0}")]
    Neither(String),
    /// A private key, which must stay with who signs.
    #[error(
        "key {0} is a private key; only public keys belong here, so replace it at its owner too"
    )]
    Private(usize),
    /// A symmetric key: whoever can check a token could make one.
    #[error(
        "key {0} is a secret that is shared (kty oct); tokens must be signed with a private key"
    )]
    Shared(usize),
    /// A key that cannot be used.
    #[error("key {0} cannot be used; expected RSA of 2048 to 8192 bits, EC on P-256, or Ed25519")]
    Unusable(usize),
    /// There is none.
    #[error("there is no key for RS256, ES256 or EdDSA in the file")]
    NoKey,
    /// There are too many.
    #[error("there are more than {MAX_KEYS} keys in the file")]
    TooMany,
}

/// Public keys of those who sign tickets.
pub struct PublicKeys {
    keys: Vec<PublicKey>,
    /// Where to look, when others may write to the file.
    exposed: Option<String>,
}

/// One of them.
pub(super) struct PublicKey {
    /// The only one that it is used with.
    pub(super) algorithm: Algorithm,
    /// Its name, if it has one.
    id: Option<String>,
    pub(super) key: DecodingKey,
    /// Tells it from others.
    pub(super) fingerprint: [u8; 32],
}

/// Whether tokens may be signed so at all.
pub(super) fn is_known(algorithm: Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::ES256 | Algorithm::RS256 | Algorithm::EdDSA
    )
}

impl PublicKeys {
    /// Of a file that was read already.
    pub fn from_file(file: &PemFile) -> Result<Self, PublicKeyFileError> {
        let path = &file.path;
        let of_file = |reason| PublicKeyFileError::File {
            path: path.clone(),
            reason,
        };
        let text = file.bytes().map_err(of_file)?;
        let exposed = exposed(path, 0o022).map_err(of_file)?;
        let mut keys = Self::parse(text).map_err(|wrong| PublicKeyFileError::Format {
            path: path.clone(),
            wrong,
        })?;
        keys.exposed = exposed.map(|mode| {
            format!(
                "TicketPublicKeys: {} has mode {mode:03o}: others may change it, and whoever adds a key can make tickets; expected 644 or less",
                path.display(),
            )
        });
        Ok(keys)
    }

    /// Reads either format.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, FormatError> {
        let begin = text.trim_ascii_start();
        let begin = begin.strip_prefix(b"\xef\xbb\xbf").unwrap_or(begin);
        let keys = if begin.starts_with(b"{") {
            of_jwks(begin)?
        } else {
            of_pem(text)?
        };
        match keys.len() {
            0 => Err(FormatError::NoKey),
            1..=MAX_KEYS => Ok(Self {
                keys,
                exposed: None,
            }),
            _ => Err(FormatError::TooMany),
        }
    }

    /// What the administrator should know about the file.
    pub fn warning(&self) -> Option<&str> {
        self.exposed.as_deref()
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Those that a token with this header may be signed with. A key without a name, as all in PEM,
    /// may be the one that a token names.
    pub(super) fn candidates<'a>(
        &'a self,
        header: &'a Header,
    ) -> impl Iterator<Item = &'a PublicKey> {
        self.keys.iter().filter(|key| {
            let is_named = match (&key.id, &header.kid) {
                (Some(id), Some(asked)) => id == asked,
                (None, _) | (_, None) => true,
            };
            is_named && key.algorithm == header.alg
        })
    }
}

impl PublicKey {
    /// RSA, by modulus and exponent, big endian (RFC 8017, section 3.1).
    fn rsa(n: &[u8], e: &[u8]) -> Option<Self> {
        let strip = |number: &[u8]| -> Vec<u8> {
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            number[zeros..].to_vec()
        };
        let (n, e) = (strip(n), strip(e));
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        let is_exponent = (1..=8).contains(&e.len()) && is_odd(&e) && e != [1];
        // A first byte below 128 would make it some bits shorter than its bytes.
        let is_long = n.len() > *RSA_BYTES.start() || n.first().is_some_and(|first| *first >= 128);
        if !(RSA_BYTES.contains(&n.len()) && is_long && is_odd(&n) && is_exponent) {
            return None;
        }
        Some(Self {
            algorithm: Algorithm::RS256,
            id: None,
            key: DecodingKey::from_rsa_raw_components(&n, &e),
            fingerprint: fingerprint(b"RSA", &[n, e].concat()),
        })
    }

    /// A point on P-256 (SEC 1, section 2.3.3).
    fn p256(point: &[u8]) -> Option<Self> {
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()?;
        Some(Self {
            algorithm: Algorithm::ES256,
            id: None,
            key: DecodingKey::from_ec_der(point),
            fingerprint: fingerprint(b"P-256", point),
        })
    }

    /// Ed25519 (RFC 8032, section 5.1.5).
    fn ed25519(key: &[u8]) -> Option<Self> {
        ParsedPublicKey::new(&ED25519, key).ok()?;
        Some(Self {
            algorithm: Algorithm::EdDSA,
            id: None,
            key: DecodingKey::from_ed_der(key),
            fingerprint: fingerprint(b"Ed25519", key),
        })
    }
}

fn fingerprint(kind: &[u8], key: &[u8]) -> [u8; 32] {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, &[kind, b":", key].concat()).as_ref());
    fingerprint
}

/// Every block `PUBLIC KEY` (RFC 7468, section 13); text around them says nothing.
fn of_pem(text: &[u8]) -> Result<Vec<PublicKey>, FormatError> {
    let neither = |error: &dyn std::fmt::Display| FormatError::Neither(error.to_string());
    let blocks = Block::all(text).map_err(|error| neither(&error))?;
    if blocks.is_empty() {
        return Err(neither(&"it has neither"));
    }
    let mut keys = Vec::new();
    for (number, block) in (1..).zip(&blocks) {
        if block.is_private_key() {
            return Err(FormatError::Private(number));
        }
        if block.label() != "PUBLIC KEY" {
            return Err(FormatError::Unusable(number));
        }
        let der = block.der().map_err(|error| neither(&error))?;
        keys.push(of_info(&der).ok_or(FormatError::Unusable(number))?);
    }
    Ok(keys)
}

/// A `SubjectPublicKeyInfo` (RFC 5280, section 4.1).
fn of_info(der: &[u8]) -> Option<PublicKey> {
    let (rest, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let algorithm = &info.algorithm;
    // RFC 8410, section 3.
    if algorithm.algorithm == oid!(1.3.101.112) {
        return PublicKey::ed25519(&info.subject_public_key.data);
    }
    match info.parsed().ok()? {
        Parsed::RSA(key) => PublicKey::rsa(key.modulus, key.exponent),
        Parsed::EC(point) => {
            let curve = algorithm.parameters.as_ref()?.as_oid().ok()?;
            // secp256r1 (RFC 5480, section 2.1.1.1).
            let is_p256 = curve == oid!(1.2.840.10045.3.1.7);
            is_p256.then(|| PublicKey::p256(point.data()))?
        }
        _ => None,
    }
}

/// A JWKS, or a single key. Keys for other purposes and of unknown kinds are passed over (RFC 7517,
/// section 5).
fn of_jwks(text: &[u8]) -> Result<Vec<PublicKey>, FormatError> {
    let neither = |error: serde_json::Error| {
        FormatError::Neither(format!("line {}: not well-formed JSON", error.line()))
    };
    let set: Value = serde_json::from_slice(text).map_err(neither)?;
    let single = [set.clone()];
    let written = match &set["keys"] {
        Value::Array(keys) => keys.as_slice(),
        _ if set["kty"].is_string() => &single,
        _ => return Err(FormatError::Neither("there is no list \"keys\"".to_owned())),
    };
    let mut keys = Vec::new();
    for (number, written) in (1..).zip(written) {
        if written["kty"] == "oct" {
            return Err(FormatError::Shared(number));
        }
        // RFC 7518, sections 6.2.2 and 6.3.2.
        if written.get("d").is_some() {
            return Err(FormatError::Private(number));
        }
        let key = Jwk::deserialize(written).map_err(|_| FormatError::Unusable(number))?;
        keys.extend(of_jwk(&key).map_err(|Unusable| FormatError::Unusable(number))?);
    }
    Ok(keys)
}

/// A key that is none, or a weak one.
struct Unusable;

/// `None`: it is for something else.
fn of_jwk(jwk: &Jwk) -> Result<Option<PublicKey>, Unusable> {
    let decode = |text: &str| {
        let decoded = URL_SAFE_NO_PAD.decode(text);
        decoded.map_err(|_| Unusable)
    };
    if !matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    ) {
        return Ok(None);
    }
    let key = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => PublicKey::rsa(&decode(&rsa.n)?, &decode(&rsa.e)?),
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            let (x, y) = (decode(&ec.x)?, decode(&ec.y)?);
            // Uncompressed; each has the length of the field (RFC 7518, section 6.2.1.2).
            let is_whole = x.len() == 32 && y.len() == 32;
            is_whole
                .then(|| PublicKey::p256(&[&[4], &x[..], &y].concat()))
                .flatten()
        }
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
            PublicKey::ed25519(&decode(&okp.x)?)
        }
        _ => return Ok(None),
    };
    let mut key = key.ok_or(Unusable)?;
    if jwk
        .common
        .key_algorithm
        .is_some_and(|known| known != KeyAlgorithm::from(key.algorithm))
    {
        return Ok(None);
    }
    key.id.clone_from(&jwk.common.key_id);
    Ok(Some(key))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::super::for_test::Portal;
    use super::*;

    fn wrong(text: &str) -> FormatError {
        PublicKeys::parse(text.as_bytes())
            .err()
            .expect("a wrong file")
    }

    #[test]
    fn files_hold_several_keys_and_text_around_them() {
        let [first, second] = [Portal::ec(), Portal::ed()];
        let pem = format!(
            "portal of the north\n{}\n\nsouth\n{}",
            first.pem(),
            second.pem()
        );
        assert_eq!(PublicKeys::parse(pem.as_bytes()).unwrap().count(), 2);
        let mut encryption = second.jwk("e");
        encryption["use"] = json!("enc");
        let other = json!({"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"});
        let set = json!({"keys": [first.jwk("1"), encryption, other, {"kty": "new"}]});
        let text = format!("\u{feff}{set}");
        assert_eq!(PublicKeys::parse(text.as_bytes()).unwrap().count(), 1);
    }

    #[test]
    fn what_does_not_belong_there_is_refused_and_not_repeated() {
        let key = Portal::ec();
        let pem = key.pem();
        let private = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        assert_eq!(wrong(&format!("{pem}{private}")), FormatError::Private(2));
        let mut jwk = key.jwk("1");
        jwk["d"] = json!("secret");
        assert_eq!(
            wrong(&json!({"keys": [jwk]}).to_string()),
            FormatError::Private(1)
        );
        let shared = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}).to_string();
        assert_eq!(wrong(&shared), FormatError::Shared(1));
        assert_eq!(wrong(r#"{"keys": []}"#), FormatError::NoKey);
        let certificate = pem.replace("PUBLIC KEY", "CERTIFICATE");
        assert_eq!(wrong(&certificate), FormatError::Unusable(1));
        assert_eq!(wrong(&pem.repeat(MAX_KEYS + 1)), FormatError::TooMany);
        for neither in [
            "",
            "secret",
            "{",
            r#"{"secret": 1}"#,
            "-----BEGIN PUBLIC KEY-----\n",
        ] {
            let wrong = wrong(neither);
            assert!(
                matches!(wrong, FormatError::Neither(_)),
                "{neither}: {wrong}"
            );
            assert!(!wrong.to_string().contains("secret"), "{wrong}");
        }
    }

    #[test]
    fn weak_and_broken_keys_are_refused() {
        let (ec, ed, rsa) = (Portal::ec(), Portal::ed(), Portal::rsa());
        let changed = |portal: &Portal, member: &str, value: &str| {
            let mut jwk = portal.jwk("1");
            jwk[member] = json!(value);
            wrong(&json!({"keys": [jwk]}).to_string())
        };
        let zeros = URL_SAFE_NO_PAD.encode([0; 32]);
        let short = URL_SAFE_NO_PAD.encode([255; 128]);
        let even = URL_SAFE_NO_PAD.encode([254; 256]);
        for (portal, member, value) in [
            (&ec, "x", zeros.as_str()),
            (&ec, "y", "AA"),
            (&ec, "x", "?"),
            (&ed, "x", "AA"),
            (&rsa, "n", &short),
            (&rsa, "n", &even),
            (&rsa, "n", ""),
            (&rsa, "e", "AQ"),
            (&rsa, "e", "Ag"),
            (&rsa, "e", ""),
        ] {
            let found = changed(portal, member, value);
            assert_eq!(found, FormatError::Unusable(1), "{member} {value}");
        }
        // A point that is not on the curve, and another algorithm.
        let pem = ec.pem();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let mut der = base64::engine::general_purpose::STANDARD
            .decode(body)
            .unwrap();
        *der.last_mut().unwrap() ^= 1;
        assert!(of_info(&der).is_none());
        der.truncate(40);
        assert!(of_info(&der).is_none());
    }

    #[test]
    fn a_file_that_others_may_write_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("portal.pem");
        fs::write(&path, Portal::ed().pem()).unwrap();
        for (mode, is_exposed) in [(0o600, false), (0o644, false), (0o664, true), (0o646, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let keys = PublicKeys::from_file(&PemFile::read(&path)).unwrap();
            assert_eq!(keys.warning().is_some(), is_exposed, "{mode:o}");
        }
        fs::remove_file(&path).unwrap();
        let error = PublicKeys::from_file(&PemFile::read(&path)).err().unwrap();
        assert!(
            error.to_string().contains("portal.pem: TicketPublicKeys: "),
            "{error}"
        );
    }
}
