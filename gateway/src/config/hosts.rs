//! The forms of value that name hosts, addresses and networks.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value, json};

use super::text::{matching, read_text};
use super::value::{Form, Mismatch, OrEmpty};
use crate::host::{self, HostError};
use crate::spice_host::{self, SpiceHostError};

/// What every host looks like, in a schema.
const HOST: &str = r"^([A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?)$";

/// Bits before an IPv4 address that is mapped into IPv6.
const MAPPED_PREFIX: u8 = 96;

/// An IP address.
pub(super) enum Address {}

impl Form for Address {
    type Field = IpAddr;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<IpAddr, Mismatch> {
        read_text(value, "an IP address", |text| {
            without_brackets(text).parse().ok()
        })
    }

    fn write(field: &IpAddr) -> Value {
        Value::from(field.to_string())
    }

    fn schema() -> Value {
        matching("^\\[?[0-9A-Fa-f:.]+\\]?$")
    }
}

/// A network in CIDR notation; a single address is a network of its own.
pub(super) enum Network {}

impl Form for Network {
    type Field = IpNet;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<IpNet, Mismatch> {
        let parse = |text: &str| {
            let network = text.parse();
            network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        };
        let expected = match value.as_str().map(parse) {
            Some(Ok(network)) if unfolded(network).is_none() => {
                "a network that is not partly IPv4-mapped (\"::ffff:0:0/96\" is all of IPv4)"
            }
            _ => "a network such as \"10.0.0.0/8\" or an IP address",
        };
        read_text(value, expected, |text| parse(text).ok().and_then(unfolded))
    }

    fn write(field: &IpNet) -> Value {
        Value::from(field.to_string())
    }

    fn schema() -> Value {
        matching("^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$")
    }
}

/// The name or the IP address of a host; IPv6 addresses with or without brackets.
pub(super) enum Host {}

impl Form for Host {
    type Field = host::Host;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<host::Host, Mismatch> {
        read_text(value, expected_host(value), |text| text.parse().ok())
    }

    fn write(field: &host::Host) -> Value {
        Value::from(field.to_string())
    }

    fn schema() -> Value {
        matching(HOST)
    }
}

/// What a host should have been that may be none.
fn expected_host(value: &Value) -> &'static str {
    match value.as_str() {
        Some(text) if text.contains("://") => {
            "a host name or IP address without a scheme (\"https://\")"
        }
        Some(text) if has_port(text) => "a host name or IP address without a port",
        Some(text) => match text.parse::<host::Host>() {
            Err(HostError::Unspecified) => {
                "a host name or IP address, which an unspecified one is not"
            }
            Err(HostError::Scoped) => "a host name or IP address without a scope (\"%\")",
            _ => "a host name or IP address",
        },
        None => "a host name or IP address",
    }
}

/// A [`Host`], or Unix sockets.
pub(super) enum SpiceHost {}

impl Form for SpiceHost {
    type Field = spice_host::SpiceHost;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<spice_host::SpiceHost, Mismatch> {
        let parsed = value.as_str().map(str::parse::<spice_host::SpiceHost>);
        let expected = match parsed {
            Some(Err(SpiceHostError::Path(_))) => {
                "\"unix:\" and an absolute path of at most 107 bytes without \".\", \"..\" and \
                 \"//\", in which \"%p\" is the port"
            }
            _ => expected_host(value),
        };
        read_text(value, expected, |text| text.parse().ok())
    }

    fn write(field: &spice_host::SpiceHost) -> Value {
        Value::from(field.to_string())
    }

    fn schema() -> Value {
        json!({"anyOf": [matching(HOST), matching("^unix:/")]})
    }
}

/// A [`Host`], or an empty string, which stays one.
pub(super) enum HostOrEmpty {}

impl Form for HostOrEmpty {
    type Field = String;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<String, Mismatch> {
        let host = OrEmpty::<Host>::read(value)?;
        Ok(host.map_or_else(String::new, |host| host.to_string()))
    }

    fn write(field: &String) -> Value {
        Value::from(field.as_str())
    }

    fn schema() -> Value {
        OrEmpty::<Host>::schema()
    }
}

/// Takes the brackets off an IPv6 literal; other texts stay as they are.
fn without_brackets(text: &str) -> &str {
    text.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .filter(|inner| inner.parse::<Ipv6Addr>().is_ok())
        .unwrap_or(text)
}

/// The network that addresses are compared with, which are canonical: IPv4-mapped ones are IPv4
/// networks (RFC 4291, section 2.5.5.2). `None`: a mapped address with a prefix that takes in more
/// than those.
fn unfolded(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = network else {
        return Some(network);
    };
    let Some(v4) = v6.addr().to_ipv4_mapped() else {
        return Some(network);
    };
    let prefix = v6.prefix_len().checked_sub(MAPPED_PREFIX)?;
    Ipv4Net::new(v4, prefix).ok().map(IpNet::V4)
}

fn has_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        (host.ends_with(']') || !host.contains(':')) && port.bytes().all(|b| b.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::super::text::FilePath;
    use super::super::text::tests::expected;
    use super::*;

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
            let read = Host::read(&json!(text)).unwrap();
            assert_eq!(Host::write(&read), json!(host));
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
    fn hosts_that_are_none_are_told_why() {
        for text in ["0.0.0.0", "::", "[::ffff:0.0.0.0]"] {
            assert_eq!(
                expected::<Host>(&json!(text)),
                "a host name or IP address, which an unspecified one is not"
            );
        }
        assert_eq!(
            expected::<Host>(&json!("fe80::1%eth0")),
            "a host name or IP address without a scope (\"%\")"
        );
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
        for (text, network) in [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            let read = Network::read(&json!(text)).unwrap();
            assert_eq!(Network::write(&read), json!(network));
        }
        assert_eq!(
            expected::<Network>(&json!("::ffff:10.0.0.0/90")),
            "a network that is not partly IPv4-mapped (\"::ffff:0:0/96\" is all of IPv4)"
        );
        for text in ["", "10.0.0.0/33", "10.0.0/8", "host", "::/129", "10.0.0.0/"] {
            assert!(Network::read(&json!(text)).is_err(), "{text}");
        }
    }
}
