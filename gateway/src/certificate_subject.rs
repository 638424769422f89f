//! Subjects of certificates as Spice clients compare them (`host-subject`).
//!
//! A text such as `C=IL, O=Example, CN=host 7` names attributes in the order of the certificate.
//! The text is read as `subject_to_x509_name` of spice-common reads it (`common/ssl_verify.c`),
//! spaces around `=` apart, which `openssl x509 -subject` shows; and compared as `X509_NAME_cmp` of OpenSSL compares: all attributes, in order, without regard to the
//! case of ASCII letters and to the number of spaces.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::str::FromStr;

use x509_parser::asn1_rs::{Any, Oid, Tag, ToDer};
use x509_parser::x509::X509Name;

/// Longest text, in bytes.
pub const MAX_LENGTH: usize = 1_024;

/// Kinds of attributes by the names that OpenSSL has for them, with their object identifiers
/// (RFC 4519; RFC 5280, appendix A; RFC 2985, section 5.2.1).
const KINDS: [(&str, &str, &str); 21] = [
    ("CN", "commonName", "2.5.4.3"),
    ("SN", "surname", "2.5.4.4"),
    ("serialNumber", "serialNumber", "2.5.4.5"),
    ("C", "countryName", "2.5.4.6"),
    ("L", "localityName", "2.5.4.7"),
    ("ST", "stateOrProvinceName", "2.5.4.8"),
    ("street", "streetAddress", "2.5.4.9"),
    ("O", "organizationName", "2.5.4.10"),
    ("OU", "organizationalUnitName", "2.5.4.11"),
    ("title", "title", "2.5.4.12"),
    ("description", "description", "2.5.4.13"),
    ("businessCategory", "businessCategory", "2.5.4.15"),
    ("postalCode", "postalCode", "2.5.4.17"),
    ("name", "name", "2.5.4.41"),
    ("GN", "givenName", "2.5.4.42"),
    ("initials", "initials", "2.5.4.43"),
    ("generationQualifier", "generationQualifier", "2.5.4.44"),
    ("dnQualifier", "dnQualifier", "2.5.4.46"),
    ("UID", "userId", "0.9.2342.19200300.100.1.1"),
    ("DC", "domainComponent", "0.9.2342.19200300.100.1.25"),
    ("emailAddress", "emailAddress", "1.2.840.113549.1.9.1"),
];

/// A subject that a certificate must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    text: Box<str>,
    attributes: Vec<Attribute>,
}

/// An attribute in the form in which it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attribute {
    /// Object identifier, in dots and digits.
    kind: String,
    value: String,
}

/// Why a text is no subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// It has no attribute.
    #[error("it is empty")]
    Empty,
    /// It is longer than any subject.
    #[error("it is longer than 1024 bytes")]
    TooLong,
    /// An attribute has no value.
    #[error("attribute {0} has no \"=\" with a value behind it")]
    NoValue(usize),
    /// The kind of an attribute is not known.
    #[error("attribute {0} is of an unknown kind")]
    UnknownKind(usize),
    /// It has a character that does not belong into one line.
    #[error("it has a control character")]
    Control,
    /// A backslash stands before something else than a comma or a backslash.
    #[error("a backslash must be followed by \",\" or \"\\\"")]
    Escape,
}

impl Subject {
    /// Whether it is the subject of a certificate.
    pub fn is(&self, name: &X509Name<'_>) -> bool {
        let mut expected = self.attributes.iter();
        // A relative name with several attributes at once cannot be written in such a text.
        let matches = name.iter_rdn().all(|relative| {
            let mut attributes = relative.iter();
            let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
                return false;
            };
            expected.next().is_some_and(|expected| {
                let value = text_of(attribute.attr_value());
                expected.kind == attribute.attr_type().to_id_string()
                    && value.is_some_and(|value| canonical(&value) == expected.value)
            })
        });
        matches && expected.next().is_none()
    }
}

/// A certificate's subject as such a text, for messages.
pub fn shown(name: &X509Name<'_>) -> String {
    let attributes = name.iter_attributes().map(|attribute| {
        let oid = attribute.attr_type().to_id_string();
        let known = KINDS.iter().find(|(_, _, kind)| *kind == oid);
        let kind = known.map_or(&*oid, |(short, _, _)| short);
        let value = text_of(attribute.attr_value()).unwrap_or_else(|| "?".to_owned());
        let value = value.replace('\\', "\\\\").replace(',', "\\,");
        format!("{kind}={value}")
    });
    let text = attributes.collect::<Vec<_>>().join(",");
    // It comes from outside, and goes into one line of the log.
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_LENGTH)
        .collect()
}

