//! The new gateway's side: it goes on with what its predecessor had.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tracing::{info, warn};

use super::SOCKET;
use super::connection::Connection;
use super::go;
use super::listeners::Listeners;
use super::message::{EstateState, Message, VERSION};
use crate::channel::{Arrived, ChannelState};
use crate::limits::ConnectionLimits;
use crate::serving::Live;
use crate::session;
use crate::ticket::Tickets;
use gateway_datapath::sockmap::{InheritedSets, SetState};

/// The gateway that runs, and what it hands over.
pub struct RunningPredecessor {
    connection: Connection,
    user: u32,
    listeners: Listeners,
}

/// Who takes channels over.
#[derive(Clone)]
pub struct Successor {
    /// What they become channels of.
    pub live: Arc<Live>,
    /// Where they are counted.
    pub connections: Arc<ConnectionLimits>,
    /// What their tickets become.
    pub tickets: Arc<Tickets>,
}

impl RunningPredecessor {
    /// Announces this process to the gateway that runs in this directory; `None`: there is none.
    pub async fn claim(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(SOCKET);
        let stream = match UnixStream::connect(&path).await {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot take over at {}", path.display()));
            }
        };
        let user = stream
            .peer_cred()
            .context("cannot find out whose process the running gateway is")?;
        let mut connection = Connection::new(stream);
        let hello = Message::Hello { version: VERSION };
        let asked = async {
            connection.send(&hello, &[]).await?;
            connection.receive_soon().await
        };
        let asked = asked.await;
        let (welcome, sockets) = asked.context("the running gateway does not answer")?;
        match welcome {
            Message::Welcome => {}
            Message::Refused { reason } => bail!("the running gateway refuses: {reason}"),
            other => bail!("unexpected {}", other.name()),
        }
        Ok(Some(Self {
            connection,
            user: user.uid(),
            listeners: Listeners::new(sockets)?,
        }))
    }

    /// The user as which the predecessor was running when it opened its socket.
    pub fn user(&self) -> u32 {
        self.user
    }

    /// The predecessor's listening sockets.
    pub fn listeners(&mut self) -> &mut Listeners {
        &mut self.listeners
    }

    /// Has the predecessor take no more connections, and goes on with its tickets and bans.
    pub async fn enter(&mut self, successor: &Successor) -> Result<()> {
        self.connection.send(&Message::Ready, &[]).await?;
        let (estate, _) = self.connection.receive_soon().await?;
        let Message::Estate(estate) = estate else {
            bail!("unexpected {}", estate.name());
        };
        take_over(estate, successor)
    }

    /// Takes channels over until the predecessor has ended; what goes wrong is logged.
    pub async fn run(self, successor: Successor, farewell: watch::Receiver<Option<Farewell>>) {
        if let Err(error) = self.take_channels(successor, farewell).await {
            warn!(
                reason = format!("{error:#}"),
                "the rest of the hand-over failed"
            );
        }
    }

    /// Says that connections are taken here now, and takes the channels over as they come, until
    /// the predecessor has ended or `farewell` says how this process ends.
    async fn take_channels(
        mut self,
        successor: Successor,
        mut farewell: watch::Receiver<Option<Farewell>>,
    ) -> Result<()> {
        self.connection.send(&Message::Serving, &[]).await?;
        let mut sets = InheritedSets::default();
        loop {
            let received = tokio::select! {
                received = self.connection.receive() => received?,
                message = said(&mut farewell) => {
                    return self.connection.send(&message, &[]).await;
                }
            };
            match received {
                Some((Message::Set(state), descriptors)) => {
                    take_set(&mut sets, &state, descriptors, &successor);
                }
                Some((Message::Channels(states), mut sockets)) => {
                    ensure!(
                        !sockets.is_empty(),
                        "channels came without the leave to go on"
                    );
                    let leave = sockets.remove(0);
                    let arrived = arrive(states, sockets, &sets, &successor);
                    let ids = arrived.iter().map(Arrived::id).collect();
                    self.connection.send(&Message::Taken(ids), &[]).await?;
                    // Without this word the channels are still the predecessor's.
                    let (go, _) = self.connection.receive_soon().await?;
                    if !matches!(go, Message::Go) {
                        bail!("unexpected {}", go.name());
                    }
                    let is_ours = go::take(leave.as_fd());
                    ensure!(is_ours, "the predecessor has taken the channels back");
                    info!(channels = arrived.len(), "channels taken over");
                    let gateway = Arc::clone(&successor.live.current().gateway);
                    for channel in arrived {
                        channel.start(gateway.channel_limits, &gateway.channels);
                    }
                    self.connection.send(&Message::Begun, &[]).await?;
                }
                Some((Message::Estate(estate), _)) => {
                    take_over(estate, &successor)?;
                    self.connection.send(&Message::Serving, &[]).await?;
                }
                Some((other, _)) => bail!("unexpected {}", other.name()),
                None => {
                    info!("the predecessor has ended");
                    return Ok(());
                }
            }
        }
    }
}

/// What the predecessor is told once this process ends.
async fn said(farewell: &mut watch::Receiver<Option<Farewell>>) -> Message {
    let said = farewell.wait_for(Option::is_some).await;
    match said.ok().and_then(|farewell| *farewell) {
        Some(Farewell::Stop) => Message::Stop,
        _ => Message::Settled,
    }
}

/// How a successor leaves its predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The gateway is stopped, the predecessor's rest too.
    Stop,
    /// The predecessor is on its own.
    Settled,
}

/// Fails, and changes nothing, when no gateway writes such a state.
pub(super) fn take_over(estate: EstateState, successor: &Successor) -> Result<()> {
    estate.check()?;
    session::leave_out(estate.upcoming);
    successor.tickets.take_over(estate.tickets, Instant::now());
    let banned = estate.banned.into_iter();
    let banned = banned.map(|(address, left)| (address, Duration::from_millis(left)));
    successor.live.current().gateway.admissions.ban(banned);
    Ok(())
}

/// Takes the eBPF programs of channels that are about to come. Without them these cannot.
pub(super) fn take_set(
    sets: &mut InheritedSets,
    state: &SetState,
    descriptors: Vec<OwnedFd>,
    successor: &Successor,
) {
    match sets.take(state, descriptors) {
        Ok(set) => {
            let gateway = &successor.live.current().gateway;
            gateway.paths.count_inherited(&set);
        }
        Err(error) => warn!(%error, "channels on sockmap cannot be taken over"),
    }
}

pub(super) fn arrive(
    states: Vec<ChannelState>,
    sockets: Vec<OwnedFd>,
    sets: &InheritedSets,
    successor: &Successor,
) -> Vec<Arrived> {
    let gateway = Arc::clone(&successor.live.current().gateway);
    let mut sockets = sockets.into_iter();
    let mut arrived: Vec<Arrived> = Vec::with_capacity(states.len());
    for state in states {
        let id = state.id();
        let own: Vec<_> = sockets.by_ref().take(state.sockets()).collect();
        if arrived.iter().any(|other| other.id() == id) {
            warn!(
                channel = id,
                "a channel cannot be taken over: it came twice"
            );
            continue;
        }
        let channel = Arrived::new(
            state,
            own,
            sets,
            &gateway.admissions,
            &gateway.client_limits,
            gateway.access_log.clone(),
            &successor.connections,
        );
        match channel {
            Ok(channel) => arrived.push(channel),
            Err(error) => warn!(channel = id, %error, "a channel cannot be taken over"),
        }
    }
    arrived
}
