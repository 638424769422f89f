//! Hosts: IP addresses and DNS names, told apart once.
//!
//! Whoever compares a host with networks and whoever connects to it must mean the same place. A
//! text that one reader takes for a name and another for an address would lead around all rules,
//! so texts become a [`Host`] where they come in, and nothing else is passed on.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Longest name, without a dot at its end (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;
/// Longest label of a name (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// An IP address or a DNS name.
///
/// An address is canonical: IPv4-mapped IPv6 addresses are IPv4 addresses, and unspecified ones,
/// which systems take for themselves, are none. Shown without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Address(IpAddr),
    Name(Box<str>),
}

/// Why a text or an address is no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// `0.0.0.0`, `::` or the same, mapped.
    #[error("an unspecified address is no host")]
    Unspecified,
    /// An IPv6 address with a zone (RFC 4007, section 11), which says nothing outside of one
    /// machine.
    #[error("an IPv6 address with a scope is no host")]
    Scoped,
    /// Neither an address nor a name.
    #[error("neither an IP address nor a DNS name")]
    Malformed,
}

impl Host {
    /// `127.0.0.1`.
    pub const LOCALHOST: Self = Self(Kind::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)));

    /// The address, if it is one.
    pub fn address(&self) -> Option<IpAddr> {
        match self.0 {
            Kind::Address(address) => Some(address),
            Kind::Name(_) => None,
        }
    }

    /// Whether a certificate for this name or address is one for the host, as clients see it (RFC
    /// 9525, section 6.3): `*.` at the beginning of a name stands for one label.
    pub fn is_certified_as(&self, certified: &str) -> bool {
        let host = self.to_string();
        let host = host.strip_suffix('.').unwrap_or(&host);
        match certified.strip_prefix("*.") {
            Some(parent) if self.address().is_none() => host
                .split_once('.')
                .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
            _ => host.eq_ignore_ascii_case(certified),
        }
    }

    /// As it stands in a URI: IPv6 addresses in brackets (RFC 3986, section 3.2.2).
    pub fn for_uri(&self) -> String {
        match &self.0 {
            Kind::Address(address) => address_for_uri(*address),
            Kind::Name(name) => name.to_string(),
        }
    }
}

