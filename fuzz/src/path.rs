//! Paths and queries: what is the manager's stays below its prefixes however a server behind it
//! reads the path, and a query is read as the standard library of forms reads it.

use gateway::fuzzing::{is_managers, query};

const PREFIX: &str = "/vdi/";

/// A path and, behind a question mark, a query.
pub fn run(bytes: &[u8]) {
    let Ok(target) = std::str::from_utf8(bytes) else {
        return;
    };
    let (path, rest) = target.split_once('?').unwrap_or((target, ""));
    if is_managers(path, &[PREFIX.to_owned()]) {
        let resolved = resolve(path);
        assert!(
            resolved.starts_with(PREFIX),
            "{path:?} leads to {resolved:?}"
        );
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

/// The path as a server may see it that takes off one layer of percent encoding, knows both kinds
/// of slashes and resolves dots.
fn resolve(path: &str) -> String {
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
    let decoded = String::from_utf8_lossy(&bytes).replace('\\', "/");
    let mut segments = Vec::new();
    for segment in decoded.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}
