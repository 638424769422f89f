//! The header `Forwarded` (RFC 7239).

use http::HeaderMap;
use http::header::FORWARDED;

/// What one proxy says of the request that it passed on; obfuscated and unknown nodes as they
/// stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Who sent the request to that proxy.
    pub by_whom: Option<String>,
    /// The scheme that it was asked with, in lower case.
    pub proto: Option<String>,
    /// The authority that it was asked for.
    pub host: Option<String>,
}

/// The elements of all `Forwarded` headers, the nearest proxy first; `None` for one that is
/// malformed.
///
/// They are told apart from the right: what a proxy appended can be read whatever the client wrote
/// before it, and nothing that the client wrote, as a quotation mark, reaches into it.
pub(super) fn nearest_first(headers: &HeaderMap) -> impl Iterator<Item = Option<Element>> {
    let values: Vec<_> = headers.get_all(FORWARDED).iter().collect();
    let values = values.into_iter().rev();
    values.flat_map(|value| elements(value.as_bytes()))
}

/// The elements of one header's value, the last one first; `None` for one that is malformed.
pub fn elements(value: &[u8]) -> impl Iterator<Item = Option<Element>> {
    let mut left = Some(value);
    std::iter::from_fn(move || {
        let (before, last) = split_last(left?);
        left = before;
        Some(std::str::from_utf8(last).ok().and_then(parse))
    })
}

/// What stands before the last comma that is not quoted, if there is one, and what behind it.
fn split_last(value: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let mut is_quoted = false;
    for (at, byte) in value.iter().enumerate().rev() {
        match byte {
            b'"' if is_quoted => {
                let before = value[..at].iter().rev();
                let is_escaped = before.take_while(|byte| **byte == b'\\').count() % 2 == 1;
                is_quoted = is_escaped;
            }
            b'"' => is_quoted = true,
            b',' if !is_quoted => return (Some(&value[..at]), &value[at + 1..]),
            _ => {}
        }
    }
    (None, value)
}

/// Pairs of names and values with semicolons between them; none at all is an element too.
fn parse(text: &str) -> Option<Element> {
    let mut element = Element::default();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(';') {
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
        if !rest.is_empty() && !rest.starts_with(';') {
            return None;
        }
    }
    Some(element)
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

    fn read(values: &[&[u8]]) -> Vec<Option<Element>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(FORWARDED, HeaderValue::from_bytes(value).unwrap());
        }
        nearest_first(&headers).collect()
    }

    fn parsed(values: &[&str]) -> Vec<Option<Element>> {
        let values: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
        read(&values)
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
        assert_eq!(parsed(&[]), []);
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
                    element("1.1.1.1", "", "a"),
                    element("198.51.100.17", "", ""),
                    element("192.0.2.43", "", ""),
                ],
            ),
            (
                &[r#"for="a,b;c=\"d\\";host="vdi.example:8443""#],
                vec![element("a,b;c=\"d\\", "", "vdi.example:8443")],
            ),
        ] {
            let expected: Vec<_> = expected.into_iter().map(Some).collect();
            assert_eq!(parsed(values), expected, "{values:?}");
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
            assert_eq!(parsed(&[value]), [None], "{value}");
        }
    }

    #[test]
    fn what_a_client_wrote_does_not_reach_into_what_a_proxy_appends() {
        for invented in [
            &b"\x80"[..],
            b"for=\"",
            b"for=\"1.1.1.1\\",
            b"for=\"1.1.1.1\\\"",
            b"for=1.1.1.1;x=\",\"\"",
            b"\"\"\"",
            b"\\",
        ] {
            for appended in ["for=192.0.2.7", r#"for="192.0.2.7";by="a,\"b\\""#] {
                let value = [invented, b", ", appended.as_bytes()].concat();
                let nearest = read(&[&value]).swap_remove(0);
                let expected = Some(element("192.0.2.7", "", ""));
                assert_eq!(nearest, expected, "{value:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn never_panics(value in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(elements(&value).count() <= value.len() + 1);
        }

        #[test]
        fn a_proxys_element_is_always_read(invented in "[\\\\\",;= a]{0,12}") {
            let value = format!("{invented},for=\"a,\\\"\"");
            prop_assert_eq!(&parsed(&[&value])[0], &Some(element("a,\"", "", "")));
        }
    }
}
