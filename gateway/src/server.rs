//! The running gateway: from open ports to the last channel's end.

use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::access_log::{AccessLog, Writing};
use crate::admin::{Admin, Sources};
use crate::channel::Registry;
use crate::config::{Config, DataPath, Loaded};
use crate::datapath::Paths;
use crate::datapath::ktls::{Carried, Ktls};
use crate::datapath::probe::{self, Finding};
use crate::datapath::sockmap::Sockmap;
use crate::http::Gateway;
use crate::listen::proxy_protocol::ProxyProtocol;
use crate::listen::{ConnectionLimits, Inherited, Leg, Listener, limits, socket};
use crate::live::{Live, Serving};
use crate::log::Verbosity;
use crate::pool::PoolKeys;
use crate::prepared::Prepared;
use crate::reload::{LoadedPath, Phase, Reloader};
use crate::service;
use crate::ticket::Tickets;

/// Serves until SIGTERM or SIGINT, then ends the channels in an orderly way. SIGHUP reloads.
pub async fn run(prepared: Prepared, verbosity: Verbosity) -> anyhow::Result<()> {
    let Prepared {
        path,
        loaded: Loaded { config, .. },
        identity,
        manager_tls,
        pool_keys,
        pool_fingerprint,
    } = prepared;
    let config = Arc::new(config);
    let hangup = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let registry = Arc::<Registry>::default();
    let connections = connection_limits(&config);
    let proxy_protocol = Arc::new(ProxyProtocol::new(
        config.proxy_protocol.clone(),
        config.handshake_timeout,
    ));
    let (drain, draining) = watch::channel(false);

    say_what_runs(&config);
    info!(certificate = %identity.certificate, "TLS");
    let (paths, findings) = data_paths(&config, connections.total()).await;
    let paths = Arc::new(paths);
    let authorities = manager_tls.fingerprint;
    let (access_log, recording) = access_log(&config)?;
    let gateway = Gateway::new(
        &config,
        manager_tls.config,
        tickets(&config, pool_keys)?,
        Arc::clone(&registry),
        Arc::clone(&paths),
        access_log,
    );
    let ports = open_ports(&config)?;
    let loaded = LoadedPath::new(&config, paths);
    let live = Arc::new(Live::new(Serving {
        config,
        gateway: Arc::new(gateway),
        identity: Arc::new(identity),
    }));
    let _doors = Admin::open(
        &live.current().config,
        Sources {
            channels: Arc::clone(&registry),
            live: Arc::clone(&live),
            findings,
            connections: Arc::clone(&connections),
        },
    )?;
    let reloader = Reloader::new(
        path,
        Arc::clone(&live),
        authorities,
        pool_fingerprint,
        Arc::clone(&connections),
        loaded,
        verbosity,
    )
    .observed(tell_of_reload);
    let listeners: Vec<_> = ports
        .into_iter()
        .map(|(socket, leg)| {
            let listener = Listener {
                socket,
                leg,
                live: Arc::clone(&live),
                proxy_protocol: Arc::clone(&proxy_protocol),
                connections: Arc::clone(&connections),
                draining: draining.clone(),
            };
            tokio::spawn(listener.run())
        })
        .collect();
    let reloading = tokio::spawn(reloader.run(hangup));
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
    reloading.abort();
    service::stopping(format_args!("ending {} channels", registry.count()));
    drain.send_replace(true);
    for listener in listeners {
        listener.await.context("a listener failed")?;
    }
    end_channels(&registry, &live, &connections).await;
    finish(recording).await?;
    info!("stopped");
    Ok(())
}

/// Asks all channels to end, and waits for them as long as is configured.
async fn end_channels(registry: &Registry, live: &Live, connections: &ConnectionLimits) {
    let channels = registry.stop_all();
    info!(channels, "stopping");
    let shutdown_timeout = live.current().config.shutdown_timeout;
    if timeout(shutdown_timeout, connections.all_closed())
        .await
        .is_err()
    {
        warn!("connections that did not end in time are dropped");
    }
}

fn tell_of_reload(phase: Phase) {
    match phase {
        Phase::Begun => service::reloading(),
        Phase::Ended => service::ready("serving"),
    }
}

