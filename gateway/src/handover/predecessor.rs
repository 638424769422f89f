//! The running gateway's side: what it has is handed to a successor.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gateway_datapath::ChannelSockets;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::SOCKET;
use super::connection::{Connection, MAX_DESCRIPTORS};
use super::go::Leave;
use super::message::{EstateState, Message, VERSION};
use crate::channel::{Offer, Registry};
use crate::limits::ConnectionLimits;
use crate::runtime_dir::Held;
use crate::runtime_dir::socket::{Bound, OwnListener};
use crate::serving::Live;
use crate::session;
use crate::ticket::Tickets;
use crate::ticket_sync::Syncing;

/// Sockets of a batch of channels, with which the leave to go on comes.
const BATCH: usize = MAX_DESCRIPTORS - 1;
/// Longest time that a batch may take, in which its channels stand still, and those behind it too.
const STANDSTILL: Duration = Duration::from_secs(5);
/// Longest time that a successor takes to get ready once it was welcomed.
const GETTING_READY: Duration = Duration::from_secs(60);
/// How often the log may be told of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Numbers that are left to this process for what it still begins.
const LEFT_NUMBERS: u64 = 1_000;

/// The Unix socket on which successors announce themselves; removed when dropped, unless another
/// process has taken its place.
pub struct Door {
    listener: OwnListener,
    _bound: Bound,
}

impl Door {
    /// Opens it in this directory; takes the place of a socket that a gateway before has left.
    pub fn open(directory: &Held) -> io::Result<Self> {
        let (listener, bound) = OwnListener::bind(directory, SOCKET)?;
        Ok(Self {
            listener,
            _bound: bound,
        })
    }

    /// Waits for a successor of the same user, or root.
    pub async fn successor(&self) -> SuccessorConnection {
        loop {
            match self.listener.accept().await {
                Ok(stream) => return SuccessorConnection(Connection::new(stream)),
                Err(error) => {
                    warn!(%error, "cannot take a successor's connection");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// A process that has connected and not yet said anything.
pub struct SuccessorConnection(Connection);

/// What the running gateway has.
pub struct Estate<'a> {
    /// Its listening sockets.
    pub sockets: Vec<&'a std::net::TcpListener>,
    /// Its channels.
    pub channels: &'a Registry,
    /// Its tickets.
    pub tickets: &'a Tickets,
    /// What its requests are served with.
    pub live: &'a Live,
    /// Its connections, channels included.
    pub connections: &'a Arc<ConnectionLimits>,
}

/// How a hand-over ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing is left here.
    HandedOver,
    /// The gateway as a whole is to stop.
    Stop,
}

/// Hands everything over that can be, and stays for the rest until it has ended.
///
/// `close_ports` is called when the successor is ready: it ends the taking of connections. When
/// this fails, or is dropped, all that was not handed over is as it was, but for the ports.
pub async fn hand_over(
    SuccessorConnection(mut successor): SuccessorConnection,
    estate: &Estate<'_>,
    close_ports: impl AsyncFnOnce(),
) -> Result<End> {
    let (hello, _) = successor.receive_soon().await?;
    match hello {
        Message::Hello { version: VERSION } => {}
        Message::Hello { version } => {
            let reason = format!("hand-over version {VERSION} is needed, not {version}");
            let refused = Message::Refused {
                reason: reason.clone(),
            };
            successor.send(&refused, &[]).await?;
            bail!(reason);
        }
        other => bail!("unexpected {}", other.name()),
    }
    let sockets: Vec<_> = estate.sockets.iter().map(|socket| socket.as_fd()).collect();
    successor.send(&Message::Welcome, &sockets).await?;
    let ready = tokio::time::timeout(GETTING_READY, successor.receive()).await;
    match ready.context("the successor does not get ready")?? {
        Some((Message::Ready, _)) => {}
        Some((other, _)) => bail!("unexpected {}", other.name()),
        None => bail!("the successor has ended"),
    }
    info!("a successor takes over");
    close_ports().await;
    let syncing = estate.tickets.sync().begin();
    if let Some(other) = send_tickets(&mut successor, estate, &syncing).await? {
        bail!("unexpected {}", other.name());
    }
    let (sender, offers) = mpsc::unbounded_channel();
    estate.channels.freeze_all(sender);
    let _thaw = Thaw(estate.channels);
    move_channels(successor, estate, offers, syncing).await
}

/// Lets channels move on here, however the hand-over ends.
pub(super) struct Thaw<'a>(pub(super) &'a Registry);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        self.0.thaw_all();
    }
}

