//! What happens to the gateway and around it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use testkit::gateway::Signal;
use testkit::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::account::Account;
use super::stage::Stage;

/// For how long something hangs or is short.
const HANG: Duration = Duration::from_millis(1_500);
/// For a predecessor to end.
const LEAVE: Duration = Duration::from_secs(10);
/// Descriptors that are left when they are short.
const LEFT: usize = 6;
/// What the gateway may have otherwise, as far as this process may have as many.
const PLENTY: usize = 65_536;
/// Versions of the hand-over's messages that are tried.
const VERSIONS: std::ops::Range<u32> = 1..50;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Reload,
    BrokenConfiguration,
    Certificate,
    HostHang,
    ManagerHang,
    TakeOver,
    TakeOverBrokenOff,
    NoDescriptors,
}

impl Fault {
    pub(super) const ALL: [Self; 8] = [
        Self::Reload,
        Self::TakeOverBrokenOff,
        Self::Certificate,
        Self::HostHang,
        Self::TakeOver,
        Self::NoDescriptors,
        Self::ManagerHang,
        Self::BrokenConfiguration,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reload => "configuration changed",
            Self::BrokenConfiguration => "configuration broken and mended",
            Self::Certificate => "certificate renewed",
            Self::HostHang => "hosts hang",
            Self::ManagerHang => "manager hangs",
            Self::TakeOver => "taken over",
            Self::TakeOverBrokenOff => "successor gone while it takes over",
            Self::NoDescriptors => "descriptors short",
        }
    }

    /// Lets it happen, and its end.
    pub(super) async fn inject(self, stage: &mut Stage, account: &mut Account) -> Result<()> {
        match self {
            Self::Reload => {
                let keep_alive = json!(5 + account.count(self) % 2);
                stage.gateway.change_config(&[("KeepAlive", keep_alive)])?;
                reload(stage, "reloaded").await
            }
            Self::BrokenConfiguration => {
                stage
                    .gateway
                    .change_config(&[("KeepAlive", json!("often"))])?;
                reload(stage, "not reloaded").await?;
                stage.gateway.change_config(&[("KeepAlive", json!(5))])?;
                reload(stage, "reloaded").await
            }
            Self::Certificate => renew(stage).await,
            Self::HostHang => {
                stage.host_hangs.send_replace(true);
                tokio::time::sleep(HANG).await;
                stage.host_hangs.send_replace(false);
                Ok(())
            }
            Self::ManagerHang => {
                stage.manager_hangs.send_replace(true);
                tokio::time::sleep(HANG).await;
                stage.manager_hangs.send_replace(false);
                Ok(())
            }
            Self::TakeOver => {
                let successor = stage.successor().spawn().await?;
                let mut before = std::mem::replace(&mut stage.gateway, successor);
                match tokio::time::timeout(LEAVE, before.wait()).await {
                    Ok(status) => {
                        let status = status?;
                        ensure!(status.success(), "the predecessor ended with {status}");
                        account.process(&before.log().await);
                    }
                    // Channels that cannot be handed over go on where they are.
                    Err(_) => stage.lingering.push(before),
                }
                Ok(())
            }
            Self::TakeOverBrokenOff => {
                for stage_reached in 0..4 {
                    break_off(stage, stage_reached).await?;
                }
                Ok(())
            }
            Self::NoDescriptors => {
                let refusing = stage.refuses();
                let open = stage.gateway.open_fds()?;
                stage.gateway.limit_open_files(open + LEFT)?;
                tokio::time::sleep(HANG).await;
                stage.gateway.limit_open_files(PLENTY)?;
                // Those that wait to be accepted are served first.
                tokio::time::sleep(HANG).await;
                drop(refusing);
                Ok(())
            }
        }
    }
}

/// Has the gateway read its configuration, and waits until it has said `outcome` once more.
async fn reload(stage: &Stage, outcome: &str) -> Result<()> {
    // "not reloaded" holds the word, too.
    let says = |line: &str| {
        line.contains(outcome) && (outcome != "reloaded" || !line.contains("not reloaded"))
    };
    let lines = stage.gateway.log().await;
    let before = lines.iter().filter(|line| says(line)).count();
    stage.gateway.signal(Signal::HUP)?;
    stage
        .gateway
        .wait_for_another(before, says, PATIENCE)
        .await?;
    Ok(())
}

/// Replaces certificate and key, and waits until clients are shown the new one.
async fn renew(stage: &Stage) -> Result<()> {
    let fresh = TestCert::new()?;
    stage.cert.replace_files(&fresh)?;
    let renewed = async {
        loop {
            let connection = stage.gateway.tls().connect().await?;
            let tls = connection.tls().context("a TLS connection")?;
            let shown = tls.peer_certificates().and_then(|chain| chain.first());
            if shown == Some(fresh.leaf()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    within("the new certificate", renewed).await?
}

/// Takes over up to some stage, and is gone.
async fn break_off(stage: &Stage, reached: u32) -> Result<()> {
    const FAILED: &str = "hand-over failed";
    let before = stage.gateway.count_logged(FAILED).await;
    let mut heir = Heir::welcomed(stage).await?;
    for (message, answer) in [("Ready", "Estate"), ("Serving", "Channels")]
        .into_iter()
        .take(usize::try_from(reached)?)
    {
        heir.say(&json!(message)).await?;
        let heard = heir.hear().await?;
        ensure!(heard == answer, "{message} was answered with {heard}");
    }
    if reached > 2 {
        heir.say(&json!("What?")).await?;
    }
    drop(heir);
    let says = |line: &str| line.contains(FAILED);
    let goes_on = stage.gateway.wait_for_another(before, says, PATIENCE);
    goes_on.await.context("the predecessor does not go on")?;
    Ok(())
}

/// How often the way in for successors is tried.
const RETRY: Duration = Duration::from_millis(20);

/// A successor that speaks the messages itself: see `gateway/src/handover`.
struct Heir(UnixStream);

impl Heir {
    /// One that was welcomed, whatever the version of the messages is.
    async fn welcomed(stage: &Stage) -> Result<Self> {
        for version in VERSIONS {
            let mut heir = Self::connect(stage).await?;
            heir.say(&json!({"Hello": {"version": version}})).await?;
            if heir.hear().await? == "Welcome" {
                return Ok(heir);
            }
        }
        bail!("no version of the hand-over's messages is known")
    }

    /// A gateway that could not hand over is there again a moment after it has said so.
    async fn connect(stage: &Stage) -> Result<Self> {
        let path = stage.runtime_dir().join("handover.sock");
        let connected = async {
            loop {
                match UnixStream::connect(&path).await {
                    Ok(stream) => return Self(stream),
                    Err(_) => tokio::time::sleep(RETRY).await,
                }
            }
        };
        within("the way in for successors", connected).await
    }

    async fn say(&mut self, message: &Value) -> Result<()> {
        let body = message.to_string();
        let length = u32::try_from(body.len())?.to_be_bytes();
        let bytes = [&length, &[0; 4][..], body.as_bytes()].concat();
        Ok(self.0.write_all(&bytes).await?)
    }

    /// The name of the next message. Descriptors that come with it are closed by the system.
    async fn hear(&mut self) -> Result<String> {
        let length = within("a message", self.0.read_u32()).await??;
        self.0.read_u32().await?;
        let mut body = vec![0; usize::try_from(length)?];
        self.0.read_exact(&mut body).await?;
        Ok(match serde_json::from_slice(&body)? {
            Value::String(name) => name,
            Value::Object(message) => message.keys().next().cloned().unwrap_or_default(),
            other => bail!("heard {other}"),
        })
    }
}
