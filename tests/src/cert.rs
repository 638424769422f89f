//! Certificates for the servers of the tests, as PEM files and for clients that trust them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

use crate::tls::crypto_provider;

/// A certificate and its key, in files that live as long as this value.
#[derive(Debug)]
pub struct TestCert {
    dir: TempDir,
    /// Leaf first, without the authority.
    chain: Vec<CertificateDer<'static>>,
    key: PrivatePkcs8KeyDer<'static>,
    /// The certificate that a client trusts: the authority, or the leaf when self-signed.
    root: CertificateDer<'static>,
    root_pem: String,
}

/// What a certificate shall be.
#[must_use]
#[derive(Clone, Debug)]
pub struct TestCertBuilder {
    names: Vec<String>,
    rsa: bool,
    authority: bool,
    end: Option<SystemTime>,
}

impl TestCertBuilder {
    /// DNS names and IP addresses that the certificate is for, instead of `localhost`,
    /// `127.0.0.1` and `::1`.
    pub fn names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.names = names.into_iter().map(Into::into).collect();
        self
    }

    /// An RSA key of 2048 bits instead of an EC one on P-256.
    pub fn rsa(mut self) -> Self {
        self.rsa = true;
        self
    }

    /// Ends after this time, counted from now, instead of in some thousand years.
    pub fn life(mut self, life: Duration) -> Self {
        self.end = Some(SystemTime::now() + life);
        self
    }

    /// Has ended for this time.
    pub fn ended(mut self, ago: Duration) -> Self {
        self.end = Some(SystemTime::now() - ago);
        self
    }

    /// Signed by an intermediate of an authority of its own instead of by itself; the
    /// certificate file then holds the leaf and the intermediate.
    pub fn chain(mut self) -> Self {
        self.authority = true;
        self
    }

    /// Makes the certificate and writes its files.
    pub fn build(self) -> Result<TestCert> {
        let key = if self.rsa {
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
        } else {
            KeyPair::generate()
        };
        let key = key.context("making a key")?;
        let mut params = CertificateParams::new(self.names).context("names of a certificate")?;
        params
            .distinguished_name
            .push(DnType::CommonName, "gateway under test");
        if let Some(end) = self.end {
            params.not_after = end.into();
        }

        let (certs, root) = if self.authority {
            let (root_params, root_key) = authority_params("test root")?;
            let root = root_params.self_signed(&root_key)?;
            let (mid_params, mid_key) = authority_params("test intermediate")?;
            let middle = mid_params.signed_by(&mid_key, &Issuer::new(root_params, root_key))?;
            let leaf = params.signed_by(&key, &Issuer::new(mid_params, mid_key))?;
            (vec![leaf, middle], root)
        } else {
            let leaf = params.self_signed(&key)?;
            (vec![leaf.clone()], leaf)
        };

        let cert = TestCert {
            dir: TempDir::with_prefix("testkit-cert-")?,
            chain: certs.iter().map(|cert| cert.der().clone()).collect(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            root: root.der().clone(),
            root_pem: root.pem(),
        };
        let chain_pem: String = certs.iter().map(rcgen::Certificate::pem).collect();
        cert.write(&chain_pem, &key.serialize_pem())?;
        Ok(cert)
    }
}

impl TestCert {
    /// A self-signed EC certificate for `localhost`, `127.0.0.1` and `::1`.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// The start of a certificate of another kind.
    pub fn builder() -> TestCertBuilder {
        TestCertBuilder {
            names: ["localhost", "127.0.0.1", "::1"].map(String::from).into(),
            rsa: false,
            authority: false,
            end: None,
        }
    }

    /// PEM file with the certificate and its chain.
    pub fn cert_path(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// PEM file with the private key.
    pub fn key_path(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    /// PEM file with the certificate, its chain and the private key.
    pub fn combined_path(&self) -> PathBuf {
        self.dir.path().join("combined.pem")
    }

    /// PEM file with the authority that a client trusts: its own certificate when self-signed.
    pub fn ca_path(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The certificate itself.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// What a client must trust to accept this certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Puts another certificate into the files at this one's paths, as a renewal does: each
    /// file is replaced at once.
    pub fn replace_files(&self, other: &TestCert) -> Result<()> {
        for name in ["ca.pem", "key.pem", "cert.pem", "combined.pem"] {
            let fresh = self.dir.path().join("fresh");
            std::fs::copy(other.dir.path().join(name), &fresh)?;
            std::fs::rename(&fresh, self.dir.path().join(name))?;
        }
        Ok(())
    }

    /// Settings of a TLS server (1.2 and 1.3, no ALPN) that shows this certificate.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>> {
        let config = ServerConfig::builder_with_provider(crypto_provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                self.chain.clone(),
                PrivateKeyDer::Pkcs8(self.key.clone_key()),
            )?;
        Ok(Arc::new(config))
    }

    fn write(&self, chain_pem: &str, key_pem: &str) -> Result<()> {
        let write = |path: PathBuf, text: &str| {
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        write(self.cert_path(), chain_pem)?;
        write(self.key_path(), key_pem)?;
        write(self.combined_path(), &format!("{chain_pem}{key_pem}"))?;
        write(self.ca_path(), &self.root_pem)
    }
}

fn authority_params(name: &str) -> Result<(CertificateParams, KeyPair)> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok((params, KeyPair::generate()?))
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject;
    use tokio::net::TcpStream;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::host::Host;
    use crate::net::Endpoint;
    use crate::tls::TlsClient;

    #[test]
    fn files_hold_what_their_names_say() {
        let cert = TestCert::builder().chain().build().unwrap();
        let certificates = |path: PathBuf| -> Vec<_> {
            let found = CertificateDer::pem_file_iter(path).unwrap();
            found.map(Result::unwrap).collect()
        };
        assert_eq!(certificates(cert.cert_path()), cert.chain);
        assert_eq!(certificates(cert.combined_path()), cert.chain);
        assert_eq!(certificates(cert.ca_path()), [cert.root().clone()]);
        let key = PrivateKeyDer::Pkcs8(cert.key.clone_key());
        for path in [cert.key_path(), cert.combined_path()] {
            assert_eq!(PrivateKeyDer::from_pem_file(path).unwrap(), key);
        }

        let renewed = TestCert::new().unwrap();
        cert.replace_files(&renewed).unwrap();
        assert_eq!(certificates(cert.cert_path()), renewed.chain);
    }

    #[tokio::test]
    async fn every_kind_is_trusted_by_its_root() {
        let builder = || TestCert::builder().names(["vdi.example"]);
        for cert in [builder(), builder().rsa(), builder().rsa().chain()] {
            let cert = cert.build().unwrap();
            let acceptor = TlsAcceptor::from(cert.server_config().unwrap());
            let server = Host::spawn(move |stream: TcpStream| {
                let accept = acceptor.accept(stream);
                async move { Ok(accept.await.map(drop)?) }
            })
            .await
            .unwrap();
            let tls = TlsClient::trusting(cert.root()).unwrap();
            let named = tls.clone().server_name("vdi.example").unwrap();
            let endpoint = Endpoint::plain(server.addr());
            endpoint.clone().with_tls(named).connect().await.unwrap();
            assert!(endpoint.with_tls(tls).connect().await.is_err());
        }
    }
}
