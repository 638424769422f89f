//! The value of `Acme`: which names get certificates from which authority (RFC 8555).

use std::path::PathBuf;

use http::Uri;
use serde_json::{Map, Value, json};

use super::Config;
use super::check::{are_right, overlap};
use super::report::Problem;
use super::text::{FilePath, HttpsUrl, matching, read_text};
use super::value::{Form, List, Mismatch, OrZero, Port, Switch, quote};
use crate::host::Host;

/// The directory that is used unless another one is named: that of Let's Encrypt.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Who may have signed the certificate of that server.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Most names of a certificate, as authorities give no more.
const MAX_DOMAINS: usize = 100;

const MEMBERS: [&str; 6] = [
    "Domains",
    "Contact",
    "Directory",
    "DirectoryCAFile",
    "TermsAgreed",
    "HttpPort",
];

/// Certificates that the gateway gets by itself. Whoever configured it has agreed to the
/// authority's terms (`TermsAgreed`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// DNS names in lower case, each once; at least one.
    pub domains: Vec<String>,
    /// How the authority reaches the administrator: `mailto:` addresses.
    pub contact: Vec<String>,
    /// Where the authority says what it offers.
    pub directory: Uri,
    /// `DirectoryCAFile`: PEM file with the authorities that may sign that server's certificate.
    pub directory_ca_file: PathBuf,
    /// Port for http-01 (RFC 8555, section 8.3); `None` (0): tls-alpn-01 on the TLS port
    /// (RFC 8737).
    pub http_port: Option<u16>,
}

impl Acme {
    /// The value of the key `Acme`; `None`: it says that there is none. The error says what is
    /// wrong.
    pub fn read(value: &Value) -> anyhow::Result<Option<Self>> {
        AcmeOrEmpty::read(value).map_err(|Mismatch { expected, found }| {
            anyhow::anyhow!("expected {expected}, found {found}")
        })
    }

    /// Whether the authority is the one of this directory.
    pub fn is_of(&self, directory: &str) -> bool {
        self.directory == directory
    }
}

/// An [`Acme`], or an empty string for none.
pub(super) enum AcmeOrEmpty {}

impl Form for AcmeOrEmpty {
    type Field = Option<Acme>;

    fn read(value: &Value) -> Result<Option<Acme>, Mismatch> {
        if value.as_str() == Some("") {
            return Ok(None);
        }
        let expected =
            "an object such as {\"Domains\": [\"gw.example.com\"], \"TermsAgreed\": true}, or \"\"";
        let members = value.as_object();
        let members = members.ok_or_else(|| Mismatch::new(expected, value))?;
        let is_unknown = |name: &&String| !MEMBERS.contains(&name.as_str());
        if let Some(name) = members.keys().find(is_unknown) {
            return Err(Mismatch {
                expected: format!("no other members than {}", MEMBERS.join(", ")).into(),
                found: quote(name),
            });
        }
        if !member::<Switch>(members, "TermsAgreed")?.unwrap_or(false) {
            return Err(Mismatch {
                expected: "TermsAgreed to be true, as no authority gives certificates to those \
                           who have not agreed to its terms of service; read them first"
                    .into(),
                found: members
                    .get("TermsAgreed")
                    .map_or("none", |_| "false")
                    .into(),
            });
        }
        Ok(Some(Acme {
            domains: domains(members)?,
            contact: member::<List<Contact>>(members, "Contact")?.unwrap_or_default(),
            directory: member::<HttpsUrl>(members, "Directory")?
                .unwrap_or_else(|| Uri::from_static(LETS_ENCRYPT)),
            directory_ca_file: member::<FilePath>(members, "DirectoryCAFile")?
                .unwrap_or_else(|| AUTHORITIES.into()),
            http_port: member::<OrZero<Port<1>>>(members, "HttpPort")?.flatten(),
        }))
    }

    fn write(field: &Option<Acme>) -> Value {
        let Some(acme) = field else {
            return Value::from("");
        };
        json!({
            "Domains": acme.domains,
            "Contact": acme.contact,
            "Directory": HttpsUrl::write(&acme.directory),
            "DirectoryCAFile": FilePath::write(&acme.directory_ca_file),
            "TermsAgreed": true,
            "HttpPort": OrZero::<Port<1>>::write(&acme.http_port),
        })
    }

    fn schema() -> Value {
        let object = json!({
            "type": "object",
            "properties": {
                "Domains": {
                    "type": "array",
                    "items": Domain::schema(),
                    "minItems": 1,
                    "maxItems": MAX_DOMAINS,
                    "uniqueItems": true,
                },
                "Contact": List::<Contact>::schema(),
                "Directory": HttpsUrl::schema(),
                "DirectoryCAFile": FilePath::schema(),
                "TermsAgreed": {"const": true},
                "HttpPort": OrZero::<Port<1>>::schema(),
            },
            "required": ["Domains", "TermsAgreed"],
            "additionalProperties": false,
        });
        json!({"anyOf": [{"const": ""}, object]})
    }
}

