//! Who a client is, by a certificate that was verified.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::certificate_subject::{address_of, distinguished_name, hexadecimal};
use crate::host::Host;

/// Longest name of a subject or an issuer, in bytes.
const LONGEST_NAME: usize = 1_024;
/// Longest serial number: 20 bytes (RFC 5280, section 4.1.2.2), each as two digits.
const LONGEST_SERIAL: usize = 40;
/// Alternative names that are kept, and the length of each, in bytes.
const MOST_NAMES: usize = 16;
const LONGEST_ALTERNATIVE: usize = 254;

/// What is passed on of it. All texts are of printable ASCII.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// The subject, the most special attribute first (RFC 4514): `CN=Alice,O=Example,C=ES`.
    pub subject: String,
    /// Who has issued it, in the same form.
    pub issuer: String,
    /// Its number in hexadecimal digits.
    pub serial: String,
    /// Alternative names of the subject (RFC 5280, section 4.2.1.6), such as
    /// `email:alice@example.com`, `DNS:laptop.example.com`, `URI:` and `IP:`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

impl ClientCertificate {
    /// Of a certificate in DER; `None`: what it says of itself cannot be read, or is too long to be
    /// told whole.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let number = certificate.raw_serial();
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let number = &number[zeros.min(number.len().saturating_sub(1))..];
        let read = Self {
            subject: distinguished_name(certificate.subject()),
            issuer: distinguished_name(certificate.issuer()),
            serial: hexadecimal(number),
            names: names(&certificate),
        };
        read.is_sound().then_some(read)
    }

    /// Whether it is one that [`Self::of`] makes; it may come from outside.
    pub(crate) fn is_sound(&self) -> bool {
        let is_short = |text: &str, most: usize| {
            text.len() <= most && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        };
        is_short(&self.subject, LONGEST_NAME)
            && is_short(&self.issuer, LONGEST_NAME)
            && is_short(&self.serial, LONGEST_SERIAL)
            && self.names.len() <= MOST_NAMES
            && self.names.iter().all(|name| is_alternative(name))
    }
}

/// For serde, which does not look into an `Arc` by itself.
pub fn shared<S: Serializer>(
    certificate: &Option<Arc<ClientCertificate>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    certificate.as_deref().serialize(serializer)
}

fn is_alternative(name: &str) -> bool {
    // A list of them is separated by commas.
    let is_plain = |byte: u8| matches!(byte, b'!'..=b'~') && byte != b',';
    name.len() <= LONGEST_ALTERNATIVE && name.bytes().all(is_plain)
}

/// Names that cannot be told in a word are left out.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.map(|extension| extension.value.general_names.iter());
    let told = names.into_iter().flatten().filter_map(|name| match name {
        GeneralName::RFC822Name(name) => Some(format!("email:{name}")),
        GeneralName::DNSName(name) => Some(format!("DNS:{name}")),
        GeneralName::URI(name) => Some(format!("URI:{name}")),
        GeneralName::IPAddress(octets) => {
            let host = Host::try_from(address_of(octets)?).ok()?;
            Some(format!("IP:{host}"))
        }
        _ => None,
    });
    told.filter(|name| is_alternative(name))
        .take(MOST_NAMES)
        .collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, SerialNumber};

    use super::*;

    fn parameters(common_name: &str) -> CertificateParams {
        let mut parameters = CertificateParams::default();
        let name = &mut parameters.distinguished_name;
        *name = rcgen::DistinguishedName::new();
        name.push(DnType::CountryName, "ES");
        name.push(DnType::OrganizationName, "Example, Inc.");
        name.push(DnType::CommonName, common_name);
        parameters.serial_number = Some(SerialNumber::from(vec![0x0a, 0xbc]));
        parameters
    }

    fn read(parameters: &CertificateParams) -> Option<ClientCertificate> {
        let key = KeyPair::generate().unwrap();
        ClientCertificate::of(parameters.self_signed(&key).unwrap().der())
    }

    #[test]
    fn tells_subject_number_and_names() {
        let mut parameters = parameters("Ana Núñez");
        let text = |text: &str| text.try_into().unwrap();
        parameters.subject_alt_names = vec![
            SanType::Rfc822Name(text("ana@example.com")),
            SanType::DnsName(text("laptop.example.com")),
            SanType::URI(text("https://example.com/a,b")),
            SanType::IpAddress("192.0.2.1".parse().unwrap()),
        ];
        let told = read(&parameters).unwrap();
        let subject = r"CN=Ana N\C3\BA\C3\B1ez,O=Example\, Inc.,C=ES";
        assert_eq!(told.subject, subject);
        assert_eq!(
            (told.issuer.as_str(), told.serial.as_str()),
            (subject, "0ABC")
        );
        let names = [
            "email:ana@example.com",
            "DNS:laptop.example.com",
            "IP:192.0.2.1",
        ];
        assert_eq!(told.names, names);
    }

    #[test]
    fn what_cannot_be_told_whole_is_not_told() {
        assert!(read(&parameters(&"a".repeat(900))).is_some());
        assert!(read(&parameters(&"a".repeat(1_100))).is_none());
        assert_eq!(ClientCertificate::of(b"no certificate"), None);
    }

    #[test]
    fn what_comes_from_outside_is_looked_at() {
        let good = read(&parameters("Alice")).unwrap();
        assert!(good.is_sound());
        for bad in [
            ClientCertificate {
                subject: "CN=a\r\nX-Other: b".to_owned(),
                ..good.clone()
            },
            ClientCertificate {
                names: vec!["DNS:a".to_owned(); 17],
                ..good.clone()
            },
            ClientCertificate {
                serial: "0".repeat(41),
                ..good
            },
        ] {
            assert!(!bad.is_sound(), "{bad:?}");
        }
    }
}
