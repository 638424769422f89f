//! Starts a gateway and ends it: from open ports to the last channel's end.

mod data_paths;
mod open;
mod predecessor;
mod recording;
mod running;
mod signals;

use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::acme::Renewal;
use crate::channel::LostClients;
use crate::config::{self, Config};
use crate::handover::{self, Activation, Estate, Farewell, Kept, Listeners, Stored};
use crate::listen::Intake;
use crate::log::Verbosity;
use crate::memory;
use crate::prepared::Prepared;
use crate::service;
use crate::tls::ClientRule;
use gateway_datapath::supervise::supervised;
use open::Open;
use predecessor::{Predecessor, or_without};
use recording::finish;
use running::Running;
use signals::{Ended, Signals};

/// Threads that a gateway has besides those of its runtime: for the log and for memory.
pub const THREADS: usize = 2;

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
