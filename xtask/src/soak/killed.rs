//! Processes that are killed in the middle of a hand-over.
//!
//! The channels of a process that is killed end with it, so this is done to a gateway with channels
//! of its own. Each of them goes on, or is told that it has ended; none that no process had begun
//! may end when it is the successor that dies; and there is always a gateway afterwards.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use testkit::gateway::{GatewayBuilder, Signal};
use testkit::net::free_port;
use testkit::prelude::*;
use testkit::ws::Channel;

use super::stage::Stage;

/// Channels of each port.
const CHANNELS: usize = 8;
/// For a channel to go on or end.
const STUCK: Duration = Duration::from_secs(20);
/// How often a gateway that goes on is asked for a channel.
const RETRY: Duration = Duration::from_millis(50);

/// In the error of a channel that has carried wrong bytes.
const WRONG: &str = "other bytes";

/// Which process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    Successor,
    Predecessor,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// The hand-over was over before.
    TooLate,
    /// The predecessor goes on with all channels.
    AllGoOn,
    /// The process that is left goes on, and channels of the other one have ended.
    SomeEnded,
    /// No process was left, and another one started as usual.
    StartedAnew,
}

impl Outcome {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TooLate => "all was over",
            Self::AllGoOn => "all channels went on",
            Self::SomeEnded => "channels ended with their process",
            Self::StartedAnew => "started anew",
        }
    }
}

/// Kills one of them so long after the successor was started.
pub(super) async fn kill(stage: &Stage, whose: Whose, after: Duration) -> Result<Outcome> {
    let mut side = Side::set(stage).await?;
    let outcome = match whose {
        Whose::Successor => side.kill_successor(after).await,
        Whose::Predecessor => side.kill_predecessor(after).await,
    };
    outcome.with_context(|| format!("{whose:?} killed after {after:?}"))
}

struct Side {
    runtime_dir: TempDir,
    plain_port: u16,
    token: String,
    gateway: Gateway,
    channels: Vec<Channel>,
}

impl Side {
    async fn set(stage: &Stage) -> Result<Self> {
        let runtime_dir = TempDir::with_prefix("soak-killed-")?;
        let plain_port = free_port()?;
        let token = stage.host().port().to_string();
        let gateway = configured(&runtime_dir, plain_port).spawn().await?;
        let mut channels = Vec::new();
        for endpoint in [gateway.tls(), gateway.plain()] {
            for _ in 0..CHANNELS {
                channels.push(ws::echo_channel(&endpoint, &token).await?);
            }
        }
        Ok(Self {
            runtime_dir,
            plain_port,
            token,
            gateway,
            channels,
        })
    }

    fn successor(&self) -> GatewayBuilder {
        configured(&self.runtime_dir, self.plain_port)
            .arg("run")
            .arg("--take-over")
    }

    async fn kill_successor(&mut self, after: Duration) -> Result<Outcome> {
        // What is dropped is killed.
        if let Ok(successor) = tokio::time::timeout(after, self.successor().spawn()).await {
            let successor = successor?;
            self.gateway.wait().await?;
            self.gateway = successor;
            ensure!(self.ended().await? == 0, "channels were lost");
            return Ok(Outcome::TooLate);
        }
        if !self.serves().await? {
            // It had everything, and was killed before it said so.
            self.ended().await?;
            return self.starts_anew().await;
        }
        if self.ended().await? == 0 {
            return Ok(Outcome::AllGoOn);
        }
        let log = self.gateway.log().await;
        let tells = |text| log.iter().any(|line| line.contains(text));
        ensure!(
            tells("channels handed over") || tells("the successor has begun"),
            "channels ended that the predecessor had:\n{}",
            self.gateway.log_tail()
        );
        Ok(Outcome::SomeEnded)
    }

    async fn kill_predecessor(&mut self, after: Duration) -> Result<Outcome> {
        let mut successor = pin!(self.successor().spawn());
        let early = tokio::time::timeout(after, &mut successor).await;
        let is_late = early.is_ok();
        let started = if let Ok(started) = early {
            started
        } else {
            if self.gateway.ended().is_none() {
                self.gateway.signal(Signal::KILL)?;
            }
            successor.await
        };
        let Ok(successor) = started else {
            ensure!(!is_late, "the successor did not start");
            self.ended().await?;
            return self.starts_anew().await;
        };
        self.gateway.wait().await?;
        self.gateway = successor;
        ensure!(self.serves().await?, "the successor has ended");
        match self.ended().await? {
            0 if is_late => Ok(Outcome::TooLate),
            0 => Ok(Outcome::AllGoOn),
            _ if is_late => bail!("channels were lost"),
            _ => Ok(Outcome::SomeEnded),
        }
    }

    /// Waits until the gateway lets a client in again; false: it has ended, and well.
    async fn serves(&mut self) -> Result<bool> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.gateway.ended() {
                ensure!(status.success(), "the gateway ended with {status}");
                return Ok(false);
            }
            match ws::echo_channel(&self.gateway.tls(), &self.token).await {
                Ok(channel) => {
                    drop(channel);
                    return Ok(true);
                }
                Err(error) if began.elapsed() > STUCK => {
                    return Err(error.context("it does not go on"));
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// How many channels have ended; all others still echo.
    async fn ended(&mut self) -> Result<usize> {
        let mut ended = 0;
        for channel in &mut self.channels {
            let echoed = tokio::time::timeout(STUCK, channel.echo(b"still here")).await;
            let Err(error) = echoed.context("a channel neither goes on nor ends")? else {
                continue;
            };
            ensure!(!error.to_string().contains(WRONG), error);
            ended += 1;
        }
        Ok(ended)
    }

    async fn starts_anew(&mut self) -> Result<Outcome> {
        let started = configured(&self.runtime_dir, self.plain_port).spawn().await;
        self.gateway = started.context("starting anew")?;
        ensure!(self.serves().await?, "the new gateway has ended");
        Ok(Outcome::StartedAnew)
    }
}

fn configured(runtime_dir: &TempDir, plain_port: u16) -> GatewayBuilder {
    Gateway::builder()
        .set("HijackAll", false)
        .set("PlainPort", plain_port)
        .set(
            "RuntimeDir",
            runtime_dir.path().to_string_lossy().into_owned(),
        )
}