impl Estate<'_> {
    /// Writes down what belongs to no channel.
    pub(super) fn written(&self) -> EstateState {
        self.written_since(0)
    }

    /// Writes it down for whom the first `told` changes of tickets are no news.
    fn written_since(&self, told: u64) -> EstateState {
        let banned = self.live.current().gateway.admissions.banned();
        EstateState {
            upcoming: session::upcoming().map(|next| next + LEFT_NUMBERS),
            tickets: self.tickets.state_since(told, Instant::now()),
            banned: banned.iter().map(millis).collect(),
        }
    }
}

fn millis((address, left): &(IpAddr, Duration)) -> (IpAddr, u64) {
    (
        *address,
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
    )
}

/// Tells the successor of everything that belongs to no channel and is news, and waits until it
/// knows that; returns what it says instead.
async fn send_tickets(
    successor: &mut Connection,
    estate: &Estate<'_>,
    syncing: &Syncing<'_>,
) -> Result<Option<Message>> {
    let changes = estate.tickets.changes();
    let estate = Message::Estate(estate.written_since(syncing.told()));
    successor.send(&estate, &[]).await?;
    let (answer, _) = successor.receive_soon().await?;
    if !matches!(answer, Message::Serving) {
        return Ok(Some(answer));
    }
    syncing.acknowledge(changes);
    Ok(None)
}

async fn move_channels(
    mut successor: Connection,
    estate: &Estate<'_>,
    mut offers: mpsc::UnboundedReceiver<Offer>,
    syncing: Syncing<'_>,
) -> Result<End> {
    let mut progress = Progress::new();
    let mut sets = ToldSets::default();
    // What did not fit into the batch before.
    let mut next = None;
    let first = tokio::time::Instant::now() + PROGRESS_INTERVAL;
    let mut interval = tokio::time::interval_at(first, PROGRESS_INTERVAL);
    let farewell = loop {
        tokio::select! {
            biased;
            Some(offer) = next_offer(&mut next, &mut offers) => {
                let mut sockets = offer.state.sockets();
                let mut batch = vec![offer];
                while let Ok(offer) = offers.try_recv() {
                    sockets += offer.state.sockets();
                    if sockets > BATCH {
                        next = Some(offer);
                        break;
                    }
                    batch.push(offer);
                }
                if estate.tickets.changes() > syncing.told()
                    && let Some(message) = send_tickets(&mut successor, estate, &syncing).await?
                {
                    break message;
                }
                sets.tell(&mut successor, &batch).await?;
                let moved = move_batch(&mut successor, batch).await?;
                progress.note(moved);
            }
            message = successor.receive() => match message? {
                Some((message, _)) => break message,
                None => bail!("the successor has ended"),
            },
            () = estate.connections.all_closed() => {
                progress.tell(estate.channels);
                return Ok(End::HandedOver);
            }
            // A request that was under way has issued one.
            () = syncing.requested() => {
                if let Some(message) = send_tickets(&mut successor, estate, &syncing).await? {
                    break message;
                }
            }
            _ = interval.tick() => progress.tell(estate.channels),
        }
    };
    match farewell {
        Message::Stop => Ok(End::Stop),
        Message::Settled => {
            drop((next, offers, syncing));
            estate.channels.thaw_all();
            progress.tell(estate.channels);
            estate.connections.all_closed().await;
            Ok(End::HandedOver)
        }
        other => bail!("unexpected {}", other.name()),
    }
}

/// The next offer: one that waits, or one that comes. Cancel safe.
async fn next_offer(
    next: &mut Option<Offer>,
    offers: &mut mpsc::UnboundedReceiver<Offer>,
) -> Option<Offer> {
    match next.take() {
        Some(offer) => Some(offer),
        None => offers.recv().await,
    }
}

/// The sets of eBPF programs that a successor was told of, by their numbers.
#[derive(Default)]
struct ToldSets(BTreeSet<u32>);

