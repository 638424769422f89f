//! A configuration with the files that it names.

use std::error::Error;
use std::path::{Path, PathBuf};

use rustls::ClientConfig;

use crate::config::{self, Config, Loaded};
use crate::desktops::DesktopsFile;
use crate::manager::{self, ManagerTlsError};
use crate::pem_file::{Fingerprint, PemFile};
use crate::pool::PoolKeys;
use crate::tls::Identity;
use crate::web_client::Pages;

/// A configuration whose files are good.
pub struct Prepared {
    /// Where it was read from.
    pub path: PathBuf,
    /// What stands there.
    pub loaded: Loaded,
    /// What handshakes with clients are made with.
    pub identity: Identity,
    /// What handshakes with the manager are made with.
    pub manager_tls: ManagerTls,
    /// Keys that are shared with the other gateways of a pool.
    pub pool_keys: Option<PoolKeys>,
    /// Tells whether the file still holds these.
    pub pool_fingerprint: Fingerprint,
    /// Desktops, users and terminals in place of a manager.
    pub desktops: Option<DesktopsFile>,
    /// What browsers are shown.
    pub web_client: Option<Pages>,
}

impl Prepared {
    /// Reads all files; the error says what is wrong, wrong values one in each line.
    pub fn read(path: &Path) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let loaded = config::load(path)?;
        let identity = Identity::read(&loaded.config)?;
        let manager_tls = ManagerTls::from_file(ManagerTls::file(&loaded.config).as_ref())?;
        let pool_file = pool_key_file(&loaded.config);
        let pool_keys = pool_file.as_ref().map(PoolKeys::from_file).transpose()?;
        let desktops = loaded.config.desktops.as_deref();
        let desktops = desktops.map(DesktopsFile::read).transpose()?;
        Ok(Self {
            path: path.to_owned(),
            desktops,
            web_client: Pages::read(&loaded.config),
            loaded,
            identity,
            manager_tls,
            pool_keys,
            pool_fingerprint: Fingerprint::of(&pool_file),
        })
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
