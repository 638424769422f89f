//! Putting together what requests are served with, at the start and at each reload.

use std::sync::Arc;

use rustls::ClientConfig;

use super::{Gateway, Health, PublicNames};
use crate::access_log::AccessLog;
use crate::admission::Admissions;
use crate::assignment::Assignments;
use crate::channel::{ChannelLimits, HostConnector, Registry};
use crate::channel_type::ChannelTypes;
use crate::config::Config;
use crate::desktops::{Desktops, Directory};
use crate::drain::Drain;
use crate::host_tls::Authorities;
use crate::limits::ClientLimits;
use crate::limits::NetworkRules;
use crate::limits::{LoginLimit, speak_for_many};
use crate::manager::{Forwarder, Manager};
use crate::metrics::Metrics;
use crate::ticket::Tickets;
use crate::web_client::WebClient;
use crate::web_origin::OriginRules;
use gateway_datapath::Paths;

/// TLS towards those that the gateway connects to.
#[derive(Clone)]
pub struct PeerTls {
    /// Decides which certificate the manager may have.
    pub manager: ClientConfig,
    /// Who may sign the certificates of hosts, as far as the configuration says.
    pub hosts: Option<Authorities>,
}

/// What stays the same under all configurations.
struct Lasting {
    channels: Arc<Registry>,
    metrics: Arc<Metrics>,
    drain: Arc<Drain>,
    access_log: AccessLog,
    client_limits: ClientLimits,
    directory: Arc<Directory>,
    logins: Arc<LoginLimit>,
    web_client: Arc<WebClient>,
}

impl Gateway {
    /// As the configuration says.
    pub fn new(
        config: &Config,
        tls: PeerTls,
        tickets: Arc<Tickets>,
        channels: Arc<Registry>,
        paths: Arc<Paths>,
        access_log: AccessLog,
    ) -> Self {
        let lasting = Lasting {
            metrics: Arc::default(),
            drain: Arc::new(Drain::new(Arc::clone(&channels), Arc::clone(&tickets))),
            channels,
            access_log,
            client_limits: ClientLimits::new(config),
            directory: Arc::default(),
            logins: Arc::new(LoginLimit::new(speak_for_many(config))),
            web_client: Arc::default(),
        };
        let admissions = Admissions::new(config, tickets);
        Self::assemble(config, tls, admissions, lasting, paths)
    }

    /// As another configuration says; tickets, sessions, channels and what is counted against
    /// clients stay known.
    #[must_use]
    pub fn changed(&self, config: &Config, tls: PeerTls, paths: Arc<Paths>) -> Self {
        let admissions = self.admissions.changed(config);
        let lasting = Lasting {
            metrics: Arc::clone(&self.metrics),
            drain: Arc::clone(&self.drain),
            channels: Arc::clone(&self.channels),
            access_log: self.access_log.clone(),
            client_limits: self.client_limits.changed(config),
            directory: Arc::clone(self.desktops.directory()),
            logins: Arc::new(self.desktops.logins().changed(speak_for_many(config))),
            web_client: Arc::clone(&self.web_client),
        };
        Self::assemble(config, tls, admissions, lasting, paths)
    }

    fn assemble(
        config: &Config,
        tls: PeerTls,
        admissions: Admissions,
        lasting: Lasting,
        paths: Arc<Paths>,
    ) -> Self {
        let Lasting {
            channels,
            metrics,
            drain,
            access_log,
            client_limits,
            directory,
            logins,
            web_client,
        } = lasting;
        let hosts = HostConnector::new(config, tls.hosts.as_ref());
        let forwarder = Forwarder::new(config, tls.manager);
        let assignments = Assignments::new(
            config,
            hosts.clone(),
            Arc::clone(admissions.tickets()),
            Arc::clone(&metrics),
            access_log.clone(),
        );
        Self {
            desktops: Desktops::new(
                config,
                directory,
                assignments.clone(),
                Arc::clone(&drain),
                Arc::clone(&metrics),
                access_log.clone(),
                logins,
            ),
            manager: Manager::new(
                config,
                forwarder,
                assignments.clone(),
                Arc::clone(&drain),
                Arc::clone(&metrics),
            ),
            assignments,
            access_log,
            manager_paths: config.manager_paths.clone(),
            admissions,
            client_limits,
            hosts,
            channels,
            paths,
            allowed_channels: ChannelTypes::only(&config.allowed_channels),
            channel_limits: ChannelLimits::new(config),
            connect: config.connect && config.hijack_all,
            origins: OriginRules::new(&config.allowed_origins, config.hijack_all),
            clients: NetworkRules::new(&config.allowed_clients, &config.denied_clients),
            trusted_proxies: config.trusted_proxies.clone(),
            public_names: PublicNames::new(config),
            forwarded_header: config.forwarded_header,
            max_uri_size: config.max_uri_size,
            metrics,
            health: Arc::new(Health::new(config, Arc::clone(&drain))),
            health_path: config.health_path.clone(),
            drain,
            web_client,
        }
    }
}
