//! The certificate that clients see: does it go with its key, is it valid, for whom, and does it
//! lead to an authority?

use std::path::Path;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::super::finding::{Finding, or_ok};
use super::super::scene::Scene;
use super::{Check, NOT_TAKEN};
use crate::certificate_subject::shown;
use crate::config::Config;
use crate::host_tls::server_name;
use crate::pem_file::PemFile;
use crate::tls::{Certificate, Identity, Notice, PublicKey, TlsError};

pub(super) const CHECK: Check = Check::blocking("certificate", look);

/// Where distributions keep the authorities that everything on the machine trusts.
const TRUSTED: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];
/// Signatures with SHA-1 or MD5 (RFC 3279, section 2.2; RFC 4055, section 2.1).
const WEAK_SIGNATURES: [&str; 5] = [
    "1.2.840.113549.1.1.4",
    "1.2.840.113549.1.1.5",
    "1.2.840.10045.4.1",
    "1.2.840.10040.4.3",
    "1.3.14.3.2.29",
];

/// With `Acme`, what is to be looked at.
const SEE_STATUS: &str = "`flexvdi-gateway status` says when one is ordered, and why that failed";

fn look(scene: &Scene) -> Vec<Finding> {
    let config = &scene.config;
    let path = &*config.certificate_file();
    let file = PemFile::read(path);
    if let Some(unread) = unread(config) {
        return vec![unread];
    }
    let identity = match Identity::read(config) {
        Ok(identity) => identity,
        Err(error) => {
            let remedy = match error {
                TlsError::ClientAuthorities { .. } | TlsError::ClientLists { .. } => {
                    "Correct the file"
                }
                _ => "Put the certificate with its chain into CertFile and its key into KeyFile",
            };
            return vec![Finding::error(error.to_string(), NOT_TAKEN, remedy)];
        }
    };
    if identity.is_placeholder {
        let found = identity.oddity.as_deref();
        return vec![Finding::warning(
            found.unwrap_or("Acme: there is no certificate yet; a gateway that runs orders one"),
            "Until there is one, clients see a self-signed certificate and refuse it",
            SEE_STATUS,
        )];
    }
    let Ok(chain) = file.certificates() else {
        return vec![Finding::skipped("the certificate has changed just now")];
    };
    let mut troubles = Vec::new();
    troubles.extend(time(config, &identity.certificate));
    troubles.extend(names(config, path, &chain[0], &identity.certificate));
    troubles.extend(identity.oddity.iter().map(|oddity| {
        Finding::warning(
            oddity,
            "Clients that do not know the issuer refuse the certificate",
            "Put the certificates into CertFile so that each one is followed by its issuer's",
        )
    }));
    let trust = trust(&chain);
    troubles.extend(weak(path, &chain));
    if identity.oddity.is_none() && identity.certificate.is_valid_at(SystemTime::now()) {
        troubles.extend(untrusted(path, &trust));
    }
    or_ok(troubles, || format!("{}; {trust}", identity.certificate))
}

/// A file that this process may not read. What keeps the gateway from it is reported with the other
/// files.
fn unread(config: &Config) -> Option<Finding> {
    let names = match config.acme {
        Some(_) => ["Acme", "Acme"],
        None => ["CertFile", "KeyFile"],
    };
    let (chain, key) = (config.certificate_file(), config.certificate_key_file());
    let files = [
        (names[0], Some(&*chain)),
        (names[1], Some(&*key)),
        ("ClientCAFile", config.client_ca_file.as_deref()),
        ("ClientCRLFile", config.client_crl_file.as_deref()),
    ];
    files.into_iter().find_map(|(name, path)| {
        let file = PemFile::read(path?);
        let error = file.bytes().err()?;
        // There need be none yet.
        if name == "Acme" && file.is_missing() {
            return None;
        }
        let path = file.path.display();
        Some(Finding::skipped(format!("{name}: {path}: {error}")))
    })
}

fn time(config: &Config, certificate: &Certificate) -> Option<Finding> {
    let notice = certificate.notice(SystemTime::now())?;
    let path = config.certificate_file();
    let found = format!("{}: the certificate {notice}", path.display());
    let remedy = match config.acme {
        Some(_) => SEE_STATUS,
        None => "Renew it; the gateway takes new files without a restart",
    };
    Some(match notice {
        Notice::EndsSoon { .. } => {
            Finding::warning(found, "Clients refuse it once it has expired", remedy)
        }
        Notice::Ended { .. } => Finding::error(found, "Clients refuse it", remedy),
        Notice::NotYet { .. } => Finding::error(
            found,
            "Clients refuse it until then, or this machine's clock is wrong",
            "Look at the clock, else wait or use another certificate",
        ),
    })
}

