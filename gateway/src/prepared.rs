//! A configuration with the files that it names.

use std::error::Error;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ClientConfig;

use crate::acme;
use crate::config::{Config, Loaded, Sources};
use crate::desktops::DesktopsFile;
use crate::host_tls::{Authorities, AuthoritiesError};
use crate::manager::{self, ManagerTlsError};
use crate::metrics::Metrics;
use crate::pem_file::{Fingerprint, PemFile};
use crate::pool::PoolKeys;
use crate::portal::Portal;
use crate::signed::{PublicKeyFileError, PublicKeys, Rules, SignedTickets};
use crate::tls::Identity;
use crate::web_client::Pages;

/// A configuration whose files are good.
pub struct Prepared {
    /// Where it was read from, and is read from again.
    pub sources: Sources,
    /// What stands there.
    pub loaded: Loaded,
    /// What handshakes with clients are made with.
    pub identity: Identity,
    /// What handshakes with the manager are made with.
    pub manager_tls: ManagerTls,
    /// Who may sign the certificates of hosts.
    pub host_ca: HostCa,
    /// Keys that are shared with the other gateways of a pool.
    pub pool_keys: Option<PoolKeys>,
    /// Tells whether the file still holds these.
    pub pool_fingerprint: Fingerprint,
    /// Keys of those who sign tickets.
    pub signers: Signers,
    /// What handshakes with the portal are made with.
    pub portal_tls: PortalTls,
    /// Desktops, users and terminals in place of a manager.
    pub desktops: Option<DesktopsFile>,
    /// What browsers are shown.
    pub web_client: Option<Pages>,
}

impl Prepared {
    /// Reads all files; the error says what is wrong, wrong values one in each line.
    pub fn read(sources: Sources) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let loaded = sources.load()?;
        let identity = Identity::read(&loaded.config)?;
        acme::check(&loaded.config)?;
        let manager_tls = ManagerTls::from_file(ManagerTls::file(&loaded.config).as_ref())?;
        let host_ca = HostCa::from_file(HostCa::file(&loaded.config).as_ref())?;
        let pool_file = pool_key_file(&loaded.config);
        let pool_keys = pool_file.as_ref().map(PoolKeys::from_file).transpose()?;
        let signers = Signers::from_file(Signers::file(&loaded.config).as_ref())?;
        let portal_tls = PortalTls::from_file(PortalTls::file(&loaded.config).as_ref())?;
        let desktops = loaded.config.desktops.as_deref();
        let desktops = desktops.map(|path| DesktopsFile::read(path, pool_file.is_some()));
        let desktops = desktops.transpose()?;
        Ok(Self {
            sources: sources.after(&loaded),
            desktops,
            web_client: Pages::read(&loaded.config),
            loaded,
            identity,
            manager_tls,
            host_ca,
            pool_keys,
            pool_fingerprint: Fingerprint::of(&pool_file),
            signers,
            portal_tls,
        })
    }

    /// Everything that the administrator should know.
    pub fn warnings(&self) -> Vec<String> {
        let pool = self.pool_keys.as_ref().and_then(PoolKeys::warning);
        let pages = self.web_client.as_ref().and_then(Pages::warning);
        let config = &self.loaded.config;
        let notice = if self.identity.is_placeholder {
            Some(
                "Acme: there is no certificate yet; a gateway that runs gets one, and shows a \
                 self-signed one until then"
                    .to_owned(),
            )
        } else {
            let certificate = &self.identity.certificate;
            let key = config.acme.as_ref().map_or("CertFile", |_| "Acme");
            let path = config.certificate_file();
            let notice = certificate.notice(SystemTime::now());
            notice.map(|notice| format!("{}: {key}: the certificate {notice}", path.display()))
        };
        let loaded = self.loaded.warnings.iter().map(ToString::to_string);
        loaded
            .chain(pool.map(ToString::to_string))
            .chain(self.signers.warning().map(ToString::to_string))
            .chain(self.desktops_warnings().iter().cloned())
            .chain(pages)
            .chain(self.identity.oddity.clone())
            .chain(notice)
            .collect()
    }

    /// What the administrator should know of the file with desktops.
    pub fn desktops_warnings(&self) -> &[String] {
        let file = self.desktops.as_ref();
        file.map_or(&[], |file| file.inventory.warnings())
    }
}

