//! Doors to parsers that are private here, for the fuzz targets and nobody else. They do nothing
//! but call.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::desktops::{self, Inventory, Wrong};
use crate::pool::PoolKeys;
use crate::signed::{PublicKeys, Rules, SignedTickets};

/// The keys of a file with this text; why there are none is told by whoever reads the file.
pub fn pool_keys(text: &str) -> Option<PoolKeys> {
    PoolKeys::parse(text).ok()
}

/// How many public keys a file with this text holds; `None`: it is refused.
pub fn public_keys(text: &[u8]) -> Option<usize> {
    PublicKeys::parse(text).ok().map(|keys| keys.count())
}

/// Where a token leads that was signed with one of these keys; `None`: it is refused. Claims alone
/// are read besides, as a stranger's token gets no further than its signature.
pub fn signed_ticket(keys: &str, token: &str) -> Option<String> {
    if let Some(claims) = token.split('.').nth(1)
        && let Ok(claims) = URL_SAFE_NO_PAD.decode(claims)
    {
        crate::signed::read_claims(&claims);
    }
    let keys = PublicKeys::parse(keys.as_bytes()).ok()?;
    let rules = Rules {
        audience: None,
        longest_life: Duration::from_secs(u64::from(u32::MAX)),
    };
    let signed = SignedTickets::new(keys.into(), rules).open(token).ok()?;
    Some(signed.grant.target.to_string())
}

/// What stands in a file of desktops with this content, or what is wrong with it.
pub fn desktops(content: &[u8]) -> Result<Inventory, String> {
    // Files with passwords that it names are not to be found.
    desktops::inventory(content, Path::new("/nonexistent")).map_err(|wrong| match wrong {
        Wrong::Syntax(error) => error.to_string(),
        Wrong::Values(problems) => problems.to_string(),
    })
}

/// The one form of a path that decides where a request goes; `None`: it is refused.
pub fn canonical_path(path: &str) -> Option<String> {
    let path = crate::canonical_path::CanonicalPath::parse(path).ok()?;
    Some(path.as_str().to_owned())
}

/// Token and version that the query of a WebSocket's address names.
pub fn query(query: &str) -> (Option<String>, u32) {
    let query = crate::serving::query::Query::parse(query);
    (query.token, query.version)
}

/// A message of the hand-over, read and written again; `None`: it is not understood.
pub fn handover_message(text: &[u8]) -> Option<Vec<u8>> {
    let message: crate::handover::Message = serde_json::from_slice(text).ok()?;
    serde_json::to_vec(&message).ok()
}
