//! The running gateway: from open ports to the last channel's end.

mod data_paths;
mod open;
mod predecessor;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::access_log::{AccessLog, Writing};
use crate::acme::{self, Renewal};
use crate::admin::Sources;
use crate::background::OWN;
use crate::channel::{LostClients, Registry};
use crate::config::{self, Config, Loaded};
use crate::congestion::Congestion;
use crate::desktops::DesktopsFile;
use crate::handover::Activation;
use crate::handover::{self, End, Estate, Farewell, Kept, Listeners, Stored, Successor};
use crate::limits::{self, ConnectionLimits};
use crate::listen::Intake;
use crate::listen::proxy_protocol::ProxyProtocol;
use crate::log::Verbosity;
use crate::memory;
use crate::pool::PoolKeys;
use crate::ports::{Ports, Sockets};
use crate::prepared::{Prepared, Signers};
use crate::reload::{AuthorityFiles, LoadedPath, Phase, Reloader};
use crate::runtime_dir::RuntimeDir;
use crate::service;
use crate::serving::Gateway;
use crate::serving::{Live, PeerTls, Serving};
use crate::ticket::Tickets;
use crate::tls::ClientRule;
use crate::web_client::Pages;
use data_paths::{DataPaths, data_paths, descriptors_of_channels};
use gateway_datapath::supervise::{Supervised, supervised};
use open::Open;
use predecessor::{Predecessor, or_without};

/// Threads that a gateway has besides those of its runtime: for the log and for memory.
pub const THREADS: usize = 2;

/// Longest wait for a thread that waits for the end of the access log.
const FINISH_WAIT: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT, then ends the channels in an orderly way, with `DrainOnStop` once
/// their users have left; or until a successor has taken over. SIGHUP reloads; SIGUSR2 is a SIGTERM
/// behind which the service manager starts the next process at once. `take_over`: from the gateway
/// that runs already, if there is one.
pub async fn run(prepared: Prepared, verbosity: Verbosity, take_over: bool) -> anyhow::Result<()> {
    let hangup = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
    let mut signals = Signals::watch()?;
    let config = &prepared.loaded.config;
    say_what_runs(config);
    let clients = prepared.identity.clients.as_ref();
    info!(
        certificate = %prepared.identity.certificate,
        clients = clients.map(ClientRule::summary),
        "TLS"
    );
    if prepared.identity.is_placeholder {
        warn!("clients get a self-signed certificate until the authority of Acme has given one");
    }
    // Before anything is taken that another gateway may be using.
    let (directory, mut before) = predecessor::find(&config.runtime_dir, take_over).await?;
    let sources = prepared.sources.clone();
    let mut activation = Activation::take()?;
    let mut stored = Stored::take(std::mem::take(&mut activation.stored));
    let mut none = Listeners::default();
    let listeners = match (&mut before, &mut stored) {
        (Predecessor::Running(predecessor), _) => predecessor.listeners(),
        (Predecessor::None(_), Some(stored)) => stored.listeners(),
        (Predecessor::None(_), None) => &mut none,
    };
    let begun = Running::begin(prepared, directory, verbosity, activation, listeners).await?;
    let (mut running, reloader, recording) = begun;
    memory::give_back_after_waves(Arc::clone(&running.sources.connections))?;
    let (held, predecessor) = match before {
        Predecessor::None(held) => (held, None),
        Predecessor::Running(mut predecessor) => {
            let entered = predecessor.enter(&running.successor()).await;
            entered.context("cannot take over from the running gateway")?;
            // The predecessor has left it.
            let held = or_without(running.directory.take_soon().await)?;
            (held, Some(predecessor))
        }
    };
    if let Some(stored) = stored {
        stored.go_on(&running.successor());
    }
    let mut open = Open::new(&running, held)?;
    let (farewell, _) = watch::channel(None);
    let inheriting = predecessor.map(|predecessor| {
        let taking = predecessor.run(running.successor(), farewell.subscribe());
        tokio::spawn(taking)
    });
    let reloading = supervised("reload", (reloader, hangup), |(reloader, hangup)| {
        Box::pin(reloader.run(hangup))
    });
    let renewal = Renewal::new(
        Arc::clone(&running.sources.live),
        running.certificates.clone(),
    );
    let renewing = supervised("certificates", renewal, |renewal| Box::pin(renewal.run()));
    let registry = Arc::clone(&running.sources.channels);
    let live = Arc::clone(&running.sources.live);
    let limit = move || live.current().config.client_timeout;
    let lost_clients = LostClients::new(Arc::clone(&registry), limit);
    let _looking = supervised("clients", lost_clients, |clients| Box::pin(clients.run()));
    info!("ready");
    service::ready("serving");
    let sign_of_life = service::watch({
        let registry = Arc::clone(&registry);
        move || format!("serving, {} channels open", registry.count())
    });

    let end = running.serve(&mut open, &farewell, &mut signals).await?;
    if end == Ended::HandedOver {
        settled(inheriting).await;
        finish(recording).await?;
        info!("stopped: everything is handed over");
        return Ok(());
    }
    drop((sign_of_life, reloading, renewing));
    service::stopping(format_args!("ending {} channels", registry.count()));
    farewell.send_replace(Some(Farewell::Stop));
    settled(inheriting).await;
    open.close(Intake::Closed).await;
    if end == Ended::Restart && service::is_there() {
        keep_for_next(&sources, &running.estate()).await;
    }
    running.ports.sockets.close();
    end_channels(&running).await;
    finish(recording).await?;
    info!("stopped");
    Ok(())
}

