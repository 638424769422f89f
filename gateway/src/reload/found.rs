//! What the files hold that are looked at every few seconds.

use super::{AuthorityFiles, Failure};
use crate::config::Config;
use crate::desktops::{self, DesktopsFile};
use crate::pem_file::{Fingerprint, PemFile};
use crate::pool::PoolKeys;
use crate::prepared::{HostCa, ManagerTls, PortalTls, Signers, pool_key_file};
use crate::tls::{Identity, IdentityFiles};

type Looked<T> = (Fingerprint, Option<Result<T, Failure>>);

/// What is in the files; parsed where it is not what is in effect.
pub(super) struct Found {
    pub(super) identity: Looked<Identity>,
    pub(super) manager_ca: Looked<ManagerTls>,
    pub(super) host_ca: Looked<HostCa>,
    pub(super) pool: Looked<Option<PoolKeys>>,
    pub(super) signers: Looked<Signers>,
    pub(super) portal: Looked<PortalTls>,
    pub(super) desktops: Looked<Option<DesktopsFile>>,
}

/// What is in effect of each file.
pub(super) struct InEffect {
    pub(super) identity: Fingerprint,
    pub(super) authorities: AuthorityFiles,
    pub(super) pool: Fingerprint,
    pub(super) signers: Fingerprint,
    pub(super) portal: Fingerprint,
}

impl Found {
    pub(super) fn look(
        config: &Config,
        in_effect: &InEffect,
        desktops: Option<&DesktopsFile>,
    ) -> Self {
        let InEffect {
            identity,
            authorities,
            pool,
            signers,
            portal,
        } = *in_effect;
        let files = IdentityFiles::read(config);
        let identity_found = files.fingerprint();
        // One that the gateway is to get by itself may not be there yet.
        let is_awaited = config.acme.is_some() && files.are_missing();
        let identity_parsed = (identity_found != identity && !is_awaited)
            .then(|| Identity::from_files(&files).map_err(Failure::from));
        let is_pool = config.pool_key_file.is_some();
        let (desktops_found, desktops) =
            desktops::look(config.desktops.as_deref(), desktops, is_pool);
        Self {
            identity: (identity_found, identity_parsed),
            manager_ca: parsed(
                ManagerTls::file(config).as_ref(),
                authorities.manager,
                ManagerTls::from_file,
            ),
            host_ca: parsed(
                HostCa::file(config).as_ref(),
                authorities.hosts,
                HostCa::from_file,
            ),
            pool: parsed(pool_key_file(config).as_ref(), pool, |file| {
                file.map(PoolKeys::from_file).transpose()
            }),
            signers: parsed(Signers::file(config).as_ref(), signers, Signers::from_file),
            portal: parsed(
                PortalTls::file(config).as_ref(),
                portal,
                PortalTls::from_file,
            ),
            desktops: (
                desktops_found,
                desktops.map(|parsed| parsed.map_err(Failure::from)),
            ),
        }
    }
}

/// What is in a file that the configuration may name.
fn parsed<T, E: Into<Failure>>(
    file: Option<&PemFile>,
    in_effect: Fingerprint,
    parse: impl FnOnce(Option<&PemFile>) -> Result<T, E>,
) -> Looked<T> {
    let found = Fingerprint::of(file);
    let parsed = (found != in_effect).then(|| parse(file).map_err(Into::into));
    (found, parsed)
}
