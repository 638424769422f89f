//! The certificate that is kept, and whether it is time for another one.

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use instant_acme::CertificateIdentifier;
use rustls_pki_types::CertificateDer;

use super::advice::identifier;
use super::schedule::{due, share};
use crate::config::Acme;
use crate::kept_file;
use crate::pem_file::Fingerprint;
use crate::tls::{Certificate, OwnFiles};

/// What stands before the authority's directory in the first line of the file. It is text between
/// the blocks of a PEM file (RFC 7468, section 2): one file holds all, and is replaced at once.
const FROM: &str = "Certificate and key from ";

/// A certificate with its key, in the file for both.
pub(super) struct Kept {
    certificate: Certificate,
    fingerprint: Fingerprint,
    directory: String,
    leaf: CertificateDer<'static>,
}

/// Why a certificate is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    None,
    Names,
    Authority,
    Due,
    Advice,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "there is none",
            Self::Names => "it is for other names",
            Self::Authority => "it is from another authority",
            Self::Due => "it is time to renew it",
            Self::Advice => "the authority wants it to be renewed",
        })
    }
}

/// The content of the file: the key, and the certificate with its chain, both as PEM.
pub(super) fn text(directory: &str, key: &str, chain: &str) -> String {
    format!("{FROM}{directory}\n{key}\n{chain}")
}

impl Kept {
    /// What is in the file; `None`: nothing that can be used.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let content = kept_file::read(path).ok()?;
        Self::of(path, &content).ok()
    }

    /// What would be in the file; else why it cannot be used.
    pub(super) fn of(path: &Path, content: &[u8]) -> Result<Self, String> {
        let first = content
            .split(|&byte| byte == b'\n')
            .next()
            .unwrap_or_default();
        let directory = first.strip_prefix(FROM.as_bytes()).unwrap_or_default();
        let files = OwnFiles::in_one(path, content);
        let certified = files.certified().map_err(|error| error.to_string())?;
        let leaf = certified.end_entity_cert();
        let leaf = leaf.map_err(|error| error.to_string())?;
        Ok(Self {
            certificate: Certificate::of(leaf),
            fingerprint: files.fingerprint(),
            directory: String::from_utf8_lossy(directory).trim_end().to_owned(),
            leaf: leaf.clone().into_owned(),
        })
    }

    pub(super) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Whether it is for all names that it is to be for, and no others.
    pub(super) fn is_for(&self, acme: &Acme) -> bool {
        let mut found: Vec<_> = self
            .certificate
            .names
            .iter()
            .map(|n| n.to_ascii_lowercase())
            .collect();
        let mut wanted = acme.domains.clone();
        found.sort_unstable();
        wanted.sort_unstable();
        found == wanted
    }

    /// When it is to be renewed; `None`: it cannot be read.
    pub(super) fn due(&self) -> Option<SystemTime> {
        due(&self.certificate, self.share())
    }

    /// A number of its own.
    pub(super) fn number(&self) -> u64 {
        self.fingerprint.number()
    }

    /// Where in a time it is renewed, from 0 to 1.
    pub(super) fn share(&self) -> f64 {
        share(self.number())
    }

    /// How its authority calls it; `None`: it cannot be read, or it is another one's.
    pub(super) fn identifier(&self, acme: &Acme) -> Option<CertificateIdentifier<'static>> {
        acme.is_of(&self.directory)
            .then(|| identifier(&self.leaf))?
    }

    /// Why another one is ordered at once; otherwise when it is time to. `advised`: when the
    /// authority wants it to be renewed.
    pub(super) fn judge(
        &self,
        acme: &Acme,
        advised: Option<SystemTime>,
        now: SystemTime,
    ) -> Result<SystemTime, Reason> {
        if !self.is_for(acme) {
            return Err(Reason::Names);
        }
        if !acme.is_of(&self.directory) {
            return Err(Reason::Authority);
        }
        match (advised, self.due()) {
            (Some(advised), _) if advised <= now => Err(Reason::Advice),
            (advised, due) => {
                let first = advised.into_iter().chain(due).min();
                first.filter(|first| *first > now).ok_or(Reason::Due)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use rcgen::{CertificateParams, KeyPair};
    use serde_json::json;

    use super::*;

    const DIRECTORY: &str = "https://ca.example/dir";

    fn acme(names: &[&str]) -> Acme {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let config = json!({"Acme": {
            "Domains": names, "Directory": DIRECTORY, "TermsAgreed": true,
        }});
        std::io::Write::write_all(&mut file, config.to_string().as_bytes()).unwrap();
        crate::config::load(file.path())
            .unwrap()
            .config
            .acme
            .unwrap()
    }

    /// Lives from 1,000,000 to 1,600,000.
    fn kept(directory: &str) -> Kept {
        let names = ["B.example".to_owned(), "a.example".to_owned()];
        let mut parameters = CertificateParams::new(names).unwrap();
        let at = |seconds| (UNIX_EPOCH + Duration::from_secs(seconds)).into();
        (parameters.not_before, parameters.not_after) = (at(1_000_000), at(1_600_000));
        let key = KeyPair::generate().unwrap();
        let chain = parameters.self_signed(&key).unwrap().pem();
        let text = text(directory, &key.serialize_pem(), &chain);
        Kept::of(Path::new("certificate.pem"), text.as_bytes()).unwrap()
    }

    #[test]
    fn another_one_is_ordered_when_it_is_time_and_when_something_else_is_wanted() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let names = ["a.example", "b.example"];
        let judge = |kept: Kept, names: &[&str], advised: Option<u64>, now| {
            kept.judge(&acme(names), advised.map(at), at(now))
        };
        let due = judge(kept(DIRECTORY), &names, None, 1_000_000).unwrap();
        assert!(due >= at(1_400_000) && due <= at(1_410_000), "{due:?}");
        let reason = |kept, names: &[&str], advised, now| judge(kept, names, advised, now).err();
        assert_eq!(
            reason(kept(DIRECTORY), &names, None, 1_410_001),
            Some(Reason::Due)
        );
        assert_eq!(
            reason(kept(DIRECTORY), &names[..1], None, 1_000_000),
            Some(Reason::Names)
        );
        assert_eq!(
            reason(kept("https://other.example/"), &names, None, 1_000_000),
            Some(Reason::Authority)
        );
        assert_eq!(
            reason(kept(DIRECTORY), &names, Some(1_100_000), 1_100_000),
            Some(Reason::Advice)
        );
        let sooner = judge(kept(DIRECTORY), &names, Some(1_100_000), 1_000_000);
        assert_eq!(sooner, Ok(at(1_100_000)));
        // One that lets a certificate end is not followed.
        let later = judge(kept(DIRECTORY), &names, Some(9_000_000), 1_000_000).unwrap();
        assert!(later <= at(1_410_000), "{later:?}");
    }

    #[test]
    fn what_is_no_certificate_with_its_key_is_none() {
        for text in ["", "Certificate and key from x\n", "-----BEGIN"] {
            assert!(Kept::of(Path::new("c"), text.as_bytes()).is_err());
        }
        assert!(Kept::read(Path::new("/nowhere")).is_none());
    }
}
