//! Paths and queries: a path that is passed on means the same to whoever reads it, and a query is
//! read as the standard library of forms reads it.

use gateway::fuzzing::{canonical_path, query};

/// A path and, behind a question mark, a query.
pub fn run(bytes: &[u8]) {
    let Ok(target) = std::str::from_utf8(bytes) else {
        return;
    };
    let (path, rest) = target.split_once('?').unwrap_or((target, ""));
    if let Some(canonical) = canonical_path(path) {
        assert_eq!(canonical_path(&canonical).as_ref(), Some(&canonical));
        let decoded = decode(&canonical);
        assert_eq!(decode(path), decoded, "{path:?} becomes {canonical:?}");
        assert_eq!(resolve(&decoded), decoded, "{path:?} leads elsewhere");
    }
    let (token, version) = query(rest);
    // A token that is named as it stands, once, is found as it stands.
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if let Some((_, value)) = rest.rsplit_once("token=")
        && plain(value)
        && (rest.len() == "token=".len() + value.len())
    {
        assert_eq!(token.as_deref(), Some(value));
    }
    if rest.is_empty() {
        assert_eq!((token, version), (None, 1));
    }
}

/// The path without its percent encoding.
fn decode(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, behind @ ..] = rest {
        let hex = |byte: u8| char::from(byte).to_digit(16);
        if *first == b'%'
            && let [high, low, behind @ ..] = behind
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            bytes.push(u8::try_from(high * 16 + low).expect("two digits"));
            rest = behind;
            continue;
        }
        bytes.push(*first);
        rest = behind;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The path as a server may see it that knows both kinds of slashes, takes parameters off and
/// resolves dots.
fn resolve(path: &str) -> String {
    let path = path.replace('\\', "/");
    let mut segments = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment.split(';').next().unwrap_or_default() {
            "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}