/// Reads a member, if it is there.
fn member<F: Form>(members: &Map<String, Value>, name: &str) -> Result<Option<F::Field>, Mismatch> {
    let Some(value) = members.get(name) else {
        return Ok(None);
    };
    let read = F::read(value).map_err(|mismatch| Mismatch {
        expected: format!("{name}: {}", mismatch.expected).into(),
        ..mismatch
    });
    read.map(Some)
}

fn domains(members: &Map<String, Value>) -> Result<Vec<String>, Mismatch> {
    let wrong = |expected: String, found: String| Mismatch {
        expected: expected.into(),
        found,
    };
    let listed = member::<List<Domain>>(members, "Domains")?.unwrap_or_default();
    let mut domains: Vec<String> = Vec::with_capacity(listed.len());
    for domain in listed {
        if domains.contains(&domain) {
            let expected = "each of Domains to be there once".to_owned();
            return Err(wrong(expected, quote(&domain)));
        }
        domains.push(domain);
    }
    if (1..=MAX_DOMAINS).contains(&domains.len()) {
        return Ok(domains);
    }
    let expected =
        format!("Domains to be 1 to {MAX_DOMAINS} DNS names, such as \"gw.example.com\"");
    let found = match domains.len() {
        0 => "none".to_owned(),
        count => count.to_string(),
    };
    Err(wrong(expected, found))
}

/// A DNS name for which an authority can look whether it leads here.
enum Domain {}

impl Form for Domain {
    type Field = String;

    fn read(value: &Value) -> Result<String, Mismatch> {
        let expected = match value.as_str() {
            Some(text) if text.starts_with("*.") => {
                "a DNS name without \"*\", which only answers in the DNS could prove"
            }
            _ => "a DNS name, such as \"gw.example.com\"",
        };
        read_text(value, expected, |text| {
            let host: Host = text.strip_suffix('.').unwrap_or(text).parse().ok()?;
            let is_name = host.address().is_none() && !text.contains('_');
            is_name.then(|| host.to_string().to_ascii_lowercase())
        })
    }

    fn write(field: &String) -> Value {
        Value::from(field.as_str())
    }

    fn schema() -> Value {
        matching(r"^[^*_:\[\]]+$")
    }
}

/// An address of mail as a URL (RFC 6068), one without further fields (RFC 8555, section 7.3).
enum Contact {}

impl Form for Contact {
    type Field = String;

    fn read(value: &Value) -> Result<String, Mismatch> {
        read_text(
            value,
            "an address such as \"mailto:admin@example.com\"",
            |text| {
                let (local, domain) = text.strip_prefix("mailto:")?.split_once('@')?;
                let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
                let is_one = !text.contains([',', '?']) && !domain.contains('@');
                let is_address = !local.is_empty() && domain.parse::<Host>().is_ok();
                (is_plain && is_one && is_address).then(|| text.to_owned())
            },
        )
    }

    fn write(field: &String) -> Value {
        Value::from(field.as_str())
    }

    fn schema() -> Value {
        matching("^mailto:[!-~]+@[!-~]+$")
    }
}

