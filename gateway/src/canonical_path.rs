//! Paths of requests, in the one form in which everybody reads them alike.
//!
//! Stacks behind the gateway decode paths again, take parameters off, join slashes, resolve dots
//! and fold case, each in its own way. What a request is must not depend on whose way that is, so
//! one form decides where a request goes, whether it asks for a desktop, and what is passed on;
//! paths that may mean something else to others have no such form.

/// The request whose answers tell clients where their desktop is.
const DESKTOP: &str = "/vdi/desktop";
/// The request with which clients begin.
const AUTHMODE: &str = "/vdi/authmode";

const HEXADECIMAL: &[u8; 16] = b"0123456789ABCDEF";

/// A path that is read alike by everybody: percent-encoded only where it must be (RFC 3986,
/// section 6.2.2), without anything that some take for a separator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalPath(String);

/// Why a path may be read in several ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path has {0}")]
pub struct AmbiguousPath(&'static str);

impl CanonicalPath {
    /// Reads the path of a request target, without its query.
    pub fn parse(path: &str) -> Result<Self, AmbiguousPath> {
        let mut canonical = String::with_capacity(path.len());
        let mut decoded = Vec::with_capacity(path.len());
        let mut rest = path.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            let byte = if byte == b'%' {
                let (encoded, after) = encoded_byte(after)?;
                rest = after;
                check_encoded(encoded)?;
                encoded
            } else {
                check_plain(byte)?;
                byte
            };
            decoded.push(byte);
            if is_plain(byte) {
                canonical.push(char::from(byte));
            } else {
                let digit = |half: u8| char::from(HEXADECIMAL[usize::from(half)]);
                canonical.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
        let decoded = String::from_utf8(decoded);
        let decoded = decoded.map_err(|_| AmbiguousPath("bytes that are not UTF-8"))?;
        check_segments(&decoded)?;
        let canonical = Self(canonical);
        if !canonical.is_desktop() && fold(without_slash(&decoded)) == fold(DESKTOP) {
            return Err(AmbiguousPath("another spelling of /vdi/desktop"));
        }
        Ok(canonical)
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it asks for a desktop.
    pub fn is_desktop(&self) -> bool {
        without_slash(&self.0) == DESKTOP
    }

    /// Whether it asks how users log in.
    pub fn is_authmode(&self) -> bool {
        without_slash(&self.0) == AUTHMODE
    }
}

/// The byte that two hexadecimal digits stand for, and what follows them.
fn encoded_byte(text: &[u8]) -> Result<(u8, &[u8]), AmbiguousPath> {
    let broken = AmbiguousPath("a % without two hexadecimal digits");
    let (digits, after) = text.split_first_chunk::<2>().ok_or(broken)?;
    let digit = |byte: u8| char::from(byte).to_digit(16);
    match digits.map(digit) {
        [Some(high), Some(low)] => {
            let byte = u8::try_from(high << 4 | low).map_err(|_| broken)?;
            Ok((byte, after))
        }
        _ => Err(broken),
    }
}

/// What must not be percent-encoded: those who decode it once more, or earlier, read another path.
fn check_encoded(byte: u8) -> Result<(), AmbiguousPath> {
    match byte {
        b'.' => Err(AmbiguousPath("an encoded dot")),
        b'/' | b'\\' | b';' | b'?' | b'#' => Err(AmbiguousPath("an encoded separator")),
        0..0x20 | 0x7f => Err(AmbiguousPath("a control character")),
        _ => Ok(()),
    }
}

fn check_plain(byte: u8) -> Result<(), AmbiguousPath> {
    match byte {
        b'\\' => Err(AmbiguousPath("a backslash")),
        b';' => Err(AmbiguousPath("parameters")),
        b'?' | b'#' => Err(AmbiguousPath("a separator")),
        0..0x20 | 0x7f => Err(AmbiguousPath("a control character")),
        _ => Ok(()),
    }
}

/// What stands in a path as it is (RFC 3986, section 3.3).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@/".contains(&byte)
}

fn check_segments(decoded: &str) -> Result<(), AmbiguousPath> {
    let mut behind_percent = decoded.split('%').skip(1);
    if behind_percent.any(|text| encoded_byte(text.as_bytes()).is_ok()) {
        return Err(AmbiguousPath("something encoded twice"));
    }
    let Some(segments) = decoded.strip_prefix('/') else {
        return Err(AmbiguousPath("no slash at its beginning"));
    };
    let mut segments = segments.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(AmbiguousPath("two slashes in a row"));
        }
        // Dot segments, and what some file systems leave away.
        if segment.ends_with(['.', ' ']) {
            return Err(AmbiguousPath("a segment that ends in a dot or a space"));
        }
    }
    Ok(())
}

fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// The same for all spellings that differ in case only, those of other alphabets included.
fn fold(text: &str) -> String {
    text.to_lowercase().to_uppercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(path: &str) -> Option<String> {
        CanonicalPath::parse(path).ok().map(|path| path.0)
    }

    #[test]
    fn paths_get_one_form() {
        for (path, expected) in [
            ("/", "/"),
            ("/vdi/", "/vdi/"),
            ("/vdi/desktop", "/vdi/desktop"),
            ("/vdi/desktop/", "/vdi/desktop/"),
            ("/vdi/%64esktop", "/vdi/desktop"),
            ("/%76di/%64%65sktop", "/vdi/desktop"),
            ("/vdi/a%2dz%5F%7e", "/vdi/a-z_~"),
            ("/vdi/a%20b", "/vdi/a%20b"),
            ("/vdi/%c3%a9", "/vdi/%C3%A9"),
            ("/vdi/é", "/vdi/%C3%A9"),
            ("/vdi/100%25", "/vdi/100%25"),
            ("/vdi/a.b/..c/.d", "/vdi/a.b/..c/.d"),
            ("/vdi/a:b@c,d=e", "/vdi/a:b@c,d=e"),
            ("/VDI/x", "/VDI/x"),
        ] {
            assert_eq!(canonical(path).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_may_be_read_otherwise_is_refused() {
        for path in [
            "",
            "vdi/",
            "*",
            "//",
            "/vdi//desktop",
            "//vdi/desktop",
            "/vdi/desktop//",
            "/vdi/./desktop",
            "/vdi/../x",
            "/vdi/..",
            "/vdi/.",
            "/vdi/..;/x",
            "/vdi/desktop;a=b",
            "/vdi;x/desktop",
            "/vdi/desktop.",
            "/vdi/desktop...",
            "/vdi./desktop",
            "/vdi/desktop%20",
            "/vdi/%2e%2e/x",
            "/vdi/%2E./x",
            "/vdi/.%2e/x",
            "/vdi/a%2eb",
            "/vdi/..%2fx",
            "/vdi%2Fdesktop",
            "/vdi/a%5cb",
            "/vdi/a\\b",
            "/vdi\\desktop",
            "/vdi/a%3bb",
            "/vdi/desktop%3fx",
            "/vdi/desktop%23x",
            "/vdi/%252e%252e/x",
            "/vdi/%2564esktop",
            "/vdi/%25%36%34esktop",
            "/vdi?x",
            "/vdi/desktop%00",
            "/vdi/a%0ab",
            "/vdi/a%7f",
            "/vdi/%",
            "/vdi/%6",
            "/vdi/%zz",
            "/vdi/%c0%ae%c0%ae/x",
            "/vdi/%ff",
            "/VDI/desktop",
            "/vdi/Desktop",
            "/VDI/DESKTOP/",
            "/vdi/DE%53KTOP",
            "/vdi/de%C5%BFktop",
            "/vdi/des%E2%84%AAtop",
        ] {
            assert_eq!(canonical(path), None, "{path}");
        }
    }

    #[test]
    fn desktop_and_authmode_are_told() {
        for (path, is_desktop, is_authmode) in [
            ("/vdi/desktop", true, false),
            ("/vdi/desktop/", true, false),
            ("/vdi/%64esktop", true, false),
            ("/vdi/desktops", false, false),
            ("/x/vdi/desktop", false, false),
            ("/vdi/authmode", false, true),
        ] {
            let path = CanonicalPath::parse(path).unwrap();
            assert_eq!(path.is_desktop(), is_desktop, "{path:?}");
            assert_eq!(path.is_authmode(), is_authmode, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn the_form_is_its_own(path in "/[a-z/.;%0-9A-F\\\\ é]{0,30}|\\PC{0,30}") {
            if let Ok(path) = CanonicalPath::parse(&path) {
                prop_assert_eq!(CanonicalPath::parse(path.as_str()), Ok(path.clone()));
                prop_assert!(path.as_str().parse::<http::uri::PathAndQuery>().is_ok());
            }
        }
    }
}
