//! Portals of the tests: keys of each kind, and tokens as wrong as they are asked for.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{PublicKeys, Rules, SignedTickets};

/// Who signs.
pub(crate) enum Portal {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(&'static RsaKeyPair),
}

impl Portal {
    pub(crate) fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    /// The same key each time, as making one takes a while.
    pub(crate) fn rsa() -> Self {
        static KEY: OnceLock<RsaKeyPair> = OnceLock::new();
        Self::Rsa(KEY.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
            Self::Rsa(_) => "RS256",
        }
    }

    /// The public key in PEM.
    pub(crate) fn pem(&self) -> String {
        fn der(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Vec<u8> {
            key.as_der().unwrap().as_ref().to_vec()
        }
        let der = match self {
            Self::Ec(key) => der(key.public_key()),
            Self::Ed(key) => der(key.public_key()),
            Self::Rsa(key) => der(key.public_key()),
        };
        let body = STANDARD.encode(der);
        let lines: Vec<_> = body
            .as_bytes()
            .chunks(64)
            .map(|line| str::from_utf8(line).unwrap())
            .collect();
        let body = lines.join("\n");
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    }

    /// The public key as a JWK.
    pub(crate) fn jwk(&self, id: &str) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ec(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y), "kid": id})
            }
            Self::Ed(key) => {
                let x = encode(key.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": id})
            }
            Self::Rsa(key) => {
                let n = key.public_key().modulus().big_endian_without_leading_zero();
                let e = key.public_key().exponent();
                let e = e.big_endian_without_leading_zero();
                json!({"kty": "RSA", "n": encode(n), "e": encode(e), "kid": id, "alg": "RS256"})
            }
        }
    }

    /// A token with this header and these claims.
    pub(crate) fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let bytes = message.as_bytes();
        let random = SystemRandom::new();
        let signature = match self {
            Self::Ec(key) => key.sign(&random, bytes).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(bytes).as_ref().to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let done = key.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature);
                done.map(|()| signature).unwrap()
            }
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token as it should be.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({"alg": self.algorithm(), "typ": "JWT"}), claims)
    }

    /// Who takes what it signs.
    pub(crate) fn checker(&self) -> SignedTickets {
        checker(&self.pem(), None)
    }
}

/// Who takes what the owners of these keys sign, for an hour at most.
pub(crate) fn checker(keys: &str, audience: Option<&str>) -> SignedTickets {
    let keys = PublicKeys::parse(keys.as_bytes()).unwrap();
    let rules = Rules {
        audience: audience.map(str::to_owned),
        longest_life: std::time::Duration::from_secs(3_600),
    };
    SignedTickets::new(keys.into(), rules)
}

/// So many seconds from now, since 1970.
pub(crate) fn from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + seconds
}

/// Claims of a token that is good for a minute, with these besides.
pub(crate) fn claims(more: &Value) -> Value {
    let mut claims = json!({"host": "10.0.0.7", "port": 5900, "exp": from_now(60)});
    let members = claims.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    claims
}