/// A name as directories write it (RFC 4514), in printable ASCII: the last attribute of the
/// certificate first, and what is no letter of ASCII as hexadecimal digits behind a backslash.
/// Programs that compare such names know them in this form from nginx and Apache httpd.
pub fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut relative_names: Vec<_> = name
        .iter_rdn()
        .map(|relative| {
            let mut attributes: Vec<_> = relative
                .iter()
                .map(|attribute| {
                    let oid = attribute.attr_type().to_id_string();
                    let known = KINDS.iter().find(|(_, _, kind)| *kind == oid);
                    match (known, text_of(attribute.attr_value())) {
                        (Some((short, _, _)), Some(value)) => {
                            format!("{short}={}", escaped(&value))
                        }
                        _ => format!("{oid}=#{}", encoded(attribute.attr_value())),
                    }
                })
                .collect();
            attributes.reverse();
            attributes.join("+")
        })
        .collect();
    relative_names.reverse();
    relative_names.join(",")
}

/// RFC 4514, section 2.4.
fn escaped(value: &str) -> String {
    let last = value.len().saturating_sub(1);
    let mut text = String::new();
    for (at, byte) in value.bytes().enumerate() {
        let is_special = match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => true,
            b'#' => at == 0,
            b' ' => at == 0 || at == last,
            _ => false,
        };
        match byte {
            b' '..=b'~' if is_special => text.extend(['\\', char::from(byte)]),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\{byte:02X}");
            }
        }
    }
    text
}

/// A value in DER, in hexadecimal digits; empty if it is longer than any value that means
/// something.
fn encoded(value: &Any<'_>) -> String {
    let Ok(der) = value.to_der_vec_raw() else {
        return String::new();
    };
    hexadecimal(&der)
}

/// Bytes as digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        if text.len() > MAX_LENGTH {
            return Err(SubjectError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(SubjectError::Control);
        }
        let parts = split(text)?;
        let mut attributes = Vec::new();
        for (at, part) in (1..).zip(parts) {
            let (kind, value) = part.split_once('=').ok_or(SubjectError::NoValue(at))?;
            let kind = kind_of(kind.trim_matches(' ')).ok_or(SubjectError::UnknownKind(at))?;
            let value = canonical(value);
            if value.is_empty() {
                return Err(SubjectError::NoValue(at));
            }
            attributes.push(Attribute { kind, value });
        }
        if attributes.is_empty() {
            return Err(SubjectError::Empty);
        }
        Ok(Self {
            text: text.into(),
            attributes,
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The attributes of a text, without backslashes.
fn split(text: &str) -> Result<Vec<String>, SubjectError> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let literal = match character {
            ',' => {
                parts.push(String::new());
                continue;
            }
            '\\' => match characters.next() {
                Some(escaped @ (',' | '\\')) => escaped,
                _ => return Err(SubjectError::Escape),
            },
            other => other,
        };
        if let Some(part) = parts.last_mut() {
            part.push(literal);
        }
    }
    // A comma may end the last attribute, too.
    if parts.last().is_some_and(|part| part.trim().is_empty()) {
        parts.pop();
    }
    Ok(parts)
}

/// The object identifier of a kind that is given by one of its names, or by the identifier itself.
fn kind_of(name: &str) -> Option<String> {
    let is_identifier = name.contains('.')
        && name.split('.').all(|arc| {
            !arc.is_empty() && arc.bytes().all(|b| b.is_ascii_digit()) && arc.parse::<u64>().is_ok()
        });
    if is_identifier {
        return Some(name.to_owned());
    }
    let mut kinds = KINDS.iter();
    let found = kinds.find(|(short, long, _)| {
        short.eq_ignore_ascii_case(name) || long.eq_ignore_ascii_case(name)
    });
    found.map(|(_, _, kind)| (*kind).to_owned())
}

/// As OpenSSL compares values (`asn1_string_canon`, `crypto/x509/x_name.c`).
fn canonical(value: &str) -> String {
    let is_space = |c: char| c.is_ascii_whitespace() || c == '\x0b';
    let words = value.split(is_space).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").to_ascii_lowercase()
}

/// The text of a value, whichever of the string types it has.
fn text_of(value: &Any<'_>) -> Option<String> {
    let bytes = value.data;
    match value.tag() {
        Tag::Utf8String
        | Tag::PrintableString
        | Tag::Ia5String
        | Tag::VisibleString
        | Tag::NumericString => std::str::from_utf8(bytes).ok().map(ToOwned::to_owned),
        // Taken for ISO 8859-1 by everybody.
        Tag::TeletexString => Some(bytes.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let (units, rest) = bytes.as_chunks::<2>();
            let units: Vec<_> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
            rest.is_empty().then(|| String::from_utf16(&units).ok())?
        }
        Tag::UniversalString => {
            let (points, rest) = bytes.as_chunks::<4>();
            let points = points.iter().map(|point| u32::from_be_bytes(*point));
            let text: Option<String> = points.map(char::from_u32).collect();
            text.filter(|_| rest.is_empty())
        }
        _ => None,
    }
}

/// The address in an alternative name of a subject (RFC 5280, section 4.2.1.6); `None`: it has not
/// as many bytes as an address.
pub(crate) fn address_of(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| v6()).ok()
}

