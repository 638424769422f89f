//! The forms of value that are strings in the file.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde_json::Value;

use super::value::{Form, Mismatch, OrEmpty};

/// The path of a file. Whether it can be read shows when it is.
pub(super) enum FilePath {}

impl Form for FilePath {
    type Field = PathBuf;

    fn read(value: &Value) -> Result<PathBuf, Mismatch> {
        read_text(value, "the path of a file", |text| {
            (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
        })
    }

    fn write(field: &PathBuf) -> Value {
        Value::from(field.to_string_lossy())
    }
}

/// A prefix of URI paths, made of whole segments.
pub(super) enum PathPrefix {}

impl Form for PathPrefix {
    type Field = String;

    fn read(value: &Value) -> Result<String, Mismatch> {
        read_text(value, "a path that begins and ends with \"/\"", |text| {
            (text.starts_with('/') && text.ends_with('/')).then(|| text.to_owned())
        })
    }

    fn write(field: &String) -> Value {
        Value::from(field.as_str())
    }
}

/// The path of a page, as it stands in a request.
pub(super) enum UriPath {}

impl Form for UriPath {
    type Field = String;

    fn read(value: &Value) -> Result<String, Mismatch> {
        let expected = "a path that begins with \"/\", of visible ASCII without \"?\" and \"#\"";
        read_text(value, expected, |text| {
            let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
            (text.len() > 1 && text.starts_with('/') && text.bytes().all(fits))
                .then(|| text.to_owned())
        })
    }

    fn write(field: &String) -> Value {
        Value::from(field.as_str())
    }
}

/// An IP address.
pub(super) enum Address {}

impl Form for Address {
    type Field = IpAddr;

    fn read(value: &Value) -> Result<IpAddr, Mismatch> {
        read_text(value, "an IP address", |text| {
            without_brackets(text).parse().ok()
        })
    }

    fn write(field: &IpAddr) -> Value {
        Value::from(field.to_string())
    }
}

/// A network in CIDR notation; a single address is a network of its own.
pub(super) enum Network {}

impl Form for Network {
    type Field = IpNet;

    fn read(value: &Value) -> Result<IpNet, Mismatch> {
        let expected = "a network such as \"10.0.0.0/8\" or an IP address";
        read_text(value, expected, |text| {
            text.parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .ok()
        })
    }

    fn write(field: &IpNet) -> Value {
        Value::from(field.to_string())
    }
}

/// The name or the IP address of a host; IPv6 addresses are kept without brackets.
pub(super) enum Host {}

impl Form for Host {
    type Field = String;

    fn read(value: &Value) -> Result<String, Mismatch> {
        let expected = match value.as_str() {
            Some(text) if text.contains("://") => {
                "a host name or IP address without a scheme (\"https://\")"
            }
            Some(text) if has_port(text) => "a host name or IP address without a port",
            _ => "a host name or IP address",
        };
        read_text(value, expected, |text| {
            let host = without_brackets(text);
            (host.parse::<IpAddr>().is_ok() || is_name(host)).then(|| host.to_owned())
        })
    }

    fn write(field: &String) -> Value {
        Value::from(field.as_str())
    }
}

/// A [`Host`], or an empty string, which stays one.
pub(super) enum HostOrEmpty {}

impl Form for HostOrEmpty {
    type Field = String;

    fn read(value: &Value) -> Result<String, Mismatch> {
        OrEmpty::<Host>::read(value).map(Option::unwrap_or_default)
    }

    fn write(field: &String) -> Value {
        Host::write(field)
    }
}

fn read_text<T>(
    value: &Value,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Mismatch> {
    value
        .as_str()
        .and_then(parse)
        .ok_or_else(|| Mismatch::new(expected, value))
}

/// Takes the brackets off an IPv6 literal; other texts stay as they are.
fn without_brackets(text: &str) -> &str {
    text.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .filter(|inner| inner.parse::<Ipv6Addr>().is_ok())
        .unwrap_or(text)
}

fn has_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        (host.ends_with(']') || !host.contains(':')) && port.bytes().all(|b| b.is_ascii_digit())
    })
}

/// Whether a text can be a host name. Underscores are let through because local networks use
/// them; a last label of digits only would be a mistyped IPv4 address.
fn is_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253
        && name.split('.').all(is_label)
        && !name
            .rsplit('.')
            .next()
            .is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expected<F: Form>(value: &Value) -> String {
        F::read(value)
            .err()
            .expect("wrong value")
            .expected
            .into_owned()
    }

    #[test]
    fn hosts() {
        for (text, host) in [
            ("manager", "manager"),
            ("manager.example.com", "manager.example.com"),
            ("manager.example.com.", "manager.example.com."),
            ("my_host-1", "my_host-1"),
            ("4you", "4you"),
            ("10.0.0.1", "10.0.0.1"),
            ("fe80::1", "fe80::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("xn--mller-kva.example", "xn--mller-kva.example"),
        ] {
            assert_eq!(Host::read(&json!(text)).as_deref(), Ok(host), "{text}");
        }
        let long_label = "a".repeat(64);
        let long_name = "a.".repeat(128);
        for text in [
            "",
            ".",
            " manager",
            "manager ",
            "mana ger",
            "a..b",
            "-a",
            "a-",
            "a/b",
            "user@host",
            "müller.example",
            "10.0.0.256",
            "10.0.0",
            "10",
            "[10.0.0.1]",
            "[manager]",
            "[::1",
            "::1]",
            "::1::",
            "fe80::1%eth0",
            "a\nb",
            &long_label,
            &long_name,
            "*",
        ] {
            assert!(Host::read(&json!(text)).is_err(), "{text}");
        }
        assert!(Host::read(&json!(["manager"])).is_err());
    }

    #[test]
    fn hosts_with_scheme_or_port_are_told_so() {
        for text in ["https://manager", "wss://manager:443/"] {
            assert_eq!(
                expected::<Host>(&json!(text)),
                "a host name or IP address without a scheme (\"https://\")"
            );
        }
        for text in ["manager:443", "10.0.0.1:443", "[::1]:443", "manager:"] {
            assert_eq!(
                expected::<Host>(&json!(text)),
                "a host name or IP address without a port"
            );
        }
    }

    #[test]
    fn empty_strings_mean_none_where_allowed() {
        assert_eq!(OrEmpty::<Address>::read(&json!("")), Ok(None));
        assert_eq!(OrEmpty::<FilePath>::read(&json!("")), Ok(None));
        assert_eq!(HostOrEmpty::read(&json!("")), Ok(String::new()));
        assert_eq!(
            expected::<OrEmpty<Address>>(&json!(null)),
            "an IP address, or \"\""
        );
        assert!(FilePath::read(&json!("")).is_err());
        assert!(Host::read(&json!("")).is_err());
    }

    #[test]
    fn addresses() {
        for (text, address) in [
            ("0.0.0.0", "0.0.0.0"),
            ("::", "::"),
            ("[::1]", "::1"),
            ("2001:DB8::1", "2001:db8::1"),
        ] {
            let read = Address::read(&json!(text)).unwrap();
            assert_eq!(Address::write(&read), json!(address));
        }
        assert!(Address::read(&json!("localhost")).is_err());
        assert!(Address::read(&json!("127.0.0.1:80")).is_err());
    }

    #[test]
    fn networks() {
        for (text, network) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
        ] {
            let read = Network::read(&json!(text)).unwrap();
            assert_eq!(Network::write(&read), json!(network));
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "host", "::/129", "10.0.0.0/"] {
            assert!(Network::read(&json!(text)).is_err(), "{text}");
        }
    }
}
