//! Signed tickets: any text is a file of public keys or is refused; no token opens that was not
//! signed; and what is signed is read alike whatever its header and claims are.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gateway::fuzzing::{public_keys, signed_ticket};

use crate::input::Input;

/// The public key of RFC 8037, appendix A.2.
const KEYS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// A byte that says what follows: a file of keys, a token, or the header of a token with its claims
/// behind an empty line.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.byte() % 3;
    let rest = input.rest();
    match kind {
        0 => {
            if let Some(count) = public_keys(rest) {
                assert!((1..=16).contains(&count));
            }
        }
        1 => {
            if let Ok(token) = std::str::from_utf8(rest) {
                assert!(signed_ticket(KEYS, token).is_none(), "forged: {token}");
            }
        }
        _ => {
            let at = rest.windows(2).position(|two| two == b"\n\n");
            let (header, claims) = rest.split_at(at.unwrap_or(rest.len()));
            let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let claims = part(claims.trim_ascii_start());
            let token = format!("{}.{claims}.{}", part(header), part(&[0; 64]));
            assert!(signed_ticket(KEYS, &token).is_none(), "forged: {token}");
        }
    }
}
