//! The certificate that a setup uses: one that is there, one that it makes, or one that the gateway
//! gets by itself.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::from_authority::FromAuthority;
use super::placing::NewFile;
use crate::config::Config;
use crate::host::Host;
use crate::tls::Identity;

/// How long a certificate lasts that is made here.
const LIFE: Duration = Duration::from_secs(365 * 86_400);
/// How long before now it begins, for clients whose clocks are late.
const HEAD_START: Duration = Duration::from_secs(86_400);

/// Where the certificate comes from.
pub(super) enum Certificate {
    /// Files.
    Files(Files),
    /// An authority, from which the gateway gets it.
    Authority(Box<FromAuthority>),
}

impl Certificate {
    /// Whether it will be one that signs itself.
    pub(super) fn is_self_signed(&self) -> bool {
        matches!(self, Self::Files(files) if files.is_new)
    }

    /// Adds what is to be written.
    pub(super) fn add_files(&self, names: &[Host], files: &mut Vec<NewFile>) -> anyhow::Result<()> {
        match self {
            Self::Files(own) => own.add_files(names, files),
            Self::Authority(_) => Ok(()),
        }
    }
}

/// Files with certificate and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    /// Whether they are to be made.
    pub(super) is_new: bool,
}

impl Files {
    /// Files that are there. Fails unless they belong together and are for all of the names.
    pub(super) fn existing(cert: PathBuf, key: PathBuf, names: &[Host]) -> anyhow::Result<Self> {
        let config = Config {
            cert_file: cert,
            key_file: key,
            ..Config::default()
        };
        let identity = Identity::read(&config)?;
        let Config {
            cert_file: cert,
            key_file: key,
            ..
        } = config;
        let held = &identity.certificate.names;
        let is_held = |name: &Host| held.iter().any(|held| name.is_certified_as(held));
        if let Some(name) = names.iter().find(|name| !is_held(name)) {
            bail!(
                "{}: the certificate is for {}, and not for {name}",
                cert.display(),
                held.join(", ")
            );
        }
        Ok(Self {
            cert,
            key,
            is_new: false,
        })
    }

    /// New files in this folder. Fails where they are there already.
    pub(super) fn to_make(folder: &Path) -> anyhow::Result<Self> {
        let [cert, key] = ["gateway.pem", "gateway.key"].map(|name| folder.join(name));
        for path in [&cert, &key] {
            if path.symlink_metadata().is_ok() {
                bail!(
                    "{} exists already; use it with its key, or move it away",
                    path.display()
                );
            }
        }
        Ok(Self {
            cert,
            key,
            is_new: true,
        })
    }

    fn add_files(&self, names: &[Host], files: &mut Vec<NewFile>) -> anyhow::Result<()> {
        if self.is_new {
            let (cert, key) = self_signed(names).context("cannot make a certificate")?;
            files.push(NewFile::public(self.cert.clone(), cert));
            files.push(NewFile::secret(self.key.clone(), key));
        }
        Ok(())
    }
}

/// A certificate for these names with its key, both as PEM.
fn self_signed(names: &[Host]) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.iter().map(Host::to_string).collect::<Vec<_>>())?;
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = names.first() {
        params
            .distinguished_name
            .push(DnType::CommonName, common_name(name));
    }
    let now = SystemTime::now();
    params.not_before = (now - HEAD_START).into();
    params.not_after = (now + LIFE).into();
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// At most 64 characters fit (RFC 5280, appendix A.1, `ub-common-name`); all of the name is among
/// the alternative names.
fn common_name(host: &Host) -> String {
    host.to_string().chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Vec<Host> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn one_that_is_made_is_taken_for_its_names_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let names = hosts(&["vdi.example.com", "192.0.2.10", "2001:db8::1"]);
        let made = Files::to_make(folder.path()).unwrap();
        let mut files = Vec::new();
        made.add_files(&names, &mut files).unwrap();
        for file in &files {
            std::fs::write(&file.path, &*file.content).unwrap();
        }
        let Files { cert, key, .. } = made;
        let existing = |names: &[&str]| {
            Files::existing(cert.clone(), key.clone(), &hosts(names))
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            existing(&["vdi.example.com", "192.0.2.10", "2001:db8::1"]),
            Ok(())
        );
        let told = existing(&["vdi.example.com", "vdi2.example.com"]).unwrap_err();
        assert!(
            told.ends_with(
                "gateway.pem: the certificate is for vdi.example.com, 192.0.2.10, \
                 2001:db8::1, and not for vdi2.example.com"
            ),
            "{told}"
        );
        let told = Files::to_make(folder.path()).unwrap_err().to_string();
        assert!(told.contains("gateway.pem exists already"), "{told}");
        let config = Config {
            cert_file: cert,
            key_file: key,
            ..Config::default()
        };
        let identity = Identity::read(&config).unwrap();
        assert_eq!(identity.certificate.notice(SystemTime::now()), None);
        let much_later = SystemTime::now() + LIFE + HEAD_START;
        assert!(!identity.certificate.is_valid_at(much_later));
    }

    #[test]
    fn the_longest_name_fits() {
        let name = format!("{}.example.com", ["a".repeat(60).as_str(); 3].join("."));
        assert!(self_signed(&hosts(&[&name])).is_ok());
    }
}
