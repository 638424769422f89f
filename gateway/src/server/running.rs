//! A running gateway: what it has, and how it serves until it is to end.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tracing::{info, warn};

use super::data_paths::{DataPaths, data_paths, descriptors_of_channels};
use super::open::Open;
use super::recording::{Recording, access_log};
use super::signals::{Ended, Signals};
use crate::acme;
use crate::admin::Sources;
use crate::channel::Registry;
use crate::config::{Config, Loaded};
use crate::congestion::Congestion;
use crate::desktops::DesktopsFile;
use crate::handover::{self, Activation, End, Estate, Farewell, Listeners, Successor};
use crate::limits::{self, ConnectionLimits};
use crate::listen::Intake;
use crate::listen::proxy_protocol::ProxyProtocol;
use crate::log::Verbosity;
use crate::pool::PoolKeys;
use crate::ports::{Ports, Sockets};
use crate::prepared::{Prepared, Signers};
use crate::reload::{AuthorityFiles, LoadedPath, Phase, Reloader};
use crate::runtime_dir::RuntimeDir;
use crate::service;
use crate::serving::{Gateway, Live, PeerTls, Serving};
use crate::ticket::Tickets;
use crate::web_client::Pages;

/// What a running gateway has.
pub(super) struct Running {
    pub(super) directory: RuntimeDir,
    pub(super) ports: Ports,
    pub(super) sources: Sources,
    pub(super) tickets: Arc<Tickets>,
    pub(super) certificates: acme::Shared,
}

impl Running {
    /// Opens the ports, or takes those of the gateway before, and takes no connections yet.
    pub(super) async fn begin(
        prepared: Prepared,
        directory: RuntimeDir,
        verbosity: Verbosity,
        activation: Activation,
        listeners: &mut Listeners,
    ) -> anyhow::Result<(Self, Reloader, Recording)> {
        let Prepared {
            sources,
            loaded: Loaded { config, .. },
            identity,
            manager_tls,
            host_ca,
            pool_keys,
            pool_fingerprint,
            signers,
            portal_tls,
            desktops,
            web_client,
        } = prepared;
        let config = Arc::new(config);
        let channels = Arc::<Registry>::default();
        let descriptors = descriptors_of_channels(&config);
        let connections = connection_limits(&config, descriptors);
        let proxy_protocol = Arc::new(ProxyProtocol::new(
            config.proxy_protocol.clone(),
            config.handshake_timeout,
        ));
        let DataPaths {
            paths,
            findings,
            auto,
        } = data_paths(&config, connections.total()).await;
        let paths = Arc::new(paths);
        let authorities = AuthorityFiles {
            manager: manager_tls.fingerprint,
            hosts: host_ca.fingerprint,
        };
        let tls = PeerTls {
            manager: manager_tls.config,
            hosts: host_ca.authorities,
        };
        let (access_log, recording) = access_log(&config)?;
        let tickets = tickets(&config, pool_keys, &signers)?;
        let gateway = Gateway::new(
            &config,
            tls.clone(),
            Arc::clone(&tickets),
            Arc::clone(&channels),
            Arc::clone(&paths),
            access_log,
        );
        let portal = portal_tls.portal(&config, &gateway.metrics);
        gateway.admissions.set_portal(portal);
        give_desktops(&gateway, desktops, web_client);
        let sockets = Sockets::open(&config, activation, listeners)?;
        let congestion = Congestion::new(config.congestion_control.clone());
        congestion.tell();
        let certificates = acme::Shared::default();
        let loaded = LoadedPath::new(&config, descriptors, paths);
        let live = Arc::new(Live::new(Serving {
            config,
            gateway: Arc::new(gateway),
            identity: Arc::new(identity),
            congestion: Arc::new(congestion),
        }));
        let reloader = Reloader::new(
            sources,
            Arc::clone(&live),
            tls,
            authorities,
            pool_fingerprint,
            signers,
            portal_tls,
            Arc::clone(&connections),
            loaded,
            verbosity,
        )
        .observed(tell_of_reload)
        .with_renewal(
            Arc::clone(&certificates.kept),
            Arc::clone(&certificates.reloaded),
        );
        let running = Self {
            directory,
            ports: Ports {
                sockets,
                live: Arc::clone(&live),
                proxy_protocol,
                connections: Arc::clone(&connections),
                challenges: Arc::clone(&certificates.challenges),
                drain: watch::channel(Intake::Open).0,
            },
            sources: Sources {
                channels,
                live,
                findings,
                auto: auto.map(Arc::new),
                connections,
                certificates: Arc::clone(&certificates.progress),
            },
            tickets,
            certificates,
        };
        Ok((running, reloader, recording))
    }

