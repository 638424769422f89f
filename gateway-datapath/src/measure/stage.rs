//! Channels that are open on one data path, with the code that moves those of clients.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::mix::{CHANNELS, Message};
use super::peers::{Ends, Peers, Stream};
use super::{Leg, Options, Path};
use crate::client_stream::ClientStream;
use crate::end_reason::EndReason;
use crate::framing::Framing;
use crate::host_stream::HostStream;
use crate::ktls::{Ktls, Support};
use crate::sockmap::Sockmap;
use crate::{Counters, Inbound, Limits, Paths, tls};

/// Longest time in which a channel opens or ends.
const LIMIT: Duration = Duration::from_secs(10);

/// Open channels.
pub(super) struct Stage {
    ends: Vec<Ends>,
    channels: Vec<JoinHandle<EndReason>>,
}

impl Stage {
    /// Opens all channels. Fails where one of them does not take the path.
    pub(super) async fn open(
        leg: Leg,
        path: Path,
        options: &Options,
        support: &Support,
        peers: &Peers,
    ) -> anyhow::Result<Self> {
        let paths = paths(path, options, support)?;
        let listener = peers.listen()?;
        let mut stage = Self {
            ends: Vec::new(),
            channels: Vec::new(),
        };
        for number in 0..CHANNELS {
            let opening = async {
                let (client, client_leg) = client(leg, options, peers, &listener).await?;
                let (host, host_leg) = connection(peers, &listener).await?;
                let mut carrier =
                    paths.take(client_leg, HostStream::Tcp(host_leg), Framing::WebSocket)?;
                if carrier.name() != path.name() {
                    let reasons = paths.fallbacks().into_keys().collect::<Vec<_>>();
                    anyhow::bail!("a channel did not take it: {}", reasons.join(", "));
                }
                let limits = Limits {
                    ping_interval: None,
                    close_timeout: LIMIT,
                };
                let channel = tokio::spawn(async move {
                    let counters = Counters::default();
                    carrier
                        .run(Inbound::default(), limits, &counters, pending())
                        .await
                });
                anyhow::Ok((Ends::new(number.into(), client, host), channel))
            };
            let opened = timeout(LIMIT, opening).await;
            let (ends, channel) = opened.context("a channel did not open in time")??;
            stage.ends.push(ends);
            stage.channels.push(channel);
        }
        Ok(stage)
    }

    /// Moves the messages of each channel, and compares them.
    pub(super) async fn play(
        &mut self,
        turn: &Arc<Vec<Vec<Message>>>,
        peers: &Peers,
    ) -> anyhow::Result<()> {
        let ends = std::mem::take(&mut self.ends).into_iter().enumerate();
        let playing = ends.map(|(number, mut ends)| {
            let turn = Arc::clone(turn);
            peers.spawn(async move {
                let played = ends.play(&turn[number]).await;
                (ends, played)
            })
        });
        let mut outcome = Ok(());
        for playing in playing.collect::<Vec<_>>() {
            let (ends, played) = playing.await.context("a peer failed")?;
            self.ends.push(ends);
            outcome = outcome.and(played);
        }
        outcome
    }

    /// Ends all channels.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        drop(self.ends);
        for mut channel in self.channels {
            let ended = timeout(LIMIT, &mut channel).await;
            if ended.is_err() {
                channel.abort();
            }
            ensure!(ended.is_ok(), "a channel did not end in time");
        }
        Ok(())
    }
}

/// With nothing but this path where it can be had.
fn paths(path: Path, options: &Options, support: &Support) -> anyhow::Result<Paths> {
    let programs =
        || Sockmap::take_or_load(&options.programs, CHANNELS as usize, options.queue_limit);
    Ok(match path {
        Path::Relay => Paths::default(),
        Path::Sockmap => Paths::with_sockmap(programs()?),
        Path::Ktls => Paths::with_ktls(Ktls::new(support.clone(), options.splice_from)),
        Path::KtlsSockmap => {
            Paths::with_ktls_sockmap(Ktls::new(support.clone(), None), programs()?)
        }
    })
}

/// A client, and the gateway's end of its connection.
async fn client(
    leg: Leg,
    options: &Options,
    peers: &Peers,
    listener: &TcpListener,
) -> anyhow::Result<(Box<dyn Stream>, ClientStream)> {
    if leg == Leg::Plaintext {
        let (client, client_leg) = connection(peers, listener).await?;
        return Ok((Box::new(client), ClientStream::Plain(client_leg)));
    }
    let (address, config) = (listener.local_addr()?, Arc::clone(&options.client));
    let client = peers.spawn(async move {
        let name = ServerName::try_from("localhost")?;
        anyhow::Ok(tls::connect(connect(address).await?, config, name).await?)
    });
    let (leg, _) = tls::accept(accept(listener).await?, Arc::clone(&options.server)).await?;
    Ok((Box::new(client.await??), ClientStream::Tls(Box::new(leg))))
}

/// Both ends of a connection: the peer's, the gateway's.
async fn connection(
    peers: &Peers,
    listener: &TcpListener,
) -> anyhow::Result<(TcpStream, TcpStream)> {
    let peer = peers.spawn(connect(listener.local_addr()?));
    let leg = accept(listener).await?;
    Ok((peer.await??, leg))
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let peer = TcpStream::connect(address).await?;
    peer.set_nodelay(true)?;
    Ok(peer)
}

async fn accept(listener: &TcpListener) -> std::io::Result<TcpStream> {
    let (leg, _) = listener.accept().await?;
    SockRef::from(&leg).set_tcp_nodelay(true)?;
    Ok(leg)
}
