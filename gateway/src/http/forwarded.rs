//! The header `Forwarded` (RFC 7239).

use http::HeaderMap;
use http::header::FORWARDED;

/// What one proxy says of the request that it passed on; obfuscated and unknown nodes as they
/// stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// Who sent the request to that proxy.
    pub(super) by_whom: Option<String>,
    pub(super) proto: Option<String>,
    pub(super) host: Option<String>,
}

/// The elements of all `Forwarded` headers, the farthest proxy first; `None` when they are
/// malformed: nothing behind a mistake can be told from what a client wrote itself.
pub(super) fn parse(headers: &HeaderMap) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    for value in headers.get_all(FORWARDED) {
        let mut rest = value.to_str().ok()?.trim();
        let mut element = Element::default();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix([',', ';']) {
                if rest.starts_with(',') {
                    elements.push(std::mem::take(&mut element));
                }
                rest = after.trim_start();
                continue;
            }
            let (name, after) = rest.split_once('=')?;
            let (value, after) = read_value(after)?;
            match name.to_ascii_lowercase().as_str() {
                "for" => element.by_whom = Some(value),
                "proto" => element.proto = Some(value.to_ascii_lowercase()),
                "host" => element.host = Some(value),
                name if is_token(name) => {}
                _ => return None,
            }
            rest = after.trim_start();
            if !rest.is_empty() && !rest.starts_with([',', ';']) {
                return None;
            }
        }
        elements.push(element);
    }
    elements.retain(|element| *element != Element::default());
    Some(elements)
}

/// A token or a quoted string, and what follows it.
fn read_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ';', ' ', '\t']).unwrap_or(text.len());
        let (token, rest) = text.split_at(end);
        // IPv6 addresses and ports must be quoted, but not all proxies do.
        return (!token.is_empty() && !token.contains('"')).then(|| (token.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn parsed(values: &[&str]) -> Option<Vec<Element>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(FORWARDED, HeaderValue::from_str(value).unwrap());
        }
        parse(&headers)
    }

    fn element(by_whom: &str, proto: &str, host: &str) -> Element {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Element {
            by_whom: some(by_whom),
            proto: some(proto),
            host: some(host),
        }
    }

    #[test]
    fn reads_the_examples_of_the_rfc() {
        assert_eq!(parsed(&[]), Some(vec![]));
        for (values, expected) in [
            (&["for=\"_gazonk\""][..], vec![element("_gazonk", "", "")]),
            (
                &["For=\"[2001:db8:cafe::17]:4711\""],
                vec![element("[2001:db8:cafe::17]:4711", "", "")],
            ),
            (
                &["for=192.0.2.60;proto=HTTP;by=203.0.113.43"],
                vec![element("192.0.2.60", "http", "")],
            ),
            (
                &["for=192.0.2.43, for=198.51.100.17", "for=1.1.1.1;host=a"],
                vec![
                    element("192.0.2.43", "", ""),
                    element("198.51.100.17", "", ""),
                    element("1.1.1.1", "", "a"),
                ],
            ),
            (
                &[r#"for="a,b;c=\"d\\";host="vdi.example:8443""#],
                vec![element("a,b;c=\"d\\", "", "vdi.example:8443")],
            ),
        ] {
            assert_eq!(parsed(values), Some(expected), "{values:?}");
        }
    }

    #[test]
    fn mistakes_are_not_guessed_at() {
        for value in [
            "for",
            "for=",
            "for=\"192.0.2.1",
            "for=\"a\"b",
            "for=a b=c",
            "for=a\"b\"",
            "x y=1",
            "=1",
        ] {
            assert_eq!(parsed(&[value]), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(value in "[ -~]{0,80}") {
            let _ = parsed(&[&value]);
        }
    }
}
