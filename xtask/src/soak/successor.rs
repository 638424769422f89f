//! A successor that speaks the messages of a hand-over itself (see `gateway/src/handover`), and is
//! gone in the middle.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use testkit::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::stage::Stage;

/// The stages of a hand-over at which a successor may go.
pub(super) const STAGES: usize = 5;
/// Versions of the messages that are tried.
const VERSIONS: std::ops::Range<u32> = 1..50;
/// How often the way in for successors is tried.
const RETRY: Duration = Duration::from_millis(20);

/// Takes over up to some stage, and is gone.
pub(super) async fn break_off(stage: &Stage, reached: usize) -> Result<()> {
    const FAILED: &str = "hand-over failed";
    let before = stage.gateway.count_logged(FAILED).await;
    let mut successor = Successor::welcomed(stage).await?;
    let mut heard = Value::Null;
    for (message, answer) in [("Ready", "Estate"), ("Serving", "Channels")]
        .into_iter()
        .take(reached)
    {
        successor.say(&json!(message)).await?;
        heard = successor.next().await?;
        // Of tickets that are still issued it is told at any time, and says that it knows them.
        while answer != "Estate" && name(&heard) == "Estate" {
            successor.say(&json!("Serving")).await?;
            heard = successor.next().await?;
        }
        let name = name(&heard);
        ensure!(name == answer, "{message} was answered with {name}");
    }
    match reached {
        3 => successor.say(&json!("What?")).await?,
        // It may go on with the channels, and dies just then.
        4 => {
            let channels = heard["Channels"]
                .as_array()
                .context("a batch of channels")?;
            let numbers: Vec<_> = channels.iter().map(|state| &state["id"]).collect();
            successor.say(&json!({"Taken": numbers})).await?;
            let go = successor.next().await?;
            ensure!(go == "Go", "Taken was answered with {}", name(&go));
        }
        _ => {}
    }
    drop(successor);
    let says = |line: &str| line.contains(FAILED);
    let goes_on = stage.gateway.wait_for_another(before, says, PATIENCE);
    goes_on.await.context("the predecessor does not go on")?;
    Ok(())
}

/// The name of a message.
fn name(message: &Value) -> &str {
    let object = || Some(message.as_object()?.keys().next()?.as_str());
    message.as_str().or_else(object).unwrap_or_default()
}

struct Successor(UnixStream);

impl Successor {
    /// One that was welcomed, whatever the version of the messages is.
    async fn welcomed(stage: &Stage) -> Result<Self> {
        for version in VERSIONS {
            let mut successor = Self::connect(stage).await?;
            successor
                .say(&json!({"Hello": {"version": version}}))
                .await?;
            if name(&successor.next().await?) == "Welcome" {
                return Ok(successor);
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

    /// The next message. Descriptors that come with it are closed by the system.
    async fn next(&mut self) -> Result<Value> {
        let length = within("a message", self.0.read_u32()).await??;
        self.0.read_u32().await?;
        let mut body = vec![0; usize::try_from(length)?];
        self.0.read_exact(&mut body).await?;
        Ok(serde_json::from_slice(&body)?)
    }
}