/// The common names of a subject, first to last.
pub fn common_names(name: &X509Name<'_>) -> Vec<String> {
    let is_common_name = |kind: &Oid<'_>| kind.to_id_string() == "2.5.4.3";
    name.iter_attributes()
        .filter(|attribute| is_common_name(attribute.attr_type()))
        .filter_map(|attribute| text_of(attribute.attr_value()))
        .collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
    use x509_parser::certificate::X509Certificate;
    use x509_parser::prelude::FromDer;

    use super::*;

    fn certificate(attributes: Vec<(DnType, DnValue)>) -> Vec<u8> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        for (kind, value) in attributes {
            parameters.distinguished_name.push(kind, value);
        }
        let key = KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    fn usual() -> Vec<u8> {
        certificate(vec![
            (DnType::CountryName, "IL".into()),
            (DnType::LocalityName, "Raanana".into()),
            (DnType::OrganizationName, "Red Hat, Inc".into()),
            (DnType::CommonName, "my  Server".into()),
        ])
    }

    fn is(der: &[u8], text: &str) -> bool {
        let (_, certificate) = X509Certificate::from_der(der).unwrap();
        text.parse::<Subject>().unwrap().is(certificate.subject())
    }

    #[test]
    fn all_attributes_count_in_their_order() {
        let der = usual();
        for same in [
            r"C=IL,L=Raanana,O=Red Hat\, Inc,CN=my server",
            r"c=il, l=RAANANA, o=red  hat\, inc, cn= My Server ",
            r"C = IL, L = Raanana, O = Red Hat\, Inc, CN = my  Server",
            r"countryName=IL,localityName=Raanana,2.5.4.10=Red Hat\, Inc,commonName=my server,",
        ] {
            assert!(is(&der, same), "{same}");
        }
        for other in [
            "CN=my server",
            r"C=IL,L=Raanana,O=Red Hat\, Inc",
            r"C=IL,L=Raanana,O=Red Hat\, Inc,CN=my server,CN=my server",
            r"L=Raanana,C=IL,O=Red Hat\, Inc,CN=my server",
            r"C=IL,L=Raanana,O=Red Hat\, Inc,CN=my server 2",
            r"C=IL,L=Raanana,O=Red Hat\, Inc,OU=my server",
        ] {
            assert!(!is(&der, other), "{other}");
        }
    }

    #[test]
    fn values_are_compared_whatever_type_of_string_they_have() {
        let bmp = rcgen::string::BmpString::try_from("Büro 7").unwrap();
        let teletex = rcgen::string::TeletexString::try_from("plain").unwrap();
        let der = certificate(vec![
            (DnType::OrganizationName, DnValue::BmpString(bmp)),
            (
                DnType::OrganizationalUnitName,
                DnValue::TeletexString(teletex),
            ),
        ]);
        assert!(is(&der, "O=BüRO 7,OU=Plain"));
        // Only ASCII letters are alike in both cases.
        assert!(!is(&der, "O=BÜRO 7,OU=plain"));
    }

    #[test]
    fn a_subject_is_shown_as_it_can_be_configured() {
        let der = usual();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let text = shown(certificate.subject());
        assert_eq!(text, r"C=IL,L=Raanana,O=Red Hat\, Inc,CN=my  Server");
        assert!(is(&der, &text));
        assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        assert_eq!(common_names(certificate.subject()), ["my  Server"]);
    }

    #[test]
    fn names_are_written_as_directories_write_them() {
        let name = |attributes: Vec<(DnType, DnValue)>| {
            let der = certificate(attributes);
            let (_, certificate) = X509Certificate::from_der(&der).unwrap();
            distinguished_name(certificate.subject())
        };
        let der = usual();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let written = distinguished_name(certificate.subject());
        assert_eq!(written, r"CN=my  Server,O=Red Hat\, Inc,L=Raanana,C=IL");
        let odd = r#" #a+b;c"<d>\ "#;
        assert_eq!(
            name(vec![(DnType::CommonName, odd.into())]),
            r#"CN=\ #a\+b\;c\"\<d\>\\\ "#
        );
        let lines = name(vec![(DnType::CommonName, "#a\r\nß".into())]);
        assert_eq!(lines, r"CN=\#a\0D\0A\C3\9F");
        let unknown = DnType::from_oid(&[1, 2, 3, 4]);
        assert_eq!(name(vec![(unknown, "a".into())]), "1.2.3.4=#0C0161");
        assert_eq!(name(vec![]), "");
    }

    #[test]
    fn what_is_no_subject_is_refused() {
        for (text, error) in [
            ("", SubjectError::Empty),
            (" ", SubjectError::Empty),
            ("CN", SubjectError::NoValue(1)),
            ("C=IL,CN=", SubjectError::NoValue(2)),
            ("C=IL,,CN=a", SubjectError::NoValue(2)),
            ("X=a", SubjectError::UnknownKind(1)),
            ("2.5..3=a", SubjectError::UnknownKind(1)),
            ("CN=a\nb", SubjectError::Control),
            (r"CN=a\b", SubjectError::Escape),
            ("CN=a\\", SubjectError::Escape),
        ] {
            assert_eq!(text.parse::<Subject>(), Err(error), "{text:?}");
        }
        let long = format!("CN={}", "a".repeat(1_100));
        assert_eq!(long.parse::<Subject>(), Err(SubjectError::TooLong));
    }
}
