//! What the command line says for a setup.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;

use super::from_authority::AcmeOptions;
use crate::authority::Authority;
use crate::host::Host;
use crate::target::Target;

/// The options of `setup`. What they do not say is asked for.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Names and addresses by which clients reach the gateway, with commas between them. The first
    /// becomes `ExternalName`.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) name: Vec<Host>,
    /// The manager, which knows users and desktops.
    #[arg(long, value_name = "HOST[:PORT]", conflicts_with = "desktops")]
    pub(super) manager: Option<Authority>,
    /// PEM file with the authorities that may have signed the manager's certificate.
    #[arg(long, value_name = "FILE", requires = "manager")]
    pub(super) manager_ca: Option<PathBuf>,
    /// File of desktops and users, instead of a manager. If it is missing, it is made with one
    /// desktop and one user.
    #[arg(long, value_name = "FILE")]
    pub(super) desktops: Option<PathBuf>,
    /// The first desktop's Spice server.
    #[arg(long, value_name = "HOST:PORT", requires = "desktops")]
    pub(super) desktop: Option<Target>,
    /// File with the password of that Spice server. Default: it wants none.
    #[arg(long, value_name = "FILE", requires = "desktop")]
    pub(super) spice_password_file: Option<PathBuf>,
    /// The first user's name.
    #[arg(long, value_name = "NAME", requires = "desktops")]
    pub(super) user: Option<String>,
    /// File with the first user's password.
    #[arg(long, value_name = "FILE", requires = "desktops")]
    pub(super) password_file: Option<PathBuf>,
    /// PEM file with the certificate and its chain.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(super) cert: Option<PathBuf>,
    /// PEM file with the certificate's key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(super) key: Option<PathBuf>,
    /// Make a certificate that signs itself, for trying: browsers warn of it, and remote-viewer
    /// refuses it unless its machine trusts it.
    #[arg(long, conflicts_with_all = ["cert", "key"])]
    pub(super) self_signed: bool,
    #[command(flatten)]
    pub(super) acme: AcmeOptions,
    /// Directory of spice-html5, for a page for browsers.
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) web_client: Option<PathBuf>,
    /// Group that the service runs as, which may read keys and passwords.
    #[arg(long, value_name = "GROUP", default_value = "flexvdi-gateway")]
    pub(super) group: String,
    /// Ask nothing: what is missing is an error.
    #[arg(long)]
    pub(super) yes: bool,
}

/// A path that means the same wherever the gateway is started, and can stand in its configuration.
pub(super) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let shown = path.display();
    ensure!(path.to_str().is_some(), "{shown}: the path is not UTF-8");
    std::path::absolute(path).with_context(|| format!("{shown}: no path"))
}