impl ToldSets {
    /// Tells it of those that it needs for these channels.
    async fn tell(&mut self, successor: &mut Connection, batch: &[Offer]) -> Result<()> {
        for set in batch.iter().filter_map(|offer| offer.sockets.set()) {
            if self.0.insert(set.number())
                && let Some((state, descriptors)) = set.share()
            {
                successor.send(&Message::Set(state), &descriptors).await?;
            }
        }
        Ok(())
    }
}

/// What the log is told of channels that move.
struct Progress {
    begun: Instant,
    moved: usize,
    /// From the order to stand still to the last answer: the longest that a channel stood still.
    took: Duration,
    told: Option<usize>,
}

impl Progress {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            moved: 0,
            took: Duration::ZERO,
            told: None,
        }
    }

    fn note(&mut self, moved: usize) {
        self.moved += moved;
        self.took = self.begun.elapsed();
    }

    /// Tells of what has moved since it told.
    fn tell(&mut self, channels: &Registry) {
        if self.told == Some(self.moved) {
            return;
        }
        self.told = Some(self.moved);
        info!(
            channels = self.moved,
            left = channels.count(),
            milliseconds = self.took.as_millis(),
            "channels handed over; those that are left stay until they end"
        );
    }
}

/// Returns how many channels the successor took. When this fails, is dropped or takes too long,
/// those of which the successor has not begun go on here.
async fn move_batch(successor: &mut Connection, batch: Vec<Offer>) -> Result<usize> {
    let mut given = Given::new(batch)?;
    let moved = tokio::time::timeout(STANDSTILL, given.exchange(successor)).await;
    match moved.unwrap_or_else(|_| bail!("the successor does not go on with the channels")) {
        Ok(()) => Ok(given.settle()),
        Err(error) => {
            let moved = given.settle();
            if moved > 0 {
                info!(
                    channels = moved,
                    "the successor serves these channels, but did not confirm it"
                );
            }
            Err(error)
        }
    }
}

/// A batch that a successor was given, or is about to be given.
struct Given {
    offers: Vec<Offer>,
    /// Numbers of those that the successor can go on with.
    taken: Vec<u64>,
    leave: Leave,
    /// The successor may take the leave.
    could_begin: bool,
}

impl Given {
    fn new(offers: Vec<Offer>) -> Result<Self> {
        Ok(Self {
            offers,
            taken: Vec::new(),
            leave: Leave::new().context("no pipe for the leave to go on")?,
            could_begin: false,
        })
    }

    /// Ends well once the successor has begun.
    async fn exchange(&mut self, successor: &mut Connection) -> Result<()> {
        let states = self.offers.iter().map(|offer| offer.state.clone());
        let channels = Message::Channels(states.collect());
        let sockets = self.offers.iter().map(|offer| &offer.sockets);
        let mut descriptors = vec![self.leave.reader()];
        descriptors.extend(sockets.flat_map(ChannelSockets::descriptors));
        successor.send(&channels, &descriptors).await?;
        let (answer, _) = successor.receive_soon().await?;
        let Message::Taken(taken) = answer else {
            bail!("unexpected {}", answer.name());
        };
        self.taken = taken;
        self.could_begin = true;
        self.leave
            .give()
            .context("cannot let the successor go on")?;
        successor.send(&Message::Go, &[]).await?;
        let (begun, _) = successor.receive_soon().await?;
        ensure!(
            matches!(begun, Message::Begun),
            "unexpected {}",
            begun.name()
        );
        Ok(())
    }

    /// Finds out whose the channels are, and lets go of those that are the successor's: how many
    /// they are. From here on the successor cannot begin any more.
    fn settle(&mut self) -> usize {
        if !std::mem::take(&mut self.could_begin) || self.leave.take_back() {
            // Dropped, they go on here.
            self.offers.clear();
            return 0;
        }
        let mut count = 0;
        for offer in self.offers.drain(..) {
            if self.taken.contains(&offer.state.id()) {
                offer.taken();
                count += 1;
            } else {
                warn!(
                    channel = offer.state.id(),
                    "the successor does not take a channel"
                );
            }
        }
        count
    }
}

impl Drop for Given {
    /// The hand-over may be given up at any point.
    fn drop(&mut self) {
        self.settle();
    }
}