    /// Who takes channels over from another process.
    pub(super) fn successor(&self) -> Successor {
        Successor {
            live: Arc::clone(&self.sources.live),
            connections: Arc::clone(&self.sources.connections),
            tickets: Arc::clone(&self.tickets),
        }
    }

    /// Begins to drain where the stop is to wait for that; whether it is.
    pub(super) fn drains_first(&self) -> bool {
        let serving = self.sources.live.current();
        if !serving.config.drain_on_stop {
            return false;
        }
        let (limit, delay) = (serving.config.drain_timeout, serving.config.drain_delay);
        serving.gateway.drain.begin(limit, delay);
        let sessions = self.sources.channels.session_count();
        info!(
            sessions,
            "told to stop: waiting for the end of the last desktop session, or for another signal"
        );
        true
    }

    /// Waits until new desktop sessions are refused, after `DrainDelay`, and none is open.
    pub(super) async fn left(&self) {
        self.sources.live.current().gateway.drain.refusing().await;
        self.sources.channels.no_session().await;
    }

    /// What another process can take over.
    pub(super) fn estate(&self) -> Estate<'_> {
        Estate {
            sockets: self.ports.sockets.all(),
            channels: &self.sources.channels,
            tickets: &self.tickets,
            live: &self.sources.live,
            connections: &self.sources.connections,
        }
    }

    /// Serves until it is to stop, or a successor has everything; one that fails changes nothing.
    pub(super) async fn serve(
        &self,
        open: &mut Open,
        farewell: &watch::Sender<Option<Farewell>>,
        signals: &mut Signals,
    ) -> anyhow::Result<Ended> {
        let mut leaving = false;
        loop {
            let successor = tokio::select! {
                ended = signals.next() => {
                    if leaving || ended != Ended::Stop || !self.drains_first() {
                        return Ok(ended);
                    }
                    leaving = true;
                    continue;
                }
                () = self.left(), if leaving => return Ok(Ended::Stop),
                successor = open.successor(self) => successor,
            };
            let estate = self.estate();
            let close = async || {
                farewell.send_replace(Some(Farewell::Settled));
                self.certificates.leave();
                open.close(Intake::Elsewhere).await;
            };
            let ended = tokio::select! {
                ended = handover::hand_over(successor, &estate, close) => ended,
                ended = signals.next() => return Ok(ended),
            };
            match ended {
                Ok(End::HandedOver) => return Ok(Ended::HandedOver),
                Ok(End::Stop) => return Ok(Ended::Stop),
                Err(error) => {
                    let reason = format!("{error:#}");
                    warn!(
                        reason,
                        "hand-over failed: this gateway goes on with what it has"
                    );
                    self.certificates.come_back();
                    if open.is_closed() {
                        *open = Open::again(self)?;
                    }
                }
            }
        }
    }
}

fn tell_of_reload(phase: Phase) {
    match phase {
        Phase::Begun => service::reloading(),
        Phase::Ended => service::ready("serving"),
    }
}

fn tickets(
    config: &Config,
    pool_keys: Option<PoolKeys>,
    signers: &Signers,
) -> anyhow::Result<Arc<Tickets>> {
    let tickets = Tickets::new(config.ticket_timeout, config.reconnect_timeout);
    let tickets = tickets.context("cannot make the key for tickets")?;
    let tickets = match pool_keys {
        Some(keys) => {
            info!(keys = keys.count(), "tickets are valid in the whole pool");
            tickets.with_pool(keys)
        }
        None => tickets,
    };
    if let Some(keys) = &signers.keys {
        info!(keys = keys.count(), "signed tickets are accepted");
    }
    tickets.set_signed(signers.tickets(config));
    Ok(Arc::new(tickets))
}

fn give_desktops(gateway: &Gateway, desktops: Option<DesktopsFile>, pages: Option<Pages>) {
    if let Some(file) = &desktops {
        info!(
            holds = file.inventory.summary(),
            "desktops come from a file"
        );
    }
    gateway.desktops.directory().replace(desktops);
    if let Some(pages) = &pages {
        pages.tell();
    }
    gateway.web_client.set(pages);
}

fn connection_limits(config: &Config, descriptors_each: u64) -> Arc<ConnectionLimits> {
    let total = limits::most_connections(config, descriptors_each);
    let trusted = limits::speak_for_many(config);
    let per_address = config.max_connections_per_address;
    Arc::new(ConnectionLimits::new(total, per_address, trusted))
}