/// Reads the file with the keys of a pool, if the configuration names one.
pub(crate) fn pool_key_file(config: &Config) -> Option<PemFile> {
    config.pool_key_file.as_deref().map(PemFile::read)
}

/// TLS towards the manager.
pub struct ManagerTls {
    /// What handshakes are made with.
    pub config: ClientConfig,
    /// Tells whether the file still holds this.
    pub fingerprint: Fingerprint,
}

impl ManagerTls {
    /// Reads the file of authorities, if the configuration names one.
    pub fn file(config: &Config) -> Option<PemFile> {
        config.manager_ca_file.as_deref().map(PemFile::read)
    }

    /// Of a file that was read already; without one any certificate is accepted.
    pub fn from_file(file: Option<&PemFile>) -> Result<Self, ManagerTlsError> {
        Ok(Self {
            config: manager::client_config(file)?,
            fingerprint: Fingerprint::of(file),
        })
    }
}

/// The authorities of hosts.
pub struct HostCa {
    /// Those in the file, if the configuration names one.
    pub authorities: Option<Authorities>,
    /// Tells whether the file still holds these.
    pub fingerprint: Fingerprint,
}

impl HostCa {
    /// Reads the file, if the configuration names one.
    pub fn file(config: &Config) -> Option<PemFile> {
        config.host_ca_file.as_deref().map(PemFile::read)
    }

    /// Of a file that was read already.
    pub fn from_file(file: Option<&PemFile>) -> Result<Self, AuthoritiesError> {
        Ok(Self {
            authorities: file.map(Authorities::from_file).transpose()?,
            fingerprint: Fingerprint::of(file),
        })
    }
}

/// Who signs tickets.
#[derive(Clone)]
pub struct Signers {
    /// Their keys; `None`: nobody does.
    pub keys: Option<Arc<PublicKeys>>,
    /// Tells whether the file still holds these.
    pub fingerprint: Fingerprint,
}

impl Signers {
    /// Reads the file with their keys, if the configuration names one.
    pub fn file(config: &Config) -> Option<PemFile> {
        config.ticket_public_keys.as_deref().map(PemFile::read)
    }

    /// Of a file that was read already.
    pub fn from_file(file: Option<&PemFile>) -> Result<Self, PublicKeyFileError> {
        Ok(Self {
            keys: file.map(PublicKeys::from_file).transpose()?.map(Arc::new),
            fingerprint: Fingerprint::of(file),
        })
    }

    /// What the administrator should know about the file.
    pub fn warning(&self) -> Option<&str> {
        self.keys.as_ref()?.warning()
    }

    /// What checks the tickets that they sign, by the rules of a configuration.
    pub fn tickets(&self, config: &Config) -> Option<SignedTickets> {
        let rules = Rules {
            audience: config.ticket_audience.clone(),
            longest_life: config.ticket_max_life,
        };
        let keys = Arc::clone(self.keys.as_ref()?);
        Some(SignedTickets::new(keys, rules))
    }
}

/// TLS towards the portal.
#[derive(Clone)]
pub struct PortalTls {
    /// What handshakes are made with; `None`: there is no portal.
    pub config: Option<ClientConfig>,
    /// Tells whether the file still holds this.
    pub fingerprint: Fingerprint,
}

impl PortalTls {
    /// Reads the file of authorities, if the configuration names a portal.
    pub fn file(config: &Config) -> Option<PemFile> {
        let is_asked = config.ticket_url.is_some();
        is_asked.then(|| PemFile::read(&config.ticket_url_ca_file))
    }

    /// Of a file that was read already.
    pub fn from_file(file: Option<&PemFile>) -> Result<Self, ManagerTlsError> {
        Ok(Self {
            config: file.map(manager::portal_config).transpose()?,
            fingerprint: Fingerprint::of(file),
        })
    }

    /// The portal that a configuration names.
    pub fn portal(&self, config: &Config, metrics: &Arc<Metrics>) -> Option<Portal> {
        let tls = self.config.clone()?;
        Portal::new(config, tls, Arc::clone(metrics))
    }
}
