//! The running gateway: from open ports to the last channel's end.

use std::sync::Arc;

use anyhow::Context;
use rustls::{ClientConfig, ServerConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::admission::Admissions;
use crate::channel::{ChannelLimits, HostConnector, Registry};
use crate::config::{Config, DataPath};
use crate::datapath::sockmap::Sockmap;
use crate::datapath::{Paths, probe};
use crate::http::Gateway;
use crate::listen::{ConnectionLimits, HttpLimits, Inherited, Leg, Listener, limits, socket};
use crate::manager::{Forwarder, Manager};
use crate::service;
use crate::ticket::Tickets;

/// Serves until SIGTERM or SIGINT, then ends the channels in an orderly way.
pub async fn run(
    config: Config,
    client_tls: ServerConfig,
    manager_tls: ClientConfig,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let registry = Arc::<Registry>::default();
    let connections = connection_limits(&config);
    let (drain, draining) = watch::channel(false);

    say_what_runs(&config);
    let paths = data_paths(&config, connections.total()).await;
    let gateway = gateway(&config, manager_tls, Arc::clone(&registry), paths)?;
    let gateway = Arc::new(gateway);
    let ports = open_ports(&config, client_tls)?;
    let listeners: Vec<_> = ports
        .into_iter()
        .map(|(socket, leg)| {
            let listener = Listener {
                socket,
                leg,
                http_limits: HttpLimits {
                    handshake_timeout: config.handshake_timeout,
                    header_timeout: config.header_timeout,
                    max_header_size: config.max_header_size,
                },
                connections: Arc::clone(&connections),
                gateway: Arc::clone(&gateway),
                draining: draining.clone(),
            };
            tokio::spawn(listener.run())
        })
        .collect();
    info!("ready");
    service::ready("serving");
    let sign_of_life = service::watch({
        let registry = Arc::clone(&registry);
        move || format!("serving, {} channels open", registry.count())
    });

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    if let Some(task) = sign_of_life {
        task.abort();
    }
    service::stopping(format_args!("ending {} channels", registry.count()));
    drain.send_replace(true);
    for listener in listeners {
        listener.await.context("a listener failed")?;
    }
    let channels = registry.stop_all();
    info!(channels, "stopping");
    if timeout(config.shutdown_timeout, connections.all_closed())
        .await
        .is_err()
    {
        warn!("connections that did not end in time are dropped");
    }
    info!("stopped");
    Ok(())
}

fn gateway(
    config: &Config,
    manager_tls: ClientConfig,
    registry: Arc<Registry>,
    paths: Paths,
) -> anyhow::Result<Gateway> {
    let tickets = Tickets::new(config.ticket_timeout, config.reconnect_timeout);
    let tickets = Arc::new(tickets.context("cannot make the key for tickets")?);
    let hosts = HostConnector::new(config);
    let forwarder = Forwarder::new(config, manager_tls);
    Ok(Gateway {
        manager: Manager::new(config, forwarder, hosts.clone(), Arc::clone(&tickets)),
        manager_paths: config.manager_paths.clone(),
        admissions: Admissions::new(config, tickets),
        hosts,
        channels: registry,
        paths: Arc::new(paths),
        channel_limits: ChannelLimits::new(config),
        trusted_proxies: config.trusted_proxies.clone(),
        max_uri_size: config.max_uri_size,
    })
}

fn connection_limits(config: &Config) -> Arc<ConnectionLimits> {
    let total =
        limits::connections_that_fit(config.max_connections, config.data_path.descriptors());
    if total < config.max_connections {
        warn!(
            total,
            configured = config.max_connections,
            "MaxConnections is lowered to what the limit on open files allows"
        );
    }
    let trusted = config.trusted_proxies.clone();
    let per_address = config.max_connections_per_address;
    Arc::new(ConnectionLimits::new(total, per_address, trusted))
}

fn say_what_runs(config: &Config) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        hijack_all = config.hijack_all,
        "starting"
    );
    if config.manager_ip.is_empty() {
        info!("ManagerIP is empty: WebSockets are served, but no manager");
    } else if config.manager_ca_file.is_none() {
        warn!("ManagerCAFile is not set: any certificate of the manager is accepted");
    }
}

/// Tells what the kernel carries, and loads what the configured data path needs. Without it every
/// channel uses `relay`.
async fn data_paths(config: &Config, connections: usize) -> Paths {
    for finding in probe::run().await {
        let reason = finding.reason.as_deref();
        info!(
            path = finding.path,
            works = finding.works,
            reason,
            "data path"
        );
        if finding.path == config.data_path.name() && !finding.works {
            warn!(wanted = finding.path, "data path relay is used instead");
            return Paths::default();
        }
    }
    if config.data_path != DataPath::Sockmap {
        return Paths::default();
    }
    match Sockmap::load(connections, config.queue_limit) {
        Ok(sockmap) => Paths::with_sockmap(sockmap),
        Err(error) => {
            warn!(wanted = "sockmap", reason = %error, "data path relay is used instead");
            Paths::default()
        }
    }
}

fn open_ports(
    config: &Config,
    client_tls: ServerConfig,
) -> anyhow::Result<Vec<(tokio::net::TcpListener, Leg)>> {
    let Inherited { mut tls, mut plain } = Inherited::take()?;
    if tls.is_empty() {
        let socket = socket::listen(config.listen_address, config.ssl_port)
            .with_context(|| format!("cannot listen on port {} (SslPort)", config.ssl_port))?;
        tls.push(socket);
    }
    if let Some(port) = config.plain_port
        && plain.is_empty()
    {
        let socket = socket::listen(Some(config.plain_address), port)
            .with_context(|| format!("cannot listen on port {port} (PlainPort)"))?;
        plain.push(socket);
    }
    let tls_leg = Leg::Tls(Arc::new(client_tls));
    let ports: Vec<_> = tls
        .into_iter()
        .map(|socket| (socket, tls_leg.clone()))
        .chain(plain.into_iter().map(|socket| (socket, Leg::Plain)))
        .collect();
    for (socket, leg) in &ports {
        let address = socket.local_addr().context("a port has no address")?;
        info!(leg = leg.name(), %address, "listening");
    }
    Ok(ports)
}
