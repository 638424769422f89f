//! Logins that pages of other sites try in their visitors' browsers.
//!
//! They cannot read the answers, but could try passwords from addresses that reach the gateway.

use http::{HeaderMap, Method};

use crate::canonical_path::CanonicalPath;
use crate::web_origin::OriginRules;

/// How browsers say whose page made a request (Fetch Metadata Request Headers, section 2.4). Pages
/// cannot set it, and clients that are no browsers do not send it.
const SITE: &str = "sec-fetch-site";

/// Whether a page of another site asks for a desktop, and is not of an origin that may.
pub fn is_foreign_login(
    method: &Method,
    path: &CanonicalPath,
    headers: &HeaderMap,
    origins: &OriginRules,
) -> bool {
    let is_login = path.is_desktop() || path.is_authmode();
    let is_foreign = headers
        .get_all(SITE)
        .iter()
        .any(|site| site == "cross-site");
    method == Method::POST && is_login && is_foreign && !origins.are_listed(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_logins_of_other_sites_are_foreign() {
        let listed = "https://portal.example".parse().unwrap();
        let origins = OriginRules::new(&[listed], true);
        let is_foreign = |method: &Method, path: &str, site: Option<&str>, origin: &str| {
            let path = CanonicalPath::parse(path).unwrap();
            let mut headers = HeaderMap::new();
            if let Some(site) = site {
                headers.insert(SITE, site.parse().unwrap());
            }
            headers.insert(http::header::ORIGIN, origin.parse().unwrap());
            is_foreign_login(method, &path, &headers, &origins)
        };
        let (other, cross) = ("https://evil.example", Some("cross-site"));
        for path in ["/vdi/desktop", "/vdi/desktop/", "/vdi/authmode"] {
            assert!(is_foreign(&Method::POST, path, cross, other), "{path}");
            assert!(is_foreign(&Method::POST, path, cross, "null"), "{path}");
            for site in [None, Some("same-origin"), Some("same-site"), Some("none")] {
                assert!(!is_foreign(&Method::POST, path, site, other), "{site:?}");
            }
        }
        let listed = "https://portal.example";
        assert!(!is_foreign(&Method::POST, "/vdi/desktop", cross, listed));
        assert!(!is_foreign(&Method::POST, "/vdi/sso", cross, other));
        assert!(!is_foreign(&Method::GET, "/vdi/desktop", cross, other));
    }
}
