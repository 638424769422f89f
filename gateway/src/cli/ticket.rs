//! `flexvdi-gateway ticket`.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::builder::PossibleValuesParser;
use clap::{Args, value_parser};

use crate::admin::client::{self, HandOut, TicketOrder};
use crate::admin::viewer_file::{self, Destination, ViewerFile, ViewerTls};
use crate::authority::Authority;
use crate::certificate_subject::Subject;
use crate::channel_type::ChannelType;
use crate::config::Config;
use crate::host_tls::CertificateDigest;
use crate::target::Target;
use crate::ticket::Form;

#[derive(Debug, Args)]
pub(super) struct TicketArguments {
    /// The desktop's host and Spice port, or its socket on this machine: `unix:/PATH`.
    #[arg(value_name = "HOST:PORT")]
    desktop: Target,
    /// The ticket must be used within this time. Default: `TicketTimeout`. At most a day, and in a
    /// pool at most `TicketTimeout`.
    #[arg(long = "for", value_name = "SECONDS")]
    for_seconds: Option<u32>,
    /// Address of the client that the ticket is for. Logs show it, and limits count it.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Network in which the client must be; several with commas between them. Default: any.
    #[arg(long, value_name = "NETWORK", value_delimiter = ',')]
    network: Vec<String>,
    /// Types of Spice channels that may pass, "main" among them, with commas between them. Default:
    /// all that `AllowedChannels` permits.
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        conflicts_with = "tls_port"
    )]
    #[arg(value_parser = PossibleValuesParser::new(ChannelType::ALL_NAMES))]
    channels: Vec<String>,
    /// The Spice port is one for TLS, where the host has the certificate with this SHA-256. Default:
    /// as `HostTLS` says.
    #[arg(long, value_name = "SHA256")]
    fingerprint: Option<CertificateDigest>,
    /// The port of the same host for Spice inside TLS, for native clients that speak it with the
    /// host themselves. A file of `--vv` makes them do so.
    #[arg(long, value_name = "PORT", value_parser = value_parser!(u16).range(1..))]
    tls_port: Option<u16>,
    /// Make a ticket that is a host name: native clients may name it as their desktop's host, and
    /// need no user name for their proxy. A file of `--vv` makes them do so. Not in a pool.
    #[arg(long)]
    host_name: bool,
    /// Print JSON.
    #[arg(long, conflicts_with = "vv")]
    json: bool,
    /// Write a file for virt-viewer and other native Spice clients, which only you can read. `-`:
    /// print it.
    #[arg(long, value_name = "FILE")]
    vv: Option<PathBuf>,
    /// File with the desktop's Spice password, for `--vv`.
    #[arg(long, value_name = "FILE", requires = "vv")]
    password_file: Option<PathBuf>,
    /// The gateway as the client knows it, for `--vv`. Default: `ExternalName` and `SslPort`.
    #[arg(long, value_name = "NAME[:PORT]", requires = "vv")]
    gateway: Option<Authority>,
    /// PEM file with the authorities that may have signed the host's certificate, for `--vv` with
    /// `--tls-port`.
    #[arg(long, value_name = "FILE", requires = "vv", requires = "tls_port")]
    ca: Option<PathBuf>,
    /// The subject that the host's certificate must have, for `--vv` with `--tls-port`.
    #[arg(long, value_name = "TEXT", requires = "vv", requires = "tls_port")]
    host_subject: Option<Subject>,
}

impl TicketArguments {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<()> {
        let order = TicketOrder {
            desktop: &self.desktop,
            tls_port: self.tls_port,
            channels: self.channels.clone(),
            networks: self.network.clone(),
            fingerprint: self.fingerprint,
            for_seconds: self.for_seconds,
            client: self.client,
            form: Form::of(self.host_name),
        };
        let hand_out = match &self.vv {
            None if self.json => HandOut::Json,
            None => HandOut::Text,
            Some(path) => {
                let file = self.viewer_file(config)?;
                HandOut::Viewer(file, Destination::open(path)?)
            }
        };
        client::ticket(&config.runtime_dir, order, hand_out).await
    }

    fn viewer_file(&self, config: &Config) -> anyhow::Result<ViewerFile> {
        ensure!(
            !self.host_name || self.tls_port.is_none() || self.host_subject.is_some(),
            "--host-name with --tls-port needs --host-subject: without it the client expects a \
             certificate for the name of the host, which is the ticket then"
        );
        let configured = || {
            let host = config.external_name.clone()?;
            let port = Some(config.ssl_port).filter(|port| *port != 0);
            Some(Authority { host, port })
        };
        let gateway = self.gateway.clone().or_else(configured).context(
            "by which name do clients reach the gateway? Set ExternalName, or use \
             --gateway NAME[:PORT]",
        )?;
        let password = self.password_file.as_deref().map(viewer_file::password);
        let authorities = self.ca.as_deref().map(viewer_file::authorities);
        let authorities = authorities.transpose()?;
        Ok(ViewerFile {
            desktop: self.desktop.clone(),
            form: Form::of(self.host_name),
            tls: self.tls_port.map(|port| ViewerTls {
                port,
                authorities,
                subject: self.host_subject.clone(),
            }),
            gateway,
            password: password.transpose()?,
        })
    }
}