/// The access log, which SIGUSR1 opens anew, and what writes it.
fn access_log(config: &Config) -> anyhow::Result<(AccessLog, Option<Writing>)> {
    let mut reopen = signal(SignalKind::user_defined1()).context("cannot watch for SIGUSR1")?;
    let (access_log, writing) = match &config.access_log {
        Some(path) => AccessLog::start(path).map(|(log, writing)| (log, Some(writing)))?,
        None => (AccessLog::default(), None),
    };
    let reopened = access_log.clone();
    tokio::spawn(async move {
        while reopen.recv().await.is_some() {
            reopened.reopen();
        }
    });
    Ok((access_log, writing))
}

/// Waits until the access log has every line.
async fn finish(recording: Option<Writing>) -> anyhow::Result<()> {
    if let Some(recording) = recording {
        // Channels that were dropped may not have ended yet; nothing is waited for any more.
        tokio::task::spawn_blocking(|| recording.finish())
            .await
            .context("the access log failed")?;
    }
    Ok(())
}

fn tickets(config: &Config, pool_keys: Option<PoolKeys>) -> anyhow::Result<Arc<Tickets>> {
    let tickets = Tickets::new(config.ticket_timeout, config.reconnect_timeout);
    let tickets = tickets.context("cannot make the key for tickets")?;
    Ok(Arc::new(match pool_keys {
        Some(keys) => {
            info!(keys = keys.count(), "tickets are good in the whole pool");
            tickets.with_pool(keys)
        }
        None => tickets,
    }))
}

fn connection_limits(config: &Config) -> Arc<ConnectionLimits> {
    let total = limits::most_connections(config, config.data_path);
    let trusted = limits::speak_for_many(config);
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
async fn data_paths(config: &Config, connections: usize) -> (Paths, Vec<Finding>) {
    let extent = if config.data_path == DataPath::KtlsSockmap {
        probe::Extent::All
    } else {
        probe::Extent::Usual
    };
    let findings = probe::run(extent).await;
    let paths = chosen_path(config, connections, &findings);
    (paths, findings)
}

fn chosen_path(config: &Config, connections: usize, findings: &[Finding]) -> Paths {
    let mut carried = Carried::default();
    for finding in findings {
        let reason = finding.reason.as_deref();
        let parts = finding.working_parts();
        info!(
            path = finding.path,
            works = finding.works,
            reason,
            parts = (!parts.is_empty()).then_some(parts),
            "data path"
        );
        if let Some(found) = &finding.carried {
            carried = found.clone();
        }
        if finding.path == config.data_path.name() && !finding.works {
            warn!(wanted = finding.path, "data path relay is used instead");
            return Paths::default();
        }
    }
    match config.data_path {
        DataPath::Auto | DataPath::Relay => return Paths::default(),
        DataPath::Ktls => return Paths::with_ktls(Ktls::new(carried, config.splice_from)),
        DataPath::Sockmap => {}
        DataPath::KtlsSockmap => warn!(
            "DataPath ktls-sockmap is for experiments: the kernel's combination of TLS and sockmap \
             has faults that can be exploited (CVE-2026-93824), and newer kernels refuse it"
        ),
    }
    let wanted = config.data_path.name();
    match Sockmap::load(connections, config.queue_limit) {
        Ok(sockmap) if config.data_path == DataPath::KtlsSockmap => {
            // Nothing is spliced: the downlink does not come by here.
            Paths::with_ktls_sockmap(Ktls::new(carried, usize::MAX), sockmap)
        }
        Ok(sockmap) => Paths::with_sockmap(sockmap),
        Err(error) => {
            warn!(wanted, reason = %error, "data path relay is used instead");
            Paths::default()
        }
    }
}

fn open_ports(config: &Config) -> anyhow::Result<Vec<(tokio::net::TcpListener, Leg)>> {
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
    let ports: Vec<_> = tls
        .into_iter()
        .map(|socket| (socket, Leg::Tls))
        .chain(plain.into_iter().map(|socket| (socket, Leg::Plain)))
        .collect();
    for (socket, leg) in &ports {
        let address = socket.local_addr().context("a port has no address")?;
        info!(leg = leg.name(), %address, "listening");
    }
    Ok(ports)
}