/// An address as it stands in a URI: IPv6 in brackets.
pub fn address_for_uri(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

impl TryFrom<IpAddr> for Host {
    type Error = HostError;

    fn try_from(address: IpAddr) -> Result<Self, HostError> {
        let address = address.to_canonical();
        if address.is_unspecified() {
            return Err(HostError::Unspecified);
        }
        Ok(Self(Kind::Address(address)))
    }
}

impl FromStr for Host {
    type Err = HostError;

    /// Reads an address, IPv6 with or without brackets, or a name.
    fn from_str(text: &str) -> Result<Self, HostError> {
        if let Ok(v4) = text.parse::<Ipv4Addr>() {
            return Self::try_from(IpAddr::V4(v4));
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(v6) = bare.parse::<Ipv6Addr>() {
            return Self::try_from(IpAddr::V6(v6));
        }
        let before_zone = bare.split_once('%').map(|(before, _)| before);
        if before_zone.is_some_and(|before| before.parse::<Ipv6Addr>().is_ok()) {
            return Err(HostError::Scoped);
        }
        if is_name(text) {
            return Ok(Self(Kind::Name(text.into())));
        }
        Err(HostError::Malformed)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Address(address) => address.fmt(f),
            Kind::Name(name) => f.write_str(name),
        }
    }
}

/// Whether a text can be a host name. Underscores are let through because local networks use
/// them. A last label of digits only, or one that begins with `0x`, would be an IPv4 address to
/// those who read them as `inet_aton` does (WHATWG URL, section 3.5).
fn is_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let is_number = |label: &str| {
        let hexadecimal = label.strip_prefix("0x").or(label.strip_prefix("0X"));
        label.bytes().all(|b| b.is_ascii_digit())
            || hexadecimal.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    name.len() <= MAX_NAME
        && name.split('.').all(is_label)
        && !name.rsplit('.').next().is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<String, HostError> {
        text.parse::<Host>().map(|host| host.to_string())
    }

    #[test]
    fn a_certificate_is_for_its_names() {
        let certified = ["vdi.example.com", "*.pool.example.com", "192.0.2.10"];
        for (name, expected) in [
            ("vdi.example.com", true),
            ("VDI.Example.com.", true),
            ("a.pool.example.com", true),
            ("192.0.2.10", true),
            ("a.b.pool.example.com", false),
            ("pool.example.com", false),
            ("example.com", false),
            ("192.0.2.11", false),
            ("2001:db8::1", false),
        ] {
            let host: Host = name.parse().unwrap();
            let found = certified.iter().any(|known| host.is_certified_as(known));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn addresses_are_canonical() {
        for (text, shown, in_uri) in [
            ("10.0.0.1", "10.0.0.1", "10.0.0.1"),
            ("2001:DB8::1", "2001:db8::1", "[2001:db8::1]"),
            ("[2001:db8::1]", "2001:db8::1", "[2001:db8::1]"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.1"),
            ("[::ffff:a00:1]", "10.0.0.1", "10.0.0.1"),
            ("0:0:0:0:0:0:0:1", "::1", "[::1]"),
        ] {
            let host: Host = text.parse().unwrap();
            assert!(host.address().is_some(), "{text}");
            assert_eq!(
                (host.to_string(), host.for_uri()),
                (shown.into(), in_uri.into())
            );
        }
    }

    #[test]
    fn names_stay_as_they_are() {
        let longest_label = "a".repeat(63);
        let longest = "a.".repeat(127);
        for text in [
            "manager",
            "host-a.example.com.",
            "my_host",
            "4you",
            "xn--mller-kva.example",
            "0xfoo",
            &longest_label,
            &longest,
        ] {
            let host: Host = text.parse().unwrap();
            assert_eq!((host.address(), host.for_uri().as_str()), (None, text));
        }
    }

    #[test]
    fn what_systems_take_for_themselves_is_no_host() {
        for text in ["0.0.0.0", "::", "[::]", "::ffff:0.0.0.0", "[::ffff:0:0]"] {
            assert_eq!(parsed(text), Err(HostError::Unspecified), "{text}");
        }
        for text in ["fe80::1%eth0", "[fe80::1%25eth0]", "::1%", "::%1"] {
            assert_eq!(parsed(text), Err(HostError::Scoped), "{text}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_host() {
        let long_label = "a".repeat(64);
        let long_name = "a.".repeat(127) + "a";
        for text in [
            "",
            ".",
            "x@127.0.0.1",
            "user@host",
            "127.0.0.1:80",
            "host:80",
            "[::1]:80",
            "127.1",
            "010.0.0.1",
            "127.0.0.256",
            "2130706433",
            "0x7f000001",
            "0X7F.1.0x1",
            "10.0.0",
            "[127.0.0.1]",
            "[host]",
            "[::1",
            "::1]",
            "[[::1]]",
            "a b",
            "a\n",
            " a",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a%2eb",
            "müller",
            "a..b",
            "-a",
            "a-",
            "*",
            "\0",
            &long_label,
            &long_name,
        ] {
            assert_eq!(parsed(text), Err(HostError::Malformed), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_means_the_same(text in "[0-9a-z.:\\[\\]%@_-]{0,40}|\\PC{0,20}") {
            if let Ok(host) = text.parse::<Host>() {
                prop_assert_eq!(&host.to_string().parse::<Host>(), &Ok(host.clone()));
                prop_assert_eq!(&host.for_uri().parse::<Host>(), &Ok(host.clone()));
                prop_assert_eq!(host.to_string().parse::<IpAddr>().ok(), host.address());
            }
        }

        #[test]
        fn every_address_is_one_or_unspecified(bits: u128) {
            let canonical = IpAddr::V6(Ipv6Addr::from(bits)).to_canonical();
            let host = Host::try_from(IpAddr::V6(Ipv6Addr::from(bits)));
            prop_assert_eq!(host.is_err(), canonical.is_unspecified());
            if let Ok(host) = host {
                prop_assert_eq!(host.address(), Some(canonical));
            }
        }
    }
}