fn names(
    config: &Config,
    path: &Path,
    leaf: &CertificateDer<'_>,
    certificate: &Certificate,
) -> Option<Finding> {
    let names = certificate.names.join(", ");
    let has_alternative = X509Certificate::from_der(leaf).is_ok_and(|(_, certificate)| {
        matches!(certificate.subject_alternative_name(), Ok(Some(_)))
    });
    if !has_alternative {
        return Some(Finding::warning(
            format!(
                "{}: the certificate has no subject alternative names",
                path.display()
            ),
            "Browsers and most clients do not look at the common name any more, and refuse it",
            "Use a certificate with the gateway's name as subject alternative name",
        ));
    }
    let host = config.external_name.as_ref()?;
    let covers = server_name(host).is_ok_and(|name| {
        let parsed = ParsedCertificate::try_from(leaf);
        parsed.is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
    });
    (!covers).then(|| {
        Finding::error(
            format!("the certificate is for {names}, and not for ExternalName, {host}"),
            "Clients are sent to that name for their desktop, and refuse a certificate for another",
            "Use a certificate for that name, or correct ExternalName",
        )
    })
}

/// What a chain leads to.
enum TrustFound {
    /// An authority that this machine trusts.
    Known,
    /// An authority of its own, whose certificate is in the file.
    Own(String),
    /// Nobody has signed it but itself.
    SelfSigned,
    /// An issuer that nobody here knows.
    Unknown { issuer: String, is_alone: bool },
}

impl std::fmt::Display for TrustFound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known => f.write_str("signed by an authority that this machine trusts"),
            Self::Own(issuer) => write!(f, "signed by an authority of your own, {issuer}"),
            Self::SelfSigned => f.write_str("signed by itself"),
            Self::Unknown { issuer, .. } => {
                write!(f, "signed by {issuer}, which this machine does not know")
            }
        }
    }
}

fn trust(chain: &[CertificateDer<'_>]) -> TrustFound {
    if is_signed_by_known(chain) {
        return TrustFound::Known;
    }
    let Some((_, last)) = chain
        .last()
        .and_then(|last| X509Certificate::from_der(last).ok())
    else {
        return TrustFound::SelfSigned;
    };
    let issuer = shown(last.issuer());
    let is_alone = chain.len() == 1;
    match (last.issuer().as_raw() == last.subject().as_raw(), is_alone) {
        (true, true) => TrustFound::SelfSigned,
        (true, false) => TrustFound::Own(issuer),
        (false, _) => TrustFound::Unknown { issuer, is_alone },
    }
}

fn is_signed_by_known(chain: &[CertificateDer<'_>]) -> bool {
    let mut roots = RootCertStore::empty();
    let file = TRUSTED.iter().map(|path| PemFile::read(path.as_ref()));
    let mut file = file.filter_map(|file| file.certificates().ok());
    roots.add_parsable_certificates(file.next().unwrap_or_default());
    let algorithms = default_provider().signature_verification_algorithms;
    let parsed = ParsedCertificate::try_from(&chain[0]);
    parsed.is_ok_and(|parsed| {
        let now = UnixTime::now();
        let (others, all) = (&chain[1..], algorithms.all);
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, others, now, all).is_ok()
    })
}

fn untrusted(path: &Path, trust: &TrustFound) -> Option<Finding> {
    let path = path.display();
    match trust {
        TrustFound::Known
        | TrustFound::Own(_)
        | TrustFound::Unknown {
            is_alone: false, ..
        } => None,
        TrustFound::SelfSigned => Some(Finding::warning(
            format!("{path}: the certificate is signed by nobody but itself"),
            "Browsers warn, and other clients refuse it unless each of them is told to trust it",
            "Use one of an authority that clients trust",
        )),
        TrustFound::Unknown { issuer, .. } => Some(Finding::warning(
            format!(
                "{path} holds one certificate, and its issuer, {issuer}, is none of the \
                 authorities that this machine trusts"
            ),
            "If that is an intermediate, clients cannot find the way to an authority that they \
             trust, and refuse the certificate",
            "Add the certificates between it and the authority behind it; if the issuer is your \
             own authority, add its certificate",
        )),
    }
}

/// What clients do not accept any more, of all certificates whose signatures they check.
fn weak(path: &Path, chain: &[CertificateDer<'_>]) -> Option<Finding> {
    let path = path.display();
    chain.iter().enumerate().find_map(|(at, der)| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let signature = certificate.signature_algorithm.algorithm.to_id_string();
        let is_root = certificate.issuer().as_raw() == certificate.subject().as_raw();
        let weakness = if !is_root && WEAK_SIGNATURES.contains(&signature.as_str()) {
            "is signed with SHA-1 or MD5".to_owned()
        } else {
            let key = PublicKey::of_certificate(der)?.unusable()?;
            format!("has a key ({key}) that clients do not accept")
        };
        Some(Finding::warning(
            format!("{path}: certificate {} {weakness}", at + 1),
            "Current clients refuse it",
            "Have a new one issued",
        ))
    })
}
