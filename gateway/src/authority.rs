//! Host and port, as `Host` names them.

use std::fmt;
use std::str::FromStr;

use crate::host::{Host, HostError};

/// A host with or without port (RFC 3986, section 3.2, without user information).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, never 0; `None`: that of the scheme.
    pub port: Option<u16>,
}

impl FromStr for Authority {
    type Err = HostError;

    /// IPv6 addresses need brackets here.
    fn from_str(text: &str) -> Result<Self, HostError> {
        let end = match text.strip_prefix('[') {
            Some(inner) => inner.find(']').ok_or(HostError::Malformed)? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at(end);
        let port = match rest.strip_prefix(':') {
            // Without digits it is that of the scheme too (RFC 3986, section 3.2.3).
            Some("") => None,
            Some(digits) => Some(port(digits).ok_or(HostError::Malformed)?),
            None if rest.is_empty() => None,
            None => return Err(HostError::Malformed),
        };
        let host = host.parse()?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.for_uri();
        match self.port {
            Some(port) => write!(f, "{host}:{port}"),
            None => f.write_str(&host),
        }
    }
}

/// Digits only: `u16::from_str` would take a sign.
fn port(digits: &str) -> Option<u16> {
    let are_digits = digits.bytes().all(|b| b.is_ascii_digit());
    are_digits
        .then(|| digits.parse().ok())
        .flatten()
        .filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn host_and_port_are_told_apart() {
        for (text, host, port) in [
            ("gw.example", "gw.example", None),
            ("gw.example:8443", "gw.example", Some(8443)),
            ("gw.example:", "gw.example", None),
            ("10.0.0.1:443", "10.0.0.1", Some(443)),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("[2001:db8::1]:443", "2001:db8::1", Some(443)),
            ("[::ffff:10.0.0.1]:443", "10.0.0.1", Some(443)),
        ] {
            let authority: Authority = text.parse().unwrap();
            assert_eq!(authority.host.to_string(), host);
            assert_eq!(authority.port, port, "{text}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        for text in [
            "",
            ":443",
            "::1",
            "::1:443",
            "[::1",
            "[::1]x",
            "[::1]443",
            "[]",
            "[gw]",
            "[10.0.0.1]",
            "user@gw",
            "gw:65536",
            "gw:0",
            "gw:+1",
            "gw:1:2",
            "gw/",
            "gw, gw",
            "\"}<script>",
            "[fe80::1%25eth0]",
            "0.0.0.0:443",
            "[::]",
        ] {
            assert!(text.parse::<Authority>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_means_the_same(text in "[0-9a-f.:\\[\\]]{0,20}|\\PC{0,20}") {
            if let Ok(authority) = text.parse::<Authority>() {
                prop_assert_eq!(authority.to_string().parse::<Authority>(), Ok(authority));
            }
        }
    }
}
