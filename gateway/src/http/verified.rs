//! What the manager is told of a client's certificate.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::client_certificate::ClientCertificate;

/// As nginx and HAProxy are usually configured to tell it.
const VERIFY: HeaderName = HeaderName::from_static("x-ssl-client-verify");
const SUBJECT: HeaderName = HeaderName::from_static("x-ssl-client-s-dn");
const ISSUER: HeaderName = HeaderName::from_static("x-ssl-client-i-dn");
const SERIAL: HeaderName = HeaderName::from_static("x-ssl-client-serial");
const NAMES: HeaderName = HeaderName::from_static("x-ssl-client-san");

/// What begins names of headers in which proxies tell of certificates, and such names: a manager
/// may believe any of them.
const BELIEVED: [&str; 14] = [
    "x-ssl-client",
    "x-ssl-cert",
    "x-ssl-verif",
    "x-ssl-issuer",
    "x-ssl-subject",
    "ssl-client",
    "ssl-cert",
    "x-client-cert",
    "x-client-verif",
    "x-client-dn",
    "x-forwarded-client-cert",
    "x-forwarded-tls-client-cert",
    "x-arr-clientcert",
    // RFC 9440.
    "client-cert",
];

/// What is known of the client of a connection by its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verified {
    /// None was asked for.
    #[default]
    NotAsked,
    /// It has shown none, and need not.
    Without,
    /// It has this one, which is good.
    By(Arc<ClientCertificate>),
}

impl Verified {
    /// The certificate, if the client has shown one.
    pub fn certificate(&self) -> Option<&Arc<ClientCertificate>> {
        match self {
            Self::By(certificate) => Some(certificate),
            Self::NotAsked | Self::Without => None,
        }
    }

    /// Tells the manager. What the sender of a request wrote itself is removed, unless it is a
    /// trusted proxy that was not asked for a certificate: it may have asked the client.
    pub(super) fn write(&self, is_trusted: bool, headers: &mut HeaderMap) {
        if *self == Self::NotAsked && is_trusted {
            return;
        }
        remove_told(headers);
        let mut tell = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        match self {
            Self::NotAsked => {}
            Self::Without => tell(VERIFY, "NONE"),
            Self::By(certificate) => {
                tell(VERIFY, "SUCCESS");
                tell(SUBJECT, &certificate.subject);
                tell(ISSUER, &certificate.issuer);
                tell(SERIAL, &certificate.serial);
                if !certificate.names.is_empty() {
                    tell(NAMES, &certificate.names.join(", "));
                }
            }
        }
    }
}

fn remove_told(headers: &mut HeaderMap) {
    let is_believed = |name: &HeaderName| {
        let mut believed = BELIEVED.iter();
        believed.any(|begin| name.as_str().starts_with(begin))
    };
    let told: Vec<_> = headers
        .keys()
        .filter(|name| is_believed(name))
        .cloned()
        .collect();
    for name in told {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(verified: &Verified, is_trusted: bool) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for name in [
            "x-ssl-client-verify",
            "X-SSL-Client-Cert",
            "Client-Cert-Chain",
            "X-Other",
        ] {
            let name: HeaderName = name.parse().unwrap();
            headers.append(&name, HeaderValue::from_static("invented"));
            headers.append(&name, HeaderValue::from_static("twice"));
        }
        verified.write(is_trusted, &mut headers);
        headers.remove("x-other").unwrap();
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let mut told: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect();
        told.sort();
        told
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn nobody_invents_a_certificate() {
        assert_eq!(written(&Verified::NotAsked, false), []);
        let none = pairs(&[("x-ssl-client-verify", "NONE")]);
        let certificate = ClientCertificate {
            subject: "CN=Alice".to_owned(),
            issuer: "CN=CA".to_owned(),
            serial: "0A".to_owned(),
            names: vec!["email:a@example".to_owned(), "DNS:pc.example".to_owned()],
        };
        let by = Verified::By(Arc::new(certificate));
        let told = pairs(&[
            ("x-ssl-client-i-dn", "CN=CA"),
            ("x-ssl-client-s-dn", "CN=Alice"),
            ("x-ssl-client-san", "email:a@example, DNS:pc.example"),
            ("x-ssl-client-serial", "0A"),
            ("x-ssl-client-verify", "SUCCESS"),
        ]);
        for is_trusted in [false, true] {
            assert_eq!(written(&Verified::Without, is_trusted), none);
            assert_eq!(written(&by, is_trusted), told);
        }
    }

    #[test]
    fn a_trusted_proxy_may_have_asked_itself() {
        assert_eq!(written(&Verified::NotAsked, true).len(), 6);
    }
}
