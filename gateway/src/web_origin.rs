//! Web origins (RFC 6454): which web pages may open WebSockets.
//!
//! Browsers let any page open a WebSocket to any server, and say in `Origin` whose page it was.
//! Clients that are no browsers send none.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::ORIGIN;

use crate::authority::Authority;
use crate::host::Host;
use crate::refusal::Refusal;

/// Scheme, host and port of the server that a web page came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOrigin {
    /// In lower case.
    scheme: String,
    authority: Authority,
}

/// The text is no origin: `null`, for example, which pages without one have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an origin")]
pub struct NotAnOrigin;

impl FromStr for WebOrigin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        let (scheme, authority) = text.split_once("://").ok_or(NotAnOrigin)?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(fits) {
            return Err(NotAnOrigin);
        }
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            authority: authority.parse().map_err(|_| NotAnOrigin)?,
        })
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

impl WebOrigin {
    fn default_port(&self) -> Option<u16> {
        match self.scheme.as_str() {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        }
    }

    /// Whether it has this host and port; a port that is not named is that of the scheme here.
    fn is_at(&self, authority: &Authority) -> bool {
        let port = |authority: &Authority| authority.port.or(self.default_port());
        is_same(&self.authority.host, &authority.host) && port(&self.authority) == port(authority)
    }

    fn is(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.is_at(&other.authority)
    }
}

/// Upper and lower case make no other name.
fn is_same(left: &Host, right: &Host) -> bool {
    left.to_string().eq_ignore_ascii_case(&right.to_string())
}

/// Whose web pages may open WebSockets.
#[derive(Clone)]
pub struct OriginRules {
    allowed: Arc<[WebOrigin]>,
    are_enforced: bool,
}

impl OriginRules {
    /// For pages of the gateway itself and of these. Tickets cannot be guessed by a page, so where tokens are
    /// tickets there are rules only if some are configured.
    pub fn new(allowed: &[WebOrigin], are_tokens_tickets: bool) -> Self {
        Self {
            allowed: allowed.into(),
            are_enforced: !are_tokens_tickets || !allowed.is_empty(),
        }
    }

    /// Looks at the headers of a request that was sent to `asked`, over HTTPS or not.
    pub fn check(
        &self,
        headers: &HeaderMap,
        asked: Option<&Authority>,
        is_https: bool,
    ) -> Result<(), Refusal> {
        if !self.are_enforced {
            return Ok(());
        }
        let mut values = headers.get_all(ORIGIN).iter();
        let Some(value) = values.next() else {
            return Ok(());
        };
        if values.next().is_some() {
            return Err(Refusal::Origin);
        }
        let origin: Result<WebOrigin, _> = value.to_str().unwrap_or_default().parse();
        let origin = origin.map_err(|_| Refusal::Origin)?;
        // Whoever is between can put anything into a page that came without TLS.
        let fits = origin.scheme == "https" || (origin.scheme == "http" && !is_https);
        let is_own = fits && asked.is_some_and(|asked| origin.is_at(asked));
        let is_allowed = self.allowed.iter().any(|allowed| allowed.is(&origin));
        if is_own || is_allowed {
            Ok(())
        } else {
            Err(Refusal::Origin)
        }
    }

    /// Whether the page that sent these headers has one of the configured origins.
    pub fn are_listed(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(ORIGIN).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return false;
        };
        let origin: Result<WebOrigin, _> = value.to_str().unwrap_or_default().parse();
        origin.is_ok_and(|origin| self.allowed.iter().any(|allowed| allowed.is(&origin)))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn passes(hijack_all: bool, allowed: &[&str], asked: &str, origins: &[&str]) -> bool {
        let allowed: Vec<WebOrigin> = allowed.iter().map(|text| text.parse().unwrap()).collect();
        let rules = OriginRules::new(&allowed, hijack_all);
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        let asked = asked.parse().ok();
        rules.check(&headers, asked.as_ref(), true).is_ok()
    }

    #[test]
    fn a_page_of_the_gateway_itself_passes() {
        for (asked, origin, expected) in [
            ("gw.example", "https://gw.example", true),
            ("gw.example", "https://GW.example:443", true),
            ("gw.example:443", "https://gw.example", true),
            ("gw.example:8443", "https://gw.example:8443", true),
            ("[2001:db8::1]", "https://[2001:DB8::1]", true),
            ("gw.example:8443", "https://gw.example", false),
            ("gw.example", "https://gw.example:8443", false),
            ("gw.example", "http://gw.example", false),
            ("gw.example", "https://evil.example", false),
            ("gw.example", "https://gw.example.evil.example", false),
            ("gw.example", "https://x@gw.example", false),
            ("gw.example", "https://gw.example/", false),
            ("gw.example", "null", false),
            ("gw.example", "", false),
            ("", "https://gw.example", false),
        ] {
            let passes = passes(false, &[], asked, &[origin]);
            assert_eq!(passes, expected, "{asked} {origin}");
        }
        assert!(passes(false, &[], "gw.example", &[]));
        let twice = ["https://gw.example"; 2];
        assert!(!passes(false, &[], "gw.example", &twice));
    }

    #[test]
    fn others_pass_when_they_are_listed() {
        let allowed = ["https://portal.example", "app://localhost"];
        for hijack_all in [true, false] {
            for (origin, expected) in [
                ("https://portal.example", true),
                ("https://portal.example:443", true),
                ("app://localhost", true),
                ("https://gw.example", true),
                ("http://portal.example", false),
                ("https://portal.example:8443", false),
                ("https://evil.example", false),
            ] {
                let passes = passes(hijack_all, &allowed, "gw.example", &[origin]);
                assert_eq!(passes, expected, "{origin}");
            }
        }
    }

    #[test]
    fn where_tokens_are_tickets_any_page_passes_unless_some_are_listed() {
        assert!(passes(true, &[], "gw", &["https://evil.example"]));
        assert!(passes(true, &[], "gw", &["null"]));
    }

    #[test]
    fn without_tls_a_page_may_have_come_without_it() {
        let rules = OriginRules::new(&[], false);
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static("http://gw.example"));
        let asked = "gw.example".parse().unwrap();
        assert!(rules.check(&headers, Some(&asked), false).is_ok());
        assert!(rules.check(&headers, Some(&asked), true).is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_means_the_same(text in "[a-z]{1,5}://[a-z0-9.:\\[\\]]{0,12}|\\PC{0,20}") {
            if let Ok(origin) = text.parse::<WebOrigin>() {
                prop_assert_eq!(origin.to_string().parse(), Ok(origin));
            }
        }
    }
}