/// There is one source of certificates, and the port for http-01 is free for it.
pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let Some(acme) = &config.acme else {
        return;
    };
    let usual = Config::default();
    for (key, file, usual) in [
        ("CertFile", &config.cert_file, usual.cert_file),
        ("KeyFile", &config.key_file, usual.key_file),
    ] {
        if *file != usual && are_right(problems, &["Acme", key]) {
            problems.push(Problem {
                key,
                expected: "no such key beside Acme, which gets the certificate itself".to_owned(),
                found: quote(&file.to_string_lossy()),
            });
        }
    }
    let Some(port) = acme.http_port else {
        return;
    };
    let listen = config.listen_address;
    let overlaps = |other| listen.is_none_or(|listen| overlap(listen, other));
    for (key, taken, is_same_address) in [
        ("SslPort", Some(config.ssl_port), true),
        (
            "PlainPort",
            config.plain_port,
            overlaps(config.plain_address),
        ),
        (
            "AdminPort",
            config.admin_port,
            overlaps(config.admin_address),
        ),
    ] {
        if taken == Some(port) && is_same_address && are_right(problems, &["Acme", key]) {
            problems.push(Problem {
                key: "Acme",
                expected: format!("HttpPort to be another port than {key}"),
                found: port.to_string(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &Value) -> Acme {
        AcmeOrEmpty::read(value)
            .ok()
            .flatten()
            .expect("a good value")
    }

    /// What is wrong with it, as it is reported.
    fn wrong(value: &Value) -> String {
        let Mismatch { expected, found } = AcmeOrEmpty::read(value).unwrap_err();
        format!("{expected}; {found}")
    }

    #[test]
    fn what_is_not_said_is_as_with_lets_encrypt() {
        let acme = read(&json!({"Domains": ["GW.Example.", "b.example"], "TermsAgreed": true}));
        assert_eq!(acme.domains, ["gw.example", "b.example"]);
        assert!(acme.is_of(LETS_ENCRYPT));
        assert_eq!(acme.directory_ca_file, PathBuf::from(AUTHORITIES));
        assert_eq!((acme.contact.len(), acme.http_port), (0, None));
        assert!(matches!(AcmeOrEmpty::read(&json!("")), Ok(None)));
    }

    #[test]
    fn terms_have_to_be_agreed_to() {
        for (value, found) in [
            (json!({"Domains": ["a.example"]}), "none"),
            (
                json!({"Domains": ["a.example"], "TermsAgreed": false}),
                "false",
            ),
        ] {
            let told = wrong(&value);
            assert!(
                told.starts_with("TermsAgreed to be true, as no authority"),
                "{told}"
            );
            assert!(told.ends_with(&format!("; {found}")), "{told}");
        }
    }

    #[test]
    fn members_that_are_wrong_are_named() {
        let with = |name: &str, value: Value| {
            let mut object = json!({"Domains": ["a.example"], "TermsAgreed": true});
            object[name] = value;
            wrong(&object)
        };
        for (name, value, told) in [
            (
                "Domains",
                json!([]),
                "Domains to be 1 to 100 DNS names, such as \"gw.example.com\"; none",
            ),
            (
                "Domains",
                json!("a.example"),
                "Domains: an array of strings; \"a.example\"",
            ),
            (
                "Domains",
                json!(["*.example"]),
                "Domains: each element to be a DNS name without \"*\", which only answers in \
                 the DNS could prove; \"*.example\"",
            ),
            (
                "Domains",
                json!(["192.0.2.1"]),
                "Domains: each element to be a DNS name, such as \"gw.example.com\"; \"192.0.2.1\"",
            ),
            (
                "Domains",
                json!(["a.b", "A.b"]),
                "each of Domains to be there once; \"a.b\"",
            ),
            (
                "Contact",
                json!(["admin@example.com"]),
                "Contact: each element to be an address such as \"mailto:admin@example.com\"; \
                 \"admin@example.com\"",
            ),
            (
                "HttpPort",
                json!(65_536),
                "HttpPort: a port number from 1 to 65535, or 0; 65536",
            ),
            (
                "TermsAgreed",
                json!("yes"),
                "TermsAgreed: true or false; \"yes\"",
            ),
            (
                "DirectoryCaFile",
                json!("x"),
                "no other members than Domains, Contact, Directory, DirectoryCAFile, TermsAgreed, \
                 HttpPort; \"DirectoryCaFile\"",
            ),
        ] {
            assert_eq!(with(name, value), told);
        }
        assert!(with("Directory", json!("http://ca.example")).starts_with("Directory: an address"));
        assert!(wrong(&json!(true)).starts_with("an object such as"));
    }

    #[test]
    fn it_has_the_port_and_the_certificate_for_itself() {
        let problems = |change: fn(&mut Config)| {
            let mut config = Config {
                acme: Some(read(&json!({
                    "Domains": ["a.example"], "TermsAgreed": true, "HttpPort": 80,
                }))),
                ..Config::default()
            };
            change(&mut config);
            let mut problems = Vec::new();
            check(&config, &mut problems);
            problems.iter().map(Problem::to_string).collect::<Vec<_>>()
        };
        assert!(problems(|_| {}).is_empty());
        let told = problems(|config| {
            config.cert_file = "/c".into();
            config.key_file = "/k".into();
        });
        assert_eq!(
            told,
            [
                "CertFile: expected no such key beside Acme, which gets the certificate itself, \
                 found \"/c\"",
                "KeyFile: expected no such key beside Acme, which gets the certificate itself, \
                 found \"/k\""
            ]
        );
        let told = problems(|config| config.plain_port = Some(80));
        assert_eq!(
            told,
            ["Acme: expected HttpPort to be another port than PlainPort, found 80"]
        );
        let elsewhere = problems(|config| {
            config.listen_address = Some("192.0.2.1".parse().unwrap());
            config.plain_port = Some(80);
        });
        assert!(elsewhere.is_empty(), "{elsewhere:?}");
    }
}