/// What ends the gateway.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    restart: Signal,
}

/// How serving has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// A successor has everything.
    HandedOver,
    /// The gateway is not to run any more.
    Stop,
    /// The service manager starts the next process at once.
    Restart,
}

impl Signals {
    fn watch() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?,
            restart: signal(SignalKind::user_defined2()).context("cannot watch for SIGUSR2")?,
        })
    }

    async fn next(&mut self) -> Ended {
        tokio::select! {
            _ = self.terminate.recv() => Ended::Stop,
            _ = self.interrupt.recv() => Ended::Stop,
            _ = self.restart.recv() => Ended::Restart,
        }
    }
}

/// Has the service manager keep everything for the next process. What goes wrong is logged, and
/// the channels end with this process.
async fn keep_for_next(sources: &config::Sources, estate: &Estate<'_>) {
    let arguments = sources.arguments();
    let kept = match handover::next::ask(&arguments, true).await {
        Ok(()) => handover::store(estate, Ok(())).await,
        Err(without) => match handover::next::ask(&arguments, false).await {
            Ok(()) => handover::store(estate, Err(without)).await,
            Err(error) => Err(error),
        },
    };
    match kept {
        Ok(Kept { channels, left }) => info!(channels, left, "channels wait for the next process"),
        Err(error) => {
            let reason = format!("{error:#}");
            warn!(
                reason,
                "channels end, because they cannot be kept for the next process"
            );
        }
    }
}

/// What a running gateway has.
struct Running {
    directory: RuntimeDir,
    ports: Ports,
    sources: Sources,
    tickets: Arc<Tickets>,
    certificates: acme::Shared,
}

impl Running {
    /// Opens the ports, or takes those of the gateway before, and takes no connections yet.
    async fn begin(
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
    fn successor(&self) -> Successor {
        Successor {
            live: Arc::clone(&self.sources.live),
            connections: Arc::clone(&self.sources.connections),
            tickets: Arc::clone(&self.tickets),
        }
    }

    /// Begins to drain where the stop is to wait for that; whether it is.
    fn drains_first(&self) -> bool {
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
    async fn left(&self) {
        self.sources.live.current().gateway.drain.refusing().await;
        self.sources.channels.no_session().await;
    }

    /// What another process can take over.
    fn estate(&self) -> Estate<'_> {
        Estate {
            sockets: self.ports.sockets.all(),
            channels: &self.sources.channels,
            tickets: &self.tickets,
            live: &self.sources.live,
            connections: &self.sources.connections,
        }
    }

    /// Serves until it is to stop, or a successor has everything; one that fails changes nothing.
    async fn serve(
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

/// Waits until the predecessor was told how this process ends.
async fn settled(inheriting: Option<JoinHandle<()>>) {
    if let Some(task) = inheriting
        && let Err(reason) = task.await
    {
        error!(%reason, "taking channels over failed");
    }
}

/// Asks all channels to end, and waits for them as long as is configured.
async fn end_channels(Running { sources, .. }: &Running) {
    let channels = sources.channels.stop_all();
    info!(channels, "stopping");
    let connections = &sources.connections;
    let shutdown_timeout = sources.live.current().config.shutdown_timeout;
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

/// What writes the access log, if there is one.
struct Recording {
    writing: Option<Writing>,
    _reopening: Supervised<Infallible>,
}

/// The access log, which SIGUSR1 opens anew, and what writes it.
fn access_log(config: &Config) -> anyhow::Result<(AccessLog, Recording)> {
    let reopen = signal(SignalKind::user_defined1()).context("cannot watch for SIGUSR1")?;
    let (access_log, writing) = match &config.access_log {
        Some(path) => AccessLog::start(path).map(|(log, writing)| (log, Some(writing)))?,
        None => (AccessLog::default(), None),
    };
    let state = (reopen, access_log.clone(), writing.is_some());
    let reopening = supervised("SIGUSR1", state, |(reopen, access_log, writes)| {
        Box::pin(reopen_for_ever(reopen, access_log, *writes))
    });
    let recording = Recording {
        writing,
        _reopening: reopening,
    };
    Ok((access_log, recording))
}

async fn reopen_for_ever(told: &mut Signal, access_log: &AccessLog, writes: bool) -> Infallible {
    loop {
        told.recv().await;
        access_log.reopen();
        if writes {
            info!("SIGUSR1: reopening the access log");
        } else {
            info!("SIGUSR1: there is no access log to reopen");
        }
    }
}

/// Waits until the access log has every line.
async fn finish(recording: Recording) -> anyhow::Result<()> {
    if let Some(writing) = recording.writing {
        // Channels that were dropped may not have ended yet; nothing is waited for any more.
        let finished = OWN.run(FINISH_WAIT, || writing.finish()).await;
        finished.context("the access log failed")?;
    }
    Ok(())
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

fn say_what_runs(config: &Config) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        hijack_all = config.hijack_all,
        "starting"
    );
    if config.desktops.is_some() {
        return;
    }
    if config.manager_ip.is_empty() {
        info!("ManagerIP is empty: WebSockets are served, but no manager");
    } else if config.manager_ca_file.is_none() {
        warn!("ManagerCAFile is not set: any certificate of the manager is accepted");
    }
}
