//! Many tunnels at once, whose peers send, pause and end as chance has it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::net::{StreamEnd, reset};
use testkit::pattern::{DOWNLINK, Pattern, UPLINK};
use testkit::prelude::*;
use testkit::rng::{Rng, seed_or};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::setup::{Ends, open};
use crate::setup::{Setup, socket_host};
use crate::stage::Stage;

on_every_tunnel! {
    random_tunnels
}

/// Rounds that run at the same time.
const WORKERS: u64 = 4;
const ROUNDS: u64 = 200;
/// `CloseTimeout` in seconds: on a slow machine the default is too short for what some send.
const LONG: u64 = 30;

async fn random_tunnels(setup: Setup) -> Result<()> {
    let first = seed_or(1)?;
    let stage = setup.start_with(|gateway| gateway.set("CloseTimeout", LONG));
    let stage = Arc::new(stage.await?);
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let stage = Arc::clone(&stage);
        workers.spawn(async move {
            let host = socket_host().await?;
            for seed in (first..first + ROUNDS).filter(|seed| seed % WORKERS == worker) {
                let played = round(&stage, &host, seed).await;
                played.with_context(|| format!("seed {seed}"))?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    stage.expect_path().await?;
    stage.expect_no_channel().await
}

/// How a peer ends, after all that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By a FIN; it reads on to the other's end.
    Fin,
    /// The same, when the other one has ended.
    AfterOther,
    /// By a RST, after a part of what it would send.
    Vanish,
}

/// What a peer does.
#[derive(Clone, Debug)]
struct Plan {
    sizes: Vec<usize>,
    end: End,
    seed: u64,
    /// Longest pause, in milliseconds; 0: it only yields.
    pause: u64,
}

impl Plan {
    fn new(rng: &mut Rng, ends: &[End]) -> Self {
        let most = rng.pick(&[0, 3, 24]);
        let sizes = (0..rng.below(most + 1)).map(|_| {
            let limit = rng.pick(&[2, 130, 5_000, 70_000, 150_000]);
            1 + rng.below(limit)
        });
        Self {
            sizes: sizes.collect(),
            end: rng.pick(ends),
            seed: rng.next(),
            pause: rng.pick(&[0, 3]),
        }
    }

    fn total(&self) -> u64 {
        self.sizes.iter().sum::<usize>() as u64
    }

    async fn pause(&self, rng: &mut Rng) {
        for _ in 0..rng.below(4) {
            tokio::task::yield_now().await;
        }
        if self.pause > 0 && rng.once_in(8) {
            tokio::time::sleep(Duration::from_millis(rng.next() % self.pause)).await;
        }
    }
}

async fn round(stage: &Stage, host: &Host<tokio::net::TcpStream>, seed: u64) -> Result<()> {
    let mut rng = Rng::new(seed);
    let client_plan = Plan::new(
        &mut rng,
        &[End::Fin, End::Fin, End::AfterOther, End::Vanish],
    );
    // One of both has to end by itself.
    let host_plan = match client_plan.end {
        End::AfterOther => Plan::new(&mut rng, &[End::Fin, End::Fin, End::Vanish]),
        _ => Plan::new(&mut rng, &[End::Fin, End::AfterOther, End::Vanish]),
    };
    let ticket = stage.gateway.ticket(host.addr()).await?;
    let Ends { client, host, .. } = open(&stage.endpoint, &ticket, host).await?;
    // Leaving by surprise is a RST.
    if client_plan.end == End::Vanish {
        reset(client.tcp())?;
    }
    if host_plan.end == End::Vanish {
        reset(&host)?;
    }
    let (client_saw, host_saw) = tokio::join!(
        play(client, &client_plan, UPLINK, DOWNLINK),
        play(host, &host_plan, DOWNLINK, UPLINK)
    );
    let check = |saw: Result<Option<Saw>>, other: &Plan| {
        let Some(saw) = saw? else {
            return anyhow::Ok(());
        };
        // A peer that has vanished may have been heard of in any way, but bytes are right.
        let is_whole = saw.bytes == other.total() && saw.end == StreamEnd::Closed;
        let is_excused = other.end == End::Vanish && saw.bytes <= other.total();
        ensure!(
            is_whole || is_excused,
            "{saw:?}, not {} bytes",
            other.total()
        );
        Ok(())
    };
    let verdict = check(client_saw, &host_plan)
        .context("client")
        .and_then(|()| check(host_saw, &client_plan).context("host"));
    verdict.with_context(|| format!("client {client_plan:?}, host {host_plan:?}"))
}

/// What a peer has received, and how it ended.
#[derive(Debug)]
struct Saw {
    bytes: u64,
    end: StreamEnd,
}

/// Plays a peer to its end; `None`: it has vanished.
async fn play(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    plan: &Plan,
    own: Pattern,
    theirs: Pattern,
) -> Result<Option<Saw>> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (ended, other_ended) = watch::channel(false);
    let read = async {
        let saw = receive(&mut reader, plan, theirs).await?;
        ended.send_replace(true);
        anyhow::Ok(saw)
    };
    let write = send(&mut writer, plan, own, other_ended);
    let (mut read, mut write) = (std::pin::pin!(read), std::pin::pin!(write));
    tokio::select! {
        saw = &mut read => {
            let saw = saw?;
            // The other one may be gone.
            let _ = write.await;
            Ok((plan.end != End::Vanish).then_some(saw))
        }
        // A write may fail before the end is read of a peer that has vanished.
        _written = &mut write => {
            if plan.end == End::Vanish {
                return Ok(None);
            }
            Ok(Some(read.await?))
        }
    }
}

async fn receive(
    reader: &mut (impl AsyncRead + Unpin),
    plan: &Plan,
    pattern: Pattern,
) -> Result<Saw> {
    let mut rng = Rng::new(plan.seed);
    let mut buffer = vec![0; rng.pick(&[100, 5_000, 200_000])];
    let mut bytes = 0;
    loop {
        plan.pause(&mut rng).await;
        let end = match within("bytes or an end", reader.read(&mut buffer)).await? {
            Ok(0) => StreamEnd::Closed,
            Ok(read) => {
                pattern.check(bytes, &buffer[..read])?;
                bytes += read as u64;
                continue;
            }
            Err(error) => StreamEnd::from_error(error)?,
        };
        return Ok(Saw { bytes, end });
    }
}

async fn send(
    writer: &mut (impl AsyncWrite + Unpin),
    plan: &Plan,
    pattern: Pattern,
    mut other_ended: watch::Receiver<bool>,
) -> Result<()> {
    let mut rng = Rng::new(plan.seed ^ 1);
    let count = match plan.end {
        End::Vanish => rng.below(plan.sizes.len() + 1),
        End::Fin | End::AfterOther => plan.sizes.len(),
    };
    let mut at = 0;
    for size in &plan.sizes[..count] {
        plan.pause(&mut rng).await;
        let bytes = pattern.bytes(at, *size);
        within("room", writer.write_all(&bytes)).await??;
        writer.flush().await?;
        at += *size as u64;
    }
    match plan.end {
        End::Vanish => return Ok(()),
        End::AfterOther => {
            within("the other's end", other_ended.wait_for(|ended| *ended)).await??;
        }
        End::Fin => {}
    }
    Ok(writer.shutdown().await?)
}
