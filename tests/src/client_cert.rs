//! Certificates of clients, and who signs and revokes them.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

const DAY: Duration = Duration::from_hours(24);

/// An authority for certificates of clients, with its files.
pub struct ClientAuthority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

/// A client's certificate and key, in files that live as long as this value.
pub struct ClientCert {
    dir: TempDir,
    serial: Vec<u8>,
    pub(crate) certified: CertifiedKey,
}

impl ClientAuthority {
    /// One of this name.
    pub fn new(name: &str) -> Result<Self> {
        let dir = TempDir::with_prefix("testkit-authority-")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        std::fs::write(dir.path().join("ca.pem"), certificate.pem())?;
        Ok(Self {
            dir,
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        })
    }

    /// PEM file with its certificate.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The certificate of a client with this common name, and an e-mail address that begins so.
    pub fn sign(&self, name: &str) -> Result<ClientCert> {
        self.sign_until(name, SystemTime::now() + DAY)
    }

    /// The same, which ends at this time.
    pub fn sign_until(&self, name: &str, end: SystemTime) -> Result<ClientCert> {
        let dir = TempDir::with_prefix("testkit-client-")?;
        let mut params = CertificateParams::default();
        // The library's own common name would come first.
        params.distinguished_name = DistinguishedName::new();
        let subject = &mut params.distinguished_name;
        subject.push(DnType::OrganizationName, "Example");
        subject.push(DnType::CommonName, name);
        let email = format!("{name}@example.com");
        params.subject_alt_names = vec![SanType::Rfc822Name(email.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (end - 10 * DAY).into();
        params.not_after = end.into();
        let key = KeyPair::generate()?;
        let serial = key.public_key_raw()[1..9].to_vec();
        params.serial_number = Some(SerialNumber::from(serial.clone()));
        let certificate = params.signed_by(&key, &self.issuer)?;
        std::fs::write(dir.path().join("cert.pem"), certificate.pem())?;
        std::fs::write(dir.path().join("key.pem"), key.serialize_pem())?;
        let chain = vec![certificate.der().clone(), self.der.clone()];
        let signing_key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let signing_key = any_supported_type(&signing_key.into())?;
        Ok(ClientCert {
            dir,
            serial,
            certified: CertifiedKey::new(chain, signing_key),
        })
    }

    /// PEM file with the list of these certificates, which are revoked; replaces the one before at
    /// once. It is good until `end`.
    pub fn revoke(&self, revoked: &[&ClientCert], end: SystemTime) -> Result<PathBuf> {
        let revoked_certs = revoked.iter().map(|cert| RevokedCertParams {
            serial_number: SerialNumber::from(cert.serial.clone()),
            revocation_time: (end - DAY).into(),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: (end - 10 * DAY).into(),
            next_update: end.into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer)?;
        let (fresh, path) = (
            self.dir.path().join("fresh"),
            self.dir.path().join("crl.pem"),
        );
        std::fs::write(&fresh, list.pem()?)?;
        std::fs::rename(&fresh, &path).context("writing a list of revoked certificates")?;
        Ok(path)
    }
}

impl ClientCert {
    /// Its number in hexadecimal digits.
    pub fn serial(&self) -> String {
        let digits = self.serial.iter().map(|byte| format!("{byte:02X}"));
        digits
            .collect::<String>()
            .trim_start_matches("00")
            .to_owned()
    }

    /// PEM file with the certificate.
    pub fn cert_path(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// PEM file with its key.
    pub fn key_path(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }
}
