//! Which names a certificate is for, as Spice clients see it (`verify_hostname` in
//! `common/ssl_verify.c` of spice-common): its DNS names and IP addresses or, without any, its
//! common name.

use std::net::IpAddr;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::certificate_subject::{address_of, common_names};

/// Names of a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names(Vec<Name>);

#[derive(Debug, PartialEq, Eq)]
enum Name {
    Dns(String),
    Address(IpAddr),
}

impl Names {
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let extension = certificate.subject_alternative_name().ok().flatten();
        let alternative: Vec<_> = extension
            .map(|extension| extension.value.general_names.iter())
            .into_iter()
            .flatten()
            .filter_map(alternative)
            .collect();
        if !alternative.is_empty() {
            return Self(alternative);
        }
        let last = common_names(certificate.subject()).pop();
        Self(last.into_iter().map(|name| common(&name)).collect())
    }

    /// Whether one of them is a host's, which is a name or an address.
    pub(super) fn include(&self, host: &str) -> bool {
        let address = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        self.0.iter().any(|name| match name {
            Name::Address(own) => Some(own.to_canonical()) == address,
            Name::Dns(pattern) => address.is_none() && fits(pattern, host),
        })
    }

    /// For a message.
    pub(super) fn shown(&self) -> String {
        let names = self.0.iter().map(|name| match name {
            Name::Dns(name) => name.chars().filter(|c| !c.is_control()).collect(),
            Name::Address(address) => address.to_string(),
        });
        let names = names.take(10).collect::<Vec<String>>().join(", ");
        if names.is_empty() {
            "no name".to_owned()
        } else {
            names
        }
    }
}

fn alternative(name: &GeneralName<'_>) -> Option<Name> {
    match *name {
        GeneralName::DNSName(name) => Some(Name::Dns(name.to_owned())),
        GeneralName::IPAddress(octets) => address_of(octets).map(Name::Address),
        _ => None,
    }
}

fn common(name: &str) -> Name {
    match name.parse() {
        Ok(address) => Name::Address(address),
        Err(_) => Name::Dns(name.to_owned()),
    }
}

/// Whether a name fits one of a certificate, which may begin with `*.` for one label (RFC 9525,
/// section 6.3).
fn fits(pattern: &str, name: &str) -> bool {
    let bare = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let (pattern, name) = (bare(pattern), bare(name));
    match pattern.strip_prefix("*.") {
        Some(domain) => {
            let rest = name.split_once('.').map(|(_, rest)| rest);
            domain.contains('.') && rest == Some(domain)
        }
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};
    use x509_parser::prelude::FromDer;

    use super::*;

    fn include(alternative: &[&str], common_name: &str, host: &str) -> bool {
        let alternative: Vec<_> = alternative.iter().map(ToString::to_string).collect();
        let mut parameters = CertificateParams::new(alternative).unwrap();
        parameters
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        let der = parameters.self_signed(&key).unwrap().der().to_vec();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        Names::of(&certificate).include(host)
    }

    #[test]
    fn alternative_names_count_and_without_them_the_common_name() {
        let both = ["a.example", "192.0.2.1", "::1"];
        for host in ["a.example", "A.Example.", "192.0.2.1", "::1"] {
            assert!(include(&both, "other", host), "{host}");
        }
        for host in ["other", "b.example", "192.0.2.2"] {
            assert!(!include(&both, "other", host), "{host}");
        }
        assert!(include(&[], "host-7", "HOST-7"));
        assert!(include(&[], "192.0.2.1", "192.0.2.1"));
        assert!(!include(&[], "my server", "192.0.2.1"));
    }

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(include(&["*.vdi.example"], "", "a.vdi.example"));
        for host in ["vdi.example", "a.b.vdi.example", "192.0.2.1"] {
            assert!(!include(&["*.vdi.example"], "", host), "{host}");
        }
        assert!(!include(&["*.example"], "", "a.example"));
        assert!(!include(&[], "*", "a"));
    }
}
